"""memloc probe, memloc dejavu and memloc compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._acting import EncoderName, Weights, opened, own_size, planned
from memloc.cli._flags import Config, Device, DryRun, Json, MaxBad, Overwrite, Size, StateKey, StripPrefix
from memloc.errors import DataError, DataNotFoundError, SpecError

if TYPE_CHECKING:
    from memloc.data import Images
    from memloc.encoders import Encoder


def probe(
    encoder: EncoderName,
    train: Annotated[str, typer.Option(help="Labelled images to fit the probe on.")],
    test: Annotated[str, typer.Option(help="Labelled images to test it on.")],
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
    weights: Weights = None,
    state_key: StateKey = None,
    strip_prefix: StripPrefix = None,
    size: Size = None,
    max_bad: MaxBad = 0,
    seed: Annotated[int, typer.Option(help="Of the part that the regularization is chosen on.")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """How well a frozen encoder's layers tell labelled images apart: linear, nearest-neighbour or per patch."""
    from memloc.data import open_images
    from memloc.probe import check_probe, probe_encoder
    from memloc.results import make_folder, replacing

    size = own_size(encoder, weights, size, state_key, strip_prefix)
    images, tested = open_images(train, size=size, max_bad=max_bad), open_images(test, size=size, max_bad=max_bad)
    if out is not None:
        make_folder(out.parent)
    loaded, _ = opened(encoder, weights, state_key=state_key, strip_prefix=strip_prefix, images=images)
    masks = _masks(train_masks, test_masks)
    known = [each.name for each in loaded.layers]
    chosen = _all_of(loaded, images, kind == "dense") if layer == ["all"] else layer or ["output"]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        from memloc.errors import LayerNotFoundError, nearest

        raise LayerNotFoundError(
            f"{loaded.name} has no layer {unknown[0]!r}. {nearest(unknown[0], known)} List them with: memloc layers"
            f" {encoder}"
        )
    check_probe(loaded, images, tested, kind=kind, masks=masks, neighbours=neighbours, device=device)
    if dry_run:
        plan = planned(loaded, images, forward=len(chosen) * (len(images) + len(tested)), layers=chosen)
        common.show_plan(as_json, plan)
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
            device=device,
            progress=common.progress(as_json),
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
    common.emit(as_json, result, "\n".join(lines))


def dejavu(
    run: Annotated[Path, typer.Argument(help="A folder with a pair that memloc train finished on labelled images.")],
    public: Annotated[str, typer.Option(help="Labelled images that no encoder of the run saw.")],
    audit: Annotated[Path | None, typer.Option(help="The audit of the run, to compare Déjà Vu with SSLMem.")] = None,
    side: Annotated[
        float, typer.Option(help="Of the corners that stand in for the background, as a share of the image.")
    ] = 0.5,
    neighbours: Annotated[int, typer.Option(help="Public images that vote on the label.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this .csv, .jsonl or .parquet file.")] = None,
    max_bad: MaxBad = 0,
    device: Device = "auto",
    as_json: Json = False,
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
    images, given = images_of(loaded, max_bad=max_bad)
    images = images if given is None else concatenate(images, given)
    rows = torch.from_numpy((loaded.points["split"] != "shared").to_numpy().nonzero()[0])
    known = open_images(public, size=images.size, max_bad=max_bad)
    check_public(images, known)
    scores = score(
        sides[0][0],
        sides[1][0],
        images.take(rows),
        known,
        side=side,
        neighbours=neighbours,
        device=device,
        progress=common.progress(as_json),
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
    common.emit(as_json, found, "\n".join([*lines, *([] if out is None else [str(out)])]))


def compare(
    first: Annotated[Path, typer.Argument(help="A folder that memloc audit wrote.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same images.")],
    k: Annotated[int | None, typer.Option(help="How many of the most memorized points; a tenth by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables between, within, splits and extremes.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Do two audits name the same points: overlap and Kendall's tau per layer, and t-tests between splits."""
    from memloc.engine import compare as compared
    from memloc.results import Audit, claim_folder, write_json, write_table

    for folder in (first, second):
        if not folder.exists():
            raise DataNotFoundError(
                f"there is no folder {str(folder)!r}. Expected one that memloc audit wrote. Check the path."
            )
    if k is not None and k < 1:
        raise SpecError(f"k is {k}. Expected at least 1. Pass --k 10.")
    audits = [Audit.load(folder) for folder in (first, second)]
    found = compared(*audits, k=k)
    tables = {name: getattr(found, name) for name in ("between", "within", "splits", "extremes")}
    if out is not None:
        claim_folder(
            out,
            {
                "first": audits[0].record.get("spec_hash"),
                "second": audits[1].record.get("spec_hash"),
                "k": found.record["k"],
            },
            overwrite=overwrite,
        )
        for name, table in tables.items():
            write_table(out / f"{name}.parquet", table)
        write_json(out / "compare.json", {**found.record, "first": str(first), "second": str(second)})
    lines = [
        f"{found.record['points']} points in common, the {found.record['k']} most memorized of each"
        f" ({found.record['by_chance']:.0%} would be shared by chance)"
    ]
    if len(found.between):
        width = max(map(len, found.between["layer"])) + 2
        lines.append(f"{'layer':{width}}{'overlap':>8}  Kendall's tau")
        lines += [
            f"{row['layer']:{width}}{row['overlap']:8.0%}  {row['kendall']:+.3f}  95 % interval"
            f" {row['kendall_low']:+.3f} to {row['kendall_high']:+.3f}"
            for row in found.between.to_dict("records")
        ]
    lines += found.record["notes"]
    if out is not None:
        lines.append(str(out))
    common.emit(
        as_json,
        {**found.record, **{name: table.to_dict("records") for name, table in tables.items()}},
        "\n".join(lines),
    )


def _all_of(encoder: Encoder, images: Images, dense: bool) -> list[str]:
    """Every layer; for a dense probe those with positions."""
    from memloc.encoders import represent
    from memloc.errors import EncoderError

    found = []
    for layer in encoder.layers:
        try:
            represent(encoder, images.pixels[:1], layer=layer.name, dense=dense, device="cpu")
        except EncoderError:
            if not dense:
                raise
            continue
        found.append(layer.name)
    return found


def _masks(train: Path | None, test: Path | None) -> tuple[Any, Any] | None:
    import numpy as np

    if (train is None) != (test is None):
        raise SpecError(
            "only one of --train-masks and --test-masks is given. Expected both for a dense probe. Pass a .npy file for"
            " each."
        )
    if train is None or test is None:
        return None
    found = []
    for path in (train, test):
        if not path.is_file():
            raise DataNotFoundError(
                f"there is no file {str(path)!r}. Expected a .npy file of class numbers per pixel. Check the path."
            )
        try:
            found.append(np.load(path, allow_pickle=False))
        except (OSError, ValueError) as problem:
            raise DataError(
                f"{path} cannot be read ({problem}). Expected an array that numpy.save wrote. Save it again."
            ) from problem
    return found[0], found[1]
