"""An audit statement for a release: what was audited and how, what shows and what does not, what was not looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memloc.report._named import coins_in_words, error_rates, names_in_words
from memloc.report._page import page, write_page
from memloc.report._summary import summarize
from memloc.report._words import plain
from memloc.results import Audit, check_new, headline, listed_files, replacing

_NOT_LOOKED_AT = (
    "Attacks on the model in use: reconstruction of training images, inversion, inference of attributes, queries that a"
    " deployed service answers.",
    "Persons: a point is an image. Several images of one person are several points here.",
    "Other models made from this one: fine-tuned, distilled, quantized or pruned.",
    "Whether the model is anonymous, or its training lawful: measurements are given, and no legal conclusion is drawn.",
)
_FEW, _MANY = 100, 1000  # points that no encoder saw: for false alarms of one in a hundred, and in a thousand


def statement(folder: str | Path) -> dict[str, Any]:
    """What a release may say of an audit, as plain numbers, text and lists; NaN is None.

    It documents what EDPB Opinion 28/2024 names among what supervisory authorities look at, tests of membership
    inference and of what a model memorized, with their error rates and their limits. It claims no compliance.

    Args:
        folder: what `memloc audit` wrote.
    Returns:
        audited, answer, inference (AUROC, and true-positive rates at fixed false-positive rates), layers, points,
        epsilon, assumptions (each with `met`: true, false, or null where it cannot be told), not_looked_at, files (with
        checksums), versions.
    Raises:
        DataNotFoundError, ResultsError: no finished audit there.
    """
    folder = Path(folder)
    audit = Audit.load(folder)
    summary, record = summarize(audit, str(folder)), audit.record
    decides = headline(audit.layers)
    columns = ["layer", *([] if decides is None else [decides.figure, decides.low, decides.high])]
    columns += [name for name in ("simultaneous_low", "shows") if name in audit.layers]
    points = audit.points
    named = points.loc[points["named"].fillna(False).astype(bool), "name"].tolist() if "named" in points else []
    naming = record.get("naming") or {}
    return {
        "title": f"Audit statement: {_what(record)}",
        "audited": {
            "encoder": record.get("encoder"),
            "weights": [one for one in record.get("weights") or [] if one],
            "compared with": record.get("reference"),
            "how": record.get("mode"),
            "checksums of encoders and images": record.get("fingerprints"),
            "points": summary["counts"],
            "views": (record.get("spec") or {}).get("views"),
        },
        "answer": summary["answer"],
        "inference": error_rates(audit, summary["leading"]),
        "layers": {
            "figure": None if decides is None else decides.name,
            "rows": [plain(row) for row in audit.layers.sort_values("order")[columns].to_dict("records")],
        },
        "points": {
            "text": names_in_words(audit),
            "named": named,
            "candidates": naming.get("candidates"),
            "decoys": naming.get("decoys"),
            "decoys named": naming.get("decoys_named"),
        },
        "epsilon": coins_in_words(audit),
        "assumptions": _assumptions(audit),
        "warnings": audit.warnings,
        "not_looked_at": list(_NOT_LOOKED_AT),
        "files": listed_files(folder) or {},
        "versions": record.get("versions"),
    }


def _what(record: dict[str, Any]) -> str:
    encoders = len((record.get("spec") or {}).get("encoders") or [])
    return f"{encoders} encoders" if record.get("mode") == "ensemble" else f"encoder {record.get('encoder', '')}"


def _assumptions(audit: Audit) -> list[dict[str, Any]]:
    """What the figures rest on, and whether it holds as far as the audit can see."""
    points, record = audit.points, audit.record
    unseen = points[points["split"] == "external"]
    origin = unseen.get("origin")
    by_design = origin is not None and len(unseen) > 0 and bool((origin == "held-out").all())
    guard = ((record.get("naming") or {}).get("guard")) or {}
    alike: bool | None = True if by_design else guard.get("alike")
    if by_design:
        why = "they were drawn from the same images at random, and held out of every training"
    elif not len(unseen):
        why, alike = "there are none", False
    else:
        why = guard.get("text") or "they were given, and whether they are alike was not tested"
    decoys = int(unseen["decoy"].fillna(False).astype(bool).sum()) if "decoy" in unseen else 0
    compared = len(unseen) - decoys
    reference = bool(audit.layers["layermem_calibrated"].notna().any())
    found = [
        ("Points that no encoder saw are alike the candidates but for not having been trained on", alike, why),
        (
            "There are points enough that no encoder saw to speak of rare false alarms",
            compared >= _FEW,
            f"{compared}, beside {decoys} decoys; {_FEW} are needed for a rate of 1 %, {_MANY} for 0.1 %",
        ),
        (
            "A reference that saw no candidate tells memorization from what encoders differ in",
            reference,
            "there is one" if reference else "there is none; readings are compared with points that were never seen",
        ),
        (
            "Views are those of the training",
            None,
            "only who trained the encoder can tell; the views that were drawn are stated above",
        ),
    ]
    return [{"text": text, "met": met, "because": because} for text, met, because in found]


def write_statement(folder: str | Path, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write `statement` of a folder as .html, and as .json beside it.

    Raises:
        DataNotFoundError, ResultsError: no finished audit there. SpecError: no name of a page. OutputError: a file
            that is there and may not be replaced, or cannot be written.
    """
    check_new((Path(path), Path(path).with_suffix(".json")), Path(folder), overwrite=overwrite)
    found = statement(folder)
    written = write_page(path, lambda: page("statement.html", "tables.js", **found), folder=folder)
    with replacing(written.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return written
