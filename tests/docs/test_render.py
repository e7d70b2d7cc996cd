"""Rendering loses nothing: a missing figure keeps the committed one and is named, fewer rows are refused."""

import doctest
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.render import RefusedError, Table, _page, _table, carry, fill

ROOT = Path(__file__).parents[2]
COMMITTED = (
    "| layer | seed 0 | seed 1 |\n|---|---|---|\n| conv1 | 0.1 | 0.2 |\n| conv2 | 0.3 | 0.4 |\n| output | 0.5 | – |\n"
)
ROWS = [["conv1", "0.1", "0.2"], ["conv2", "0.3", "0.4"], ["output", "0.5", None]]
HEADER = ["layer", "seed 0", "seed 1"]


def page(table=COMMITTED, name="layers"):
    start = f"# Page\n\nProse | with a bar.\n\n<!-- table: {name} -->\n"
    return f"{start}{table}<!-- end -->\n\nMore, <!-- figure: n -->3<!-- end --> seeds.\n"


def test_the_same_figures_give_the_same_bytes():
    assert carry(COMMITTED, Table(HEADER, ROWS)) == (COMMITTED, [])
    spaced = COMMITTED.replace("|---|---|---|", "| --- | --- | --- |")
    assert carry(spaced, Table(HEADER, ROWS)) == (spaced, [])
    assert fill(page(), {"layers": Table(HEADER, ROWS)}, {"n": "3"}) == (page(), [])


def test_a_missing_row_is_kept_in_its_place_and_named():
    text, kept = carry(COMMITTED, Table(HEADER, [ROWS[0], ["output", "0.6", "0.7"]]))
    assert text == COMMITTED.replace("| 0.5 | – |", "| 0.6 | 0.7 |")
    assert kept == ["row conv2"]


def test_a_missing_cell_is_kept_and_named():
    text, kept = carry(COMMITTED, Table(HEADER, [["conv1", None, "0.9"], *ROWS[1:]]))
    assert text == COMMITTED.replace("| 0.1 | 0.2 |", "| 0.1 | 0.9 |")
    assert kept == ["cell conv1, seed 0"]


def test_a_missing_column_is_kept_and_named():
    text, kept = carry(COMMITTED, Table(["layer", "seed 1"], [[row[0], "0.8"] for row in ROWS]))
    assert [row[1:] for row in _table.rows_of(text)] == [["0.1", "0.8"], ["0.3", "0.8"], ["0.5", "0.8"]]
    assert kept == ["column seed 0"]


def test_new_rows_and_columns_stand_where_the_figures_have_them():
    text, kept = carry(
        COMMITTED, Table([*HEADER, "seed 2"], [["conv0", "1", "2", "3"], *([*row, "4"] for row in ROWS)])
    )
    assert _table.rows_of(text)[:2] == [["conv0", "1", "2", "3"], ["conv1", "0.1", "0.2", "4"]]
    assert kept == []


def test_columns_of_one_name_are_told_apart():
    committed = "| what | AUROC | AUROC |\n|---|---|---|\n| a | 1 | 2 |\n"
    assert carry(committed, Table(["what", "AUROC", "AUROC"], [["a", None, "3"]])) == (
        committed.replace("| 2 |", "| 3 |"),
        ["cell a, AUROC"],
    )


def test_fewer_rows_are_refused_and_named(monkeypatch):
    shorter = COMMITTED.replace("| conv2 | 0.3 | 0.4 |\n", "")
    with pytest.raises(RefusedError, match="2 rows instead of 3.*conv2"):
        _table.refuse_fewer(COMMITTED, shorter)
    monkeypatch.setattr(_page, "carry", lambda committed, table: (shorter, []))
    with pytest.raises(RefusedError, match="table layers: it would have 2 rows instead of 3.*conv2"):
        fill(page(), {"layers": Table(HEADER, ROWS)})


def test_rows_that_cannot_be_matched_are_refused_and_named():
    with pytest.raises(
        RefusedError, match="told apart by layer in the page and by row in the figures.*conv1; conv2; output"
    ):
        carry(COMMITTED, Table(["row", *HEADER[1:]], ROWS))
    with pytest.raises(RefusedError, match="cannot be told apart.*conv1"):
        carry(COMMITTED, Table(HEADER, [ROWS[0], ROWS[0]]))
    with pytest.raises(RefusedError, match="row 'conv1' has 2 cells. Expected 3"):
        carry("| layer | a | b |\n|---|---|---|\n| conv1 | 1 |\n", Table(HEADER, ROWS))


def test_a_table_without_figures_is_kept_whole_and_named():
    text, kept = fill(page(), {}, {"n": None})
    assert text == page()
    assert kept == ["table layers: row conv1", "table layers: row conv2", "table layers: row output", "figure n: 3"]


def test_a_figure_within_a_line_is_rendered():
    text, kept = fill(page(), {"layers": Table(HEADER, ROWS)}, {"n": "4"})
    assert text == page().replace("-->3<!--", "-->4<!--")
    assert kept == []


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (page().replace("<!-- end -->\n\n", "\n"), "markers do not pair"),
        (page() + page(), "table layers stands in it 2 times. Expected once"),
        ("# Page\n", "table layers stands in it 0 times.*Add where it belongs"),
        (page(COMMITTED + "A sentence.\n"), "no table: 'A sentence.'"),
    ],
)
def test_a_page_whose_markers_do_not_hold_tables_is_refused(broken, message):
    with pytest.raises(RefusedError, match=message):
        fill(broken, {"layers": Table(HEADER, ROWS)}, {"n": "3"})


def test_the_examples_of_the_rule_run():
    assert doctest.testmod(_table).failed == 0


@pytest.fixture
def copy(tmp_path):
    """What rendering reads and writes, apart from the repository."""
    for name in ("benchmarks", "docs", "scripts", "src/memloc/report"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def make_docs(folder):
    return subprocess.run([sys.executable, "scripts/make_docs.py"], cwd=folder, capture_output=True, text=True)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_the_committed_pages_are_what_the_committed_figures_say(copy):
    before = contents(copy)
    done = make_docs(copy)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert contents(copy) == before


def test_figures_that_are_gone_change_no_page_and_are_named(copy):
    before = contents(copy / "docs") | contents(copy / "src")
    for path in (copy / "benchmarks").glob("*.json"):
        path.unlink()
    done = make_docs(copy)
    assert done.returncode == 0
    assert contents(copy / "docs") | contents(copy / "src") == before
    assert "docs/demo.md: kept as it is, the figures lack it: table truth: row 0" in done.stderr
    assert "evidence.json: kept as it is, the figures lack it: step prune" in done.stderr


def test_a_seed_that_is_gone_takes_no_mean_along(copy):
    path, before = copy / "benchmarks/demo_truth.json", (copy / "docs/demo.md").read_text()
    found = json.loads(path.read_text())
    del found["seeds"]["1"]
    path.write_text(json.dumps(found))
    done = make_docs(copy)
    assert (copy / "docs/demo.md").read_text() == before
    assert "table truth: row 1" in done.stderr
    assert "table truth: cell all, both roles of f and g" in done.stderr
    assert "table layers: column seed 1" in done.stderr


def test_a_refused_page_is_left_alone_and_exits_with_1(copy):
    page = copy / "docs/demo.md"
    page.write_text(page.read_text().replace("| layer | seed 0 |", "| row | seed 0 |"))
    before = page.read_bytes()
    done = make_docs(copy)
    assert done.returncode == 1
    assert "docs/demo.md: not written: table layers: its rows are told apart by row" in done.stderr
    assert page.read_bytes() == before


def test_a_new_figure_reaches_the_page_and_the_report(copy):
    path = copy / "benchmarks/findings.json"
    found = json.loads(path.read_text())
    row = next(row for row in found["rows"] if row["finding"].startswith("Training without"))
    row["ours"] = "another figure"
    path.write_text(json.dumps(found))
    done = make_docs(copy)
    assert done.stdout.splitlines() == ["docs/findings.md: written", "src/memloc/report/evidence.json: written"]
    assert "another figure" in (copy / "docs/findings.md").read_text()
    assert "another figure" in (copy / "src/memloc/report/evidence.json").read_text()


def test_rendering_imports_no_torch():
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import render, pathlib; "
        "list(render.renderings(pathlib.Path('.'))); "
        "print([name for name in ('torch', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
