"""A valuation in a few sentences: what to check first, which columns help, what next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from memloc.valuation._value import Valuation

_LIKELY = 0.5  # score above which a suspect is more likely an error than none
_COUNTED = ("duplicate rows", "conflicting rows")  # whose evidence is how many there are, listed or not
_LEVEL = 0.05  # of the columns' differences


def answer(valuation: Valuation) -> list[str]:
    """Sentences: which rows and cells to check, which columns help, what next."""
    record = valuation.record
    if not any(not np.isnan(value) for value in record["column_values"].values()):
        return ["No learner left a row out, so neither rows nor cells have a value: pass more --learners."]
    oob = record["oob_score"]
    if record["regression"]:
        first = f"Learners that did not see a row explain {oob:.0%} of the target's variance."
    else:
        first = f"Learners that did not see a row predict {oob:.1%} of the labels right by vote."
    error = f"The standard error of a row's value is {float(np.nanmean(valuation.rows['stderr'])):.3f} on average."
    sentences = [first, *_labels(record), *_suspects(valuation), f"{_columns(record)} {error}"]
    if record.get("unevenness") is not None:
        sentences.append(_uneven(record))
    if record.get("repair") is not None:
        sentences.append(_repair(record["repair"]))
    return sentences


def _labels(record: dict[str, Any]) -> list[str]:
    """How many labels are wrong."""
    issues = record.get("label_issues")
    if not issues:
        return []
    if issues["told"]:
        return [
            f"About {issues['expected']:.0f} labels are wrong (95 % interval {issues['low']:.0f} to"
            f" {issues['high']:.0f}), if {issues['model']}; {issues['likely_wrong']} rows are more likely labelled"
            " wrong than right."
        ]
    if not issues.get("useful", True):
        return [
            "Learners that did not see a row predict its label no better than the commonest class does, so that it"
            " cannot be told which labels are wrong."
        ]
    return [
        f"Up to {issues['high']:.0f} labels may be wrong, were they replaced at random. Where classes overlap, hard"
        f" rows look like wrong labels: of the {issues['read_from']} rows that are predicted most surely"
        f" {issues['rate']:.1%} have another label. {issues['likely_wrong']} rows are more likely labelled wrong than"
        " right."
    ]


def _suspects(valuation: Valuation) -> list[str]:
    """What the list of suspects begins with, and what the checks found."""
    sentences = []
    suspects, checks = valuation.suspects, valuation.checks
    if suspects is not None:
        likely = int((suspects["score"] > _LIKELY).sum())
        sentences.append(
            f"{likely or 'No'} suspect{' scores' if likely == 1 else 's score'} above one half"
            + ("." if not likely else f"; the first is in row {suspects['row'].iloc[0]}: {suspects['text'].iloc[0]}.")
        )
    if checks is not None and len(checks):
        counts = checks.groupby("check", sort=False)["evidence"].agg(["size", "max"])
        listed = ", ".join(
            f"{name} ({one['max'] if name in _COUNTED else one['size']:.0f})" for name, one in counts.iterrows()
        )
        sentences.append(f"Checks of the table found: {listed}.")
    return sentences


def _columns(record: dict[str, Any]) -> str:
    """Which columns help most and least, where that is more than noise."""
    from scipy.stats import norm

    known = {name: value for name, value in record["column_values"].items() if not np.isnan(value)}
    columns = sorted(known.items(), key=lambda item: item[1])
    (least, low), (most, high) = columns[0], columns[-1]
    errors = [record["column_stderr"][name] for name in (least, most)]
    pairs = max(len(columns) * (len(columns) - 1) // 2, 1)
    noise = norm.isf(_LEVEL / 2 / pairs) * np.hypot(*errors)
    if len(columns) < 2 or not high - low > noise:
        return "No column helps more than another beyond the noise of drawing learners."
    return (
        f"Columns help most from {most} ({high:.3f} ± {errors[1]:.3f}) and least from {least} ({low:.3f} ±"
        f" {errors[0]:.3f})."
    )


def _uneven(record: dict[str, Any]) -> str:
    scores = np.array([np.nan if one is None else one for one in record["unevenness"]], dtype=np.float64)
    first_rows = np.argsort(np.where(np.isnan(scores), -np.inf, scores), kind="stable")[::-1][:3]
    listed = ", ".join(f"{row} ({scores[row]:.1f})" for row in first_rows.tolist())
    return (
        f"Rows {listed} depend most on which pixels a learner is given (unevenness; {np.nanmedian(scores):.1f} in"
        " the median row): where few pixels decide, look for a trigger or another shortcut."
    )


def _repair(gain: dict[str, Any]) -> str:
    before, after, random = (np.array(gain[name]) for name in ("before", "after", "random"))
    text = _difference(after - before), _difference(random - before)
    return (
        f"Repairing the lowest {gain['share']:.0%} of cells ({gain['how']}) changed a forest's score on rows kept out"
        f" by {text[0]}, from {before.mean():.3f}; repairing as many random cells by {text[1]}."
    )


def _difference(folds: NDArray[np.float64]) -> str:
    """Mean difference over folds with its 95 % interval (Student's t)."""
    from scipy.stats import t

    reach = t.ppf(0.975, len(folds) - 1) * folds.std(ddof=1) / np.sqrt(len(folds))
    return f"{folds.mean():+.3f} (95 % interval {folds.mean() - reach:+.3f} to {folds.mean() + reach:+.3f})"
