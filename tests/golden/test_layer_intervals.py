"""Standard errors and intervals of a layer's figures: means, their differences, and the membership effect."""

from functools import cache

import numpy as np
import pytest
from tests.conftest import tiny_net
from tests.golden.slow import (
    agrees,
    alignment,
    distances,
    effect_of,
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
    images = np.concatenate([IMAGES[:12]] * 2)  # all but the same images under other ids
    images[12:, 0, 0, 0] ^= 1
    found = audit(tiny_net(0), tiny_net(1), splits=list(split), layers=["output"], **(SETTINGS | {"images": images}))
    row = found.layers.iloc[-1]
    assert row["own_se"] == pytest.approx(np.hypot(row["candidate_se"], row["external_se"]), rel=0.1)


def test_delta_draws_the_same_points_in_both_layers(pair):
    align = alignments((0, 1))
    entered = np.isin(SPLIT, ("candidate", "independent"))
    seen = np.stack([SPLIT[entered] == "candidate", SPLIT[entered] == "independent"])
    for before, name in (("conv1", "conv2"), ("conv2", "head")):
        score, earlier = (ratio(*align["output" if each == "head" else each]) for each in (name, before))
        responses = [align["output" if each == "head" else each] for each in (name, before)]
        step = score - earlier
        agrees(pair.loc[name], "delta", resampled_means(step[SPLIT == "candidate"]))
        change = [effect_of(response_of(each[:, entered], seen), seen, seed=SEED)[2] for each in responses]
        agrees(pair.loc[name], "delta_calibrated", change[0] - change[1])
    assert pair.loc["conv1"].filter(like="delta").isna().all()


def test_the_calibrated_figure_of_a_pair_is_half_a_difference_of_means(pair):
    entered = np.isin(SPLIT, ("candidate", "independent"))
    candidate = (SPLIT == "candidate")[entered]
    seen = np.stack([candidate, ~candidate])
    for name in LAYERS:
        align = alignments((0, 1))[name]
        score = ratio(*align)[entered]
        value, error, draws = effect_of(response_of(align[:, entered], seen), seen, seed=SEED)
        assert value == pytest.approx((score[candidate].mean() - score[~candidate].mean()) / 2, abs=1e-12)
        assert error == pytest.approx(
            np.sqrt(sum(score[side].var(ddof=1) / side.sum() for side in (candidate, ~candidate))) / 2, abs=1e-12
        )  # Welch's
        agrees(pair.loc[name], "calibrated", draws, se=error)


@pytest.mark.parametrize("alike", [True, False])
def test_the_calibrated_figure_of_an_ensemble_is_least_squares(alike):
    """Four encoders; points that share a membership vary among themselves, unless one stands alone."""
    random = np.random.default_rng(1)
    seen = np.stack([random.permutation([True, True, False, False]) for _ in SPLIT], axis=1)
    seen[:, -4:], seen[:, -5:-4] = False, True
    if not alike:
        seen[:, 0] = [True, False, False, False]
    varying = seen.any(axis=0) & ~seen.all(axis=0)
    assert (np.bincount(patterns(seen[:, varying])).min() >= 2) == alike
    nets = (0, 1, 2, 3)
    found = audit(encoders=[tiny_net(net) for net in nets], membership=seen, **SETTINGS)
    for row in (row for _, row in found.layers.iterrows() if row["layer"] in LAYERS):
        relative = response_of(alignments(nets)[row["layer"]][:, varying], seen[:, varying])
        value, error, draws = effect_of(relative, seen[:, varying], clusters=range(4), seed=SEED)
        agrees(row, "calibrated", draws, se=error)
        assert row["layermem_calibrated"] == pytest.approx(value, abs=1e-9)
        assert value == pytest.approx(least_squares(relative, seen[:, varying]), abs=1e-12)


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
