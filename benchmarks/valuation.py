"""Speed and memory of TwoDOOB: python benchmarks/valuation.py [NAME ...]

Ratios measured in one run, kept in valuation.json; what is not asked for keeps its figures.

The bound is the time of the same trees' `fit` calls alone, on the same rows, columns and weights; 95 % of the work. Beside it:
scikit-learn's RandomForestClassifier with as many trees, 2D-KNN-Shapley (1 000 permutations, extrapolated from a few), and
pyDVL's Data-OOB of as many trees on all columns, which needs pydvl (without it that is left out, said).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from asked import names

CASES = {  # rows, columns and learners; bound on the ratio
    "breast_cancer": (1000, 1.10),
    "digits": (200, 1.10),
    "synthetic 1000 x 20": (1000, 1.10),
    "synthetic 1000 x 768": (100, 1.20),
}
NAMES = [*CASES, "memory", "rows", "scaling", "knn_shapley", "pydvl"]
PERMUTATIONS = 1_000
REPEATS = 9  # of each ratio; the median is reported. One-thread ratios are of processor time, which what else runs here disturbs less


def data(name: str):
    """Table and labels of a case; constant columns of digits are dropped."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer, load_digits, make_classification

    if name == "breast_cancer":
        return load_breast_cancer(return_X_y=True)
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X[:, X.std(axis=0) > 0], y
    columns = int(name.split()[-1])
    X, y = make_classification(1000, columns, n_informative=columns // 2, random_state=0)
    return X.astype(np.float64), y


def bare(X, y, fitted) -> float:
    """Processor seconds of the fits alone."""
    import numpy as np
    from sklearn.tree import DecisionTreeClassifier

    columns = np.ascontiguousarray(X.T, dtype=np.float32)
    _, codes = np.unique(y, return_inverse=True)
    seconds = 0.0
    for rows, features, tree in zip(
        fitted.estimators_samples_, fitted.estimators_features_, fitted.estimators_, strict=True
    ):
        part, weight = columns[features].T, np.bincount(rows, minlength=len(X))
        one = DecisionTreeClassifier(max_features="sqrt", random_state=tree.random_state)
        began = time.process_time()
        one.fit(part, codes, sample_weight=weight, check_input=False)
        seconds += time.process_time() - began
    return seconds


def timed(work) -> float:
    """Processor seconds of some work in one thread."""
    began = time.process_time()
    work()
    return time.process_time() - began


def speed(name: str) -> dict:
    """TwoDOOB against its own trees' fits and a random forest, on one core; and two workers against one."""
    from sklearn.ensemble import RandomForestClassifier

    from memloc.valuation import TwoDOOB

    X, y = data(name)
    learners, bound = CASES[name]
    ratios, forest, twice, seconds = [], [], [], []
    for _ in range(REPEATS):
        fitted = TwoDOOB(learners, random_state=0)
        began = time.perf_counter()
        ours = timed(lambda fitted=fitted: fitted.fit(X, y))
        wall = time.perf_counter() - began
        base = bare(X, y, fitted)
        ratios.append(ours / base)
        seconds.append(wall)
        forest.append(timed(lambda: RandomForestClassifier(learners, random_state=0).fit(X, y)) / base)
        began = time.perf_counter()
        TwoDOOB(learners, random_state=0, n_jobs=2).fit(X, y)
        twice.append(wall / (time.perf_counter() - began))
    return {
        "rows": X.shape[0], "columns": X.shape[1], "learners": learners, "seconds": statistics.median(seconds),
        "ratio": statistics.median(ratios), "ratios": ratios, "bound": bound, "random_forest_ratio": statistics.median(forest),
        "two_workers": statistics.median(twice),
    }  # fmt: skip


def memory() -> dict:
    """Largest memory that a fit at 1000 x 768 x 100 takes at a time in Python and NumPy; the trees' nodes, in C, are not counted."""
    import tracemalloc

    from memloc.valuation import TwoDOOB

    X, y = data("synthetic 1000 x 768")
    TwoDOOB(2, random_state=0).fit(X[:50], y[:50])
    tracemalloc.start()
    TwoDOOB(100, random_state=0).fit(X, y)
    _, peak = tracemalloc.get_traced_memory()
    return {"added_mb": peak / 1e6, "bound": 40}


def rows() -> dict:
    """How processor time grows from 10 000 to 100 000 rows, beside that of the bare fits of the same trees; and with
    `max_samples` a million rows."""
    from sklearn.datasets import make_classification

    from memloc.valuation import TwoDOOB

    X, y = make_classification(100_000, 20, n_informative=8, random_state=0)
    growth = []
    for _ in range(3):
        ours, base = [], []
        for number in (10_000, 100_000):
            fitted = TwoDOOB(30, random_state=0)
            ours.append(timed(lambda fitted=fitted, number=number: fitted.fit(X[:number], y[:number])))
            base.append(bare(X[:number], y[:number], fitted))
        growth.append((ours[1] / ours[0]) / (base[1] / base[0]))
    X, y = make_classification(1_000_000, 20, n_informative=8, random_state=0)
    began = time.perf_counter()
    fitted = TwoDOOB(100, max_samples=10_000, random_state=0).fit(X, y)
    seconds = time.perf_counter() - began
    return {
        "growth": statistics.median(growth),
        "bound": 1.15,
        "growths": growth,
        "million": {"rows": len(X), "learners": 100, "max_samples": 10_000, "seconds": seconds, "peak_mb": peak_mb()},
    }


def peak_mb() -> float:
    """The most memory that this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def pydvl() -> dict:
    """pyDVL's Data-OOB against row values of as many trees on all columns: processor time, and memory in Python and NumPy."""
    import tracemalloc
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pydvl.valuation import DataOOBValuation, Dataset
    except ImportError:
        print("pydvl is not installed: its figures are left out", file=sys.stderr)
        return {}
    from sklearn.ensemble import BaggingClassifier
    from sklearn.tree import DecisionTreeClassifier

    from memloc.valuation import TwoDOOB

    def theirs(X, y, learners):
        forest = BaggingClassifier(DecisionTreeClassifier(max_features="sqrt"), learners, random_state=0).fit(X, y)
        return DataOOBValuation(forest).fit(Dataset(X, y)).result.values

    def ours(X, y, learners):
        return TwoDOOB(learners, max_features=1.0, random_state=0).fit(X, y).row_values_

    def held(work) -> float:
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 1e6

    found = {}
    for name in ("breast_cancer", "digits", "synthetic 1000 x 20"):
        X, y = data(name)
        learners = CASES[name][0]
        ratios = [timed(lambda X=X, y=y, n=learners: ours(X, y, n)) / timed(lambda X=X, y=y, n=learners: theirs(X, y, n))
                  for _ in range(5)]  # fmt: skip
        found[name] = {
            "learners": learners, "ratio": statistics.median(ratios), "ratios": ratios,
            "memory_mb": held(lambda X=X, y=y, n=learners: ours(X, y, n)),
            "their_memory_mb": held(lambda X=X, y=y, n=learners: theirs(X, y, n)),
        }  # fmt: skip
    return found


def scaling() -> dict:
    """What two cores of this machine give at best: two processes with the same bare fits against one."""
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import valuation
from memloc.valuation import TwoDOOB
X, y = valuation.data("synthetic 1000 x 20")
fitted = TwoDOOB(400, random_state=0).fit(X, y)
sys.stdin.readline()
print(valuation.bare(X, y, fitted))
"""

    def seconds(processes: int) -> float:
        running = [
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        time.sleep(12)  # all have fitted and wait
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()
        return statistics.mean(float(process.communicate()[0]) for process in running)

    return {"two_processes": 2 * seconds(1) / seconds(2)}


def knn_shapley() -> dict:
    """2D-KNN-Shapley of breast_cancer against TwoDOOB with 1 000 learners."""
    import numpy as np
    from knn_shapley_2d import two_d_knn_shapley

    from memloc.valuation import TwoDOOB

    X, y = data("breast_cancer")
    few = 4
    theirs = timed(lambda: two_d_knn_shapley(X, y, permutations=few, generator=np.random.default_rng(0)))
    ours = timed(lambda: TwoDOOB(1000, random_state=0).fit(X, y))
    return {
        "permutations_timed": few,
        "seconds_at_1000": theirs / few * PERMUTATIONS,
        "times_slower": theirs / few * PERMUTATIONS / ours,
    }


def main() -> None:
    """Run every case in a process of its own with one thread for numerics, and keep its figures."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(speed(sys.argv[2]) if sys.argv[2] in CASES else globals()[sys.argv[2]]()))
        return
    chosen = names(__doc__, NAMES)
    from stored import keep

    from memloc.encoders import versions

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name in chosen:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name], capture_output=True, text=True, env=environment
        )
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        sys.stderr.write(done.stderr)
        if not found:
            continue
        print(json.dumps({name: found}), flush=True)
        keep("valuation.json", {name: found, "versions": versions()})


if __name__ == "__main__":
    main()
