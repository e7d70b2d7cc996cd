"""Odd cells and findings: large errors come first, subtle ones before what plain scores find, clean tables stay quiet."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_wine

from memloc.data import ColumnReading, read_table
from memloc.valuation import (
    CHECKS,
    ValueSpec,
    class_z_scores,
    looked_through,
    odd_cells,
    suspects_table,
    table_findings,
    table_work,
    value_table,
)

FIRST = 50


def corrupted(X, share, how, seed=0):
    """A table some of whose cells are wrong, and which."""
    generator = np.random.default_rng(seed)
    wrong = np.zeros(X.shape, dtype=bool)
    wrong.ravel()[generator.permutation(X.size)[: round(share * X.size)]] = True
    other = np.column_stack([generator.permutation(column) for column in X.T])
    changed = {"times 1000": X * 1000, "times 10": X * 10, "swapped": other}[how]
    found = np.where(wrong, changed, X)
    return found, wrong & (found != X)


def first_of(score, wrong):
    return wrong.ravel()[np.argsort(-np.nan_to_num(score, nan=-np.inf).ravel(), kind="stable")[:FIRST]].mean()


def by_chance(X, y):
    return odd_cells(pd.DataFrame(X), y, ["number"] * X.shape[1], regression=False).by_chance


@pytest.mark.parametrize("how", ["times 1000", "times 10"])
@pytest.mark.parametrize("share", [0.01, 0.04])
def test_large_errors_come_first(how, share):
    X, y = load_breast_cancer(return_X_y=True)
    found, wrong = corrupted(X, share, how)
    assert first_of(-by_chance(found, y), wrong) >= 0.9


def test_subtle_errors_come_before_what_a_z_score_finds():
    X, y = load_breast_cancer(return_X_y=True)
    found, wrong = corrupted(X, 0.04, "swapped")
    ours, plain = first_of(-by_chance(found, y), wrong), first_of(class_z_scores(found, y), wrong)
    assert ours >= 0.8
    assert ours > 2 * plain


def test_how_many_cells_are_odd_by_chance_is_about_what_is_said():
    counts = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        X = generator.standard_t(5, (300, 6)) @ generator.normal(size=(6, 6))
        counts.append((by_chance(X, np.arange(300) % 2) < 1).sum())
    assert 1 <= np.mean(counts) <= 2.5 * 6  # a cell a column, were tails known


def test_steps_and_counts_are_no_outliers():
    generator = np.random.default_rng(0)
    X = pd.DataFrame(
        {"children": generator.poisson(0.4, 400).astype(float), "stars": generator.integers(1, 6, 400) * 1.0}
    )
    found = odd_cells(X, np.arange(400) % 2, ["number", "number"], regression=False)
    assert np.nanmin(found.by_chance) > 0.05


def test_categories_that_do_not_fit_the_row():
    generator = np.random.default_rng(0)
    kind = generator.choice(["cat", "dog", "cow"], 300)
    weight = pd.Series(kind).map({"cat": 4.0, "dog": 20.0, "cow": 500.0}) * generator.lognormal(0, 0.1, 300)
    X = pd.DataFrame({"kind": kind, "weight": weight, "noise": generator.normal(size=300)})
    X.loc[5, "kind"] = "cow" if kind[5] != "cow" else "cat"
    X.loc[9, "kind"] = "gnu"
    found = odd_cells(X, np.arange(300) % 2, ["category", "number", "number"], regression=False)
    order = np.argsort(found.by_chance[:, 0], kind="stable")
    assert {5, 9} <= set(order[:3].tolist())
    assert found.expected(5, 0) == kind[5]


def test_missing_cells_small_tables_and_regression():
    X = pd.DataFrame({"a": np.arange(40.0), "b": 2 * np.arange(40.0)})
    X.loc[3, "a"], X.loc[7, "b"] = np.nan, 500.0
    found = odd_cells(X, np.linspace(0, 1, 40), ["number", "number"], regression=True)
    assert np.isnan(found.by_chance[3, 0])
    assert np.nanargmin(found.by_chance[:, 1]) == 7
    assert np.isnan(odd_cells(X.head(10), np.arange(10), ["number", "number"], regression=True).by_chance).all()


def listed(frame, target="y", **spec):
    table = read_table(frame, target)
    found = value_table(table.X, table.y, ValueSpec(**{"learners": 60, **spec}), readings=table.valued)
    return looked_through(found, table)


def test_the_list_names_each_row_once_a_kind_with_what_would_be_expected():
    X, y = load_wine(return_X_y=True, as_frame=True)
    X.loc[3, "alcohol"], X.loc[3, "ash"], X.loc[60, "hue"] = 600.0, 90.0, 40.0
    found = listed(X.assign(y=np.array(["u", "v", "w"])[y]))
    suspects = found.suspects
    assert suspects["rank"].tolist() == list(range(1, len(suspects) + 1))
    assert suspects["score"].is_monotonic_decreasing
    assert not suspects.duplicated(["row", "kind"]).any()
    assert {(3, "alcohol"), (60, "hue")} <= set(zip(suspects["row"][:2], suspects["column"][:2], strict=True))
    assert "600" in suspects["text"][0] or "600" in suspects["text"][1]
    assert found.record["row_contents"]["3"][:2] == ["u", "600"]


def test_rows_left_out_and_ids_keep_their_numbers():
    X, y = load_wine(return_X_y=True, as_frame=True)
    X.loc[63, "alcohol"] = 600.0
    target = pd.Series(np.array(["u", "v", "w"])[y], dtype=object)
    target[[0, 20, 61]] = None
    found = listed(X.assign(y=target, bottle=[f"b-{n}" for n in range(len(X))]))
    assert found.suspects.loc[0, ["row", "column"]].tolist() == [63, "alcohol"]
    assert found.rows["row"].tolist() == [row for row in range(len(X)) if row not in (0, 20, 61)]
    assert set(found.cells["row"]) == set(found.rows["row"])
    place = found.record["row_numbers"].index(63)
    assert found.record["ids"]["values"][place] == "b-63"
    assert found.record["row_contents"]["63"][:2] == ["v", "600"]


def test_a_table_of_noise_has_few_suspects():
    generator = np.random.default_rng(0)
    X = pd.DataFrame(generator.normal(size=(300, 8)), columns=list("abcdefgh"))
    found = listed(X.assign(y=generator.choice(["u", "v"], 300)))
    assert (found.suspects["score"] > 0.5).mean() <= 0.05 or (found.suspects["score"] > 0.5).sum() <= 3
    assert set(found.checks["check"]) <= {"class overlap"}


def findings(frame, y, kinds, regression=False):
    readings = [ColumnReading(name, kind, "") for name, kind in zip(frame, kinds, strict=True)]
    return table_findings(frame, np.asarray(y), readings, np.arange(len(frame)), regression=regression).table


def test_every_check_finds_what_was_planted():
    generator = np.random.default_rng(0)
    rows = 900
    y = np.repeat(["u", "v", "w"], rows // 3)
    y[-2:] = "x"
    frame = pd.DataFrame(
        {
            "answer": pd.Series(y).map({"u": 1.0, "v": 2.0, "w": 3.0, "x": 3.0}),
            "gauge": generator.normal(5, 1, rows),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(generator.integers(0, 900, rows), unit="D"),
            "sex": generator.choice(["male", "female"], rows),
            "always": ["a"] * (rows - 1) + ["b"],
            "mostly": np.where(np.arange(rows) < 600, np.nan, generator.normal(size=rows)),
            "noise": generator.normal(size=rows),
        }
    )
    frame.loc[[5, 6, 7], "gauge"] = -200.0
    frame.loc[[8, 9], "since"] = pd.Timestamp("1900-01-01")
    frame.loc[10, "sex"], frame.loc[11, "sex"], frame.loc[12, "sex"] = "MALE", "femal", "other"
    frame.loc[31] = frame.loc[30]
    frame.loc[700] = frame.loc[40]
    frame.loc[701] = frame.loc[41]
    frame.loc[701, "noise"] = 9.0
    found = findings(frame, y, ["number", "number", "date", "category", "category", "number", "number"])
    by_check = dict(iter(found.groupby("check")))
    assert set(by_check) == set(CHECKS) - {"class overlap", "capped"}  # of numbers to predict, and of many classes
    assert by_check["leak"]["column"].tolist() == ["answer"]
    assert by_check["duplicate rows"][["row", "other_row"]].to_numpy().tolist() == [[31, 30]]
    assert by_check["conflicting rows"][["row", "other_row"]].to_numpy().tolist() == [[700, 40]]
    assert by_check["near-duplicate rows"][["row", "other_row", "column"]].to_numpy().tolist() == [[701, 41, "noise"]]
    assert set(by_check["sentinel"]["column"]) == {"gauge", "since"}
    assert len(by_check["near-duplicate categories"]) == 2
    assert "class x has 2 rows" in by_check["rare classes"]["text"].iloc[0]


def test_a_target_that_is_cut_off_or_holds_a_placeholder():
    generator = np.random.default_rng(2)
    frame = pd.DataFrame({"a": generator.normal(size=1000)})
    y = np.minimum(generator.lognormal(0, 1, 1000), 5.0)
    found = findings(frame, y, ["number"], regression=True)
    assert found[["check", "column"]].to_numpy().tolist() == [["capped", "(target)"]]
    assert f"5, its largest number, in {(y == 5).sum()} rows" in found["text"].iloc[0]
    y = generator.normal(20, 3, 1000)
    y[::150] = -999
    assert findings(frame, y, ["number"], regression=True)["check"].tolist() == ["sentinel"]
    y = generator.normal(20, 3, 1000) * (generator.random(1000) < 0.7)  # a third hold nothing
    assert findings(frame, y, ["number"], regression=True).empty


def test_what_stands_for_a_missing_cell_is_said_once_and_no_suspect():
    generator = np.random.default_rng(3)
    frame = pd.DataFrame({"a": generator.normal(5, 1, 400), "b": generator.normal(5, 1, 400)})
    frame["since"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(generator.integers(0, 900, 400), unit="D")
    frame.loc[:49, "a"], frame.loc[20:29, "since"], frame.loc[60, "b"] = -200.0, pd.Timestamp("1900-01-01"), 900.0
    found = listed(frame.assign(y=generator.choice(["u", "v"], 400)))
    assert found.checks[found.checks["check"] == "sentinel"]["column"].tolist() == ["a", "since"]
    outliers = found.suspects[found.suspects["kind"] == "outlier"]
    assert outliers["row"].iloc[0] == 60
    assert not outliers["row"].between(0, 49).any()


def test_a_wrong_number_to_predict_is_not_blamed_on_its_rows_cells():
    generator = np.random.default_rng(5)
    frame = pd.DataFrame({"a": generator.normal(size=400), "b": generator.normal(size=400)})
    frame["y"] = 100 + 3 * frame["a"] + 0.3 * generator.normal(size=400)
    wrong = [3, 50, 120, 300]
    frame.loc[wrong[:3], "y"] *= 10
    frame.loc[wrong[3], "y"] = 0.0
    frame.loc[7, "a"] = 90.0
    found = listed(frame, learners=60).suspects
    first = found[found["score"] > 0.5]
    assert sorted(first["row"][first["kind"] == "label"]) == wrong
    outliers = first["row"][first["kind"] == "outlier"].tolist()
    assert outliers[0] == 7
    assert len(outliers) <= 2
    assert not set(wrong) & set(outliers)
    assert abs(float(first["suggested"][first["row"] == 3].iloc[0]) - 100 - 3 * frame["a"][3]) < 5


def test_cells_that_are_not_odd_are_no_outliers_however_much_they_mislead():
    generator = np.random.default_rng(2)
    a, b = (generator.normal(size=500).round(3) for _ in range(2))
    y = np.where(a + 0.3 * generator.normal(size=500) > 0, "yes", "no")
    found = listed(pd.DataFrame({"a": a, "b": b, "y": y}), learners=400).suspects
    assert ((found["kind"] == "outlier") & (found["score"] > 0.5)).sum() <= 2


def test_misspelt_names_are_suspects_with_the_name_they_may_be():
    generator = np.random.default_rng(6)
    frame = pd.DataFrame(
        {"city": generator.choice(["Berlin", "Hamburg", "Munich"], 300), "a": generator.normal(size=300)}
    )
    frame["y"] = generator.choice(["u", "v"], 300)
    frame.loc[5, "city"], frame.loc[9, "city"] = "Berln", "hamburg"
    found = listed(frame).suspects
    found = found[found["kind"] == "category"].set_index("row")
    assert found.loc[5, ["kind", "suggested"]].tolist() == ["category", "Berlin"]
    assert found.loc[9, ["kind", "suggested"]].tolist() == ["category", "Hamburg"]


def test_numbers_to_predict_have_no_classes_in_words():
    generator = np.random.default_rng(4)
    frame = pd.DataFrame({"a": generator.normal(size=300), "b": generator.normal(size=300)})
    frame["y"] = frame["a"] + 0.1 * generator.normal(size=300)
    frame.loc[5, "b"] = 1e4
    found = listed(frame)
    assert "the row's other cells" in found.suspects["text"].iloc[0]
    assert not found.suspects["text"].str.contains("class").any()


def test_columns_of_names_are_not_said_to_have_rare_categories():
    frame = pd.DataFrame({"name": [f"n{place // 2}" for place in range(300)]})
    assert "rare categories" not in findings(frame, np.arange(300) % 2, ["category"])["check"].tolist()


def test_checks_of_a_plain_table_find_nothing():
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "a": generator.normal(size=300),
            "b": generator.integers(0, 10, 300) * 1.0,
            "c": generator.choice(["red", "blue"], 300),
        }
    )
    assert findings(frame, generator.choice(["u", "v"], 300), ["number", "number", "category"]).empty
    assert findings(frame, generator.normal(size=300), ["number", "number", "category"], regression=True).empty


def test_the_folder_holds_all_of_it_and_the_same_twice(tmp_path):
    X, y = load_wine(return_X_y=True, as_frame=True)
    X.assign(y=np.array(["u", "v", "w"])[y], day=pd.date_range("2020", periods=len(X)).strftime("%d/%m/%Y")).to_csv(
        tmp_path / "x.csv", index=False
    )
    folders = []
    for name in ("one", "two"):
        work = table_work(str(tmp_path / "x.csv"), "y", ValueSpec(learners=30))
        work.run(tmp_path / name)
        folders.append(tmp_path / name)
    for name in ("cells", "rows", "suspects", "checks"):
        one, two = (pd.read_parquet(folder / f"{name}.parquet") for folder in folders)
        pd.testing.assert_frame_equal(one, two)
    record = json.loads((folders[0] / "value.json").read_text())
    assert {one["column"]: one["kind"] for one in record["reading"]["columns"]}["day"] == "date"
    assert record["label_issues"]["low"] <= record["label_issues"]["expected"] <= record["label_issues"]["high"]


def test_no_row_and_no_column_is_no_trouble():
    nothing = np.empty((0, 2))
    odd = odd_cells(pd.DataFrame(nothing, columns=["a", "b"]), np.empty(0), ["number"] * 2, regression=True)
    found = suspects_table(nothing, nothing, np.empty(0), odd, ["number"] * 2, ["a", "b"], pd.DataFrame(nothing), [])
    assert found.empty
