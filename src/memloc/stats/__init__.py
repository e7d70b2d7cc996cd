"""Mergeable states of batches of points: of(batch), merge(a, b), nothing else."""

from memloc.stats._states import ClassState as ClassState
from memloc.stats._states import PointState as PointState
from memloc.stats._states import UnitState as UnitState
