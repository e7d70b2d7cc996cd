"""What a valuation will take, from a few learners that are fitted and timed."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import clone

from memloc.progress import roughly

if TYPE_CHECKING:
    from memloc.valuation._estimator import TwoDOOB

_FEW, _MORE = 2, 8  # learners of the shorter fit, and what the longer one has more for each thread
_COPIES = 8  # arrays of the table's size that a fit holds: the table, sums, squares, counts, values, errors


def fit_plan(valuer: TwoDOOB, X: Any, y: Any, sample_weight: Any = None) -> dict[str, Any]:
    """Learners, seconds and megabytes that `valuer.fit(X, y)` will take, to two digits; what a `tol` saves is not
    foreseen."""
    threads = effective_n_jobs(valuer.n_jobs)
    many = min(max(valuer.n_estimators, _FEW + 1), _FEW + _MORE * threads)
    seconds = []
    for learners in (_FEW, _FEW, many):  # the first also loads what the others use
        fitted = clone(valuer).set_params(n_estimators=learners, warm_start=False, tol=None, verbose=0)
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted.fit(X, y, sample_weight)
            _ = fitted.cell_stderr_
        seconds.append(time.monotonic() - began)
    each = max(seconds[2] - seconds[1], 0.0) / (many - _FEW)
    return {
        "learners": valuer.n_estimators,
        "seconds": roughly(seconds[1] + each * valuer.n_estimators),
        "memory_mb": roughly(int(np.prod(fitted.cell_values_.shape)) * 8 * _COPIES / 2**20),
    }
