"""What the report says of its next steps: the words of findings.json."""

from __future__ import annotations

import json
from typing import Any

from . import readings
from ._table import RefusedError

# by step: what is published, and how the findings begin that are told; each must be there, or the committed text stays
_TOLD: dict[str, tuple[str, tuple[str, ...]]] = {
    "finetune": ("the layer of highest Δ transfers best (LocMem Table 5)", ("Fine-tuning the layer",)),
    "prune": ("units of top UnitMem cost most accuracy (LocMem Table 6)", ("Pruning the 10%",)),
    "remove": ("the most memorized points cost most accuracy (SSLMem §4.4)", ("Training without",)),
    "points": ("69 to 90 % overlap between seeds (LocMem Table 28)", ("Other training runs", "Overlap of the most")),
    "runs": ("69 to 90 % overlap between seeds (LocMem Table 28)", ("Other training runs",)),
    "limit": (
        "stronger augmentation, weight decay and the penalty each lower it (LocMem Figs. 4, 11; SSLMem Eq. 3)",
        ("Stronger augmentation", "The alignment penalty"),
    ),
    "privacy": (
        "UnitMem falls from no privacy to ε = 20 to ε = 8 (LocMem Fig. 4)",
        ("Differential privacy lowers UnitMem (all layers; MAE on Fashion-MNIST, no privacy less ε = 20",),
    ),
    "views": ("", ()),
    "reference": ("", ()),
    "head": ("", ()),
    "nothing": (
        "memorization rises with depth (LocMem Table 1)",
        ("Memorization rises with depth", "The same, calibrated, of pairs"),
    ),
}
_REFERENCE = (
    "docs/findings.md: without a calibrated reference LayerMem of unseen images was as high as that of trained ones."
)
_COUNTS = (4, 16, 64)


def page(now: str, found: dict[str, Any], measured: dict[str, Any], read: dict[str, Any]) -> tuple[str, list[str]]:
    """evidence.json, and the steps whose committed text stays because a finding is missing."""
    try:
        committed = json.loads(now) if now else {}
    except ValueError as reason:
        raise RefusedError(
            f"it is damaged ({reason}). Expected JSON. Restore it: git checkout src/memloc/report/evidence.json"
        ) from None
    kept, texts = [], {}
    rows = found.get("rows") or []
    for step, (published, starts) in _TOLD.items():
        without = {
            "reference": lambda: _REFERENCE,
            "views": lambda: views(measured),
            "head": lambda: readings.told(read),
        }
        text = told(rows, starts) if starts else without[step]()
        if text is None and step in committed:
            kept.append(f"step {step}")
        texts[step] = (
            text or committed.get(step) or f"published: {published}. Not measured here yet (docs/findings.md)."
        )
    kept += [f"step {step}" for step in committed if step not in _TOLD]
    texts |= {step: text for step, text in committed.items() if step not in texts}
    return json.dumps(texts, indent=1, ensure_ascii=False) + "\n", kept


def told(rows: list[dict[str, str]], starts: tuple[str, ...]) -> str | None:
    """The findings that begin so, in their own words; None if one is missing."""
    if not all(any(row["finding"].startswith(start) for row in rows) for start in starts):
        return None
    chosen = [row for row in rows if row["finding"].startswith(starts)]
    lines = (f"{row['finding']}: {row['ours']} ({row['verdict']})." for row in chosen)
    return " ".join(["docs/findings.md, small encoders.", *lines])


def views(measured: dict[str, Any]) -> str | None:
    """How reliable a point's score was by the number of views, on the demo's data."""
    known = {
        row["views"]: f"{row['reliability']:.2f}".lstrip("0") for row in measured.get("demo") or []
        if (row["sampling"], row["estimator"], row["layer"]) == ("sobol", "ratio", "output")
    }  # fmt: skip
    if not all(count in known for count in _COUNTS):
        return None
    one, two, three = (known[count] for count in _COUNTS)
    return (
        "docs/reliability.md: at 4, 16 and 64 Sobol views the reliability of a point's score was "
        f"{one}, {two} and {three} on the demo's data."
    )
