"""A Lightning callback that keeps the splits, audits the encoder every few epochs, and writes what became of it as a
series."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from memloc.data import as_images, check_splits
from memloc.encoders import fingerprint, load_encoder
from memloc.engine import audit
from memloc.errors import DataError, MissingExtraError, SpecError, nearest
from memloc.report import write_report
from memloc.results import claimed, headline, read_table, write_table
from memloc.streams import Stream, generator
from memloc.views import Views


def _base() -> Any:
    """Lightning's Callback, from either of its packages."""
    for name in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks"):
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise MissingExtraError(
        "lightning is not installed. Expected it for AuditCallback. Install it with: pip install 'memloc[lightning]'"
    )


_Callback: Any = _base()


class AuditCallback(_Callback):
    """Audit an encoder while Lightning trains it.

    Some of the images are held out from training as external points; `training_rows` are the others, and the training
    set is to be
    made of them. Every `every` epochs, and after the last, the encoder is audited with them: against `g` where that is
    given, else alone (UnitMem and the alignment gap).

    Args:
        images: everything that could be trained on: a dataset, uint8 images or Images (see `memloc.as_images`).
        out: folder for `series.parquet` (the layers table of every audit, by epoch), the last audit and its report.
        encoder: the attribute of the LightningModule that holds the encoder, such as "backbone", or a function that
            finds it.
        every: epochs between audits.
        held_out: share of the images that become external points. splits: one name per image, instead of drawing them.
        g: a reference that has not seen the candidates.
        views: the recipe for views; use the policy of training. mean, std: per channel, what training subtracts and
            divides by. settings: further arguments of `memloc.audit`.

    >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    >>> len(AuditCallback(images, out="found", held_out=0.25).training_rows)
    15
    """

    def __init__(
        self,
        images: object,
        *,
        out: str | Path,
        encoder: str | Callable[[Any], nn.Module] = "encoder",
        every: int = 10,
        held_out: float = 0.2,
        splits: Sequence[str] | None = None,
        g: Any = None,
        views: Views | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.images = as_images(images)
        if every < 1:
            raise SpecError(f"every is {every}. Expected at least one epoch between audits. Pass every=10.")
        if splits is None and not 0 < held_out < 1:
            raise SpecError(f"held_out is {held_out}. Expected a share between 0 and 1. Pass held_out=0.2.")
        if splits is None:
            external = generator(Stream.CALLBACK_SPLIT, seed).permutation(len(self.images))[
                : round(held_out * len(self.images))
            ]
            drawn = np.full(len(self.images), "candidate", dtype=object)
            drawn[external] = "external"
            splits = drawn.tolist()
        check_splits(list(splits), len(self.images))
        if not {"candidate", "external"} <= set(splits):
            raise DataError(
                f"the splits are {', '.join(sorted(set(splits)))}. Expected candidates and external points, to compare"
                " them. Pass a larger held_out, or other splits."
            )
        self.splits, self.out, self.encoder, self.every, self.g = list(splits), Path(out), encoder, every, g
        self.views, self.settings = views or Views(), {"seed": seed, **settings}
        self.mean, self.std, self._last = mean, std, 0
        self._claim = ExitStack()  # the folder, while training runs

    @property
    def _shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.pixels.shape[1:]
        return int(channels), int(height), int(width)

    @property
    def training_rows(self) -> list[int]:
        """Rows of the images that may be trained on, for torch.utils.data.Subset."""
        return [row for row, split in enumerate(self.splits) if split in ("candidate", "shared")]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the folder, or refuse it if it holds the audits of other splits or views."""
        self._find(pl_module)
        if trainer.is_global_zero:
            spec = {
                "splits": self.splits,
                "images": self.images.fingerprint(),
                "views": str(self.views),
                "every": self.every,
                "mean": self.mean,
                "std": self.std,
                "g": None if self.g is None else fingerprint(load_encoder(self.g).module),
                "settings": {key: str(value) for key, value in self.settings.items()},
            }
            self._claim.enter_context(claimed(self.out, spec))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Audit if it is time."""
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and epoch % self.every == 0:
            self._audit(self._find(pl_module), epoch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Audit what training ended with, whatever ended it."""
        epoch = max(trainer.current_epoch, self._last)
        try:
            if trainer.is_global_zero and epoch > self._last:
                self._audit(self._find(pl_module), epoch)
        finally:
            self._claim.close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the folder go, where no epoch was trained, too."""
        self._claim.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let the folder go."""
        self._claim.close()

    def _find(self, module: Any) -> nn.Module:
        """The encoder within a LightningModule."""
        if callable(self.encoder):
            return self.encoder(module)
        found = getattr(module, self.encoder, None)
        if not isinstance(found, nn.Module):
            names = [name for name, _ in module.named_children()]
            raise SpecError(
                f"the LightningModule has no module {self.encoder!r}. {nearest(self.encoder, names)} Expected the"
                " encoder's attribute. Pass encoder=NAME, or a function that returns it."
            )
        return found

    def _audit(self, module: nn.Module, epoch: int) -> None:
        """One audit: a part of the series, and the newest tables and report."""
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # the same every time; they stand in the report
            loaded = load_encoder(module, mean=self.mean, std=self.std, shape=self._shape)
            found = audit(loaded, self.g, images=self.images, splits=self.splits, views=self.views, **self.settings)
        self._last = epoch
        path = self.out / "series.parquet"
        rows = found.layers.assign(epoch=epoch)
        if path.is_file():
            before = read_table(path)
            rows = pd.concat([before[before["epoch"] < epoch], rows], ignore_index=True)
        write_table(path, rows)
        found = replace(found, record={**found.record, "series": series_record(rows)})
        found.save(self.out)
        write_report(found, self.out / "report.html")


def series_record(rows: pd.DataFrame) -> dict[str, Any]:
    """What the report draws of a series: the memorization figure and UnitMem of each layer by epoch."""
    found = headline(rows)
    figure = "layermem" if found is None else found.figure
    columns = {"figure": figure, "unitmem": "unitmem_mean", "control": "unitmem_external_mean"}
    lines = {
        key: {
            layer: group[["epoch", name]].astype(float).values.tolist()
            for layer, group in rows.groupby("layer", sort=False)
        }
        for key, name in columns.items()
        if name in rows
    }
    return {"figure": figure, "lines": lines}
