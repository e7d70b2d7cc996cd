"""Benchmarks measure and destroy nothing: no page, and no figure of what they do not measure."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
RUNNABLE = [path.name for path in SCRIPTS if "__main__" in path.read_text()]


@pytest.fixture
def copy(tmp_path):
    """A fresh clone: what git tracks and benchmarks could touch, without runs/."""
    for name in ("benchmarks", "docs", "scripts", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return tmp_path


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def python(folder, *arguments):
    home = f"{folder / 'src'}{os.pathsep}{folder / 'benchmarks'}"
    env = {**os.environ, "PYTHONPATH": home, "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("FINDINGS", None)
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)


def test_help_of_every_script_and_import_of_the_rest_change_no_file(copy):
    before = contents(copy)
    # in one process, since each of most would load torch anew
    code = """
import contextlib, importlib, io, pathlib, runpy, sys
for path in sorted(pathlib.Path("benchmarks").resolve().glob("*.py")):
    if "__main__" not in path.read_text():
        importlib.import_module(path.stem)
        print(path.name, "imported")
        continue
    sys.argv, said = [str(path), "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(path), run_name="__main__")
        print(path.name, "went on")
    except SystemExit as left:
        print(path.name, left.code, said.getvalue().splitlines()[0])
"""
    done = python(copy, "-c", code)
    assert done.returncode == 0, done.stderr
    said = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert set(said) == {path.name for path in SCRIPTS}
    assert {name: words[:2] for name, words in said.items() if name in RUNNABLE} == {
        name: ["0", "usage:"] for name in RUNNABLE
    }
    assert contents(copy) == before


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"]])
def test_a_name_that_is_not_known_ends_a_script_before_it_runs(copy, arguments):
    before = contents(copy)
    for name in ("run.py", "valuation.py", "coreset_speed.py"):  # those that load no torch
        done = python(copy, f"benchmarks/{name}", *arguments)
        assert done.returncode == 2
        assert "nonsense" in done.stderr
    assert contents(copy) == before


def test_findings_without_runs_keep_every_row_and_say_so(copy):
    before = contents(copy)
    done = python(copy, "benchmarks/findings.py")
    assert done.returncode == 0, done.stderr
    assert contents(copy) == before
    rows = json.loads(before["benchmarks/findings.json"])["rows"]
    kept = [row for row in rows if f"kept as it is: {row['finding']} (not measured here, see" in done.stderr]
    assert [row["finding"] for row in rows if row not in kept] == [
        row["finding"]
        for row in rows
        if row["finding"].startswith("Differential privacy")  # from objectives.json
    ]
    assert "kept as it is: calibrated LayerMem of base-s0" in done.stderr


def test_a_finding_that_would_stand_on_fewer_runs_is_not_taken(copy):
    store, name = copy / "benchmarks/findings.json", "Overlap of the most memorized points between seeds"
    before = json.loads(store.read_text())
    code = f"""
import findings, json, pathlib
def part():
    findings.there("base-s0", "simsiam")
    yield findings.row({name!r}, "p", "fewer", "holds", "c")
findings.PARTS = (part,)
store = pathlib.Path("benchmarks/findings.json")
before = store.read_bytes()
findings.main()
assert store.read_bytes() == before
found = json.loads(before)
found["runs"].remove("base-s0")
store.write_text(json.dumps(found))
findings.main()
"""
    done = python(copy, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{name} (it stands on base-s0, too, which is not here)") == 1
    after = json.loads(store.read_text())
    changed = [one["finding"] for one, other in zip(after["rows"], before["rows"], strict=True) if one != other]
    assert changed == [name]
    assert after["layers"] == before["layers"]


def test_a_part_keeps_the_figures_of_the_others(copy):
    code = """
import json, valuation_quality as script
script.convergence = lambda: [{"learners": 50, "spearman": 0.5}]
script.convergence.__name__ = "convergence"
script.backdoor.__globals__["os"].environ["CIFAR10"] = "nowhere"
import sys
sys.argv[1:] = ["convergence", "backdoor"]
script.main()
"""
    store = copy / "benchmarks/valuation_quality.json"
    before = json.loads(store.read_text())
    done = python(copy, "-c", code)
    assert done.returncode == 0, done.stderr
    after = json.loads(store.read_text())
    assert after.pop("convergence") == [{"learners": 50, "spearman": 0.5}]
    assert after["backdoor"] == before["backdoor"]
    assert "backdoor: not measured, its figures stay" in done.stderr
    for found in (before, after):
        found.pop("versions")
    before.pop("convergence")
    assert after == before


def test_no_script_imports_what_is_private():
    found = []
    for path in [*SCRIPTS, *(ROOT / "scripts").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [f"{path.name}: {name}" for name in names if name.startswith("memloc") and "._" in name]
    assert found == []


def test_no_benchmark_names_a_page_but_in_its_docstring():
    found = []
    for path in SCRIPTS:
        tree = ast.parse(path.read_text())
        texts = {ast.get_docstring(tree, clean=False)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in texts:
                found += [f"{path.name}: {node.value}"] if "docs/" in node.value or "src/" in node.value else []
    assert found == []
