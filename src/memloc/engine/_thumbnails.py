"""Small pictures of the points that the report shows."""

from __future__ import annotations

import pandas as pd

from memloc.data import thumbnail
from memloc.engine._job import Job
from memloc.results import ranking_column

_BYTES = 600_000  # of pictures in all
_LIMIT = 240  # pictures, so that the report stays under 1.5 MB
_EXTREMES, _PER_LAYER = 40, 8


def thumbnails(job: Job, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """PNG pictures of the named points, the most and least memorized, each layer's most memorized, and those that drive
    units."""
    points, layers = tables["points"], tables["point_layers"]
    by = ranking_column(points)
    candidates = points[points["split"] == "candidate"].sort_values(by, ascending=False)
    named = candidates[candidates["named"]].sort_values("evidence", ascending=False)
    wanted: list[int] = [
        *named["point"].head(_EXTREMES),
        *candidates["point"].head(_EXTREMES),
        *candidates["point"].tail(_EXTREMES),
    ]
    among = layers[layers["point"].isin(candidates["point"])].sort_values(by, ascending=False)
    for _, group in among.groupby("layer", sort=False):
        wanted += group["point"].head(_PER_LAYER).tolist()
    wanted += points.sort_values("n_units", ascending=False).query("n_units > 0")["point"].tolist()
    row = {point: number for number, point in enumerate(job.images.ids.tolist())}
    chosen = list(dict.fromkeys(int(point) for point in wanted))[:_LIMIT]
    pictures: list[bytes] = []
    for point in chosen:
        pictures.append(thumbnail(job.images.pixels[row[point]]))
        if sum(map(len, pictures)) > _BYTES:
            break
    points_shown = pd.Series(chosen[: len(pictures)], dtype="int64")
    return pd.DataFrame({"point": points_shown, "png": pd.Series(pictures, dtype=object)})
