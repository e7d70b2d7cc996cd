"""Which layers to act on, and layer replacement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from memloc.encoders import Encoder, copied, layer_parts, layer_tensors, same_architecture
from memloc.errors import EncoderError, LayerNotFoundError, SpecError
from memloc.interventions._inputs import audit_of
from memloc.interventions._specs import CRITERIA, ORDERS, LayerSpec
from memloc.settings import check_choice
from memloc.streams import Stream, generator


def choose_layers(
    encoder: Encoder, layers: pd.DataFrame, count: int, *, by: str = "delta", order: str = "highest", seed: int = 0
) -> list[str]:
    """Layers of an audit by how much they memorize, among those with weights of their own.

    Args:
        layers: the layers of an audit. count: how many.
        by: "delta" or "layermem" (the calibrated figure where the audit has it, else the published one), or "random", a
            seeded draw.
        order: "highest" or "lowest" first. Layers without the figure, such as the first without Δ, are left out.
    Returns:
        Their names in the order of the forward pass.
    Raises:
        SpecError: an unknown criterion, or more layers than there are.

    >>> import numpy as np
    >>> from memloc import load_encoder
    >>> table = pd.DataFrame({"layer": ["conv1", "conv2_0", "conv3"], "delta_calibrated": [np.nan, 0.2, 0.1]})
    >>> choose_layers(load_encoder("resnet9"), table, 1)
    ['conv2_0']
    """
    for name, value, known in (("by", by, CRITERIA), ("order", order, ORDERS)):
        check_choice(name, value, known)
    weighted = layer_parts(encoder)
    table = layers[layers["layer"].isin(weighted)]
    if by == "random":  # among the layers that Δ could choose, where there is Δ
        figures = next(
            (table[name] for name in ("delta_calibrated", "delta") if name in table and table[name].notna().any()), None
        )
        table = table if figures is None else table[figures.notna()]
    else:
        table = table.assign(figure=figure_of(table, by)).dropna(subset=["figure"])
    if not 1 <= count <= len(table):
        raise SpecError(
            f"{count} layers are asked for by {by} and {len(table)} have weights and a figure to choose by. Expected 1"
            f" to {len(table)}. Pass --count {min(max(count, 1), len(table))}."
        )
    if by == "random":
        chosen = table["layer"].iloc[generator(Stream.RANDOM_LAYERS, seed).permutation(len(table))[:count]]
    else:
        chosen = table.sort_values("figure", ascending=order == "lowest", kind="stable")["layer"].iloc[:count]
    return [name for name in weighted if name in set(chosen)]


def figure_of(layers: pd.DataFrame, by: str) -> pd.Series:
    """Δ or LayerMem of layers: calibrated where the audit has it, else the alignment gap, else as published."""
    for name in {
        "delta": ("delta_calibrated", "delta"),
        "layermem": ("layermem_calibrated", "alignment_gap", "layermem"),
    }[by]:
        if name in layers and layers[name].notna().any():
            return layers[name]
    raise SpecError(
        f"the audit has no {by} of any layer. Expected an audit with a reference encoder, or with external points. Pass"
        " --by random, or name --layers."
    )


@torch.no_grad()
def replace_layers(encoder: Encoder, other: Encoder, names: Sequence[str]) -> Encoder:
    """A copy of an encoder with the weights and running statistics of some layers taken from another one.

    Args:
        other: of the same architecture, for instance trained on other data. names: layers with weights (see `memloc
            layers`).
    Raises:
        EncoderError: another architecture, a layer without weights. LayerNotFoundError.
    Source: LocMem, section 4.2 and Table 21.

    >>> from memloc import load_encoder
    >>> f, other = load_encoder("resnet9"), load_encoder("resnet9")
    >>> torch.equal(replace_layers(f, other, ["conv3"]).module.conv3.conv.weight, other.module.conv3.conv.weight)
    True
    """
    if not names:
        raise LayerNotFoundError(
            "no layer is named. Expected one or more. Pass --layers NAME, or --audit DIR to choose them by Δ."
        )
    same_architecture(encoder, other)
    result = copied(encoder)
    for parts in layer_parts(result, names).values():
        mine, theirs = layer_tensors(result, parts), layer_tensors(other, parts)
        if mine.keys() != theirs.keys() or any(mine[key].shape != theirs[key].shape for key in mine):
            raise EncoderError(
                f"layer {parts.layer.name!r} of {other.name} has other weights. Expected the same shapes. Pass an"
                " encoder of the same architecture."
            )
        for key, value in mine.items():
            value.copy_(theirs[key])
    return result


def layers_asked(encoder: Encoder, spec: LayerSpec, audit: Path | None) -> tuple[list[str], dict[str, Any]]:
    """Layers by name, or by the figures of an audit; and how they were chosen, for the record."""
    names, by = spec.layers, spec.by
    if bool(names) == (audit is not None):
        raise SpecError(
            f"{'both --layers and --audit are' if names else 'neither --layers nor --audit is'} given. Expected one:"
            " names, or an audit to choose by. Pass for instance --layers conv4_2."
        )
    if names:
        return list(layer_parts(encoder, names)), {}
    assert audit is not None, "one of both is given"
    audited = audit_of(encoder, audit)
    how = {
        "chosen_by": by,
        "audit": audited.record.get("spec_hash"),
        **({"seed": spec.seed} if by == "random" else {"order": spec.order}),
    }
    return choose_layers(encoder, audited.layers, spec.count, by=by, order=spec.order, seed=spec.seed), how
