"""Examples run, and planted memorization on real images ranks high."""

import ast
import json
import os
import runpy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from tests.cli.command import MEMLOC, installed, run

import memloc
import memloc.integrations
from memloc.metrics import auroc

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SAYS = {
    "audit_in_python": "conv4_2",
    "coreset_in_python": "of the wrong labels memorized",
    "interventions_in_python": "without a tenth of the units, top UnitMem",
}


@pytest.mark.long
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.stem] in capsys.readouterr().out


NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
FINDS = {
    "audit_your_encoder": lambda space: space["found"].layers["layermem_calibrated"].notna().all(),
    "name_memorized_points": lambda space: (
        space["planted"].sum() == 8 and space["found"].by_layer().loc["head", "membership effect"] > 0
    ),
    "clean_a_table": lambda space: sum(cell in space["found"] for cell in space["cells"]) >= 4,
    "noisy_labels": lambda space: (space["suspected"]["label"] != space["suspected"]["true_label"]).mean() > 0.8,
}


@pytest.mark.slow  # .ci/run runs them beside make test
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_and_are_stored_without_output(path, tmp_path, monkeypatch):
    """Cell by cell, the last expression of each shown as a notebook would."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{MEMLOC.parent}{os.pathsep}{os.environ['PATH']}")
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    space = {"__name__": "__main__"}
    for cell in cells:
        parsed = ast.parse("".join(cell["source"]))
        shown = parsed.body.pop() if isinstance(parsed.body[-1], ast.Expr) else None
        exec(compile(parsed, path.name, "exec"), space)
        if shown is not None:
            value = eval(compile(ast.Expression(shown.value), path.name, "eval"), space)
            assert value is None or (getattr(value, "_repr_html_", None) or value.__repr__)()
    assert FINDS[path.stem](space)


@pytest.mark.slow
def test_an_encoder_overfitted_to_a_few_real_images_memorizes_them(tmp_path):
    """f is trained on 16 images for long, g on 16 others: the calibrated figure of the late layers finds it."""
    images = memloc.open_images("sample:train").pixels[:32]
    pair = memloc.train_pair(
        images,
        epochs=160,
        candidates=16,
        shared=0,
        held_out=0,
        plant=16,
        repeats=4,
        batch_size=32,
        weight_decay=0.0,
        workers=2,
        out=tmp_path / "run",
    )
    found = memloc.audit(pair.f, pair.g, images=images, splits=pair.splits, views=memloc.Views(n=16))
    late = found.layers.set_index("layer").loc["conv4_2"]
    early = found.layers.set_index("layer").loc["conv1"]
    assert late["calibrated_low"] > 0
    assert late["layermem_calibrated"] > 3 * abs(early["layermem_calibrated"])


@pytest.mark.long
@pytest.mark.parametrize("size", [pytest.param({}, marks=pytest.mark.slow), {"epochs": 4, "views": 8, "external": 50}])
def test_the_quick_demo_from_command_to_report(tmp_path, monkeypatch, size):
    """As installed, and with a smaller plan in this process."""
    if size:
        monkeypatch.setattr(memloc.integrations, "DEMO_QUICK", replace(memloc.integrations.DEMO_QUICK, **size))
    done = (run if size else installed)(tmp_path, "demo", "--quick")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "report: memloc-demo/report.html"
    report = (tmp_path / "memloc-demo/report.html").read_text()
    assert "memloc-demo/run" in report[report.index("Recommended next steps") : report.index('id="layers"')]
    points = pd.read_parquet(tmp_path / "memloc-demo/audit/points.parquet")
    candidates = points[points["split"] == "candidate"]
    value = auroc(
        torch.tensor(candidates["score"].to_numpy()),
        torch.tensor(points.query("split == 'external'")["score"].to_numpy()),
    ).value
    leading = json.loads((tmp_path / "memloc-demo/audit/audit.json").read_text())["reading"]["layer"]
    said = f"The score at {leading} puts an image that f was trained on above an unseen one in {100 * value:.0f} %"
    assert said in done.stdout
