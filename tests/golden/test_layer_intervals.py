"""Standard errors and intervals of a layer's figures: means, their differences, and the membership effect."""

from functools import cache

import numpy as np
import pytest
from tests.conftest import tiny_net
from tests.golden.slow import (
    agrees,
    alignment,
    distances,
    least_squares,
    pairs_of,
    patterns,
    pictures,
    ratio,
    readings,
    response_of,
    weights_of,
)

from memloc import Views, audit
from memloc.streams import Stream

SPLIT = np.array(["candidate"] * 11 + ["independent"] * 8 + ["external"] * 9 + ["shared"] * 6)
IMAGES, VIEWS, SEED = pictures(len(SPLIT)), Views(n=4, seed=3), 5
LAYERS = ("conv1", "conv2", "output")
SETTINGS = {"images": IMAGES, "views": VIEWS, "dtype": "float64", "seed": SEED, "thumbnails": False}


@cache
def alignments(nets):
    """(encoder, point) by layer, from a forward pass and a loop over pairs of views."""
    each = [readings(tiny_net(net), IMAGES, VIEWS) for net in nets]
    return {
        name: np.stack([alignment(distances(reading[name]), pairs_of(4, "cross")) for reading in each])
        for name in LAYERS
    }


def resampled_means(values, stream=Stream.BOOTSTRAP):
    """Mean of each bootstrap sample, taken from the sample itself."""
    return np.array([np.repeat(values, drawn).mean() for drawn in weights_of(len(values), SEED, stream=stream)])


def clustered_error(relative, seen):
    """Least squares with a dummy per encoder and point: the sandwich with scores summed by point, times n / (n - 1)."""
    encoders, points = relative.shape
    cells = [(encoder, point) for encoder in range(encoders) for point in range(points)]
    design = np.array(
        [[seen[cell], *(cell[0] == np.arange(encoders)), *(cell[1] == np.arange(points))] for cell in cells],
        dtype=float,
    )
    response = np.array([relative[cell] for cell in cells])
    bread = np.linalg.pinv(design.T @ design)
    residual = response - design @ (bread @ design.T @ response)
    meat = np.zeros_like(bread)
    for point in range(points):
        own = np.array([cell[1] == point for cell in cells])
        total = design[own].T @ residual[own]
        meat += np.outer(total, total)
    return np.sqrt(points / (points - 1) * (bread @ meat @ bread)[0, 0])


def resampled_effects(relative, seen, strata):
    """Effects in tables of resampled points."""
    columns = [np.repeat(np.arange(len(drawn)), drawn) for drawn in weights_of(len(seen.T), SEED, strata=strata)]
    return np.array([least_squares(relative[:, each], seen[:, each]) for each in columns])


@pytest.fixture(scope="module")
def pair():
    return audit(tiny_net(0), tiny_net(1), splits=list(SPLIT), **SETTINGS).layers.set_index("layer")


def test_a_mean_score_is_resampled_over_its_points(pair):
    for name in LAYERS:
        score = ratio(*alignments((0, 1))[name])
        agrees(pair.loc[name], "", resampled_means(score[SPLIT == "candidate"]))
        for split in set(SPLIT):
            agrees(pair.loc[name], split, resampled_means(score[split == SPLIT]))


def test_range_scaled_scores_are_resampled_likewise():
    found = audit(tiny_net(0), tiny_net(1), splits=list(SPLIT), scale="range", layers=["output"], **SETTINGS)
    align_f, align_g = alignments((0, 1))["output"]
    raw = align_g - align_f
    of_candidates = raw[SPLIT == "candidate"]
    score = raw / (of_candidates.max() - of_candidates.min())
    row = found.layers.iloc[-1]
    agrees(row, "", resampled_means(score[SPLIT == "candidate"]))
    own = resampled_means(score[SPLIT == "candidate"]) - resampled_means(
        score[SPLIT == "external"], Stream.EXTERNAL_BOOTSTRAP
    )
    agrees(row, "own", own)


def test_own_memorization_subtracts_external_points_drawn_apart(pair):
    for name in LAYERS:
        score = ratio(*alignments((0, 1))[name])
        means = [
            resampled_means(score[split == SPLIT], stream)
            for split, stream in (("candidate", Stream.BOOTSTRAP), ("external", Stream.EXTERNAL_BOOTSTRAP))
        ]
        agrees(pair.loc[name], "own", means[0] - means[1])


def test_equally_many_external_points_are_not_the_candidates_draws():
    """With equal numbers, common draws would pair points that have nothing to do with each other."""
    split = np.array(["candidate"] * 12 + ["external"] * 12)
    images = np.concatenate([IMAGES[:12]] * 2)  # the same images under other ids
    found = audit(tiny_net(0), tiny_net(1), splits=list(split), layers=["output"], **(SETTINGS | {"images": images}))
    row = found.layers.iloc[-1]
    assert row["own_se"] == pytest.approx(np.hypot(row["candidate_se"], row["external_se"]), rel=0.1)


def test_delta_draws_the_same_points_in_both_layers(pair):
    align = alignments((0, 1))
    for before, name in (("conv1", "conv2"), ("conv2", "head")):
        score, earlier = (ratio(*align["output" if each == "head" else each]) for each in (name, before))
        step = score - earlier
        agrees(pair.loc[name], "delta", resampled_means(step[SPLIT == "candidate"]))
        change = [resampled_halves(each) for each in (score, earlier)]
        agrees(pair.loc[name], "delta_calibrated", change[0] - change[1])
    assert pair.loc["conv1"].filter(like="delta").isna().all()


def resampled_halves(score):
    """(mean of candidates - mean of independents) / 2 in samples that keep the number of each."""
    entered = np.isin(SPLIT, ("candidate", "independent"))
    score, candidate = score[entered], SPLIT[entered] == "candidate"
    seen = np.stack([candidate, ~candidate])
    found = []
    for drawn in weights_of(len(score), SEED, strata=patterns(seen)):
        sides = [np.repeat(score[side], drawn[side]) for side in (candidate, ~candidate)]
        assert [len(side) for side in sides] == [candidate.sum(), (~candidate).sum()]
        found.append((sides[0].mean() - sides[1].mean()) / 2)
    return np.array(found)


def test_the_calibrated_figure_of_a_pair_is_half_a_difference_of_means(pair):
    entered = np.isin(SPLIT, ("candidate", "independent"))
    candidate = (SPLIT == "candidate")[entered]
    seen = np.stack([candidate, ~candidate])
    for name in LAYERS:
        align = alignments((0, 1))[name]
        error = clustered_error(response_of(align[:, entered], seen), seen)
        agrees(pair.loc[name], "calibrated", resampled_halves(ratio(*align)), se=error)


@pytest.mark.parametrize("alike", [True, False])
def test_the_calibrated_figure_of_an_ensemble_is_resampled_least_squares(alike):
    """Four encoders; points that share a membership are resampled among themselves, unless one stands alone."""
    random = np.random.default_rng(1)
    seen = np.stack([random.permutation([True, True, False, False]) for _ in SPLIT], axis=1)
    seen[:, -4:], seen[:, -5:-4] = False, True
    if not alike:
        seen[:, 0] = [True, False, False, False]
    varying = seen.any(axis=0) & ~seen.all(axis=0)
    groups = patterns(seen[:, varying])
    assert (np.bincount(groups).min() >= 2) == alike
    nets = (0, 1, 2, 3)
    found = audit(encoders=[tiny_net(net) for net in nets], membership=seen, **SETTINGS)
    for row in (row for _, row in found.layers.iterrows() if row["layer"] in LAYERS):
        relative = response_of(alignments(nets)[row["layer"]][:, varying], seen[:, varying])
        draws = resampled_effects(relative, seen[:, varying], groups if alike else None)
        value = least_squares(relative, seen[:, varying])
        # of β, times what tanh(β / 2) gains by it
        error = clustered_error(relative, seen[:, varying]) * (1 - value**2) / 2
        agrees(row, "calibrated", draws, se=error)
        assert row["layermem_calibrated"] == pytest.approx(value, abs=1e-9)


def test_an_ensembles_means_and_own_figure_are_resampled_over_points():
    random = np.random.default_rng(2)
    seen = np.stack([random.permutation([True, True, False, False]) for _ in SPLIT], axis=1)
    seen[:, -6:] = False
    found = audit(encoders=[tiny_net(net) for net in range(4)], membership=seen, layers=["output"], **SETTINGS)
    row, points = found.layers.iloc[-1], found.points
    align = alignments((0, 1, 2, 3))["output"]
    score = np.array([ratio(align[side, p].mean(), align[~side, p].mean()) for p, side in enumerate(seen.T[:-6])])
    chance = points["sslmem"].to_numpy()[-6:]  # with memberships of random candidates
    agrees(row, "", resampled_means(score))
    agrees(row, "external", resampled_means(chance))
    agrees(row, "own", resampled_means(score) - resampled_means(chance, Stream.EXTERNAL_BOOTSTRAP))


def test_the_gap_of_f_alone_subtracts_trained_points_from_external_ones():
    split = np.where(SPLIT == "independent", "external", SPLIT)
    found = audit(tiny_net(0), splits=list(split), **SETTINGS).layers.set_index("layer")
    for name in LAYERS:
        align = alignments((0,))[name][0]
        trained = np.isin(split, ("candidate", "shared"))
        agrees(
            found.loc[name],
            "gap",
            resampled_means(align[~trained], Stream.EXTERNAL_BOOTSTRAP) - resampled_means(align[trained]),
        )
        for column in ("se", "low", "high", "calibrated_se", "calibrated_low", "candidate_se", "external_low"):
            assert np.isnan(found.loc[name, column])
