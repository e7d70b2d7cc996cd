"""The published findings beside ours: python benchmarks/findings.py; reads runs/findings, keeps findings.json.

`make findings` runs findings_runs.py (trainings and audits), findings_acts.py (probes and interventions) and this. What
is not there, or would stand on fewer runs than the committed row, keeps that row and is named on standard error.
docs/findings.md and the report's evidence are rendered from findings.json by `make docs`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from asked import parser
from findings_acts import FRACTIONS, LOWERED, RANDOM, acts
from findings_acts import result as result_of
from findings_rows import rejoined
from findings_runs import FOLDER, RUNS, SEEDS
from scipy.stats import t as student
from stored import keep, stored

from memloc import Audit, Views, audit, load_run
from memloc.encoders import versions
from memloc.engine import compare
from memloc.metrics import Z95, t_test
from memloc.probe import wilson
from memloc.runs import images_of

STORE = "findings.json"
SHOWN = (
    "base-s0",
    "reseed",
    "base-s1",
    "base-s2",
    "deep-s0",
    "weak-s0",
    "strong-s0",
    "supervised",
    "vicreg",
    "simsiam",
    "fashion",
)
LACKING: set[str] = set()  # runs and acts that the part which is measured looked for and did not find
EARLY, LATE = ("conv1", "conv2_0", "conv2_1", "conv2_2", "res2"), ("conv4_0", "conv4_1", "conv4_2", "res6", "output")
HOLDS, DIRECTION, NOT, WEAK = "holds", "holds in direction", "does not hold", "underpowered"
OTHER = "points the other way"


class Figure(NamedTuple):
    """An estimate with its standard error."""

    value: float
    se: float

    @property
    def low(self) -> float:
        return self.value - Z95 * self.se

    @property
    def high(self) -> float:
        return self.value + Z95 * self.se

    def __str__(self) -> str:
        digits = 4 if abs(self.value) < 0.1 and self.se < 0.01 else 3
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def minus(self, other: Figure) -> Figure:
        """The difference of two independent figures."""
        return Figure(self.value - other.value, math.hypot(self.se, other.se))


def mean_of(figures: list[Figure], *, dependent: bool = False, draws: bool = False) -> Figure:
    """Mean over seeds: its error is the larger of that within seeds and that between them (Student's t with their number).

    Args:
        dependent: the figures share their points or test images, so that their errors do not average out.
        draws: they are draws of one seed, whose spread is not looked at.
    """
    values, errors = np.array([each.value for each in figures]), np.array([each.se for each in figures])
    within = float(errors.mean() if dependent or draws else np.sqrt((errors**2).sum()) / len(errors))
    between = 0.0
    if len(values) > 1 and not draws:
        between = over_seeds(values).se
    return Figure(float(values.mean()), max(within, between))


def over_seeds(values: Any) -> Figure:
    """Mean over seeds with their own spread: Student's t with their number, unknown of one."""
    count = len(values)
    spread = np.std(values, ddof=1) / np.sqrt(count) * student.ppf(0.975, count - 1) / Z95 if count > 1 else np.nan
    return Figure(float(np.mean(values)), float(spread))


def accuracy_of(probe: dict[str, Any]) -> Figure:
    """The accuracy that memloc probe states of one layer."""
    found = probe["layers"][0]
    return Figure(found["accuracy"], (found["high"] - found["low"]) / 2 / Z95)


def verdict(figure: Figure, *, most: str | None = None) -> str:
    """Whether a difference whose published sign is + is there.

    Args:
        most: the best verdict to give, where one training cannot show more.
    """
    if math.isnan(figure.se):
        return WEAK
    if figure.low > 0:
        return most or HOLDS
    if figure.high < 0:
        return NOT if most is None else OTHER
    if abs(figure.value) <= figure.se:
        return WEAK
    return DIRECTION if figure.value > 0 else OTHER


def found(name: str) -> Audit | None:
    """An audit of findings_runs.py, if it is finished."""
    return sought(name, opened(name))


def result(name: str) -> dict[str, Any] | None:
    """What an act of findings_acts.py found, if it is done."""
    return sought(name, result_of(name))


def sought(name: str, what: Any) -> Any:
    """What was looked for; if there is none, its name is noted."""
    if what is None:
        LACKING.add(name)
    return what


@lru_cache
def opened(name: str) -> Audit | None:
    folder = FOLDER / f"{name}-audit"
    return Audit.load(folder) if (folder / "report.html").is_file() else None


def there(*names: str) -> list[str]:
    return [name for name in names if found(name) is not None]


def scores(each: Audit) -> pd.DataFrame:
    """SSLMem of every point (rows) and layer (columns)."""
    return each.point_layers.pivot(index="point", columns="layer", values="sslmem")


def effect(name: str, weights: dict[str, float]) -> Figure:
    """A weighted sum over layers of the calibrated figure, with its standard error over points.

    Of an ensemble it is a mean over points, since every point was in for half of the encoders; of a pair half the difference between candidates
    and independents.
    """
    each = found(name)
    assert each is not None, name
    table = scores(each)
    per_point = sum(weight * table[layer] for layer, weight in weights.items()).dropna()
    split = each.points.set_index("point")["split"].reindex(per_point.index)
    parts = [per_point[split == wanted].to_numpy() for wanted in ("candidate", "independent")]
    means = [Figure(float(part.mean()), float(part.std(ddof=1) / np.sqrt(len(part)))) for part in parts if len(part)]
    if len(means) == 1:
        return means[0]
    difference = means[0].minus(means[1])
    return Figure(difference.value / 2, difference.se / 2)


def over(layers: tuple[str, ...], sign: float = 1.0) -> dict[str, float]:
    return {layer: sign / len(layers) for layer in layers}


def late(name: str) -> Figure:
    return effect(name, over(LATE))


def layer_column(name: str, column: str) -> pd.Series:
    each = found(name)
    assert each is not None, name
    return pd.to_numeric(each.layers.set_index("layer")[column], errors="coerce")


def row(finding: str, published: str, ours: str, judged: str, command: str) -> dict[str, str]:
    return {"finding": finding, "published": published, "ours": ours, "verdict": judged, "command": command}


def trained(name: str) -> str:
    return f"`findings_runs.py {name}`"


def acted(name: str) -> str:
    return f"`findings_acts.py {name}`"


# ---------------------------------------------------------------- findings from audits


def ranking() -> Iterator[dict[str, str]]:
    """First among ours: do other training runs name the same points."""
    names = {
        "base-s0": "100 images an encoder, 400 epochs", "reseed": "the same points, other runs", "epochs-100": "100 epochs", "epochs-200": "200 epochs",
        "epochs-800": "800 epochs", "deep-s0": "50 images an encoder, 800 epochs", "points-400": "200 images an encoder, 200 epochs", "repeats": "20 points shown 8 times an epoch",
        "weak-s0": "weak augmentation", "fashion": "Fashion-MNIST",
    }  # fmt: skip
    cells = []
    for name in there(*names):
        values = layer_column(name, "reliability_runs")
        cells.append(f"{names[name]}: {values['output']:.2f} (highest of any layer {values.max():.2f})")
    if not cells:
        return
    first = float(layer_column(there(*names)[0], "reliability_runs")["output"])
    judged = HOLDS if first >= 0.5 else WEAK  # scores at the output are noise at this scale, which repeats nowhere
    yield row(
        "Other training runs name the same points (reliability of SSLMem over runs, 1 = the same order)",
        "69 to 90 % of the 100 most memorized shared between seeds (Table 28)",
        "; ".join(cells),
        judged,
        trained("base-s0"),
    )
    if len(there("base-s0", "reseed")) == 2:
        both = compare(found("base-s0"), found("reseed"), k=20)
        at = both.between.set_index("layer")
        text = f"of 20 points, output {at.loc['output', 'overlap']:.0%} (10 % by chance), Kendall's tau {at.loc['output', 'kendall']:+.2f} [{at.loc['output', 'kendall_low']:+.2f}, {at.loc['output', 'kendall_high']:+.2f}]; conv1 {at.loc['conv1', 'kendall']:+.2f}"
        yield row(
            "Overlap of the most memorized points between seeds",
            "69 to 90 %",
            text,
            overlapping(at.loc["output", "overlap"], 20, 0.1),
            "`memloc compare base-s0-audit reseed-audit --k 20`",
        )


def overlapping(share: float, k: int, chance: float) -> str:
    """Verdict on an overlap published as 69 % or more: by Wilson's interval of k points."""
    low, high = wilson(share, k)
    return (HOLDS if high >= 0.69 else DIRECTION) if low > chance else WEAK


def part_rise(name: str, split: str) -> Figure:
    """Mean SSLMem of the last rows less that of the first, over the points of one split: as published, not calibrated."""
    each = found(name)
    assert each is not None, name
    table = scores(each)
    ids = each.points.loc[each.points["split"] == split, "point"]
    rise = (table[list(LATE)].mean(axis=1) - table[list(EARLY)].mean(axis=1)).reindex(ids).dropna().to_numpy()
    return Figure(float(rise.mean()), float(rise.std(ddof=1) / np.sqrt(len(rise))))


def depth() -> Iterator[dict[str, str]]:
    names = there(*(f"base-s{seed}" for seed in SEEDS))
    if not names:
        return
    everyone = there("base-s0", "reseed", *names[1:])
    rise = [effect(name, {**over(LATE), **over(EARLY, -1)}) for name in everyone]
    if everyone[:2] == ["base-s0", "reseed"]:  # the same points, so one figure of the two
        rise = [mean_of(rise[:2], draws=True), *rise[2:]]
    total = mean_of(rise)
    early, deep = (mean_of([effect(name, over(layers)) for name in names]) for layers in (EARLY, LATE))
    yield row(
        "Memorization rises with depth, calibrated figure (last five rows less first five)", "LayerMem .091 at layer 1, .308 at layer 8 (Table 1)",
        f"first five {early}, last five {deep}; rise {total}; by draw of points {', '.join(f'{each.value:.4f}' for each in rise)}", verdict(total), trained(" ".join(everyone)),
    )  # fmt: skip
    pairs = there(*(f"pair-s{seed}" for seed in SEEDS))
    if pairs:
        own, unseen = (mean_of([part_rise(name, split) for name in pairs]) for split in ("candidate", "external"))
        each = ", ".join(
            f"{part_rise(name, 'candidate').value:.3f} and {part_rise(name, 'external').value:.3f}" for name in pairs
        )
        yield row(
            "The same as published, uncalibrated, of single pairs", "rises from .091 to .308",
            f"candidates {own}, images that no encoder saw {unseen} (by seed {each}): it follows the two encoders, not the points", verdict(own), trained(" ".join(pairs)),
        )  # fmt: skip
        both = mean_of([effect(name, {**over(LATE), **over(EARLY, -1)}) for name in pairs])
        yield row(
            "The same, calibrated, of pairs on 1 800 images each",
            "rises",
            f"{both}",
            verdict(both),
            trained(" ".join(pairs)),
        )


def units() -> Iterator[dict[str, str]]:
    names = there(*(f"base-s{seed}" for seed in SEEDS))
    if not names:
        return
    tables = [found(name).units for name in names]
    highest = pd.concat([table.groupby("layer")["unitmem"].max() for table in tables], axis=1).mean(axis=1)
    unseen = pd.concat([table.groupby("layer")["unitmem_external"].max() for table in tables], axis=1).mean(axis=1)
    yield row(
        "Highly memorizing units are spread over all layers (highest UnitMem of a layer)", ".83 to .91 in layers 1 to 8 (Table 34)",
        f"{highest.min():.2f} to {highest.max():.2f} on trained images, and {unseen.min():.2f} to {unseen.max():.2f} on as many that the encoder never saw: the figure is reached without memorization",
        HOLDS if highest.min() >= 0.8 * highest.max() else DIRECTION if highest.min() >= 0.5 * highest.max() else NOT, trained(" ".join(names)),
    )  # fmt: skip
    cells, figures = [], []
    for name in names:
        one, other = layer_column(name, "unitmem_equal_mean"), layer_column(name, "unitmem_external_mean")
        share = layer_column(name, "member_share")
        figures.append(float((one - other)[list(LATE)].mean()))
        cells.append(f"{figures[-1]:+.3f} (member share {share[list(LATE)].mean():.2f})")
    total = over_seeds(figures)
    judged = verdict(total)
    yield row(
        "UnitMem of trained images exceeds that of unseen ones (last five rows)",
        "not reported",
        f"{', '.join(cells)} by seed",
        judged,
        trained(" ".join(names)),
    )


def class_side(name: str) -> dict[str, Any]:
    """ClassMem over UnitMem, mean over units of the first and of the last rows, and the share of conv4_2's units above 1."""
    each = found(name)
    assert each is not None, name
    table = each.units.dropna(subset=["unitmem", "classmem"])
    ratio = table["classmem"] / table["unitmem"]
    parts: dict[str, Any] = {}
    for key, rows in (("early", EARLY), ("late", LATE)):
        chosen = ratio[table["layer"].isin(rows)]
        parts[key] = Figure(float(chosen.mean()), float(chosen.std(ddof=1) / np.sqrt(len(chosen))))
    return {**parts, "share": float((ratio[table["layer"] == "conv4_2"] > 1).mean())}


def supervised() -> Iterator[dict[str, str]]:
    if len(there("base-s0", "supervised")) < 2:
        return
    pairs = [("base-s0", "supervised", "100 images an encoder")]
    pairs += [("pair-s0", "pair-supervised", "1 800 images")] if len(there("pair-s0", "pair-supervised")) == 2 else []
    cells, gains, crossed = [], [], []
    for ssl, labelled, scale in pairs:
        one, other = (class_side(name) for name in (ssl, labelled))
        gains.append(other["late"].minus(other["early"]).minus(one["late"].minus(one["early"])))
        crossed.append(other["share"])
        cells.append(
            f"{scale}: ClassMem over UnitMem in the first five rows {one['early']} SimCLR, {other['early']} supervised; in the last five {one['late']} and "
            f"{other['late']}; units on the ClassMem side at conv4_2 {one['share']:.0%} and {other['share']:.0%}"
        )
    turned = all(each.low > 0 for each in gains)
    yield row(
        "Supervised units turn to classes in late layers, SSL units to points",
        "SSL on the UnitMem side in every layer, supervised crosses (Fig. 2-3)",
        "; ".join(cells) + f"; intervals over units; extra rise with depth {', '.join(map(str, gains))}",
        HOLDS if turned and min(crossed) > 0.5 else DIRECTION if turned else NOT,
        trained("base-s0 supervised pair-s0 pair-supervised"),
    )
    one, other = late("base-s0"), late("supervised")
    yield row(
        "Calibrated figure, supervised against SimCLR (last five rows)",
        "not comparable",
        f"SimCLR {one}, supervised {other}",
        "–",
        trained("base-s0 supervised"),
    )


def extremes() -> Iterator[dict[str, str]]:
    if not there("base-s0"):
        return
    run = load_run(FOLDER / "base-s0")
    images, _ = images_at(run)
    points = found("base-s0").points.query("split == 'candidate'").sort_values("sslmem")
    name, encoder = next(iter(run.encoders.items()))
    seen = set(run.membership.loc[run.membership[name], "point"])
    ranked = [point for point in points["point"] if point in seen]
    k, significant = 30, 0
    tops: dict[str, pd.Series] = {}
    for which, ids in (("least", ranked[:k]), ("most", ranked[-k:])):
        part = images.take(images.rows_of(torch.tensor(ids)))
        table = audit(encoder, images=part, views=Views("normal", n=10, sampling="independent"), thumbnails=False).units
        tops[which] = table.groupby("layer")["unitmem"].apply(
            lambda values: values.nlargest(max(len(values) // 10, 2)).to_numpy()
        )
    for layer in tops["most"].index:
        t, p = t_test(torch.tensor(tops["most"][layer]), torch.tensor(tops["least"][layer]))
        significant += int(np.sign(t)) * (p < 0.05)
    means = {which: np.mean([values.mean() for values in each]) for which, each in tops.items()}
    layers = len(tops["most"])
    judged = (
        HOLDS
        if significant == layers
        else DIRECTION
        if significant > layers / 2
        else WEAK
        if significant >= 0
        else OTHER
    )
    yield row(
        "The most memorized points drive units harder than the least (mean UnitMem of the top 10 % of units)", ".51 against .24 in every layer, p ≈ 0 (Table 11)",
        f"{k} most {means['most']:.2f}, {k} least {means['least']:.2f}, mean over layers; layers in which the most win less those in which the least do, Welch p < .05: {significant} of {layers}", judged, trained("base-s0"),
    )  # fmt: skip
    flat = images.pixels.flatten(1).double()
    apart = torch.cdist(flat, flat).topk(6, largest=False).values[:, 1:].mean(dim=1)
    at = images.rows_of(torch.tensor(points["point"].tolist()))
    correlation = float(np.corrcoef(points["sslmem"].rank(), pd.Series(apart[at].numpy()).rank())[0, 1])
    figure = Figure(correlation, float(np.sqrt((1 - correlation**2) / (len(points) - 2))))
    yield row(
        "Memorized points are atypical (Spearman of SSLMem with the distance to the five nearest images in pixels)",
        "the most memorized look atypical (SSLMem, Fig. 2)",
        str(figure),
        verdict(figure),
        trained("base-s0"),
    )


def images_at(run: Any) -> Any:
    """Images of a run, whose paths are relative to the folder of the data."""
    import os

    before = Path.cwd()
    os.chdir(FOLDER / "data")
    try:
        return images_of(run)
    finally:
        os.chdir(before)


def vit() -> Iterator[dict[str, str]]:
    if not there("vit"):
        return
    each = found("vit")
    assert each is not None
    layers = each.layers.set_index("layer")
    weights: dict[str, float] = {}
    blocks = 0
    for name, kind in layers["kind"].items():
        if kind in ("attention", "fully-connected"):
            sign = 1 if kind == "fully-connected" else -1
            blocks += kind == "attention"
            for layer, factor in ((name, sign), (layers.loc[name, "predecessor"], -sign)):
                weights[layer] = weights.get(layer, 0.0) + factor
    figure = effect("vit", {layer: weight / blocks for layer, weight in weights.items() if weight})
    cells = ", ".join(
        f"{layers.loc[name, 'delta_calibrated']:+.4f}"
        for name in layers.index
        if layers.loc[name, "kind"] in ("attention", "fully-connected")
    )
    yield row(
        "Fully-connected layers memorize more than attention (ΔFC − ΔAttention, mean over blocks)", "+.005, +.007, +.014 in blocks 2, 6, 12 (Table 10)",
        f"{figure}; Δ by block, attention and fully-connected in turn: {cells}", verdict(figure), trained("vit"),
    )  # fmt: skip


def objectives() -> Iterator[dict[str, str]]:
    names = [name for name in ("base-s0", "vicreg", "simsiam") if found(name) is not None]
    if len(names) < 2:
        return
    cells = [
        f"{name.replace('base-s0', 'simclr')}: rise {effect(name, {**over(LATE), **over(EARLY, -1)})}" for name in names
    ]
    rises = [effect(name, {**over(LATE), **over(EARLY, -1)}) for name in names]
    apart = [abs(each.minus(rises[0]).value) > Z95 * each.minus(rises[0]).se for each in rises[1:]]
    judged = (
        (HOLDS if not any(apart) else DIRECTION)
        if all(each.low > 0 for each in rises)
        else WEAK
        if all(each.high > 0 for each in rises)
        else NOT
    )
    yield row(
        "The rise with depth is alike across objectives",
        "all SSL objectives alike (Fig. 1)",
        "; ".join(cells),
        judged,
        trained(" ".join(names)),
    )
    for name in names[1:]:
        both = compare(found("base-s0"), found(name), k=20).between.set_index("layer").loc["output"]
        yield row(
            f"SimCLR and {name} name the same points",
            "high overlap",
            f"{both['overlap']:.0%} of 20 (10 % by chance), Kendall's tau {both['kendall']:+.2f} [{both['kendall_low']:+.2f}, {both['kendall_high']:+.2f}]",
            overlapping(both["overlap"], 20, 0.1),
            f"`memloc compare base-s0-audit {name}-audit --k 20`",
        )


def layers() -> Iterator[dict[str, str]]:
    if not there("base-s0"):
        return
    one = found("base-s0")
    table = compare(one, one, k=20).within.query("audit == 'a'")
    near, far = table[table["neighbours"]], table.query("layer == 'conv1' and other == 'conv4_2'").iloc[0]
    judged = (
        HOLDS
        if near["overlap"].min() > 2 * far["overlap"]
        else DIRECTION
        if near["overlap"].mean() > far["overlap"]
        else NOT
    )
    yield row(
        "Neighbouring layers name the same points, distant ones do not", "neighbours 68 to 94 %, layers 1 and 8 16 %; tau .84 to .10 (Table 3)",
        f"neighbours {near['overlap'].min():.0%} to {near['overlap'].max():.0%} of 20, conv1 and conv4_2 {far['overlap']:.0%}; tau {near['kendall'].min():.2f} to {near['kendall'].max():.2f}, conv1 and conv4_2 {far['kendall']:.2f}", judged, "`memloc compare base-s0-audit base-s0-audit --k 20`",
    )  # fmt: skip


def lower() -> Iterator[dict[str, str]]:
    """Weaker and stronger views against the base of the same points."""
    for name, text, published, sign in (
        ("weak", "Weaker augmentation raises memorization (last five rows, weak less normal)", "yes (Fig. 4)", 1),
        ("strong", "Stronger augmentation lowers it (normal less strong)", "yes (Fig. 4)", -1),
    ):
        seeds = [seed for seed in SEEDS if len(there(f"{name}-s{seed}", f"base-s{seed}")) == 2]
        if not seeds:
            continue
        differences = [late(f"{name}-s{seed}").minus(late(f"base-s{seed}")) for seed in seeds]
        total = mean_of([Figure(sign * each.value, each.se) for each in differences])
        shown = ", ".join(
            f"{late(f'{name}-s{seed}').value:.4f} against {late(f'base-s{seed}').value:.4f}" for seed in seeds
        )
        yield row(
            text,
            published,
            f"{shown}; difference {total}",
            verdict(total),
            trained(" ".join(f"{name}-s{seed}" for seed in seeds)),
        )


def settings() -> Iterator[dict[str, str]]:
    """Settings of training against the base."""
    for name, text, published in (
        ("decay", "Weight decay (.1 instead of .0001) lowers it", "yes (Fig. 11)"),
        ("penalty", "The alignment penalty (λ = 1) lowers it", "yes (SSLMem Eq. 3)"),
    ):
        if len(there(name, "base-s0")) == 2:
            total = late("base-s0").minus(late(name))
            yield row(
                text,
                published,
                f"{late('base-s0')} without, {late(name)} with; difference {total}",
                verdict(total),
                trained(name),
            )


def lengths() -> Iterator[dict[str, str]]:
    """Shorter and longer trainings of the same points."""
    names = there("epochs-100", "epochs-200", "base-s0", "epochs-800")
    if len(names) > 2:
        figures = [late(name) for name in names]
        total = figures[-1].minus(figures[0])
        unitmem = [float(layer_column(name, "unitmem_mean")[list(LATE)].mean()) for name in names]
        epochs = [name.removeprefix("epochs-").replace("base-s0", "400") for name in names]
        cells = "; ".join(
            f"{epoch} epochs {figure}, UnitMem {unit:.2f}"
            for epoch, figure, unit in zip(epochs, figures, unitmem, strict=True)
        )
        yield row(
            "Longer training raises it",
            "yes, UnitMem by epoch (Fig. 10)",
            f"{cells}; last less first {total}",
            verdict(total),
            trained(" ".join(names)),
        )


def data_sets() -> Iterator[dict[str, str]]:
    """Another data set."""
    if len(there("fashion", "base-s0")) == 2:
        one, other = late("base-s0"), late("fashion")
        yield row(
            "By data set (last five rows)",
            "differs by data set, the same shape over layers",
            f"CIFAR-10 {one}, Fashion-MNIST {other}",
            "–",
            trained("fashion"),
        )


def numbers_of_points() -> Iterator[dict[str, str]]:
    """More points."""
    if len(there("points-400", "base-s0")) == 2:
        total = late("base-s0").minus(late("points-400"))
        yield row(
            "Number of points: fewer are memorized more (100 less 200 images an encoder, as many steps)",
            "LayerMem alike for 100 to 5 000 scored points",
            f"{late('base-s0')} and {late('points-400')}; difference {total}",
            verdict(total),
            trained("points-400"),
        )


def price() -> Iterator[dict[str, str]]:
    """What lowering memorization costs in accuracy."""
    done = {name: found for name in LOWERED if (found := result(f"knn-{name}")) is not None}
    if len(done) < len(LOWERED):
        return
    figures = {name: accuracy_of(each) for name, each in done.items()}
    lost = figures["base-s0"].minus(figures["penalty"])
    names = {"base-s0": "normal", "weak-s0": "weak views", "strong-s0": "strong views", "decay": "weight decay .1", "penalty": "penalty 1"}  # fmt: skip
    yield row(
        "What the penalty costs: accuracy of nearest neighbours, normal less penalty",
        "not reported",
        f"{'; '.join(f'{names[name]} {figure}' for name, figure in figures.items())}; one encoder each; difference {lost}",
        verdict(lost, most=DIRECTION),
        acted("knn-penalty"),
    )


def planted() -> Iterator[dict[str, str]]:
    """Points that were shown eight times an epoch."""
    each = found("repeats")
    if each is None:
        return
    repeats = each.points.query("split == 'candidate'").set_index("point")["repeats"]
    per_point = scores(each)[list(LATE)].mean(axis=1).dropna()
    parts = [per_point[repeats.reindex(per_point.index) == wanted].to_numpy() for wanted in (8, 1)]
    means = [Figure(float(part.mean()), float(part.std(ddof=1) / np.sqrt(len(part)))) for part in parts]
    total = means[0].minus(means[1])
    yield row(
        "Points that are shown eight times an epoch are memorized more (last five rows)",
        "not reported",
        f"{len(parts[0])} planted {means[0]}, {len(parts[1])} others {means[1]}; difference {total}; without planting {late('base-s0')}",
        verdict(total),
        trained("repeats"),
    )


def distances() -> Iterator[dict[str, str]]:
    """The ranking of layers by the four distances, on some points of base-s0."""
    if not there("base-s0"):
        return
    run = load_run(FOLDER / "base-s0")
    images, _ = images_at(run)
    seen = torch.from_numpy(run.membership.iloc[:, 1:].to_numpy(dtype=bool).T.copy())
    rows = torch.from_numpy((run.points["split"] == "candidate").to_numpy().nonzero()[0])[:100]
    orders = {}
    for distance in ("l2", "l1", "cosine", "angular"):
        table = audit(
            encoders=list(run.encoders.values())[:4],
            membership=seen[:4, rows],
            images=images.take(rows),
            views=Views("normal", n=8),
            distance=distance,
            thumbnails=False,
        ).layers
        orders[distance] = table.set_index("layer")["layermem_calibrated"]
    ranks = pd.DataFrame(orders).rank()
    lowest = float(ranks.corr().min().min())
    yield row(
        "The ranking of layers is the same for four distances (lowest rank correlation of any two)",
        "the same (Table 26)",
        f"{lowest:.2f}",
        HOLDS if lowest > 0.9 else DIRECTION if lowest > 0.5 else NOT,
        "benchmarks/findings.py",
    )


# ---------------------------------------------------------------- findings from interventions


def change(patterns: list[str]) -> dict[int, Figure]:
    """Change of the probe's accuracy by seed, a mean over draws where there are several."""
    found_by: dict[int, Figure] = {}
    for seed in SEEDS:
        done = [
            each for pattern in patterns if (each := result(pattern.format(seed=seed))) is not None and "probe" in each
        ]
        if done:
            figures = [
                Figure(each["probe"]["change"], (each["probe"]["high"] - each["probe"]["low"]) / 2 / Z95)
                for each in done
            ]
            found_by[seed] = mean_of(figures, draws=True)
    return found_by


def seeds_mean(by_seed: dict[int, Figure]) -> Figure:
    """Mean over seeds, whose test images are the same."""
    return mean_of(list(by_seed.values()), dependent=True)


def gap(more: dict[int, Figure], less: dict[int, Figure]) -> Figure:
    """Mean over seeds of a difference, seed by seed."""
    return mean_of([more[seed].minus(less[seed]) for seed in more if seed in less], dependent=True)


def seeds_of(pattern: str) -> list[str]:
    return [pattern.format(seed=seed) for seed in SEEDS if result(pattern.format(seed=seed)) is not None]


def pruning() -> Iterator[dict[str, str]]:
    for fraction in FRACTIONS:
        top, low = (change([f"prune-{fraction}-{order}-s{{seed}}"]) for order in ("top", "low"))
        random = change([f"prune-{fraction}-random{draw}-s{{seed}}" for draw in RANDOM])
        if not top or not low or not random:
            continue
        first = fraction == FRACTIONS[0]
        for other, text in ((random, "random ones"), (low, "those of lowest")):
            difference = gap(other, top)
            shown = (
                f"top {seeds_mean(top)}, random {seeds_mean(random)}, low {seeds_mean(low)}, {len(top)} seeds; "
                if other is random
                else ""
            )
            yield row(
                f"Pruning the {fraction:.0%} of units of highest UnitMem hurts more than {text} (change of probe accuracy)", "−.174 top, −.123 random, −.078 low (Table 6)" if first else "same order at 20 %",
                f"{shown}difference {difference}", verdict(difference, most=None if len(top) > 1 else DIRECTION), acted(f"prune-{fraction}-top-s0"),
            )  # fmt: skip
    parts = {order: change([f"network-{order}-s{{seed}}"]) for order in ("top", "low", "random")}
    if all(parts.values()):
        difference = gap(parts["random"], parts["top"])
        cells = ", ".join(f"{order} {seeds_mean(each)}" for order, each in parts.items())
        yield row(
            "The same over the whole network, 10 %",
            "same order",
            f"{cells}; one seed; random less top {difference}",
            verdict(difference, most=DIRECTION),
            acted("network-top-s0"),
        )


def replacement() -> Iterator[dict[str, str]]:
    parts = {
        name: change([f"replace-{name}-s{{seed}}"]) for name in ("delta-highest", "delta-lowest", "layermem-highest")
    }
    parts["random"] = change([f"replace-random{draw}-s{{seed}}" for draw in RANDOM])
    if not all(parts.values()):
        return
    cells = ", ".join(f"{name.replace('-', ' ')} {seeds_mean(each)}" for name, each in parts.items())
    for other, published in (
        ("random", "−.325 highest Δ, −.259 random"),
        ("delta-lowest", "−.325 highest Δ, −.100 lowest Δ"),
    ):
        difference = gap(parts[other], parts["delta-highest"])
        text = f"Replacing the three layers of highest Δ hurts more than {'random ones' if other == 'random' else 'those of lowest Δ'} (change of probe accuracy)"
        shown = f"{cells}, {len(parts['delta-highest'])} seeds; " if other == "random" else ""
        yield row(
            text,
            f"{published} (Table 21)",
            f"{shown}difference {difference}",
            verdict(difference),
            acted("replace-delta-highest-s0"),
        )


def tuning() -> Iterator[dict[str, str]]:
    def accuracy(name: str) -> dict[int, Figure]:
        done = {seed: result(f"tune-{name}-s{seed}") for seed in SEEDS}
        return {
            seed: Figure(each["accuracy"]["accuracy"], (each["accuracy"]["high"] - each["accuracy"]["low"]) / 2 / Z95)
            for seed, each in done.items()
            if each is not None
        }

    parts = {name: accuracy(name) for name in ("head", "delta-highest", "delta-lowest", "conv4_2", "conv1")}
    if not all(parts.values()):
        return
    seeds = [seed for seed in SEEDS if result(f"tune-delta-highest-s{seed}") is not None]
    chosen = {
        which: [result(f"tune-delta-{which}-s{seed}")["settings"]["layers"][0] for seed in seeds]
        for which in ("highest", "lowest")
    }
    cells = ", ".join(
        f"{name.replace('delta-highest', 'highest Δ').replace('delta-lowest', 'lowest Δ')} {seeds_mean(each)}"
        for name, each in parts.items()
    )
    for other, text, published in (
        ("head", "the head alone", "53.0 highest Δ, 48.6 head alone"), ("delta-lowest", "that of lowest Δ", "not reported"), ("conv4_2", "the last convolution", "53.0 highest Δ (layer 6), 52.7 last layer"),
    ):  # fmt: skip
        difference = gap(parts["delta-highest"], parts[other])
        shown = (
            f"{cells}; highest Δ was {', '.join(chosen['highest'])}, lowest {', '.join(chosen['lowest'])}; "
            if other == "head"
            else ""
        )
        if other == "conv4_2" and chosen["highest"] == ["conv4_2"] * len(seeds):
            continue  # the same layer
        yield row(
            f"Fine-tuning the layer of highest Δ transfers better than {text} (CIFAR-10 to Fashion-MNIST)",
            f"{published} (Table 5, CIFAR-10 to STL-10)",
            f"{shown}difference {difference}",
            verdict(difference),
            acted("tune-delta-highest-s0"),
        )


def insertion() -> Iterator[dict[str, str]]:
    for goal, published in (
        ("contrast", ".754 → .826, and 0 → .011 for a dead unit (Table 13)"),
        ("unitmem", "not reported"),
    ):
        done = [
            each
            for layer in ("conv2_1", "conv4_0", "conv4_2")
            if (each := result(f"insert-{goal}-{layer}")) is not None
        ]
        if not done:
            continue
        cells = ", ".join(
            f"{each['settings']['layer']} {each['unitmem_before']:.3f} → {each['unitmem_after']:.3f}" for each in done
        )
        rises = [each["unitmem_after"] - each["unitmem_before"] for each in done]
        judged = HOLDS if min(rises) > 0 else DIRECTION if np.mean(rises) > 0 else NOT
        largest = max(each["largest_other_change"] for each in done)
        text = "by going on with the contrastive loss" if goal == "contrast" else "by raising its contrast"
        yield row(
            f"One unit can be made to memorize one point, {text}",
            published,
            f"{cells}; other units of the layer change by {largest:.0e} at most",
            judged,
            acted(f"insert-{goal}-conv4_0"),
        )


def removal() -> Iterator[dict[str, str]]:
    parts = {order: result(f"remove-{order}") for order in ("most", "random", "least")}
    if any(each is None for each in parts.values()):
        return
    figures = {
        order: Figure(each["probe"]["change"], (each["probe"]["high"] - each["probe"]["low"]) / 2 / Z95)
        for order, each in parts.items()
    }
    difference = figures["random"].minus(figures["most"])
    cells = ", ".join(f"{order} {figure}" for order, figure in figures.items())
    yield row(
        "Training without the most memorized points costs more than without random ones (100 of 1 800; change of probe accuracy)",
        "yes (SSLMem §4.4)",
        f"{cells}; one training each; random less most {difference}",
        verdict(difference, most=DIRECTION),
        acted("remove-most"),
    )


def transfer() -> Iterator[dict[str, str]]:
    done = {
        (name, target): result(f"transfer-{name}-{target}")
        for name in ("pair-s0", "pair-supervised")
        for target in ("cifar", "fashion")
    }
    if any(each is None for each in done.values()):
        return
    figures = {key: accuracy_of(each) for key, each in done.items()}
    cells = "; ".join(
        f"{'SimCLR' if name == 'pair-s0' else 'supervised'} on {'CIFAR-10' if target == 'cifar' else 'Fashion-MNIST'} {figure}"
        for (name, target), figure in figures.items()
    )
    difference = figures["pair-s0", "fashion"].minus(figures["pair-supervised", "fashion"])
    yield row(
        "SSL transfers to other data better than supervised training (linear probe)",
        "SSL memorizes more of what transfers (SSLMem §4)",
        f"{cells}; one training each; SimCLR less supervised on Fashion-MNIST {difference}",
        verdict(difference, most=DIRECTION),
        acted("transfer-pair-s0-fashion"),
    )


def dejavu_row() -> Iterator[dict[str, str]]:
    done = result("dejavu")
    if done is None:
        return
    figure = Figure(done["kendall"], math.sqrt(2 * (1 - done["kendall"] ** 2) / done["candidates"]))
    yield row(
        "Déjà Vu and SSLMem agree on the points", "Déjà Vu finds memorized images (DejaVu)", f"AUROC of candidates against unseen {done['auroc']:.2f} [{done['auroc_low']:.2f}, {done['auroc_high']:.2f}]; Kendall's tau with SSLMem {done['kendall']:+.2f} (p {done['kendall_p']:.2g})",
        verdict(figure), acted("dejavu"),
    )  # fmt: skip


def privacy() -> Iterator[dict[str, str]]:
    trained = stored("objectives.json").get("privacy")
    if not trained:
        return
    runs = {(each["seed"], each["epsilon"]): each for each in trained}
    seeds = [
        seed for seed in sorted({seed for seed, _ in runs}) if all((seed, key) in runs for key in (None, 20.0, 8.0))
    ]
    if not seeds:
        return

    cells = []
    untrained = (("untrained", "untrained"),) if all((seed, "untrained") in runs for seed in seeds) else ()
    for key, text in (*untrained, (None, "none"), (20.0, "ε = 20"), (8.0, "ε = 8")):
        mean = {name: np.mean([runs[seed, key][name] for seed in seeds]) for name in ("unitmem_equal", "unitmem_external", "auroc")}  # fmt: skip
        cells.append(
            f"{text}: {mean['unitmem_equal']:.3f} (unseen images {mean['unitmem_external']:.3f}; AUROC of alignment {mean['auroc']:.2f})"
        )
    for column, where in (("unitmem_equal", "all layers"), ("fully_connected", "fully-connected layers alone")):
        for other in (20.0, 8.0):
            total = over_seeds([runs[seed, None][column] - runs[seed, other][column] for seed in seeds])
            first = f"all layers {'; '.join(cells)}; " if (column, other) == ("unitmem_equal", 20.0) else ""
            yield row(
                f"Differential privacy lowers UnitMem ({where}; MAE on Fashion-MNIST, no privacy less ε = {other:.0f}, seed by seed)",
                "none above ε = 20 above ε = 8 (Fig. 4)",
                f"{first}difference {total}",
                verdict(total),
                "`benchmarks/objectives.py privacy`",
            )


PARTS: tuple[Callable[[], Iterator[dict[str, str]]], ...] = (
    ranking, depth, units, supervised, extremes, vit, objectives, layers, lower, settings, lengths, data_sets,
    numbers_of_points, price, planted, privacy, replacement, tuning, pruning, insertion, removal, transfer,
    distances, dejavu_row,
)  # fmt: skip


def measured() -> Iterator[tuple[dict[str, str], frozenset[str]]]:
    """Every row that can be measured here, with the runs that its part looked for and did not find."""
    for part in PARTS:
        LACKING.clear()
        for each in part():
            yield each, frozenset(LACKING)


def calibrated(name: str) -> dict[str, list[float]]:
    """Calibrated LayerMem with its interval, by layer of one run."""
    each = found(name)
    assert each is not None, name
    columns = each.layers.set_index("layer")[["layermem_calibrated", "calibrated_low", "calibrated_high"]]
    return {layer: [float(value) for value in values] for layer, values in columns.iterrows()}


def main() -> None:
    """Measure what can be, keep the rest as it is committed, and say which that is."""
    parser(__doc__).parse_args()
    committed = stored(STORE)
    known_runs, known_layers = committed.get("runs", []), committed.get("layers", {})
    rows, kept = rejoined(committed.get("rows", []), measured(), known_runs)
    tables = {name: calibrated(name) for name in there(*SHOWN)}
    here = [*there(*RUNS), *(name for name, _ in acts() if result(name) is not None)]
    for line in kept:
        print(f"kept as it is: {line}", file=sys.stderr)
    for name in known_layers:
        if name not in tables:
            print(f"kept as it is: calibrated LayerMem of {name} (its audit is not here)", file=sys.stderr)
    for each in rows:
        print(f"{each['verdict']:22} {each['finding']}: {each['ours']}")
    content = {"rows": rows, "layers": {**known_layers, **tables}, "runs": list(dict.fromkeys([*known_runs, *here]))}
    if content != {key: committed.get(key) for key in content}:  # else the versions are not those of these rows
        keep(STORE, {**content, "versions": versions()})


if __name__ == "__main__":
    main()
