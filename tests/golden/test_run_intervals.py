"""Intervals that speak of other training runs: with three or more a side, runs are resampled with the points."""

from functools import cache

import numpy as np
import pytest
import torch
from tests.conftest import tiny_net
from tests.golden.slow import (
    Z95,
    agrees,
    alignment,
    distances,
    effect_of,
    ends,
    half_width,
    pairs_of,
    pictures,
    ratio,
    readings,
    response_of,
    slopes,
    variance_over_views,
    variances_over_views,
    weights_of,
)

from memloc import Views, audit
from memloc.metrics import membership_effect
from memloc.streams import Stream

SPLIT = np.array(["candidate"] * 7 + ["independent"] * 6 + ["external"] * 5)
IMAGES, VIEWS, SEED = pictures(len(SPLIT)), Views(n=4, seed=3), 5
SETTINGS = {"images": IMAGES, "views": VIEWS, "dtype": "float64", "seed": SEED, "thumbnails": False}


@cache
def all_distances(nets, layer="output"):
    """(encoder, point, view, view)"""
    return np.stack([distances(readings(tiny_net(net), IMAGES, VIEWS)[layer]) for net in range(nets)])


@cache
def alignments(nets, layer="output"):
    """(encoder, point)"""
    return np.stack([alignment(each, pairs_of(4, "cross")) for each in all_distances(nets, layer)])


@cache
def audited(f_runs, g_runs, paired):
    """Unpaired runs at the output; paired ones, without external points, at two layers."""
    nets, kept = [tiny_net(net) for net in range(f_runs + g_runs)], len(SPLIT) - 5 * paired
    return audit(
        nets[:f_runs], nets[f_runs:], splits=list(SPLIT[:kept]), layers=["act2", "output"] if paired else ["output"],
        paired=paired, **(SETTINGS | {"images": IMAGES[:kept]}),
    )  # fmt: skip


@cache
def audited_ensemble():
    nets = [tiny_net(net) for net in range(6)]
    return audit(encoders=nets, membership=three_of_six(len(SPLIT)), layers=["output"], **SETTINGS)


def three_of_six(count):
    """Which three of six encoders saw each point."""
    random = np.random.default_rng(0)
    return np.stack([random.permutation([True] * 3 + [False] * 3) for _ in range(count)], axis=1)


def weights_of_runs(f_runs, g_runs, paired, repeats=1000):
    """Draws of the runs of either side, f's first: pairs stay together, else each side keeps its number."""
    if paired:
        pairs = weights_of(f_runs, SEED, repeats=repeats, stream=Stream.RUN_BOOTSTRAP)
        return np.concatenate([pairs, pairs], axis=1)
    f_last = [1] * f_runs + [0] * g_runs  # g's runs, which miss the first candidate, sort first
    return weights_of(f_runs + g_runs, SEED, strata=f_last, repeats=repeats, stream=Stream.RUN_BOOTSTRAP)


def resampled_means(align, target, runs, stream=Stream.BOOTSTRAP):
    """Mean score of resampled points between resampled runs; points whose f or g is not drawn are left out."""
    found = []
    points = weights_of(align.shape[1], SEED, repeats=len(runs), stream=stream)
    for run, drawn in zip(runs, points, strict=True):
        rows, columns = (np.repeat(np.arange(len(each)), each) for each in (run, drawn))
        f, values = target[rows], align[rows]
        with np.errstate(invalid="ignore"):
            score = ratio((values * f).sum(axis=0) / f.sum(axis=0), (values * ~f).sum(axis=0) / (~f).sum(axis=0))
        score = score[columns]
        found.append(score[~np.isnan(score)].mean())
    return np.array(found)


def two_sided(f_runs, g_runs):
    """Membership of candidates and independents: (encoder, point)."""
    split = SPLIT[SPLIT != "external"]
    return np.stack([split == "candidate"] * f_runs + [split == "independent"] * g_runs)


def sides(f_runs, g_runs, count):
    """Which encoders stand for f: (encoder, point)."""
    return np.repeat([[True]] * f_runs + [[False]] * g_runs, count, axis=1)


def test_with_three_runs_a_side_every_figure_resamples_them():
    row, align, target = audited(3, 4, False).layers.iloc[-1], alignments(7), sides(3, 4, len(SPLIT))
    runs, draws = weights_of_runs(3, 4, False), {}
    for split in ("candidate", "independent", "external"):
        member = split == SPLIT
        draws[split] = resampled_means(align[:, member], target[:, member], runs)
        agrees(row, split, draws[split])
    agrees(row, "", draws["candidate"])
    apart = resampled_means(align[:, member], target[:, member], runs, Stream.EXTERNAL_BOOTSTRAP)
    agrees(row, "own", draws["candidate"] - apart)  # other points, the same runs
    seen, entered = two_sided(3, 4), SPLIT != "external"
    _, error, effects = effect_of(response_of(align[:, entered], seen), seen, clusters=range(7), seed=SEED)
    agrees(row, "calibrated", effects, se=error)


def test_paired_runs_are_drawn_in_pairs_and_the_same_ones_in_both_layers_of_a_delta():
    found, runs, seen = audited(3, 3, True).layers, weights_of_runs(3, 3, True), two_sided(3, 3)
    means, effects = {}, {}
    for (_, row), layer in zip(found.iterrows(), ("conv2", "output"), strict=True):
        align = alignments(6, layer)[:, SPLIT != "external"]
        candidate = seen[0]
        means[layer] = resampled_means(align[:, candidate], sides(3, 3, candidate.sum()), runs)
        _, error, effects[layer] = effect_of(response_of(align, seen), seen, clusters=[0, 1, 2] * 2, seed=SEED)
        agrees(row, "", means[layer])
        agrees(row, "calibrated", effects[layer], se=error)
    agrees(found.iloc[1], "delta", means["output"] - means["conv2"])
    agrees(found.iloc[1], "delta_calibrated", effects["output"] - effects["conv2"])


def test_two_runs_on_a_side_are_not_resampled():
    row, align = audited(3, 2, False).layers.iloc[-1], alignments(5)
    score = ratio(align[:3].mean(axis=0), align[3:].mean(axis=0))[SPLIT == "candidate"]
    draws = np.array([np.repeat(score, drawn).mean() for drawn in weights_of(len(score), SEED)])
    agrees(row, "", draws)
    seen, entered = two_sided(3, 2), SPLIT != "external"
    _, error, effects = effect_of(response_of(align[:, entered], seen), seen, seed=SEED)
    agrees(row, "calibrated", effects, se=error)


@pytest.mark.parametrize(("f_runs", "g_runs", "paired"), [(4, 4, False), (3, 5, True), (4, 4, True)])
def test_the_membership_effect_varies_over_runs_or_pairs(f_runs, g_runs, paired):
    """Sides of different numbers cannot be pairs."""
    seen = two_sided(f_runs, g_runs)
    align = np.random.default_rng(0).uniform(0.5, 1.5, seen.shape) - 0.2 * seen
    found = membership_effect(torch.from_numpy(align), torch.from_numpy(seen), paired=paired, repeats=200, seed=SEED)
    clusters = [0, 1, 2, 3] * 2 if paired and f_runs == g_runs else range(8)
    value, error, draws = effect_of(response_of(align, seen), seen, clusters=clusters, seed=SEED, repeats=200)
    assert (found.value, found.se) == pytest.approx((value, error), abs=1e-9)
    assert found.draws.numpy() == pytest.approx(draws, abs=1e-9)
    assert (found.low, found.high) == pytest.approx(ends(draws), abs=1e-9)
    assert found.runs_resampled


def test_encoders_of_an_ensemble_vary_over_all():
    seen = three_of_six(len(SPLIT))
    row, align = audited_ensemble().layers.iloc[-1], alignments(6)
    runs = weights_of(6, SEED, stream=Stream.RUN_BOOTSTRAP)
    agrees(row, "", resampled_means(align, seen, runs))
    _, error, draws = effect_of(response_of(align, seen), seen, clusters=range(6), seed=SEED)
    agrees(row, "calibrated", draws, se=error)


@pytest.mark.parametrize(("encoders", "varies"), [(3, False), (4, True)])
def test_an_ensemble_speaks_of_other_encoders_from_four_on(encoders, varies):
    random = np.random.default_rng(1)
    seen = np.stack([random.permutation([True] + [False] * (encoders - 1)) for _ in range(12)], axis=1)
    align = random.uniform(0.5, 1.5, seen.shape)
    found = membership_effect(torch.from_numpy(align), torch.from_numpy(seen), repeats=200, seed=SEED)
    assert found.runs_resampled == varies
    clusters = range(encoders) if varies else None
    _, error, draws = effect_of(response_of(align, seen), seen, clusters=clusters, seed=SEED, repeats=200)
    assert found.se == pytest.approx(error, abs=1e-9)
    assert found.draws.numpy() == pytest.approx(draws, abs=1e-9)


@pytest.mark.parametrize(("f_runs", "g_runs", "paired"), [(3, 2, False), (3, 4, False), (2, 2, True), (3, 3, True)])
def test_points_add_the_variance_over_three_runs_a_side(f_runs, g_runs, paired):
    found = audited(f_runs, g_runs, paired)
    kept = slice(len(found.points))
    align = alignments(f_runs + g_runs)[:, kept]
    align_f, align_g = align[:f_runs], align[f_runs:]
    slope_f, slope_g = slopes(align_f.mean(axis=0), align_g.mean(axis=0))
    if min(f_runs, g_runs) < 3:
        over_runs = 0
    elif paired:
        over_runs = (slope_f * align_f + slope_g * align_g).var(axis=0, ddof=1) / f_runs
    else:
        over_runs = (
            slope_f**2 * align_f.var(axis=0, ddof=1) / f_runs + slope_g**2 * align_g.var(axis=0, ddof=1) / g_runs
        )
    distance = all_distances(f_runs + g_runs)[:, kept]
    over_views = variances_over_views(distance[:f_runs].mean(axis=0), distance[f_runs:].mean(axis=0), "cross")
    assert half_width(found) == pytest.approx(Z95 * np.sqrt(over_views + over_runs), abs=1e-9)


def test_points_of_an_ensemble_have_their_own_sides():
    """f is whoever saw the point."""
    seen, align, distance = three_of_six(len(SPLIT)), alignments(6), all_distances(6)
    expected = []
    for point, side in enumerate(seen.T):
        inside, outside = align[side, point], align[~side, point]
        slope_in, slope_out = slopes(inside.mean(), outside.mean())
        over_runs = (slope_in**2 * inside.var(ddof=1) + slope_out**2 * outside.var(ddof=1)) / 3
        means = [distance[each, point].mean(axis=0) for each in (side, ~side)]
        expected.append(variance_over_views(*means, "cross") + over_runs)
    assert half_width(audited_ensemble()) == pytest.approx(Z95 * np.sqrt(expected), abs=1e-9)
