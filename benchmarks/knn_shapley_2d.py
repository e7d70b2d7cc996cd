"""2D-KNN-Shapley, written from its paper: Liu et al., 2D-Shapley: A Framework for Fragmented Data Valuation, ICML 2023.

A cell's value is what adding its column changes in its row's KNN-Shapley value, averaged over random orders of the columns. The
KNN-Shapley values of all rows follow from one sort per test point (Jia et al., VLDB 2019): from the farthest row inwards,
s_i = s_(i+1) + (1[y_i = y] - 1[y_(i+1) = y]) / K x min(K, i) / i.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def two_d_knn_shapley(
    X: NDArray, y: NDArray, *, permutations: int, generator: np.random.Generator, neighbours: int = 5, tests: int = 100
) -> NDArray[np.float64]:
    """Values of all cells, shape (row, column); each row is a test point for the others only.

    Args:
        X: table, standardized here. y: labels. permutations: random orders of the columns.
        tests: rows drawn as test points; a row's own test leaves it out.
    """
    table = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
    rows, columns = table.shape
    values = np.zeros((rows, columns))
    for _ in range(permutations):
        chosen = generator.permutation(rows)[:tests]
        distance = np.zeros((tests, rows))
        distance[np.arange(tests), chosen] = np.inf
        before = np.zeros(rows)
        for column in generator.permutation(columns):
            distance += (table[chosen, column][:, None] - table[None, :, column]) ** 2
            now = knn_shapley(distance, y, y[chosen], neighbours)
            values[:, column] += now - before
            before = now
    return values / permutations


def knn_shapley(distance: NDArray, y: NDArray, wanted: NDArray, neighbours: int) -> NDArray[np.float64]:
    """KNN-Shapley value of every row, mean over test points; distance has shape (test, row)."""
    tests, rows = distance.shape
    order = np.argsort(distance, axis=1, kind="stable")
    right = (y[order] == wanted[:, None]).astype(np.float64)
    place = np.arange(1, rows)
    steps = (right[:, :-1] - right[:, 1:]) / neighbours * np.minimum(neighbours, place) / place
    last = right[:, -1] / rows
    ordered = np.concatenate([last[:, None] + steps[:, ::-1].cumsum(axis=1)[:, ::-1], last[:, None]], axis=1)
    values = np.empty((tests, rows))
    np.put_along_axis(values, order, ordered, axis=1)
    return values.mean(axis=0)
