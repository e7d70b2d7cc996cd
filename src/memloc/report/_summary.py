"""Tables to one plain dictionary: everything the report says, decided before any HTML."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pandas as pd

from memloc.report._steps import as_number, next_steps, nothing_found
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
_ROC = 200  # points of a curve


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
        "rates": _rates(audit, str(leading["layer"])),
        "roc": _roc(audit),
        "coins": _coins(audit),
        "warnings": audit.warnings,
        "counts": {
            split: int((audit.points["split"] == split).sum())
            for split in SPLITS
            if (audit.points["split"] == split).any()
        },
        "has_scores": bool(audit.points[ranked].notna().any()),
        "has_reference": bool(layers["layermem"].notna().any()),
        "has_calibrated": bool(layers["layermem_calibrated"].notna().any()),
        "layers": [_plain(row) for row in layers.to_dict("records")],
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
        "record": {
            key: audit.record.get(key)
            for key in ("schema_version", "seed", "spec_hash", "views", "versions", "timings", "fingerprints", "spec")
        },
    }


def _title(audit: Audit) -> str:
    encoders = len((audit.record.get("spec") or {}).get("encoders") or [])
    ensemble = audit.record.get("mode") == "ensemble"
    what = f"{encoders} encoders" if ensemble else f"encoder {audit.record.get('encoder', '')}"
    return f"No memorization found in {what}" if nothing_found(audit) else f"What {what} memorized"


def _answer(audit: Audit, layers: pd.DataFrame, leading: pd.Series) -> list[str]:
    """The answer: do candidates stand out, in which layers, and which points are named."""
    return [_standing_out(audit, layers, leading), _where(layers), _named(audit)]


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
        f"{_at(last)} {what} in {_percent(value)} of comparisons (95 % interval {_percent(low)} to {_percent(high)};"
        f" chance is 50 %{_beside(layers, last)})"
    )
    if low <= 0.5:
        return f"{text}, which is no better than chance on these points."
    excess = as_number(last["excess_low"])
    if math.isnan(excess):
        return f"{text}."
    return (
        f"{text}; at least {_percent(excess)} of them stand out."
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
    return f"; at the encoder's output {_percent(as_number(output.iloc[0]['auroc']))}"


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


def _named(audit: Audit) -> str:
    """How many points are named, how many of them falsely, and whether they are of the point or of the training run."""
    if audit.record.get("reference") == "earlier checkpoint":
        return (
            "The reference is an earlier checkpoint of the same training, so scores tell what was learned since, not"
            " what was memorized in all; name no points by them. Train a reference without the candidates to see that"
            " (memloc train)."
        )
    naming = audit.record.get("naming")
    if naming is None:
        return "This folder was written by an earlier memloc, which named no points: audit again to see which are."
    if naming["reason"] is not None:
        return f"No single point is named: {naming['reason']}."
    decoys = naming["decoys"]
    falsely = f"; of {decoys} held-out decoys {naming['decoys_named']} would be named, too" if decoys else ""
    if naming["named"]:
        return (
            f"{naming['named']} of {naming['candidates']} candidates are named as memorized (q < .05: at most"
            f" {naming['expected_false']:.1f} of them falsely, on average{falsely}). {_of_run(audit)}"
        )
    return f"None of {naming['candidates']} candidates is named (q < .05{falsely}). {_power(naming)}"


def _power(naming: dict[str, Any]) -> str:
    """What would name a point, where none is."""
    if not naming.get("separates"):
        return "Nothing here tells trained points from others, one by one."
    if naming.get("needs"):
        return (
            f"Were they separated as they are here, about {naming['needs']} points that no encoder saw would name some"
            f" (there are {naming['calibration']}): hold out more (memloc train --held-out) or pass more (--external)."
        )
    return "More points to compare with would hardly help; more encoders may (memloc train --ensemble 8)."


def _of_run(audit: Audit) -> str:
    """Whether another training would memorize the same points, where that can be told."""
    parts = audit.record.get("components")
    if parts is None:
        return (
            "They are what this training memorized; whether another would memorize the same is not known with one"
            " training a side (memloc train --ensemble 8)."
        )
    share = _percent(as_number(parts["share"]))
    interval = f"{_percent(as_number(parts['share_low']))} to {_percent(as_number(parts['share_high']))}"
    if as_number(parts["point_low"]) > 0 and as_number(parts["share_low"]) > 0.5:
        return f"Another training would memorize mostly the same ones ({share} of what differs, 95 % {interval})."
    if as_number(parts["run_low"]) > 0 and as_number(parts["share_high"]) < 0.5:
        return (
            f"Another training would memorize mostly other ones: {share} of what differs between points belongs to the"
            f" point (95 % {interval}), the rest to the training."
        )
    return "Whether another training would memorize the same ones cannot be told here."


def _band(audit: Audit) -> dict[str, dict[str, float | None]]:
    """The external points' 5-95 % band of the score, per layer."""
    column = ranking_column(audit.point_layers)
    external = set(audit.points.loc[audit.points["split"] == "external", "point"])
    rows = audit.point_layers[audit.point_layers["point"].isin(external)].dropna(subset=[column])
    bands = rows.groupby("layer", sort=False)[column].quantile([0.05, 0.95]).unstack()
    return (
        {str(layer): {"low": _round(values[0.05]), "high": _round(values[0.95])} for layer, values in bands.iterrows()}
        if len(rows)
        else {}
    )


def _points(audit: Audit) -> list[dict[str, Any]]:
    """Candidates from the most memorized down, the middle left out where there are too many, and what the table shows
    of each."""
    column = ranking_column(audit.points)
    table = audit.points[audit.points["split"] == "candidate"]
    first = ["named", "evidence"] if audit.points.get("named", pd.Series(dtype=bool)).any() else []
    table = table.sort_values([*first, column, "point"], ascending=[*(False for _ in first), False, True])
    table = table.assign(rank=np.arange(1, len(table) + 1))
    if len(table) > 2 * _POINTS:
        table = pd.concat([table.head(_POINTS), table.tail(_POINTS)])
    names = audit.record.get("class_names", [])
    rows = []
    for row in table.to_dict("records"):
        shown = {"score": column, "low": f"{column}_low", "high": f"{column}_high", "sslmem": "sslmem"}
        kept = {key: _round(row.get(name)) for key, name in {**shown, "q_value": "q_value"}.items() if name in row}
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


def _rates(audit: Audit, leading: str) -> list[dict[str, Any]]:
    """What an auditor reports of the evidence, the reading that leads and the encoder's output: AUROC, and shares of
    trained points found at fixed shares of false alarms."""
    output = audit.layers.loc[audit.layers["kind"] == "output", "layer"].tolist()
    found = []
    for reading in dict.fromkeys(["evidence", leading, *output]):
        rows = audit.separation[audit.separation["reading"] == reading].sort_values("fpr")
        if len(rows) and rows["auroc"].notna().any():
            found.append({"reading": reading, "rows": [_plain(row) for row in rows.to_dict("records")]})
    return found


def _coins(audit: Audit) -> str | None:
    """What fair coins say of the training's epsilon, in words."""
    found = audit.record.get("coins")
    if not found:
        return None
    delta = f", δ {found['delta']:.1e}" if found["delta"] else ""
    text = (
        f"Fair coins decided which point of each of {found['pairs']} pairs the encoder saw. By its own reading"
        f" ({found['reading']}) alone {found['right']} of {found['guesses']} guesses, their number fixed beforehand,"
        f" were right, so the training's ε is at least {found['epsilon_low']:.2f} (95 %{delta}), where neighbouring"
        " sets differ in one point that stands for another."
    )
    group = found.get("planted")
    if group:
        text += (
            f" Of {group['pairs']} pairs of planted points {group['right']} of {group['guesses']} guesses were right:"
            f" ε at least {group['epsilon_low']:.2f} for a group of {group['repeats']} copies."
        )
    return text


def _roc(audit: Audit) -> list[list[float]]:
    """The ROC of the evidence: shares of false alarms and of trained points found, at every threshold."""
    table = audit.points
    if "evidence" not in table:
        return []
    unseen = table.loc[(table["split"] == "external") & ~table["decoy"] & table["p_value"].notna(), "evidence"]
    trained = table.loc[(table["split"] == "candidate") & table["p_value"].notna(), "evidence"]
    if unseen.empty or trained.empty:
        return []
    thresholds = np.sort(unseen.to_numpy())[::-1]
    found = [[(place + 1) / len(unseen), float((trained >= at).mean())] for place, at in enumerate(thresholds)]
    return found if len(found) <= _ROC else [found[int(at)] for at in np.unique(np.geomspace(1, len(found), _ROC) - 1)]


def _layer_points(audit: Audit) -> dict[str, list[dict[str, Any]]]:
    """Per layer, the candidates it memorizes most."""
    candidates = audit.points[audit.points["split"] == "candidate"].set_index("point")["name"]
    column = ranking_column(audit.point_layers)
    table = audit.point_layers[audit.point_layers["point"].isin(candidates.index)].dropna(subset=[column])
    table = table.sort_values([column, "point"], ascending=[False, True])
    return {
        str(layer): [
            {"point": str(row["point"]), "name": candidates[row["point"]], "score": _round(row[column])}
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
                [_round(part) for part in value.quantile([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])] if len(value) else []
            ),
            "external": _round(table["unitmem_external"].median()) if "unitmem_external" in table else None,
            "scatter": (
                [
                    [_round(row["unitmem"]), _round(row["classmem"]), int(row["unit"])]
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
        return _round(value)
    number = as_number(value)
    return labels[int(number)] if 0 <= number < len(labels) else ""


def _point_units(audit: Audit) -> dict[str, list[list[Any]]]:
    """Per point that drives units: the layer, number and UnitMem of those it drives most strongly."""
    table = audit.units.dropna(subset=["unitmem"]).sort_values(["unitmem", "unit"], ascending=[False, True])
    return {
        str(point): [
            [row["layer"], int(row["unit"]), _round(row["unitmem"])]
            for row in rows.head(_UNITS_OF_POINT).to_dict("records")
        ]
        for point, rows in table.groupby("point")
    }


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 8 else [*names[:3], f"{len(names) - 5} more", *names[-2:]]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _round(value: object) -> float | None:
    number = as_number(value)
    return None if math.isnan(number) else float(f"{number:.4g}")


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(key): _round(value) if isinstance(value, (float, np.floating)) else None if value is pd.NA else value
        for key, value in row.items()
    }
