"""What the learners add up to, per cell, row and column; O(rows x groups) however many learners there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memloc.results import sealing, set_aside, unsealed
from memloc.valuation._learners import Outcome

Numbers = NDArray[np.float64]
_WHAT, _INSTEAD = "the file of sums", "learners are fitted again"
SUMS_VERSION = 3  # of what a file of sums holds; 1 (memloc 0.1) did not say which it was
_PRIOR = 4.0  # pseudo-observations of Agresti and Coull's interval


@dataclass
class CellSums:
    """Sums over learners; cells are (row, group of columns), in Fortran order, so that a group's rows lie together.

    Attributes:
        utility, count, square: per cell, of the utility out of bag, of learners (whole numbers, which float32 holds up
            to 2^24), and of the
            squared utility; `square` is None while every utility was 0 or 1, which is its own square.
        row: columns utility, count, square per row, each learner once. votes: per row, of classes, or the sum of
            predictions. learner: columns utility and count per learner, over the rows that it did not see.
    """

    utility: Numbers
    count: NDArray[np.float32]
    square: Numbers | None
    row: Numbers
    votes: Numbers
    learner: Numbers

    @staticmethod
    def empty(rows: int, groups: int, classes: int) -> CellSums:
        """No learners yet; `classes` is 0 for regression."""
        utility, count = (np.zeros((rows, groups), dtype=kind, order="F") for kind in (np.float64, np.float32))
        return CellSums(utility, count, None, np.zeros((rows, 3)), np.zeros((rows, max(classes, 1))), np.zeros((0, 2)))

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Add some learners, in order: the sums do not depend on how they are cut into blocks.

        0 and 1 are added exactly by a matrix product; other utilities one learner at a time, so that every cell adds
        them up in the same order.
        """
        groups = self.utility.shape[1]
        used = np.zeros((len(outcomes), groups), dtype=np.float32)
        for number, outcome in enumerate(outcomes):
            used[number, outcome.groups] = 1
        utility = np.stack([outcome.utility for outcome in outcomes])
        outside = np.stack([outcome.out_of_bag for outcome in outcomes])
        self.count += (used.T @ outside.astype(np.float32)).T
        self.learner = np.concatenate([self.learner, np.stack([utility.sum(axis=1), outside.sum(axis=1)], axis=1)])
        if self.square is None and ((utility == 0) | (utility == 1)).all():
            self.utility += (used.T @ utility.astype(np.float32)).T
            right = utility.sum(axis=0)
            self.row += np.stack([right, outside.sum(axis=0), right], axis=1)
        else:
            if self.square is None:
                self.square = self.utility.copy(order="F")
            for outcome in outcomes:  # not by BLAS: a rank-one update in several threads takes a thousand times as long
                squared = outcome.utility**2
                self.utility.T[outcome.groups] += outcome.utility
                self.square.T[outcome.groups] += squared
                self.row += np.stack([outcome.utility, outcome.out_of_bag, squared], axis=1)
        classes = self.votes.shape[1]
        if classes == 1:
            for outcome in outcomes:
                self.votes[:, 0] += np.where(outcome.out_of_bag, outcome.predicted, 0.0)
        else:
            learner, rows = np.nonzero(outside)
            guessed = np.stack([outcome.predicted for outcome in outcomes])[learner, rows]
            self.votes += np.bincount(rows * classes + guessed, minlength=self.votes.size).reshape(self.votes.shape)

    def copy(self) -> CellSums:
        """The same sums, apart from these."""
        square = None if self.square is None else self.square.copy(order="F")
        return CellSums(
            self.utility.copy(order="F"),
            self.count.copy(order="F"),
            square,
            self.row.copy(),
            self.votes.copy(),
            self.learner,
        )

    def save(self, path: Path, learners: int) -> None:
        """Write the sums of so many learners, whole or not at all."""
        square = np.empty(0) if self.square is None else self.square
        with sealing(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                version=SUMS_VERSION,
                learners=learners,
                utility=self.utility,
                count=self.count,
                square=square,
                row=self.row,
                votes=self.votes,
                learner=self.learner,
            )

    @staticmethod
    def load(path: Path) -> tuple[CellSums, int] | None:
        """What `save` wrote: the sums, and of how many learners; None of a file that is damaged or of another version,
        which is set aside and said."""
        content = unsealed(path, _WHAT, _INSTEAD)
        if content is None:
            return None
        with np.load(content, allow_pickle=False) as file:
            if int(file["version"]) != SUMS_VERSION:
                set_aside(path, _WHAT, _INSTEAD)
                return None
            names = ("utility", "count", "square", "row", "votes", "learner")
            utility, count, square, row, votes, learner = (file[name] for name in names)
            return CellSums(utility, count, square if square.size else None, row, votes, learner), int(file["learners"])

    def cell_values(self) -> Numbers:
        """Mean utility per cell, NaN where no learner covered it."""
        return _ratio(self.utility, self.count)

    def cell_counts(self) -> NDArray[np.int32]:
        """Learners behind each cell."""
        return self.count.astype(np.int32)

    def cell_error(self) -> Numbers:
        """Standard error of each cell's value."""
        return self._error(self.utility, self.count, self.utility if self.square is None else self.square)

    def row_values(self) -> Numbers:
        """Data-OOB: mean utility of each row over the learners that did not see it."""
        return _ratio(self.row[:, 0], self.row[:, 1])

    def row_counts(self) -> NDArray[np.int64]:
        """Learners that did not see each row."""
        return self.row[:, 1].astype(np.int64)

    def row_error(self) -> Numbers:
        """Standard error of each row's value; infinite where no learner left it out."""
        error = self._error(*self.row.T)
        return np.where(self.row[:, 1] > 0, error, np.inf)

    def column_values(self) -> Numbers:
        """Mean utility of each group of columns over rows and learners."""
        return _ratio(self.utility.sum(axis=0), self.count.sum(axis=0))

    def column_error(self, used: Numbers) -> Numbers:
        """Standard error of each group's value over the draws of learners, a ratio of sums.

        Args:
            used: whether each learner had each group, shape (learner, group).
        """
        value, number = self.column_values(), used.sum(axis=0)
        utility, count = self.learner.T
        residual = used * (utility[:, None] - np.nan_to_num(value)[None, :] * count[:, None])
        size = used.T @ count
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = (residual**2).sum(axis=0) * number / np.maximum(number - 1, 1)
            return np.where((size > 0) & (number > 1), np.sqrt(spread) / size, np.nan)

    def score(self, target: NDArray) -> float:
        """Accuracy of the vote, or R^2 of the mean, of the learners that did not see each row."""
        covered = self.row[:, 1] > 0
        if not covered.any():
            return float("nan")
        if self.votes.shape[1] > 1:
            return float((self.votes[covered].argmax(axis=1) == target[covered]).mean())
        predicted, true = self.votes[covered, 0] / self.row[covered, 1], target[covered]
        spread = ((true - true.mean()) ** 2).sum()
        return float(1 - ((true - predicted) ** 2).sum() / spread) if spread > 0 else float("nan")

    def _error(self, total: Numbers, count: NDArray[np.floating], square: Numbers) -> Numbers:
        """Standard error of a mean with four more observations, so that few learners are no certainty.

        For utilities of 0 and 1 the four are two of each (Agresti and Coull, 1998). Else they have the mean that was
        found and the
        spread of the row's own utilities over learners (below four learners at least that of the median row).
        """
        if self.square is None:
            size = count + _PRIOR
            share = (total + _PRIOR / 2) / size
            variance = share * (1 - share)
        else:
            row_total, row_count, row_square = self.row.T
            spread = _ratio(row_square, row_count) - _ratio(row_total, row_count) ** 2
            usual = float(np.nanmedian(spread)) if (row_count > 0).any() else 0.0
            prior = np.maximum(np.nan_to_num(spread, nan=usual), 0.0)
            prior = np.where(row_count < _PRIOR, np.maximum(prior, usual), prior)
            prior = prior if count.ndim == 1 else prior[:, None]
            mean = _ratio(total, count)
            size = count + _PRIOR
            variance = (np.maximum(square - count * mean**2, 0.0) + _PRIOR * prior) / np.maximum(size - 1, 1)
            size = np.maximum(count, 1)
        return np.where(count > 0, np.sqrt(np.maximum(variance, 0.0) / size), np.nan)


def _ratio(total: Numbers, count: NDArray[np.floating]) -> Numbers:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)
