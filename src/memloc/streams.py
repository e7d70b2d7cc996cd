"""Every use of random numbers, once: two uses never share a stream, so none says anything of another.

Views, order, masks and private batches are drawn by the counter-based generator, under `Stream.X.keyed(seed)`. Samples
and bootstraps are drawn by NumPy, from `generator(Stream.X, seed, ...)`. Which points a training sees (splits, subsets,
planted repeats) is drawn as in memloc 0.1, from the seed and numbers of points alone, so that runs can be repeated;
those keys hold no number as large as a stream's. Initial weights follow from torch's own generator and the run's seed.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_APART = 1 << 32  # above every number of points


@unique
class Stream(IntEnum):
    """A use of random numbers."""

    # of the counter-based generator: a number is added to the seed
    VIEWS = 0
    ORDER = 1
    LOCAL_CROPS = 2
    MASKS = 3
    PRIVATE_BATCHES = 4
    PRIVATE_NOISE = 5
    OWN_MASKS = 6
    REFERENCE_VIEWS = 7
    # of NumPy's generator: a number stands in the key
    SHARED_SAMPLE = 10
    EQUAL_GROUPS = 11
    CHANCE_MEMBERSHIP = 13
    PILOT = 14
    BOOTSTRAP = 15
    BOOTSTRAP_BLOCKS = 16
    RUN_BOOTSTRAP = 17
    EXTERNAL_BOOTSTRAP = 18
    RUN_HALVES = 19
    CALLBACK_SPLIT = 20
    VALUE_SAMPLE = 21
    RANDOM_CELLS = 22
    SYMMETRIC_NOISE = 23
    ASYMMETRIC_NOISE = 24
    MIXUP_PARTNERS = 25
    STOCHASTIC_GREEDY = 26
    RANDOM_PICKS = 27
    RANDOM_UNITS = 28
    RANDOM_LAYERS = 29
    RANDOM_REMOVAL = 30
    SCORE_FOLDS = 31
    REFERENCES = 32
    READING_CHOICE = 33
    TAILS = 34
    DECOYS = 36
    RATES = 37
    GUARD = 38
    COMPONENTS = 39
    HELD_OUT = 40
    COINS = 41
    EQUAL_VOTES = 42

    def keyed(self, seed: int) -> int:
        """The seed of this use in the counter-based generator.

        >>> Stream.ORDER.keyed(7) == 7 + 2**32
        True
        """
        return seed + self.value * _APART


def generator(stream: Stream, seed: int, *more: int) -> np.random.Generator:
    """NumPy's generator of one use.

    Args:
        more: what else tells draws apart, such as an epoch.

    >>> bool(generator(Stream.PILOT, 0).random() != generator(Stream.BOOTSTRAP, 0).random())
    True
    """
    import numpy as np

    return np.random.default_rng([seed, _APART + stream.value, *more])
