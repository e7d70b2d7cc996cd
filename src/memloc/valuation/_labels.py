"""Which labels are wrong, how many, and what they should be, from the votes of learners that did not see the row.

The model: each label was replaced with one chance, whatever the row holds, by another class. Under it the rows that
learners predict most surely show the chance: they disagree with their labels as often as labels are wrong, whichever
class is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memloc.streams import Stream, generator

MODEL = (
    "each label was replaced with the same chance, whatever its row holds; and some rows are of one class beyond doubt"
)
UNTOLD = 2 / 3  # of a chance, where wrong labels cannot be told from hard rows
USELESS = 1 / 2  # of a chance, where votes are no better than the commonest class
_PARTS = 20  # of the rows, by how sure the vote is
_FEWEST = 20  # rows that a rate is read from
_FLAT = 0.5  # share of the rows over which the rate must stay, to be one of wrong labels rather than of hard rows
_RISES = (1.0, 2.0, 3.0)  # standard errors by which a rate rises where it does not stay: strictly to leniently
_LEVEL = 0.975  # of each end of the interval
_HARD = 0.05  # of the rows that may be hard beside those that disagree as often as the surest do
_LARGEST = 0.28  # of all rows that may disagree: where more do, none may be of one class beyond doubt
_MOST_RISE = 1.0  # of the surest rows' rate, by which the less sure half may disagree more often
_MAY_RISE = 0.1  # of the rows, by which they may in any case
_UPPER = 1.645  # standard errors of that rise's upper end
_FEW_WRONG = 0.01  # of the surest rows that disagree, up to which none need be wrong to say so
_DIFFER = 0.01  # p-value below which rates of classes differ
_ALIKE = 5.0  # labels more of each class, spread over the others alike
_GRID = 25  # rates between its ends
_MOST_PAIRS = 2_000_000  # rows x classes that chances are calibrated on


@dataclass(frozen=True)
class LabelIssues:
    """Chances that labels are wrong.

    Attributes:
        chance: that a row's label is wrong, shape (row,); NaN where no learner left the row out.
        suggested: place in `classes` of the likeliest class among the others, shape (row,).
        support: share of the votes for the row's label, shape (row,): orders equal chances.
        number, low, high: how many labels are wrong, and its 95 % interval, under the model.
        told: whether wrong labels could be told from hard rows; if not, `low` is 0. useful: whether votes agree with
            more labels than the commonest class does; if not, none is more likely wrong than right.
        rows: rows that the rate was read from. rate: how many of them disagree with their label.
    """

    chance: NDArray[np.float64] = field(repr=False)
    suggested: NDArray[np.int64] = field(repr=False)
    support: NDArray[np.float64] = field(repr=False)
    number: float
    low: float
    high: float
    told: bool
    rows: int
    rate: float
    useful: bool = True

    @property
    def score(self) -> NDArray[np.float64]:
        """The chance where wrong labels can be told from hard rows, else two thirds of it: as sure as one may be; half
        of it where votes are no better than the commonest class."""
        return self.chance * (1.0 if self.told else UNTOLD if self.useful else USELESS)


def label_issues(votes: NDArray[np.float64], labels: NDArray[Any], classes: NDArray[Any]) -> LabelIssues:
    """The chance that each label is wrong.

    The interval's lower end is less by half of what all rows disagree more often than the surest do: so much of the
    rate of these may be of hard rows, too. Where that is more than the rate itself, where the less sure half of the
    rows may disagree more than twice as often as the surer half, where the rate is not one for all classes, or votes
    are hardly better than the commonest class, wrong labels cannot be told from hard rows.

    Votes are turned into chances of the labels as they are by isotonic regression (a row's own label had no part in its
    votes); with wrong labels at a rate r, of which a share s goes to this label, p_label = (1 - r) p + r s (1 - p), so
    that a label is wrong with the chance r s (1 - p) / p_label. The shares are those among the surest rows. This is
    averaged over the rates in the interval, most over those near its middle.

    Args:
        votes: shares of learners, shape (row, class). labels: of the rows. classes: what the columns stand for, sorted.

    >>> votes = np.array([[0.9, 0.1]] * 50 + [[0.1, 0.9]] * 50)
    >>> labels = np.array([0] * 45 + [1] * 55)  # five of the first are labelled as the second
    >>> found = label_issues(votes, labels, np.array([0, 1]))
    >>> bool(found.low <= 5 <= found.high), int(found.suggested[47])
    (True, 0)
    >>> bool(found.chance[47] > 0.5 > 0.1 > found.chance[0])
    True
    """
    from sklearn.isotonic import IsotonicRegression

    known = ~np.isnan(votes).any(axis=1)
    shares, code = votes[known], np.searchsorted(classes, labels[known])
    rows, number = shares.shape
    if not rows:
        nothing = np.full(len(votes), np.nan)
        return LabelIssues(
            nothing, np.zeros(len(votes), dtype=np.int64), nothing, 0.0, 0.0, float(len(votes)), False, 0, 0.0
        )
    place = np.arange(rows)
    rate = _read_rate(shares, code)
    pairs = np.arange(rows * number)
    if len(pairs) > _MOST_PAIRS:
        pairs = pairs[:: len(pairs) // _MOST_PAIRS + 1]
    given = (code[:, None] == np.arange(number)).ravel()
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    isotonic.fit(shares.ravel()[pairs], given[pairs].astype(np.float64))
    noisy = isotonic.predict(shares[place, code])
    rest = shares.copy()
    rest[place, code] = -1.0
    likeliest = rest.argmax(axis=1)
    into = _replacements(shares.argmax(axis=1)[rate.surest], code[rate.surest], number)[likeliest, code]
    each = _rates(rate.low, rate.value if rate.told else rate.reach / 2, rate.reach)[:, None]
    other = each * into[None, :]
    seen = np.maximum(noisy[None, :], other + 1e-12)  # no label is rarer than by mistake
    clean = np.clip((seen - other) / np.maximum(1 - each - other, 1e-9), 0.0, 1.0)
    chance, support = np.full(len(votes), np.nan), np.full(len(votes), np.nan)
    chance[known] = np.clip(other * (1 - clean) / seen, 0.0, 1.0).mean(axis=0)
    suggested = np.zeros(len(votes), dtype=np.int64)
    suggested[known] = likeliest
    support[known] = shares[place, code]
    middle = rate.value if rate.told else (rate.low + rate.top) / 2
    low, high = np.floor(rate.low * rows), np.ceil(rate.top * rows)
    right, base = (shares.argmax(axis=1) == code).sum(), np.bincount(code, minlength=number).max()
    return LabelIssues(
        chance,
        suggested,
        support,
        middle * rows,
        low,
        high,
        rate.told,
        len(rate.surest),
        rate.value,
        bool(right > base),
    )


@dataclass(frozen=True)
class _Rate:
    """The rate at which labels are wrong.

    Attributes:
        value: of the surest rows. low, top: its interval. reach: the largest that no part of the rows contradicts.
        told: whether it is one of wrong labels. surest: the rows it was read from.
    """

    value: float
    low: float
    top: float
    reach: float
    told: bool
    surest: NDArray[np.int64]


def _read_rate(shares: NDArray[np.float64], code: NDArray[np.int64]) -> _Rate:
    """The rate at which the rows that are predicted most surely disagree with their labels."""
    from scipy.stats import beta

    rows, number = shares.shape
    shuffled = generator(Stream.EQUAL_VOTES, 0).permutation(rows)  # so that equal votes come in no order of the file
    order = shuffled[np.argsort(-shares.max(axis=1)[shuffled], kind="stable")]
    wrong = (shares.argmax(axis=1) != code)[order]
    errors = np.cumsum(wrong)
    sizes = np.unique(np.maximum(np.ceil(rows * np.arange(1, _PARTS + 1) / _PARTS), min(_FEWEST, rows)).astype(int))
    flat = np.array([_stays(errors, sizes, rises) for rises in _RISES])
    first = order[: flat[1]]
    total, middle = errors[-1] / rows, errors[flat[1] - 1] / flat[1]
    chance_level = 1 - np.bincount(code, minlength=number).max() / rows  # of a vote for the commonest class
    alike = _alike(shares.argmax(axis=1)[first], wrong[: flat[1]])
    told = bool(flat[-1] >= _FLAT * rows and total - middle <= max(middle, _HARD))
    told = told and alike and total <= _LARGEST and middle <= chance_level / 2
    told = told and _rise(errors, rows) <= max(_MOST_RISE * middle, _MAY_RISE)
    read = flat if told else sizes
    level = _LEVEL if told else 1 - (1 - _LEVEL) / len(sizes)
    missed = errors[read - 1]
    uppers = beta.ppf(level, missed + 1, np.maximum(read - missed, 1e-9))
    lowers = np.where(missed > 0, beta.ppf(1 - level, np.maximum(missed, 1e-9), read - missed + 1), 0.0)
    chosen = 1 if told else int(uppers.argmin())
    size, missed = int(read[chosen]), int(missed[chosen])
    spill = (total - middle) / 2  # of the rate, which may be of hard rows
    if told:
        low, top = max(float(lowers.min()) - spill, 0.0), float(uppers.max())
    else:  # one rate for all classes lies below that of any part of the rows; several lie below that of all rows
        low, top = 0.0, float(uppers.min() if alike else uppers[-1])
    told = told and bool(lowers[1] > spill or middle <= _FEW_WRONG)
    top = min(top, (number - 1) / number)
    low = min(low, top)
    reach = top if told else min(top, float(uppers.min()))
    return _Rate(missed / size, low, top, reach, told, order[:size])


def _rise(errors: NDArray[np.int64], rows: int) -> float:
    """By how much the less sure half of the rows may disagree more often than the surer half: the upper end."""
    size = rows // 2
    parts = np.array([errors[size - 1] / size, (errors[-1] - errors[size - 1]) / (rows - size)])
    spread = parts * (1 - parts) / np.array([size, rows - size])
    return float(parts[1] - parts[0] + _UPPER * np.sqrt(spread.sum()))


def _replacements(predicted: NDArray[np.int64], labels: NDArray[np.int64], number: int) -> NDArray[np.float64]:
    """Of the labels that disagree with a predicted class, the share of each other class, shape (predicted, label);
    drawn towards equal shares as by a few more labels."""
    counts = np.zeros((number, number))
    np.add.at(counts, (predicted, labels), 1.0)
    counts += _ALIKE / (number - 1)
    np.fill_diagonal(counts, 0.0)
    return counts / counts.sum(axis=1, keepdims=True)


def _rates(low: float, middle: float, top: float) -> NDArray[np.float64]:
    """Rates between the ends of an interval, as many at each as its triangle with the tip in the middle is high."""
    from scipy.stats import triang

    if top <= low:
        return np.full(1, top)
    tip = min(max((middle - low) / (top - low), 0.0), 1.0)
    return np.asarray(triang.ppf((np.arange(_GRID) + 0.5) / _GRID, tip, loc=low, scale=top - low))


def _stays(errors: NDArray[np.int64], sizes: NDArray[np.int64], rises: float) -> int:
    """How many rows, the surest first, disagree with their labels at one rate: no more behind a part of them than in
    it, but for so many standard errors."""
    found = int(sizes[0])
    for place in range(1, len(sizes)):
        size, parts = int(sizes[place]), sizes[:place]
        before, after = errors[parts - 1] / parts, (errors[size - 1] - errors[parts - 1]) / (size - parts)
        rate = errors[size - 1] / size
        error = np.sqrt(rate * (1 - rate) * (1 / parts + 1 / (size - parts)))
        if rate == 0 or not (after - before > rises * error).any():
            found = size
    return found


def _alike(predicted: NDArray[np.int64], wrong: NDArray[np.bool_]) -> bool:
    """Whether rows disagree with their label as often whichever class is predicted, by a chi-squared test."""
    from scipy.stats import chi2_contingency

    counts = np.stack(
        [np.bincount(predicted[wrong == one], minlength=int(predicted.max()) + 1) for one in (True, False)]
    )
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2 or not counts.sum(axis=1).all():
        return True
    return bool(chi2_contingency(counts)[1] >= _DIFFER)
