"""Linear, k-nearest-neighbour and dense probes of a frozen encoder, and Déjà Vu, a baseline score of memorization."""

from memloc.probe._accuracy import Probe as Probe
from memloc.probe._accuracy import paired_difference as paired_difference
from memloc.probe._accuracy import scored as scored
from memloc.probe._accuracy import wilson as wilson
from memloc.probe._dejavu import check_public as check_public
from memloc.probe._dejavu import corners as corners
from memloc.probe._dejavu import dejavu as dejavu
from memloc.probe._dejavu import dejavu_agreement as dejavu_agreement
from memloc.probe._dejavu import label_share as label_share
from memloc.probe._encoders import KINDS as KINDS
from memloc.probe._encoders import check_probe as check_probe
from memloc.probe._encoders import matched_labels as matched_labels
from memloc.probe._encoders import probe_encoder as probe_encoder
from memloc.probe._probes import dense_probe as dense_probe
from memloc.probe._probes import knn_probe as knn_probe
from memloc.probe._probes import linear_probe as linear_probe
from memloc.probe._probes import patch_labels as patch_labels
