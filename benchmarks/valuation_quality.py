"""What 2D-OOB finds: python benchmarks/valuation_quality.py [PART ...]

Kept in valuation_quality.json, shown in docs/valuation.md.

Parts: outliers baselines mislabels cleaning learners convergence backdoor; all by default, the others' figures are kept. Every figure
is a mean over SEEDS with the standard error of that mean. The backdoor needs CIFAR-10 as parquet (CIFAR10, else
../shared/data/cifar10/train.parquet) and keeps its figures where the file is absent.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from asked import names
from scipy.stats import norm, spearmanr
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stored import keep

from memloc.encoders import versions
from memloc.valuation import TwoDOOB, class_z_scores, lowest_cells, pixel_groups, recommended_share, repair, unevenness

SEEDS = (0, 1, 2)
LEARNERS = 1000
SHARES = (0.01, 0.04, 0.16)
INSPECTED = (0.05, 0.1, 0.2, 0.4)
FLAGGED = 50  # most uneven rows, which the report's map is the mean of
# what the page says of all parts
SETTINGS = {"learners": LEARNERS, "seeds": SEEDS, "inspected": INSPECTED, "flagged": FLAGGED}


def data(name: str):
    """Table, target, and whether the target is a number."""
    load = {"breast_cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits, "diabetes": load_diabetes}
    X, y = load[name](return_X_y=True)
    return X[:, X.std(axis=0) > 0].astype(np.float64), y, name == "diabetes"


def with_outliers(X, y, share: float, seed: int, regression: bool):
    """Replace cells by draws from their column's normal distribution, given that their class's normal has two-sided p <= .01 there.

    Drawn by inverting the two tails, not by rejection. As in the paper: the square root of the share of the rows, and in each of these
    as large a share of the columns.
    """
    generator = np.random.default_rng([seed, 1])
    part, cells = share**0.5, np.zeros(X.shape, dtype=bool)
    for row in generator.permutation(len(X))[: round(part * len(X))]:
        cells[row, generator.permutation(X.shape[1])[: max(round(part * X.shape[1]), 1)]] = True
    groups, changed = np.zeros(len(y), dtype=int) if regression else y, X.copy()
    mean, spread = X.mean(axis=0), X.std(axis=0)
    for group in np.unique(groups):
        rows = groups == group
        reach = norm.isf(0.005) * X[rows].std(axis=0)
        below = norm.cdf((X[rows].mean(axis=0) - reach - mean) / spread)
        above = norm.sf((X[rows].mean(axis=0) + reach - mean) / spread)
        where = generator.uniform(0, below + above, X[rows].shape)
        low = norm.ppf(np.minimum(where, below))
        high = norm.isf(np.maximum(where - below, np.finfo(float).tiny))
        changed[rows] = np.where(cells[rows], mean + spread * np.where(where < below, low, high), X[rows])
    return changed, cells


def valuer(regression: bool, seed: int, **settings) -> TwoDOOB:
    return TwoDOOB(
        LEARNERS, utility="squared_error" if regression else "accuracy", random_state=seed, n_jobs=2, **settings
    )


def finding(score, truth) -> list[float]:
    """AUCPR and AUROC of a score that is high where a cell is wrong; cells without a value come last."""
    score = np.where(np.isnan(score), np.nanmin(score), score).ravel()
    return [average_precision_score(truth.ravel(), score), roc_auc_score(truth.ravel(), score)]


def outliers() -> list[dict]:
    """Outlier cells: value, value less row, distance utility and the z-score; and the detection-rate curve of the value."""
    rows = []
    for name in ("breast_cancer", "wine", "digits", "diabetes"):
        X, y, regression = data(name)
        for share in SHARES:
            found: dict[str, list] = {}
            for seed in SEEDS:
                changed, cells = with_outliers(X, y, share, seed, regression)
                fitted = valuer(regression, seed).fit(changed, y)
                found.setdefault("value", []).append(finding(-fitted.cell_values_, cells))
                found.setdefault("value less row", []).append(finding(-fitted.cell_contrast_, cells))
                if not regression:
                    near = valuer(regression, seed, distance_weight=1.0, max_features=0.25).fit(changed, y)
                    found.setdefault("with distance, r = .25", []).append(finding(-near.cell_values_, cells))
                found.setdefault("z-score", []).append(
                    finding(class_z_scores(changed, None if regression else y), cells)
                )
                order = np.argsort(np.where(np.isnan(fitted.cell_values_), np.inf, fitted.cell_values_), axis=None)
                hit = cells.ravel()[order].cumsum() / cells.sum()
                found.setdefault("curve", []).append([hit[round(part * len(hit)) - 1] for part in INSPECTED])
            rows += [
                {"data": name, "share": share, "score": score, **figures(values)} for score, values in found.items()
            ]
            print(rows[-1], flush=True)
    return rows


def figures(values) -> dict:
    values = np.array(values, dtype=float)
    return {"mean": values.mean(axis=0).tolist(), "se": (values.std(axis=0, ddof=1) / np.sqrt(len(values))).tolist()}


def baselines() -> list[dict]:
    """Outlier cells by other scores: Data-OOB (its row's value for every cell), 2D-KNN-Shapley with 50 orders of the columns, z-score."""
    from knn_shapley_2d import two_d_knn_shapley

    rows = []
    for name in ("breast_cancer", "wine"):
        X, y, _ = data(name)
        for share in (0.01, 0.16):
            found: dict[str, list] = {}
            for seed in SEEDS:
                changed, cells = with_outliers(X, y, share, seed, False)
                fitted = valuer(False, seed).fit(changed, y)
                shapley = two_d_knn_shapley(changed, y, permutations=50, generator=np.random.default_rng(seed))
                scores = {
                    "2D-OOB": -fitted.cell_values_, "2D-OOB less row": -fitted.cell_contrast_,
                    "Data-OOB": -np.repeat(fitted.row_values_[:, None], X.shape[1], axis=1), "2D-KNN-Shapley": -shapley,
                    "z-score": class_z_scores(changed, y),
                }  # fmt: skip
                for score, values in scores.items():
                    found.setdefault(score, []).append(finding(values, cells))
            rows += [
                {"data": name, "share": share, "score": score, **figures(values)} for score, values in found.items()
            ]
            print(name, share, {score: figures(values)["mean"] for score, values in found.items()}, flush=True)
    return rows


def mislabels() -> list[dict]:
    """10 % flipped labels, found by low row values."""
    rows = []
    for name in ("breast_cancer", "wine", "digits"):
        X, y, _ = data(name)
        found = []
        for seed in SEEDS:
            noisy, flipped = flip(y, 0.1, seed)
            found.append(finding(-valuer(False, seed).fit(X, noisy).row_values_, flipped))
        rows.append({"data": name, **figures(found)})
        print(rows[-1], flush=True)
    return rows


def flip(y, share: float, seed: int):
    generator = np.random.default_rng([seed, 2])
    flipped = np.zeros(len(y), dtype=bool)
    flipped[generator.permutation(len(y))[: round(share * len(y))]] = True
    classes = int(y.max()) + 1
    return np.where(flipped, (y + generator.integers(1, classes, len(y))) % classes, y), flipped


def cleaning() -> list[dict]:
    """A forest's score on clean rows kept out, while the lowest cells (16 % outliers) are repaired or rows (10 % flipped) removed."""
    rows = []
    for name in ("breast_cancer", "wine", "digits", "diabetes"):
        X, y, regression = data(name)
        kind = RandomForestRegressor if regression else RandomForestClassifier
        found: dict[tuple[str, float], list] = {}
        for seed in SEEDS:
            train, test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=seed)
            varies = train.std(axis=0) > 0
            train, test = train[:, varies], test[:, varies]

            def score(table, target, seed=seed, kind=kind, test=test, y_test=y_test):
                return kind(200, random_state=seed, n_jobs=2).fit(table, target).score(test, y_test)

            changed, _ = with_outliers(train, y_train, 0.16, seed, regression)
            values = valuer(regression, seed).fit(changed, y_train).cell_values_
            generator = np.random.default_rng(seed)
            for share in (0.0, 0.1, 0.2, 0.3):
                for how in ("lowest cells repaired", "random cells repaired"):
                    ranked = values if how.startswith("lowest") else generator.random(values.shape)
                    table = changed
                    if share:
                        table = repair(pd.DataFrame(changed), lowest_cells(ranked, share)).to_numpy()
                    found.setdefault((how, share), []).append(score(table, y_train))
            if regression:
                continue
            noisy, _ = flip(y_train, 0.1, seed)
            of_rows = valuer(False, seed).fit(train, noisy).row_values_
            for share in (0.0, 0.1, 0.2, 0.3):
                for how, ranked in (
                    ("lowest rows removed", of_rows),
                    ("random rows removed", generator.random(len(of_rows))),
                ):
                    kept = np.argsort(ranked)[round(share * len(ranked)) :]
                    found.setdefault((how, share), []).append(score(train[kept], noisy[kept]))
        rows += [
            {"data": name, "what": how, "share": share, **figures(values)} for (how, share), values in found.items()
        ]
        print(rows[-1], flush=True)
    return rows


def learners() -> list[dict]:
    """Other weak learners on 16 % outlier cells of breast_cancer and wine, 200 of each."""
    kinds = {
        "tree": None,
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)),
        "MLP, 16 units": make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=60)),
    }
    rows = []
    for name in ("breast_cancer", "wine"):
        X, y, _ = data(name)
        for kind, estimator in kinds.items():
            found = []
            for seed in SEEDS:
                changed, cells = with_outliers(X, y, 0.16, seed, False)
                fitted = TwoDOOB(200, estimator=estimator, random_state=seed, n_jobs=2).fit(changed, y)
                found.append(finding(-fitted.cell_values_, cells))
            rows.append({"data": name, "learner": kind, **figures(found)})
            print(rows[-1], flush=True)
    return rows


def convergence() -> list[dict]:
    """Rank correlation of cell values between two seeds, by number of learners (breast_cancer, 16 % outlier cells)."""
    X, y, _ = data("breast_cancer")
    changed, _ = with_outliers(X, y, 0.16, 0, False)
    rows = []
    for count in (50, 200, 1000, 3000):
        one, two = (TwoDOOB(count, random_state=seed, n_jobs=2).fit(changed, y).cell_values_.ravel() for seed in (0, 1))
        both = ~(np.isnan(one) | np.isnan(two))
        rows.append({"learners": count, "spearman": float(spearmanr(one[both], two[both])[0])})
        print(rows[-1], flush=True)
    return rows


def backdoor() -> list[dict] | None:
    """A 4x4 white trigger in 75 frogs that are labelled horse, among 1 000 frogs and horses at 16x16.

    The first four figures look at the rows that are known to be poisoned; the last two at those that the report names without knowing. Columns
    are single ones at .5 and where it is said, else the three channels of a pixel together.
    """
    from PIL import Image

    parquet = Path(os.environ.get("CIFAR10", Path(__file__).parents[2] / "shared/data/cifar10/train.parquet"))
    if not parquet.is_file():
        return None
    table = pd.read_parquet(parquet)
    found: dict[str, list] = {}
    for seed in SEEDS:
        generator = np.random.default_rng([seed, 3])
        picked = np.concatenate(
            [generator.permutation(np.flatnonzero(table["label"] == label))[:500] for label in (6, 7)]
        )
        blobs = [one["bytes"] if isinstance(one, dict) else one for one in table["img"].iloc[picked]]
        images = np.stack([np.asarray(Image.open(io.BytesIO(blob)).convert("RGB").resize((16, 16))) for blob in blobs])
        labels = np.repeat([0, 1], 500)
        poisoned = generator.permutation(500)[:75]
        images[poisoned, 11:15, 11:15] = 255
        labels[poisoned] = 1
        X = images.transpose(0, 3, 1, 2).reshape(1000, -1) / 255.0
        trigger = np.zeros((16, 16), dtype=bool)
        trigger[11:15, 11:15] = True
        groups = pixel_groups(3, 16, 16)
        shares = {
            "r = .5": 0.5,
            "r = .02, single columns": 0.02,
            f"r = {recommended_share(256, 16):.3f}, recommended": recommended_share(256, 16),
        }
        for name, share in shares.items():
            grouped = None if "columns" in name or name == "r = .5" else groups
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fitted = TwoDOOB(3000, max_features=share, groups=grouped, random_state=seed, n_jobs=2).fit(X, labels)
            values = np.nanmean(fitted.cell_values_[poisoned].reshape(75, 3, 16, 16), axis=1)
            single = finding(values, np.broadcast_to(trigger, values.shape))
            mean_map = finding(np.nanmean(values, axis=0), trigger)
            uneven = unevenness(fitted.cell_contrast_, fitted.cell_stderr_)
            flagged = np.argsort(-uneven, kind="stable")[:FLAGGED]
            shown = np.nanmean(fitted.cell_contrast_[flagged].reshape(-1, 16, 16), axis=0)
            share_poisoned = float(np.isin(flagged, poisoned).mean())
            found.setdefault(name, []).append([*single, *mean_map, share_poisoned, finding(shown, trigger)[0]])
            print(seed, name, single, mean_map, flush=True)
    return [{"fraction": name, **figures(values)} for name, values in found.items()]


def main() -> None:
    """Run the parts that are named and keep their figures."""
    parts = {
        part.__name__: part for part in (outliers, baselines, mislabels, cleaning, learners, convergence, backdoor)
    }
    for name in names(__doc__, parts):
        found = parts[name]()
        if found is None:
            print(f"{name}: not measured, its figures stay", file=sys.stderr)
        else:
            keep("valuation_quality.json", {name: found, "settings": SETTINGS, "versions": versions()})


if __name__ == "__main__":
    main()
