from ._parts import Part as Part
from ._parts import check_complete as check_complete
from ._parts import compute_part as compute_part
from ._parts import jobs_of as jobs_of
from ._parts import join_jobs as join_jobs
from ._parts import sweep_claims as sweep_claims
from ._processes import run_apart as run_apart
from ._shards import compute_shards as compute_shards
