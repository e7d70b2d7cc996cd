"""Zero units by their UnitMem."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from memloc.encoders import Encoder, Layer, copied, layer_parts, shape_of, silence, tapped, unit_means
from memloc.errors import EncoderError, SpecError, nearest
from memloc.interventions._specs import PruneSpec
from memloc.streams import Stream, generator


def choose_units(
    encoder: Encoder,
    units: pd.DataFrame,
    *,
    fraction: float,
    order: str = "top",
    per: str = "layer",
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Units of an audit to prune: layer, unit, unitmem.

    Args:
        units: the units of an audit. fraction: share of them, above 0 to 1, rounded to whole units.
        order: "top" or "low" UnitMem first, or "random", a seeded draw. Units without UnitMem (NaN) are not chosen.
        per: "layer" takes the share of every layer, "network" of all units together.
        layers: which layers; by default all whose units are the rows of one weight, so neither residual sums nor
            poolings.
    Raises:
        SpecError: an unknown order or scope, a fraction that is out of range or takes no unit.

    >>> import numpy as np
    >>> from memloc import load_encoder
    >>> units = pd.DataFrame({"layer": "conv1", "unit": range(32), "unitmem": np.linspace(0, 1, 32)})
    >>> choose_units(load_encoder("resnet9"), units, fraction=0.1)["unit"].tolist()
    [29, 30, 31]
    """
    PruneSpec(fraction, order, per, seed=seed)  # raises what is wrong
    known_parts = {name: parts for name, parts in layer_parts(encoder, layers).items() if parts.makes is not None}
    table = units.loc[units["layer"].isin(known_parts), ["layer", "unit", "unitmem"]].dropna()
    absent = [name for name in known_parts if name not in set(table["layer"])]
    if layers is not None and absent:
        raise SpecError(
            f"the audit has no units of layer {absent[0]!r}. {nearest(absent[0], units['layer'].unique())} Expected a"
            " layer that was audited. Name another layer."
        )
    if table.empty:
        raise SpecError(
            "the audit has no unit that could be pruned. Expected convolutions, linear, attention or fully-connected"
            " layers. Audit with --layers auto."
        )
    draw = generator(Stream.RANDOM_UNITS, seed).permutation(len(table))
    table = table.sort_values(["layer", "unit"]).assign(draw=draw)
    rank = {
        "top": table["unitmem"].rank(ascending=False, method="first"),
        "low": table["unitmem"].rank(method="first"),
        "random": table["draw"],
    }[order]
    table = table.assign(rank=rank).sort_values("rank", kind="stable")
    parts = [part for _, part in table.groupby("layer")] if per == "layer" else [table]
    chosen = pd.concat([part.head(round(fraction * len(part))) for part in parts])
    if chosen.empty:
        raise SpecError(
            f"a fraction of {fraction} takes no unit of {len(table)}. Expected at least one. Pass a larger --fraction."
        )
    return chosen.sort_values(["layer", "unit"])[["layer", "unit", "unitmem"]].reset_index(drop=True)


def prune_units(encoder: Encoder, units: pd.DataFrame) -> Encoder:
    """A copy of an encoder in which some units never respond: filter, bias, and batch-norm scale and shift are zero.

    Args:
        units: layer and unit of each (see `choose_units`).
    Raises:
        EncoderError: a unit whose layer has no weights of its own, or that still responds, since its activation at 0 is
            not 0.
    Source: LocMem, Table 6.

    >>> from memloc import load_encoder
    >>> pruned = prune_units(load_encoder("resnet9"), pd.DataFrame({"layer": ["conv1"], "unit": [3]}))
    >>> pruned.module.conv1(torch.rand(1, 3, 32, 32))[0, 3].abs().max().item()
    0.0
    """
    result = copied(encoder)
    found = layer_parts(result, list(units["layer"].unique()))
    wanted = {name: sorted(units.loc[units["layer"] == name, "unit"].astype(int)) for name in found}
    for name, parts in found.items():
        highest = parts.layer.units
        if wanted[name][0] < 0 or (highest and wanted[name][-1] >= highest):
            raise SpecError(
                f"layer {name!r} has {highest} units and unit {wanted[name][-1]} is named. Expected 0 to {highest - 1}."
                " Pass the audit of this encoder."
            )
        silence(result, parts, wanted[name])
    _check_silent(result, [parts.layer for parts in found.values()], wanted)
    return result


def _check_silent(encoder: Encoder, layers: list[Layer], wanted: dict[str, list[int]]) -> None:
    """Raise where a pruned unit still responds to noise."""

    def look(layer: Layer, output: Tensor) -> None:
        if unit_means(layer, output.abs(), 1)[:, wanted[layer.name]].any():
            raise EncoderError(
                f"units of layer {layer.name!r} still respond with all their weights at zero. Expected an activation"
                " that is 0 at 0, such as ReLU or GELU. Leave that layer out."
            )

    noise = torch.rand(2, *shape_of(encoder), generator=torch.Generator().manual_seed(0))
    encoder.module.cpu()
    with tapped(encoder.module, layers, look) as forward:
        forward(encoder.prepare(noise))
