"""What the report says of single points and of error rates: names, whether they are of the point, coins, the ROC."""

from __future__ import annotations

from typing import Any

import numpy as np

from memloc.report._words import as_number, percent, plain
from memloc.results import Audit

_ROC = 200  # points of a curve


def names_in_words(audit: Audit) -> str:
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
    alike = (naming.get("guard") or {}).get("text")
    assumed = f" {alike[0].upper()}{alike[1:]}." if alike else ""
    if naming["named"]:
        return (
            f"{naming['named']} of {naming['candidates']} candidates are named as memorized (q < .05: at most"
            f" {naming['expected_false']:.1f} of them falsely, on average{falsely}). {_of_run(audit)}{assumed}"
        )
    return f"None of {naming['candidates']} candidates is named (q < .05{falsely}). {_power(naming)}"


def _power(naming: dict[str, Any]) -> str:
    """What would name a point, where none is."""
    if not naming.get("separates"):
        return "Nothing here tells trained points from others, one by one."
    if naming.get("needs"):
        return (
            f"Were they separated as they are here, about {naming['needs']} points that no encoder saw would name some"
            f" (there are {naming['unseen']}): hold out more (memloc train --held-out) or pass more (--external)."
        )
    return "More points to compare with would hardly help; more encoders may (memloc train --ensemble 8)."


def _of_run(audit: Audit) -> str:
    """Whether another training would memorize the same points, where that can be told."""
    parts = audit.record.get("components")
    if parts is None:
        return (
            "They are what this training memorized; whether another would memorize the same is not known from it"
            " (memloc train --ensemble 8)."
        )
    share = percent(as_number(parts["share"]))
    interval = f"{percent(as_number(parts['share_low']))} to {percent(as_number(parts['share_high']))}"
    if as_number(parts.get("run_high")) < 0:  # noise is not what unseen points have, and a share of it says nothing
        return "Whether another training would memorize the same ones cannot be told here."
    if as_number(parts["point_low"]) > 0 and as_number(parts["share_low"]) > 0.5:
        return f"Another training would memorize mostly the same ones ({share} of what differs, 95 % {interval})."
    if as_number(parts["run_low"]) > 0 and as_number(parts["share_high"]) < 0.5:
        return (
            f"Another training would memorize mostly other ones: {share} of what differs between points belongs to the"
            f" point (95 % {interval}), the rest to the training."
        )
    return "Whether another training would memorize the same ones cannot be told here."


def error_rates(audit: Audit, leading: str) -> list[dict[str, Any]]:
    """What an auditor reports of the evidence, the reading that leads and the encoder's output: AUROC, and shares of
    trained points found at fixed shares of false alarms."""
    output = audit.layers.loc[audit.layers["kind"] == "output", "layer"].tolist()
    found = []
    for reading in dict.fromkeys(["evidence", leading, *output]):
        rows = audit.separation[audit.separation["reading"] == reading].sort_values("fpr")
        if len(rows) and rows["auroc"].notna().any():
            found.append({"reading": reading, "rows": [plain(row) for row in rows.to_dict("records")]})
    return found


def coins_in_words(audit: Audit) -> str | None:
    """What fair coins say of the training's epsilon, in words."""
    found = audit.record.get("coins")
    if not found:
        return None
    delta = f", δ {found['delta']:.1e}" if found["delta"] else ""
    text = (
        f"Fair coins decided which point of each of {found['pairs']} pairs the encoder saw. By its own reading"
        f" ({found['reading']}) alone {found['right']} of {found['guesses']} guesses, their number fixed beforehand,"
        f" were right, so {_at_least(found['epsilon_low'])} (95 %{delta}), where neighbouring sets differ in one point"
        " that stands for another: not the ε that private training counts, of sets with one point more."
    )
    group = found.get("planted")
    if group:
        text += (
            f" Of {group['pairs']} pairs of planted points {group['right']} of {group['guesses']} guesses were right:"
            f" for a group of {group['repeats']} copies {_at_least(group['epsilon_low'])}."
        )
    return text


def _at_least(epsilon: float) -> str:
    return f"the training's ε is at least {epsilon:.2f}" if epsilon > 0 else "no ε of the training is excluded"


def roc(audit: Audit) -> list[list[float]]:
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
