"""Columns as libraries give them: Arrow's types, decimals, durations; and learners that want classes without gaps."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.tree import DecisionTreeClassifier

from memloc.coreset import Crust, train_robust
from memloc.data import TableEncoder, needs_encoding, open_table
from memloc.errors import DataError
from memloc.valuation import TwoDOOB

RNG = np.random.default_rng(0)
ROWS = 40
PLAIN = pd.DataFrame(
    {"a": RNG.normal(size=ROWS), "b": RNG.integers(0, 9, ROWS), "kind": RNG.choice(["red", "blue"], ROWS)}
)
TARGET = np.where(PLAIN["a"] > 0, "x", "y")


def valued(table, target=TARGET):
    return TwoDOOB(n_estimators=20, random_state=0).fit(table, target).cell_values_


ARROW = {
    "all of Arrow": lambda: PLAIN.convert_dtypes(dtype_backend="pyarrow"),
    "pandas' own nullable": lambda: PLAIN.convert_dtypes(),
    "a dictionary": lambda: PLAIN.assign(
        kind=PLAIN["kind"].astype(pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())))
    ),
    "large text": lambda: PLAIN.assign(kind=PLAIN["kind"].astype(pd.ArrowDtype(pa.large_string()))),
    "decimals": lambda: PLAIN.assign(b=[decimal.Decimal(int(each)) for each in PLAIN["b"]]),
    "decimals of Arrow": lambda: PLAIN.assign(b=PLAIN["b"].astype(pd.ArrowDtype(pa.decimal128(25, 2)))),
}


@pytest.mark.parametrize("kind", ARROW)
def test_the_same_values_in_other_types(kind):
    assert np.allclose(valued(ARROW[kind]()), valued(PLAIN), equal_nan=True)


@pytest.mark.parametrize("arrow", [False, True])
def test_durations_are_their_seconds(arrow, tmp_path):
    took = pd.to_timedelta(PLAIN["b"], unit="min")
    table = PLAIN.assign(b=took.astype(pd.ArrowDtype(pa.duration("us"))) if arrow else took)
    assert needs_encoding(table)
    assert TableEncoder().fit(table).transform(table)[:, 1].tolist() == (PLAIN["b"] * 60).tolist()
    assert np.allclose(valued(table), valued(PLAIN.assign(b=PLAIN["b"] * 60)), equal_nan=True)
    table.assign(y=TARGET).to_parquet(tmp_path / "x.parquet")
    assert np.allclose(valued(open_table(tmp_path / "x.parquet", "y")[0]), valued(table), equal_nan=True)


def test_missing_numbers_and_booleans_of_arrow():
    numbers = pd.Series([1, None, 3] * 4, dtype="int64[pyarrow]")
    flags = pd.Series([True, False, None] * 4, dtype="bool[pyarrow]")
    found = TableEncoder().fit(pd.DataFrame({"n": numbers, "f": flags}))
    assert found.filled["n"] == 4


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([decimal.Decimal(1), None, decimal.Decimal(3)] * 4, dtype=pd.ArrowDtype(pa.decimal128(9, 2))),
        pd.Series([datetime.timedelta(seconds=1), None, datetime.timedelta(seconds=3)] * 4, dtype=object),
        pd.Series(pd.to_timedelta([1, None, 3] * 4, unit="s")).astype(pd.ArrowDtype(pa.duration("ns"))),
    ],
    ids=["decimals of Arrow", "durations as objects", "durations of Arrow"],
)
def test_other_numbers_with_blanks(column):
    found = TableEncoder().fit(pd.DataFrame({"x": column}))
    assert (found.numbers, found.filled) == (["x"], {"x": 4})
    assert sorted(set(found.transform(pd.DataFrame({"x": column}))[:, 0])) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series([[1], [2]] * 6, dtype=pd.ArrowDtype(pa.list_(pa.int64()))), "none of which can be valued .x: text"),
        (
            pd.Series(
                ["no words are said twice of a day, so that these are text"]
                + [f"nor is {n} said of any day" for n in range(11)]
            ),
            "x: text",
        ),
    ],
    ids=["lists", "prose"],
)
def test_what_is_no_column_of_numbers_or_categories(column, message):
    with pytest.raises(DataError, match=message):
        TableEncoder().fit(pd.DataFrame({"x": column}))


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_dates_are_days_months_and_weekdays(zone):
    dates = pd.Series(pd.date_range("2026-01-01", periods=12, freq="9h", tz=zone))
    kind = f"timestamp[ns{', tz=UTC' if zone else ''}][pyarrow]"
    for column in (dates, dates.astype(kind), dates.dt.strftime("%Y-%m-%d %H:%M")):
        found = TableEncoder().fit(pd.DataFrame({"x": column})).transform(pd.DataFrame({"x": column}))
        assert found[:2].tolist() == [[20454.0, 1.0, 3.0, 0.0], [20454.375, 1.0, 3.0, 9.0]]


class WithoutGaps(ClassifierMixin, BaseEstimator):
    """Refuses class numbers with gaps, as XGBoost does."""

    def fit(self, table, labels):
        found = np.unique(labels)
        if not np.array_equal(found, np.arange(len(found))):
            raise ValueError(f"Invalid classes inferred from unique values of `y`. Expected: {np.arange(len(found))}")
        self.tree = DecisionTreeClassifier(random_state=0).fit(table, labels)
        self.classes_ = self.tree.classes_
        return self

    def predict(self, table):
        return self.tree.predict(table)

    def predict_proba(self, table):
        return self.tree.predict_proba(table)


@pytest.mark.parametrize("labels", [np.arange(24) % 12 // 4 * 1, np.array(list("abc"))[np.arange(24) % 12 // 4]])
def test_learners_that_want_classes_without_gaps(labels):
    table = pd.DataFrame({"a": np.arange(24.0) % 12, "b": RNG.normal(size=24)})
    rare = np.concatenate([labels[:22], labels[:1], labels[11:12]])
    found = TwoDOOB(n_estimators=60, estimator=WithoutGaps(), random_state=0).fit(table.to_numpy(), rare)
    like = TwoDOOB(n_estimators=60, estimator=DecisionTreeClassifier(random_state=0), random_state=0)
    assert found.oob_score_ == pytest.approx(like.fit(table.to_numpy(), rare).oob_score_, abs=0.15)
    assert set(found.predict(table.to_numpy())) <= set(labels)


def test_a_coreset_may_drop_a_class():
    table = np.concatenate([RNG.normal(size=(20, 2)) + 6 * kind for kind in range(3)])
    labels = np.repeat([0, 1, 2], 20)
    run = train_robust(WithoutGaps(), (table, labels), crust=Crust(fraction=0.5), folds=2, rounds=2)
    assert set(run.model.predict(table)) <= {0, 1, 2}


@pytest.mark.parametrize("name", ["None", "NA", "null", "nan", "n/a", "<NA>"])
def test_texts_that_look_missing_are_names_in_columns_of_text(name, tmp_path):
    kind = np.where(PLAIN["a"] > 0, name, "other")
    PLAIN.assign(kind=kind, b=["NA" if row == 3 else each for row, each in enumerate(PLAIN["b"])]).to_csv(
        tmp_path / "x.csv", index=False
    )
    features, target = open_table(tmp_path / "x.csv", "kind")
    assert sorted(target.unique()) == sorted({name, "other"})
    assert (features["b"].isna().sum(), features["b"].dtype.kind) == (1, "f")
    features, _ = open_table(tmp_path / "x.csv", "a")
    assert sorted(features["kind"].unique()) == sorted({name, "other"})
