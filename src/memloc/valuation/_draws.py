"""Which rows and columns each weak learner gets, regenerated from its seed (REFERENCE B1)."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LARGEST = 2**31 - 1
_OF_THREAD = threading.local()


@dataclass(frozen=True)
class Draw:
    """What one learner is fitted on.

    Attributes:
        counts: how often each row was drawn with replacement, shape (row,); rows with 0 are out of bag.
        groups: which groups of columns were drawn without replacement, ascending.
        seed: of the learner itself.
    """

    counts: NDArray[np.int64]
    groups: NDArray[np.int64]
    seed: int


def learner_seeds(entropy: int, learners: int) -> NDArray[np.int64]:
    """A seed per learner; more learners begin with the same seeds.

    >>> bool((learner_seeds(7, 5)[:3] == learner_seeds(7, 3)).all())
    True
    """
    return np.random.RandomState(entropy).randint(_LARGEST, size=learners).astype(np.int64)


def draw(seed: int, *, rows: int, groups: int, drawn: int, size: int | None = None) -> Draw:
    """The draw of one learner: `size` rows with replacement (as many as there are by default) and `drawn` of the groups
    without.

    >>> one = draw(3, rows=5, groups=4, drawn=2)
    >>> int(one.counts.sum()), len(one.groups)
    (5, 2)
    """
    generator = generator_of(seed)
    chosen = _chosen(generator, groups, drawn)
    counts = np.bincount(generator.randint(0, rows, size or rows), minlength=rows)
    return Draw(counts, chosen, int(generator.randint(_LARGEST)))


def draw_groups(seed: int, *, groups: int, drawn: int) -> NDArray[np.int64]:
    """The groups of `draw`, alone.

    >>> bool((draw_groups(3, groups=4, drawn=2) == draw(3, rows=5, groups=4, drawn=2).groups).all())
    True
    """
    return _chosen(generator_of(seed), groups, drawn)


def _chosen(generator: np.random.RandomState, groups: int, drawn: int) -> NDArray[np.int64]:
    return np.sort(generator.permutation(groups)[:drawn])


def generator_of(seed: int) -> np.random.RandomState:
    """A generator with this seed, whose stream is the same in every version of NumPy, until this thread asks again.

    Seeding one again takes a fiftieth of making one.
    """
    if not hasattr(_OF_THREAD, "generator"):
        _OF_THREAD.generator = np.random.RandomState()
    generator: np.random.RandomState = _OF_THREAD.generator
    generator.seed(seed)
    return generator


def drawn_number(max_features: float | int | str, groups: int) -> int:
    """How many groups of columns a learner gets: a share, a number, or the square root.

    >>> drawn_number(0.5, 30), drawn_number(3, 30), drawn_number("sqrt", 30), drawn_number(0.01, 30)
    (15, 3, 5, 1)
    """
    if max_features == "sqrt":
        return max(int(np.sqrt(groups)), 1)
    if isinstance(max_features, (int, np.integer)) and not isinstance(max_features, bool):
        return int(max_features)
    return max(round(float(max_features) * groups), 1)


def drawn_rows(max_samples: float | int | None, rows: int) -> int:
    """How many rows a learner gets: a share, a number, or all.

    >>> drawn_rows(None, 100), drawn_rows(0.25, 100), drawn_rows(40, 100), drawn_rows(400, 100)
    (100, 25, 40, 100)
    """
    if max_samples is None:
        return rows
    if isinstance(max_samples, (int, np.integer)):
        return min(int(max_samples), rows)
    return max(round(float(max_samples) * rows), 1)
