"""The plain check beside every value: how far a cell lies from the mean of its class, in deviations of its class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def class_z_scores(X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
    """Absolute z-score of every cell within its column and class; large is suspicious.

    Where cells are outliers by their distribution, this finds them better than a value does; a value says which cells
    hurt a model, whatever they look like.

    Args:
        X: numbers, shape (row, column); missing ones (NaN) have no score and count for nothing. y: labels; None takes
            all rows together, as for regression.
    Returns:
        Shape (row, column); 0 in columns that are constant within the class.

    >>> class_z_scores([[0.0], [2.0], [10.0], [10.0]], [0, 0, 1, 1]).ravel().tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    table = np.asarray(X, dtype=np.float64)
    _, code = np.unique(np.zeros(len(table)) if y is None else np.asarray(y), return_inverse=True)
    scores = np.zeros_like(table)
    for label in range(int(code.max()) + 1):
        rows = np.ma.masked_invalid(table[code == label])
        spread = rows.std(axis=0).filled(0.0)
        scores[code == label] = np.abs(rows - rows.mean(axis=0)).filled(np.nan) / np.where(spread > 0, spread, np.inf)
    return scores
