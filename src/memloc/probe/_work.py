"""Probes of what a user named, from settings to figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from memloc.data import concatenate, open_images
from memloc.errors import DataError, LayerNotFoundError, SpecError, nearest
from memloc.probe._dejavu import check_public, dejavu, dejavu_agreement
from memloc.probe._encoders import check_probe, probe_encoder
from memloc.probe._inputs import every_layer, open_masks
from memloc.probe._named import Named, planned
from memloc.probe._specs import DejavuSpec, ProbeSpec
from memloc.progress import Report, silent
from memloc.results import Audit, keep_apart, make_folder, plain, replacing
from memloc.runs import images_of, open_run


@dataclass(frozen=True)
class ProbeWork:
    """Probes whose inputs were opened and checked, and of which nothing is fitted yet.

    Attributes:
        cost: passes, expected seconds and memory. run: fits the probes, given a progress report; returns the encoder,
            the kind and the figures of each layer.
    """

    cost: Callable[[], dict[str, Any]]
    run: Callable[[Report], dict[str, Any]]


def probe_work(
    named: Named, spec: ProbeSpec, *, masks: tuple[Path | None, Path | None] = (None, None), out: Path | None = None
) -> ProbeWork:
    """Probe an encoder's layers.

    Args:
        named: with images to train and to test on. masks: .npy files of a dense probe. out: JSON file for the figures.
    """
    if out is not None:
        keep_apart(out, *named.paths, *masks)
    parts = named.labelled(named.fit())
    if parts is None:
        raise SpecError("there are no labelled images. Expected some to train and to test on. Pass --train and --test.")
    if out is not None:
        make_folder(out.parent)
    encoder, _ = named.opened(parts[0])
    opened = open_masks(*masks)
    dense = spec.kind == "dense"
    known = [each.name for each in encoder.layers]
    chosen = every_layer(encoder, parts[0], dense=dense) if spec.layer == ["all"] else spec.layer or ["output"]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise LayerNotFoundError(
            f"{encoder.name} has no layer {unknown[0]!r}. {nearest(unknown[0], known)} List them with: memloc layers"
            f" {named.encoder}"
        )
    how: dict[str, Any] = {"kind": spec.kind, "neighbours": spec.neighbours, "masks": opened, "device": named.device}
    check_probe(encoder, *parts, **how)

    def run(progress: Report) -> dict[str, Any]:
        rows = [
            {
                "layer": name,
                **probe_encoder(encoder, *parts, layer=name, seed=spec.seed, progress=progress, **how).to_dict(),
            }
            for name in chosen
        ]
        result = {"encoder": encoder.name, "kind": spec.kind, "layers": rows}
        if out is not None:
            with replacing(out) as temporary:
                temporary.write_text(json.dumps(plain(result), indent=1) + "\n")
        return result

    return ProbeWork(lambda: planned(encoder, parts[0], forward=len(chosen) * sum(map(len, parts)), layers=chosen), run)


def dejavu_of_run(
    run: Path,
    public: str,
    spec: DejavuSpec,
    *,
    audit: Path | None = None,
    max_bad: int = 0,
    device: str = "auto",
    trust: bool = False,
    progress: Report = silent,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Déjà Vu's score of a pair's points, and how it agrees with SSLMem.

    Args:
        run: a finished run of f and g on labelled images. public: labelled images that no encoder of the run saw.
        audit: of the run, to compare with. trust: as in `open_run`.
    Returns:
        One row per point that is not shared: point, share_f, share_g, dejavu, name, split; and the figures.
    Raises:
        DataError: a run without f and g, without labels; see `dejavu`.
    """
    loaded = open_run(run, trust=trust)
    sides = [loaded.side(name) for name in ("f", "g")]
    if not all(sides):
        raise DataError(
            f"{str(run)!r} has no pair f, g. Expected a run of memloc train without --ensemble. Train a pair."
        )
    audited = None if audit is None else Audit.load(audit)
    images, given = images_of(loaded, max_bad=max_bad)
    images = images if given is None else concatenate(images, given)
    rows = torch.from_numpy((loaded.points["split"] != "shared").to_numpy().nonzero()[0])
    known = open_images(public, size=images.size, max_bad=max_bad)
    check_public(images, known)
    f, g = (side[0] for side in sides)
    scores = dejavu(
        f, g, images.take(rows), known, side=spec.side, neighbours=spec.neighbours, device=device, progress=progress
    )
    points = loaded.points.assign(sslmem=float("nan")) if audited is None else audited.points
    found = {
        **dejavu_agreement(scores, points),
        "run": str(run),
        "side": spec.side,
        "neighbours": spec.neighbours,
        "public": len(known),
    }
    return scores.merge(loaded.points[["point", "name", "split"]], on="point"), found
