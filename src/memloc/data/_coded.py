"""Classifiers that want class numbers from 0 without gaps, fitted on points that lack a class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class CodedClassifier:
    """A classifier fitted on class numbers from 0, that predicts the classes those stand for.

    Attributes:
        learner: what was fitted. classes_: what its numbers stand for, ascending.
    """

    def __init__(self, learner: Any, classes: NDArray[Any]) -> None:
        self.learner, self.classes_ = learner, classes

    def predict(self, table: Any) -> NDArray[Any]:
        """Classes, shape (row,)."""
        found: NDArray[Any] = self.classes_[np.asarray(self.learner.predict(table)).astype(np.int64)]
        return found

    def predict_proba(self, table: Any) -> NDArray[np.float64]:
        """Chances, shape (row, class), in the order of `classes_`."""
        return np.asarray(self.learner.predict_proba(table), dtype=np.float64)

    def score(self, table: Any, labels: Any) -> float:
        """Share of rows whose class is predicted."""
        return float(np.mean(self.predict(table) == np.asarray(labels)))


def fit_classes(learner: Any, table: Any, labels: NDArray[Any], **named: Any) -> Any:
    """A fitted classifier; one that refuses class numbers with gaps is fitted on numbers from 0.

    >>> from sklearn.linear_model import LogisticRegression
    >>> fit_classes(LogisticRegression(), [[0.0], [1.0]], np.array([0, 2])).predict([[1.0]]).tolist()
    [2]
    """
    classes = np.unique(labels)
    gaps = labels.dtype.kind in "iu" and not np.array_equal(classes, np.arange(len(classes)))
    try:
        return learner.fit(table, labels, **named)
    except ValueError:
        if not gaps or len(classes) < 2:
            raise
        return CodedClassifier(learner.fit(table, np.searchsorted(classes, labels), **named), classes)
