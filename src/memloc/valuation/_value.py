"""Value a table from a file, or labelled images, and keep what was found as tables."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data import ColumnReading, is_regression
from memloc.progress import Report, silent
from memloc.results import conform, read_record, read_table, save_results
from memloc.valuation._estimator import LEARNERS_OF_A_STEP, TwoDOOB
from memloc.valuation._spec import ValueSpec
from memloc.valuation._sums import CellSums

_STEP, _SAVE_EVERY = 3.0, 60.0  # seconds between reports of progress, and between files of what is done


@dataclass(frozen=True)
class Valuation:
    """Values of a table.

    Attributes:
        cells: row, column, value, stderr, n_draws. rows: row, value, stderr, n_draws.
        record: spec, settings, scores, names, timings, warnings (value.json).
        suspects, checks: cells, rows and labels worth a look, and findings about the table, where they were looked for.
        votes: the share of learners that predicted each class of a row that they did not see, shape (row, class); of
            `classes`. Not stored.
    """

    cells: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    record: dict[str, Any] = field(repr=False)
    suspects: pd.DataFrame | None = field(default=None, repr=False)
    checks: pd.DataFrame | None = field(default=None, repr=False)
    votes: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    classes: NDArray[Any] | None = field(default=None, repr=False, compare=False)

    def save(self, folder: str | Path) -> Path:
        """Write the tables and value.json (last) to a folder."""
        tables = {"cells": self.cells, "rows": self.rows, "suspects": self.suspects, "checks": self.checks}
        found = {name: table for name, table in tables.items() if table is not None}
        return save_results(folder, found, self.record, "value.json")

    @staticmethod
    def load(folder: str | Path) -> Valuation:
        """Read what `save` wrote.

        Raises:
            DataNotFoundError: nothing finished there. ResultsError: another schema version.
        """
        folder = Path(folder)
        record = read_record(folder, "value.json", "values", f"memloc value TABLE --target COLUMN --out {folder}")
        cells, rows = (conform(name, read_table(folder / f"{name}.parquet")) for name in ("cells", "rows"))
        suspects, checks = (
            conform(name, read_table(folder / f"{name}.parquet")) if "reading" in record else None
            for name in ("suspects", "checks")
        )
        return Valuation(cells, rows, record, suspects, checks)


def make_valuer(
    spec: ValueSpec,
    *,
    regression: bool,
    groups: NDArray[Any] | None = None,
    readings: Sequence[ColumnReading] | None = None,
) -> TwoDOOB:
    """The estimator that a spec describes; `readings` are of the table's columns where they are known."""
    return TwoDOOB(
        spec.learners,
        max_features=spec.max_features,
        max_samples=spec.max_samples,
        class_weight=spec.class_weight,
        columns=readings,
        estimator=_learner(spec.learner, regression),
        utility="squared_error" if regression else "accuracy",
        distance_weight=spec.distance_weight,
        groups=groups,
        n_jobs=spec.workers,
        random_state=spec.seed,
        tol=spec.tol,
    )


def check_table(
    X: pd.DataFrame,
    y: NDArray[Any],
    spec: ValueSpec,
    *,
    groups: NDArray[Any] | None = None,
    readings: Sequence[ColumnReading] | None = None,
) -> None:
    """Raise what valuing the table would raise, without fitting a learner."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        valuer = make_valuer(spec, regression=is_regression(y, spec.task), groups=groups, readings=readings)
        valuer.check(X if groups is None else X.to_numpy(), y)


def value_table(
    X: pd.DataFrame | NDArray[np.float64],
    y: pd.Series | NDArray[Any],
    spec: ValueSpec | None = None,
    *,
    groups: NDArray[Any] | None = None,
    readings: Sequence[ColumnReading] | None = None,
    extra: dict[str, Any] | None = None,
    work: Path | None = None,
    report: Report = silent,
) -> Valuation:
    """Value every cell and row of a table.

    Values of numbers to predict are 1 less the squared error over the target's variance: 1 where it is predicted
    exactly, 0 where its mean would do as well, below 0 where that would do better.

    Args:
        X: table; rows are named by its index where that is of whole numbers. y: what it is to predict.
        groups: a group per column, drawn together. readings: how the columns were read, where they were.
        extra: what the record holds besides. work: file for the sums of an interrupted run, which the next run goes on
            from; it stays until the caller, who has kept what was found, removes it.
        report: called with progress.

    >>> X = pd.DataFrame({"a": [0.0, 0.1, 0.9, 1.0] * 5, "b": [1.0, 2.0, 3.0, 4.0] * 5})
    >>> found = value_table(X, [0, 0, 1, 1] * 5, ValueSpec(learners=20))
    >>> found.cells.shape, found.rows.shape
    ((40, 5), (20, 4))
    """
    from sklearn.exceptions import ConvergenceWarning

    spec = spec or ValueSpec()
    frame = (
        X if isinstance(X, pd.DataFrame) else pd.DataFrame(X, columns=[f"x{number}" for number in range(X.shape[1])])
    )
    labels, regression = np.asarray(y), is_regression(pd.Series(y), spec.task)
    named = frame.index.dtype.kind in "iu" and frame.index.is_unique and frame.index.min() >= 0
    numbers = frame.index.to_numpy() if named else np.arange(len(frame))
    scale = float(np.var(labels.astype(np.float64))) if regression else 1.0
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # of single weak learners
        valuer = make_valuer(spec, regression=regression, groups=groups, readings=readings)
        if spec.tol is not None:  # of values as they are told
            valuer.set_params(tol=spec.tol * scale)
        fitted = _fit_in_steps(valuer, frame if groups is None else frame.to_numpy(), labels, work, report)
    share = fitted.vote_shares_ if not regression else None

    def scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 + values / scale if regression else values

    record = {
        "spec": asdict(spec),
        "regression": regression,
        "columns": [str(name) for name in frame.columns],
        "learners": len(fitted.estimators_),
        "oob_score": fitted.oob_score_,
        "column_values": dict(zip(map(str, frame.columns), scaled(fitted.column_values_).tolist(), strict=True)),
        "column_stderr": dict(zip(map(str, frame.columns), (fitted.column_stderr_ / scale).tolist(), strict=True)),
        "labels": [str(label) for label in labels],
        "warnings": _once(said),
        "groups": None if groups is None else np.asarray(groups).tolist(),
        "timings": {"total_seconds": time.monotonic() - began},
        **(extra or {}),
    }
    rows = pd.DataFrame(
        {
            "row": numbers,
            "value": scaled(fitted.row_values_),
            "stderr": fitted.row_stderr_ / scale,
            "n_draws": fitted.row_counts_,
        }
    )
    rows.loc[rows["n_draws"] == 0, "stderr"] = np.nan
    cells = fitted.to_frame()
    cells = cells.assign(
        row=np.repeat(numbers, frame.shape[1]),
        column=np.tile(np.array(record["columns"], dtype=object), len(frame)),
        value=scaled(cells["value"].to_numpy()),
        stderr=cells["stderr"] / scale,
    )
    return Valuation(cells, rows, record, votes=share, classes=None if regression else fitted.classes_)


def _fit_in_steps(valuer: TwoDOOB, X: pd.DataFrame, y: NDArray[Any], work: Path | None, report: Report) -> TwoDOOB:
    """Fit some learners at a time, say so, and keep the sums of those done when interrupted; the values are those of
    one fit."""
    wanted, done = valuer.n_estimators, 0
    if work is not None and work.is_file():
        valuer._before = CellSums.load(work)
        done = 0 if valuer._before is None else valuer._before[1]
    step, saved = LEARNERS_OF_A_STEP, time.monotonic()
    report("fitting learners", done, wanted)
    try:
        while True:
            began = time.monotonic()
            aim = min((done // LEARNERS_OF_A_STEP) * LEARNERS_OF_A_STEP + step, wanted)
            valuer.set_params(n_estimators=max(aim, done), warm_start=True).fit(X, y)
            done = len(valuer.estimators_)
            now = time.monotonic()
            if done == wanted or done < aim:
                break
            report("fitting learners", done, wanted)
            if work is not None and now - saved > _SAVE_EVERY:
                valuer._sums.save(work, done)
                saved = now
            step = LEARNERS_OF_A_STEP * max(round(step / LEARNERS_OF_A_STEP * _STEP / max(now - began, 1e-3)), 1)
    except BaseException:
        if work is not None and getattr(valuer, "estimators_", None):
            valuer._sums.save(work, len(valuer.estimators_))
        raise
    report("fitting learners", wanted, wanted)
    if work is not None:
        valuer._sums.save(work, len(valuer.estimators_))
    return valuer


def _once(said: list[Any]) -> list[str]:
    """Warnings as text, each once."""
    return list(dict.fromkeys(str(one.message) for one in said))


def _learner(name: str, regression: bool) -> Any:
    """A weak learner by name; None is TwoDOOB's own tree."""
    if name == "tree":
        return None
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "logistic":
        return make_pipeline(StandardScaler(), Ridge() if regression else LogisticRegression(max_iter=200))
    kind = MLPRegressor if regression else MLPClassifier
    return make_pipeline(StandardScaler(), kind((16,), max_iter=60, early_stopping=False))
