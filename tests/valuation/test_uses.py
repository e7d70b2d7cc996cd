"""What is done with values: rows called wrong, repairs, baselines, pixel blocks; and what must not happen on the way."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold
from tests.valuation.test_two_d_oob import table

from memloc.data import TableSpec, is_regression
from memloc.errors import DataError, MemlocWarning, SpecError
from memloc.valuation import (
    TwoDOOB,
    ValueSpec,
    check_repair,
    class_z_scores,
    describe,
    lowest_cells,
    pixel_groups,
    recommended_share,
    repair,
    repair_gain,
    table_work,
    unevenness,
    value_table,
    z_scores,
)


def test_permuting_binary_rows_with_other_labels_changes_nothing(monkeypatch):
    """Equal rows with different labels: ties in leaves must not follow the order of the rows."""
    from memloc.valuation import _learners
    from memloc.valuation._draws import draw

    generator = np.random.default_rng(3)
    X, y = generator.integers(0, 2, (60, 4)).astype(float), generator.integers(0, 2, 60)
    one = TwoDOOB(60, random_state=0).fit(X, y)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(60)

        def permuted(number, order=order, **sizes):
            drawn = draw(number, **sizes)
            return type(drawn)(drawn.counts[order], drawn.groups, drawn.seed)

        with monkeypatch.context() as patched:
            patched.setattr(_learners, "draw", permuted)
            two = TwoDOOB(60, random_state=0).fit(X[order], y[order])
        assert np.array_equal(two.cell_values_, one.cell_values_[order], equal_nan=True)


def test_one_wild_target_does_not_spoil_the_other_rows_errors():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(80, 5))
    y = X[:, 0] + 0.3 * generator.normal(size=80)
    y[0] = 100.0
    fits = [TwoDOOB(100, utility="squared_error", random_state=seed).fit(X, y) for seed in range(15)]
    actual = np.std([one.row_values_ for one in fits], axis=0, ddof=1)
    stated = np.mean([one.row_stderr_ for one in fits], axis=0)
    assert 0.6 < np.median(stated / actual) < 1.6
    assert np.quantile(stated / actual, 0.95) < 3


@pytest.mark.parametrize(
    ("utility", "message"),
    [(lambda true, guess: 0.5, r"shape \(\) for"), (lambda true, guess: np.full(len(true), -np.inf), "not finite")],
)
def test_a_utility_returns_one_finite_number_per_row(utility, message):
    with pytest.raises(SpecError, match=message):
        TwoDOOB(5, utility=utility, random_state=0).fit(*table())


def test_distances_do_not_depend_on_workers():
    X, y = table()
    one, two = (TwoDOOB(30, distance_weight=0.5, n_jobs=jobs, random_state=0).fit(X, y) for jobs in (1, 2))
    assert np.array_equal(one.cell_values_, two.cell_values_, equal_nan=True)


def test_flipped_labels_have_the_lowest_values():
    from sklearn.datasets import load_wine
    from sklearn.metrics import average_precision_score

    X, y = load_wine(return_X_y=True)
    flipped = np.zeros(len(y), dtype=bool)
    flipped[np.random.default_rng(0).permutation(len(y))[:18]] = True
    values = TwoDOOB(200, random_state=0).fit(X, np.where(flipped, (y + 1) % 3, y)).row_values_
    assert average_precision_score(flipped, -values) > 0.9


def test_holes_have_no_z_score_and_count_for_nothing():
    X = pd.DataFrame({"a": [0.0, 2.0, np.nan, 10.0, 10.0], "kind": list("uvuvu")})
    scores = z_scores(X, np.array([0, 0, 0, 1, 1]), ["number", "category"], regression=False)
    assert scores[:2, 0].tolist() == [1.0, 1.0]
    assert np.isnan(scores[2, 0])
    assert np.isnan(scores[:, 1]).all()
    assert class_z_scores([[1.0], [3.0]]).ravel().tolist() == [1.0, 1.0]


def test_repairs_touch_the_named_cells_only():
    X, _ = table()
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(kind=["x", "y", "x"] * 10)
    cells = np.zeros(frame.shape, dtype=bool)
    cells[2, 0] = cells[5, 6] = True
    found = repair(frame, cells)
    assert found.loc[2, "a"] == frame["a"].drop(2).median()
    assert found.loc[5, "kind"] == "x"
    same = found.eq(frame)
    assert (~same).sum().sum() <= 2
    modelled = repair(frame.drop(columns="kind"), cells[:, :6], "model")
    assert modelled.loc[2, "a"] != frame.loc[2, "a"]
    assert modelled.drop(2).equals(frame.drop(columns="kind").drop(2))
    with pytest.raises(SpecError, match="no repair 'mode'"):
        repair(frame, cells, "mode")


def test_tables_with_hashed_text_are_repaired_by_their_most_frequent_text(tmp_path, short_forests):
    rng = np.random.default_rng(0)
    words = np.array(["late", "train", "fine", "meal", "noisy", "room", "kind", "crew"])
    frame = pd.DataFrame({"a": rng.normal(size=120), "said": [" ".join(rng.choice(words, 6)) for _ in range(120)]})
    frame["y"] = np.where(frame["a"] > 0, "u", "v")
    frame.to_csv(tmp_path / "x.csv", index=False)
    work = table_work(
        str(tmp_path / "x.csv"), "y", ValueSpec(learners=30), TableSpec(text="hash"), repairing="median", share=0.05
    )
    found = work.run(tmp_path / "out")
    repaired = pd.read_parquet(tmp_path / "out/repaired.parquet")
    assert repaired.columns.tolist() == ["a", "said", "y"]
    assert set(repaired["said"]) <= set(frame["said"])
    changed = (repaired[["a", "said"]].to_numpy() != frame[["a", "said"]].to_numpy()).sum()
    assert 0 < changed <= round(0.05 * 240)
    assert len(found.record["repair"]["after"]) == 5


def test_plans_and_progress_of_long_fits(capsys):
    X, y = table(rows=60, classes=2)
    valuer = TwoDOOB(200, random_state=0, verbose=1)
    plan = valuer.plan(X, y)
    assert plan["learners"] == 200
    assert plan["seconds"] > 0 < plan["memory_mb"]
    assert not hasattr(valuer, "cell_values_")  # the plan fits copies
    assert capsys.readouterr().err == ""
    quiet = TwoDOOB(200, random_state=0).fit(X, y)
    assert capsys.readouterr().err == ""
    assert np.array_equal(valuer.fit(X, y).cell_values_, quiet.cell_values_)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "fitting learners: 0 %, starting"
    assert said[-1].startswith("fitting learners: 100 %")


def test_lowest_cells_leave_alone_what_has_no_value():
    values = np.array([[0.1, np.nan], [0.3, 0.2]])
    assert lowest_cells(values, 0.5).tolist() == [[True, False], [False, True]]
    assert lowest_cells(np.zeros((2, 2)), 0.5).tolist() == [[True, True], [False, False]]  # the first of equals
    with pytest.raises(SpecError, match="share of cells to repair is 1.5"):
        lowest_cells(values, 1.5)


def test_a_repair_is_measured_on_rows_kept_out(short_forests):
    X, y = table(rows=100, classes=2)
    gain = repair_gain(pd.DataFrame(X), y, TwoDOOB(30, random_state=0), share=0.05)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))

    def forest(fold, cells):
        train, test = folds[fold]
        table = repair(pd.DataFrame(X[train]), cells)
        return RandomForestClassifier(200, random_state=0).fit(table.to_numpy(), y[train]).score(X[test], y[test])

    assert gain.before[1] == forest(1, np.zeros((80, X.shape[1]), dtype=bool))
    values = TwoDOOB(30, random_state=0).fit(X[folds[1][0]], y[folds[1][0]]).cell_values_
    assert gain.after[1] == forest(1, lowest_cells(values, 0.05))
    assert [len(part) for part in gain] == [5, 5, 5]


def test_a_repair_can_be_measured_where_a_fold_lacks_values(short_forests):
    X, y = table(rows=100, classes=2)
    town = pd.Series([f"town {row % 13}" for row in range(100)])
    frame = pd.DataFrame(X).rename(columns=str).assign(town=town, rare=np.nan)
    frame.loc[[0, 1], "rare"] = 1.0, 2.0
    found = repair_gain(frame, y, TwoDOOB(20, random_state=0), share=0.05)
    assert np.isfinite(found).all()
    with pytest.raises(SpecError, match="there are 4 rows"):
        check_repair(frame[:4], "median", np.arange(4.0), regression=True)
    cells = np.zeros(frame.shape, dtype=bool)
    cells[:, list(frame).index("town")] = True
    with pytest.warns(MemlocWarning, match="no cell of column 'town' is left"):
        same = repair(frame, cells)
    assert same.equals(frame)


def test_rows_that_hang_on_few_cells_are_uneven():
    contrast = np.array([[0.2, -0.2, np.nan], [0.9, 0.0, 0.0], [np.nan] * 3])
    found = unevenness(contrast, np.full((3, 3), 0.1))
    assert found[:2].tolist() == pytest.approx([2.0, np.sqrt(27)])
    assert np.isnan(found[2])


def test_sums_that_are_damaged_are_set_aside(tmp_path):
    from memloc.errors import MemlocWarning
    from memloc.valuation._sums import CellSums

    path = tmp_path / "sums.npz"
    sums = CellSums.empty(3, 2, 2)
    sums.save(path, 7)
    assert CellSums.load(path)[1] == 7
    for content in (path.read_bytes()[:60], b"", b"none"):
        path.write_bytes(content)
        with pytest.warns(MemlocWarning, match="the file of sums .* is damaged.* set aside; learners are fitted again"):
            assert CellSums.load(path) is None


def test_pixel_blocks_and_the_share_that_finds_a_region():
    groups = pixel_groups(3, 4, 6, block=2).reshape(3, 4, 6)
    assert (groups[0] == groups[2]).all()
    assert groups[0].tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert recommended_share(256, 16) == pytest.approx(0.7 / 16)
    assert recommended_share(4, 100) == 0.25  # at least one group
    assert pixel_groups(1, 2, 2).tolist() == [0, 1, 2, 3]
    assert pixel_groups(1, 3, 3, block=3).tolist() == [0] * 9
    for block in (0, 9):
        with pytest.raises(SpecError, match=f"block is {block}"):
            pixel_groups(1, 8, 8, block=block)


@pytest.mark.parametrize(
    ("target", "task", "regression"),
    [
        ([0.5, 1.5, 2.5], "auto", True),
        ([0, 1, 2], "auto", False),
        (["a", "b"], "auto", False),
        ([True, False], "auto", False),
        ([0, 1], "regression", True),
        (list(range(21)) * 50, "classification", False),
    ],
)
def test_what_a_target_is(target, task, regression):
    assert is_regression(np.array(target), task) is regression


def test_tables_that_changed_are_refused_by_name():
    frame = pd.DataFrame({"size": np.arange(20.0), "colour": ["red", "blue"] * 10})
    y = np.arange(20) % 2
    fitted = TwoDOOB(10, random_state=0).fit(frame, y)
    with pytest.raises(DataError, match="column 'size' misses a number"):
        fitted.predict(frame.assign(size=np.nan))
    with pytest.raises(ValueError, match="column"):
        fitted.predict(frame.to_numpy())
    with pytest.raises(DataError, match="column 0 holds numbers beyond"):
        TwoDOOB(5).fit(np.array([[1e39], [1.0], [2.0]]), [0, 1, 0])


def test_the_quantiles_of_a_column_are_those_of_its_values():
    X, y = table(rows=40)
    frame = pd.DataFrame(X, columns=list("abcdef"))
    found = value_table(frame, y, ValueSpec(learners=20))
    listed = describe(found, frame).record["by_column"]
    assert [one["column"] for one in listed] == list("abcdef")
    for one in listed:
        values = found.cells.loc[found.cells["column"] == one["column"], "value"]
        assert one["quantiles"] == pytest.approx(values.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist(), abs=1e-12)


@pytest.mark.parametrize("tol", [0, -1.0])
def test_a_tolerance_of_nothing_is_refused(tol):
    with pytest.raises(SpecError, match="Expected a number above 0"):
        TwoDOOB(5, tol=tol).fit(*table())
    with pytest.raises(SpecError, match="Expected a number above 0"):
        ValueSpec(tol=tol)


@pytest.mark.parametrize(("region", "block", "share"), [(None, 1, 0.5), (8, 4, recommended_share(49, 4)), (4, 2, recommended_share(196, 4))])  # fmt: skip
def test_a_region_sets_the_share_of_columns(region, block, share):
    from memloc.valuation import PixelSpec, ValueSpec, image_work

    work = image_work("sample:test", ValueSpec(learners=2), PixelSpec(block=block, region=region, limit=20))
    assert work.spec.max_features == pytest.approx(share)
    assert work.X.shape == (20, 28 * 28)
