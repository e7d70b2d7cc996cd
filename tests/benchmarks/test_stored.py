"""What is measured joins what is there; a run of a part loses nothing of the others."""

import doctest
import importlib
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """A module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_examples_run(script):
    assert doctest.testmod(script("stored")).failed == 0
    assert doctest.testmod(script("findings_rows")).failed == 0


def test_figures_join_those_that_are_there_and_no_other_file_is_left(script, monkeypatch, tmp_path):
    stored = script("stored")
    monkeypatch.setattr(stored, "HERE", tmp_path)
    assert stored.stored("a.json") == {}
    stored.keep("a.json", {"one": {"x": 1, "y": [1]}, "two": 2})
    stored.keep("a.json", {"one": {"y": [2]}}, depth=2)
    stored.keep("a.json", {"three": 3})
    assert stored.stored("a.json") == {"one": {"x": 1, "y": [2]}, "two": 2, "three": 3}
    stored.keep("a.json", {"one": {}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"one": {}, "two": 2, "three": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_figures(script, monkeypatch, tmp_path):
    stored = script("stored")
    monkeypatch.setattr(stored, "HERE", tmp_path)
    stored.keep("a.json", {"one": 1})
    circle = {}
    circle["itself"] = circle
    with pytest.raises(RecursionError):
        stored.keep("a.json", {"two": circle})
    assert stored.stored("a.json") == {"one": 1}


def test_new_findings_follow_what_they_follow_and_fewer_runs_take_no_row(script):
    rejoined = script("findings_rows").rejoined
    old = [{"finding": name, "ours": "1", "command": "c"} for name in "abd"]
    new = [{"finding": name, "ours": "2", "command": "c"} for name in "abc"]
    rows, kept = rejoined(old, [(new[0], ()), (new[1], ("run-1", "never")), (new[2], ())], ["run-0", "run-1"])
    assert [(row["finding"], row["ours"]) for row in rows] == [("a", "2"), ("b", "1"), ("c", "2"), ("d", "1")]
    assert kept == ["b (it stands on run-1, too, which is not here)", "d (not measured here, see c)"]


def design(seeds, trained, own, planted, pooled):
    figures = {"trained": trained, "audits_own_auroc": own, "planted": planted, "planted_pooled": pooled}
    return {"design": [2, 26], "seeds": seeds, **figures}


def test_seeds_of_a_design_that_are_not_measured_again_keep_their_figures(script):
    joined = script("demo_frontier").joined
    old = design([0, 1], [0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7])
    new = design([1, 2], [1.2, 1.3], [1.4, 1.5], [1.6, 1.7], [1.8])
    row = joined(old, new)
    assert (row["seeds"], row["trained"], row["planted"]) == ([0, 1, 2], [0.1, 1.2, 1.3], [0.5, 1.6, 1.7])
    assert row["planted_pooled"] == [0.7]
    assert joined(old, {**new, "seeds": [0, 1]})["planted_pooled"] == [1.8]
    assert joined(old, {**new, "design": [4, 26]}) == {**new, "design": [4, 26]}


def test_a_demo_of_another_plan_takes_no_seed(script, tmp_path):
    truth, committed = script("demo_truth"), {"plan": {"epochs": 560}, "seeds": {"0": {}, "1": {}}}
    places = {seed: tmp_path / seed for seed in ("0", "1")}
    for seed, epochs in (("0", 560), ("1", 40)):
        places[seed].mkdir()
        (places[seed] / "spec.json").write_text(json.dumps({"demo": {"epochs": epochs}}))
    assert truth.plan_of({"0": places["0"]}, committed) == {"epochs": 560}
    for asked in ({"1": places["1"]}, places):
        with pytest.raises(SystemExit, match="seed 1 in .* has another plan than the others.*all seeds: 0, 1"):
            truth.plan_of(asked, committed)
    assert truth.plan_of({"1": places["1"]}, {"seeds": {"1": {}}, "plan": {"epochs": 560}}) == {"epochs": 40}
