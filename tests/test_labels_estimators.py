"""Labels through the estimators: as through `fit`, exactly; and classes of a few rows beside early stopping."""

import enum

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from test_labels import ALIKE, INTEGERS, NAMES, STRINGS, X, Y, library

import dlx
from dlx.estimators import inputs

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
BIG = 2**53


def classifier(**how):
    return dlx.MLPClassifier((4,), max_iter=2, random_state=0, **how)


@pytest.mark.parametrize(("make", "plain"), ALIKE, ids=[*INTEGERS, *(f"str {name}" for name in STRINGS)])
def test_the_same_labels_in_another_container_give_the_same_classes(make, plain):
    y = make()
    clf, other = classifier().fit(X, y), classifier().fit(X, plain)
    assert clf.classes_.tolist() == dlx.fit(X, y, (8, 3), epochs=1).classes.tolist() == sorted({*plain.tolist()})
    np.testing.assert_array_equal(clf.coefs_[0], other.coefs_[0])
    assert clf.score(X, y) == accuracy_score(plain, other.predict(X))
    watched = classifier(early_stopping=True).fit(X, plain, X_val=X, y_val=y)
    assert watched.validation_scores_[-1] == watched.score(X, plain)
    classifier(warm_start=True).fit(X, plain).fit(X, y).partial_fit(X, y)


@pytest.mark.parametrize("first", ["i8", "u8", object, "list"])
@pytest.mark.parametrize("then", ["i8", "u8", object, "list"])
def test_parts_with_labels_of_another_dtype_are_told_apart(first, then):
    """`partial_fit(X, y.astype("u8"), classes=[2**53, 2**53 + 1])` learned one class, of float64."""
    y, classes = np.where(X[:, 0] > 0, BIG + 1, BIG), np.array([BIG, BIG + 1])
    classes = classes.tolist() if first == "list" else classes.astype(first)
    part = y.tolist() if then == "list" else y.astype(then)
    clf = dlx.MLPClassifier((8,), learning_rate_init=0.05, random_state=0)
    for _ in range(20):
        clf.partial_fit(X, part, classes=classes)
    assert clf.classes_.tolist() == [BIG, BIG + 1]
    assert {*clf.predict(X).tolist()} == {BIG, BIG + 1}
    assert np.mean([one == other for one, other in zip(clf.predict(X).tolist(), y.tolist(), strict=True)]) > 0.9
    assert clf.score(X, part) > 0.9
    with pytest.raises(ValueError, match=rf"`y` has classes not in `self.classes_`; got \[{BIG + 2}\]"):
        clf.partial_fit(X, (y + 2 * (y == BIG)).astype("u8"))
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        clf.partial_fit(X, part, classes=[BIG, BIG + 2])


def test_a_scorer_sees_labels_that_it_takes():
    """scikit-learn's metrics refuse objects that are integers."""
    how = {"early_stopping": True, "scoring": "accuracy"}
    clf, plain = classifier(**how).fit(X, Y.astype(object)), classifier(**how).fit(X, Y)
    assert clf.validation_scores_ == plain.validation_scores_
    clf = classifier(scoring="accuracy").fit(X, Y, X_val=X, y_val=Y.astype(object))
    assert clf.validation_scores_[-1] == clf.score(X, Y)


@pytest.mark.parametrize("then", ["i8", "u8", object])
def test_a_warm_start_and_validation_rows_tell_labels_apart(then):
    y = BIG + Y
    clf = classifier(warm_start=True).fit(X, y).fit(X, y.astype(then))
    assert clf.classes_.tolist() == [BIG, BIG + 1, BIG + 2]
    with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same classes"):
        clf.fit(X, (y + 1).astype(then))
    clf = classifier().fit(X, y, X_val=X, y_val=y.astype(then))
    assert clf.validation_scores_[-1] == clf.score(X, y)
    with pytest.raises(
        ValueError, match=rf"in X_val, y_val: `y` has classes not in `self.classes_`; got \[{BIG + 3}\]"
    ):
        classifier().fit(X, y, X_val=X, y_val=(y + 1).astype(then))


def test_strings_that_differ_by_a_nul_are_two():
    y = np.array(["a", "a\0", "b"], object)[Y]
    clf = classifier().fit(X, y)
    assert clf.classes_.tolist() == ["a", "a\0", "b"]
    np.testing.assert_array_equal(
        clf.predict(X), np.array(["a", "a\0", "b"], object)[classifier().fit(X, Y).predict(X)]
    )


@pytest.mark.parametrize(
    ("y", "kind", "text"),
    [
        (
            NAMES[Y].astype("S1"),
            TypeError,
            r"`y` must hold strings, not bytes; got b'a' at row 0\. Decode them: \[each",
        ),
        (NAMES[Y].astype("S1").tolist(), TypeError, r"`y` must hold strings, not bytes; got b'a' at row 0\. Decode"),
        ([0, 1, None] * 20, ValueError, r"`y` must have no missing labels; got None at row 2\. Fill or drop such rows"),
        (["a", 1, "b"] * 20, TypeError, r"`y` must hold labels of one kind; got 1 at row 1 among strings"),
        (Y.astype(object) + 2**64, ValueError, r"`y` must hold labels that 64 bits hold exactly; got numbers from"),
    ],
)
def test_other_labels_are_refused_as_by_fit(y, kind, text):
    for call in (lambda: classifier().fit(X, y), lambda: classifier().fit(X, Y).score(X, y)):
        with pytest.raises(kind, match=text):
            call()


# -- early stopping beside rare classes --


@pytest.mark.parametrize("labels", [(0, 1), ("no", "yes"), (False, True), (5, 7)], ids=str)
@pytest.mark.parametrize("rare", [0, 1])
def test_a_class_of_one_row_is_trained_on(labels, rare):
    """One row of a class gave scikit-learn's "least populated classes ... ['True']", no label of the user's."""
    places = np.full(len(X), 1 - rare)
    places[17] = rare
    for seed in range(5):
        clf = dlx.MLPClassifier((4,), max_iter=2, early_stopping=True, validation_fraction=0.5, random_state=seed)
        assert clf.fit(X, np.array(labels)[places]).classes_.tolist() == [*labels]


@pytest.mark.parametrize("counts", [[59, 1], [1, 59], [30, 28, 1, 1], [57, 1, 1, 1]])
def test_every_class_has_a_row_to_train_on(counts):
    groups = np.repeat(np.arange(len(counts)), counts)
    for seed in range(30):
        rows, held = inputs.validation_split(60, 0.5, groups, np.random.RandomState(seed))
        assert sorted([*rows, *held]) == [*range(60)]
        assert len(held) == 30
        assert {*groups[rows]} == {*groups}


def test_more_classes_than_rows_to_train_on():
    groups = np.array([0, 0, 1, 2, 3, 4])
    rows, held = inputs.validation_split(6, 0.5, groups, np.random.RandomState(0))
    assert len({*groups[rows]}) == len(rows) == len(held) == 3


def test_what_is_left_to_say_names_no_label_of_its_own():
    with pytest.raises(ValueError, match=r"The validation set is too small: 1 of 4 rows\. Raise validation_fraction"):
        dlx.MLPClassifier(early_stopping=True).fit([[1, 2], [2, 3], [3, 4], [4, 5]], [0, 0, 0, 1])


def test_two_classes_with_rows_enough_are_split_as_by_scikit_learn():
    from sklearn.model_selection import train_test_split

    y = np.repeat([0, 1], [40, 20])
    rows, held = inputs.validation_split(60, 0.1, y, np.random.RandomState(3))
    expected = train_test_split(np.arange(60), random_state=np.random.RandomState(3), test_size=0.1, stratify=y)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(held, expected[1])


class Colour(str, enum.Enum):  # noqa: UP042 - users have both, and only this one prints its name
    RED, GREEN, BLUE = "red", "green", "blue"


def test_members_of_an_enumeration_of_strings_are_their_values():
    """NumPy took their names, cut to the length of the values: ['Col.B', 'Col.G', 'Col.R'], or one label for all."""
    y = [list(Colour)[k] for k in Y]
    assert classifier().fit(X, y).classes_.tolist() == ["blue", "green", "red"]
    net = dlx.fit(X, y, (8, 3), epochs=1, class_weight={Colour.RED: 2.0})
    assert net.classes.tolist() == ["blue", "green", "red"]
    assert net.score(X, y) == net.score(X, [str.__str__(each) for each in y])


@pytest.mark.parametrize("place", ["X", "y", "sample_weight", "predict"])
def test_masked_arrays_are_refused(place):
    """scikit-learn's checks take what is masked for data."""
    weights = np.ones(len(X))
    given = {"X": X, "y": X[:, 0], "sample_weight": weights}
    ask = dlx.MLPRegressor((4,), max_iter=2).fit
    if place == "predict":
        ask, given, place = dlx.MLPRegressor((4,), max_iter=2).fit(X, X[:, 0]).predict, {"X": X}, "X"
    given[place] = np.ma.array(given[place], mask=given[place] > 0.5)
    with pytest.raises(TypeError, match=f"^`{place}` must not be masked; got a masked array"):
        ask(**given)


def test_dates_are_refused_in_every_table():
    """They became nanoseconds, and a loss of 1e14."""
    pandas, pyarrow = library("pandas"), library("pyarrow")
    dates = pandas.date_range("2020", periods=len(X))
    for table in (
        pandas.DataFrame({"a": dates, "b": dates}),
        pyarrow.table({"a": dates, "b": X[:, 1]}),
        np.full((len(X), 2), np.datetime64("2020")),
    ):
        for ask in (classifier().fit, lambda X, y: dlx.fit(X, y, (2, 3), epochs=1)):
            with pytest.raises(TypeError, match=r"^`X` must hold real numbers; got (times in column|dtype datetime)"):
                ask(table, Y)


def test_yes_and_no_of_several_labels_are_0_and_1():
    """1 and 2 were both yes."""
    with pytest.raises(ValueError, match=r"^`y` must hold 0 and 1 for several labels a row; got 2\. Encode no as 0"):
        classifier().fit(X, (X[:, :3] > 0) + 1)


def test_labels_that_scikit_learn_would_merge_stay_here():
    clf = classifier().fit(X, np.array(["a", "a\0", "b"], object)[Y])
    with pytest.raises(ValueError, match=r"^`classes_` must be labels that scikit-learn tells apart, for to_sklearn"):
        clf.to_sklearn()
