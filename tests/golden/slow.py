"""The slow side of the golden tests: views, one forward pass, distances and draws, written from the formulas alone."""

import copy
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from memloc.metrics import bootstrap_weights
from memloc.streams import Stream, generator

Z95 = NormalDist().inv_cdf(0.975)


def pictures(count, seed=1):
    """Gray images of 8x8 pixels between noise and a smooth surface, so that points differ: uint8 (N, H, W, C)."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (count, 8, 8)) * random.uniform(0.1, 1, (count, 1, 1))
    smooth = random.normal(size=(count, 8, 8)).cumsum(axis=1).cumsum(axis=2)
    smooth = smooth - smooth.min(axis=(1, 2), keepdims=True)
    smooth = 255 * smooth / smooth.max(axis=(1, 2), keepdims=True)
    share = random.uniform(0, 1, (count, 1, 1))
    return (share * noise + (1 - share) * smooth).astype(np.uint8)[..., None]


def readings(net, images, views):
    """What the layers of a TinyNet give for every view, in float64: (point, view, feature...) by layer."""
    net = copy.deepcopy(net).double().eval()
    drawn = views.draw(torch.from_numpy(images).permute(0, 3, 1, 2), torch.arange(len(images)))
    with torch.no_grad():
        one = torch.relu(net.norm1(net.conv1(drawn.flatten(0, 1).double())))
        two = torch.relu(net.conv2(one))
        out = net.head(two.mean(dim=(2, 3)))
    found = {"conv1": one, "conv2": two, "output": out}
    return {name: each.unflatten(0, drawn.shape[:2]).numpy() for name, each in found.items()}


def distances(reading):
    """l2 distances of the views of each point, on the unit sphere: (point, view, view)."""
    flat = reading.reshape(*reading.shape[:2], -1)
    unit = flat / np.sqrt((flat**2).sum(axis=2, keepdims=True))
    return np.stack([np.sqrt(((one[:, None] - one[None]) ** 2).sum(axis=2)) for one in unit])


def pairs_of(views, kind):
    """The pairs of views that an alignment averages."""
    if kind == "original":
        return [(0, other) for other in range(1, views)]
    everything = [(one, two) for one in range(views) for two in range(one + 1, views)]
    return everything if kind == "all" else [(one, two) for one in range(0, views, 2) for two in range(1, views, 2)]


def half_pairs_of(views, kind):
    """The pairs of two scores that share no drawn view: within the even views, and within the odd ones."""
    if kind == "original":
        return [(0, other) for other in range(1, views, 2)], [(0, other) for other in range(2, views, 2)]
    return [[(one, two) for one, two in pairs_of(views, "all") if one % 2 == two % 2 == side] for side in (0, 1)]


def alignment(distance, pairs):
    """Mean distance over pairs of views: (point,)."""
    return sum(distance[:, one, two] for one, two in pairs) / len(pairs)


def ratio(align_f, align_g):
    """SSLMem' of alignments."""
    return (align_g - align_f) / (align_g + align_f)


def ends(draws):
    """The central 95 % of bootstrap draws, interpolated between order statistics."""
    ordered = np.sort(draws[~np.isnan(draws)])
    places = (len(ordered) - 1) * np.array([0.025, 0.975])
    below = places.astype(int)
    above = np.minimum(below + 1, len(ordered) - 1)
    return ordered[below] + (places - below) * (ordered[above] - ordered[below])


def spread(draws):
    """Standard deviation of bootstrap draws."""
    draws = draws[~np.isnan(draws)]
    return np.sqrt(((draws - draws.mean()) ** 2).sum() / (len(draws) - 1))


def wilson(share, count):
    """The shares p at which (share - p)^2 = z^2 p (1 - p) / count."""
    square = Z95**2 / count
    return np.sort(np.roots([1 + square, -2 * share - square, share**2]).real)


def weights_of(count, seed, *, strata=None, repeats=1000, stream=Stream.BOOTSTRAP):
    """The public bootstrap draws, (repeat, count); what they are is tested in test_other_intervals.py."""
    strata = None if strata is None else torch.as_tensor(np.asarray(strata))
    return bootstrap_weights(count, repeats, seed, strata=strata, stream=stream).numpy().astype(int)


def agrees(row, prefix, draws, *, se=None):
    """Whether a row's three figures are those of the draws."""
    names = ("se", "low", "high") if prefix == "" else (f"{prefix}_se", f"{prefix}_low", f"{prefix}_high")
    expected = [spread(draws) if se is None else se, *ends(draws)]
    assert row[list(names)].to_numpy(dtype=float) == pytest.approx(expected, abs=1e-9), prefix


def least_squares(response, seen):
    """What membership takes off, net of an effect per encoder and per point, of full tables: (encoder, point); of
    logarithms, on the scale of SSLMem'."""
    logs = len(response) > 2
    response, member = (
        table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        for table in (response, seen.astype(float))
    )
    slope = -(response * member).sum() / (member**2).sum() if (member**2).sum() > 1e-9 else np.nan
    return np.tanh(slope / 2) if logs else slope


def response_of(align, seen):
    """What is modelled: logarithms; for two encoders alignments over (mean of those that saw the point + mean of those
    that did not)."""
    if len(align) > 2:
        return np.log(align)
    return np.stack(
        [
            align[:, point] / (align[seen[:, point], point].mean() + align[~seen[:, point], point].mean())
            for point in range(align.shape[1])
        ],
        axis=1,
    )


def patterns(seen):
    """A number per point, the same for points with the same membership."""
    return np.unique(seen.T, axis=0, return_inverse=True)[1].reshape(-1)


def half_width(found):
    """Half the width of every point's interval, after seeing that the score is its middle."""
    points = found.points
    low, high, score = (points[name].to_numpy() for name in ("sslmem_low", "sslmem_high", "sslmem"))
    assert (low + high) / 2 == pytest.approx(score, abs=1e-12)
    return (high - low) / 2


def slopes(f, g):
    """What (g - f) / (g + f) gains per unit of f and of g."""
    return -2 * g / (f + g) ** 2, 2 * f / (f + g) ** 2


def variance_over_views(f, g, kind):
    """Of one point: distances (view, view) of both sides, linearized at their means; projections on single views."""
    views = len(f)
    pairs = pairs_of(views, kind)
    mean_f, mean_g = (np.mean([side[pair] for pair in pairs]) for side in (f, g))
    slope_f, slope_g = slopes(mean_f, mean_g)
    moved = slope_f * (f - mean_f) + slope_g * (g - mean_g)
    if kind == "original":
        return np.var([moved[pair] for pair in pairs], ddof=1) / len(pairs)
    if kind == "cross":
        even, odd = range(0, views, 2), range(1, views, 2)
        by_even = [np.mean([moved[one, two] for two in odd]) for one in even]
        by_odd = [np.mean([moved[one, two] for one in even]) for two in odd]
        return np.var(by_even, ddof=1) / len(even) + np.var(by_odd, ddof=1) / len(odd)
    by_view = [np.mean([moved[one, two] for two in range(views) if two != one]) for one in range(views)]
    return 4 * np.var(by_view, ddof=1) / views  # each pair moves with both of its views


def variances_over_views(f, g, kind):
    """Of every point, from distances (point, view, view) of both sides."""
    return np.array([variance_over_views(*each, kind) for each in zip(f, g, strict=True)])


def spread_of(added, *, clusters=None, strata=None, seed, repeats=1000):
    """Standard error and draws of a sum of what cells add, over points and over runs: the slow side of two_way_spread."""
    points = added.shape[1]
    groups = np.zeros(points, dtype=int) if strata is None else np.asarray(strata)
    of_points = np.array([sum(column) for column in added.T])
    parts, doubts = [], []
    for group in np.unique(groups):
        mine = of_points[groups == group]
        part = sum((one - mine.mean()) ** 2 for one in mine) * len(mine) / max(len(mine) - 1, 1)
        parts.append(part)
        doubts.append(part**2 / max(len(mine) - 1, 1))
    variance, freedom = sum(parts), sum(parts) ** 2 / sum(doubts)
    draws = np.array(
        [sum(of_points * drawn) - sum(of_points) for drawn in weights_of(points, seed, strata=strata, repeats=repeats)]
    )
    draws *= np.sqrt(variance / np.mean(draws**2))
    doubt = variance**2 / freedom
    if clusters is not None:
        count = max(clusters) + 1
        cells = np.array([sum(added[row] for row in np.flatnonzero(np.equal(clusters, run))) for run in range(count)])
        sums, wider = cells.sum(axis=1), count / (count - 1)
        beyond = max(wider**4 * ((sums**2).sum() - (cells**2).sum() / wider**1.5), 0)
        if beyond:
            pulls = generator(Stream.RUN_BOOTSTRAP, seed, count, repeats).standard_normal((repeats, count))
            draws = draws + (pulls * sums).sum(axis=1) * np.sqrt(beyond / (sums**2).sum())
            doubt += wider**4 * (sums**2).sum() * beyond / (count - 1)
            variance += beyond
    freedom = variance**2 / doubt
    places = generator(Stream.TAILS, seed, repeats).random(repeats)
    return np.sqrt(variance), draws * np.sqrt(freedom / chi2.isf(places, freedom))


def effect_of(response, seen, *, clusters=None, seed, repeats=1000):
    """Value, standard error and draws of the membership effect, on the scale of SSLMem'."""
    logs = len(response) > 2
    net, member = (
        table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        for table in (response, seen.astype(float))
    )
    slope = -(net * member).sum() / (member**2).sum()
    added = -(net + slope * member) * member / (member**2).sum()
    kinds = patterns(seen)
    error, draws = spread_of(
        added, clusters=clusters, strata=kinds if np.bincount(kinds).min() >= 2 else None, seed=seed, repeats=repeats
    )
    if not logs:
        return slope, error, slope + draws
    value = np.tanh(slope / 2)
    return value, error * (1 - value**2) / 2, np.tanh((slope + draws) / 2)
