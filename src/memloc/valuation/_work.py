"""A valuation from what a user names: a table or labelled images opened, checked, valued, repaired and described."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from memloc.data import Table, TableSpec, is_regression, open_images, read_table_file, table_fingerprint
from memloc.errors import DataError, SpecError
from memloc.progress import Report, roughly, silent
from memloc.results import claimed, digest_of, write_table
from memloc.streams import Stream, generator
from memloc.valuation._describe import describe, looked_through, shown_readings
from memloc.valuation._images import pixel_groups, pixel_table, recommended_share
from memloc.valuation._repair import FOLDS, How, check_repair, check_share, lowest_cells, repair, repair_gain
from memloc.valuation._spec import PixelSpec, ValueSpec
from memloc.valuation._value import Valuation, check_table, make_valuer, value_table


@dataclass(frozen=True)
class ValueWork:
    """A table to value, checked.

    Attributes:
        X, y: the table and its target. groups: columns that are drawn together. spec: how it is valued.
        table: how its columns were read; None of images.
        repairing, share: how and how much is repaired, if at all. block: side of pixel blocks.
        extra: what the record holds besides.
    """

    X: pd.DataFrame = field(repr=False)
    y: NDArray[Any] = field(repr=False)
    groups: NDArray[Any] | None = field(repr=False)
    spec: ValueSpec
    repairing: str | None = None
    share: float = 0.05
    block: int = 1
    extra: dict[str, Any] = field(default_factory=dict, repr=False)
    table: Table | None = field(default=None, repr=False)

    @property
    def _readings(self) -> tuple[Any, ...] | None:
        return None if self.table is None else self.table.valued

    def __post_init__(self) -> None:
        check_table(self.X, self.y, self.spec, groups=self.groups, readings=self._readings)
        if self.repairing is not None:
            if self.groups is not None:
                raise SpecError("--repair is for tables and images are given. Expected a table. Leave --repair out.")
            check_share(self.share)
            check_repair(self.X, self.repairing, self.y, regression=is_regression(self.y, self.spec.task))

    def cost(self) -> dict[str, Any]:
        """Rows, columns, learners, and expected seconds and memory from a few timed learners; of a table also how it is
        read."""
        spec, regression = self.spec, is_regression(self.y, self.spec.task)
        valuer = make_valuer(spec, regression=regression, groups=self.groups, readings=self._readings)
        plan = valuer.plan(self.X if self.groups is None else self.X.to_numpy(), self.y)
        folds = 1 if self.repairing is None else 1 + FOLDS * (1 - 1 / FOLDS)
        read: dict[str, Any] = {}
        if self.table is not None:
            read = {
                "task": "regression" if regression else "classification",
                "rows_left_out": self.table.left_out,
                "reading": shown_readings(self.table),
                "notices": list(self.table.notices),
            }
        return {
            "rows": self.X.shape[0],
            "columns": self.X.shape[1],
            "max_features": spec.max_features,
            **plan,
            "seconds": roughly(plan["seconds"] * folds),
            **read,
        }

    def run(self, out: Path, *, progress: Report = silent, overwrite: bool = False) -> Valuation:
        """Value, repair if asked, and write everything but the report; what is finished in `out` is read."""
        settings = {key: value for key, value in asdict(self.spec).items() if key != "workers"}
        repairing = {"repair": self.repairing, "repair_share": self.share if self.repairing else None}
        X, y = self.X, self.y
        fingerprint = table_fingerprint(X, y)
        identity = {**settings, "block": self.block, **repairing, "fingerprint": fingerprint}
        if self.table is not None:
            identity["columns"] = [[str(one.name), one.kind, dict(one.how)] for one in self.table.columns]
            identity["file"] = self.extra["file_digest"]
        with claimed(out, identity, overwrite=overwrite, inputs=(self.extra.get("data"),)):
            work = out / ".sums.npz"
            if (out / "value.json").is_file():
                work.unlink(missing_ok=True)  # where an end came before it was
                return Valuation.load(out)
            result = value_table(
                X, y, self.spec, groups=self.groups, readings=self._readings,
                extra={**self.extra, "fingerprint": fingerprint}, work=work, report=progress,
            )  # fmt: skip
            if self.repairing is not None:
                result.record["repair"] = self._repaired(result, out, progress)
            result = describe(result, X) if self.table is None else looked_through(result, self.table, progress)
            result.save(out)
            work.unlink()
            (out / f"{work.name}.damaged").unlink(missing_ok=True)
            return result

    def _repaired(self, result: Valuation, out: Path, progress: Report) -> dict[str, Any]:
        """Write the repaired table; what the repair gains on rows kept out."""
        how: How = cast("How", self.repairing)
        grid = result.cells["value"].to_numpy().reshape(self.X.shape)
        repaired = repair(self.X, lowest_cells(grid, self.share), how)
        repaired = repaired.assign(**{self.extra["target"]: np.asarray(self.y)})
        if self.table is not None and self.table.left_out:
            repaired.insert(0, "row" if "row" not in repaired else "row (of the file)", self.table.rows)
        write_table(out / "repaired.parquet", repaired.reset_index(drop=True))
        valuer = make_valuer(self.spec, regression=is_regression(self.y, self.spec.task), readings=self._readings)
        gain = repair_gain(self.X, np.asarray(self.y), valuer, share=self.share, how=how, report=progress)
        folds = {name: values.tolist() for name, values in gain._asdict().items()}
        return {"how": how, "share": self.share, **folds}


def table_work(
    path: str,
    target: str | None,
    spec: ValueSpec,
    columns: TableSpec | None = None,
    *,
    repairing: str | None = None,
    share: float = 0.05,
) -> ValueWork:
    """The valuation of a table.

    Args:
        path, target, columns: as `read_table_file` takes them. repairing, share: how and how much to repair.
    """
    if target is None:
        raise SpecError(f"{path!r} is given without a target. Expected the column to predict. Pass --target COLUMN.")
    table = read_table_file(path, target, columns)
    extra: dict[str, Any] = {"data": path, "target": target, "notices": list(table.notices)}
    extra["file_digest"] = digest_of(Path(path).expanduser())
    return ValueWork(table.X, table.y.to_numpy(), None, spec, repairing, share, extra=extra, table=table)


def image_work(
    where: str,
    spec: ValueSpec,
    pixels: PixelSpec | None = None,
    *,
    repairing: str | None = None,
    size: int | None = None,
    max_bad: int = 0,
) -> ValueWork:
    """The valuation of labelled images, whose pixels are the columns; arguments as in `open_images`."""
    pixels = pixels or PixelSpec()
    images = open_images(where, size=size, max_bad=max_bad)
    if images.labels is None:
        raise DataError(
            f"{where!r} has no labels. Expected a label per image, such as folders of classes. Pass labelled images."
        )
    known = torch.nonzero(images.labels >= 0).flatten()
    if pixels.limit is not None:
        chosen = generator(Stream.VALUE_SAMPLE, spec.seed).permutation(len(known))[: pixels.limit]
        known = known[torch.from_numpy(np.sort(chosen))]
    images = images.take(known)
    assert images.labels is not None, "they were looked at"
    values = images.pixels[:].numpy()
    _, channels, height, width = values.shape
    names = [
        f"{channel}:{row},{column}" for channel in range(channels) for row in range(height) for column in range(width)
    ]
    labels = np.array(
        [images.class_names[label] if images.class_names else str(label) for label in images.labels.tolist()]
    )
    X = pd.DataFrame(pixel_table(values), columns=names)
    groups = pixel_groups(channels, height, width, block=pixels.block)
    if pixels.region is not None:
        share = recommended_share(int(groups.max()) + 1, max(round((pixels.region / pixels.block) ** 2), 1))
        spec = replace(spec, max_features=share)
    extra = {
        "image_shape": [channels, height, width],
        "block": pixels.block,
        "names": list(images.names),
        "data": where,
        "target": None,
    }
    return ValueWork(X, labels, groups, spec, repairing, block=pixels.block, extra=extra)
