"""What is no array of numbers is refused by its kind and by its column, with what mends it."""

import datetime
import decimal
import pathlib
import re
import types

import numpy as np
import pytest
import scipy.sparse

import dlx
from dlx.backend import backend_of, host_array

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
Y = np.arange(60) % 3
NUMBERS = {name: X[:, k] for k, name in enumerate("abc")}
WORDS = ["Rome", "Oslo", "Lima"] * 20
DAYS = np.datetime64("2020-01-01") + np.arange(60)


def pandas(**columns):
    return lambda: pytest.importorskip("pandas").DataFrame({**NUMBERS, **columns})


def series(values, dtype):
    return lambda: pytest.importorskip("pandas").Series(values, dtype=dtype)


def polars(**columns):
    return lambda: pytest.importorskip("polars").DataFrame({**NUMBERS, **columns})


def pyarrow(**columns):
    return lambda: pytest.importorskip("pyarrow").table({**NUMBERS, **columns})


pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ENCODE = "Encode it as numbers, for example with scikit-learn's OneHotEncoder or pandas.get_dummies."
TEXT = f"`X` must hold real numbers; got text ('Rome' at row 0) in column 'city'. {ENCODE}"
TABLES = {  # the whole text, and whether scikit-learn makes numbers of it
    "text": (pandas(city=WORDS), TEXT, False),
    "text of polars": (polars(city=WORDS), TEXT, False),
    "text of pyarrow": (pyarrow(city=WORDS), TEXT, False),
    "text and missing": (
        lambda: pandas(city=[None, *WORDS[1:]])(),
        TEXT.replace("'Rome' at row 0", "'Oslo' at row 1"),
        False,
    ),
    "categories": (lambda: pandas(city=series(WORDS, "category")())(), TEXT, False),
    "several": (
        pandas(city=WORDS, land=WORDS, sea=WORDS, sky=WORDS),
        TEXT.replace("column 'city'.", "column 'city' (and in 'land', 'sea', ...)."),
        False,
    ),
    "a list of rows": ([[1.0, "a"]] * 60, TEXT.replace("'Rome'", "'a'").replace("'city'", "1"), False),
    "an array of objects": (
        np.array([[1.0, "a"]] * 60, object),
        TEXT.replace("'Rome'", "'a'").replace("'city'", "1"),
        False,
    ),
    "numbers as objects": (
        lambda: pandas(n=series(X[:, 3], object)())(),
        "got numbers of dtype object in column 'n'. Convert them with X['n'].astype(float).",
        True,
    ),
    "numbers as objects, some missing": (
        lambda: pandas(n=series([1.5, None] * 30, object)())(),
        "got numbers of dtype object in column 'n'. Convert them with X['n'].astype(float), then fill what is missing.",
        True,
    ),
    "numbers as text": (
        pandas(n=[str(each) for each in Y]),
        "got numbers as text ('0' at row 0) in column 'n'. Convert them with X['n'].astype(float).",
        True,
    ),
    "an array of numbers as objects": (
        X.astype(object),
        "got dtype object. It holds numbers of dtype object: convert them with X.astype(float).",
        True,
    ),
    "times": (
        pandas(day=DAYS.astype("M8[s]")),
        "got times in column 'day'. Make numbers of them, for example (X['day'] - X['day'].min()) / numpy.timedelta",
        False,
    ),
    "times of polars": (
        polars(day=DAYS.astype("M8[ms]")),
        "got times in column 'day'. Make numbers of them, for example X['day'].to_physical().",
        False,
    ),
    "days of Python": (
        pandas(day=[datetime.date(2020, 1, 1)] * 60),
        "got times (datetime.date(2020, 1, 1) at row 0) in column 'day'. Make numbers of them, for example pandas.to_",
        False,
    ),
    "complex numbers": (
        pandas(z=X[:, 0] + 1j),
        "got complex numbers in column 'z'. Pass X['z'].real and X['z'].imag",
        None,
    ),
    "sets": (pandas(s=[{1}] * 60), "got objects of set ({1} at row 0) in column 's'. Encode it as numbers", None),
}


def made(value):
    return value() if callable(value) else value


@pytest.mark.parametrize(("table", "text", "taken"), TABLES.values(), ids=TABLES)
def test_the_column_that_holds_no_numbers_is_named(table, text, taken):
    """A frame with one column of text was refused without saying which, and numbers were to be encoded as numbers."""
    table = made(table)
    with pytest.raises(TypeError, match=re.escape(text)):
        dlx.fit(table, Y, (4, 3), epochs=1)
    if taken is not False:
        return
    for est, y in ((dlx.MLPClassifier((2,)), Y), (dlx.MLPRegressor((2,)), X[:, 0])):
        with pytest.raises((ValueError, TypeError), match=re.escape(text)) as caught:
            est.fit(table, y)
        assert caught.value.__cause__ is not None or "times" in text  # scikit-learn's own words


def test_what_mends_a_column_mends_it():
    frame = pandas(n=[str(each) for each in Y], day=DAYS.astype("M8[s]"))()
    frame["n"] = frame["n"].astype(float)
    frame["day"] = (frame["day"] - frame["day"].min()) / np.timedelta64(1, "D")
    assert dlx.fit(frame, Y, (5, 3), epochs=1).feature_names == [*"abc", "n", "day"]


def test_the_estimators_keep_the_kind_of_error():
    for table in (pandas(city=WORDS)(), [[1.0, "a"]] * 60):
        with pytest.raises(ValueError, match="in column"):
            dlx.MLPClassifier((2,)).fit(table, Y)


@pytest.mark.parametrize("kind", [pandas, polars])
def test_the_column_that_holds_nan_is_named(kind):
    values = X[:, 3].copy()
    values[7] = np.nan
    frame, whole = kind(height=values)(), kind(height=X[:, 3])()
    text = r"`X` must be finite in float64; got nan at row 7, column 'height'\. Fill or drop"
    net = dlx.fit(whole, Y, (4, 3), epochs=1)
    for call in (
        lambda: dlx.fit(frame, Y, (4, 3)),
        lambda: net.predict(frame),
        lambda: net.score(frame, Y),
        lambda: net.report(frame, Y),
        lambda: dlx.fit(whole, Y, (4, 3), stream=True, backend="strict") and dlx.fit(frame, Y, (4, 3), stream=True),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(ValueError, match=text.replace("`X`", "`X_val`")):
        dlx.fit(whole, Y, (4, 3), validation=(frame, Y))
    clf = dlx.MLPClassifier((2,), max_iter=1).fit(whole, Y)
    for call in (lambda: dlx.MLPClassifier().fit(frame, Y), lambda: clf.predict(frame)):
        with pytest.raises(ValueError, match=r"(?s)Input X contains NaN.*The first is at row 7, column 'height'\.$"):
            call()


class Loader:
    """As PyTorch's DataLoader is: it can be gone through, and has a length."""

    def __iter__(self):
        return iter([(X, Y)])

    def __len__(self):
        return 1


class Dataset:
    """As PyTorch's Dataset is: it has rows by number, and a length."""

    def __getitem__(self, row):
        return X[row], Y[row]

    def __len__(self):
        return len(X)


CONTAINERS = {  # what it is called, and the way from it to an array
    "generator": (lambda: (row for row in X), "a generator. Pass list(X), or numpy.stack(list(X)) where it gives"),
    "iterator": (lambda: iter(X), "a iterator. Pass list(X)"),
    "map": (lambda: map(list, X), "a map. Pass list(X)"),
    "zip": (lambda: zip(X, Y, strict=True), "a zip. Pass list(X)"),
    "loader": (
        Loader,
        "a Loader. Put together what it gives: numpy.concatenate([batch[0] for batch in X]) for pairs (X,",
    ),
    "dataset": (Dataset, "a Dataset. Put together what it holds: numpy.stack([row[0] for row in X]) for pairs (x, y)."),
    "name of a file": (
        lambda: "rows.csv",
        "'rows.csv'. Read the file first, for example with pandas.read_csv or numpy.load.",
    ),
    "path": (lambda: pathlib.PurePosixPath("rows.csv"), "a PurePosixPath. Read the file first"),
    "bytes": (lambda: b"1,2,3", "a bytes. Read the file first"),
    "dict": (lambda: {"a": [1.0]}, "a dict. Pass pandas.DataFrame(X), whose columns are its entries."),
    "set": (lambda: {1.0, 2.0}, "a set. A set has no order: pass a list, sorted(X) for example."),
    "None": (lambda: None, "None. Pass the data as `X`."),
}


@pytest.mark.parametrize(("make", "got"), CONTAINERS.values(), ids=CONTAINERS)
def test_what_holds_no_rows_is_told_what_does(make, got):
    """A generator, a DataLoader, a path as X: say what is taken."""
    text = re.escape(
        f"`X` must be an array, a data frame, a SciPy matrix or a list of rows; got {got}".replace("a iter", "")
    )
    if "a iterator" in got:
        text = r"got an? \w*iterator\. Pass list\(X\)"
    net = dlx.fit(X, Y, (4, 3), epochs=1)
    for call in (
        lambda: dlx.fit(make(), Y, (4, 3)),
        lambda: net.predict(make()),
        lambda: dlx.MLPClassifier().fit(make(), Y),
        lambda: dlx.MLPRegressor().fit(make(), X[:, 0]),
    ):
        with pytest.raises(TypeError, match=text):
            call()


@pytest.mark.parametrize("make", [scipy.sparse.dok_array, scipy.sparse.lil_matrix])
def test_sparse_matrices_that_are_dicts_and_lists_are_no_containers(make):
    dlx.MLPClassifier((2,), max_iter=1).fit(make(X), Y)


class Unreadable:
    """What raises when NumPy reads it."""

    def __init__(self, reason):
        self.reason = reason

    def __array__(self, dtype=None, copy=None):
        raise self.reason


class Torn(list):
    """A sequence that raises when it is gone through."""

    def __getitem__(self, row):
        raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (RuntimeError("the file is closed"), ValueError),
        (ValueError("no such chunk"), ValueError),
        (TypeError("a"), TypeError),
    ],
)
def test_an_array_that_cannot_be_read_says_why(reason, kind):
    """It was reported as "rows of different lengths"."""
    text = f"which raises {type(reason).__name__}: {reason}. Pass what numpy.asarray(X) takes."
    for call in (
        lambda: dlx.fit(Unreadable(reason), Y, (4, 3)),
        lambda: dlx.fit(X, Unreadable(reason), (4, 3)),
        lambda: host_array(Unreadable(reason), "X"),
    ):
        with pytest.raises(kind, match=re.escape(text).replace(r"\(X\)", r"\([Xy]\)")) as caught:
            call()
        assert caught.value.__context__ is reason


def test_memory_that_ran_out_stays_what_it_is():
    with pytest.raises(MemoryError):
        host_array(Unreadable(MemoryError()), "X")


def test_rows_of_different_lengths_are_said_to_be_that():
    for rows in ([[1.0], [1.0, 2.0]], [np.ones(2), np.ones(3)], [1.0, [2.0]]):
        with pytest.raises(ValueError, match=r"`X` must be an array, or rows of one length; got rows of different"):
            dlx.fit(rows, [0, 1], (1, 2))


# -- libraries without a backend --


class Foreign:
    """An array of a library that no selector names."""

    device, dtype, shape, ndim = "cpu", np.dtype(float), (60, 4), 2

    def __array_namespace__(self, api_version=None):
        return types.SimpleNamespace(__name__="foreign", asarray=np.asarray)


class Lazy(Foreign):
    """As dask's are."""

    def compute(self):
        return X


class Compressed(Foreign):
    """As those of pydata/sparse are."""

    def todense(self):
        return X

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("use todense")


@pytest.mark.parametrize(("kind", "way"), [(Lazy, "compute"), (Compressed, "todense")])
def test_what_is_told_of_a_library_without_a_backend_works(kind, way):
    """It was `backend='dask:cpu'`, which is refused."""
    x, mend = kind(), rf"Make `X` a NumPy array with X\.{way}\(\)\.$"
    net = dlx.fit(getattr(x, way)(), Y, (4, 3), epochs=1)
    for call in (
        lambda: dlx.fit(x, Y, (4, 3)),
        lambda: dlx.fit(x, Y, (4, 3), backend="numpy"),
        lambda: dlx.fit(x, Y, (4, 3), backend="strict"),
        lambda: dlx.fit(x, dlx.get_backend("strict").asarray(Y), (4, 3)),
        lambda: net.predict(x),
    ):
        with pytest.raises(TypeError, match=mend):
            call()
    with pytest.raises(TypeError, match=mend.replace("X", "y")):
        dlx.fit(X, x, (4, 3))
    with pytest.raises(
        TypeError, match=rf"`x` must lie on the host; got an array of foreign. Bring .* with x\.{way}\(\)\.$"
    ):
        host_array(x)


def test_an_array_that_cannot_leave_its_library_says_why():
    x = Compressed()
    with pytest.raises(
        ValueError, match=r"got a Compressed, which raises RuntimeError: use todense\. Pass x\.todense\(\)\."
    ):
        backend_of(x).to_host(x)
    with pytest.raises(TypeError, match=r"RuntimeError|use todense\. Pass X\.todense\(\), or call sklearn\.set_config"):
        dlx.MLPClassifier((2,)).fit(x, Y)


@pytest.mark.parametrize("number", [10**400, decimal.Decimal("snan")], ids=["huge", "signalling"])
def test_numbers_that_no_float_holds_are_refused_by_their_column(number):
    """They ended in StopIteration, OverflowError and decimal.InvalidOperation."""
    odd = np.ones((6, 3), object)
    odd[0, 1] = number
    with pytest.raises(TypeError, match=r"^`X` must hold real numbers; got numbers of dtype object that no float"):
        dlx.fit(odd, [0, 1] * 3, (3, 2))
    with pytest.raises(ValueError, match=r"^`y` must hold numbers that float64 holds"):
        dlx.MLPRegressor((2,)).fit(np.ones((2, 1)), [10**400, 1.5])


def test_numbers_among_which_a_text_stands_for_missing_ones():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.5, 2.0, "?"] * 4, "b": range(12)})
    text = r"got numbers with '\?' at row 2 in column 'a'\. Convert them with pandas.to_numeric\(X\['a'\], errors"
    with pytest.raises(TypeError, match=text):
        dlx.fit(frame, [0, 1] * 6, (2, 2))
