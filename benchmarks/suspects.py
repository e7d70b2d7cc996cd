"""What the list of suspects finds: injected cells against other scores, flipped labels against cleanlab, clean tables.

    python benchmarks/suspects.py            # writes benchmarks/suspects.json

Needs pyod and cleanlab for the comparison (pip install pyod cleanlab); without them their rows are left out, said.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine, make_classification
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score

from memloc.valuation import TwoDOOB, class_z_scores, label_issues, odd_cells

FIRST, LEARNERS, SEEDS = 50, 400, (0, 1, 2)
SHARES, HOWS = (0.01, 0.04), ("times 1000", "times 10", "swapped")
WEIGHT = 0.25  # of value less row, as in memloc.valuation._suspects


def cells_tables():
    yield "breast_cancer", *load_breast_cancer(return_X_y=True)
    yield "wine", *load_wine(return_X_y=True)
    X, y = load_diabetes(return_X_y=True, scaled=False)
    yield "diabetes, by half", X, (y > np.median(y)).astype(int)


def label_tables():
    for name, load in (
        ("breast_cancer", load_breast_cancer),
        ("wine", load_wine),
        ("digits", load_digits),
        ("iris", load_iris),
    ):
        yield name, *load(return_X_y=True)
    yield "synthetic, apart", *make_classification(2000, 20, n_informative=8, class_sep=1.5, flip_y=0, random_state=1)
    yield (
        "synthetic, overlapping",
        *make_classification(2000, 20, n_informative=6, class_sep=0.5, flip_y=0, random_state=0),
    )


def corrupted(X, share, how, seed):
    generator = np.random.default_rng(seed)
    wrong = np.zeros(X.shape, dtype=bool)
    wrong.ravel()[generator.permutation(X.size)[: round(share * X.size)]] = True
    other = np.column_stack([generator.permutation(column) for column in X.T])
    found = np.where(wrong, {"times 1000": X * 1000, "times 10": X * 10, "swapped": other}[how], X)
    return found, wrong & (found != X)


def first_of(score, wrong):
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf).ravel(), kind="stable")
    return float(wrong.ravel()[order[: min(FIRST, int(wrong.sum()))]].mean())


def scores_of(X, y, seed):
    """Scores of cells, large where suspicious."""
    kinds = ["number"] * X.shape[1]
    odd = odd_cells(pd.DataFrame(X), y, kinds, regression=False)
    fitted = TwoDOOB(LEARNERS, random_state=seed).fit(X, y)
    below = np.nan_to_num(-fitted.cell_contrast_ / fitted.cell_stderr_)
    evidence = -np.log(odd.by_chance + 1e-300)
    forest = -IsolationForest(n_estimators=200, random_state=seed).fit(X).score_samples(X)
    found = {
        "suspects": evidence + WEIGHT * below,
        "without values": evidence,
        "z-score": class_z_scores(X, y),
        "IsolationForest, its row by z": forest[:, None] * (1 + class_z_scores(X, y) / 100),
        "2D-OOB": -fitted.cell_values_,
        "2D-OOB less row": below,
    }
    try:
        from pyod.models.ecod import ECOD
    except ImportError:
        print("pyod is not installed: its rows are left out", file=sys.stderr)
    else:
        detector = ECOD().fit(X)
        found["ECOD"] = detector.O
    return found


def cells():
    rows = []
    for name, X, y in cells_tables():
        for how in HOWS:
            for share in SHARES:
                runs: dict[str, list[tuple[float, float]]] = {}
                for seed in SEEDS:
                    found, wrong = corrupted(X, share, how, seed)
                    for score, value in scores_of(found, y, seed).items():
                        value = np.nan_to_num(value, nan=-1e300)
                        pair = first_of(value, wrong), float(average_precision_score(wrong.ravel(), value.ravel()))
                        runs.setdefault(score, []).append(pair)
                rows.append(
                    {"data": name, "how": how, "share": share}
                    | {
                        score: [round(float(mean), 3) for mean in np.mean(pairs, axis=0)]
                        for score, pairs in runs.items()
                    }
                )
                print(rows[-1], flush=True)
    return rows


def categories():
    """A wrong category in some cells of tables that have categories: numbers cut into five named parts."""
    rows = []
    for name, X, y in cells_tables():
        chosen = range(0, X.shape[1], 2)
        plain = pd.DataFrame(X, columns=[f"x{place}" for place in range(X.shape[1])])
        for place in chosen:
            plain.isetitem(
                place, pd.qcut(plain.iloc[:, place], 5, labels=False, duplicates="drop").map("part {}".format)
            )
        kinds = ["category" if place in chosen else "number" for place in range(X.shape[1])]
        for share in SHARES:
            runs: dict[str, list[tuple[float, float]]] = {}
            for seed in SEEDS:
                found, wrong = plain.copy(), np.zeros(X.shape, dtype=bool)
                generator = np.random.default_rng(seed)
                cells = [(row, column) for row in range(len(X)) for column in chosen]
                for place in generator.permutation(len(cells))[: round(share * len(cells))]:
                    row, column = cells[place]
                    others = sorted(set(plain.iloc[:, column]) - {plain.iat[row, column]})
                    if others:
                        found.iat[row, column], wrong[row, column] = generator.choice(others), True
                odd = odd_cells(found, y, kinds, regression=False)
                evidence = -np.log(odd.by_chance + 1e-300)
                counts = np.stack(
                    [found.iloc[:, place].map(found.iloc[:, place].value_counts()) for place in chosen], axis=1
                )
                rarity, coded = np.full(X.shape, -np.inf), np.empty(X.shape)
                rarity[:, list(chosen)] = -counts
                for place in range(X.shape[1]):
                    column = found.iloc[:, place]
                    coded[:, place] = pd.factorize(column, sort=True)[0] if place in chosen else column
                forest = -IsolationForest(n_estimators=200, random_state=seed).fit(coded).score_samples(coded)
                of_rows = np.where(np.isinf(rarity), -1e300, forest[:, None] * (1 + rarity / 1e9))
                for score, value in {
                    "suspects, without values": np.where(np.isinf(rarity), -1e300, evidence),
                    "rarest category": rarity,
                    "IsolationForest, its row by rarity": of_rows,
                }.items():
                    value = np.nan_to_num(value, nan=-1e300, neginf=-1e300)
                    pair = first_of(value, wrong), float(average_precision_score(wrong.ravel(), value.ravel()))
                    runs.setdefault(score, []).append(pair)
            line = {"data": name, "how": "wrong category", "share": share}
            rows.append(
                line
                | {score: [round(float(mean), 3) for mean in np.mean(pairs, axis=0)] for score, pairs in runs.items()}
            )
            print(rows[-1], flush=True)
    return rows


def labels():
    rows = []
    for name, X, y in label_tables():
        for rate in (0.0, 0.05, 0.1, 0.2):
            runs = []
            for seed in SEEDS:
                generator = np.random.default_rng(seed)
                flipped = generator.permutation(len(y))[: round(rate * len(y))]
                given, wrong = y.copy(), np.zeros(len(y), dtype=bool)
                given[flipped] = (y[flipped] + generator.integers(1, y.max() + 1, len(flipped))) % (y.max() + 1)
                wrong[flipped] = True
                fitted = TwoDOOB(LEARNERS, random_state=seed).fit(X, given)
                found = label_issues(fitted.vote_shares_, given, fitted.classes_)
                flagged = np.nan_to_num(found.score) > 0.5
                line = {
                    "within": bool(found.low <= wrong.sum() <= found.high),
                    "told": bool(found.told),
                    "low": float(found.low), "expected": found.number, "high": float(found.high), "true": int(wrong.sum()),
                    "flagged": float(flagged.mean()),
                    "chance of flagged": float(found.chance[flagged].mean()) if flagged.any() else None,
                    "right of flagged": float(wrong[flagged].mean()) if flagged.any() else None,
                }  # fmt: skip
                if rate:
                    line["ap"] = average_precision_score(wrong, -found.support)
                    try:
                        from cleanlab.rank import get_label_quality_scores
                    except ImportError:
                        print("cleanlab is not installed: its column is left out", file=sys.stderr)
                    else:
                        for method in ("self_confidence", "normalized_margin"):
                            score = get_label_quality_scores(given, fitted.vote_shares_, method=method)
                            line[f"ap of cleanlab, {method}"] = average_precision_score(wrong, -score)
                runs.append(line)
            means = {
                key: round(float(np.mean([one[key] for one in runs if one[key] is not None] or [np.nan])), 3)
                for key in runs[0]
            }
            rows.append({"data": name, "flipped": rate, **means})
            if rate:
                rows[-1]["ap over seeds"] = round(float(np.std([one["ap"] for one in runs])), 3)
            print(rows[-1], flush=True)
    return rows


def agreement():
    """Rows that `memloc value` calls more likely wrong than right, and those that `memloc coreset` suspects."""
    from sklearn.ensemble import RandomForestClassifier

    from memloc.coreset import Crust, train_robust

    rows = []
    for name, X, y in label_tables():
        runs = []
        for seed in SEEDS:
            generator = np.random.default_rng(seed)
            flipped = generator.permutation(len(y))[: round(0.1 * len(y))]
            given, wrong = y.copy(), np.zeros(len(y), dtype=bool)
            given[flipped] = (y[flipped] + generator.integers(1, y.max() + 1, len(flipped))) % (y.max() + 1)
            wrong[flipped] = True
            fitted = TwoDOOB(LEARNERS, random_state=seed).fit(X, given)
            flagged = np.nan_to_num(label_issues(fitted.vote_shares_, given, fitted.classes_).score) > 0.5
            crust = Crust(0.5, objective="centrality", group_by="prediction")
            forest = RandomForestClassifier(200, random_state=seed)
            points = train_robust(forest, (X, given), crust=crust, seed=seed).points
            suspected = points["suspected"].to_numpy() == 1
            runs.append({
                "value": flagged.sum(), "coreset": suspected.sum(), "both": (flagged & suspected).sum(),
                "wrong of value": wrong[flagged].mean(), "wrong of coreset": wrong[suspected].mean(),
                "wrong of both": wrong[flagged & suspected].mean(), "wrong of value alone": wrong[flagged & ~suspected].sum(),
                "wrong of coreset alone": wrong[suspected & ~flagged].sum(), "true": wrong.sum(),
            })  # fmt: skip
        rows.append({"data": name, **{key: round(float(np.nanmean([one[key] for one in runs])), 3) for key in runs[0]}})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    found = {"seeds": list(SEEDS), "learners": LEARNERS, "first": FIRST, "labels": labels(), "cells": cells(),
             "categories": categories(), "agreement": agreement()}  # fmt: skip
    found["seconds"] = round(time.monotonic() - began)
    given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
