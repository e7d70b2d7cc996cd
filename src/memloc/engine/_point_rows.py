"""The tables of points, and of points by layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from memloc.engine._job import Job
from memloc.engine._scores import Scores, run_variance
from memloc.engine._shard import ShardState
from memloc.metrics import Z95, empirical_p_values, q_values, sslmem_range


def point_rows(job: Job, state: ShardState, scores: Scores, units: pd.DataFrame) -> pd.DataFrame:
    """One row per point, at the encoder's output."""
    last = len(job.layers) - 1  # the encoder's returned output
    score, candidate = scores.ratio[:, last], torch.from_numpy(job.split == "candidate")
    raw = scores.align_g[:, last] - scores.align_f[:, last]
    error = (state.points.columns["variance"] + run_variance(job, scores.align[:, last])).sqrt()
    table = pd.DataFrame({"point": job.images.ids.numpy(), "name": list(job.images.names), "split": job.split})
    if job.images.labels is not None:
        table["label"] = job.images.labels.numpy()
    table["sslmem"] = score.numpy()
    table["sslmem_pairwise"] = scores.pairwise[:, last, 0].numpy()
    table["sslmem_raw"] = raw.numpy()
    table["sslmem_range"] = sslmem_range(raw).numpy()
    table["sslmem_low"], table["sslmem_high"] = (score - Z95 * error).numpy(), (score + Z95 * error).numpy()
    external = score[torch.from_numpy(job.split == "external")]
    if len(external[~external.isnan()]):
        p_value = torch.full_like(score, torch.nan)
        p_value[candidate] = empirical_p_values(score[candidate], external)
        table["p_value"], table["q_value"] = p_value.numpy(), q_values(p_value).numpy()
    table["align_in"], table["align_out"] = scores.align_in[:, last].numpy(), scores.align_out[:, last].numpy()
    table["n_units"] = table["point"].map(units["point"].value_counts()).fillna(0).astype(np.int64)
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
        }
    )
