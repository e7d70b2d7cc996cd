"""memloc dejavu: the Déjà Vu baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._options import Given, with_settings
from memloc.probe import DejavuSpec


@with_settings(DejavuSpec, common=("max_bad", "device", "trust", "as_json"))
def dejavu(
    run: Annotated[Path, typer.Argument(help="A folder with a pair that memloc train finished on labelled images.")],
    public: Annotated[str, typer.Option(help="Labelled images that no encoder of the run saw.")],
    settings: Given,
    audit: Annotated[Path | None, typer.Option(help="The audit of the run, to compare Déjà Vu with SSLMem.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this .csv, .jsonl or .parquet file.")] = None,
) -> None:
    """The Déjà Vu baseline: how much better f than g infers a point's label from its corners; and its agreement with
    SSLMem."""
    from memloc.integrations import check_suffix, write_any
    from memloc.probe import dejavu_of_run
    from memloc.results import keep_apart

    if out is not None:
        check_suffix(out)
        keep_apart(out, run, public, audit)
    table, found = dejavu_of_run(
        run,
        public,
        settings.of(DejavuSpec),
        audit=audit,
        max_bad=settings.max_bad,
        device=settings.device,
        trust=settings.trust,
        progress=settings.progress,
    )
    if out is not None:
        write_any(table, out)
    lines = [
        f"candidates: f infers the label from a corner better than g by {found['mean_dejavu']:+.3f} of the"
        f" neighbours; external points: {found['mean_external']:+.3f}",
        f"candidates against external points: AUROC {found['auroc']:.3f} (95 % interval {found['auroc_low']:.3f} to"
        f" {found['auroc_high']:.3f}; .5 is chance)",
    ]
    if audit is not None:
        lines.append(
            f"agreement with SSLMem over {found['candidates']} candidates: Kendall's tau {found['kendall']:+.3f} (p"
            f" {found['kendall_p']:.2g})"
        )
    common.emit(settings.as_json, found, "\n".join([*lines, *([] if out is None else [str(out)])]))
