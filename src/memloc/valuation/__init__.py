"""2D-OOB cell values and Data-OOB row values, and what to do with them."""

from memloc.valuation._baseline import class_z_scores as class_z_scores
from memloc.valuation._describe import describe as describe
from memloc.valuation._describe import table_fingerprint as table_fingerprint
from memloc.valuation._estimator import TwoDOOB as TwoDOOB
from memloc.valuation._images import pixel_groups as pixel_groups
from memloc.valuation._images import pixel_table as pixel_table
from memloc.valuation._images import recommended_share as recommended_share
from memloc.valuation._repair import FOLDS as FOLDS
from memloc.valuation._repair import Gain as Gain
from memloc.valuation._repair import How as How
from memloc.valuation._repair import check_repair as check_repair
from memloc.valuation._repair import check_share as check_share
from memloc.valuation._repair import lowest_cells as lowest_cells
from memloc.valuation._repair import repair as repair
from memloc.valuation._repair import repair_gain as repair_gain
from memloc.valuation._tables import TableEncoder as TableEncoder
from memloc.valuation._value import LEARNERS as LEARNERS
from memloc.valuation._value import TEXT_TABLES as TEXT_TABLES
from memloc.valuation._value import Valuation as Valuation
from memloc.valuation._value import ValueSpec as ValueSpec
from memloc.valuation._value import check_table as check_table
from memloc.valuation._value import is_regression as is_regression
from memloc.valuation._value import make_valuer as make_valuer
from memloc.valuation._value import open_table as open_table
from memloc.valuation._value import value_table as value_table
from memloc.valuation._value import z_scores as z_scores
