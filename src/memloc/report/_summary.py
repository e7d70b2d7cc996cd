"""Tables to one plain dictionary: everything the report says, decided before any HTML."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pandas as pd

from memloc.report._named import coins_in_words, error_rates, names_in_words, roc
from memloc.report._steps import next_steps, nothing_found
from memloc.report._words import as_number, percent, plain, rounded
from memloc.results import (
    TABLES,
    UNIT_COLUMNS,
    Audit,
    UnitColumn,
    headline,
    leading_row,
    ranking_column,
    shown_in,
)

SPLITS = ("candidate", "shared", "independent", "external")
_POINTS, _UNITS, _UNIT_ROWS, _TOP = 250, 100, 16, 12
_UNITS_OF_POINT = 6
_OF_RECORD = ("schema_version", "seed", "spec_hash", "input", "views", "versions", "timings", "fingerprints", "spec")


def summarize(audit: Audit, folder: str | None = None) -> dict[str, Any]:
    """What the report shows: the answer, next steps, layers, points, units, how to read them, and the record.

    Plain numbers, text and lists; NaN is None. The same tables give the same dictionary.
    """
    layers = audit.layers.sort_values("order")
    leading = leading_row(audit)
    ranked = ranking_column(audit.points)
    band = _band(audit)
    return {
        "title": _title(audit),
        "mode": audit.record.get("mode", "pair"),
        "answer": _answer(audit, layers, leading),
        "leading": str(leading["layer"]),
        "score_name": "score" if ranked == "score" else "SSLMem′",
        "steps": next_steps(audit, folder),
        "truth": audit.record.get("truth"),
        "naming": audit.record.get("naming"),
        "rates": error_rates(audit, str(leading["layer"])),
        "roc": roc(audit),
        "coins": coins_in_words(audit),
        "warnings": audit.warnings,
        "counts": {
            split: int((audit.points["split"] == split).sum())
            for split in SPLITS
            if (audit.points["split"] == split).any()
        },
        "has_scores": bool(audit.points[ranked].notna().any()),
        "has_reference": bool(layers["layermem"].notna().any()),
        "has_calibrated": bool(layers["layermem_calibrated"].notna().any()),
        "layers": [plain(row) for row in layers.to_dict("records")],
        "band": band,
        "points": _points(audit),
        "points_total": len(audit.points),
        "layer_points": _layer_points(audit),
        "units": _units(audit),
        "point_units": _point_units(audit),
        "thumbnails": {
            str(point): base64.b64encode(png).decode()
            for point, png in zip(audit.thumbnails["point"], audit.thumbnails["png"], strict=True)
        },
        "series": audit.record.get("series"),
        "class_names": list(audit.record.get("class_names", [])),
        "unit_columns": [{"heading": column.heading, "tooltip": column.tooltip} for column in unit_columns(audit)],
        "tooltips": {
            column.name: column.tooltip for table in ("layers", "points", "units") for column in TABLES[table]
        },
        "record": {key: audit.record.get(key) for key in _OF_RECORD},
    }


def _title(audit: Audit) -> str:
    encoders = len((audit.record.get("spec") or {}).get("encoders") or [])
    ensemble = audit.record.get("mode") == "ensemble"
    what = f"{encoders} encoders" if ensemble else f"encoder {audit.record.get('encoder', '')}"
    return f"No memorization found in {what}" if nothing_found(audit) else f"What {what} memorized"


def _answer(audit: Audit, layers: pd.DataFrame, leading: pd.Series) -> list[str]:
    """The answer: do candidates stand out, in which layers, and which points are named."""
    return [_standing_out(audit, layers, leading), _where(layers), names_in_words(audit)]


def _standing_out(audit: Audit, layers: pd.DataFrame, last: pd.Series) -> str:
    mode = audit.record.get("mode")
    # of points that had no say in which reading leads; memloc 0.1 knew one alone
    reading = audit.record.get("reading") or last
    value, low, high = (as_number(reading.get(name)) for name in ("auroc", "auroc_low", "auroc_high"))
    if math.isnan(value):
        return (
            "There are no points that the encoder never saw to compare its training points with, so nothing can be said"
            " about how far they stand out."
        )
    what = {
        "pair": "a candidate scores above a point that neither encoder saw",
        "alone": "a training point is aligned better than an external point",
        "ensemble": "an encoder aligns a point better when it was trained on it",
    }[str(mode)]
    text = (
        f"{_at(last)} {what} in {percent(value)} of comparisons (95 % interval {percent(low)} to {percent(high)};"
        f" chance is 50 %{_beside(layers, last)})"
    )
    if low <= 0.5:
        return f"{text}, which is no better than chance on these points."
    excess = as_number(last["excess_low"])
    if math.isnan(excess):
        return f"{text}."
    return (
        f"{text}; at least {percent(excess)} of them stand out."
        if excess > 0
        else f"{text}; too little to say that any given share of them stands out."
    )


def _at(row: pd.Series) -> str:
    """Where a row is read, as a sentence begins with it."""
    if row["kind"] == "head":
        return f"At the head that the encoder was trained with ({row['layer']})"
    if row["kind"] == "loss":
        return f"By the training {row['layer']}"
    return "At the encoder's output" if row["kind"] == "output" else f"At {row['layer']}"


def _beside(layers: pd.DataFrame, leading: pd.Series) -> str:
    """What the encoder's output says, where another row leads."""
    output = layers[layers["kind"] == "output"]
    if leading["kind"] == "output" or output.empty or math.isnan(as_number(output.iloc[0]["auroc"])):
        return ""
    return f"; at the encoder's output {percent(as_number(output.iloc[0]['auroc']))}"


def _where(layers: pd.DataFrame) -> str:
    found = headline(layers)
    if found is None:
        return (
            "Without independent or external points the layers cannot be compared with anything; UnitMem below shows"
            " how units respond to single points."
        )
    figure, low, high, name = found.figure, found.low, found.high, found.name
    shows = shown_in(layers)
    clear = layers[shows]
    if clear.empty:
        among = f", once all {len(layers)} are looked at" if len(layers) > 1 else ""
        return f"In no layer is the {name} distinguishable from 0{among}."
    peak = clear.loc[clear[figure].idxmax()]
    rest = layers.loc[~shows & layers[figure].notna(), "layer"].tolist()
    figures = f"({name} {peak[figure]:.3f}, 95 % interval {peak[low]:.3f} to {peak[high]:.3f})"
    where = f"{_listed(clear['layer'].tolist())}, most in {peak['layer']}" if len(clear) > 1 else peak["layer"]
    text = f"Memorization shows in {where} {figures}"
    return f"{text}; {_listed(rest)} cannot be told from 0." if rest else f"{text}."


def _band(audit: Audit) -> dict[str, dict[str, float | None]]:
    """The external points' 5-95 % band of the score, per layer."""
    column = ranking_column(audit.point_layers)
    external = set(audit.points.loc[audit.points["split"] == "external", "point"])
    rows = audit.point_layers[audit.point_layers["point"].isin(external)].dropna(subset=[column])
    bands = rows.groupby("layer", sort=False)[column].quantile([0.05, 0.95]).unstack()
    return (
        {
            str(layer): {"low": rounded(values[0.05]), "high": rounded(values[0.95])}
            for layer, values in bands.iterrows()
        }
        if len(rows)
        else {}
    )


def _points(audit: Audit) -> list[dict[str, Any]]:
    """Candidates from the most memorized down, the middle left out where there are too many, and what the table shows
    of each."""
    column = ranking_column(audit.points)
    table = audit.points[audit.points["split"] == "candidate"]
    named = table["named"] if "named" in table else pd.Series(False, index=table.index)
    first = table["evidence"].where(named) if named.any() else pd.Series(float("nan"), index=table.index)
    table = table.assign(first=first).sort_values(["first", column, "point"], ascending=[False, False, True])
    table = table.assign(rank=np.arange(1, len(table) + 1))
    if len(table) > 2 * _POINTS:
        table = pd.concat([table.head(_POINTS), table.tail(_POINTS)])
    names = audit.record.get("class_names", [])
    rows = []
    for row in table.to_dict("records"):
        shown = {"score": column, "low": f"{column}_low", "high": f"{column}_high", "sslmem": "sslmem"}
        kept = {key: rounded(row.get(name)) for key, name in {**shown, "q_value": "q_value"}.items() if name in row}
        label = row.get("label", -1)
        rows.append(
            {
                "point": str(row["point"]),
                "rank": int(row["rank"]),
                "name": row["name"],
                "n_units": int(row["n_units"]),
                "label": names[int(label)] if 0 <= label < len(names) else "",
                "planted": int(row.get("repeats", 1) or 1) > 1,
                "named": bool(row.get("named", False)),
                **kept,
            }
        )
    return rows


def _layer_points(audit: Audit) -> dict[str, list[dict[str, Any]]]:
    """Per layer, the candidates it memorizes most."""
    candidates = audit.points[audit.points["split"] == "candidate"].set_index("point")["name"]
    column = ranking_column(audit.point_layers)
    table = audit.point_layers[audit.point_layers["point"].isin(candidates.index)].dropna(subset=[column])
    table = table.sort_values([column, "point"], ascending=[False, True])
    return {
        str(layer): [
            {"point": str(row["point"]), "name": candidates[row["point"]], "score": rounded(row[column])}
            for row in rows.head(_TOP).to_dict("records")
        ]
        for layer, rows in table.groupby("layer", sort=False)
    }


def _units(audit: Audit) -> dict[str, dict[str, Any]]:
    """Per layer: quantiles of UnitMem and of its control, an even sample for the scatter, and the units of highest
    UnitMem."""
    names = audit.points.set_index("point")["name"]
    labels = list(audit.record.get("class_names", []))
    found = {}
    for layer, table in audit.units.groupby("layer", sort=False):
        value = table["unitmem"].dropna()
        ordered = table.sort_values(["unitmem", "unit"], ascending=[False, True])
        sample = ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, min(_UNITS, len(ordered))).astype(int))]
        rows = [
            {
                "unit": int(row["unit"]),
                "point": str(row["point"]),
                "name": names.get(row["point"], ""),
                "figures": [_unit_figure(column.name, row.get(column.name), labels) for column in unit_columns(audit)],
            }
            for row in ordered.head(_UNIT_ROWS).to_dict("records")
        ]
        found[str(layer)] = {
            "count": len(table),
            "quantiles": (
                [rounded(part) for part in value.quantile([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])] if len(value) else []
            ),
            "external": rounded(table["unitmem_external"].median()) if "unitmem_external" in table else None,
            "scatter": (
                [
                    [rounded(row["unitmem"]), rounded(row["classmem"]), int(row["unit"])]
                    for row in sample.to_dict("records")
                ]
                if "classmem" in table
                else []
            ),
            "top": rows,
        }
    return found


def unit_columns(audit: Audit) -> list[UnitColumn]:
    """The columns that the report's table of units shows, of those that the audit has."""
    return [column for column in UNIT_COLUMNS if column.heading and column.name in audit.units]


def _unit_figure(column: str, value: Any, labels: list[str]) -> float | str | None:
    """A unit's figure, or the name of the class it answers to."""
    if column != "class":
        return rounded(value)
    number = as_number(value)
    return labels[int(number)] if 0 <= number < len(labels) else ""


def _point_units(audit: Audit) -> dict[str, list[list[Any]]]:
    """Per point that drives units: the layer, number and UnitMem of those it drives most strongly."""
    table = audit.units.dropna(subset=["unitmem"]).sort_values(["unitmem", "unit"], ascending=[False, True])
    return {
        str(point): [
            [row["layer"], int(row["unit"]), rounded(row["unitmem"])]
            for row in rows.head(_UNITS_OF_POINT).to_dict("records")
        ]
        for point, rows in table.groupby("point")
    }


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 8 else [*names[:3], f"{len(names) - 5} more", *names[-2:]]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
