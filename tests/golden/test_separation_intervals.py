"""Intervals of separation: DeLong's for AUROC, the bootstrap of an ensemble's cells, the bound on the excess."""

from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from tests.conftest import tiny_net
from tests.golden.slow import Z95, alignment, distances, ends, pairs_of, pictures, ratio, readings, spread_of

from memloc import Views, audit
from memloc.metrics import auroc, excess_fraction

SPLIT = np.array(["candidate"] * 13 + ["external"] * 9 + ["independent"] * 5 + ["shared"] * 4)
IMAGES, VIEWS, SEED = pictures(len(SPLIT)), Views(n=4, seed=3), 5
SETTINGS = {"images": IMAGES, "views": VIEWS, "dtype": "float64", "seed": SEED, "thumbnails": False}


def alignments(net, layer):
    return alignment(distances(readings(tiny_net(net), IMAGES, VIEWS)[layer]), pairs_of(4, "cross"))


def wins(positive, negative):
    """1 where a positive lies above a negative, 1/2 where they tie: (positive, negative)."""
    return np.array([[1.0 if p > n else 0.5 if p == n else 0.0 for n in negative] for p in positive])


def delong(positive, negative):
    """AUROC and its interval: the variance of the mean of `wins` by rows and by columns, on the logit scale."""
    table = wins(positive, negative)
    value = table.mean()
    variance = table.mean(axis=1).var(ddof=1) / len(positive) + table.mean(axis=0).var(ddof=1) / len(negative)
    middle, reach = log(value / (1 - value)), Z95 * sqrt(variance) / (value * (1 - value))
    return [value, *(1 / (1 + exp(-end)) for end in (middle - reach, middle + reach))]


def tensors(*values):
    return [torch.tensor(each, dtype=torch.float64) for each in values]


def test_auroc_has_delongs_interval_on_the_logit_scale():
    random = np.random.default_rng(0)
    positive, negative = random.normal(0.7, 1, 25).round(1), random.normal(0, 1, 40).round(1)  # with ties
    assert list(auroc(*tensors(positive, negative))) == pytest.approx(delong(positive, negative), abs=1e-12)


@pytest.mark.parametrize("layer", ["conv1", "output"])
def test_a_layers_auroc_is_of_candidates_against_external_points(layer):
    found = audit(tiny_net(0), tiny_net(1), splits=list(SPLIT), **SETTINGS).layers.set_index("layer").loc[layer]
    score = ratio(alignments(0, layer), alignments(1, layer))
    expected = delong(score[SPLIT == "candidate"], score[SPLIT == "external"])
    assert found[["auroc", "auroc_low", "auroc_high"]].tolist() == pytest.approx(expected, abs=1e-9)


def test_f_alone_is_separated_by_closeness_of_all_trained_points():
    split = np.where(SPLIT == "independent", "external", SPLIT)
    found = audit(tiny_net(0), splits=list(split), layers=["output"], **SETTINGS).layers.iloc[-1]
    closeness = -alignments(0, "output")
    expected = delong(closeness[split != "external"], closeness[split == "external"])
    assert found[["auroc", "auroc_low", "auroc_high"]].tolist() == pytest.approx(expected, abs=1e-9)


def test_without_overlap_the_bound_is_what_the_smaller_sample_allows():
    """A share of 1 - p of the smaller sample is missed with probability (1 - p)^n, which is 2.5 % at the bound."""
    apart, below = tensors([5.0, 6.0, 7.0, 8.0], [1.0, 2.0])
    assert list(auroc(apart, below)) == pytest.approx([1, 0.025**0.5, 1], abs=1e-12)
    assert list(auroc(below, apart)) == pytest.approx([0, 0, 1 - 0.025**0.5], abs=1e-12)
    assert list(auroc(apart, below.repeat(5))) == pytest.approx([1, 0.025**0.25, 1], abs=1e-12)
    slack = 1 - 0.025 ** (1 / 9)
    assert list(auroc(*tensors([1.0] * 9, [1.0] * 12))) == pytest.approx([0.5, 0.5 - slack, 0.5 + slack], abs=1e-12)


def test_auroc_leaves_nan_out():
    positive, negative = [1.0, 3.0, 2.0, 5.0], [0.0, 2.5, 1.5]
    missing = float("nan")
    assert auroc(*tensors([missing, *positive], [*negative, missing])) == auroc(*tensors(positive, negative))
    for nothing in (([missing], negative), (positive, [missing]), ([], negative)):
        assert np.isnan(auroc(*tensors(*nothing))).all()
    value, *interval = auroc(*tensors([2.0], negative))
    assert value == pytest.approx(2 / 3)
    assert np.isnan(interval).all()


def test_an_ensembles_auroc_is_of_cells_and_varies_over_points_and_encoders():
    """Closeness of (encoder, point) cells in logarithms, net of encoder and of the mean of both sides of a point."""
    random = np.random.default_rng(1)
    seen = np.stack([random.permutation([True, True, False, False]) for _ in SPLIT], axis=1)
    seen[:, -4:] = False
    found = audit(encoders=[tiny_net(net) for net in range(4)], membership=seen, layers=["output"], **SETTINGS)
    row = found.layers.iloc[-1]
    logs = np.log(np.stack([alignments(net, "output") for net in range(4)]))
    logs, seen = (logs - logs.mean(axis=1, keepdims=True))[:, :-4], seen[:, :-4]
    close = (logs.mean(axis=0, where=seen) + logs.mean(axis=0, where=~seen)) / 2 - logs
    assert row["auroc"] == pytest.approx(wins(close[seen], close[~seen]).mean(), abs=1e-9)
    value, added = row["auroc"], np.zeros(close.shape)
    for cell in np.ndindex(close.shape):
        others = close[~seen] if seen[cell] else close[seen]
        won = np.mean([(close[cell] > other) + 0.5 * (close[cell] == other) for other in others])
        added[cell] = (won - value if seen[cell] else 1 - won - value) / (seen if seen[cell] else ~seen).sum()
    _, draws = spread_of(added / (value * (1 - value)), clusters=range(4), seed=SEED)
    logits = np.log(value / (1 - value)) + draws
    assert row[["auroc_low", "auroc_high"]].tolist() == pytest.approx(ends(1 / (1 + np.exp(-logits))), abs=1e-9)


def excess(candidate, external, level=0.95):
    """The largest gap of the distribution functions, less what either may stray with half the error each."""
    steps = np.concatenate([candidate, external])
    gap = max((external <= step).mean() - (candidate <= step).mean() for step in steps)
    stray = sum(sqrt(log(2 / (1 - level)) / (2 * len(sample))) for sample in (candidate, external))
    return max(gap, 0.0), max(gap - stray, 0.0)


def test_the_excess_is_bounded_by_both_samples_at_half_the_error_each():
    by_hand = excess_fraction(torch.arange(100.0) + 50, torch.arange(100.0))
    assert by_hand == pytest.approx((0.5, 0.5 - 2 * sqrt(log(40) / 200)), abs=1e-12)  # .2284
    random = np.random.default_rng(2)
    candidate, external = random.normal(2, 1, 60).round(1), random.normal(0, 1, 150).round(1)
    for level in (0.9, 0.95):
        found = excess_fraction(*tensors(candidate, external), level=level)
        assert found == pytest.approx(excess(candidate, external, level), abs=1e-6)
        assert found[1] > 0
    assert excess_fraction(*tensors([*candidate, np.nan], external)) == excess_fraction(*tensors(candidate, external))


def test_a_layers_excess_is_of_candidates_over_external_points():
    """Plain surfaces against noise: an untrained pair tells them apart."""
    random = np.random.default_rng(3)
    slope = np.add.outer(np.arange(8), np.arange(8)) * 10 + random.integers(0, 100, (40, 1, 1))
    images = np.concatenate([slope, random.integers(0, 256, (50, 8, 8))]).astype(np.uint8)[..., None]
    split = np.array(["candidate"] * 40 + ["external"] * 50)
    found = audit(tiny_net(4), tiny_net(7), splits=list(split), layers=["act2"], **(SETTINGS | {"images": images}))
    row = found.layers.iloc[0]
    scores = found.point_layers[found.point_layers["layer"] == "act2"].set_index("point")["score"].sort_index()
    expected = excess(scores[split == "candidate"].to_numpy(), scores[split == "external"].to_numpy())
    assert row["excess_low"] == pytest.approx(expected[1], abs=1e-6)
    assert row["excess_low"] > 0.1
