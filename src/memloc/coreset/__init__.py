"""CRUST: robust coresets against noisy labels, and training on them."""

from memloc.coreset._agreement import agreement as agreement
from memloc.coreset._agreement import check_names as check_names
from memloc.coreset._agreement import scores_of as scores_of
from memloc.coreset._classifier import Classifier as Classifier
from memloc.coreset._classifier import load_classifier as load_classifier
from memloc.coreset._cost import representation_cost as representation_cost
from memloc.coreset._cost import training_cost as training_cost
from memloc.coreset._crust import Coreset as Coreset
from memloc.coreset._crust import Crust as Crust
from memloc.coreset._crust import loss_gradients as loss_gradients
from memloc.coreset._estimator import TableClassifier as TableClassifier
from memloc.coreset._estimator import check_folds as check_folds
from memloc.coreset._noise import CIFAR10_PAIRS as CIFAR10_PAIRS
from memloc.coreset._noise import asymmetric_noise as asymmetric_noise
from memloc.coreset._noise import symmetric_noise as symmetric_noise
from memloc.coreset._results import CoresetRun as CoresetRun
from memloc.coreset._results import picks_table as picks_table
from memloc.coreset._runs import pictures as pictures
from memloc.coreset._runs import representation_run as representation_run
from memloc.coreset._runs import robust_run as robust_run
from memloc.coreset._sampler import CrustSampler as CrustSampler
from memloc.coreset._sources import class_numbers as class_numbers
from memloc.coreset._spec import RobustSpec as RobustSpec
from memloc.coreset._train import RobustRun as RobustRun
from memloc.coreset._train import train_robust as train_robust
