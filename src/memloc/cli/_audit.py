"""memloc audit and memloc report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from memloc.cli import _common as common
from memloc.cli._flags import ENCODERS, Config, Device, DryRun, Json, MaxBad, Overwrite, Size, StateKey, StripPrefix
from memloc.errors import SpecError

if TYPE_CHECKING:
    from memloc.data import Images
    from memloc.encoders import Encoder
    from memloc.results import Audit

Encoders = Annotated[list[str] | None, typer.Option(help=f"{ENCODERS.removesuffix('.')}; repeat for more runs.")]


_GATES = (("layermem_calibrated", "calibrated_low"), ("layermem_own", "own_low"), ("alignment_gap", "gap_low"))


def audit(
    out: Annotated[Path, typer.Option(help="Folder for the tables and the report; an interrupted audit is continued.")],
    run: Annotated[
        Path | None, typer.Argument(help="A folder that memloc train finished; or name --f and --data instead.")
    ] = None,
    f: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                f"{ENCODERS.removesuffix('.')}; repeat for more runs. Beside RUN: audited in its f's place, with its"
                " splits."
            )
        ),
    ] = None,
    g: Encoders = None,
    f_weights: Annotated[
        str | None, typer.Option(help="Checkpoint of --f: .safetensors, or PyTorch with tensors alone; or random.")
    ] = None,
    g_weights: Annotated[str | None, typer.Option(help="Checkpoint of --g.")] = None,
    state_key: StateKey = None,
    strip_prefix: StripPrefix = None,
    earlier: Annotated[
        bool, typer.Option("--earlier", help="--g is an earlier checkpoint of --f, which has seen the candidates too.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Candidates: images that f was trained on and g was not.")] = None,
    independent: Annotated[str | None, typer.Option(help="Images that g was trained on and f was not.")] = None,
    shared: Annotated[str | None, typer.Option(help="Images that both were trained on.")] = None,
    external: Annotated[str | None, typer.Option(help="Images that neither was trained on.")] = None,
    size: Size = None,
    layers: Annotated[list[str] | None, typer.Option(help="auto, fine, or names and globs; repeat for more.")] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help=(
                "Views: weak, normal, strong, independent, crop, mask, normal-paper or strong-paper; as in training by"
                " default."
            )
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="memloc, paper or published-code: sets what is not given of views, sampling, pairs, rest, scale."
        ),
    ] = "memloc",
    views: Annotated[str | None, typer.Option(help="Views per point, or auto; 16 by default.")] = None,
    views_seed: Annotated[int, typer.Option(help="Of the views.")] = 0,
    sampling: Annotated[str | None, typer.Option(help="sobol (by default) or independent.")] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="views (by default): of views with each other; original: of the image itself with each view."
        ),
    ] = None,
    patch: Annotated[int | None, typer.Option(help="Side of the patches that the mask policy hides.")] = None,
    distance: Annotated[str, typer.Option(help="l2, l1, cosine or angular.")] = "l2",
    rest: Annotated[
        str | None, typer.Option(help="mean (by default) or median of the other points in UnitMem.")
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="ratio (SSLMem', by default) or range (raw scores over their range) in the layers' tables."),
    ] = None,
    signed: Annotated[str, typer.Option(help="rectify or raw activations in UnitMem.")] = "rectify",
    mean: Annotated[str | None, typer.Option(help="Per channel, such as 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Per channel.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Points per batch; by image size by default.")] = None,
    shard_size: Annotated[int, typer.Option(help="Points per shard, the unit of resuming.")] = 1024,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16.")] = "float32",
    max_bad: MaxBad = 0,
    thumbnails: Annotated[bool, typer.Option(help="Keep small pictures for the report.")] = True,
    fail_above: Annotated[
        float | None,
        typer.Option(
            help=(
                "Exit with 3 if a layer's calibrated LayerMem (else LayerMem above external points, else alignment gap)"
                " surely exceeds this."
            )
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of bootstrap and sampling.")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
    config: Config = None,
) -> int:
    """Score memorization of every point, layer, unit and class in one pass, and write a report."""
    from memloc.engine import plan_cost, prepare, protocol_settings, run_job
    from memloc.views import POLICIES, Views

    if pairs not in (None, "views", "original"):
        raise SpecError(f"pairs is {pairs!r}. Expected views or original. Pass --pairs views.")
    number: Any = views if views in (None, "auto") or not str(views).lstrip("-").isdigit() else int(str(views))
    wanted = protocol_settings(
        protocol,
        {
            "views": number,
            "sampling": sampling,
            "original": None if pairs is None else pairs == "original",
            "rest": rest,
            "scale": scale,
        },
    )
    settings: dict[str, Any] = {
        "distance": distance,
        "rest": wanted["rest"],
        "scale": wanted["scale"],
        "signed": signed,
        "batch_size": batch_size,
        "shard_size": shard_size,
        "dtype": dtype,
        "thumbnails": thumbnails,
        "seed": seed,
        "device": device,
    }
    settings["layers"] = "auto" if not layers else layers[0] if len(layers) == 1 else layers
    if run is not None:
        given = {
            "--g": g,
            "--data": data,
            "--independent": independent,
            "--shared": shared,
            "--size": size,
            "--mean": mean,
            "--std": std,
            "--f-weights": f_weights,
            "--g-weights": g_weights,
            "--state-key": state_key,
            "--strip-prefix": strip_prefix,
            "--earlier": earlier or None,
        }
        clash = [flag for flag, value in given.items() if value is not None]
        if clash:
            raise SpecError(
                f"{clash[0]} is given beside the run {str(run)!r}, which already says which encoders and images to"
                f" audit. Expected one or the other. Leave {clash[0]} out."
            )
        arguments, trained_with, extra = _from_run(run, external, max_bad, f)
    else:
        if not f or data is None:
            raise SpecError(
                "there is nothing to audit. Expected a run, or --f and --data. Type: memloc audit RUN --out DIR, or"
                " memloc audit --f ENC --data DATA --out DIR"
            )
        parts = {"candidate": data, "independent": independent, "shared": shared, "external": external}
        arguments, trained_with, extra = _from_flags(
            f,
            g,
            f_weights,
            g_weights,
            parts,
            size,
            max_bad,
            settings["layers"],
            {"mean": _numbers(mean), "std": _numbers(std), "state_key": state_key, "strip_prefix": strip_prefix},
        )
        arguments["earlier"] = earlier
    chosen = trained_with or wanted["policy"]
    if protocol == "paper" and f"{chosen}-paper" in POLICIES:
        chosen = f"{chosen}-paper"
    if patch is not None and (policy or chosen) != "mask":
        raise SpecError(
            f"--patch is given for the policy {policy or chosen!r}, which hides no patches. Expected it with --policy"
            " mask. Leave --patch out."
        )
    recipe = Views(
        policy or chosen,
        n=wanted["views"],
        seed=views_seed,
        sampling=cast(Any, wanted["sampling"]),
        patch=patch,
        original=wanted["original"],
    )
    job = prepare(**arguments, views=recipe, **settings)
    comparable = {"pair": ("independent", "external"), "alone": ("external",), "ensemble": ("candidate",)}[job.mode]
    if fail_above is not None and not any((job.split == split).any() for split in comparable):
        raise SpecError(
            f"--fail-above has no figure to look at: there are no {' or '.join(comparable)} points. Expected some, to"
            f" compare candidates with. Pass --{comparable[-1]} DATA."
        )
    if dry_run:
        cost = plan_cost(job)
        common.show_plan(as_json, cost, out)
        return 0
    for text in [] if as_json else [*_input_of(job.encoders[0]), *(f"warning: {warning}" for warning in job.found)]:
        common.say(text)
    result = run_job(job, out=out, progress=common.progress(as_json), overwrite=overwrite, extra=extra)
    return _finish(result, out, as_json, fail_above)


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that memloc audit, value or coreset wrote.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; report.html in the folder by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write the HTML report of an audit, of a table's values or of a coreset again."""
    from memloc.report import write_coreset_report, write_report, write_value_report

    writers = {"value.json": write_value_report, "coreset.json": write_coreset_report}
    write = next((writer for name, writer in writers.items() if (folder / name).is_file()), write_report)
    path = write(folder, out)
    common.emit(as_json, {"report": str(path)}, str(path))


def _finish(result: Audit, out: Path, as_json: bool, fail_above: float | None) -> int:
    from memloc.report import summarize, write_report

    path = write_report(out)
    figure, low = next(
        (pair for pair in _GATES if pair[0] in result.layers and result.layers[pair[0]].notna().any()), _GATES[0]
    )
    worst = float(result.layers[low].max()) if low in result.layers else float("nan")
    layers = result.layers[["layer", *(name for name in (figure, low) if name in result.layers)]].to_dict("records")
    answer = summarize(result)["answer"]
    found = {
        "out": str(out),
        "report": str(path),
        "answer": answer,
        "warnings": result.warnings,
        "layers": layers,
        "timings": result.record["timings"],
        "truth": result.record.get("truth"),
    }
    common.emit(as_json, found, "\n".join([*answer, f"report: {path}"]))
    if fail_above is None:
        return 0
    if worst > fail_above:
        common.say(f"gate failed: the lower bound of {figure} reaches {worst:.4f}, above {fail_above}")
        return 3
    return 0


def _from_run(
    folder: Path, external: str | None, max_bad: int, changed: list[str] | None = None
) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
    """Arguments of an audit of a finished training run, its augmentation, and what its record adds.

    Args:
        changed: encoders to audit in f's place, such as what memloc prune made of it.
    """
    from memloc.data import concatenate, open_images
    from memloc.runs import images_of, open_run

    run = open_run(folder)
    record, points = run.record, run.points
    images, given = images_of(run, max_bad=max_bad)
    images = images if given is None else concatenate(images, given)
    splits = points["split"].tolist()
    if external is not None:
        others = open_images(external, size=record["size"], max_bad=max_bad)
        splits += ["external"] * len(others)
        images = concatenate(images, others, namespace="more")
    extra: dict[str, Any] = {"run": str(folder), "training": record["spec"]}
    if (points["repeats"] > 1).any():
        extra["repeats"] = dict(zip(points["point"].tolist(), points["repeats"].tolist(), strict=True))
    arguments: dict[str, Any] = {"images": images, "splits": splits}
    if run.is_ensemble:
        import torch

        seen = torch.zeros(len(run.encoders), len(images), dtype=torch.bool)
        seen[:, : len(points)] = torch.from_numpy(run.membership.iloc[:, 1:].to_numpy(dtype=bool).T.copy())
        arguments |= {"encoders": list(run.encoders.values()), "membership": seen}
    else:
        # a run without an f is one that memloc remove trained, of one encoder by another name
        arguments |= {
            "f": run.side("f") or list(run.encoders.values()),
            "g": (run.side("g") or None) if run.side("f") else None,
            "paired": not record["spec"]["unpaired"],
        }
    if changed is not None:
        foreign = next((each for each in changed if not each.endswith(".safetensors")), None)
        if foreign is not None:
            raise SpecError(
                f"--f {foreign} is given beside the run {str(folder)!r}, which already says which encoders to audit."
                " Expected none, or a checkpoint made from its f, such as pruned/encoder.safetensors. Leave --f out,"
                " or name --data."
            )
        if run.is_ensemble:
            raise SpecError(
                f"--f is given beside {str(folder)!r}, an ensemble, in which every encoder has its own training set."
                " Expected a run of f and g. Leave --f out."
            )
        from memloc.encoders import load_encoder

        arguments["f"] = [load_encoder(each) for each in changed]
        extra["changed"] = changed
    return arguments, record["augmentation"], extra


def _input_of(encoder: Encoder) -> list[str]:
    """How views reach an encoder, for a person to check."""
    given = encoder.preprocess
    steps = [f"size {encoder.size}"] if encoder.size else []
    steps += (
        [
            f"mean {', '.join(f'{value:.4g}' for value in given.mean)}",
            f"std {', '.join(f'{value:.4g}' for value in given.std)}",
        ]
        if given.mean
        else ["no normalization"]
    )
    return [f"{encoder.name}: {'; '.join(steps)}", *([f"{encoder.name}: {encoder.note}"] if encoder.note else [])]


def _from_flags(
    f: list[str],
    g: list[str] | None,
    f_weights: str | None,
    g_weights: str | None,
    parts: dict[str, str | None],
    size: int | None,
    max_bad: int,
    layers: Any,
    loading: dict[str, Any],
) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
    import torch

    from memloc.data import concatenate, open_images
    from memloc.encoders import load_encoder

    def load(name: str, weights: str | None, draw: int, **more: Any) -> Encoder:
        with torch.random.fork_rng(devices=[]):  # random weights are the same in every call, so that it can be repeated
            torch.manual_seed(draw)
            return load_encoder(name, weights=weights, layers=layers, **_where(loading, weights), **more)

    foreign = f[0].partition(":")[0] in ("timm", "torchvision", "hf")
    first = load(f[0], f_weights, 0) if foreign else None
    size = size if size is not None or first is None else first.size
    if not any((f_weights, g_weights)) and any(loading[key] is not None for key in ("state_key", "strip_prefix")):
        raise SpecError(
            "--state-key and --strip-prefix are given without a checkpoint. Expected one. Pass --f-weights FILE."
        )
    images: Images | None = None
    splits: list[str] = []
    for split, where in parts.items():
        if where is not None:
            opened = open_images(where, size=size, max_bad=max_bad)
            splits += [split] * len(opened)
            images = opened if images is None else concatenate(images, opened, namespace=split)
    assert images is not None, "candidates were checked"
    shape = (images.pixels.shape[1], *images.pixels.shape[2:])
    if first is not None:  # its layers, at the size of these images
        first = load_encoder(replace(first, layers=()), layers=layers, shape=shape)
    loaded: dict[str, list[Any]] = {"f": [], "g": []}
    for side, names, weights in (("f", f, f_weights), ("g", g or [], g_weights)):
        if weights is not None and len(names) != 1:
            raise SpecError(
                f"--{side}-weights is given for {len(names)} encoders. Expected one --{side}. Name checkpoints that"
                " memloc wrote instead."
            )
        known = {f[0]: first} if side == "f" and first is not None else {}
        loaded[side] = [
            known.get(name) or load(name, weights, 2 * number + (side == "g"), shape=shape)
            for number, name in enumerate(names)
        ]
    trained_with = loaded["f"][0].augmentation
    return {"f": loaded["f"], "g": loaded["g"] or None, "images": images, "splits": splits}, trained_with, {}


def _where(loading: dict[str, Any], weights: str | None) -> dict[str, Any]:
    """How to load an encoder; where in a checkpoint to look says nothing to one without."""
    from memloc.encoders import RANDOM

    return loading if weights not in (None, RANDOM) else {**loading, "state_key": None, "strip_prefix": None}


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.replace(",", " ").split()]
    except ValueError as problem:
        raise SpecError(
            f"{text!r} is no list of numbers. Expected one per channel. Pass for instance 0.485,0.456,0.406."
        ) from problem
