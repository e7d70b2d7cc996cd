"""The 95 % interval of a point's score over views, by the delta method; over runs too: test_run_intervals.py."""

import numpy as np
import pytest
from tests.conftest import tiny_net
from tests.golden.slow import Z95, distances, half_width, pictures, readings, variances_over_views

from memloc import Views, audit

RECIPES = {
    "cross": Views(n=8, seed=3),
    "all": Views(n=7, seed=3, sampling="independent"),
    "original": Views(n=6, seed=3, sampling="independent", original=True),
}
IMAGES = pictures(12)


def output_distances(seeds, views):
    """(encoder, point, view, view) at the output of tiny nets."""
    return np.stack([distances(readings(tiny_net(seed), IMAGES, views)["output"]) for seed in seeds])


@pytest.mark.parametrize("kind", list(RECIPES))
def test_the_interval_is_that_of_the_linearized_ratio_over_views(kind):
    views = RECIPES[kind]
    found = audit(tiny_net(0), tiny_net(1), images=IMAGES, views=views, dtype="float64", layers=["output"])
    f, g = output_distances((0, 1), views)
    assert half_width(found) == pytest.approx(Z95 * np.sqrt(variances_over_views(f, g, kind)), abs=1e-9)


@pytest.mark.parametrize("kind", list(RECIPES))
def test_intervals_are_as_wide_as_scores_from_other_views_spread(kind):
    """Copies of an image under other ids are one point with other views; Sobol ones may claim more than they need."""
    copies = np.repeat(pictures(15, seed=4), 20, axis=0)
    sampling = "sobol" if kind == "cross" else "independent"
    views = Views(n=16 if kind == "cross" else 32, seed=5, sampling=sampling, original=kind == "original")
    found = audit(tiny_net(0), tiny_net(1), images=copies, views=views, layers=["output"], thumbnails=False)
    claimed = np.mean((half_width(found) / Z95) ** 2)
    seen = found.points["sslmem"].to_numpy().reshape(15, 20).var(axis=1, ddof=1).mean()
    assert 0.8 < claimed / seen < (1.75 if kind == "cross" else 1.25)


def test_two_views_of_a_net_are_needed_for_an_interval():
    points = audit(tiny_net(0), tiny_net(1), images=IMAGES, views=Views(n=2), layers=["output"]).points
    assert points["sslmem"].notna().all()
    assert points[["sslmem_low", "sslmem_high"]].isna().all().all()
