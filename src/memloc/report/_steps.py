"""What to do with what an audit found: each step with its command, why, and what it did where it was measured."""

from __future__ import annotations

import json
import shlex
from functools import lru_cache
from importlib.resources import files
from typing import Any

import pandas as pd

from memloc.report._words import as_number
from memloc.results import Audit, headline, leading_row, of_encoder, shown_in

_WEIGHTED = ("convolution", "linear", "patch embedding", "attention", "fully-connected")
_LAYERS = 2
STEADY_VIEWS = 0.8  # reliability over views, below which other views would order points otherwise


def nothing_found(audit: Audit) -> bool:
    """Whether points could be compared with others, and nothing shows: in no layer, by no reading, and of no point."""
    naming = audit.record.get("naming")
    if naming is None or naming["reason"] is not None or headline(audit.layers) is None:
        return False
    known = as_number((audit.record.get("reading") or {}).get("auroc_low"))
    judged = known == known and audit.layers["simultaneous_low"].notna().any()
    return judged and not naming["named"] and not known > 0.5 and not shown_in(audit.layers).any()


def next_steps(audit: Audit, folder: str | None = None) -> list[dict[str, str]]:
    """Recommended next steps: title, why, command, evidence (what the step did in the runs of docs/findings.md).

    Args:
        folder: where the audit lies, for the commands; AUDIT by default. Words in capitals stand for what the reader
            has.
    """
    layers = audit.layers.sort_values("order")
    last, record = leading_row(audit), audit.record
    place = shlex.quote(folder or "AUDIT")
    clear = layers[shown_in(layers)]
    alone = record.get("mode") == "alone"
    steps = [
        *_with_readings(record, layers),
        *_with_points(audit, place, shown=len(clear) > 0),
        *_to_say_more(record, last, place, alone),
        *(_with_layers(record, layers, clear, alone) if len(clear) else []),
    ]
    units = _with_units(record, of_encoder(layers), place)
    named = (record.get("naming") or {}).get("named")
    if not steps or (not len(clear) and not units and not named):
        nothing = _step(
            "There is nothing to act on yet",
            f"No layer's figure is surely above 0 once all {len(layers)} are looked at. That is no proof of absence:"
            " more runs see smaller effects.",
            f"memloc train DATA --external UNSEEN --ensemble 8{_length(record)} --out RUN8 && memloc audit RUN8 --out"
            " RUN8-audit",
            "nothing",
        )
        return [*steps, *units, nothing]
    return [*steps, *units]


def _step(title: str, why: str, command: str, key: str) -> dict[str, str]:
    return {"title": title, "why": why, "command": command, "evidence": evidence()[key]}


def _with_readings(record: dict[str, Any], layers: pd.DataFrame) -> list[dict[str, str]]:
    """What a head would add, where none was read and the objective may have one."""
    known = (record.get("training") or {}).get("objective")
    if (layers["kind"] == "head").any() or known == "mae":
        return []
    again = (
        f"memloc audit {shlex.quote(str(record['run']))} --out AUDIT2"
        if record.get("run")
        else "memloc audit --f F --f-head HEAD --g G --g-head HEAD2 --data DATA --external UNSEEN --out AUDIT2"
    )
    return [
        _step(
            "Read the head that the encoder was trained with",
            "Its projection head is where trained points stand out most; this audit read none. Keep it, or find it in"
            " the training's checkpoint.",
            again,
            "head",
        )
    ]


def _to_say_more(record: dict[str, Any], last: pd.Series, place: str, alone: bool) -> list[dict[str, str]]:
    """What would say more of points: a reference, more views, more runs, more points to compare with."""
    steps = []
    views, runs = as_number(last.get("reliability_views")), as_number(last.get("reliability_runs"))
    if alone or record.get("reference") == "earlier checkpoint":
        steps.append(
            _step(
                "Train a reference encoder to see where it sits",
                "An encoder that never saw the points gives the calibrated figure of every layer, and free of how hard"
                " a point is.",
                f"memloc train DATA --external UNSEEN{_length(record)} --out RUN && memloc audit RUN --out RUN-audit",
                "reference",
            )
        )
    elif views < STEADY_VIEWS:
        steps.append(
            _step(
                "Draw more views",
                f"Scores of points would come out in another order with other views (reliability {views:.2f}).",
                f"{_again(record)} --views auto --out {place}-more-views",
                "views",
            )
        )
    if record.get("mode") == "pair" and runs != runs:
        steps.append(
            _step(
                "Train more runs to tell points from chance",
                "One run a side cannot tell what belongs to a point from what belongs to that run.",
                f"memloc train DATA --external UNSEEN --ensemble 8{_length(record)} --out RUN8 && memloc audit RUN8"
                " --out RUN8-audit",
                "runs",
            )
        )
    naming = record.get("naming") or {}
    if naming.get("needs") and not naming.get("named"):
        steps.append(
            _step(
                "Hold out more points to name some",
                f"About {naming['needs']} points that no encoder saw would name some, were they separated as here;"
                f" {naming['unseen']} are there.",
                f"memloc train DATA --external MORE-UNSEEN{_length(record)} --out RUN2 && memloc audit RUN2 --out"
                " RUN2-audit",
                "reference",
            )
        )
    return steps


def _with_points(audit: Audit, place: str, *, shown: bool) -> list[dict[str, str]]:
    """What to do with points that are named; or not to do with others, where memorization shows."""
    record = audit.record
    naming = record.get("naming") or {}
    if record.get("reference") == "earlier checkpoint" or not naming:
        return []
    named = int(naming["named"])
    if not named and not shown:
        return []
    if not named:
        return [
            _step(
                "Do not remove or review points by their score",
                "None is named, so the order of the points is exploratory; what can be compared are layers, and"
                " encoders.",
                f"memloc compare {place} ANOTHER-AUDIT",
                "points",
            )
        ]
    steps = [
        _step(
            f"Review the {named} named points" if named > 1 else "Review the named point",
            f"On average at most {naming['expected_false']:.1f} of them are named falsely.",
            f"memloc export {place} --table points --out points.csv",
            "points",
        )
    ]
    if record.get("run"):
        steps.append(
            _step(
                "See what the encoder is worth without them",
                "Removing points costs accuracy where they are needed; compare with as many random ones (--order"
                " random).",
                f"memloc remove {shlex.quote(str(record['run']))} --audit {place} --count"
                f" {named} --order most --train LABELLED --test HELD-OUT --out without",
                "remove",
            )
        )
    return steps


def _with_layers(
    record: dict[str, Any], layers: pd.DataFrame, clear: pd.DataFrame, alone: bool
) -> list[dict[str, str]]:
    """What to do where memorization is clear in some layers."""
    steps = []
    chosen = [] if alone else _to_tune(clear)
    if chosen:
        flags = " ".join(f"--layers {shlex.quote(name)}" for name in chosen)
        steps.append(
            _step(
                f"For another task, try to fine-tune {' and '.join(chosen)}",
                "Of the layers in which memorization is clear these add most (highest Δ). The papers found that they"
                " depend most on the old data; compare with --head-only.",
                f"memloc finetune {_encoder_of(record)} {flags} --train LABELLED --test HELD-OUT --out tuned",
                "finetune",
            )
        )
    return [
        *steps,
        _step(
            "To lower it, train with a penalty or stronger augmentation, and audit again",
            f"Trained points can be told from others in {len(clear)} of {len(layers)} layers.",
            f"memloc train DATA --policy strong --alignment-penalty 1{_length(record)} --out RUN2 && memloc audit RUN2"
            " --out RUN2-audit",
            "limit",
        ),
        _step(
            "For a guarantee, train with differential privacy",
            "A bound on what any single point can change, at a cost in accuracy; for MAE alone, whose loss is a sum"
            " over points.",
            "memloc train DATA --objective mae --dp-epsilon 8 --out PRIVATE",
            "privacy",
        ),
    ]


def _with_units(record: dict[str, Any], layers: pd.DataFrame, place: str) -> list[dict[str, str]]:
    """What to do where units answer to trained images more often than to unseen ones."""
    share = layers["member_share_low"] if "member_share_low" in layers else pd.Series(dtype=float)
    at = layers.loc[pd.to_numeric(share, errors="coerce").reindex(layers.index) > 0.5, "layer"].tolist()
    if not at:
        return []
    return [
        _step(
            "See what the units of highest UnitMem are worth",
            f"In {', '.join(at[:4])}{' and others' if len(at) > 4 else ''} units answer to trained images more often"
            " than to unseen ones.",
            f"memloc prune {_encoder_of(record)} --audit {place} --fraction 0.1 --order top --train LABELLED --test"
            " HELD-OUT --out pruned",
            "prune",
        )
    ]


@lru_cache
def evidence() -> dict[str, str]:
    """What was measured of each step, in words; `make docs` renders it from benchmarks/findings.json."""
    return json.loads(files("memloc.report").joinpath("evidence.json").read_text())


def _to_tune(clear: pd.DataFrame) -> list[str]:
    """The layers with weights that add most."""
    table = clear[clear["kind"].isin(_WEIGHTED)]
    figure = next((name for name in ("delta_calibrated", "delta") if name in table and table[name].notna().any()), None)
    if figure is None:
        return []
    best = table[table[figure] > 0].sort_values(figure, ascending=False).head(_LAYERS)
    return best.sort_values("order")["layer"].tolist()


def _encoder_of(record: dict[str, Any]) -> str:
    """The checkpoint of a run's first encoder as a command takes it, else what the reader calls it."""
    if not record.get("run"):
        return "ENCODER"
    path = f"{record['run']}/encoders/{record.get('encoder') or 'f'}.safetensors"
    architecture = str((record.get("training") or {}).get("encoder", ""))
    return f"{shlex.quote(architecture)} --weights {shlex.quote(path)}" if ".py:" in architecture else shlex.quote(path)


def _length(record: dict[str, Any]) -> str:
    """Flags that make another training as long as this one, where that is known."""
    training = record.get("training") or {}
    flags = {"--epochs": training.get("epochs"), "--batch-size": training.get("batch_size")}
    return "".join(f" {flag} {value}" for flag, value in flags.items() if value)


def _again(record: dict[str, Any]) -> str:
    """The command that audits the same again, but for its last flags."""
    return (
        f"memloc audit {shlex.quote(str(record['run']))}"
        if record.get("run")
        else "memloc audit --f F --g G --data DATA --external UNSEEN"
    )
