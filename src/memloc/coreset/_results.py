"""What a coreset command found, as tables in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.coreset._crust import Coreset
from memloc.results import conform, is_there, read_record, read_table, save_results

_TABLES = ("coreset", "labels", "epochs")


@dataclass(frozen=True)
class CoresetRun:
    """A selection with what led to it.

    Attributes:
        tables: "coreset", and of a training also "labels" and "epochs", by the names of their files.
        record: settings, counts, warnings and the answer (coreset.json).
    """

    tables: dict[str, pd.DataFrame] = field(repr=False)
    record: dict[str, Any] = field(repr=False)

    def save(self, folder: str | Path) -> Path:
        """Write the tables and coreset.json (last) to a folder."""
        return save_results(folder, self.tables, self.record, "coreset.json")

    def suspected(self) -> list[str]:
        """Names of the points whose label is suspected, the least likely label first."""
        labels = self.tables.get("labels")
        return [] if labels is None else labels[labels["suspected"] == 1].sort_values("p_label")["name"].tolist()

    @staticmethod
    def load(folder: str | Path) -> CoresetRun:
        """Read what `save` wrote.

        Raises:
            DataNotFoundError: nothing finished there. ResultsError: another schema version.
        """
        folder = Path(folder)
        record = read_record(folder, "coreset.json", "coreset", f"memloc coreset DATA --out {folder}")
        there = [name for name in _TABLES if is_there(folder / f"{name}.parquet")]
        return CoresetRun({name: conform(name, read_table(folder / f"{name}.parquet")) for name in there}, record)


def picks_table(coreset: Coreset, points: Sequence[int] | NDArray[np.int64], *, grouped: bool) -> pd.DataFrame:
    """The selected points by their ids, in pick order, group after group; the class is -1 where all were one group.

    >>> from memloc.coreset import Crust
    >>> coreset = Crust(budget=1, group_by=None).select(np.array([[0.0], [1.0], [3.0]]))
    >>> picks_table(coreset, [7, 8, 9], grouped=False).values.tolist()
    [[8.0, -1.0, 0.0, 6.0, 3.0]]
    """
    host = coreset.on(None)
    groups = np.asarray(host.groups)
    ranks = pd.Series(groups).groupby(groups).cumcount().to_numpy()
    return pd.DataFrame(
        {
            "point": np.asarray(points)[host.indices],
            "class": groups if grouped else np.full(len(groups), -1),
            "rank": ranks,
            "gain": host.gains,
            "weight": host.weights,
        }
    )
