"""The engine: plan a job, audit shards, fold their states, finalize tables."""

from memloc.engine._audit import audit as audit
from memloc.engine._audit import fold as fold
from memloc.engine._audit import job_spec as job_spec
from memloc.engine._audit import plan_cost as plan_cost
from memloc.engine._audit import prepare as prepare
from memloc.engine._audit import run_job as run_job
from memloc.engine._compare import Comparison as Comparison
from memloc.engine._compare import compare as compare
from memloc.engine._job import Job as Job
from memloc.engine._job import Options as Options
from memloc.engine._protocols import PROTOCOLS as PROTOCOLS
from memloc.engine._protocols import protocol_settings as protocol_settings
from memloc.engine._shard import ShardState as ShardState
from memloc.engine._shard import audit_shard as audit_shard
