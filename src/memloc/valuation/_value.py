"""Value a table from a file, or labelled images, and keep what was found as tables."""

from __future__ import annotations

import csv
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.errors import DataError, DataNotFoundError, SpecError, nearest
from memloc.progress import Report, silent
from memloc.results import (
    SCHEMA_VERSION,
    conform,
    make_folder,
    read_record,
    read_table,
    spec_hash,
    write_json,
    write_table,
)
from memloc.valuation._baseline import class_z_scores
from memloc.valuation._estimator import LEARNERS_OF_A_STEP, TwoDOOB
from memloc.valuation._sums import CellSums
from memloc.valuation._tables import number_columns

LEARNERS = ("tree", "logistic", "mlp")
TEXT_TABLES = (".csv", ".tsv", ".txt")
_STEP, _SAVE_EVERY = 3.0, 60.0  # seconds between reports of progress, and between files of what is done
_FEW = 20  # more different whole numbers than this may be classes or amounts: the user says which
_SEEDS = 2**32  # that NumPy's RandomState takes


@dataclass(frozen=True)
class ValueSpec:
    """How a table is valued; flags map onto it one to one.

    Attributes:
        learners: weak learners at most. max_features: share (below or equal to 1.0) or number of columns of each.
        learner: "tree", "logistic" or "mlp". task: "auto", "classification" or "regression".
        distance_weight, tol, seed, workers: as in TwoDOOB.
    """

    learners: int = 1000
    max_features: float | int | str = 0.5
    learner: str = "tree"
    task: str = "auto"
    distance_weight: float = 0.0
    tol: float | None = None
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.seed < _SEEDS:
            raise SpecError(f"seed is {self.seed}. Expected 0 to {_SEEDS - 1}. Pass --seed 0.")
        if self.learners < 1:
            raise SpecError(f"learners is {self.learners}. Expected at least 1. Pass --learners 1000.")
        if self.tol is not None and not self.tol > 0:
            raise SpecError(f"tol is {self.tol}. Expected a number above 0. Pass --tol 0.02.")
        if self.workers == 0:
            raise SpecError("workers is 0. Expected a number of threads, or -1 for all cores. Pass --workers 2.")
        for name, known in (("learner", LEARNERS), ("task", ("auto", "classification", "regression"))):
            if getattr(self, name) not in known:
                raise SpecError(
                    f"there is no {name} {getattr(self, name)!r}. Expected one of {', '.join(known)}. Pass --{name}"
                    f" {known[0]}."
                )


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
        folder = make_folder(Path(folder))
        metadata = {
            "memloc_schema_version": str(SCHEMA_VERSION),
            "memloc_spec": spec_hash(self.record["spec"]),
            "memloc_seed": str(self.record["spec"]["seed"]),
        }
        for name in ("cells", "rows"):
            write_table(folder / f"{name}.parquet", conform(name, getattr(self, name)), metadata)
        write_json(folder / "value.json", {"schema_version": SCHEMA_VERSION, **self.record})
        return folder

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


def open_table(path: str | Path, target: str) -> tuple[pd.DataFrame, pd.Series]:
    """A table of columns and its target from a parquet file, or from text separated by commas, semicolons or tabs.

    Raises:
        DataNotFoundError: no such file. DataError: no table, no such column, a missing target.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataNotFoundError(
            f"there is no file {str(path)!r}. Expected a table as .csv or .parquet. Check the path."
        )
    if path.suffix.lower() not in (*TEXT_TABLES, ".parquet"):
        raise DataError(
            f"{str(path)!r} is no table that memloc reads. Expected .csv, .tsv, .txt or .parquet. Convert it first."
        )
    try:
        if path.suffix.lower() in TEXT_TABLES:
            with path.open(encoding="utf-8-sig") as file:
                header = file.readline()
            between = max((",", ";", "\t"), key=header.count)  # the comma where none occurs
            _check_fields(path, between)
            names = pd.read_csv(path, sep=between, header=None, nrows=1, dtype=str).iloc[0].dropna()
            if names.duplicated().any():
                raise DataError(
                    f"the table has two columns named {names[names.duplicated()].iloc[0]!r}. Expected different names."
                    " Rename or drop one."
                )
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", pd.errors.ParserWarning
                )  # of separators at the ends of lines, which were looked at
                table = pd.read_csv(
                    path, sep=between, index_col=False
                )  # which would rename the second of two equal names
                if between != "," and any(_has_decimal_commas(table[name]) for name in table):
                    table = pd.read_csv(path, sep=between, index_col=False, decimal=",")
        else:
            table = pd.read_parquet(path)
            table.columns = table.columns.map(str)
    except (ValueError, OSError) as problem:
        if isinstance(problem, DataError):
            raise
        reason = str(problem).splitlines()[0]
        step = "Save it as UTF-8" if isinstance(problem, UnicodeDecodeError) else "Open it and check"
        raise DataError(
            f"{str(path)!r} cannot be read as a table ({reason}). Expected a header and rows. {step}."
        ) from problem
    if target not in table:
        raise DataError(
            f"{path.name} has no column {target!r}. {nearest(target, map(str, table.columns))} Expected the column to"
            " predict. Pass --target NAME."
        )
    missing = int(table[target].isna().sum())
    if missing:
        raise DataError(
            f"the target {target!r} is missing in {missing} rows. Expected a label in every row. Drop those rows."
        )
    if table.shape[1] < 2:
        raise DataError(
            f"{path.name} has no column beside {target!r}. Expected at least one to value. Pass another table."
        )
    return table.drop(columns=target), table[target]


def _check_fields(path: Path, between: str) -> None:
    """Raise DataError for a line with more or fewer fields than the header, which would shift or empty its columns;
    empty ones at its end aside."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter=between)
        try:
            wanted = len(next(lines, []))
            for fields in lines:
                extra = fields[wanted:]
                if fields and (len(fields) < wanted or any(extra)):
                    raise DataError(
                        f"line {lines.line_num} of {path.name} has {len(fields)} fields and the header {wanted}."
                        f" Expected as many in every line. Correct it, or put text that holds {between!r} between"
                        " quotation marks."
                    )
        except csv.Error as problem:
            raise DataError(
                f"line {lines.line_num} of {path.name} cannot be read ({problem}). Expected fields separated by"
                f" {between!r}. Correct it."
            ) from problem


def _has_decimal_commas(column: pd.Series) -> bool:
    """Whether a column of text is one of numbers such as 1,5."""
    if pd.api.types.is_numeric_dtype(column) or not column.notna().any():
        return False
    known = column.dropna().astype(str)
    return bool(known.str.fullmatch(r"[+-]?\d*,?\d+").all() and known.str.contains(",").any())


def is_regression(y: pd.Series | NDArray[Any], task: str) -> bool:
    """Whether a target is to be predicted as a number: as `task` says, or by its values."""
    values = pd.Series(y)
    if task != "auto":
        return task == "regression"
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    whole = number and bool((values % 1 == 0).all())
    if whole and values.nunique() > _FEW:
        raise SpecError(
            f"the target has {values.nunique()} different whole numbers in {len(values)} rows. Expected classes, or"
            " numbers to predict. Say which: --task regression or --task classification"
        )
    return bool(number and not whole)


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
        done = valuer._before[1]
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
