"""memloc layers, memloc doctor and memloc export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._flags import ENCODERS, Json, Output, StateKey, StripPrefix
from memloc.errors import DataNotFoundError, SpecError, nearest_path

if TYPE_CHECKING:
    from memloc.encoders import Encoder


def layers(
    encoder: Annotated[str, typer.Argument(help=ENCODERS)],
    weights: Annotated[str | None, typer.Option(help="Checkpoint, or random.")] = None,
    state_key: StateKey = None,
    strip_prefix: StripPrefix = None,
    output: Output = "auto",
    head: Annotated[
        str | None,
        typer.Option(help="Weights of the projection head that it was trained with; those that a run keeps are found."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of the images.")] = None,
    channels: Annotated[int, typer.Option(help="Channels of the images, 1 or 3.")] = 3,
    fine: Annotated[
        bool,
        typer.Option("--fine", help="Also before batch-norm, batch-norm, pooling, gates and the insides of blocks."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List what an encoder's audit would read: each layer, where it is read, and the layer that Δ subtracts."""
    from memloc.encoders import load_encoder, with_head, with_kept_head

    shape = None if size is None else (channels, size, size)
    loaded = load_encoder(
        encoder,
        weights=weights,
        layers="fine" if fine else "auto",
        shape=shape,
        state_key=state_key,
        strip_prefix=strip_prefix,
        output=output,
    )
    loaded = with_kept_head(loaded, encoder) if head is None else with_head(loaded, head)
    rows = [
        {
            "layer": row.name,
            "read_at": row.read_at,
            "kind": row.kind,
            "units": row.units,
            "predecessor": row.predecessor,
        }
        for row in loaded.rows
    ]
    width = max(len(row.name) for row in loaded.rows) + 2
    lines = [f"{'layer':{width}}{'read at':{width + 6}}{'kind':20}{'units':>6}  Δ subtracts"]
    lines += [
        f"{row.name:{width}}{row.read_at or '(returned)':{width + 6}}{row.kind:20}{row.units:>6} "
        f" {row.predecessor or '–'}"
        for row in loaded.rows
    ]
    found = {"encoder": loaded.name, **described(loaded), "layers": rows}
    lines += ["", *(f"{key}: {value}" for key, value in described(loaded).items() if value)]
    common.emit(as_json, found, "\n".join(lines).rstrip())


def described(encoder: Encoder) -> dict[str, Any]:
    """What an encoder does with its input, and where its weights were found."""
    return {
        "size": encoder.size,
        "mean": list(encoder.preprocess.mean),
        "std": list(encoder.preprocess.std),
        "channels": "BGR" if encoder.preprocess.flip else "",
        "resized": "" if encoder.fit.is_plain else encoder.fit.in_words(),
        "output": encoder.output,
        "weights": encoder.note,
    }


def convert(
    file: Annotated[Path, typer.Argument(help="A PyTorch checkpoint that holds Python objects beside tensors.")],
    out: Annotated[
        Path | None, typer.Option(help="The .safetensors file to write; beside FILE, by its name, by default.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run the code that the file brings, with your rights: you know who made it."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take the tensors out of a checkpoint that memloc refuses to open, in a process of its own."""
    from memloc.encoders import convert_checkpoint

    out = file.with_suffix(".safetensors") if out is None else out
    count = convert_checkpoint(file, out, trust=trust)
    common.emit(as_json, {"out": str(out), "tensors": count}, f"{count} tensors: {out}")


def doctor(as_json: Json = False) -> int:
    """Check this machine: versions, processor and GPU, optional packages, write access."""
    import os
    import tempfile
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from memloc.encoders import has_bfloat16, pick_device, versions

    device = pick_device("auto")
    found: dict[str, object] = {
        **versions(),
        "device": str(device),
        "bfloat16": has_bfloat16(device),
        "threads": torch.get_num_threads(),
    }
    problems = []
    for name in ("torchvision", "timm", "transformers", "opacus", "lightning", "datasets", "ray", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if found["torchvision"]:
        try:
            import torchvision  # noqa: F401
        except (RuntimeError, ImportError, AttributeError, OSError) as problem:
            problems.append(
                f"torchvision {found['torchvision']} does not match torch {torch.__version__}"
                f" ({str(problem).splitlines()[0]}). memloc itself does not need it; its adapters do. Mend it with: pip"
                " uninstall torchvision, or install the two together from one index, such as pip install torch"
                " torchvision --index-url https://download.pytorch.org/whl/cpu"
            )
    try:
        with tempfile.TemporaryFile() as probe:
            probe.write(b"memloc")
    except OSError as problem:
        problems.append(
            f"the temporary folder cannot be written ({problem}). Expected write access. Set TMPDIR to another folder."
        )
    free = os.statvfs(".").f_bavail * os.statvfs(".").f_frsize / 2**30 if hasattr(os, "statvfs") else float("nan")
    found["free_disk_gib"] = round(free, 1)
    if free < 1:
        problems.append(f"{free:.1f} GiB of disk are free here. Expected at least 1. Free some, or pass another --out.")
    found["problems"] = problems
    lines = [f"{key:15} {'–' if value is None else value}" for key, value in found.items() if key != "problems"]
    common.emit(
        as_json,
        found,
        "\n".join(
            [*lines, *(f"problem: {problem}" for problem in problems), "" if problems else "no problems found"]
        ).rstrip(),
    )
    return 1 if problems else 0


def export(
    folder: Annotated[Path, typer.Argument(help="A folder that memloc audit or memloc value wrote.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
    table: Annotated[
        str | None,
        typer.Option(
            help="Of an audit: issues (cleanlab's convention), points, point_layers, layers or units. Of a table's"
            " values: suspects, checks, cells, rows, labels (cleanlab's convention), or cleaned (suspected cells"
            " emptied, labels replaced; a log of every change beside it)."
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="q-value up to which a point is called memorized in the issues table.")
    ] = 0.05,
    above: Annotated[float, typer.Option(help="Score of suspects above which the cleaned table is changed.")] = 0.5,
    overwrite: Annotated[bool, typer.Option(help="Replace the file, if it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a table that other tools open: issues for cleanlab, CSV or JSONL with path and id, a cleaned table."""
    from memloc.integrations import check_suffix, issues_table, value_export, write_any
    from memloc.results import Audit, check_new

    check_suffix(out)
    if not folder.is_dir():
        raise DataNotFoundError(f"there is no folder {str(folder)!r}.{nearest_path(folder)} Expected one of results.")
    changes = out.with_name(f"{out.stem}.changes.csv")
    cleans = table == "cleaned"
    check_new((out, changes) if cleans else (out,), folder, overwrite=overwrite)
    if (folder / "value.json").is_file():
        frame, log = value_export(folder, table or "suspects", above=above)
        write_any(frame, out, own=cleans)
        if cleans:
            write_any(log, changes)
        found = {"file": str(out), "rows": len(frame), "changes": str(changes) if cleans else None}
        more = f"; {len(log)} cells emptied or relabelled, listed in {changes}" if cleans else ""
        common.emit(as_json, found, f"{out}: {len(frame)} rows{more}")
        return
    audit = Audit.load(folder)
    known = ("issues", "points", "point_layers", "layers", "units")
    table = table or "issues"
    if table not in known:
        from memloc.errors import nearest

        raise SpecError(f"there is no table {table!r}. {nearest(table, known)} Pass --table issues.")
    frame = issues_table(audit, alpha=alpha) if table == "issues" else getattr(audit, table)
    write_any(frame, out)
    common.emit(as_json, {"file": str(out), "rows": len(frame)}, f"{out}: {len(frame)} rows")
