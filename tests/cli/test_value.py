"""memloc value as installed: tables, images, repair, messages; and its report in a browser."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine
from tests.cli.command import run
from tests.conftest import few_trees

from memloc.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a table (a flipped label, a wrong cell, a category, a hole), a regression and labelled images."""
    folder = tmp_path_factory.mktemp("value")
    X, y = load_wine(return_X_y=True, as_frame=True)
    X.loc[3, "alcohol"], X.loc[7, "ash"] = 60.0, np.nan
    X["cellar"] = np.where(np.arange(len(X)) % 2, "<b>north</b>", "south")
    names = y.map({0: "barolo", 1: "grignolino", 2: "barbera"})
    names.iloc[0] = "barbera"
    X.assign(kind=names).to_csv(folder / "wine.csv", index=False)
    X.drop(columns="cellar").fillna(2.0).assign(proline=X["proline"].astype(float)).to_parquet(
        folder / "numbers.parquet"
    )
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = random.integers(0, 90, (80, 8, 8), dtype=np.uint8)
    images[labels == 1, 2:4, 2:4] += 120
    np.savez(folder / "images.npz", images=images, labels=labels)
    np.savez(folder / "bare.npz", images=images)
    return folder


def test_a_table_is_valued(place):
    done = run(place, "value", "wine.csv", "--target", "kind", "--learners", "300", "--out", "found", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["oob_score"] > 0.9
    assert result["worst_rows"][0]["row"] == 0  # the flipped label
    cells, rows = (pd.read_parquet(place / f"found/{name}.parquet") for name in ("cells", "rows"))
    assert list(cells) == ["row", "column", "value", "stderr", "n_draws"]
    assert len(cells) == 178 * 14
    assert list(rows) == ["row", "value", "stderr", "n_draws", "label_wrong", "suggested"]
    assert rows.loc[0, "label_wrong"] > 0.5
    suspects, checks = (pd.read_parquet(place / f"found/{name}.parquet") for name in ("suspects", "checks"))
    assert suspects.loc[suspects["kind"] == "label", "row"].iloc[0] == 0
    assert not suspects.duplicated(["row", "kind"]).any()
    assert suspects["score"].is_monotonic_decreasing
    assert "order" in set(checks["check"])
    record = json.loads((place / "found/value.json").read_text())
    assert "labels are wrong (95 % interval" in record["answer"][1]
    worst = record["worst_cells"][0]
    assert (worst["row"], worst["label"]) == (0, "barbera")
    again = run(place, "value", "wine.csv", "--target", "kind", "--learners", "300", "--out", "found")
    assert again.returncode == 0  # what is there is kept
    assert json.loads((place / "found/value.json").read_text()) == record
    other = run(place, "value", "wine.csv", "--target", "kind", "--learners", "200", "--out", "found")
    assert other.returncode == 2
    assert "learners: 300 there, 200 now" in other.stderr


@pytest.mark.parametrize("tol", [None, "0.1"])
def test_an_interrupted_command_goes_on_where_it_stopped(place, monkeypatch, tol):
    from memloc.valuation import _estimator

    monkeypatch.chdir(place)
    flags = ["value", "wine.csv", "--target", "kind", "--learners", "300", *(["--tol", tol] if tol else [])]
    real, fitted = _estimator._run_block, []

    def interrupted(task, seeds):
        if len(fitted) >= 70 and not (place / f"stopped{tol}/.sums.npz").exists():
            raise KeyboardInterrupt
        fitted.extend(seeds.tolist())
        return real(task, seeds)

    assert main([*flags, "--out", f"straight{tol}"]) == 0
    learners = json.loads((place / f"straight{tol}/value.json").read_text())["learners"]
    monkeypatch.setattr(_estimator, "_run_block", interrupted)
    assert main([*flags, "--out", f"stopped{tol}"]) == 130
    assert sorted(path.name for path in (place / f"stopped{tol}").iterdir()) == [
        ".sums.npz",
        "manifest.json",
        "spec.json",
    ]
    assert main([*flags, "--out", f"stopped{tol}"]) == 0
    assert len(fitted) == len(set(fitted)) == learners  # each learner once
    assert (place / f"stopped{tol}/report.html").is_file()
    assert not (place / f"stopped{tol}/.sums.npz").exists()
    one, two = (pd.read_parquet(place / f"{name}{tol}/cells.parquet") for name in ("straight", "stopped"))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


@pytest.mark.parametrize(("suffix", "between"), [("tsv", "\t"), ("csv", ";"), ("txt", ",")])
def test_a_table_may_be_separated_by_commas_semicolons_or_tabs(place, suffix, between):
    from memloc.data import open_table

    table = pd.read_csv(place / "wine.csv")
    path = place / f"separated.{suffix}"
    table.to_csv(path, sep=between, index=False, encoding="utf-8-sig")
    X, y = open_table(path, "kind")
    pd.testing.assert_frame_equal(X.assign(kind=y), table)


def test_separators_at_the_ends_of_lines_and_columns_of_numbers_as_names(place):
    from memloc.data import open_table

    (place / "ends.csv").write_text("x,y\n1,a,\n2,b,\n\n3,a,\n")
    X, y = open_table(place / "ends.csv", "y")
    assert (X["x"].tolist(), y.tolist()) == ([1, 2, 3], ["a", "b", "a"])
    pd.DataFrame({0: [1.0, 2.0], 1: ["a", "b"]}).to_parquet(place / "numbered.parquet")
    X, y = open_table(place / "numbered.parquet", "1")
    assert (list(X), y.tolist()) == (["0"], ["a", "b"])


def test_a_repair_that_is_interrupted_keeps_the_values(place, monkeypatch):
    from memloc.valuation import _estimator, _repair

    monkeypatch.chdir(place)
    command = ["value", "wine.csv", "--target", "kind", "--learners", "60", "--repair", "median", "--out", "cut"]

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_repair, "lowest_cells", interrupted)
        assert main(command) == 130
    assert (place / "cut/.sums.npz").is_file()
    rows, real = [], _estimator._run_block

    def counted(task, seeds):
        rows.extend([len(task.target)] * len(seeds))
        return real(task, seeds)

    monkeypatch.setattr(_estimator, "_run_block", counted)
    with few_trees():
        assert main(command) == 0
    assert max(rows) < 178  # the learners of the folds alone
    assert not (place / "cut/.sums.npz").exists()


def test_a_trigger_is_seen_in_the_rows_that_depend_on_it(place):
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 200, (240, 8, 8), dtype=np.uint8), np.arange(240) % 2
    images[labels == 1] += 20  # a little brighter: the label can be told from the whole
    poisoned = np.flatnonzero(labels == 0)[:24]
    images[poisoned, 5:7, 5:7], labels[poisoned] = 255, 1
    np.savez(place / "poisoned.npz", images=images, labels=labels)
    flags = ["--region", "2", "--learners", "1500", "--out", "poisoned", "--json"]
    assert run(place, "value", "poisoned.npz", *flags).returncode == 0
    from memloc.report._value import summarize_values

    found = summarize_values(place / "poisoned")
    assert np.isin([row["row"] for row in found["uneven_rows"][:12]], poisoned).mean() > 0.5  # a tenth by chance
    assert f"Rows {found['uneven_rows'][0]['row']} (" in found["answer"][2]
    every, uneven, lowest = found["maps"]
    assert [one["title"] for one in uneven["maps"]] == [
        "12 most uneven rows",
        "5 most uneven rows of 0",
        "7 most uneven rows of 1",
    ]
    assert [len(group["maps"]) for group in (every, uneven, lowest)] == [3, 3, 3]
    picture = np.array(uneven["maps"][0]["values"])
    assert set(map(tuple, np.argwhere(picture >= np.sort(picture.ravel())[-4]).tolist())) == {
        (5, 5),
        (5, 6),
        (6, 5),
        (6, 6),
    }


def test_too_few_learners_to_say_anything(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place / "pair.csv").write_text("x,y\n1,a\n2,b\n")
    said = []
    for seed in range(8):
        assert (
            main(["value", "pair.csv", "--target", "y", "--learners", "1", "--seed", str(seed), "--out", f"p{seed}"])
            == 0
        )
        said.append(capsys.readouterr().out)
    assert any("No learner left a row out" in text for text in said)
    assert not any("check their labels" in text and " 0 of 2 rows" not in text for text in said)


def test_workers_change_nothing(place):
    for workers in (1, 2):
        flags = ["--target", "kind", "--learners", "40", "--workers", workers]
        assert run(place, "value", "wine.csv", *flags, "--out", f"w{workers}").returncode == 0
    one, two = (pd.read_parquet(place / f"w{workers}/cells.parquet") for workers in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_repaired_table_is_written_with_what_it_gains(place):
    flags = ["--target", "kind", "--learners", "60", "--repair", "median", "--repair-share", "0.1"]
    with few_trees():
        done = run(place, "value", "wine.csv", *flags, "--out", "repaired", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["repaired"] == "repaired/repaired.parquet"
    gain = result["repair"]
    assert all(len(gain[name]) == 5 for name in ("before", "after", "random"))
    before, after = pd.read_csv(place / "wine.csv"), pd.read_parquet(place / "repaired/repaired.parquet")
    assert list(after) == list(before)
    changed = (before.to_numpy() != after.to_numpy()) & before.notna().to_numpy()
    assert 0 < changed.mean() <= 0.1
    assert not changed[:, -1].any()  # never the target


def test_numbers_are_predicted_as_numbers(place):
    few = pd.read_parquet(place / "numbers.parquet").iloc[:, [0, 1, 2, 3, -1]]
    few.to_parquet(place / "few-numbers.parquet")
    flags = ["--target", "proline", "--task", "regression", "--learners", "60", "--repair", "model"]
    with few_trees():
        done = run(place, "value", "few-numbers.parquet", *flags, "--out", "r", "--json")
    assert done.returncode == 0, done.stderr
    assert "ConvergenceWarning" not in done.stderr
    assert json.loads((place / "r/value.json").read_text())["regression"]
    assert (pd.read_parquet(place / "r/cells.parquet")["value"].dropna() <= 1).all()


def test_the_region_that_tells_images_apart_is_found(place):
    done = run(place, "value", "images.npz", "--region", "2", "--learners", "400", "--out", "i", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads((place / "i/value.json").read_text())
    assert record["spec"]["max_features"] == pytest.approx(0.7 / 4)
    picture = np.array(list(record["column_values"].values())).reshape(8, 8)
    assert set(map(tuple, np.argwhere(picture >= np.sort(picture.ravel())[-4]).tolist())) == {
        (2, 2),
        (2, 3),
        (3, 2),
        (3, 3),
    }
    assert 'img class="map"' in (place / "i/report.html").read_text()


def test_dry_run_states_the_cost(place):
    done = run(place, "value", "wine.csv", "--target", "kind", "--out", "nothing", "--dry-run", "--json")
    cost = json.loads(done.stdout)
    assert (cost["rows"], cost["columns"], cost["learners"]) == (178, 14, 1000)
    assert cost["seconds"] > 0
    assert not (place / "nothing").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "--target", "kind"], "there is no file 'none.csv'"),
        (["wine.csv"], "without a target. Expected the column to predict. Pass --target COLUMN"),
        (["wine.csv", "--target", "kid"], "wine.csv has no column 'kid'. Nearest: 'kind'"),
        (["wine.csv", "--target", "kind", "--learner", "tre"], "no learner 'tre'"),
        (["wine.csv", "--target", "kind", "--task", "rank"], "no task 'rank'"),
        (["wine.csv", "--target", "kind", "--max-features", "99"], "max_features is 99 and there are 14 columns"),
        (["wine.csv", "--target", "kind", "--max-features", "half"], "--max-features is 'half'"),
        (["wine.csv", "--target", "kind", "--repair", "mean"], "no repair 'mean'"),
        (["wine.csv", "--target", "kind", "--repair", "model"], "repair 'model' needs columns of numbers"),
        (
            ["wine.csv", "--target", "kind", "--repair", "median", "--repair-share", "2"],
            "share of cells to repair is 2",
        ),
        (["wine.csv", "--target", "kind", "--region", "2"], "--region is for images"),
        (["images.npz", "--target", "kind"], "--target is given for images"),
        (["images.npz", "--block", "9"], "block is 9 for images of 8x8"),
        (["images.npz", "--region", "2", "--max-features", "0.5"], "--region and --max-features are both given"),
        (["images.npz", "--repair", "median"], "--repair is for tables"),
        (["images.npz", "--limit", "1"], "limit is 1. Expected at least 2. Pass --limit 1000"),
        (["wine.csv", "--target", "kind", "--seed", "-1"], "seed is -1"),
        (["wine.csv", "--target", "kind", "--workers", "0"], "workers is 0"),
        (
            ["wine.csv", "--target", "kind", "--learners", "0"],
            "learners is 0. Expected at least 1. Pass --learners 1000",
        ),
        (["wine.csv", "--target", "kind", "--tol", "0"], "tol is 0.0. Expected a number above 0. Pass --tol 0.02"),
        (["wine.csv", "--target", "kind", "--task", "regression"], "the target holds text, such as 'barbera'"),
        (["wine.csv", "--target", "kind", "--distance-weight", "nan"], "distance_weight is nan"),
        (["ids.csv", "--target", "y"], "no column to value beside 'y' (x: id)"),
        (["huge.csv", "--target", "y"], "column 'x' holds numbers beyond 3.4e38"),
        (["small.csv", "--target", "y", "--repair", "median"], "a class has fewer than 5 rows"),
        (["bare.npz"], "'bare.npz' has no labels"),
        (["one.csv", "--target", "y"], "the target has one class, 'a'"),
        (["two.csv", "--target", "y"], "two columns named 'x'"),
        (
            ["text.csv", "--target", "y", "--drop", "z", "--id", "w"],
            "of the names of columns these 2 are wrong. --drop z",
        ),
        (["hole.csv", "--target", "y"], "hole.csv has no column to value beside 'y' (x: constant)"),
        (["alone.csv", "--target", "y"], "alone.csv has no column beside 'y'"),
        (["row.csv", "--target", "y"], "has no column to value beside 'y' (x: constant)"),
        (["header.csv", "--target", "y"], "the target 'y' is missing in every row"),
        (
            ["wide.csv", "--target", "y"],
            "line 3 of wide.csv has 4 fields and the header 3. Expected as many in every line",
        ),
        (["narrow.csv", "--target", "y"], "line 2 of narrow.csv has 2 fields and the header 3"),
        (["ages.csv", "--target", "age"], "the target has 40 different whole numbers in 400 rows"),
        (["ages.csv", "--target", "age", "--task", "regression", "--seed", "5000000000"], "seed is 5000000000"),
        (["lists.parquet", "--target", "1"], "no column to value beside '1' (x: text)"),
        (
            ["wine.csv", "--target", "kind", "--config", "flag.toml"],
            "the setting 'learners' in flag.toml is true. Expected a number",
        ),
        (
            ["few.csv", "--target", "y", "--task", "regression", "--repair", "median"],
            "there are 4 rows, so what a repair gains",
        ),
        (["broken.parquet", "--target", "y"], "cannot be read as a table"),
    ],
)
def test_messages(place, arguments, message, monkeypatch, capsys):
    for name, content in (
        ("one", "x,y\n1,a\n2,a\n3,a\n"), ("two", "x,x,y\n1,2,a\n3,4,b\n"), ("text", "x,y\n1,a\n2,b\noops,a\n"), ("hole", "x,y\n1,a\n2,\n"),
        ("alone", "y\na\nb\n"), ("row", "x,y\n1,a\n"),
        ("ids", "x,y\n" + "".join(f"n{row},{'ab'[row % 2]}\n" for row in range(60))), ("huge", "x,y\n1e39,a\n2,b\n3,a\n"),
        ("header", "x,y\n"), ("wide", "x,z,y\n1,2,a\n1,2,a,b\n"), ("narrow", "x,z,y\n1,a\n2,3,b\n"), ("few", "x,y\n1,.1\n2,.2\n3,.4\n4,.3\n"),
        ("ages", "x,age\n" + "".join(f"{row // 2},{20 + row % 40}\n" for row in range(400))),
        ("small", "x,y\n1,a\n2,b\n3,a\n4,b\n"),
    ):  # fmt: skip
        (place / f"{name}.csv").write_text(content)
    (place / "broken.parquet").write_bytes(b"PAR1")
    (place / "flag.toml").write_text("learners = true\n")
    pd.DataFrame({"x": [[1.0], [2.0, 3.0]], "1": ["a", "b"]}).to_parquet(place / "lists.parquet")
    monkeypatch.chdir(place)
    assert main(["value", *arguments, "--out", "fresh"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (place / "fresh").exists()


@pytest.mark.skipif(not os.environ.get("CI") and not shutil.which("chromedriver"), reason="no browser on this machine")
def test_the_report_in_a_browser(place, browser):
    if not (place / "found/report.html").exists():
        run(place, "value", "wine.csv", "--target", "kind", "--learners", "300", "--out", "found")
    page = (place / "found/report.html").read_text()
    assert "<b>north</b>" not in page  # contents are escaped
    assert len(page) < 1_500_000
    assert "http://" not in page.replace("http://www.w3.org", "")
    browser.get(f"file://{place / 'found/report.html'}")
    assert browser.find_element("css selector", "h1").text == "What helps and hurts in wine.csv"
    table = browser.find_element("id", "cell-table")
    table.find_elements("css selector", "thead button")[7].click()  # z, rising, then falling
    table.find_elements("css selector", "thead button")[7].click()
    shown = [
        row.find_elements("css selector", "td")[-1].text for row in table.find_elements("css selector", "tbody tr")
    ]
    figures = [float(text) for text in shown if text != "–"]
    assert shown[len(figures) :] == ["–"] * (len(shown) - len(figures))  # cells without a z-score come last
    assert figures == sorted(figures, reverse=True)
    suspects = browser.find_element("id", "suspect-table")
    first = suspects.find_element("css selector", "button.open")
    first.click()
    cells = suspects.find_element("css selector", "tr.cells")
    assert len(cells.find_elements("css selector", "dt")) == 15  # the target, too
    assert first.get_attribute("aria-expanded") == "true"
    browser.find_element("id", "filter").send_keys("alcohol")
    shown = [row for row in suspects.find_elements("css selector", "tbody tr") if row.is_displayed()]
    assert shown
    assert all("alcohol" in row.text for row in shown)
    browser.find_element("id", "filter").clear()
    browser.execute_script(
        "const kind = document.getElementById('kind'); kind.value = 'label'; kind.dispatchEvent(new Event('change'))"
    )
    shown = [row for row in suspects.find_elements("css selector", "tbody tr") if row.is_displayed()]
    assert {row.get_attribute("data-kind") for row in shown} == {"label"}
    browser.find_element("id", "copy").click()
    assert f"{len(shown)} suspects copied" in browser.find_element("id", "shown").text
    panel = browser.find_element("css selector", "[data-panel=value]")
    assert not panel.is_displayed()
    browser.find_element("css selector", "[data-tab=value]").click()
    assert panel.is_displayed()
    browser.find_element("css selector", "[data-tab=all]").click()
    assert not panel.is_displayed()
    every = browser.find_element("css selector", "[data-panel=all]")
    assert every.is_displayed()
    assert len(every.find_elements("css selector", "rect")) == 60 * 14  # 178 rows in 60 groups
    theme = browser.execute_script("return document.documentElement.dataset.theme")
    browser.find_element("id", "theme").click()
    assert browser.execute_script("return document.documentElement.dataset.theme") != theme
    browser.set_window_size(390, 900)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.skipif(not os.environ.get("CI") and not shutil.which("chromedriver"), reason="no browser on this machine")
def test_rows_with_ids_are_copied_as_columns_and_open_from_checks(place, browser):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"patient": [f"P-{n}" for n in range(120)], "a": rng.normal(size=120), "b": rng.normal(size=120)}
    )
    frame["y"] = np.where(frame["a"] > 0, "u", "v")
    frame.loc[7, "b"] = 500.0
    frame.loc[9, ["a", "b", "y"]] = frame.loc[3, ["a", "b", "y"]]
    frame.to_csv(place / "ids.csv", index=False)
    run(place, "value", "ids.csv", "--target", "y", "--learners", "40", "--out", "ids")
    browser.get(f"file://{place / 'ids/report.html'}")
    browser.execute_script(
        "document.execCommand = () => { window.copied = document.activeElement.value; return true; }"
    )
    browser.find_element("id", "copy").click()
    head, *lines = (line.split("\t") for line in browser.execute_script("return window.copied").split("\n"))
    assert head[:4] == ["#", "row", "patient", "kind"]
    assert lines[0][1:4] == ["7", "P-7", "outlier"]
    assert {len(line) for line in lines} == {len(head)}
    same = next(
        row for row in browser.find_elements("css selector", "#check-table tbody tr") if "duplicate rows" in row.text
    )
    same.find_element("css selector", "button.open").click()
    assert "P-9" in browser.find_element("css selector", "#check-table tr.cells").text


def test_decimal_commas_and_tables_of_categories(tmp_path, monkeypatch):
    from memloc.data import open_table

    rows = [f"{i},5;{'ab'[i % 2]};{i % 3};{'xy'[i % 2]}" for i in range(30)]
    (tmp_path / "commas.csv").write_text("\n".join(["size;mark;count;kind", *rows]))
    X, _ = open_table(tmp_path / "commas.csv", "kind")
    assert X["size"].tolist() == [i + 0.5 for i in range(30)]
    assert X["mark"].tolist()[:2] == ["a", "b"]
    assert X["count"].tolist() == [i % 3 for i in range(30)]
    monkeypatch.chdir(tmp_path)
    X[["mark"]].assign(other=X["count"].astype(str) + "!", kind=X["mark"].map({"a": "x", "b": "y"})).to_csv(
        "texts.csv", index=False
    )
    assert main(["value", "texts.csv", "--target", "kind", "--learners", "20", "--out", "texts"]) == 0
    (tmp_path / "latin.csv").write_bytes("a,kind\n1,café\n2,b\n".encode("latin-1"))
    assert open_table(tmp_path / "latin.csv", "kind")[1].tolist() == ["café", "b"]
