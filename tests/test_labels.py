"""Labels of every container and dtype: the same ones give the same classes, exactly, or a refusal that helps."""

import decimal
import importlib

import numpy as np
import pytest
import scipy.sparse
from sklearn.preprocessing import OneHotEncoder

import dlx
from dlx.data import labels
from dlx.plot import figures
from rejection import assert_rejected

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 8))
Y = np.arange(60) % 3
N = {"rng": 0, "epochs": 1}
NAMES = np.array(["a", "b", "c"])
SHUFFLED = RNG.permutation(60)


def library(name):
    return pytest.importorskip(name)


def frame(dtype, values=Y):
    return lambda: library("pandas").Series(values, dtype=dtype, index=SHUFFLED)


def arrow(dtype, values=Y):
    def make():
        library("pyarrow")
        return frame(dtype, values)()

    return make


def polars(dtype, values):
    return lambda: library("polars").Series(values, dtype=getattr(library("polars"), dtype))


INTEGERS = {  # what holds 0, 1, 2
    "list": lambda: Y.tolist(),
    "tuple": lambda: tuple(Y.tolist()),
    "list of NumPy integers of two dtypes": lambda: [np.uint64(each) if each else np.int64(0) for each in Y],
    "objects": lambda: Y.astype(object),
    "uint8": lambda: Y.astype("u1"),
    "uint64": lambda: Y.astype("u8"),
    "big-endian": lambda: Y.astype(">i4"),
    "series of objects": frame(object),
    "nullable": frame("Int64"),
    "nullable uint8": frame("UInt8"),
    "categories": frame("category"),
    "pandas by pyarrow": arrow("int64[pyarrow]"),
    "polars": polars("Int32", Y),
    "pyarrow": lambda: library("pyarrow").array(Y),
    "pyarrow in chunks": lambda: library("pyarrow").chunked_array([Y[:20], Y[20:]]),
}
STRINGS = {  # what holds "a", "b", "c"
    "list": lambda: NAMES[Y].tolist(),
    "objects": lambda: NAMES[Y].astype(object),
    "StringDType": lambda: NAMES[Y].astype(np.dtypes.StringDType()),
    "series": frame(None, NAMES[Y]),
    "nullable": frame("string", NAMES[Y]),
    "categories": frame("category", NAMES[Y]),
    "pandas by pyarrow": arrow("string[pyarrow]", NAMES[Y]),
    "polars": polars("String", NAMES[Y].tolist()),
    "polars categories": polars("Categorical", NAMES[Y].tolist()),
    "pyarrow": lambda: library("pyarrow").array(NAMES[Y].tolist()),
    "pyarrow dictionary": lambda: library("pyarrow").array(NAMES[Y].tolist()).dictionary_encode(),
}
ALIKE = [*((make, Y) for make in INTEGERS.values()), *((make, NAMES[Y]) for make in STRINGS.values())]


@pytest.mark.parametrize(("make", "plain"), ALIKE, ids=[*INTEGERS, *(f"str {name}" for name in STRINGS)])
def test_the_same_labels_in_another_container_give_the_same_classes(make, plain):
    """`fit(X, pd.Series(y, dtype=object))` was told astype(float), and after that astype(int)."""
    y = make()
    net, other = dlx.fit(X, y, (8, 3), **N), dlx.fit(X, plain, (8, 3), **N)
    assert net.classes.tolist() == other.classes.tolist() == sorted({*plain.tolist()})
    assert net.classes.dtype == other.classes.dtype
    np.testing.assert_array_equal(net.params[0].W, other.params[0].W)
    np.testing.assert_array_equal(net.predict(X), other.predict(X))
    assert net.score(X, y) == np.mean(net.predict(X) == plain)
    np.testing.assert_array_equal(figures.places(y, net.classes), Y)
    checked = dlx.fit(X, plain, (8, 3), validation=(X, y), **N)
    assert checked.history["validation_score"][-1] == net.score(X, y)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("shift", [1, 5, -1, 253, 2**53, 2**62, 2**63, -(2**63)])
@pytest.mark.parametrize("dtype", [None, object])
def test_as_many_distinct_integers_as_classes_are_labels(tmp_path, shift, outputs, dtype):
    """Labels 1..K were refused ("must be labels 0..1") though strings were fine; beyond 2^53 they were merged."""
    y = [int(each) + shift for each in np.minimum(Y, max(outputs, 2) - 1)]
    net = dlx.fit(X, y if dtype is None else np.array(y, dtype), (8, outputs), **N)
    assert net.classes.tolist() == sorted(set(y))
    assert net.classes.dtype == ("uint64" if shift == 2**63 else "int64")
    predicted = net.predict(X)
    assert predicted.dtype == net.classes.dtype
    assert net.score(X, y) == np.mean([one == other for one, other in zip(predicted.tolist(), y, strict=True)])
    net.save(tmp_path / "net")
    loaded = dlx.load(tmp_path / "net")
    assert loaded.classes.tolist() == net.classes.tolist()
    assert loaded.score(X, y) == net.score(X, y)


def test_labels_within_the_range_stay_what_they_are(be):
    """Also where some of them are absent, and whatever the library."""
    for y, classes in ((np.where(Y, 2, 1), [0, 1, 2]), (Y + 7, [7, 8, 9])):
        net = dlx.fit(X, be.asarray(y.astype("i4")), (8, 3), backend=be, **N)
        assert net.classes.tolist() == classes
        assert set(be.to_host(net.predict(be.asarray(X.astype("f4")))).tolist()) <= {*classes}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", object])
@pytest.mark.parametrize(("y", "outputs", "loss"), [(Y, 3, "cross_entropy"), (Y + 1, 3, "cross_entropy")])
def test_whole_floats_are_labels_where_the_loss_is_named(dtype, y, outputs, loss):
    floats = y.astype(float).astype(dtype)
    net, other = dlx.fit(X, floats, (8, outputs), loss=loss, **N), dlx.fit(X, y, (8, outputs), **N)
    assert net.classes.tolist() == other.classes.tolist()
    assert net.classes.dtype == "int64"
    np.testing.assert_array_equal(net.params[0].W, other.params[0].W)
    assert net.score(X, floats) == other.score(X, y)


@pytest.mark.parametrize(("no", "yes"), [(-1.0, 1.0), (1.0, 2.0), (0.0, 1.0)])
def test_whole_floats_are_yes_and_no_where_the_loss_is_named(no, yes):
    y = np.where(Y > 0, yes, no)
    net = dlx.fit(X, y, (8, 1), loss="binary_cross_entropy", class_weight="balanced", **N)
    assert net.classes.tolist() == [no, yes]
    np.testing.assert_array_equal(net.params[0].W, dlx.fit(X, Y > 0, (8, 1), class_weight="balanced", **N).params[0].W)


def test_probabilities_of_yes_stay_numbers():
    y = np.where(Y > 0, 0.9, 0.1)
    net = dlx.fit(X, y, (8, 1), loss="binary_cross_entropy", optimizer="lbfgs", rng=0)
    assert net.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=1e-4)


@pytest.mark.parametrize("kind", [object, np.dtypes.StringDType(), list])
def test_strings_that_differ_by_a_nul_are_two(tmp_path, kind):
    """Object labels "a" and "a\\0" were merged: NumPy's strings of fixed width drop NULs at the end."""
    texts = [["a", "a\0", "b"][k] for k in Y]
    y = texts if kind is list else np.array(texts, dtype=kind)
    net = dlx.fit(X, y, (8, 3), optimizer="lbfgs", rng=0, epochs=20)
    assert net.classes.tolist() == ["a", "a\0", "b"]
    numbers = dlx.fit(X, Y, (8, 3), optimizer="lbfgs", rng=0, epochs=20)
    assert net.predict(X).tolist() == [["a", "a\0", "b"][k] for k in numbers.predict(X)]
    net.save(tmp_path / "net")
    assert dlx.load(tmp_path / "net").classes.tolist() == net.classes.tolist()
    assert dlx.load(tmp_path / "net").score(X, y) == net.score(X, y) == numbers.score(X, Y)
    with pytest.raises(ValueError, match=r"`y` must hold labels of the training data; got 'b\\x00'\. Drop such rows"):
        net.score(X, [each + "\0" if each == "b" else each for each in texts])


def test_strings_that_differ_by_a_nul_are_two_in_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    net = dlx.Network([(np.eye(3), np.zeros(3))], loss="cross_entropy", classes=["a", "a\0", "b"])
    net.to_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert session.run(["label"], {"X": np.eye(3)})[0].tolist() == net.predict(np.eye(3)).tolist() == ["a", "a\0", "b"]


def test_a_checkpoint_of_other_labels_is_another_training(tmp_path):
    how = {"checkpoint": tmp_path / "run", "rng": 0, "epochs": 1}
    assert dlx.fit(X, np.array(["a\0", "b"], object)[Y % 2], (8, 2), **how).classes.tolist() == ["a\0", "b"]
    assert dlx.fit(X, np.array(["a\0", "b"], object)[Y % 2], (8, 2), **how).classes.tolist() == ["a\0", "b"]
    with pytest.raises(ValueError, match="`checkpoint` must"):
        dlx.fit(X, np.array(["a\0\0", "b"], object)[Y % 2], (8, 2), **how)


def test_a_network_without_labels_does_not_take_them_from_what_it_is_scored_on():
    net = dlx.Network([(np.eye(3), np.zeros(3))], loss="cross_entropy")
    assert net.score(np.eye(3), [0, 1, 2]) == 1.0
    with pytest.raises(ValueError, match=r"`y` must hold labels of the training data; got 3\."):
        net.score(np.eye(3), [1, 2, 3])
    with pytest.raises(TypeError, match=r"`y` must hold numbers, as the training data do; got dtype <U1"):
        net.score(np.eye(3), ["a", "b", "c"])


def test_numbers_are_looked_up_as_they_are():
    """int64 beside uint64 became float64, in which 2^53 and 2^53 + 1 are one."""
    classes = np.array([2**53, 2**53 + 1])
    for dtype in ("i8", "u8", object):
        y = labels.settled(np.array([2**53 + 1, 2**53, 2**53 + 2], dtype))
        assert labels.places(y, classes).tolist() == [1, 0, -1]
    assert labels.places(np.array([2.0**53]), classes).tolist() == [0]
    assert labels.places(np.array([2**64 - 1, 1], "u8"), np.array([-1, 1])).tolist() == [-1, 1]
    assert labels.places(np.array([-1, 2**63 - 1]), np.array([2**64 - 1, 2**63 - 1], "u8")).tolist() == [-1, 1]


# -- targets that may be labels or numbers --

ONE_HOT = np.eye(3)[Y]
NAME_IT = (
    "`loss` must be named where the rows of `y` are one-hot; got 'auto'. Pass loss='cross_entropy' for classes, or"
)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "bool"])
def test_one_hot_rows_ask_for_the_loss(be, dtype):
    """`np.eye(3)[y]` trained a regression: its score was R², and predict_proba raised."""
    if dtype not in be.xp.__array_namespace_info__().dtypes():
        pytest.skip("a dtype that is switched off")
    own = be.asarray(ONE_HOT.astype(dtype))
    for y in (own, ONE_HOT.astype(dtype)):
        with pytest.raises(ValueError, match=NAME_IT):
            dlx.fit(X, y, (8, 3), backend=be, **N)
    net = dlx.fit(X, own, (8, 3), loss="cross_entropy", backend=be, **N)
    assert net.predict_proba(X).shape == (60, 3)


def dummies(**how):
    return lambda: library("pandas").get_dummies(NAMES[Y], **how)


@pytest.mark.parametrize(
    "make",
    [
        dummies(),
        dummies(dtype=float),
        dummies(dtype="Float32"),
        dummies(sparse=True),
        lambda: library("pyarrow") and dummies(dtype="bool[pyarrow]")(),
        lambda: library("polars").Series("t", NAMES[Y].tolist()).to_dummies(),
        lambda: ONE_HOT.tolist(),
        lambda: OneHotEncoder(sparse_output=False).fit_transform(Y[:, None]),
        lambda: ONE_HOT[:, [2, 0, 1]],
        lambda: ONE_HOT.astype("f2"),
    ],
)
def test_one_hot_rows_of_any_table_ask_for_the_loss(make):
    assert_rejected({"X": X, "y": make(), "layer_dims": (8, 3)}, ValueError, NAME_IT)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_matrix"])
def test_sparse_one_hot_rows_are_told_both_steps(kind):
    y = getattr(scipy.sparse, kind)(ONE_HOT)
    text = f"`y` must be dense; got {kind}. Pass y.toarray(); for one-hot rows with loss='cross_entropy'."
    assert_rejected({"X": X, "y": y, "layer_dims": (8, 3)}, TypeError, text)
    assert dlx.fit(X, y.toarray(), (8, 3), loss="cross_entropy", **N).score(X, Y) > 0


@pytest.mark.parametrize("y", [Y > 0, (Y > 0)[:, None]], ids=["a row", "a column"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_floats_that_are_all_zero_and_one_ask_for_the_loss(y, dtype):
    text = "`loss` must be named where `y` holds 0 and 1 alone; got 'auto'. Pass loss='binary_cross_entropy' for"
    assert_rejected({"X": X, "y": y.astype(dtype), "layer_dims": (8, 1)}, ValueError, text)
    assert_rejected({"X": X, "y": y.astype(dtype).tolist(), "layer_dims": (8, 1)}, ValueError, text)
    for loss in ("binary_cross_entropy", "squared_error"):
        assert dlx.fit(X, y.astype(dtype), (8, 1), loss=loss, **N).loss.name == loss


@pytest.mark.parametrize("y", [Y * 0.5, np.zeros(60), np.ones(60), np.where(Y > 0, 2.0, 1.0), X[:, 0]], ids=range(5))
def test_other_floats_are_real_targets(y):
    assert dlx.fit(X, y, (8, 1), **N).loss.name == "squared_error"
    assert dlx.fit(X, y.astype(object), (8, 1), **N).loss.name == "squared_error"


def test_decimals_and_objects_of_floats_are_real_targets():
    tenths = [decimal.Decimal(int(each)) / 10 for each in Y]
    net, other = dlx.fit(X, tenths, (8, 1), **N), dlx.fit(X, Y / 10, (8, 1), **N)
    np.testing.assert_array_equal(net.params[0].W, other.params[0].W)
    several = np.array([tenths, tenths], dtype=object).T
    np.testing.assert_array_equal(
        dlx.fit(X, several, (8, 2), **N).params[0].W,
        dlx.fit(X, several.astype(float), (8, 2), **N).params[0].W,
    )


REFUSED = {  # loss, outputs, y, the kind of error, its text
    "four": ("auto", 3, np.arange(60) % 4 + 1, ValueError, "`y` must be labels 0..2, or 3 others, to match the last "),
    "both ways out": (
        "auto",
        1,
        Y,
        ValueError,
        "got 3 distinct ones (0, 1, 2). Change layer_dims[-1] to 3; for real ta",
    ),
    "one": ("auto", 3, np.full(60, 7), ValueError, "got 7 alone. Check how they were selected; for real targets pass"),
    "one of two": (
        "auto",
        1,
        np.full(60, 7),
        ValueError,
        "`y` must be labels 0..1, or 2 others, to match the last lay",
    ),
    "negative": ("auto", 3, Y % 2 - 1, ValueError, "got 2 distinct ones (-1, 0). Change layer_dims[-1] to 2; for real"),
    "many": (
        "auto",
        3,
        np.arange(60),
        ValueError,
        "got 60 distinct ones (0, 1, 2, 3, 4, ...). Change layer_dims[-1] to",
    ),
    "strings": (
        "auto",
        2,
        NAMES[Y],
        ValueError,
        "2 distinct labels to match the last layer; got 3 distinct ones ('a', ",
    ),
    "whole floats": ("auto", 3, Y * 1.0, ValueError, "or y; if these are class labels, pass loss='cross_entropy'."),
    "floats": (
        "auto",
        3,
        Y / 2,
        ValueError,
        "must have 3 columns to match the last layer; got float64 of shape (60,). Change layer_dims[-1] to 1, or y.",
    ),
    "halves": (
        "cross_entropy",
        3,
        Y / 2,
        ValueError,
        "integer or string labels for this loss; got 0.5 at row 1. Number",
    ),
    "bytes": (
        "auto",
        3,
        NAMES[Y].astype("S1"),
        TypeError,
        "`y` must hold strings, not bytes; got b'a' at row 0. Decode them: [each.decode() for each in y].",
    ),
    "bytes by name": (
        "cross_entropy",
        3,
        NAMES[Y].astype("S1").astype(object),
        TypeError,
        "strings, not bytes; got b'a'",
    ),
    "beyond 64 bits": (
        "auto",
        3,
        Y.astype(object) + 2**64,
        ValueError,
        "`y` must hold labels that 64 bits hold exactly; "
        "got numbers from 18446744073709551616 to 18446744073709551618. Number them: np.unique(y, return",
    ),
    "of both signs": (
        "auto",
        2,
        [-1, 2**63] * 30,
        ValueError,
        "got numbers from -1 to 9223372036854775808. Number them",
    ),
    "among floats": (
        "cross_entropy",
        2,
        [2**53 + 1, 2.0**53] * 30,
        ValueError,
        "labels that 64 bits hold exactly; got",
    ),
    "None": (
        "auto",
        3,
        [0, 1, None] * 20,
        ValueError,
        "`y` must have no missing labels; got None at row 2. Fill or drop",
    ),
    "nan by name": (
        "cross_entropy",
        3,
        np.where(Y == 2, np.nan, Y),
        ValueError,
        "missing labels; got nan at row 2. Fill",
    ),
    "None among strings": (
        "auto",
        3,
        ["a", None, "b"] * 20,
        ValueError,
        "missing labels; got None at row 1. Fill or dr",
    ),
    "mixed": (
        "auto",
        3,
        ["a", 1, "b"] * 20,
        TypeError,
        "`y` must hold labels of one kind; got 1 at row 1 among strings",
    ),
    "dates": (
        "auto",
        3,
        np.array("2020-01-01", "M8[D]") + Y,
        TypeError,
        "booleans or strings; got dtype datetime64[D]. N",
    ),
    "a column": (
        "auto",
        3,
        Y[:, None],
        ValueError,
        "Pass numpy.ravel(y) for one label a row, loss='binary_cross_entropy",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_other_targets_are_refused_with_what_mends_them(case):
    loss, outputs, y, kind, text = case
    assert_rejected({"X": X, "y": y, "layer_dims": (8, outputs), "loss": loss}, kind, text)


@pytest.mark.parametrize("dtype", ["Int64", "string", "boolean", "category", "int64[pyarrow]", "string[pyarrow]"])
def test_what_is_missing_in_a_series_of_labels_is_named(dtype):
    pandas = library("pandas")
    if "pyarrow" in dtype:
        library("pyarrow")
    values = [True, False, None] if dtype == "boolean" else ["a", "b", None] if "string" in dtype else [0, 1, None]
    y = pandas.Series(values * 20, dtype=dtype)
    for loss in ("auto", "cross_entropy"):
        with pytest.raises(ValueError, match=r"got (nan|<NA>) at row 2(, column 0)?\. Fill or drop such rows"):
            dlx.fit(X, y, (8, 3), loss=loss)


def test_labels_of_tensors_in_a_list():
    torch = library("torch")
    assert dlx.fit(X, list(torch.asarray(Y + 1)), (8, 3), **N).classes.tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_labels_and_one_hot_rows_of_bfloat16(name):
    library(name)
    be = dlx.get_backend(name)
    own = be.asarray(X.astype("f4"))
    for y, outputs, loss in ((Y + 1, 3, "cross_entropy"), (Y / 4, 1, "squared_error")):
        half = be.xp.astype(be.asarray(y.astype("f4")), be.xp.bfloat16)
        assert dlx.fit(own, half, (8, outputs), loss=loss, **N).score(own, y if outputs == 1 else half) <= 1
    with pytest.raises(ValueError, match=NAME_IT):
        dlx.fit(own, be.xp.astype(be.asarray(ONE_HOT.astype("f4")), be.xp.bfloat16), (8, 3), **N)


def test_the_look_up_imports_no_library():
    source = importlib.util.find_spec("dlx.data.labels").loader.get_source("dlx.data.labels")
    assert "import pandas" not in source
