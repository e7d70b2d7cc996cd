"""memloc audit and memloc report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._flags import ENCODERS, IMAGES, WORK, Json
from memloc.cli._options import Given, with_settings
from memloc.cli._parts import check_part, compute, place_of
from memloc.engine import Options, ViewOptions
from memloc.errors import SpecError

if TYPE_CHECKING:
    from memloc.engine import Job
    from memloc.results import Audit

_SPLITS = ("candidate", "independent", "shared", "external")
_NOT_BESIDE_A_RUN = (
    "g",
    "data",
    "independent",
    "shared",
    "size",
    "mean",
    "std",
    "output",
    "f_weights",
    "g_weights",
    "f_head",
    "g_head",
    "state_key",
    "strip_prefix",
    "earlier",
)


@with_settings(ViewOptions, Options, common=("state_key", "strip_prefix", "output", *IMAGES, "trust", *WORK))
def audit(
    out: Annotated[Path, typer.Option(help="Folder for the tables and the report; an interrupted audit is continued.")],
    settings: Given,
    run: Annotated[
        Path | None, typer.Argument(help="A folder that memloc train finished; or name --f and --data instead.")
    ] = None,
    f: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{ENCODERS.removesuffix('.')}; repeat for more runs. Beside RUN: audited in its f's place, with its"
            " splits."
        ),
    ] = None,
    g: Annotated[list[str] | None, typer.Option(help=f"{ENCODERS.removesuffix('.')}; repeat for more runs.")] = None,
    f_weights: Annotated[
        str | None, typer.Option(help="Checkpoint of --f: .safetensors, or PyTorch with tensors alone; or random.")
    ] = None,
    g_weights: Annotated[str | None, typer.Option(help="Checkpoint of --g.")] = None,
    f_head: Annotated[
        list[str] | None,
        typer.Option(help="Weights of the projection head that --f was trained with; one for each --f."),
    ] = None,
    g_head: Annotated[list[str] | None, typer.Option(help="The same of --g.")] = None,
    earlier: Annotated[
        bool, typer.Option("--earlier", help="--g is an earlier checkpoint of --f, which has seen the candidates too.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Candidates: images that f was trained on and g was not.")] = None,
    independent: Annotated[str | None, typer.Option(help="Images that g was trained on and f was not.")] = None,
    shared: Annotated[str | None, typer.Option(help="Images that both were trained on.")] = None,
    external: Annotated[str | None, typer.Option(help="Images that neither was trained on.")] = None,
    layers: Annotated[list[str] | None, typer.Option(help="auto, fine, or names and globs; repeat for more.")] = None,
    mean: Annotated[str | None, typer.Option(help="Per channel, such as 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Per channel.")] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            help="Exit with 3 if a layer's calibrated LayerMem (else LayerMem above external points, else alignment"
            " gap) surely exceeds this, all layers of the encoder looked at; its head and the training loss do not"
            " count."
        ),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            help="I/N: compute every N-th shard from the I-th on, as one of N jobs that share --out; the last one"
            " merges."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Compute on Ray: local (this machine's cores), auto (the cluster it belongs to) or HOST:PORT."
        ),
    ] = None,
    ray_workers: Annotated[
        int, typer.Option(min=0, help="With --ray: workers; 0: as many as it has cores, or GPUs, for.")
    ] = 0,
    ray_gpus: Annotated[float, typer.Option(min=0, help="With --ray: GPUs of each worker, such as 0.5.")] = 0.0,
    merge: Annotated[
        bool, typer.Option("--merge", help="Compute nothing: merge what jobs with --shards computed.")
    ] = False,
) -> int:
    """Score memorization of every point, layer, unit and class in one pass, and write a report."""
    from memloc.engine import cost_of_part, named_subject, plan_audit, plan_cost
    from memloc.results import keep_apart
    from memloc.workers import Part

    part = None if shards is None else Part.parse(shards)
    place = place_of(ray, settings.flags("ray_workers", "ray_gpus"), workers=ray_workers, gpus=ray_gpus)
    check_part(part, merge, settings.overwrite, fail_above, place)
    chosen: Any = "auto" if not layers else layers[0] if len(layers) == 1 else layers
    sets = (data, independent, shared, external)
    subject = named_subject(
        run,
        f or [],
        g or [],
        sets=dict(zip(_SPLITS, sets, strict=True)),
        beside_run=settings.flags(*_NOT_BESIDE_A_RUN),
        f_weights=f_weights,
        g_weights=g_weights,
        f_head=f_head or [],
        g_head=g_head or [],
        layers=chosen,
        size=settings.size,
        max_bad=settings.max_bad,
        earlier=earlier,
        trust=settings.trust,
        mean=_numbers(mean),
        std=_numbers(std),
        output=settings.output,
        **settings.keys_of,
    )
    job = plan_audit(
        subject,
        settings.of(ViewOptions),
        settings.of(Options),
        given=settings.named,
        layers=chosen,
        device=settings.device,
    )
    if fail_above is not None:
        _check_gate(job)
    keep_apart(out, *subject.inputs)
    if settings.dry_run:
        cost = plan_cost(job)
        if part is not None:
            cost = cost_of_part(cost, job, part)
        common.show_plan(settings.as_json, cost, out)
        return 0
    for text in (
        [] if settings.as_json else [*job.encoders[0].in_words(), *(f"warning: {warning}" for warning in job.found)]
    ):
        common.say(text)
    result = compute(job, subject, part, place, merge=merge, out=out, settings=settings)
    return 0 if result is None else _finish(result, out, settings.as_json, fail_above)


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that memloc audit, value or coreset wrote.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; report.html in the folder by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write the HTML report of an audit, of a table's values or of a coreset again."""
    from memloc.report import write_any_report

    path = write_any_report(folder, out)
    common.emit(as_json, {"report": str(path)}, str(path))


def _check_gate(job: Job) -> None:
    """Raise SpecError where --fail-above would have no figure to look at."""
    from memloc.results import comparable

    needed = comparable(job.mode)
    if not any((job.split == split).any() for split in needed):
        raise SpecError(
            f"--fail-above has no figure to look at: there are no {' or '.join(needed)} points. Expected some, to"
            f" compare candidates with. Pass --{needed[-1]} DATA."
        )


def _finish(result: Audit, out: Path, as_json: bool, fail_above: float | None) -> int:
    """Write the report, say what was found, and return the exit code of the gate."""
    from memloc.report import summarize, write_report
    from memloc.results import HEADLINES, Audit, headline, lower_bounds, of_encoder

    summary = summarize(Audit.load(out), str(out))
    path = write_report(out, summary=summary)
    decides = headline(result.layers) or HEADLINES[0]
    figure, low = decides.figure, decides.low
    worst = float(lower_bounds(of_encoder(result.layers)).max())  # the head stays with the trainer
    columns = ("layer", figure, low, "simultaneous_low", "shows")
    layers = result.layers[[name for name in columns if name in result.layers]].to_dict("records")
    answer = summary["answer"]
    found = {
        "out": str(out),
        "report": str(path),
        "answer": answer,
        "warnings": result.warnings,
        "layers": layers,
        "naming": result.record.get("naming"),
        "coins": result.record.get("coins"),
        "timings": result.record["timings"],
        "truth": result.record.get("truth"),
    }
    common.emit(as_json, found, "\n".join([*answer, f"report: {path}"]))
    if fail_above is None or not worst > fail_above:
        return 0
    common.say(f"gate failed: the lower bound of {figure}, over all layers, reaches {worst:.4f}, above {fail_above}")
    return 3


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.replace(",", " ").split()]
    except ValueError as problem:
        raise SpecError(
            f"{text!r} is no list of numbers. Expected one per channel. Pass for instance 0.485,0.456,0.406."
        ) from problem
