"""Train on coresets of all points, selected anew as training goes on, so that wrong labels are not memorized."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memloc.coreset._crust import Coreset, Crust
from memloc.coreset._estimator import fit_robust
from memloc.coreset._points import check_useful, is_useful, measures, points_table
from memloc.coreset._sampler import CrustSampler
from memloc.coreset._sources import Source, class_numbers
from memloc.coreset._spec import RobustSpec
from memloc.encoders import has_bfloat16, pick_device
from memloc.errors import DataError, SpecError, TrainingError, warn
from memloc.progress import Report, silent
from memloc.results import claimed, sealing, set_aside, unsealed
from memloc.settings import make_spec
from memloc.streams import Stream, generator

Selector = Callable[[Tensor, Tensor, int], Any]
CHECKPOINT_VERSION = 2  # of what a checkpoint holds; 1 (memloc 0.1) drew noise and partners from other streams
_SCORED_AT_ONCE = 1000  # points
_STRIDE = 1_000_003  # between the seeds of epochs


@dataclass(frozen=True)
class RobustRun:
    """A model that was trained on coresets, and what was trusted on the way.

    Attributes:
        model: the module or estimator, trained. history: one row an epoch (of an estimator: a round).
        points: one row a point: label, predicted, p_label, kept, n_kept, suspected, and true_label where known.
        coreset: the last selection; None if none was made. spec: the settings.
    """

    model: Any = field(repr=False)
    history: pd.DataFrame = field(repr=False)
    points: pd.DataFrame = field(repr=False)
    coreset: Coreset | None
    spec: RobustSpec


def train_robust(
    model: Any,
    dataset: Any,
    *,
    crust: Crust | Selector | None = Crust(objective="centrality", group_by="prediction"),
    labels: Any = None,
    true_labels: Any = None,
    test: Any = None,
    plain: Any = None,
    out: str | Path | None = None,
    progress: Report = silent,
    **settings: Any,
) -> RobustRun:
    """Train a classifier on coresets; what is dropped at the end and predicted otherwise is suspected to be
    mislabelled.

    Args:
        model: an nn.Module from inputs to logits, trained in place; or a scikit-learn classifier, which is cloned.
        dataset: memloc's Images, a pair (X, y) of arrays, or a map-style dataset of (input, label). uint8 inputs are
            scaled to [0, 1].
        crust: what selects; a function of (logits, labels, epoch) that returns a Coreset or points' numbers; or None
            for plain training.
        labels: class numbers instead of the dataset's. true_labels: known truth, to report and never to train on.
        test: dataset for accuracy after every epoch; its classes meet those of `dataset` by name where both name them
            (Images, or datasets with .classes). plain: the same points as `dataset` without augmentation, for
            selection.
        out: folder of a checkpoint to resume from, which also keeps the finished training; of modules alone. progress:
            called with epochs done and in all.
        settings: see RobustSpec.
    Returns:
        RobustRun.
    Raises:
        SpecError, DataError, ShapeError before training; DataError after it where the model predicts labels
        no better than the commonest class does; TrainingError if the loss is no longer finite.
    Source: REFERENCE C1, C2; Mirzasoleiman et al., NeurIPS 2020.

    >>> x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    >>> run = train_robust(nn.Linear(4, 2), (x, (x[:, 0] > 0).long()), epochs=6, warmup=3, learning_rate=0.5)
    >>> len(run.history), len(run.coreset) == int(run.points["kept"].sum())
    (6, True)
    """
    spec: RobustSpec = make_spec(RobustSpec, settings)
    if not isinstance(model, nn.Module):
        if not hasattr(model, "fit") or not hasattr(model, "predict_proba"):
            raise SpecError(
                f"the model is {type(model).__name__}. Expected an nn.Module that returns logits, or a scikit-learn"
                " classifier with predict_proba. Pass one."
            )
        if not isinstance(crust, Crust):
            raise SpecError(
                "crust is no Crust and the model is an estimator. Expected a Crust. Pass memloc.coreset.Crust(...)."
            )
        if out is not None:
            raise SpecError(
                "out is given and the model is an estimator, whose fits are not resumed. Expected none. Leave out="
                " away."
            )
        found = fit_robust(
            model, dataset, crust, spec, labels=labels, true_labels=true_labels, test=test, progress=progress
        )
        return RobustRun(*found, spec)
    source = Source(dataset, labels, augmentation=spec.augmentation, plain=plain, seed=spec.seed)
    truth = None if true_labels is None else class_numbers(true_labels, len(source), training=False)
    tested = None if test is None else Source(test, beside=source)
    training = _Training(model, source, crust, spec, truth, tested)
    training.check()
    selector = vars(crust) if isinstance(crust, Crust) else getattr(crust, "__qualname__", str(crust))
    identity = {**asdict(spec), "crust": selector, "points": len(source), "data": source.fingerprint()}
    identity.pop("device")
    with contextlib.nullcontext() if out is None else claimed(Path(out), identity), torch.random.fork_rng():
        checkpoint = None if out is None else Path(out) / "training.pt"
        training.resume(checkpoint)
        for epoch in range(len(training.history), spec.epochs):
            progress("training on coresets", epoch, spec.epochs)
            training.epoch(epoch)
            training.save(checkpoint)
        training.finish()
    progress("training on coresets", spec.epochs, spec.epochs)
    points = points_table(training.logits, source.labels, training.coreset, training.n_kept, truth)
    return RobustRun(model.eval(), pd.DataFrame(training.history), points, training.coreset, spec)


class _Training:
    """A training under way: the model, what is selected now, and what was measured."""

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        crust: Crust | Selector | None,
        spec: RobustSpec,
        truth: Tensor | None,
        tested: Source | None,
    ) -> None:
        self.device = pick_device(spec.device)
        self.model, self.source, self.crust, self.spec, self.truth, self.tested = (
            model.to(self.device),
            source,
            crust,
            spec,
            truth,
            tested,
        )
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        self.low = spec.precision == "bfloat16" or (spec.precision == "auto" and has_bfloat16(self.device))
        self.history: list[dict[str, Any]] = []
        self.coreset: Coreset | None = None
        self._waited = False
        self.n_kept = torch.zeros(len(source), dtype=torch.int64)
        self.logits = torch.empty(0)

    def check(self) -> None:
        """Score a few points, so that a model that does not fit fails here."""
        if self.crust is not None and self.spec.warmup >= self.spec.epochs:
            raise SpecError(
                f"warmup is {self.spec.warmup} of {self.spec.epochs} epochs. Expected fewer, so that there is a"
                f" selection. Pass a warmup of {max(self.spec.epochs // 4, 1)}."
            )
        if isinstance(self.crust, Crust):
            self.crust.check(self.source.labels)
        logits = self._scored(self.source, torch.arange(min(2, len(self.source))))
        classes = max(self.source.classes, 0 if self.tested is None else self.tested.classes)
        if logits.ndim != 2 or logits.shape[1] < classes:
            raise SpecError(
                f"the model returns {tuple(logits.shape)} for 2 points, and there are {classes} classes. Expected"
                " logits of shape (point, class). Pass a model with an output for every class."
            )

    def epoch(self, epoch: int) -> None:
        """Select if it is time, train an epoch, and measure."""
        spec = self.spec
        due = epoch >= spec.warmup and (self.coreset is None or (epoch - spec.warmup) % spec.every == 0)
        if self.crust is not None and due and (not isinstance(self.crust, Crust) or self.coreset or self._useful()):
            self._select(epoch)
        rows = torch.arange(len(self.source)) if self.coreset is None else self.coreset.indices.cpu()
        weights = torch.ones(len(rows), dtype=torch.float64) if self.coreset is None else self.coreset.weights.cpu()
        torch.manual_seed(spec.seed * _STRIDE + epoch)  # of dropout and the like; the caller's generator is kept
        for group in self.optimizer.param_groups:
            group["lr"] = spec.rate(epoch)
        sampler = CrustSampler(rows, weights / weights.mean(), seed=spec.seed)
        sampler.set_epoch(epoch)
        loss = self._pass(sampler, _Partners(self.coreset, self.source.labels, rows, spec, epoch), epoch)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} in epoch {epoch + 1}. Expected a finite loss. Pass a lower --learning-rate."
            )
        self.logits = self._scored(self.source, torch.arange(len(self.source))).cpu()
        line = {"epoch": epoch + 1, "loss": loss, "learning_rate": spec.rate(epoch), "selected": len(rows)}
        line |= measures(self.logits, self.source.labels, self.coreset, self.truth)
        if self.tested is not None:
            scores = self._scored(self.tested, torch.arange(len(self.tested))).cpu()
            line["test_accuracy"] = float((scores.argmax(dim=1) == self.tested.labels).double().mean())
        self.history.append(line)

    def _logits(self, inputs: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            logits: Tensor = self.model(inputs)
        return logits.float()

    def _pass(self, sampler: CrustSampler, partners: _Partners, epoch: int) -> float:
        """One epoch; returns the mean weighted loss."""
        self.model.train()
        order, losses = torch.tensor(list(sampler)), []
        for rows in order.tensor_split(math.ceil(len(order) / self.spec.batch_size)):
            inputs = self.source.augmented(rows, epoch).to(self.device)
            labels, weights = self.source.labels[rows].to(self.device), sampler.weights_of(rows).float().to(self.device)
            with_, share = partners.of(rows)
            if share is None:
                loss = cross_entropy(self._logits(inputs), labels, reduction="none")
            else:
                share = share.to(self.device)
                mine = share.view(-1, *[1] * (inputs.ndim - 1))
                logits = self._logits(mine * inputs + (1 - mine) * self.source.augmented(with_, epoch).to(self.device))
                other = cross_entropy(logits, self.source.labels[with_].to(self.device), reduction="none")
                loss = share * cross_entropy(logits, labels, reduction="none") + (1 - share) * other
            mean = (weights * loss).mean()
            self.optimizer.zero_grad()
            mean.backward()
            self.optimizer.step()
            losses.append(mean.detach())
        return float(torch.stack(losses).mean())

    def _select(self, epoch: int) -> None:
        self.coreset = self._selected(epoch)
        self.n_kept[self.coreset.indices.cpu()] += 1

    def _useful(self) -> bool:
        """Whether the model predicts more labels than the commonest class does; until it does it is trained on all
        points."""
        useful = is_useful(self.logits, self.source.labels)
        if not useful and not self._waited:
            warn(
                "the model predicts labels no better than the commonest class does, so it is trained on all points"
                " until it does; the first selection waits."
            )
            self._waited = True
        return useful

    def finish(self) -> None:
        """Select at the end, where the model learned too late to have selected before.

        Raises:
            DataError: it learned nothing.
        """
        if isinstance(self.crust, Crust) and self.coreset is None:
            check_useful(self.logits, self.source.labels)
            self._select(self.spec.epochs)

    def _selected(self, epoch: int) -> Coreset:
        if isinstance(self.crust, Crust):
            return self.crust.select_logits(self.logits, self.source.labels)
        assert self.crust is not None, "it was looked at"
        found = self.crust(self.logits, self.source.labels, epoch)
        if isinstance(found, Coreset):
            return found.on(torch.device("cpu"))
        indices = torch.as_tensor(np.asarray(found))
        if indices.dtype == torch.bool and len(indices) == len(self.source):
            indices = indices.nonzero().flatten()
        indices = indices.long()
        if not len(indices) or int(indices.min()) < 0 or int(indices.max()) >= len(self.source):
            span = f"from {int(indices.min())} to {int(indices.max())}" if len(indices) else "none"
            raise DataError(
                f"the selector returned points {span} in epoch {epoch + 1}. Expected some of 0 to"
                f" {len(self.source) - 1}. Correct it."
            )
        assignment = torch.full((len(self.source),), -1)
        assignment[indices] = indices
        nothing = torch.full((len(indices),), math.nan, dtype=torch.float64)
        return Coreset(
            indices,
            torch.ones(len(indices), dtype=torch.float64),
            nothing,
            self.source.labels[indices],
            assignment,
            math.nan,
            math.nan,
            0,
        )

    @torch.no_grad()
    def _scored(self, source: Source, points: Tensor) -> Tensor:
        self.model.eval()
        return torch.cat([self._logits(source.plain(part).to(self.device)) for part in points.split(_SCORED_AT_ONCE)])

    def save(self, path: Path | None) -> None:
        """Keep what a later process needs to go on to the same weights."""
        if path is None:
            return
        coreset = None if self.coreset is None else vars(self.coreset)
        with sealing(path) as temporary:
            torch.save(
                {
                    "version": CHECKPOINT_VERSION,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "history": self.history,
                    "coreset": coreset,
                    "n_kept": self.n_kept,
                    "logits": self.logits,
                },
                temporary,
            )

    def resume(self, path: Path | None) -> None:
        """Go on from a file, if there is one."""
        what, instead = "the checkpoint", "its model is trained from the start"
        content = None if path is None else unsealed(path, what, instead)
        if path is None or content is None:
            return
        stored = torch.load(content, map_location="cpu", weights_only=True)
        if stored.get("version") != CHECKPOINT_VERSION:
            set_aside(path, what, instead)
            return
        self.model.load_state_dict(stored["model"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.history, self.n_kept, self.logits = stored["history"], stored["n_kept"], stored["logits"]
        self.coreset = None if stored["coreset"] is None else Coreset(**stored["coreset"])


class _Partners:
    """Whom each point of an epoch is mixed with: another of its given label among those trained on, or one that the
    same pick stands for."""

    def __init__(self, coreset: Coreset | None, labels: Tensor, rows: Tensor, spec: RobustSpec, epoch: int) -> None:
        self._rng = generator(Stream.MIXUP_PARTNERS, spec.seed, epoch)
        self._alpha, self._group, among = spec.mixup_alpha, None, rows
        if spec.mixup == "label":
            self._group = labels.numpy()
        elif spec.mixup == "cluster" and coreset is not None:
            self._group, among = coreset.assignment.cpu().numpy(), torch.arange(len(labels))
        if self._group is not None:
            of = self._group[among.numpy()]
            order = np.argsort(of, kind="stable")
            self._members, self._sorted = among.numpy()[order], of[order]

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """A partner of each point, and the share λ of the point itself; None where nothing is mixed."""
        if self._group is None:
            return rows, None
        mine = self._group[rows.numpy()]
        first, last = np.searchsorted(self._sorted, mine, "left"), np.searchsorted(self._sorted, mine, "right")
        partners = self._members[first + (self._rng.random(len(rows)) * (last - first)).astype(np.int64)]
        return torch.from_numpy(partners), torch.from_numpy(self._rng.beta(*self._alpha, len(rows))).float()
