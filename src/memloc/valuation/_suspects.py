"""One list of what in a table to look at first: odd cells, labels that are likely wrong, cells that mislead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.valuation._labels import LabelIssues
from memloc.valuation._outliers import OddCells

KINDS = ("outlier", "category", "label", "duplicate", "misleads")
_WEIGHT = 0.25  # of value less row, in standard errors, beside the logarithm of how many cells are as odd by chance
_MOST_ERRORS = 4.0  # of those: what misleads learners need not be odd
_LEAST = 0.1  # score from which a suspect is listed
_MOST = 5000  # suspects listed
_MISLEADS = 0.5  # of its score: a cell that misleads hurts, which is no sign that it is wrong
_RARE = 0.6  # of its score: a rare category is oftener right than a number far out
_NORMAL = 1.4826
_MISSPELT = 0.9  # of how alike a rare name is to a frequent one
_SURE = 3.0  # standard errors by which a cell that misleads lies below its row
_LARGE = 1e4  # numbers that are shown in full
_TEXT = 60  # characters of a cell that are shown


def suspects_table(
    values: NDArray[np.float64],
    errors: NDArray[np.float64],
    row_values: NDArray[np.float64],
    odd: OddCells,
    kinds: Sequence[str],
    columns: Sequence[str],
    contents: pd.DataFrame,
    labels: Sequence[str],
    *,
    issues: LabelIssues | None = None,
    class_names: Sequence[str] = (),
    conflicts: Sequence[tuple[int, int]] = (),
    regression: bool = False,
    spellings: Sequence[tuple[int, str, str, float]] = (),
) -> pd.DataFrame:
    """Suspects, likeliest first; every row at most once of each kind.

    The score is the chance that it is an error: of a label by `label_issues`, two thirds of it where wrong labels
    cannot be told from hard rows; of a cell 1 / (1 + e), where e is how many cells of the table would be as odd without
    errors, times exp(-z / 4) of its value less its row's in standard errors, four at most; half of that where value
    less row alone speaks against a cell, and six tenths for a category, since rare ones are often right.

    Args:
        values, errors: of cells, shape (row, column). row_values: of rows. odd: how little cells fit.
        kinds, columns: of the columns. contents: cells as the user has them. labels: of the rows.
        issues: chances that labels are wrong, of `class_names`. conflicts: rows with the same cells and other labels.
        spellings: columns, rare names, frequent ones that these may be, and how alike they are.
        regression: whether the target is of numbers, so that there are no classes to speak of.
    """
    others = "the row's other cells" if regression else "its class and the row's other cells"
    contrast = values - row_values[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.nan_to_num(-contrast / errors, posinf=0.0, neginf=0.0)
    found: list[dict[str, Any]] = []

    def add(
        row: int, column: int | None, kind: str, score: float, text: str, suggested: str | None, tie: float
    ) -> None:
        value = row_values[row] if column is None else values[row, column]
        name = None if column is None else columns[column]
        found.append(
            {"row": row, "column": name, "kind": kind, "score": score, "value": value, "suggested": suggested,
             "text": text, "tie": tie}
        )  # fmt: skip

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scores = 1 / (1 + odd.by_chance * len(columns) * np.exp(-_WEIGHT * np.clip(below, -_MOST_ERRORS, _MOST_ERRORS)))
    for row, column in _best_of_rows(scores, np.array([kind not in ("category", "boolean") for kind in kinds])):
        far, likely = odd.deviation[row, column], odd.expected(row, column)
        text = (
            f"{columns[column]} is {_shown(contents, row, column)}, {abs(far):.3g} deviations from the {likely} that"
            f" {others} lead one to expect"
        )
        add(row, column, "outlier", float(scores[row, column]), text, likely or None, abs(float(far)))
    for row, column in _best_of_rows(scores, np.array([kind in ("category", "boolean") for kind in kinds])):
        likely = odd.expected(row, column)
        text = f"{columns[column]} is {_shown(contents, row, column)}, rare for {others}"
        text += f"; {likely} would be likelier" if likely else ""
        score = _RARE * float(scores[row, column])
        add(row, column, "category", score, text, likely or None, score)
    for column, name, common, share in spellings:
        held = contents.iloc[:, column].astype(object).map(str, na_action="ignore").str.strip()
        for row in np.flatnonzero((held == name).to_numpy(dtype=bool, na_value=False)).tolist():
            text = f"{columns[column]} is {shown(name)}, written much like {shown(common)}, which is far commoner"
            add(row, column, "category", _MISSPELT * share, text, common, share)
    for row, column, score in _misleading(contrast, below):
        text = (
            f"learners given {columns[column]} ({_shown(contents, row, column)}) predict this row worse than others by"
            f" {-contrast[row, column]:.3f}, beyond what the column does elsewhere"
        )
        add(row, column, "misleads", _MISLEADS * score, text, None, float(below[row, column]))
    if odd.target is not None:
        scores = 1 / (1 + odd.target.by_chance * (len(columns) + 1))
        for row in np.flatnonzero(np.nan_to_num(scores) >= _LEAST).tolist():
            far, likely = odd.target.deviation[row], odd.target.expected(row)
            text = (
                f"the target is {labels[row]}, {abs(far):.3g} deviations from the {likely} that the row's cells lead"
                " one to expect"
            )
            add(row, None, "label", float(scores[row]), text, likely, abs(float(far)))
    if issues is not None:
        scores = issues.score
        for row in np.flatnonzero(np.nan_to_num(scores) >= _LEAST).tolist():
            name = class_names[int(issues.suggested[row])]
            text = f"labelled {labels[row]}; of the learners that did not see it {issues.support[row]:.0%} say so"
            add(row, None, "label", float(scores[row]), text, name, -float(issues.support[row]))
    doubt = _MISLEADS if issues is not None and issues.told else _MISLEADS / 2
    for row, other in conflicts:
        text = f"labelled {labels[row]}, and row {{other}} with the same cells {labels[other]}"
        found.append(
            {"row": row, "column": None, "kind": "duplicate", "score": doubt, "value": row_values[row],
             "suggested": None, "text": text, "tie": 0.0, "other": other}
        )  # fmt: skip
    table = pd.DataFrame(
        found, columns=["row", "column", "kind", "score", "value", "suggested", "text", "tie", "other"]
    )
    table = table[table["score"] >= _LEAST]
    table = table.sort_values("score", ascending=False, kind="stable").drop_duplicates(["row", "kind"])
    table = table.sort_values(["score", "tie", "row"], ascending=[False, False, True], kind="stable").head(_MOST)
    return table.drop(columns="tie").reset_index(drop=True).assign(rank=np.arange(1, len(table) + 1))


def _best_of_rows(scores: NDArray[np.float64], of_kind: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """The cell of highest score of each row that has one beyond the least, among some columns."""
    if not of_kind.any():
        return
    part = np.where(of_kind[None, :], np.nan_to_num(scores, nan=-1.0), -1.0)
    best = part.argmax(axis=1)
    for row in np.flatnonzero(part[np.arange(len(part)), best] >= _LEAST).tolist():
        yield row, int(best[row])


def _misleading(contrast: NDArray[np.float64], below: NDArray[np.float64]) -> Iterator[tuple[int, int, float]]:
    """Rows, columns and scores of cells whose value lies below their row's as those of few others of the column."""
    from scipy.stats import t

    if contrast.size == 0:
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = np.nanmedian(contrast, axis=0)
        spread = _NORMAL * np.nanmedian(np.abs(contrast - middle), axis=0)
        far = (middle - contrast) / np.where(spread > 0, spread, np.inf)
    by_chance = contrast.size * t.sf(
        np.nan_to_num(far), 4
    )  # tails of columns' contrasts, measured (benchmarks/suspects.py)
    scores = np.where(below > _SURE, 1 / (1 + by_chance), 0.0)
    for row, column in _best_of_rows(scores, np.ones(contrast.shape[1], dtype=bool)):
        yield row, column, float(scores[row, column])


def _shown(contents: pd.DataFrame, row: int, column: int) -> str:
    return shown(contents.iat[row, column])


def shown(content: Any) -> str:
    """A cell's content in a few characters.

    >>> shown(3.14159265), shown("a" * 80)[-3:], shown(None)
    ('3.142', 'aa…', 'missing')
    """
    if not isinstance(content, str) and (content is None or pd.isna(content)):
        return "missing"
    number = float(content) if isinstance(content, (float, np.floating)) else None
    text = str(content) if number is None or abs(number) >= _LARGE else f"{number:.4g}"
    text = text.strip() or "missing"
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
