"""Augmented views: policies as data, counter-based and Sobol draws, batched application on the device."""

from memloc.views._draws import owen_scramble as owen_scramble
from memloc.views._draws import philox as philox
from memloc.views._draws import uniforms as uniforms
from memloc.views._policy import POLICIES as POLICIES
from memloc.views._policy import Policy as Policy
from memloc.views._policy import policy_named as policy_named
from memloc.views._views import AUTO_COUNTS as AUTO_COUNTS
from memloc.views._views import Views as Views
