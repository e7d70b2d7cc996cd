"""How often intervals cover, claims are false alarms, and names are wrong: python benchmarks/coverage.py [NAME ...]; by default all.

Readings are simulated: a point's own level, an encoder's, and noise, and what an encoder that saw a point takes off, which differs from point to point. 2 000
repeats each (COVERAGE_REPEATS), on every core. Figures go to coverage.json with their Clopper-Pearson intervals; `make docs` renders docs/coverage.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from asked import names
from scipy.stats import beta, norm
from stored import keep

from memloc.data import as_images
from memloc.engine import Job, Options, Scores, candidates, gap, guarded, name_points, own_figure, score_draws
from memloc.metrics import (
    auroc,
    auroc_of_cells,
    epsilon_lower_bound,
    member_share,
    membership_effect,
    percentile_interval,
    run_clusters,
    simultaneous_bounds,
    sslmem,
    tpr_at_fpr,
)

REPEATS = int(os.environ.get("COVERAGE_REPEATS", "2000"))
POINTS, UNSEEN = 100, 150
POINT, NOISE, ENCODER = 0.5, 0.5, 0.3  # standard deviations of log readings
EFFECT = 0.3  # what training takes off a log reading, on average over points


def readings(
    random: np.random.Generator, seen: np.ndarray, effect: float, *, layers: int = 1, encoder: float = ENCODER
) -> np.ndarray:
    """Log readings, (layer, encoder, point); half of the noise and of the points' levels is common to the layers."""
    shape = (layers, *seen.shape)
    common = random.normal(size=(1, *seen.shape)) + random.normal(size=shape)
    level = random.normal(size=(1, 1, seen.shape[1])) + random.normal(size=(layers, 1, seen.shape[1]))
    own = random.normal(size=(layers, seen.shape[0], 1)) * encoder
    taken = effect * random.exponential(size=seen.shape[1])
    return own + (POINT * level + NOISE * common) / 2**0.5 - seen * taken


def pair(random: np.random.Generator, points: int = POINTS) -> np.ndarray:
    """Candidates, which f alone saw, and as many independents."""
    first = np.arange(2 * points) < points
    return np.stack([first, ~first])


def ensemble(random: np.random.Generator, encoders: int, fraction: float, points: int = POINTS) -> np.ndarray:
    """Every point in as many encoders, drawn for each."""
    seen = np.zeros((encoders, points), dtype=bool)
    for point in range(points):
        seen[random.permutation(encoders)[: round(encoders * fraction)], point] = True
    return seen


def bare_job(membership: np.ndarray, split: np.ndarray, mode: str, kinds: tuple[str, ...], seed: int) -> Job:
    """A job without encoders or images; its external points are held out by design."""
    job = object.__new__(Job)
    layers = tuple(SimpleNamespace(name=f"{number} {kind}", kind=kind) for number, kind in enumerate(kinds))
    job.__dict__.update(
        images=range(len(split)), split=split, membership=torch.as_tensor(membership), mode=mode, f_count=1, paired=False,
        options=Options(seed=seed), layers=layers, output=kinds.index("output"), held_out=torch.from_numpy(split == "external"),
        chosen=torch.zeros(len(split), dtype=torch.bool), earlier=False,
    )  # fmt: skip
    return job


def within(low: float, value: float, high: float) -> bool:
    return bool(low <= value <= high)


def effects(encoders: int, fraction: float, effect: float, seed: int) -> dict[str, Any]:
    """The membership effect at two layers, its difference, and the AUROC of cells; memorization doubles in the second."""
    random = np.random.default_rng([seed, encoders, int(100 * fraction), int(100 * effect)])
    seen = pair(random) if encoders == 2 else ensemble(random, encoders, fraction)
    own = 0 if encoders == 2 else ENCODER * random.normal(size=(2, encoders, 1))
    base = readings(random, seen, 0.0, layers=2, encoder=0) + own
    taken = seen * random.exponential(size=seen.shape[1])
    logs = np.stack([base[0] - effect * taken, base[1] - 2 * effect * taken])
    member = torch.from_numpy(seen)
    found = [membership_effect(torch.from_numpy(np.exp(each)), member, seed=seed) for each in logs]
    truth = [true_effect(encoders, each * effect) for each in (1, 2)]
    steps = percentile_interval(found[1].draws - found[0].draws)
    result: dict[str, Any] = {
        "effect": within(found[0].low, truth[0], found[0].high),
        "delta": within(steps[0], truth[1] - truth[0], steps[1]),
    }
    if encoders > 2:  # net of encoder, which points that none saw tell, and of point
        unseen = readings(random, np.zeros((encoders, UNSEEN), dtype=bool), 0.0, encoder=0)[0]
        logs[0] -= own[0] + unseen.mean(axis=1, keepdims=True)
        inside, outside = (side.sum(axis=0) for side in (seen, ~seen))
        level = ((logs[0] * seen).sum(axis=0) / inside + (logs[0] * ~seen).sum(axis=0) / outside) / 2
        cells = auroc_of_cells(torch.from_numpy(level - logs[0]), member, clusters=run_clusters(member), seed=seed)
    else:
        never = readings(random, np.zeros((2, UNSEEN), dtype=bool), 0.0, encoder=0)[0]
        cells = auroc(torch.from_numpy((logs[0][1] - logs[0][0])[seen[0]]), torch.from_numpy(never[1] - never[0]))
    result["AUROC"] = tuple(cells)
    return result


_TRUE: dict[tuple[int, float], float] = {}


def true_effect(encoders: int, effect: float) -> float:
    """What the figure estimates: tanh(β / 2) of logarithms, for a pair half the difference of mean SSLMem'."""
    if encoders > 2:
        return float(np.tanh(effect / 2))
    if (encoders, effect) not in _TRUE:
        random = np.random.default_rng(7)
        count = 2_000_000
        f, g = random.normal(size=(2, count)) * NOISE
        taken = effect * random.exponential(size=count)
        scores = [
            sslmem(torch.from_numpy(np.exp(one)), torch.from_numpy(np.exp(two)))
            for one, two in ((f - taken, g), (f, g - taken))
        ]
        _TRUE[encoders, effect] = float((scores[0].mean() - scores[1].mean()) / 2)
    return _TRUE[encoders, effect]


def others(effect: float, seed: int) -> dict[str, Any]:
    """Of a pair LayerMem above external points, of f alone the alignment gap, TPR at fixed FPR, and member share."""
    random = np.random.default_rng([seed, int(100 * effect)])
    split = np.array(["candidate"] * POINTS + ["external"] * UNSEEN, dtype=object)
    seen = np.stack([split == "candidate", np.zeros(len(split), dtype=bool)])
    align = torch.from_numpy(np.exp(readings(random, seen, effect, encoder=0)[0]))
    job = bare_job(seen, split, "pair", ("output",), seed)
    score, external = sslmem(align[0], align[1]), torch.from_numpy(split == "external")
    own, _ = own_figure(
        job, score, align, candidates(job), external, score_draws(job, align, candidates(job), None), None
    )
    alone = bare_job(seen[:1], split, "alone", ("output",), seed)
    apart, _ = gap(alone, align[:1], external)
    result: dict[str, Any] = {
        "own": within(own["own_low"], true_effect(2, effect), own["own_high"]),
        "gap": within(apart["gap_low"], true_gap(effect), apart["gap_high"]),
    }
    trained, unseen = random.normal(1.5, 1, POINTS), random.normal(0, 1, 2 * UNSEEN)
    fprs = (0.01, 0.05, 0.1)
    for fpr, rate in zip(
        fprs, tpr_at_fpr(torch.from_numpy(trained), torch.from_numpy(unseen), fprs, seed=seed), strict=True
    ):
        result[f"TPR at {100 * fpr:g} %"] = within(rate.low, norm.sf(norm.isf(fpr) - 1.5), rate.high)
    units, rows = random.normal(size=(2, 60, 64)), random.integers(0, 20, 64)
    activations = np.abs(units + 2.0 * random.normal(size=(2, 60, 20))[:, :, rows])  # units answer to common directions
    most, which = activations.max(axis=1), activations.argmax(axis=1)
    winner = np.where(most[0] >= most[1], which[0], 60 + which[1])
    share = member_share(*(torch.from_numpy(each) for each in (most[0], most[1], winner)))
    result["member share"] = within(share.low, 0.5, share.high)
    return result


def true_gap(effect: float) -> float:
    """Mean alignment of points never seen less that of trained ones: of log-normal readings, and exponential effects."""
    mean = np.exp((POINT**2 + NOISE**2) / 2)
    return float(mean * (1 - 1 / (1 + effect)))


def alarms(mode: str, encoders: int, layers: int, seed: int) -> dict[str, Any]:
    """Nothing memorized: whether memorization is said to show in any layer."""
    random = np.random.default_rng([seed, encoders, layers])
    seen = pair(random) if mode == "pair" else ensemble(random, encoders, 0.5)
    logs = readings(random, seen, 0.0, layers=layers)
    found = [membership_effect(torch.from_numpy(np.exp(each)), torch.from_numpy(seen), seed=seed) for each in logs]
    values = torch.tensor([each.value for each in found], dtype=torch.float64)
    low, _ = simultaneous_bounds(values, torch.stack([each.draws for each in found]))
    return {"any layer": bool((low > 0).any()), "any, each by its own interval": any(each.low > 0 for each in found)}


KINDS = (*("convolution",) * 6, "output", "head", "loss")


def naming(mode: str, encoders: int, memorized: float, seed: int) -> dict[str, Any]:
    """Named points: of them falsely, whether any where nothing is memorized, and of decoys."""
    random = np.random.default_rng([seed, encoders, int(100 * memorized)])
    split = np.array(["candidate"] * POINTS + ["external"] * UNSEEN, dtype=object)
    seen = np.zeros((encoders, len(split)), dtype=bool)
    seen[:, :POINTS] = ensemble(random, encoders, 0.5) if mode == "ensemble" else np.arange(encoders)[:, None] == 0
    remembered = np.arange(len(split)) < round(memorized * POINTS)
    logs = readings(random, seen, 0.0, layers=len(KINDS))
    logs[-2:] -= 2.0 * (seen & remembered)
    job = bare_job(seen, split, mode, KINDS, seed)
    scores = object.__new__(Scores)
    scores.align = torch.from_numpy(np.exp(logs)).permute(2, 0, 1)
    scores.regressed = torch.zeros(scores.align.shape[:2])
    found = name_points(job, scores)
    false = int((found.named & ~torch.from_numpy(remembered)).sum())
    named = found.record["named"]
    return {
        "false share": false / max(named, 1),
        "any falsely": named > 0 if not memorized else None,
        "decoys named": found.record["decoys_named"] / found.record["decoys"],
        "named of memorized": (named - false) / (memorized * POINTS) if memorized else None,
    }


def guards(candidate: int, external: int, seed: int) -> dict[str, Any]:
    """Whether two random parts of one set of images are said to differ."""
    random = np.random.default_rng([seed, candidate, external])
    count = candidate + external
    pixels = random.normal(110, 40, (count, 1, 1, 3)) + random.normal(0, 30, (count, 8, 8, 3))
    images = as_images(np.clip(pixels, 0, 255).astype(np.uint8))
    job = SimpleNamespace(images=images, options=SimpleNamespace(seed=seed))
    first = torch.arange(count) < candidate
    return {"differ": guarded(job, first, ~first).withholds}  # type: ignore[arg-type]


def bounds(epsilon: float, guesses: int, seed: int) -> dict[str, Any]:
    """Randomized response, the worst that epsilon allows: whether the bound exceeds it."""
    random = np.random.default_rng([seed, int(10 * epsilon), guesses])
    right = int(random.binomial(guesses, 1 / (1 + np.exp(-epsilon))))
    return {"bound above": epsilon_lower_bound(right, guesses) > epsilon}


CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    **{f"pair, {name}": partial(effects, 2, 0.5, each) for name, each in (("null", 0.0), ("memorized", EFFECT))},
    **{
        f"K = {encoders}, {fraction}, {name}": partial(effects, encoders, fraction, each)
        for encoders in (4, 8, 16)
        for fraction in (0.25, 0.5, 0.75)
        for name, each in (("null", 0.0), ("memorized", EFFECT))
    },
    **{f"other figures, {name}": partial(others, each) for name, each in (("null", 0.0), ("memorized", EFFECT))},
    **{
        f"layers, {mode}{encoders if encoders > 2 else ''}, {layers}": partial(alarms, mode, encoders, layers)
        for mode, encoders in (("pair", 2), ("K = ", 4), ("K = ", 8))
        for layers in (11, 50)
    },
    **{
        f"names, {label}, {'null' if not share else f'{100 * share:g} %'}": partial(naming, mode, encoders, share)
        for label, mode, encoders in (
            ("f alone", "alone", 1),
            ("pair", "pair", 2),
            ("K = 4", "ensemble", 4),
            ("K = 8", "ensemble", 8),
        )
        for share in (0.0, 0.3)
    },
    **{f"guard, {one} against {two}": partial(guards, one, two) for one, two in ((20, 20), (26, 300), (200, 320))},
    **{
        f"epsilon {each:g}, {guesses} guesses": partial(bounds, each, guesses)
        for each in (0.0, 1.0, 2.0)
        for guesses in (50, 500)
    },
}


def clopper_pearson(hits: int, count: int) -> list[float]:
    low = float(beta.ppf(0.025, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, count - hits)) if hits < count else 1.0
    return [hits / count, low, high]


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares with their Clopper-Pearson intervals; means of shares with normal ones; of AUROC, coverage of its mean."""
    told: dict[str, Any] = {}
    for figure in found[0]:
        values = [each[figure] for each in found if each[figure] is not None]
        if not values:
            continue
        if isinstance(values[0], tuple):
            # over so many repeats its mean is what the figure estimates; with nothing memorized that is one half
            truth = float(np.mean([value for value, _, _ in values]))
            told[figure] = clopper_pearson(sum(low <= truth <= high for _, low, high in values), len(values))
        elif isinstance(values[0], bool):
            told[figure] = clopper_pearson(sum(values), len(values))
        else:
            mean, error = float(np.mean(values)), float(np.std(values) / len(values) ** 0.5)
            told[figure] = [mean, mean - 1.96 * error, mean + 1.96 * error]
    return told


def _started() -> None:
    torch.set_num_threads(1)


def main(chosen: list[str]) -> None:
    with ProcessPoolExecutor(initializer=_started) as pool:
        for name in chosen:
            found = list(pool.map(CASES[name], range(REPEATS), chunksize=20))
            told = summary(found)
            keep("coverage.json", {name: {"repeats": REPEATS, **told}})
            print(name, {key: [round(part, 3) for part in value] for key, value in told.items()}, flush=True)


if __name__ == "__main__":
    main(names(__doc__, CASES))
