"""A coreset of images, from what a user names: opened, checked, trained on or encoded, selected and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from memloc.coreset._classifier import Classifier
from memloc.coreset._cost import representation_cost, training_cost
from memloc.coreset._crust import Crust
from memloc.coreset._noise import noisy
from memloc.coreset._results import CoresetRun
from memloc.coreset._runs import pictures, representation_run, robust_run
from memloc.coreset._sources import class_numbers
from memloc.coreset._spec import RobustSpec
from memloc.data import Images, matched_labels, open_images
from memloc.encoders import RANDOM, load_encoder, save_weights
from memloc.errors import DataError
from memloc.fit import Fit
from memloc.results import remove_folder, write_table


class ImageWork:
    """A coreset of images, checked."""

    def __init__(
        self,
        images: Images,
        data: str,
        encoder: str,
        weights: str | None,
        test: Images | None,
        crust: Crust,
        spec: RobustSpec,
        made: dict[str, Any],
        by: str,
    ) -> None:

        self.images, self.data, self.test, self.crust, self.spec, self.by = images, data, test, crust, spec, by
        self.how: dict[str, Any] = {"encoder": encoder, "weights": weights}
        self.names = list(images.names)
        channels, height, width = images.pixels.shape[1:]
        shape = (channels, height, width)
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            self.encoder = load_encoder(encoder, weights=weights or (RANDOM if by == "gradient" else None), shape=shape)
            if by == "gradient":
                assert images.labels is not None, "they were looked at"
                self.truth = None if made["noise"] is None else images.labels
                self.labels = class_numbers(noisy(images.labels, made, spec.seed), len(images))
                crust.check(self.labels)
                if test is not None:
                    matched_labels(images, test)  # which is looked at here, before the work
                classes = int(self.labels.max()) + 1
                self.model = Classifier(self.encoder, classes, shape)
                self.trained = {"classes": classes, "shape": list(shape), "saved": "model.safetensors"}
            else:
                crust.check(images.ids)

    def identity(self) -> dict[str, Any]:
        """What makes it this work and no other."""
        return {**self.how, "fingerprint": self.images.fingerprint()}

    def cost(self) -> dict[str, Any]:
        """What it will take."""

        if self.by == "representation":
            return representation_cost(self.encoder, self.images, self.crust, device=self.spec.device)
        tested = 0 if self.test is None else len(self.test)
        return training_cost(self.model, self.images, self.crust, self.spec, labels=self.labels, tested=tested)

    def run(self, others: list[pd.DataFrame], out: Path, progress: Any) -> CoresetRun:
        """Train or encode, select, and write everything but the report."""

        kept = {"data": self.data, "class_names": list(self.images.class_names), **self.how}
        if self.by == "representation":
            found = representation_run(
                self.encoder, self.images, self.crust, device=self.spec.device, progress=progress, record=kept
            )
        else:
            found, run = robust_run(
                self.model,
                self.images,
                self.crust,
                self.spec,
                points=self.images.ids.tolist(),
                names=self.images.names,
                labels=self.labels,
                truth=self.truth,
                test=self.test,
                scores=others,
                out=out / "training",
                progress=progress,
                record={**kept, **self.trained},
            )
            save_weights(out / "model.safetensors", run.model.cpu(), {"memloc_encoder": str(self.how["encoder"])})
        write_table(out / "thumbnails.parquet", pictures(self.images, found))
        found.save(out)
        remove_folder(out / "training")
        return found


def labelled_images(where: str, size: Fit, max_bad: int, *, labelled: bool) -> Images:
    """Images as `open_images` opens them; those with a label alone, where labels are needed."""
    images = open_images(where, size=size, max_bad=max_bad)
    if not labelled:
        return images
    if images.labels is None:
        raise DataError(
            f"{where!r} has no labels. Expected a label per image, such as folders of classes. Pass labelled images."
        )
    return images if bool((images.labels >= 0).all()) else images.take(torch.nonzero(images.labels >= 0).flatten())
