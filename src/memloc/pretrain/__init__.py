"""Training: SimCLR, the loop, encoder pairs with their four splits, and subset ensembles."""

from memloc.pretrain._loop import train_encoder as train_encoder
from memloc.pretrain._plan import Plan as Plan
from memloc.pretrain._plan import make_plan as make_plan
from memloc.pretrain._plan import slots as slots
from memloc.pretrain._runs import EncoderPair as EncoderPair
from memloc.pretrain._runs import Ensemble as Ensemble
from memloc.pretrain._runs import Run as Run
from memloc.pretrain._runs import load_run as load_run
from memloc.pretrain._runs import spec_of as spec_of
from memloc.pretrain._runs import train as train
from memloc.pretrain._runs import train_cost as train_cost
from memloc.pretrain._runs import train_ensemble as train_ensemble
from memloc.pretrain._runs import train_pair as train_pair
from memloc.pretrain._simclr import nt_xent as nt_xent
from memloc.pretrain._simclr import projection_head as projection_head
from memloc.pretrain._spec import TrainSpec as TrainSpec
from memloc.pretrain._spec import make_spec as make_spec
