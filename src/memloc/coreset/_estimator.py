"""Robust fits of scikit-learn classifiers: gradients from predictions of points that a fit has not seen."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from memloc.coreset._crust import Coreset, Crust
from memloc.coreset._points import check_useful, measures, points_table
from memloc.coreset._sources import check_tested, class_numbers
from memloc.coreset._spec import RobustSpec
from memloc.data import fit_classes
from memloc.errors import DataError, ResultsError, SpecError, TrustError
from memloc.progress import Report
from memloc.results import replacing, verify


def fit_robust(
    estimator: Any,
    dataset: Any,
    crust: Crust,
    spec: RobustSpec,
    *,
    labels: Any,
    true_labels: Any,
    test: Any,
    progress: Report,
) -> tuple[Any, pd.DataFrame, pd.DataFrame, Coreset]:
    """Rounds of a selection from out-of-fold predictions, then fits on what was selected.

    A classifier that fits its training points exactly has no gradient left on them, so that each point is predicted by
    fits of the other folds, made on the points selected among those.

    Returns:
        The classifier fitted on the last selection, one row a round, one row a point, the last selection.
    """
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    if not isinstance(dataset, tuple) or len(dataset) != 2:
        raise DataError(
            "the model is an estimator and the dataset is no pair. Expected (X, y). Pass a table and its labels."
        )
    if test is not None and (not isinstance(test, tuple) or len(test) != 2):
        raise DataError("the test data is no pair. Expected (X, y), as the dataset. Pass a table and its labels.")
    tested = None if test is None else class_numbers(test[1], len(test[0]), training=False)
    if tested is not None:
        check_tested(tested)
    X, y = dataset[0], class_numbers(dataset[1] if labels is None else labels, len(dataset[0]))
    truth = None if true_labels is None else class_numbers(true_labels, len(X), training=False)
    counts = check_folds(y, spec.folds)
    crust.check(y)
    splitter = StratifiedKFold(spec.folds, shuffle=True, random_state=spec.seed)
    folds = list(splitter.split(np.zeros(len(y)), y.numpy()))
    coreset: Coreset | None = None
    n_kept, history = torch.zeros(len(y), dtype=torch.int64), []
    for turn in range(spec.rounds + 1):
        chance = np.zeros((len(y), len(counts)))
        for number, (train, held) in enumerate(folds):
            progress("fitting on coresets", turn * spec.folds + number, (spec.rounds + 1) * spec.folds)
            fitted = _fit(clone(estimator), X, y.numpy(), train, coreset, spec.seed)
            chance[held[:, None], fitted.classes_] = fitted.predict_proba(_rows(X, held))
        # The logarithm of chances is logits whose softmax they are.
        logits = torch.from_numpy(np.log(np.clip(chance, 1e-12, None)))
        line: dict[str, Any] = {"epoch": turn, "selected": len(y) if coreset is None else len(coreset)}
        line |= measures(logits, y, coreset, truth)
        if turn == 0:
            check_useful(logits, y)
        if test is not None or turn == spec.rounds:
            model = _fit(clone(estimator), X, y.numpy(), np.arange(len(y)), coreset, spec.seed)
        if tested is not None:
            line["test_accuracy"] = float(model.score(test[0], tested.numpy()))
        history.append(line)
        if turn < spec.rounds:
            coreset = crust.select_logits(logits, y)
            n_kept[coreset.indices] += 1
    assert coreset is not None, "there is a round"
    progress("fitting on coresets", 1, 1)
    return model, pd.DataFrame(history), points_table(logits, y, coreset, n_kept, truth), coreset


def check_folds(labels: Tensor, folds: int, names: Sequence[str] | None = None) -> Tensor:
    """Points of each class; raises SpecError where one has fewer than there are folds.

    Args:
        names: of the classes.
    """
    counts = torch.bincount(labels)
    least, few = int(counts.argmin()), int(counts.min())
    if few < folds:
        name = least if names is None else repr(names[least])
        cure = f"Pass --folds {few}, or leave the class out." if few > 1 else "Leave the class out, or merge it."
        raise SpecError(
            f"class {name} has {few} point{'' if few == 1 else 's'} and there are {folds} folds. Expected a point a"
            f" fold. {cure}"
        )
    return counts


def _fit(
    estimator: Any, X: Any, y: NDArray[np.int64], rows: NDArray[np.int64], coreset: Coreset | None, seed: int
) -> Any:
    """A fit on the rows that are selected, with their weights where the estimator, or the last step of a pipeline,
    takes any."""
    from sklearn.utils.validation import has_fit_parameter

    if "random_state" in estimator.get_params() and estimator.get_params()["random_state"] is None:
        estimator.set_params(random_state=seed)
    if coreset is None:
        return fit_classes(estimator, _rows(X, rows), y[rows])
    weights = np.zeros(len(y))
    weights[coreset.indices.numpy()] = coreset.weights.numpy()
    chosen = rows[weights[rows] > 0]
    last, name = (
        (estimator.steps[-1][1], f"{estimator.steps[-1][0]}__") if hasattr(estimator, "steps") else (estimator, "")
    )
    if has_fit_parameter(last, "sample_weight"):
        return fit_classes(estimator, _rows(X, chosen), y[chosen], **{f"{name}sample_weight": weights[chosen]})
    return fit_classes(estimator, _rows(X, chosen), y[chosen])


def _rows(X: Any, rows: NDArray[np.int64]) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


TABLE_MODEL = "model.skops"
_KNOWN = (  # what the models hold beside what skops trusts by itself
    "memloc.coreset._estimator.TableClassifier",
    "memloc.data._table_encoder.TableEncoder",
    "numpy.dtype",
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
)


class TableClassifier:
    """A classifier with what turns a user's table into numbers, and the names of the classes.

    Args:
        encoder: has `transform`, from a DataFrame to numbers. model: fitted on those. class_names: name of each class
            number.
    """

    def __init__(self, encoder: Any, model: Any, class_names: Sequence[str]) -> None:
        self.encoder, self.model, self.class_names = encoder, model, list(class_names)

    def predict(self, table: Any) -> NDArray[Any]:
        """Names of the predicted classes, shape (row,)."""
        wanted = getattr(self.encoder, "_names", None)
        if isinstance(table, pd.DataFrame) and wanted is not None and set(wanted) <= set(table.columns):
            table = table[wanted]  # without ids, text and the target, which the model does not look at
        return np.array(self.class_names, dtype=object)[self.model.predict(self.encoder.transform(table))]


def save_table_classifier(folder: Path, model: TableClassifier) -> None:
    """Write a classifier as skops does: as data, of types that are named; the same classifier gives the same bytes."""
    from skops.io import dumps

    with replacing(folder / TABLE_MODEL) as temporary:
        temporary.write_bytes(_repeatable(dumps(model)))


def _repeatable(content: bytes) -> bytes:
    """What skops wrote, with its parts numbered in order instead of by where they lay in memory, and without times."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as stored, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as again:
        number: dict[str, str] = {}

        def numbered(found: re.Match[str]) -> str:
            return found[1] + number.setdefault(found[2], str(len(number)))

        schema = re.sub(r'("__id__": |"file": ")(\d+)', numbered, stored.read("schema.json").decode())
        parts = {f"{number.get(stem, stem)}.npy": stem for stem in (Path(name).stem for name in stored.namelist())}
        for name, stem in sorted(parts.items()):
            if stem != "schema":
                again.writestr(zipfile.ZipInfo(name), stored.read(f"{stem}.npy"))
        again.writestr(zipfile.ZipInfo("schema.json"), schema)
    return written.getvalue()


def load_table_classifier(folder: Path, *, trust: bool = False) -> TableClassifier:
    """Read what `save_table_classifier` wrote; or with `trust` what memloc 0.1 pickled.

    Raises:
        TrustError: the file holds other types than memloc writes, or is a pickle. ResultsError: damaged or missing.
    """
    from skops.io import get_untrusted_types, load

    path, old = folder / TABLE_MODEL, folder / "model.joblib"
    if not path.is_file() and old.is_file():
        if not trust:
            raise TrustError(
                f"{str(old)!r} is a pickle, and opening it could run anything. Expected your word that you trust this"
                " folder. If you do, pass trust=True; or make the coreset again, whose model is no pickle."
            )
        import joblib

        return cast(TableClassifier, joblib.load(old))
    verify(path)
    try:
        foreign = sorted(set(get_untrusted_types(file=path)) - set(_KNOWN))
        if not foreign:
            return cast(TableClassifier, load(path, trusted=list(_KNOWN)))
    except Exception as problem:  # skops raises whatever the bytes lead it to
        raise ResultsError(
            f"{str(path)!r} is missing or damaged ({type(problem).__name__}). Expected a model that memloc coreset"
            " wrote. Run the command again that wrote it."
        ) from problem
    raise TrustError(
        f"{str(path)!r} holds {foreign[0]}, which memloc does not write, so it was not opened. Expected a model that"
        " memloc coreset wrote. Make it again, or open it with skops.io.load and a list of what you trust."
    )
