"""memloc probe: how well a frozen encoder's layers tell labelled images apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import EncoderName
from memloc.cli._flags import ENCODER, IMAGES
from memloc.cli._options import Given, with_settings


@with_settings(common=(*ENCODER, *IMAGES, "dry_run", "as_json", "config"))
def probe(
    encoder: EncoderName,
    train: Annotated[str, typer.Option(help="Labelled images to fit the probe on.")],
    test: Annotated[str, typer.Option(help="Labelled images to test it on.")],
    settings: Given,
    kind: Annotated[str, typer.Option(help="linear, knn, or dense (a label per patch).")] = "linear",
    layer: Annotated[
        list[str] | None, typer.Option(help="Layers to probe; repeat for more; output by default; all for every layer.")
    ] = None,
    neighbours: Annotated[int, typer.Option(help="Of the knn probe.")] = 20,
    train_masks: Annotated[
        Path | None, typer.Option(help="Dense: .npy of class numbers per pixel, (image, height, width), -1 for none.")
    ] = None,
    test_masks: Annotated[Path | None, typer.Option(help="Dense: the same for the test images.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the part that the regularization is chosen on.")] = 0,
) -> None:
    """How well a frozen encoder's layers tell labelled images apart: linear, nearest-neighbour or per patch."""
    from memloc.data import open_images
    from memloc.interventions import opened, own_size, planned
    from memloc.probe import check_probe, every_layer, open_masks, probe_encoder
    from memloc.results import make_folder, replacing

    size = own_size(encoder, settings.weights, settings.size, **settings.keys_of)
    images, tested = (open_images(each, size=size, max_bad=settings.max_bad) for each in (train, test))
    if out is not None:
        make_folder(out.parent)
    loaded, _ = opened(encoder, settings.weights, **settings.keys_of, images=images)
    masks = open_masks(train_masks, test_masks)
    known = [each.name for each in loaded.layers]
    chosen = every_layer(loaded, images, dense=kind == "dense") if layer == ["all"] else layer or ["output"]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        from memloc.errors import LayerNotFoundError, nearest

        raise LayerNotFoundError(
            f"{loaded.name} has no layer {unknown[0]!r}. {nearest(unknown[0], known)} List them with: memloc layers"
            f" {encoder}"
        )
    check_probe(loaded, images, tested, kind=kind, masks=masks, neighbours=neighbours, device=settings.device)
    if settings.dry_run:
        plan = planned(loaded, images, forward=len(chosen) * (len(images) + len(tested)), layers=chosen)
        common.show_plan(settings.as_json, plan)
        return
    rows: list[dict[str, Any]] = []
    for name in chosen:
        found = probe_encoder(
            loaded,
            images,
            tested,
            kind=kind,
            layer=name,
            neighbours=neighbours,
            masks=masks,
            seed=seed,
            device=settings.device,
            progress=settings.progress,
        )
        rows.append({"layer": name, **found.to_dict()})
    width = max(len(row["layer"]) for row in rows) + 2
    lines = [
        f"{row['layer']:{width}}{row['accuracy']:.3f}  95 % interval {row['low']:.3f} to {row['high']:.3f}"
        for row in rows
    ]
    lines.append(
        f"{rows[0]['n_test']} test {'patches' if kind == 'dense' else 'images'}; the most frequent class is"
        f" {rows[0]['chance']:.3f} of them"
    )
    result = {"encoder": loaded.name, "kind": kind, "layers": rows}
    if out is not None:
        import json

        from memloc.results import plain

        with replacing(out) as temporary:
            temporary.write_text(json.dumps(plain(result), indent=1) + "\n")
    common.emit(settings.as_json, result, "\n".join(lines))
