from ._processes import run_apart as run_apart
from ._shards import compute_shards as compute_shards
