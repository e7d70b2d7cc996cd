"""Examples run, and planted memorization on real images ranks high."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from memloc.metrics import auroc

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SAYS = {
    "audit_in_python": "conv4_2",
    "coreset_in_python": "of the wrong labels memorized",
    "interventions_in_python": "without a tenth of the units, top UnitMem",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SAYS[path.stem] in done.stdout


@pytest.mark.slow
def test_an_encoder_overfitted_to_a_few_real_images_memorizes_them(tmp_path):
    """f is trained on 16 images for long, g on 16 others: the calibrated figure of the late layers finds it."""
    import memloc

    images = memloc.open_images("sample:train").pixels[:32]
    pair = memloc.train_pair(
        images,
        epochs=160,
        candidates=16,
        shared=0,
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


def test_the_quick_demo_from_command_to_report(tmp_path):
    done = subprocess.run(
        [str(Path(sys.executable).parent / "memloc"), "demo", "--quick"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "report: memloc-demo/report.html"
    report = (tmp_path / "memloc-demo/report.html").read_text()
    assert "memloc-demo/run" in report[report.index("Recommended next steps") : report.index('id="layers"')]
    points = pd.read_parquet(tmp_path / "memloc-demo/audit/points.parquet")
    candidates = points[points["split"] == "candidate"]
    value = auroc(
        torch.tensor(candidates["sslmem"].to_numpy()),
        torch.tensor(points.query("split == 'external'")["sslmem"].to_numpy()),
    ).value
    assert f"{100 * value:.0f} %" in done.stdout
