"""What a robust training says of its points, and how well it did by epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from memloc.coreset._crust import Coreset
from memloc.errors import DataError


def check_useful(logits: Tensor, labels: Tensor) -> None:
    """Raise DataError where a model predicts labels no better than the commonest class does, so that its gradients
    tell no label from another.

    >>> check_useful(torch.eye(2)[[0, 0, 0]], torch.tensor([0, 0, 1]))
    Traceback (most recent call last):
    memloc.errors.DataError: the model predicts 66.7% of the labels right, and the commonest class alone 66.7%. ...
    """
    if not is_useful(logits, labels):
        right, base = _right_and_base(logits, labels)
        raise DataError(
            f"the model predicts {right:.1%} of the labels right, and the commonest class alone {base:.1%}. Expected a"
            " model that learned what tells classes apart, for a coreset to go by. Train it longer (--warmup), use"
            " another --learner, or better columns."
        )


def is_useful(logits: Tensor, labels: Tensor) -> bool:
    """Whether a model predicts more labels right than the commonest class does."""
    right, base = _right_and_base(logits, labels)
    return right > base


def _right_and_base(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    right = float((logits.argmax(dim=1).cpu() == labels.cpu()).double().mean())
    return right, float(torch.bincount(labels.cpu()).max()) / len(labels)


def measures(logits: Tensor, labels: Tensor, coreset: Coreset | None, truth: Tensor | None) -> dict[str, float]:
    """Accuracy on given labels, of kept and of dropped points; where the truth is known also the clean fraction and
    what was memorized.

    `noisy_memorized` is the share of wrongly labelled points that are predicted as their wrong label. A truth of -1 is
    unknown.

    >>> logits, labels, truth = torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])
    >>> measures(logits, labels, None, truth)["noisy_memorized"]
    1.0
    """
    right = (logits.argmax(dim=1) == labels).double()
    found = {"accuracy": float(right.mean())}
    kept = torch.ones(len(labels), dtype=torch.bool)
    if coreset is not None:
        kept = torch.zeros(len(labels), dtype=torch.bool)
        kept[coreset.indices.cpu()] = True
        found |= {"accuracy_kept": _mean(right[kept]), "accuracy_dropped": _mean(right[~kept])}
    if truth is not None:
        clean, known = (labels == truth).double(), truth >= 0
        weights = torch.zeros(len(labels), dtype=torch.float64)
        weights[kept] = 1.0
        if coreset is not None:
            weights[coreset.indices.cpu()] = coreset.weights.cpu().double()
        weighed = weights[known].sum()
        found |= {
            "clean_fraction": _mean(clean[kept & known]),
            "clean_fraction_weighted": float((weights * clean)[known].sum() / weighed) if weighed > 0 else float("nan"),
            "noisy_memorized": _mean(right[known & (clean == 0)]),
            "true_accuracy": _mean((logits.argmax(dim=1) == truth).double()[known]),
        }
    return found


def points_table(
    logits: Tensor, labels: Tensor, coreset: Coreset | None, n_kept: Tensor, truth: Tensor | None
) -> pd.DataFrame:
    """One row a point, numbered by `row`; suspected are those dropped by the last selection whose label the model does
    not predict."""
    chance = logits.double().softmax(dim=1)
    predicted = logits.argmax(dim=1)
    kept = np.ones(len(labels), dtype=bool)
    if coreset is not None:
        kept[:] = False
        kept[coreset.indices.cpu().numpy()] = True
    table = pd.DataFrame(
        {
            "row": np.arange(len(labels)),
            "label": labels.numpy(),
            "predicted": predicted.numpy(),
            "p_label": chance[torch.arange(len(labels)), labels].numpy(),
            "kept": kept.astype(np.int64),
            "n_kept": n_kept.numpy(),
            "suspected": (~kept & (predicted != labels).numpy()).astype(np.int64),
        }
    )
    return table if truth is None else table.assign(true_label=truth.numpy())


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else float("nan")
