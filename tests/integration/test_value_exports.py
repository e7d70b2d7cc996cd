"""A valuation's tables for other tools: suspects, label issues in cleanlab's convention, the table cleaned."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine

from memloc.cli import main
from memloc.errors import DataError, SpecError
from memloc.integrations import VALUE_TABLES, value_export


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Values of a table with a wrong cell, a wrong label, a row without a target, ids, and a formula."""
    place = tmp_path_factory.mktemp("exports")
    X, y = load_wine(return_X_y=True, as_frame=True)
    names = pd.Series(np.array(["u", "v", "w"])[y], dtype=object)
    names[[5, 11, 17]], names[[70, 80, 90]], names[[150, 160, 170]], names[0] = "w", "u", "v", None
    X.loc[63, "alcohol"] = 600.0
    frame = X.assign(bottle=[f"=b-{n}" for n in range(len(X))], y=names)
    frame.to_csv(place / "wine.csv", index=False)
    (place / "run").mkdir()
    assert (
        main(["value", str(place / "wine.csv"), "--target", "y", "--learners", "150", "--out", str(place / "run/v")])
        == 0
    )
    return place


def exported(folder, capsys, table, name):
    assert main(["export", str(folder / "run/v"), "--table", table, "--out", str(folder / name), "--json"]) == 0
    return json.loads(capsys.readouterr().out), folder / name


@pytest.mark.parametrize("table", VALUE_TABLES)
def test_every_table_is_exported(folder, capsys, table):
    said, path = exported(folder, capsys, table, f"{table}.parquet")
    assert said["rows"] == len(pd.read_parquet(path)) > 0


def test_suspects_name_the_users_rows(folder, capsys):
    _, path = exported(folder, capsys, "suspects", "suspects.csv")
    found = pd.read_csv(path)
    assert found.loc[0, ["row", "bottle", "column"]].tolist() == [63, "'=b-63", "alcohol"]  # no formula


def test_label_issues_are_cleanlabs(folder):
    found, _ = value_export(folder / "run/v", "labels")
    assert list(found)[:2] == ["row", "bottle"]
    issues = found[found["is_label_issue"]]
    wrong = {5, 11, 17, 70, 80, 90, 150, 160, 170}
    assert len(wrong & set(issues["row"])) >= 6
    assert len(set(issues["row"]) - wrong) <= 1
    of_first = issues[issues["row"].isin({5, 11, 17})]
    assert set(of_first["predicted_label"]) == {"u"}
    assert set(of_first["given_label"]) == {"w"}
    assert found["label_score"].between(0, 1).all()
    assert found["label_score"].is_monotonic_increasing
    assert 0 not in set(found["row"])


def test_the_cleaned_table_and_its_log(folder, capsys):
    said, path = exported(folder, capsys, "cleaned", "clean.csv")
    before, after, log = (pd.read_csv(each) for each in (folder / "wine.csv", path, said["changes"]))
    assert len(after) == len(before)
    assert list(after) == list(before)
    assert pd.isna(after.loc[63, "alcohol"])
    assert after.loc[5, "y"] == "u"
    plain = lambda frame: frame.drop(columns="bottle")  # noqa: E731
    changed = (plain(before) != plain(after)) & ~(plain(before).isna() & plain(after).isna())
    assert {(row, column) for row, column in zip(*np.nonzero(changed.to_numpy()), strict=True)} == {
        (row, list(plain(before)).index(column)) for row, column in zip(log["row"], log["column"], strict=True)
    }
    assert log.loc[(log["row"] == 5) & (log["kind"] == "label"), ["before", "after"]].to_numpy().tolist() == [
        ["w", "u"]
    ]


def test_what_cannot_be_exported(folder, tmp_path):
    with pytest.raises(SpecError, match="no table 'suspect'. Nearest: 'suspects'"):
        value_export(folder / "run/v", "suspect")
    (folder / "moved.csv").write_bytes((folder / "wine.csv").read_bytes())
    (folder / "wine.csv").write_text("changed\n")
    with pytest.raises(DataError, match="is gone or has changed since it was valued"):
        value_export(folder / "run/v", "cleaned")
    (folder / "wine.csv").write_bytes((folder / "moved.csv").read_bytes())
    assert main(["value", "sample:test", "--limit", "40", "--learners", "5", "--out", str(tmp_path / "v")]) == 0
    with pytest.raises(DataError, match="has no suspects, since it values images"):
        value_export(tmp_path / "v")


def test_no_file_is_replaced_without_a_word(folder, capsys):
    source = folder / "wine.csv"
    before = source.read_bytes()
    (folder / "mine.csv").write_text("precious")
    for out, flags, message in (
        (folder / "mine.csv", [], "is there"),
        (source, ["--overwrite"], "what was read for"),
        (folder / "run/v/rows.parquet", ["--overwrite"], "is of the results"),
    ):
        assert main(["export", str(folder / "run/v"), "--table", "rows", "--out", str(out), *flags]) != 0
        assert message in capsys.readouterr().err
    assert source.read_bytes() == before
    assert (folder / "mine.csv").read_text() == "precious"
    assert (
        main(["export", str(folder / "run/v"), "--table", "rows", "--out", str(folder / "mine.csv"), "--overwrite"])
        == 0
    )
    assert (folder / "mine.csv").read_text().startswith("row,")
