"""The two ways to a coreset: train and select by gradients, or select by an encoder's representations without
labels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from memloc.coreset._agreement import agreement, check_names
from memloc.coreset._crust import Crust
from memloc.coreset._results import CoresetRun, picks_table
from memloc.coreset._spec import RobustSpec
from memloc.coreset._train import RobustRun, train_robust
from memloc.data import Images, thumbnail
from memloc.encoders import RANDOM_NOTE, Encoder, represent, versions
from memloc.progress import Report, silent
from memloc.streams import Stream, generator

_SHOWN = 60  # points with a picture in the report


def robust_run(
    model: Any,
    dataset: Any,
    crust: Crust,
    spec: RobustSpec,
    *,
    points: Sequence[int],
    names: Sequence[str],
    labels: Tensor,
    truth: Tensor | None = None,
    test: Any = None,
    scores: Sequence[pd.DataFrame] = (),
    out: Path | None = None,
    progress: Report = silent,
    record: Mapping[str, Any] | None = None,
    notices: Sequence[str] = (),
) -> tuple[CoresetRun, RobustRun]:
    """Train on coresets and put what was found into tables.

    Args:
        model, dataset, test: as in `train_robust`. points, names: id and name of each point. labels, truth: given and
            true class numbers.
        scores: of the same points, to compare with (see `scores_of`). out: folder to resume from. record: what else to
            keep. notices: what is to be said of the data.
    """
    began = time.monotonic()
    for each in scores:
        check_names(names, each)
    run = train_robust(
        model,
        dataset,
        crust=crust,
        labels=labels,
        true_labels=truth,
        test=test,
        out=out,
        progress=progress,
        **asdict(spec),
    )
    assert run.coreset is not None, "the spec has a selection"
    table = run.points.assign(point=np.asarray(points), name=list(names)).drop(columns="row")
    agreements = [line for each in scores for line in agreement(table, each)]
    found = CoresetRun(
        {
            "coreset": picks_table(run.coreset, points, grouped=crust.group_by is not None),
            "labels": table,
            "epochs": run.history,
        },
        {
            "by": "gradient",
            "spec": asdict(spec),
            "crust": _plain(crust),
            "seed": spec.seed,
            "points": len(table),
            "agreement": agreements,
            "answer": _answer(table, run.history, agreements),
            "warnings": [*notices, *_warnings(crust, run.history, labels)],
            "versions": versions(),
            "seconds": time.monotonic() - began,
            **(record or {}),
        },
    )
    return found, run


def representation_run(
    encoder: Encoder,
    images: Images,
    crust: Crust,
    *,
    device: str = "auto",
    progress: Report = silent,
    record: Mapping[str, Any] | None = None,
) -> CoresetRun:
    """Select images that stand for all in an encoder's representation space; labels are not looked at."""
    began = time.monotonic()
    features = represent(encoder, images.pixels, device=device, progress=progress)
    coreset = crust.select(features, progress=progress)
    table = picks_table(coreset, images.ids.tolist(), grouped=False)
    share = float(np.asarray(coreset.on(None).weights)[:10].sum() / len(images))
    random = generator(Stream.RANDOM_PICKS, crust.random_state).permutation(len(images))[: len(coreset)]
    apart = _cost_of(features, torch.from_numpy(random))
    answer = [
        (
            f"{len(table)} of {len(images)} images stand for all: the mean distance to the nearest is"
            f" {coreset.cost / len(images):.3g}, against {apart / len(images):.3g} for as many drawn at random."
        ),
        f"The first ten picks stand for {share:.0%} of the images.",
    ]
    return CoresetRun(
        {"coreset": table},
        {
            "by": "representation",
            "spec": {},
            "crust": _plain(crust),
            "seed": crust.random_state,
            "points": len(images),
            "agreement": [],
            "answer": answer,
            "warnings": (
                [
                    "The weights of the encoder are random: distances between its outputs are not learned. Pass"
                    " --weights."
                ]
                if encoder.note == RANDOM_NOTE
                else []
            ),
            "objective": coreset.objective,
            "cost": coreset.cost,
            "versions": versions(),
            "seconds": time.monotonic() - began,
            **(record or {}),
        },
    )


def pictures(images: Images, found: CoresetRun) -> pd.DataFrame:
    """Small pictures of the suspected points of least chance, or of the first picks."""
    labels = found.tables.get("labels")
    if labels is not None:
        wanted = labels[labels["suspected"] == 1].sort_values("p_label", kind="stable")["point"].head(_SHOWN)
    else:
        wanted = found.tables["coreset"].sort_values(["rank", "class"])["point"].head(_SHOWN)
    rows = images.rows_of(torch.tensor(wanted.to_numpy())) if len(wanted) else torch.empty(0, dtype=torch.int64)
    shown = [thumbnail(images.pixels[row]) for row in rows.tolist()]
    return pd.DataFrame({"point": wanted.to_numpy(dtype=np.int64), "png": pd.Series(shown, dtype=object)})


def _cost_of(features: Tensor, picks: Tensor) -> float:
    return float(
        sum(
            torch.cdist(part, features[picks.to(features.device)]).min(dim=1).values.double().sum()
            for part in features.split(1000)
        )
    )


def _plain(crust: Crust) -> dict[str, Any]:
    return {key: value for key, value in vars(crust).items() if not key.startswith("_")}


def _answer(labels: pd.DataFrame, history: pd.DataFrame, agreements: list[dict[str, Any]]) -> list[str]:
    kept, suspected, last = labels["kept"] == 1, labels["suspected"] == 1, history.iloc[-1]
    lines = [
        f"The last selection kept {kept.sum()} of {len(labels)} points. Of the {(~kept).sum()} dropped,"
        f" {suspected.sum()} carry a label that the model does not predict: their labels are suspected to be wrong."
    ]
    if "true_label" in labels:
        known = labels["true_label"] >= 0
        wrong = known & (labels["label"] != labels["true_label"])
        right = known & ~wrong
        lines.append(
            f"The truth is known of {known.sum()} points: {_share(right[kept & known])} of the kept labels are right,"
            f" against {_share(right[known])} of all."
        )
        if wrong.any():
            lines[-1] += (
                f" {_share(wrong[suspected & known])} of the suspected are wrong, and {_share(suspected[wrong])} of the"
                f" wrong are suspected. The model predicts {last['noisy_memorized']:.1%} of the wrong labels: so many"
                " are memorized."
            )
    if "test_accuracy" in history:
        best = history["test_accuracy"].max()
        lines.append(f"Accuracy on the test data is {last['test_accuracy']:.3f} at the end, {best:.3f} at its best.")
    for line in agreements:
        lines.append(
            f"{line['score']} is higher for a dropped than for a kept point with chance {line['dropped']:.2f}"
            f" [{line['dropped_low']:.2f}, {line['dropped_high']:.2f}]"
            + (
                f", for a wrong than for a right label with {line['wrong']:.2f} [{line['wrong_low']:.2f},"
                f" {line['wrong_high']:.2f}]."
                if "wrong" in line
                else "."
            )
        )
    return lines


def _share(values: pd.Series) -> str:
    return f"{values.mean():.1%}" if len(values) else "none"


def _warnings(crust: Crust, history: pd.DataFrame, labels: Tensor) -> list[str]:
    found = []
    base = float(torch.bincount(labels).max()) / len(labels)
    if history["accuracy"].iloc[-1] <= base:
        found.append(
            f"The model predicts {history['accuracy'].iloc[-1]:.1%} of the labels right, and the commonest class alone"
            f" {base:.1%}: its coreset tells no wrong label from a right one. Train longer, or pass another encoder."
        )
    if crust.objective == "facility_location":
        found.append(
            "Facility location covers the gradients of wrong labels too, and picks more of them than chance does."
            " Centrality keeps labels that are right."
        )
    if "test_accuracy" in history and history["test_accuracy"].iloc[-1] < history["test_accuracy"].max() - 0.02:
        found.append(
            "Accuracy on the test data fell after its best epoch: the model still memorizes. A smaller fraction or"
            " fewer epochs may help."
        )
    return found
