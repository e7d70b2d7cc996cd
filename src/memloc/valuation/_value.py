"""Value a table from a file, or labelled images, and keep what was found as tables."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data import is_regression, number_columns
from memloc.progress import Report, silent
from memloc.results import conform, read_record, read_table, save_results
from memloc.valuation._baseline import class_z_scores
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
    """

    cells: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    record: dict[str, Any] = field(repr=False)

    def save(self, folder: str | Path) -> Path:
        """Write the tables and value.json (last) to a folder."""
        return save_results(folder, {"cells": self.cells, "rows": self.rows}, self.record, "value.json")

    @staticmethod
    def load(folder: str | Path) -> Valuation:
        """Read what `save` wrote.

        Raises:
            DataNotFoundError: nothing finished there. ResultsError: another schema version.
        """
        folder = Path(folder)
        record = read_record(folder, "value.json", "values", f"memloc value TABLE --target COLUMN --out {folder}")
        cells, rows = (conform(name, read_table(folder / f"{name}.parquet")) for name in ("cells", "rows"))
        return Valuation(cells, rows, record)


def make_valuer(spec: ValueSpec, *, regression: bool, groups: NDArray[Any] | None = None) -> TwoDOOB:
    """The estimator that a spec describes."""
    return TwoDOOB(
        spec.learners,
        max_features=spec.max_features,
        estimator=_learner(spec.learner, regression),
        utility="squared_error" if regression else "accuracy",
        distance_weight=spec.distance_weight,
        groups=groups,
        n_jobs=spec.workers,
        random_state=spec.seed,
        tol=spec.tol,
    )


def check_table(X: pd.DataFrame, y: NDArray[Any], spec: ValueSpec, *, groups: NDArray[Any] | None = None) -> None:
    """Raise what valuing the table would raise, without fitting a learner."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_valuer(spec, regression=is_regression(y, spec.task), groups=groups).check(X, y)


def value_table(
    X: pd.DataFrame | NDArray[np.float64],
    y: pd.Series | NDArray[Any],
    spec: ValueSpec | None = None,
    *,
    groups: NDArray[Any] | None = None,
    extra: dict[str, Any] | None = None,
    work: Path | None = None,
    report: Report = silent,
) -> Valuation:
    """Value every cell and row of a table.

    Args:
        X: table. y: what it is to predict. groups: a group per column, drawn together.
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
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # of single weak learners
        fitted = _fit_in_steps(make_valuer(spec, regression=regression, groups=groups), frame, labels, work, report)
    record = {
        "spec": asdict(spec),
        "regression": regression,
        "columns": [str(name) for name in frame.columns],
        "learners": len(fitted.estimators_),
        "oob_score": fitted.oob_score_,
        "column_values": dict(zip(map(str, frame.columns), fitted.column_values_.tolist(), strict=True)),
        "labels": [str(label) for label in labels],
        "warnings": _once(said),
        "groups": None if groups is None else np.asarray(groups).tolist(),
        "timings": {"total_seconds": time.monotonic() - began},
        **(extra or {}),
    }
    rows = pd.DataFrame(
        {
            "row": np.arange(len(frame)),
            "value": fitted.row_values_,
            "stderr": fitted.row_stderr_,
            "n_draws": fitted.row_counts_,
        }
    )
    rows.loc[rows["n_draws"] == 0, "stderr"] = np.nan
    columns = np.tile(np.array(record["columns"], dtype=object), len(frame))
    return Valuation(fitted.to_frame().assign(column=columns), rows, record)


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


def z_scores(X: pd.DataFrame, y: NDArray[Any], *, regression: bool) -> NDArray[np.float64]:
    """Class-conditional z-scores of a table; NaN for columns of categories and for missing cells."""
    known = set(number_columns(X))
    if len(known) == X.shape[1] and not X.isna().any(axis=None):
        return class_z_scores(X.astype(np.float64), None if regression else y)
    numbers = pd.DataFrame(
        {name: pd.to_numeric(X[name]) if name in known else np.nan for name in X.columns},
        index=X.index,
        dtype=np.float64,
    )
    return class_z_scores(numbers, None if regression else y)


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
