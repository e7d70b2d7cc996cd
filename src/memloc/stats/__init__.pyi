from ._states import ClassState as ClassState
from ._states import PointState as PointState
from ._states import UnitState as UnitState
