"""Act on what was found: replace layers, fine-tune some, prune units, insert a point into a unit, retrain without
points."""

from memloc.interventions._finetune import Tuned as Tuned
from memloc.interventions._finetune import check_finetune as check_finetune
from memloc.interventions._finetune import finetune_layers as finetune_layers
from memloc.interventions._insert import GOALS as GOALS
from memloc.interventions._insert import INSERT_SCORED as INSERT_SCORED
from memloc.interventions._insert import INSERT_VIEWS as INSERT_VIEWS
from memloc.interventions._insert import Inserted as Inserted
from memloc.interventions._insert import check_insert as check_insert
from memloc.interventions._insert import insert_point as insert_point
from memloc.interventions._layers import CRITERIA as CRITERIA
from memloc.interventions._layers import ORDERS as ORDERS
from memloc.interventions._layers import choose_layers as choose_layers
from memloc.interventions._layers import figure_of as figure_of
from memloc.interventions._layers import replace_layers as replace_layers
from memloc.interventions._prune import SCOPES as SCOPES
from memloc.interventions._prune import UNIT_ORDERS as UNIT_ORDERS
from memloc.interventions._prune import choose_units as choose_units
from memloc.interventions._prune import prune_units as prune_units
from memloc.interventions._remove import POINT_ORDERS as POINT_ORDERS
from memloc.interventions._remove import choose_points as choose_points
from memloc.interventions._remove import encoder_named as encoder_named
from memloc.interventions._remove import remove_points as remove_points
from memloc.interventions._write import CHECKPOINT as CHECKPOINT
from memloc.interventions._write import RECORD as RECORD
from memloc.interventions._write import intervene as intervene
