"""Splits, weights, targets, dtypes, and the search for what is not finite."""

import re

import numpy as np
import pytest

import dlx
from conftest import INSTALLED
from dlx import losses
from dlx.data import features, streaming, targets
from dlx.data.features import Rows

NUMPY = dlx.get_backend("numpy")


def labelled(y):
    y = np.asarray(y)
    return targets.check(y, losses.cross_entropy(), y.max() + 1, len(y))


def real(n):
    return targets.Targets(np.zeros((n, 1)))


# -- split --

COUNTS = {  # rows of each label
    "balanced": [30, 30, 40],
    "skewed": [900, 90, 10],
    "two": [5, 5],
    "a single row": [20, 1, 9],
    "many labels": [4] * 100,
    "pairs": [2] * 20,
}


@pytest.mark.parametrize("share", [0.06, 0.1, 1 / 3, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_share_of_labels_is_disjoint_complete_and_in_proportion(counts, share, seed):
    y = np.random.default_rng(9).permutation(np.repeat(np.arange(len(counts)), counts))
    train, held = targets.split(labelled(y), share, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(len(y)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(held) > 0)
    assert len(held) == min(round(share * len(y)), len(y) - len(counts))
    assert set(y[train]) == set(y)  # every label is trained on
    if len(counts) <= 3 and min(counts) > 1 and share <= 0.75:
        of_each = np.bincount(y[held], minlength=len(counts))
        assert np.abs(of_each - share * np.asarray(counts)).max() <= 1.0 + share * len(counts)


@pytest.mark.parametrize("make", [real, lambda n: labelled(np.arange(n) % 2)], ids=["real", "labels"])
def test_a_share_is_drawn_at_random(make):
    draws = [targets.split(make(200), 0.3, np.random.default_rng(seed))[1] for seed in range(200)]
    again = targets.split(make(200), 0.3, np.random.default_rng(0))[1]
    np.testing.assert_array_equal(draws[0], again)
    assert len({tuple(draw) for draw in draws}) == 200
    often = np.bincount(np.concatenate(draws), minlength=200)  # of each row; binomial around 60
    assert np.all(np.abs(often - 60) < 5 * np.sqrt(200 * 0.3 * 0.7))
    together = np.mean([np.isin([2, 4], draw).all() for draw in draws])  # neighbours are not tied to each other
    assert 0.0 < together < 0.25


@pytest.mark.parametrize(("n", "share"), [(1, 0.5), (10, 0.01), (3, 0.1)])
def test_a_share_of_no_row_is_refused(n, share):
    with pytest.raises(ValueError, match=rf"`validation` must leave rows on both sides of {n}; got {share}\."):
        targets.split(real(n), share, np.random.default_rng(0))


# -- weights --


@pytest.mark.parametrize("sample", [None, [0.0, 2.0, 1.0, 1.0], np.float32([0, 2, 1, 1]), [0, 4, 2, 2]])
@pytest.mark.parametrize("by_class", [None, {1: 3.0}, "balanced"])
def test_weights_are_the_product_of_both(sample, by_class):
    target = labelled([0, 1, 1, 1])
    w = targets.weights(sample, by_class, target, NUMPY)
    if sample is None and by_class is None:
        assert w is None
        return
    expected = np.ones(4) if sample is None else np.asarray(sample, float)
    expected = expected * {None: 1.0, "balanced": [2.0, 2 / 3, 2 / 3, 2 / 3]}.get(
        by_class if not isinstance(by_class, dict) else "", [1.0, 3.0, 3.0, 3.0]
    )
    assert w.shape == (4, 1)
    assert w.dtype == np.float64
    np.testing.assert_allclose(w[:, 0] / w.sum(), expected / expected.sum(), rtol=1e-6)


def test_balanced_passes_over_a_class_without_rows():
    target = targets.check(np.array([0, 0, 2]), losses.cross_entropy(), 3, 3)
    np.testing.assert_allclose(targets.weights(None, "balanced", target, NUMPY)[:, 0], [0.75, 0.75, 1.5])


def test_weights_have_mean_one_over_the_rows_trained_on_and_over_those_held_out():
    w = np.array([[1.0], [2.0], [3.0], [10.0]])
    np.testing.assert_allclose(targets.to_mean_one(w, None, None), w / 4)
    both = targets.to_mean_one(w, np.array([0, 2]), np.array([1, 3]))
    np.testing.assert_allclose(both[:, 0], [1 / 2, 2 / 6, 3 / 2, 10 / 6])
    np.testing.assert_array_equal(w[:, 0], [1.0, 2.0, 3.0, 10.0])
    present = np.array([[True, True], [False, True], [True, False], [True, True]])
    masked = targets.to_mean_one(w * present, np.array([0, 1]), np.array([2, 3]), present)
    np.testing.assert_allclose(masked, [[3 / 4, 3 / 4], [0, 6 / 4], [9 / 23, 0], [30 / 23, 30 / 23]])
    np.testing.assert_array_equal(targets.to_mean_one(1.0 * present, None, None, present), present)
    assert targets.to_mean_one(None, np.array([0]), np.array([1])) is None
    for rows, held, what in (([0], [1], "train on"), ([1], [0], "hold out")):
        with pytest.raises(ValueError, match=f"`validation` must leave weight on the rows to {what}; got 0"):
            targets.to_mean_one(np.array([[0.0], [1.0]]), np.array(rows), np.array(held))


# -- targets --


@pytest.mark.parametrize(
    ("y", "known", "numbers"),
    [
        ([2, 0, 1], None, [2, 0, 1]),
        (np.array([2, 0, 1], np.uint64), None, [2, 0, 1]),
        (["b", "c", "a"], None, [1, 2, 0]),
        (["b", "b", "a"], ["a", "b", "c"], [1, 1, 0]),
        (["b", "b", "a"], ["c", "a", "b"], [2, 2, 1]),
        ([7, 5, 7], [5, 7, 6], [1, 0, 1]),
        ([True, False, True], [0, 1, 2], [1, 0, 1]),
    ],
)
def test_labels_become_numbers_of_classes(y, known, numbers):
    """Known classes need not be sorted, nor all be there."""
    known = None if known is None else np.asarray(known)
    found = targets.check(np.asarray(y), losses.cross_entropy(), 3, 3, known)
    assert found.one_hot
    assert found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.labels, numbers)
    np.testing.assert_array_equal(found.Y, np.asarray(numbers)[:, None])
    np.testing.assert_array_equal(found.classes[found.labels], y)


def test_class_numbers_become_rows_of_probabilities_in_the_batch(be):
    target = labelled([2, 0, 1, 1])
    X = be.asarray(np.arange(8, dtype=np.uint8).reshape(4, 2))
    rows = targets.place(target, np.ones((4, 1)), X, be, "float32")
    assert be.to_host(rows.Y).dtype == np.int32
    batch = features.gather(be.xp, rows, be.row_numbers(np.array([3, 0]), 4), be.dtype("float32"))
    np.testing.assert_array_equal(be.to_host(batch.Y), np.float32([[0, 1, 0], [0, 0, 1]]), strict=True)
    np.testing.assert_array_equal(be.to_host(batch.X), np.float32([[6, 7], [0, 1]]), strict=True)
    np.testing.assert_array_equal(be.to_host(batch.weights), np.ones((2, 1), np.float32), strict=True)
    whole = features.gather(be.xp, rows._replace(weights=None), None, be.dtype("float32"))
    np.testing.assert_array_equal(be.to_host(whole.Y), np.eye(3, dtype="f4")[[2, 0, 1, 1]])
    assert whole.weights is None
    if be.name == "numpy":
        same = features.gather(be.xp, rows._replace(X=np.ones((4, 2), "f4")), None, np.float32)
        assert features.gather(be.xp, rows._replace(X=same.X), None, np.float32).X is same.X
    some = streaming.some_rows(rows, np.array([1, 3]), be)
    np.testing.assert_array_equal(be.to_host(some.X), [[2, 3], [6, 7]])
    np.testing.assert_array_equal(be.to_host(some.Y), [[0], [1]])
    assert isinstance(some, Rows)


@pytest.mark.parametrize(("n", "dtype"), [(10, "int32"), (2**31 - 1, "int32"), (2**31, "int64")])
def test_row_numbers_are_as_small_as_they_may_be(n, dtype):
    assert NUMPY.row_numbers(np.array([0]), n).dtype == dtype


# -- dtypes --


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        ("float64", None, "float64"),
        ("longdouble", None, "float64"),
        ("float32", None, "float32"),
        ("float16", None, "float32"),
        ("int64", None, "float32"),
        ("bool", None, "float32"),
        ("float32", "float64", "float64"),
        ("float64", np.float32, "float32"),
        ("float64", np.dtype("f4"), "float32"),
    ],
)
def test_working_dtype(given, asked, expected):
    assert features.working_dtype(asked, np.zeros((1, 1), given)) == expected


def test_working_dtype_of_every_library(be):
    for name in ("float32", "float64"):
        assert features.working_dtype(None, be.asarray([[1.0]], name)) == name
        assert features.working_dtype(be.dtype(name), be.asarray([[1]])) == name


@pytest.mark.parametrize("library", [name for name in ("torch", "jax") if name in INSTALLED])
def test_half_precision_of_other_libraries(library):
    be = dlx.get_backend(library)
    for kind in ("bfloat16", "float16"):
        X = be.xp.ones((3, 2), dtype=getattr(be.xp, kind))
        assert features.working_dtype(None, X) == "float32"
        assert features.features(X, be, "float32", 2).dtype == be.dtype("float32")
    with pytest.raises(TypeError, match="`X` must hold real numbers; got dtype complex64"):
        features.features(be.xp.ones((3, 2), dtype=be.xp.complex64), be, "float32", 2)


@pytest.mark.parametrize("kind", [*features.KEPT_INTEGERS, "float32", "float64"])
def test_features_keep_integers_and_share_memory_where_they_can(kind, be):
    X = be.asarray(np.ones((3, 2), kind))
    found = features.features(X, be, "float32", 2)
    kept = kind if kind in features.KEPT_INTEGERS else "float32"
    assert found.dtype == be.dtype(kept)
    if be.name == "numpy":
        assert np.shares_memory(found, X) == (kind != "float64")


# -- what is not finite --


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (3, 0), (6, 1), (9, 3)])
@pytest.mark.parametrize("elements", [1, 12, 1 << 22])
def test_the_first_value_that_is_not_finite_is_named_across_blocks(be, elements, place, value, monkeypatch):
    monkeypatch.setattr(features, "CHECKED_AT_ONCE", elements)
    X = np.ones((10, 4))
    X[9, 3] = np.nan
    X[place] = value
    with pytest.raises(
        ValueError, match=rf"`Q` must be finite in float64; got {value} at row {place[0]}, column {place[1]}\."
    ):
        features.require_finite(be.asarray(X), be, "Q")


@pytest.mark.parametrize("elements", [1, 12, 1 << 22])
def test_finite_values_pass_the_extremes_too(be, elements, monkeypatch):
    monkeypatch.setattr(features, "CHECKED_AT_ONCE", elements)
    seen, isfinite = [], be.xp.isfinite
    monkeypatch.setattr(be.xp, "isfinite", lambda x: (seen.append(x.shape), isfinite(x))[1])
    X = np.full((10, 4), np.finfo("f8").max)
    X[::2] *= -1
    features.require_finite(be.asarray(X), be, "X")
    rows = max(1, elements // 4)
    blocks = [(), *((min(rows, 10 - first), 4) for first in range(0, 10, rows))]  # the sum of all, then blocks
    if be.name == "numpy":  # which looks at the sum as a number of Python's
        del blocks[0]
    on_host = be.padded(10) or be.name == "cupy"  # a few numbers, on a library where that takes less time
    assert seen == ([] if on_host else blocks)


# -- names of columns --


@pytest.mark.parametrize("names", [5, "abc", ["a", "b"], list("abcd"), ["a", "b", 3], [], float("nan")], ids=repr)
def test_names_that_are_not_one_string_a_column_are_refused(names):
    with pytest.raises(
        ValueError, match=r"`feature_names` must be None or 3 strings, one for each column of X; got .*\. N"
    ):
        dlx.Network([(np.eye(3), np.zeros(3))], feature_names=names)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_is_known_by_the_names_of_its_columns(library):
    DataFrame = pytest.importorskip(library).DataFrame
    x = np.arange(12.0).reshape(4, 3)
    frame = DataFrame(dict(zip("abc", x.T, strict=True)))
    net = dlx.fit(frame, x[:, 0], (3, 1), epochs=1, rng=0)
    assert net.feature_names == ["a", "b", "c"]
    np.testing.assert_allclose(net.predict(frame), net.predict(x), rtol=1e-14)  # BLAS adds by the order in memory
    rule = "`X` must have the columns of the training data"
    for columns, text in (
        ("acb", f"{rule}, 'b' at place 1; got 'c'. Select"),
        ("ab", f"{rule}, 'c' at place 2; got 2 c"),
    ):
        with pytest.raises(ValueError, match=re.escape(text)):
            net.predict(frame[list(columns)])
    wide = DataFrame(dict(zip("abcd", [*x.T, x[:, 0]], strict=True)))
    with pytest.raises(ValueError, match=r"`X` must have the 3 columns of the training data; got 'd'\. Select"):
        net.predict(wide)


def test_names_that_are_no_strings_are_none():
    pandas = pytest.importorskip("pandas")
    net = dlx.fit(pandas.DataFrame(np.ones((4, 3))), np.ones(4), (3, 1), epochs=1, rng=0)
    assert net.feature_names is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, 7.7, 1e6 + 0.1])
def test_the_scale_of_a_column_of_one_value_is_1_whatever_rounding_makes_of_its_mean(be, value, dtype):
    if dtype not in be.xp.__array_namespace_info__().dtypes(device=be.device):
        pytest.skip("the device has no float64")
    X = np.stack([np.full(301, value), np.arange(301.0)], axis=1).astype(dtype)
    with be.scope():
        mean, scale = (be.to_host(each) for each in features.center_and_scale(be, be.asarray(X)))
    np.testing.assert_allclose(scale, [[1.0, np.arange(301.0).std()]], rtol=1e-6)
    np.testing.assert_allclose(mean, X.mean(axis=0, dtype=np.float64, keepdims=True), rtol=1e-6)


def test_the_scale_of_a_million_float32_rows():
    X = np.random.default_rng(0).uniform(100, 101, (1_000_000, 1)).astype("float32")
    mean, scale = features.center_and_scale(dlx.get_backend("numpy"), X)
    np.testing.assert_allclose(mean, X.mean(dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scale, X.std(dtype=np.float64), rtol=1e-4)


def test_names_are_checked_wherever_features_come_in():
    DataFrame = pytest.importorskip("pandas").DataFrame
    X, y = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 2
    frame = DataFrame(X, columns=["a", "b"])
    net = dlx.fit(frame, y, (2, 3, 2), epochs=1, rng=0)
    other = frame[["b", "a"]]
    rule = "must have the columns of the training data, 'a' at place 0; got 'b'"
    for name, call in (
        ("X_val", lambda: dlx.fit(frame, y, (2, 3, 2), epochs=1, rng=0, validation=(other, y))),
        ("X", lambda: net.activations(other)),
        ("X", lambda: net.report(other, y)),
        ("X_val", lambda: net.report(frame, y, (other, y))),
    ):
        with pytest.raises(ValueError, match=f"`{name}` {rule}"):
            call()


MIXED = {
    "float and bool": ({"a": [1.5, 2.5], "b": [True, False]}, "float64"),
    "int and bool": ({"a": [1, 2], "b": [True, False]}, "int64"),
    "nullable": ({"a": ("Int64", [1, 2]), "b": ("Float32", [0.5, 1.5])}, "float64"),
    "float32 and nullable bool": ({"a": ("float32", [0.5, 1.5]), "b": ("boolean", [True, False])}, "float32"),
    "sparse": ({"a": ("Sparse[int]", [0, 1]), "b": [0.5, 1.5]}, "float64"),
}


@pytest.mark.parametrize(("columns", "dtype"), MIXED.values(), ids=MIXED)
def test_a_frame_of_several_kinds_of_numbers_is_numbers(columns, dtype):
    pandas = pytest.importorskip("pandas")
    given = {name: each if isinstance(each, tuple) else (None, each) for name, each in columns.items()}
    frame = pandas.DataFrame({name: pandas.array(each, dtype=kind) for name, (kind, each) in given.items()})
    found = features.as_array(frame, "X")
    np.testing.assert_array_equal(found, np.array([each for _, each in given.values()], float).T)
    assert found.dtype == dtype


def test_what_is_missing_in_a_nullable_column_is_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [0.5, 1.5], "b": pandas.array([1, None], dtype="Int64")})
    with pytest.raises(ValueError, match=r"`X` must be finite in float64; got nan at row 1, column 'b'\."):
        dlx.fit(frame, [0, 1], (2, 2))
    labels = pandas.Series([1, 0], dtype="Int64")
    assert dlx.fit(frame[["a"]], labels, (1, 2), epochs=1, rng=0).loss.name == "cross_entropy"
    with pytest.raises(
        TypeError, match=r"`X` must hold real numbers; got text \('x' at row 0\) in column 'a'\. Encode it"
    ):
        dlx.fit(pandas.DataFrame({"a": ["x", "y"], "b": [0.5, 1.5]}), labels, (2, 2))


@pytest.mark.parametrize(
    ("factor", "dtype"), [(1e200, "float64"), (1e-200, "float64"), (1e25, "float32"), (1e-25, "float32")]
)
def test_the_scale_of_a_column_of_huge_or_tiny_values(factor, dtype):
    X = np.random.default_rng(0).normal(2.0, 3.0, (500, 2))
    be = dlx.get_backend("numpy")
    mean, scale = features.center_and_scale(be, (X * factor).astype(dtype))
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(mean / factor, X.mean(axis=0, keepdims=True), rtol=tolerance)
    np.testing.assert_allclose(scale / factor, X.std(axis=0, keepdims=True), rtol=tolerance)
