"""Reliability of points' scores over views and over training runs; most and least memorized points."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from tests.conftest import tiny_net
from tests.golden.slow import alignment, distances, half_pairs_of, pairs_of, pictures, ratio, readings

from memloc import Views, audit
from memloc.metrics import reliability, run_reliability

SEED, HALVINGS = 5, 32
RECIPES = {
    "cross": Views(n=8, seed=3),
    "all": Views(n=7, seed=3, sampling="independent"),
    "original": Views(n=6, seed=3, sampling="independent", original=True),
}
SPLIT = np.array(["candidate"] * 20 + ["independent"] * 4 + ["external"] * 4)
IMAGES, CANDIDATE = pictures(len(SPLIT)), SPLIT == "candidate"


def correlation(one, two):
    one, two = one - one.mean(), two - two.mean()
    return (one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum())


def longer(correlated, factor):
    """Spearman and Brown's reliability of a measurement so many times as long as its parts."""
    return factor * correlated / (1 + (factor - 1) * correlated)


def half_scores(nets, images, views, layer):
    """Scores of every point from the even views and from the odd ones."""
    kind = views.pairs
    distance = [distances(readings(tiny_net(net), images, views)[layer]) for net in nets]
    halves = half_pairs_of(distance[0].shape[1], kind)
    assert not {view for pair in halves[0] for view in pair if kind != "original" or view} & set(np.ravel(halves[1]))
    return [ratio(*(alignment(each, half) for each in distance)) for half in halves]


def settings(views, layer):
    name = {"conv1": "act1", "conv2": "act2", "output": "output"}[layer]
    return {"views": views, "layers": [name], "dtype": "float64", "seed": SEED, "thumbnails": False}


@pytest.mark.parametrize(("kind", "layer"), list(product(RECIPES, ["conv1", "conv2"])))
def test_over_views_even_ones_are_held_against_odd_ones(kind, layer):
    views = RECIPES[kind]
    row = audit(tiny_net(0), tiny_net(1), images=IMAGES, splits=list(SPLIT), **settings(views, layer)).layers.iloc[0]
    one, two = (np.arctanh(half[CANDIDATE]) for half in half_scores((0, 1), IMAGES, views, layer))  # of logarithms
    expected = longer(correlation(one, two), 2)
    assert -0.9 < expected < 0.99
    assert row["reliability_views"] == pytest.approx(expected, abs=1e-9)


def test_reliability_is_the_correlation_of_halves_by_spearman_and_brown():
    one, two = (torch.tensor(each, dtype=torch.float64) for each in ([1, 2, 3, 4.0], [1, 3, 2, 4.0]))
    assert reliability(one, two) == pytest.approx(1.6 / 1.8, abs=1e-12)  # r = .8
    assert reliability(one, two, 3.0) == pytest.approx(2.4 / 2.6, abs=1e-12)
    gap = torch.tensor([float("nan")], dtype=torch.float64)
    assert reliability(torch.cat([one, gap]), torch.cat([two, 7 * torch.ones(1)])) == reliability(one, two)
    assert np.isnan(reliability(one[:2], two[:2]))
    assert np.isnan(reliability(one, torch.ones(4, dtype=torch.float64)))
    assert reliability(one, -two) == -1


def mixtures(parts):
    """Every mean of the halvings when each kind of halving is drawn some number of times."""
    counts = (each for each in product(range(HALVINGS + 1), repeat=len(parts)) if sum(each) == HALVINGS)
    return np.array([np.dot(each, parts) / HALVINGS for each in counts])


def run_score(align, target, used):
    """Scores from some encoders; NaN where they hold no f or no g of a point."""
    used = np.array(used)
    with np.errstate(invalid="ignore"):
        return ratio(*((align * side)[used].sum(axis=0) / side[used].sum(axis=0) for side in (target, ~target)))


def log_score(align, target, used):
    """The same of mean logarithms, as audits score points."""
    used = np.array(used)
    f, g = ((np.log(align) * side)[used].sum(axis=0) / side[used].sum(axis=0) for side in (target, ~target))
    return g - f


def halves_agree(align, target, one, two, score=run_score):
    """Correlation of the scores of two disjoint sets of encoders."""
    assert not set(one) & set(two)
    scores = [score(align, target, used) for used in (one, two)]
    both = ~np.isnan(scores).any(axis=0)
    return correlation(*(score[both] for score in scores))


@pytest.mark.parametrize("paired", [True, False])
def test_over_runs_one_pair_is_held_against_the_other(paired):
    """Two runs a side are halved as trained, or in either of two ways."""
    views = Views(n=4, seed=3)
    found = audit(
        [tiny_net(0), tiny_net(2)], [tiny_net(1), tiny_net(3)],
        images=IMAGES, splits=list(SPLIT), paired=paired, **settings(views, "conv2"),
    )  # fmt: skip
    align = np.stack(
        [
            alignment(distances(readings(tiny_net(net), IMAGES, views)["conv2"]), pairs_of(4, "cross"))
            for net in (0, 2, 1, 3)
        ]
    )[:, CANDIDATE]
    target = np.repeat([[True], [True], [False], [False]], CANDIDATE.sum(), axis=1)
    together, crossed = (
        halves_agree(align, target, *halves, log_score) for halves in (((0, 2), (1, 3)), ((0, 3), (1, 2)))
    )
    value = found.layers["reliability_runs"].iloc[0]
    if paired:
        assert value == pytest.approx(longer(together, 2), abs=1e-9)
    else:
        expected = longer(mixtures([together, crossed])[1:-1], 2)  # some of either
        assert abs(expected - value).min() < 1e-9


def additive(runs, points, seed):
    """Alignments of f's and g's runs in which points and runs both count: (encoder, point), and who is f."""
    random = np.random.default_rng(seed)
    align = random.uniform(1, 2, points) + random.uniform(0, 1, (2 * runs, points))
    target = np.repeat([[True]] * runs + [[False]] * runs, points, axis=1)
    align -= 0.5 * target * random.uniform(0, 1, points)
    return align, target


def found_over_runs(align, target, **options):
    return run_reliability(*(torch.from_numpy(each) for each in (align, target, ~target)), seed=SEED, **options)


def test_over_three_pairs_single_ones_agree_and_three_are_as_long():
    align, target = additive(3, 40, seed=0)
    parts = [halves_agree(align, target, (a, a + 3), (b, b + 3)) for a, b in combinations(range(3), 2)]
    found = found_over_runs(align, target, paired=True)
    assert found.splits == HALVINGS
    assert abs(longer(mixtures(parts), 3) - found.value).min() < 1e-9


def test_over_an_ensemble_halves_of_all_encoders_agree():
    """Four encoders make three halvings; points without an f or a g in a half are left out of it."""
    random = np.random.default_rng(1)
    align = random.uniform(1, 2, 60) + random.uniform(0, 0.3, (4, 60))
    target = np.stack([random.permutation([True, True, False, False]) for _ in range(60)], axis=1)
    align -= 0.5 * target * random.uniform(0, 1, 60)
    halvings = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    parts = [halves_agree(align, target, *halves) for halves in halvings]
    found = found_over_runs(align, target)
    assert abs(longer(mixtures(parts), 2) - found.value).min() < 1e-9


def test_over_one_pair_reliability_is_unknown():
    found = found_over_runs(*additive(1, 40, seed=0))
    assert np.isnan(found.value)
    assert found.splits == 0


@pytest.mark.parametrize(("count", "k"), [(20, 5), (230, 50)])
def test_extremes_are_ranked_on_one_half_of_the_views_and_scored_on_the_other(count, k):
    """A quarter of the candidates, at most 50; both ways, averaged."""
    views, images = Views(n=4, seed=3), pictures(count + 3, seed=6)
    split = ["candidate"] * count + ["external"] * 3
    row = audit(tiny_net(0), tiny_net(1), images=images, splits=split, **settings(views, "conv2")).layers.iloc[0]
    halves = [half[:count] for half in half_scores((0, 1), images, views, "conv2")]
    top, least = [], []
    for ranked, scored in (halves, reversed(halves)):
        order = sorted(range(count), key=lambda point, ranked=ranked: ranked[point])
        least.append(np.mean([scored[point] for point in order[:k]]))
        top.append(np.mean([scored[point] for point in order[-k:]]))
    assert row["layermem_top"] == pytest.approx(np.mean(top), abs=1e-9)
    assert row["layermem_least"] == pytest.approx(np.mean(least), abs=1e-9)


def test_three_candidates_have_no_quarter():
    views = Views(n=4, seed=3)
    row = audit(tiny_net(0), tiny_net(1), images=IMAGES[:3], **settings(views, "conv2")).layers.iloc[0]
    assert row[["layermem_top", "layermem_least"]].isna().all()
