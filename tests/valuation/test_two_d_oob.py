"""TwoDOOB against explicit loops, its identities, invariances, and messages."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import check_estimator

from memloc.data import TableSpec
from memloc.errors import DataError, MemlocWarning, SpecError
from memloc.valuation import TwoDOOB, _estimator, _learners
from memloc.valuation._draws import draw, learner_seeds


def table(rows=30, columns=6, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, columns))
    y = np.argmax(X[:, :classes] + 0.5 * generator.normal(size=(rows, classes)), axis=1)
    return X, y


def oracle(X, y, fitted, *, k, distance=0.0, regression=False):
    """Explicit loops over learners and cells, from REFERENCE B1 alone; trees as scikit-learn fits them."""
    rows, columns = X.shape
    total, count, row_total, row_count = (np.zeros(shape) for shape in ((rows, columns), (rows, columns), rows, rows))
    for seed in learner_seeds(fitted._entropy, fitted.n_estimators):
        one = draw(int(seed), rows=rows, groups=columns, drawn=k)
        part = X[:, one.groups].astype(np.float32)
        kind = DecisionTreeRegressor if regression else DecisionTreeClassifier
        tree = kind(max_features="sqrt", random_state=one.seed).fit(part, y, sample_weight=one.counts)
        bag = np.repeat(np.arange(rows), one.counts)
        scaled = ((X - X.mean(0)) / X.std(0))[:, one.groups]
        far = (
            [np.linalg.norm(scaled[i] - scaled[[b for b in bag if y[b] == y[i]]].mean(0)) for i in range(rows)]
            if distance
            else []
        )
        for i in range(rows):
            if one.counts[i]:
                continue
            guess = tree.predict(part[i : i + 1])[0]
            utility = -((y[i] - guess) ** 2) if regression else float(y[i] == guess)
            if distance:
                low, high = min(far[b] for b in bag), max(far[b] for b in bag)
                utility += distance * -min(max((far[i] - low) / (high - low), 0), 1)
            row_total[i] += utility
            row_count[i] += 1
            for j in one.groups:
                total[i, j] += utility
                count[i, j] += 1
    with np.errstate(invalid="ignore"):
        return total / count, count, row_total / row_count


@pytest.mark.parametrize(("distance", "regression"), [(0.0, False), (0.7, False), (0.0, True)])
def test_equals_explicit_loops(distance, regression):
    X, y = table()
    y = X[:, 0] * 2 + X[:, 1] if regression else y
    fitted = TwoDOOB(
        40, distance_weight=distance, utility="squared_error" if regression else "accuracy", random_state=3
    ).fit(X, y)
    values, counts, rows = oracle(X, y, fitted, k=3, distance=distance, regression=regression)
    assert np.array_equal(fitted.cell_counts_, counts)
    np.testing.assert_allclose(fitted.cell_values_, values, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fitted.row_values_, rows, rtol=0, atol=1e-12)
    total = np.nansum(values * counts, axis=0) / counts.sum(axis=0)
    np.testing.assert_allclose(fitted.column_values_, total, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fitted.cell_contrast_, values - rows[:, None], rtol=0, atol=1e-12)


def test_a_row_is_its_cells_together():
    X, y = table()
    fitted = TwoDOOB(60, random_state=0).fit(X, y)
    cells = np.nansum(fitted.cell_values_ * fitted.cell_counts_, axis=1) / fitted.cell_counts_.sum(axis=1)
    np.testing.assert_allclose(fitted.row_values_, cells, rtol=0, atol=1e-14)
    assert np.array_equal(fitted.cell_counts_.sum(axis=1), 3 * fitted.row_counts_)


def test_with_all_columns_every_cell_is_its_row():
    X, y = table()
    fitted = TwoDOOB(30, max_features=1.0, random_state=0).fit(X, y)
    assert np.array_equal(fitted.cell_values_, np.repeat(fitted.row_values_[:, None], 6, axis=1))


def test_expected_number_of_learners_per_cell():
    X, y = table(rows=50)
    counts = TwoDOOB(400, random_state=0).fit(X, y).cell_counts_
    assert counts.mean() == pytest.approx(400 * 0.5 * (1 - 1 / 50) ** 50, rel=0.02)


@pytest.mark.parametrize("utility", ["accuracy", "squared_error"])
def test_same_bits_for_any_workers_and_blocks(utility, monkeypatch):
    X, y = table()
    one = TwoDOOB(25, utility=utility, random_state=0).fit(X, y)
    for jobs, block in ((2, 8), (1, 1), (1, 100)):
        monkeypatch.setattr(_estimator, "_BLOCK", block)
        other = TwoDOOB(25, utility=utility, n_jobs=jobs, random_state=0).fit(X, y)
        for name in ("cell_values_", "cell_stderr_", "row_values_", "column_values_"):
            assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)


def test_permuting_rows_with_their_draws_changes_nothing(monkeypatch):
    X, y = table(rows=40)
    X = X.round(1)  # ties
    one = TwoDOOB(40, random_state=0).fit(X, y)
    order = np.random.default_rng(1).permutation(40)

    def permuted(seed, **sizes):
        drawn = draw(seed, **sizes)
        return type(drawn)(drawn.counts[order], drawn.groups, drawn.seed)

    monkeypatch.setattr(_learners, "draw", permuted)
    two = TwoDOOB(40, random_state=0).fit(X[order], y[order])
    assert np.array_equal(two.cell_values_, one.cell_values_[order], equal_nan=True)


@pytest.mark.parametrize("names", [["b", "c", "a"], [4, 3, 9], [-1.0, 0.0, -2.0], [True, False]])
def test_names_of_labels_change_nothing(names):
    X, y = table(classes=len(names))
    X = X.round(1)
    one = TwoDOOB(40, random_state=0).fit(X, y)
    two = TwoDOOB(40, random_state=0).fit(X, np.array(names)[y])
    assert np.array_equal(one.cell_values_, two.cell_values_, equal_nan=True)
    assert one.oob_score_ == two.oob_score_
    assert set(two.predict(X)) <= set(names)


def test_estimators_are_those_that_were_fitted():
    X, y = table()
    fitted = TwoDOOB(12, random_state=0).fit(X, y)
    assert len(fitted.estimators_) == len(fitted.estimators_samples_) == len(fitted.estimators_features_) == 12
    votes = np.zeros((30, 3))
    for tree, rows, columns in zip(
        fitted.estimators_, fitted.estimators_samples_, fitted.estimators_features_, strict=True
    ):
        assert len(rows) == 30
        outside = np.setdiff1d(np.arange(30), rows)
        votes[outside, tree.predict(X[outside][:, columns]).astype(int)] += 1
    covered = votes.any(axis=1)
    in_order = votes[:, fitted._task.places]  # of equal votes the first code wins
    label = fitted.classes_[fitted._task.places[in_order.argmax(axis=1)]]
    assert fitted.oob_score_ == pytest.approx((label == y)[covered].mean())


@pytest.mark.parametrize("estimator", [None, LogisticRegression(), KNeighborsClassifier(3)])
def test_learners_predict_places_among_the_classes(estimator):
    X, y = table()
    X = X + 4 * (y == 1)[:, None] - 4 * (y == 2)[:, None]
    names = np.array(["z", "m", "a"])[y]
    fitted = TwoDOOB(10, max_features=1.0, estimator=estimator, random_state=0).fit(X, names)
    for learner, columns in zip(fitted.estimators_, fitted.estimators_features_, strict=True):
        assert (fitted.classes_[learner.predict(X[:, columns]).astype(int)] == names).mean() > 0.8


@pytest.mark.parametrize("estimator", [LogisticRegression(), KNeighborsClassifier(3), None])
def test_any_weak_learner(estimator):
    X, y = table(rows=60)
    fitted = TwoDOOB(30, estimator=estimator, random_state=0).fit(X, y)
    assert fitted.oob_score_ > 0.5
    assert fitted.score(X, y) > 0.6
    again = TwoDOOB(30, estimator=estimator, random_state=0, n_jobs=2).fit(X, y)
    assert np.array_equal(fitted.cell_values_, again.cell_values_, equal_nan=True)


def test_regression_with_any_learner_and_utility():
    X, _ = table(rows=60)
    y = X[:, 0] - X[:, 1]
    fitted = TwoDOOB(
        60, estimator=LinearRegression(), utility=lambda true, guess: -np.abs(true - guess), random_state=0
    ).fit(X, y)
    assert fitted.oob_score_ > 0.5
    assert (fitted.row_values_ <= 0).all()
    assert fitted.column_values_[0] > fitted.column_values_[3]


def test_a_callable_utility_is_given_the_users_labels():
    X, y = table()
    seen = []
    names = np.array(["x", "y", "z"])[y]

    def utility(true, guess):
        seen.append((set(true), set(guess)))
        return (true == guess).astype(float)

    fitted = TwoDOOB(20, utility=utility, random_state=0).fit(X, names)
    assert all(true <= {"x", "y", "z"} and guess <= {"x", "y", "z"} for true, guess in seen)
    assert np.array_equal(fitted.cell_values_, TwoDOOB(20, random_state=0).fit(X, names).cell_values_, equal_nan=True)


def test_groups_are_drawn_together():
    X, y = table()
    fitted = TwoDOOB(40, groups=["a", "b", "a", "c", "b", "b"], max_features=1, random_state=0).fit(X, y)
    assert np.array_equal(fitted.cell_values_[:, 0], fitted.cell_values_[:, 2], equal_nan=True)
    assert np.array_equal(fitted.cell_counts_[:, 1], fitted.cell_counts_[:, 5])
    assert {tuple(columns) for columns in fitted.estimators_features_} == {(0, 2), (1, 4, 5), (3,)}


@pytest.mark.parametrize("groups", [["c", "a", "b"], [2, 0, 0]])
def test_values_stand_with_the_columns_that_were_used_whatever_groups_are_called(groups):
    X = np.random.default_rng(0).normal(size=(40, 3))
    fitted = TwoDOOB(40, groups=groups, max_features=1, random_state=0).fit(X, X[:, 0] > 0)
    used = np.zeros(X.shape)
    for rows, columns in zip(fitted.estimators_samples_, fitted.estimators_features_, strict=True):
        used[np.ix_(np.setdiff1d(np.arange(40), rows), columns)] += 1
    assert np.array_equal(fitted.cell_counts_, used)
    assert fitted.column_values_.argmax() == 0  # the label is the sign of column 0


def test_a_category_before_the_numbers_is_valued_as_itself():
    X = np.random.default_rng(0).normal(size=40)
    frame = pd.DataFrame({"idle": ["x", "y"] * 20, "tells": X, "always": ["x"] * 40})
    with pytest.warns(MemlocWarning, match="left out, since every cell is the same or missing: always"):
        fitted = TwoDOOB(40, max_features=1, random_state=0).fit(frame, X > 0)
    assert fitted.column_values_[1] > 0.9 > fitted.column_values_[0]
    assert np.isnan(fitted.cell_values_[:, 2]).all()
    assert (fitted.cell_counts_[:, 2] == 0).all()
    assert len(fitted.predict(frame)) == 40


def test_a_cell_never_covered_has_no_value():
    X, y = table()
    fitted = TwoDOOB(1, random_state=0).fit(X, y)
    bare = fitted.cell_counts_ == 0
    assert bare.any()
    assert np.isnan(fitted.cell_values_[bare]).all()
    assert np.isnan(fitted.cell_stderr_[bare]).all()
    assert not np.isnan(fitted.cell_values_[~bare]).any()


def test_three_of_three_is_no_certainty():
    X = np.r_[np.zeros((20, 2)), np.ones((20, 2))]
    fitted = TwoDOOB(20, random_state=0).fit(X, np.repeat([0, 1], 20))
    n = fitted.row_counts_
    assert (fitted.row_values_ == 1).all()
    assert n.min() < 5
    share = (n + 2) / (n + 4)  # Agresti and Coull: two successes and two failures more
    np.testing.assert_allclose(fitted.row_stderr_, np.sqrt(share * (1 - share) / (n + 4)), atol=1e-12)


def test_standard_errors_are_those_of_other_draws():
    X, y = table(rows=60)
    fits = [TwoDOOB(100, random_state=seed).fit(X, y) for seed in range(30)]
    spread = np.std([one.row_values_ for one in fits], axis=0, ddof=1).mean()
    stated = np.mean([one.row_stderr_ for one in fits])
    assert stated == pytest.approx(spread, rel=0.15)


def test_warm_start_adds_to_what_is_there():
    X, y = table()
    grown = TwoDOOB(20, warm_start=True, random_state=0).fit(X, y)
    first = grown.estimators_[:20]
    grown.set_params(n_estimators=50).fit(X, y)
    whole = TwoDOOB(50, random_state=0).fit(X, y)
    assert grown.estimators_[:20] == first
    assert np.array_equal(grown.cell_values_, whole.cell_values_, equal_nan=True)
    with pytest.raises(SpecError, match="Expected the same"):
        grown.fit(X + 1, y)


def test_an_interrupted_fit_keeps_its_learners(monkeypatch):
    X, y = table()
    real, calls = _estimator._run_block, []

    def interrupted(task, seeds):
        calls.append(seeds)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(task, seeds)

    monkeypatch.setattr(_estimator, "_run_block", interrupted)
    halted = TwoDOOB(60, warm_start=True, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        halted.fit(X, y)
    assert len(halted.estimators_) == 2 * _estimator._BLOCK
    assert np.isfinite(halted.row_values_).any()
    halted.fit(X, y)
    assert np.array_equal(halted.cell_values_, TwoDOOB(60, random_state=0).fit(X, y).cell_values_, equal_nan=True)


@pytest.mark.parametrize("warm", [False, True])
def test_an_interrupt_while_adding_up_leaves_whole_learners(monkeypatch, warm):
    from memloc.valuation._sums import CellSums

    X, y = table()
    real, calls = CellSums.add, []

    def interrupted(sums, outcomes):
        real(sums, outcomes)
        calls.append(outcomes)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(CellSums, "add", interrupted)
    halted = TwoDOOB(60, warm_start=warm, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        halted.fit(X, y)
    done = 2 * _estimator._BLOCK
    part = TwoDOOB(done, random_state=0).fit(X, y)
    assert len(halted.estimators_) == done
    assert np.array_equal(halted.row_counts_, part.row_counts_)
    halted.set_params(warm_start=True).fit(X, y)
    whole = TwoDOOB(60, random_state=0).fit(X, y)
    assert np.array_equal(halted.row_counts_, whole.row_counts_)
    assert np.array_equal(halted.cell_values_, whole.cell_values_, equal_nan=True)


def test_a_refused_fit_leaves_the_last_one():
    X, y = table()
    fitted = TwoDOOB(20, warm_start=True, random_state=0).fit(X, y)
    before = fitted.predict(X)
    for other in (X[:, :3], X + 1):
        with pytest.raises(SpecError, match="Expected the same"):
            fitted.fit(other, np.array(["a", "b", "c"])[y])
    assert fitted.n_features_in_ == X.shape[1]
    assert np.array_equal(fitted.predict(X), before)
    weights = [LogisticRegression(class_weight=dict.fromkeys(range(400), weight)) for weight in (1.0, 2.0)]
    grown = TwoDOOB(5, estimator=weights[0], warm_start=True, random_state=0).fit(X, y)
    with pytest.raises(SpecError, match="Expected the same"):  # their texts are cut short and equal
        grown.set_params(estimator=weights[1], n_estimators=6).fit(X, y)


def test_tol_stops_when_rows_are_sure():
    X, y = table()
    fitted = TwoDOOB(2000, tol=0.08, random_state=0).fit(X, y)
    assert len(fitted.estimators_) < 2000
    assert fitted.row_stderr_.max() < 0.08
    assert len(fitted.estimators_) % 50 == 0
    before = TwoDOOB(len(fitted.estimators_) - 50, random_state=0).fit(X, y)
    assert before.row_stderr_.max() >= 0.08
    assert np.array_equal(fitted.cell_values_, TwoDOOB(2000, tol=0.08, n_jobs=2, random_state=0).fit(X, y).cell_values_)


NOT_OF_BAGGING = {  # a learner draws rows, so that a row twice is drawn more often than one of weight 2
    f"check_sample_weight_equivalence_on_{kind}_data": "rows are drawn whatever they weigh"
    for kind in ("dense", "sparse")
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("utility", ["accuracy", "squared_error"])
def test_is_a_scikit_learn_estimator(utility):
    check_estimator(TwoDOOB(10, utility=utility), expected_failed_checks=NOT_OF_BAGGING)


def test_frames_with_categories_and_missing_values():
    generator = np.random.default_rng(0)
    size, colour = generator.normal(size=80), generator.choice(["red", "blue", "green"], 80)
    y = np.where((size > 0) ^ (colour == "red"), "yes", "no")
    X = pd.DataFrame(
        {"size": size, "colour": colour, "old": generator.random(80) < 0.5, "noise": generator.normal(size=80)}
    )
    X.loc[3, "size"], X.loc[5, "colour"] = np.nan, None
    fitted = TwoDOOB(80, max_features=0.75, random_state=0).fit(X, y)
    assert fitted.cell_values_.shape == (80, 4)
    assert list(fitted.feature_names_in_) == list(X)
    assert fitted.column_values_[:2].min() > fitted.column_values_[2:].max()
    assert fitted.score(X, y) > 0.9
    frame = fitted.to_frame()
    assert list(frame) == ["row", "column", "value", "stderr", "n_draws"]
    assert frame.loc[4, ["row", "column"]].tolist() == [1, "size"]
    assert frame["value"].to_numpy() == pytest.approx(fitted.cell_values_.ravel(), nan_ok=True)
    # size and its mark, old, noise, and the four colours (one is "missing"): three of the four columns
    assert {len(columns) for columns in fitted.estimators_features_} == {4, 6, 7}
    with pytest.raises(DataError, match="'noise' misses a number, and none was missing in the fit"):
        fitted.predict(X.assign(noise=np.nan))


def test_columns_may_be_named_by_numbers():
    y = np.tile([0, 1], 40)
    informative, noise = np.where(y, "a", "b"), np.random.default_rng(0).choice(["c", "d"], 80)
    by_text = TwoDOOB(20, random_state=0).fit(pd.DataFrame({"1": informative, "0": noise}), y)
    by_number = TwoDOOB(20, random_state=0).fit(pd.DataFrame({1: informative, 0: noise}), y)
    assert by_number.column_values_.tolist() == by_text.column_values_.tolist()
    assert by_number.column_values_[0] == 1.0
    with pytest.raises(DataError, match="column 1 misses a category, and none was missing"):
        by_number.predict(pd.DataFrame({1: [None], 0: ["c"]}))


def test_what_is_filled_in_is_said_in_regression_too():
    X, _ = table()
    holed = pd.DataFrame(X).rename(columns=str)
    holed.iloc[3, 0] = np.nan
    with pytest.warns(MemlocWarning, match="replaced by the column's median, beside a column that says so: 0 .1.."):
        TwoDOOB(5, utility="squared_error", random_state=0).fit(holed, X[:, 1])


def frame(**columns):
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("settings", "X", "y", "error", "message"),
    [
        ({}, np.ones((4, 2)), [1, 1, 1, 1], DataError, "the target has one class, .*1"),
        ({}, np.ones((1, 2)), [1], ValueError, "1 sample"),
        ({}, np.ones((0, 2)), [], ValueError, "0 sample"),
        (
            {"estimator": LogisticRegression()},
            [[1.0, np.nan], [1, 2]],
            [0, 1],
            DataError,
            "column 1 holds NaN, first in row 0",
        ),
        ({"distance_weight": 1}, [[1.0, np.nan], [1, 2]], [0, 1], DataError, "column 1 holds NaN, first in row 0"),
        ({}, [[1.0, np.inf], [1, 2]], [0, 1], DataError, "column 1 holds inf"),
        ({}, frame(a=[None, None], b=[1, 1]), [0, 1], DataError, "none of which can be valued .a: empty, b: constant"),
        ({"columns": TableSpec(drop="c")}, frame(a=[1, 2]), [0, 1], SpecError, "drop=c: there is no such column"),
        ({}, np.ones((3, 2)), np.ones((3, 2)), DataError, "there are 2 targets a row"),
        ({"max_samples": 0}, np.ones((2, 2)), [0, 1], SpecError, "max_samples is 0"),
        ({"class_weight": {7: 2.0}}, np.ones((2, 2)), [0, 1], SpecError, "class_weight names 7, which is no class"),
        (
            {"utility": "squared_error", "class_weight": "balanced"},
            np.ones((2, 2)),
            [0, 1],
            SpecError,
            "for a regression",
        ),
        (
            {"estimator": KNeighborsClassifier(), "class_weight": "balanced"},
            np.ones((2, 2)),
            [0, 1],
            SpecError,
            "takes none",
        ),
        ({}, np.ones((60, 2)), np.arange(60) // 2.0, DataError, "30 different numbers, all whole, as floats"),
        ({}, pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), [0, 1], DataError, "two columns named 'a'"),
        ({}, np.ones((2, 2)), [0, None], DataError, "target is missing"),
        ({"max_features": 3}, np.ones((2, 2)), [0, 1], SpecError, "max_features is 3 and there are 2 columns"),
        ({"max_features": 0.0}, np.ones((2, 2)), [0, 1], SpecError, "max_features is 0.0"),
        ({"max_features": "all"}, np.ones((2, 2)), [0, 1], SpecError, "max_features is 'all'"),
        ({"groups": [1]}, np.ones((2, 2)), [0, 1], SpecError, r"groups has shape \(1,\) and the table 2 columns"),
        ({"groups": ["a", None]}, np.ones((2, 2)), [0, 1], SpecError, "groups mixes text with other values"),
        ({"tol": "low"}, np.ones((2, 2)), [0, 1], SpecError, "tol is 'low'. Expected a number"),
        ({"n_jobs": "two"}, np.ones((2, 2)), [0, 1], SpecError, "n_jobs is 'two'. Expected a number"),
        ({"estimator": KMeans()}, np.ones((2, 2)), [0, 1], SpecError, "KMeans, neither a classifier nor a regressor"),
        ({"utility": "squared_error"}, np.ones((3, 2)), [2.5] * 3, DataError, "the target is 2.5 in every row"),
        ({}, [[1.0, "x"], [2.0, "y"]], [0, 1], DataError, "column 1 holds text, first 'x' in row 0"),
        ({}, pd.DataFrame(index=[0, 1]), [0, 1], DataError, "0 feature"),
        ({"utility": "f1"}, np.ones((2, 2)), [0, 1], SpecError, "no utility 'f1'"),
        ({"n_estimators": 0}, np.ones((2, 2)), [0, 1], SpecError, "n_estimators is 0"),
        (
            {"utility": "squared_error", "distance_weight": 1},
            np.ones((2, 2)),
            [0, 1],
            SpecError,
            "distance_weight is 1",
        ),
        (
            {"estimator": LinearRegression()},
            np.ones((2, 2)),
            [0, 1],
            SpecError,
            "regressor and the utility is 'accuracy'",
        ),
    ],
)
def test_messages(settings, X, y, error, message):
    with pytest.raises(error, match=message):
        TwoDOOB(**{"n_estimators": 5, **settings}).fit(X, y)


def test_what_may_surprise_is_said():
    X, y = table()
    X[:, 2], y[:] = 7.0, np.r_[0, np.repeat([1, 2], [14, 15])]
    with pytest.warns(MemlocWarning) as said:
        fitted = TwoDOOB(20, random_state=0).fit(X, y)
    assert any("the class 0 has one row" in str(one.message) for one in said)
    assert any("column 2 is constant" in str(one.message) for one in said)
    assert fitted.row_values_[0] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TwoDOOB(5, random_state=0).fit(*table())
