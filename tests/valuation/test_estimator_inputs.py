"""What TwoDOOB takes: weights, NaN, sparse tables, data frames of other libraries, generators, parts of the rows."""

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
import scipy.sparse
from sklearn.datasets import load_wine
from sklearn.tree import DecisionTreeClassifier

from memloc.data import TableSpec, open_table, read_table
from memloc.errors import DataError, MemlocWarning
from memloc.valuation import TwoDOOB
from memloc.valuation._trees import builds_directly, grow, same_tree

X, Y = load_wine(return_X_y=True)
MIXED = pd.DataFrame(X[:, :4], columns=list("abcd")).assign(kind=np.resize(["u", "v", "w"], len(X)))


def values(table, **settings):
    return TwoDOOB(20, random_state=0, **settings).fit(table, Y).cell_values_


def test_weights_of_the_rows_weigh_the_fit_alone():
    plain, ones = TwoDOOB(30, random_state=0).fit(X, Y), TwoDOOB(30, random_state=0).fit(X, Y, np.full(len(Y), 3.0))
    assert np.array_equal(plain.cell_values_, ones.cell_values_, equal_nan=True)
    weights = np.where(Y == 2, 0.0, 1.0)
    without = TwoDOOB(30, random_state=0).fit(X, Y, weights)
    assert (without.row_values_[Y == 2] == 0).all()  # no learner has learned the class
    assert np.array_equal(without.row_counts_, plain.row_counts_)  # and the draws are the same
    assert without.row_values_[Y == 0].mean() > 0.8
    repeated = [each.counts for each in (plain._task.draw(seed) for seed in plain._seeds()[:3])]
    assert all((counts.sum() == len(Y)) for counts in repeated)


def test_weights_of_classes_are_weights_of_their_rows():
    balanced = TwoDOOB(20, random_state=0, class_weight="balanced").fit(X, Y)
    by_hand = TwoDOOB(20, random_state=0).fit(X, Y, (len(Y) / (3 * np.bincount(Y)))[Y])
    assert np.array_equal(balanced.cell_values_, by_hand.cell_values_, equal_nan=True)
    named = TwoDOOB(20, random_state=0, class_weight={"c": 5.0}).fit(X, np.array(["a", "b", "c"])[Y])
    weighed = TwoDOOB(20, random_state=0).fit(X, Y, np.where(Y == 2, 5.0, 1.0))
    assert np.array_equal(named.cell_values_, weighed.cell_values_, equal_nan=True)
    forest = DecisionTreeClassifier(random_state=0)
    assert TwoDOOB(5, estimator=forest, class_weight="balanced", random_state=0).fit(X, Y).oob_score_ > 0.5


@pytest.mark.parametrize("classes", [3, 0])
def test_trees_with_missing_numbers_are_those_of_scikit_learn(classes):
    from sklearn.tree import DecisionTreeRegressor

    assert builds_directly()
    generator = np.random.default_rng(0)
    table = X.astype(np.float32)
    table[generator.random(table.shape) < 0.1] = np.nan
    counts = generator.poisson(1.0, len(Y)) * generator.random(len(Y))
    target = Y if classes else X[:, 0]
    ours = grow(table, target, counts, classes=classes, seed=5, holed=np.isnan(table).any(axis=0))
    kind = DecisionTreeClassifier if classes else DecisionTreeRegressor
    theirs = kind(max_features="sqrt", random_state=5).fit(table, target, sample_weight=counts)
    assert same_tree(ours, theirs)
    assert np.array_equal(ours.predict(table), theirs.predict(table))


def test_arrays_with_missing_numbers_are_taken_as_they_are():
    holed = X.copy()
    holed[::7, 3] = np.nan
    fitted = TwoDOOB(60, random_state=0).fit(holed, Y)
    assert fitted.oob_score_ > 0.9
    assert len(fitted.predict(holed)) == len(Y)
    masked = np.ma.masked_invalid(holed)
    assert np.array_equal(TwoDOOB(60, random_state=0).fit(masked, Y).cell_values_, fitted.cell_values_, equal_nan=True)
    tree = DecisionTreeClassifier(random_state=0)
    assert TwoDOOB(5, estimator=tree, random_state=0).fit(holed, Y).oob_score_ > 0.5


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_matrix", "dok_matrix"])
def test_sparse_tables(kind):
    thin = np.where(np.median(X, axis=0) < X, X, 0.0)
    sparse = getattr(scipy.sparse, kind)(thin)
    assert np.array_equal(values(sparse), values(thin), equal_nan=True)
    fitted = TwoDOOB(5, random_state=0).fit(sparse, Y)
    assert np.array_equal(fitted.predict(sparse), fitted.predict(thin))


def test_a_sparse_table_too_large_for_its_values_is_refused():
    with pytest.raises(DataError, match="each gets a value"):
        TwoDOOB(2).fit(scipy.sparse.csr_matrix((1000, 1_000_000)), np.arange(1000) % 2)


FRAMES = {
    "polars": lambda frame: polars.DataFrame(frame.to_dict("list")),
    "Arrow": lambda frame: pa.Table.from_pandas(frame),
    "a dictionary": lambda frame: frame.to_dict("list"),
    "rows": lambda frame: frame.to_dict("records"),
    "records": lambda frame: frame.to_records(index=False),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_data_frames_of_other_libraries(kind):
    assert np.array_equal(values(FRAMES[kind](MIXED)), values(MIXED), equal_nan=True)


def test_targets_of_other_libraries():
    plain = TwoDOOB(10, random_state=0).fit(X, Y)
    for target in (polars.Series(Y), pa.chunked_array([Y]), pd.Series(Y, dtype="int64[pyarrow]"), Y.tolist()):
        found = TwoDOOB(10, random_state=0).fit(X, target)
        assert np.array_equal(found.row_values_, plain.row_values_, equal_nan=True)
    with pytest.raises(DataError, match="lazy frame, which holds no rows"):
        TwoDOOB(2).fit(polars.LazyFrame({"a": [1, 2]}), [0, 1])
    with pytest.warns(MemlocWarning, match="X and y have different indexes"):
        TwoDOOB(2).fit(MIXED, pd.Series(Y, index=np.arange(len(Y))[::-1]))


def test_generators_of_numpy():
    def drawn():
        return TwoDOOB(10, random_state=np.random.default_rng(3)).fit(X, Y).cell_values_

    assert np.array_equal(drawn(), drawn(), equal_nan=True)
    assert not np.array_equal(drawn(), values(X), equal_nan=True)


@pytest.mark.parametrize("size", [0.25, 40])
def test_learners_on_a_part_of_the_rows(size):
    fitted = TwoDOOB(40, max_samples=size, random_state=0).fit(X, Y)
    wanted = round(0.25 * len(Y)) if size == 0.25 else 40
    assert {len(rows) for rows in fitted.estimators_samples_} == {wanted}
    assert fitted.row_counts_.min() > 40 * 0.5  # most rows are out of bag
    assert fitted.oob_score_ > 0.8
    assert np.array_equal(values(X, max_samples=1.0), values(X), equal_nan=True)


def test_columns_beyond_their_noise():
    generator = np.random.default_rng(0)
    table, target = generator.normal(size=(200, 6)), generator.integers(0, 2, 200)
    spread = []
    for seed in range(30):
        fitted = TwoDOOB(100, random_state=seed).fit(table, target)
        spread.append(fitted.column_values_)
        error = fitted.column_stderr_
    assert error == pytest.approx(np.std(spread, axis=0, ddof=1), rel=0.5)


def test_a_table_read_before_is_read_alike(tmp_path):
    frame = MIXED.assign(
        day=pd.date_range("2020", periods=len(X)).strftime("%d.%m.%Y"),
        price=[f"${n},000" for n in range(1, len(X) + 1)],
        y=Y,
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    table = read_table(frame, "y")
    opened, target = open_table(tmp_path / "x.csv", "y")
    pd.testing.assert_frame_equal(opened, table.X, check_dtype=False)
    direct = TwoDOOB(20, random_state=0).fit(frame.drop(columns="y"), Y)
    assert np.array_equal(
        TwoDOOB(20, random_state=0).fit(opened, target).cell_values_, direct.cell_values_, equal_nan=True
    )
    told = TwoDOOB(20, random_state=0, columns=table.valued).fit(opened, target)
    assert np.array_equal(told.cell_values_, direct.cell_values_, equal_nan=True)
    assert np.isnan(
        TwoDOOB(20, random_state=0, columns=TableSpec(drop="day")).fit(frame.drop(columns="y"), Y).cell_values_[:, 5]
    ).all()
