"""Comparison of audits against figures worked by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from memloc import Audit, Views, audit
from memloc.engine import compare
from memloc.errors import DataError, SpecError


@pytest.fixture
def found(tiny, gray, four_splits) -> Audit:
    return audit(tiny(0), tiny(1), images=gray, splits=four_splits, views=Views(n=4))


def with_scores(found: Audit, scores: dict[str, np.ndarray]) -> Audit:
    """The same audit with other scores of its candidates."""
    candidates = found.points.loc[found.points["split"] == "candidate", "point"].to_numpy()
    rows = pd.concat(
        [
            pd.DataFrame({"point": candidates, "layer": layer, "align_in": 1.0, "align_out": 1.0, "sslmem": values})
            for layer, values in scores.items()
        ]
    )
    points = found.points.copy()
    points.loc[points["split"] == "candidate", "sslmem"] = scores["output"]
    return replace(found, point_layers=rows, points=points)


def test_overlap_and_tau_by_hand(found):
    n = int((found.points["split"] == "candidate").sum())
    up = np.linspace(0, 1, n)
    swapped = up.copy()
    swapped[[-1, 0]] = swapped[[0, -1]]
    one, two = (with_scores(found, {"conv1": values, "output": up}) for values in (up, swapped))
    between = compare(one, two, k=2).between.set_index("layer")
    assert between.loc["output", "overlap"] == 1
    assert between.loc["output", "kendall"] == pytest.approx(1)
    assert between.loc["conv1", "overlap"] == 0.5
    pairs = n * (n - 1) / 2
    assert between.loc["conv1", "kendall"] == pytest.approx(1 - 2 * (2 * n - 3) / pairs)
    assert between.loc["conv1", "overlap_by_chance"] == 2 / n
    assert between.loc["conv1", "kendall_low"] < between.loc["conv1", "kendall"] < between.loc["conv1", "kendall_high"]


def test_layers_within_an_audit(found):
    n = int((found.points["split"] == "candidate").sum())
    up = np.linspace(0, 1, n)
    within = compare(*[with_scores(found, {"conv1": up, "conv2": up, "output": -up})] * 2, k=2).within
    one = within[within["audit"] == "a"].set_index(["layer", "other"])
    assert one.loc[("conv1", "conv2"), "kendall"] == pytest.approx(1)
    assert one.loc[("conv1", "output"), "kendall"] == pytest.approx(-1)
    assert one["neighbours"].to_dict() == {
        ("conv1", "conv2"): True,
        ("conv1", "output"): False,
        ("conv2", "output"): True,
    }


def test_splits_and_extremes(found):
    result = compare(found, found, k=3)
    rows = found.point_layers.merge(found.points[["point", "split"]], on="point").query("layer == 'output'")
    parts = {name: part["sslmem"] for name, part in rows.groupby("split")}
    line = result.splits.query("audit == 'a' and layer == 'output' and other == 'external'").iloc[0]
    expected = ttest_ind(parts["candidate"], parts["external"], equal_var=False)
    assert line["t"] == pytest.approx(expected.statistic)
    assert line["p"] == pytest.approx(expected.pvalue)
    ordered = found.points.query("split == 'candidate'").sort_values("sslmem")
    assert result.extremes.loc[0, "units_most"] == ordered["n_units"].tail(3).mean()
    assert result.extremes.loc[0, "units_least"] == ordered["n_units"].head(3).mean()
    everyone = compare(found, found, k=len(ordered)).extremes
    assert everyone.loc[0, "k"] == len(ordered) // 2
    ensemble = replace(found, record={**found.record, "mode": "ensemble"})
    assert compare(ensemble, ensemble, k=3).extremes["units_most"].isna().all()


def test_points_are_joined_by_name_whatever_their_ids(found):
    moved = replace(
        found,
        points=found.points.assign(point=found.points["point"] + 100),
        point_layers=found.point_layers.assign(point=found.point_layers["point"] + 100),
    )
    assert (compare(found, moved).between["overlap"] == 1).all()


def test_audits_that_cannot_be_compared(found):
    strangers = replace(found, points=found.points.assign(name="x" + found.points["name"]))
    with pytest.raises(DataError, match="0 candidates are in both"):
        compare(found, strangers)
    with pytest.raises(SpecError, match="Pass k="):
        compare(found, found, k=0)
    other = replace(
        found,
        point_layers=found.point_layers.assign(layer="z" + found.point_layers["layer"]),
        layers=found.layers.assign(layer="z" + found.layers["layer"]),
    )
    assert "no layer of the same name" in compare(found, other).record["notes"][0]
    notes = compare(found, found).record["notes"]
    assert "same encoders" in notes[0]
    assert "unknown" in notes[1]
