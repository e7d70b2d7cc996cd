"""CRUST: robust coresets against noisy labels, and training on them."""

from memloc.coreset._crust import Coreset as Coreset
from memloc.coreset._crust import Crust as Crust
from memloc.coreset._crust import loss_gradients as loss_gradients
