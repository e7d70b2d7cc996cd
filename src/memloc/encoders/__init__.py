"""Encoders and layers: the built-in nets, any nn.Module, taps, and safe checkpoints."""

from memloc.encoders._checkpoints import fingerprint as fingerprint
from memloc.encoders._checkpoints import load_weights as load_weights
from memloc.encoders._checkpoints import read_weights as read_weights
from memloc.encoders._checkpoints import save_weights as save_weights
from memloc.encoders._device import has_bfloat16 as has_bfloat16
from memloc.encoders._device import pick_device as pick_device
from memloc.encoders._device import versions as versions
from memloc.encoders._encoder import BUILT_IN as BUILT_IN
from memloc.encoders._encoder import RANDOM as RANDOM
from memloc.encoders._encoder import Encoder as Encoder
from memloc.encoders._encoder import Preprocess as Preprocess
from memloc.encoders._encoder import load_encoder as load_encoder
from memloc.encoders._encoder import same_architecture as same_architecture
from memloc.encoders._fold import folded as folded
from memloc.encoders._layers import OUTPUT as OUTPUT
from memloc.encoders._layers import Layer as Layer
from memloc.encoders._layers import as_tensor as as_tensor
from memloc.encoders._layers import find_layers as find_layers
from memloc.encoders._layouts import pick_weights as pick_weights
from memloc.encoders._resnet import ResNet as ResNet
from memloc.encoders._resnet9 import ResNet9 as ResNet9
from memloc.encoders._taps import check_finite_reading as check_finite_reading
from memloc.encoders._taps import tapped as tapped
from memloc.encoders._taps import unit_means as unit_means
