"""memloc dejavu: the Déjà Vu baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._options import Given, with_settings
from memloc.errors import DataError


@with_settings(common=("max_bad", "device", "as_json"))
def dejavu(
    run: Annotated[Path, typer.Argument(help="A folder with a pair that memloc train finished on labelled images.")],
    public: Annotated[str, typer.Option(help="Labelled images that no encoder of the run saw.")],
    settings: Given,
    audit: Annotated[Path | None, typer.Option(help="The audit of the run, to compare Déjà Vu with SSLMem.")] = None,
    side: Annotated[
        float, typer.Option(help="Of the corners that stand in for the background, as a share of the image.")
    ] = 0.5,
    neighbours: Annotated[int, typer.Option(help="Public images that vote on the label.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this .csv, .jsonl or .parquet file.")] = None,
) -> None:
    """The Déjà Vu baseline: how much better f than g infers a point's label from its corners; and its agreement with
    SSLMem."""
    import torch

    from memloc.data import concatenate, open_images
    from memloc.integrations import check_suffix, write_any
    from memloc.probe import check_public, dejavu_agreement
    from memloc.probe import dejavu as score
    from memloc.results import Audit
    from memloc.runs import images_of, open_run

    if out is not None:
        check_suffix(out)
    loaded = open_run(run)
    sides = [loaded.side(name) for name in ("f", "g")]
    if not all(sides):
        raise DataError(
            f"{str(run)!r} has no pair f, g. Expected a run of memloc train without --ensemble. Train a pair."
        )
    audited = None if audit is None else Audit.load(audit)
    images, given = images_of(loaded, max_bad=settings.max_bad)
    images = images if given is None else concatenate(images, given)
    rows = torch.from_numpy((loaded.points["split"] != "shared").to_numpy().nonzero()[0])
    known = open_images(public, size=images.size, max_bad=settings.max_bad)
    check_public(images, known)
    scores = score(
        sides[0][0],
        sides[1][0],
        images.take(rows),
        known,
        side=side,
        neighbours=neighbours,
        device=settings.device,
        progress=settings.progress,
    )
    table = scores.merge(loaded.points[["point", "name", "split"]], on="point")
    points = loaded.points.assign(sslmem=float("nan")) if audited is None else audited.points
    found = {
        **dejavu_agreement(scores, points),
        "run": str(run),
        "side": side,
        "neighbours": neighbours,
        "public": len(known),
    }
    if out is not None:
        write_any(table, out)
    lines = [
        (
            f"candidates: f infers the label from a corner better than g by {found['mean_dejavu']:+.3f} of the"
            f" neighbours; external points: {found['mean_external']:+.3f}"
        ),
        (
            f"candidates against external points: AUROC {found['auroc']:.3f} (95 % interval {found['auroc_low']:.3f} to"
            f" {found['auroc_high']:.3f}; .5 is chance)"
        ),
    ]
    if audited is not None:
        lines.append(
            f"agreement with SSLMem over {found['candidates']} candidates: Kendall's tau {found['kendall']:+.3f} (p"
            f" {found['kendall_p']:.2g})"
        )
    common.emit(settings.as_json, found, "\n".join([*lines, *([] if out is None else [str(out)])]))
