"""A coreset of a table's rows, from what a user names: opened, checked, fitted, selected and written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from memloc.coreset._crust import Crust
from memloc.coreset._estimator import TABLE_MODEL, TableClassifier, check_folds, save_table_classifier
from memloc.coreset._noise import noisy
from memloc.coreset._results import CoresetRun
from memloc.coreset._runs import robust_run
from memloc.coreset._sources import class_numbers
from memloc.coreset._spec import RobustSpec
from memloc.data import (
    TableEncoder,
    TableSpec,
    is_regression,
    read_raw,
    read_table_file,
    read_target,
    second_headers,
    table_fingerprint,
)
from memloc.errors import DataError, SpecError, nearest
from memloc.progress import roughly


class TableWork:
    """A coreset of a table's rows, checked."""

    def __init__(
        self,
        path: str,
        target: str | None,
        truth: str | None,
        learner: str,
        test: str | None,
        crust: Crust,
        spec: RobustSpec,
        made: dict[str, Any],
        columns: TableSpec | None = None,
    ) -> None:

        if target is None:
            raise SpecError(
                f"{path!r} is given without a target. Expected the column to predict. Pass --target COLUMN."
            )
        columns = columns or TableSpec()
        table = read_table_file(path, target, columns)
        if is_regression(table.y, "auto"):
            raise DataError(
                f"column {target!r} holds numbers that are no classes. Expected classes. Turn it into some."
            )
        frame, y = table.raw, table.y
        given = _as_text(y)
        self.class_names = sorted(set(given))
        true = None
        if truth is not None:
            if truth not in frame or made["noise"] is not None:
                raise SpecError(
                    f"{path!r} has no column {truth!r} to take the truth from."
                    f" {nearest(truth, map(str, frame.columns))} Pass --truth COLUMN."
                    if truth not in frame
                    else "--truth and --noise are both given. Expected one of them. Leave --noise out."
                )
            true = _as_text(read_target(frame[truth], truth, columns)[0])
            self.class_names = sorted({*self.class_names, *true.dropna()})
        number = {name: place for place, name in enumerate(self.class_names)}
        read = [one for one in table.valued if one.name != truth]
        if not read:
            raise DataError(
                f"{path!r} has no column to learn from beside {target!r} and {truth!r}. Expected one. Pass another"
                " table."
            )
        frame = frame[[one.name for one in read]]
        self.encoder = TableEncoder(read).fit(frame)
        self.notices = [*table.notices, *_filled(self.encoder)]
        self.X = self.encoder.transform(frame)
        known = torch.from_numpy(given.map(number).to_numpy(dtype=np.int64, copy=True))
        self.truth = (
            known
            if made["noise"] is not None
            else (
                None
                if true is None
                else torch.from_numpy(true.map(number).fillna(-1).to_numpy(dtype=np.int64, copy=True))
            )
        )
        self.labels = class_numbers(noisy(known, made, spec.seed), len(self.X))
        ids = table.ids
        self.rows = table.rows
        self.names = [str(row) for row in self.rows] if ids is None else ids.tolist()
        crust.check(self.labels)
        check_folds(self.labels, spec.folds, self.class_names)
        self.test = None
        if test is not None:
            held = read_raw(test, target).frame
            held = held.iloc[second_headers(held) :].reset_index(drop=True)
            if target not in held:
                raise DataError(
                    f"{test!r} has no column {target!r}. {nearest(target, map(str, held.columns))} Expected the target"
                    " of the table. Pass another --test."
                )
            y = read_target(held[target], target, columns, keeps=target in columns.categorical)[0]
            told = y.notna().to_numpy()
            if not told.all():
                self.notices.append(f"{int((~told).sum())} of {len(y)} test rows have no target and are left out.")
            held, y = held[told], y[told]
            wanted = _as_text(y).map(number)
            if wanted.isna().any():
                raise DataError(
                    f"{test!r} has the class {y[wanted.isna()].iloc[0]!r}, which {path!r} has not. Expected the"
                    " same classes. Leave such rows out."
                )
            self.test = (
                self.encoder.transform(held[frame.columns] if set(frame.columns) <= set(held.columns) else held),
                wanted.to_numpy(dtype=np.int64),
            )
        self.path, self.target, self.how, self.crust, self.spec = path, target, learner, crust, spec

    def identity(self) -> dict[str, Any]:
        """What makes it this work and no other."""

        return {
            "target": self.target,
            "learner": self.how,
            "fingerprint": table_fingerprint(pd.DataFrame(self.X), self.labels.numpy()),
        }

    def cost(self) -> dict[str, Any]:
        """What it will take."""

        began = time.monotonic()
        learner_named(self.how, self.spec.seed).fit(self.X, self.labels.numpy())
        fits = (self.spec.rounds + 1) * (self.spec.folds + (self.test is not None)) + 1
        plan = self.crust.plan(self.labels, features=len(self.class_names))
        return {
            "rows": len(self.X),
            "columns": self.X.shape[1],
            "classes": len(self.class_names),
            "picks": plan["picks"],
            "fits": fits,
            "seconds": roughly(fits * (time.monotonic() - began)),
            "memory_mb": plan["memory_mb"],
        }

    def run(self, others: list[pd.DataFrame], out: Path, progress: Any) -> CoresetRun:
        """Fit, select, and write everything but the report."""

        found, run = robust_run(
            learner_named(self.how, self.spec.seed),
            (self.X, self.labels),
            self.crust,
            self.spec,
            points=self.rows.tolist(),
            names=self.names,
            labels=self.labels,
            truth=self.truth,
            test=self.test,
            scores=others,
            progress=progress,
            record={
                "saved": TABLE_MODEL,
                "data": self.path,
                "target": self.target,
                "learner": self.how,
                "class_names": self.class_names,
            },
            notices=self.notices,
        )
        save_table_classifier(out, TableClassifier(self.encoder, run.model, self.class_names))
        found.save(out)
        return found


def _filled(encoder: TableEncoder) -> list[str]:
    """What to say of missing numbers."""
    if not encoder.filled:
        return []
    filled = "; ".join(f"{name} ({count})" for name, count in encoder.filled.items())
    return [f"missing numbers are replaced by the column's median, beside a column that says so: {filled}."]


def _as_text(column: pd.Series) -> pd.Series:
    """Names of classes; whole numbers alike whether a blank made them floats or not, blanks missing."""
    if pd.api.types.is_float_dtype(column) and bool((column.dropna() % 1 == 0).all()):
        column = column.astype("Int64")
    return column.astype(object).map(str, na_action="ignore").where(column.notna())


def learner_named(name: str, seed: int) -> Any:
    """A classifier of scikit-learn by its name."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "forest":
        return RandomForestClassifier(200, random_state=seed)
    if name == "boosting":
        return HistGradientBoostingClassifier(random_state=seed)
    last = (
        LogisticRegression(max_iter=500)
        if name == "logistic"
        else MLPClassifier((64,), max_iter=200, random_state=seed)
    )
    return make_pipeline(StandardScaler(), last)
