"""The tables of points, and of points by layer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from memloc.engine._job import Job
from memloc.engine._naming import Naming
from memloc.engine._scores import Scores, candidates, run_variance
from memloc.engine._shard import ShardState
from memloc.metrics import Z95, sslmem_range


def point_rows(
    job: Job, state: ShardState, scores: Scores, units: pd.DataFrame, leading: str, naming: Naming
) -> pd.DataFrame:
    """One row per point: SSLMem at the encoder's output, and the score at the reading that leads."""
    last = job.output
    score, candidate = scores.ratio[:, last], candidates(job)
    raw = scores.align_g[:, last] - scores.align_f[:, last]
    error = (state.points.columns["variance"] + run_variance(job, scores.align[:, last])).sqrt()
    table = pd.DataFrame({"point": job.images.ids.numpy(), "name": list(job.images.names), "split": job.split})
    if job.images.labels is not None:
        table["label"] = job.images.labels.numpy()
    table["sslmem"] = score.numpy()
    table["sslmem_pairwise"] = scores.pairwise[:, last, 0].numpy()
    table["sslmem_raw"] = raw.numpy()
    table["sslmem_range"] = sslmem_range(raw, candidate).numpy()
    table["sslmem_low"], table["sslmem_high"] = (score - Z95 * error).numpy(), (score + Z95 * error).numpy()
    at = [layer.name for layer in job.layers].index(leading)
    regressed, error = scores.regressed[:, at], scores.error[:, at]
    table["score"] = regressed.numpy()
    table["score_low"], table["score_high"] = ((regressed + sign * Z95 * error).numpy() for sign in (-1, 1))
    table["evidence"], table["p_value"] = naming.evidence.numpy(), naming.p_value.numpy()
    table["q_value"], table["named"] = naming.q_value.numpy(), naming.named.numpy()
    table["decoy"] = naming.decoy.numpy()
    table["align_in"], table["align_out"] = scores.align_in[:, last].numpy(), scores.align_out[:, last].numpy()
    own = units[units["layer"].isin([layer.name for layer in job.encoders[0].layers])]
    table["n_units"] = table["point"].map(own["point"].value_counts()).fillna(0).astype(np.int64)
    return table


def point_layer_rows(job: Job, scores: Scores) -> pd.DataFrame:
    """One row per point and layer."""
    points, layers = scores.score.shape
    return pd.DataFrame(
        {
            "point": np.repeat(job.images.ids.numpy(), layers),
            "layer": (
                pd.Categorical(
                    [layer.name for layer in job.layers] * points, [layer.name for layer in job.layers]
                ).astype(str)
            ),
            "align_in": scores.align_in.flatten().numpy(),
            "align_out": scores.align_out.flatten().numpy(),
            "sslmem": scores.ratio.flatten().numpy(),
            "score": scores.regressed.flatten().numpy(),
        }
    )
