"""A coreset from what a user names: images or a table, opened, checked, selected, and what is finished read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memloc.coreset._agreement import check_names, scores_of
from memloc.coreset._crust import Crust
from memloc.coreset._image_work import ImageWork, labelled_images
from memloc.coreset._results import CoresetRun
from memloc.coreset._spec import CoresetSpec, RobustSpec
from memloc.coreset._table_work import TableWork
from memloc.data import TableSpec
from memloc.encoders import RANDOM, fit_for, load_encoder
from memloc.errors import SpecError
from memloc.progress import Report, silent
from memloc.results import claimed, remove_folder


class CoresetWork:
    """What will be selected from, checked; `cost` says what it takes, `run` does it.

    Args:
        data: images as `open_images` takes them, or with `table` a table with `target`, read as `columns` says.
        spec, robust, crust: settings. test: images or a table for accuracy.
        scores: folders of audits or of valuations of the same points, to compare with.
        size, max_bad: as in `open_images`.
    """

    def __init__(
        self,
        data: str,
        spec: CoresetSpec,
        robust: RobustSpec,
        crust: Crust,
        *,
        table: bool = False,
        target: str | None = None,
        columns: TableSpec | None = None,
        test: str | None = None,
        scores: Sequence[str] = (),
        size: int | None = None,
        max_bad: int = 0,
    ) -> None:
        self._inputs = (data, test, *scores, spec.encoder, spec.weights)
        self._named = {"by": spec.by, "data": data, "test": test, "scores": list(scores)}
        self._spec, self._robust, self._crust = spec, robust, crust
        labelled = spec.by == "gradient"
        if table:
            if not labelled:
                raise SpecError(
                    "--by representation is for images and a table is given. Expected --by gradient. Leave --by out."
                )
            self._work: TableWork | ImageWork = TableWork(
                data, target, spec.truth, spec.learner, test, crust, robust, spec.made, columns
            )
        else:
            _check_images(spec, robust, crust, test, scores)
            weights = spec.weights or (RANDOM if labelled else None)
            fit = fit_for(spec.encoder, size, lambda: load_encoder(spec.encoder, weights=weights))
            images = labelled_images(data, fit, max_bad, labelled=labelled)
            tested = None if test is None else labelled_images(test, fit, max_bad, labelled=True)
            self._work = ImageWork(images, data, spec.encoder, spec.weights, tested, crust, robust, spec.made, spec.by)
        self._others = [scores_of(folder) for folder in scores]
        for other in self._others:
            check_names(self._work.names, other)

    def cost(self) -> dict[str, Any]:
        """What it will take."""
        return self._work.cost()

    def run(self, out: Path, *, progress: Report = silent, overwrite: bool = False) -> CoresetRun:
        """Select, and write everything but the report; what is finished in `out` is read."""
        identity = {
            **asdict(self._robust),
            **{f"crust_{key}": value for key, value in vars(self._crust).items()},
            **self._spec.made,
            **self._named,
            **self._work.identity(),
        }
        identity.pop("device")
        with claimed(out, identity, overwrite=overwrite, inputs=self._inputs):
            if (out / "coreset.json").is_file():
                remove_folder(out / "training")  # where an end came before it was
                return CoresetRun.load(out)
            return self._work.run(self._others, out, progress)


def _check_images(spec: CoresetSpec, robust: RobustSpec, crust: Crust, test: str | None, scores: Sequence[str]) -> None:
    """Raise SpecError for settings that do not go with how images are selected."""
    if spec.by == "gradient":
        if robust.warmup >= robust.epochs:
            raise SpecError(
                f"warmup is {robust.warmup} of {robust.epochs} epochs. Expected fewer, so that there is a selection."
                f" Pass --warmup {max(robust.epochs // 4, 1)}{' and --epochs 2' if robust.epochs < 2 else ''}."
            )
        return
    if crust.group_by is not None:
        raise SpecError(
            f"--group-by is {crust.group_by} and --by representation looks at no labels. Expected none. Leave"
            " --group-by out."
        )
    if spec.noise is not None or test is not None or scores:
        raise SpecError(
            "--noise, --test or --scores is given with --by representation, which looks at no labels. Expected --by"
            " gradient for them. Leave them out."
        )
