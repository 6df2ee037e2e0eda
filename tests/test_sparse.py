"""SciPy's matrices as X: what is trained and predicted is that of the dense array, which NumPy never makes."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

import dlx
from allocation import peak
from dlx.files import fingerprint
from dlx.plot import figures

RNG = np.random.default_rng(0)
DENSE = np.where(RNG.random((90, 12)) < 0.2, RNG.standard_normal((90, 12)), 0.0)
LABELS = RNG.integers(0, 3, 90)
WEIGHTS = RNG.uniform(0.5, 1.5, 90)
HOW = {"layer_dims": (12, 8, 3), "batch_size": 16, "epochs": 3, "rng": 1}


def of(kind, X=DENSE):
    """`X` in one of SciPy's formats, as an array or a matrix."""
    return getattr(scipy.sparse, f"{kind[:3]}_{'matrix' if kind.endswith('matrix') else 'array'}")(X)


def not_canonical():
    """The same matrix with explicit zeros, duplicates and unsorted columns."""
    coo = scipy.sparse.coo_array(DENSE)
    row = np.concatenate([coo.coords[0], coo.coords[0], [3, 3]])
    column = np.concatenate([coo.coords[1], coo.coords[1], [5, 0]])
    order = np.lexsort((-column, row))
    values = np.concatenate([coo.data / 2, coo.data / 2, [0.0, 0.0]])[order]
    bounds = np.searchsorted(row[order], np.arange(91))
    found = scipy.sparse.csr_array((values, column[order].astype(np.int64), bounds.astype(np.int64)), shape=(90, 12))
    assert not found.has_canonical_format
    return found


def parameters(net):
    return np.concatenate([net.backend.to_host(each).ravel() for layer in net.params for each in layer])


def same(found, expected):
    """Trainings and predictions are equal to rounding."""
    np.testing.assert_allclose(parameters(found), parameters(expected), rtol=0, atol=1e-12)
    for name in set(expected.history) - {"seconds"}:
        np.testing.assert_allclose(found.history[name], expected.history[name], rtol=1e-12)


KINDS = ["csr", "csc", "coo", "bsr", "lil", "dok", "dia", "csr matrix", "csc matrix"]


@pytest.mark.parametrize("kind", [*KINDS, "not canonical"])
def test_every_format_trains_as_the_dense_array(kind):
    """The report: `dlx.fit` advised `.toarray()`, which for text is gigabytes."""
    X = not_canonical() if kind == "not canonical" else of(kind)
    before = X.toarray()
    found, expected = dlx.fit(X, LABELS, **HOW), dlx.fit(DENSE, LABELS, **HOW)
    same(found, expected)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(DENSE), rtol=1e-12)
    np.testing.assert_array_equal(X.toarray(), before)


OPTIONS = {
    "share": {"validation": 0.2, "patience": 2},
    "pair": {"validation": (DENSE[:30], LABELS[:30])},
    "weights": {"sample_weight": WEIGHTS, "class_weight": "balanced", "validation": 0.2},
    "dropout": {"dropout": 0.3, "l2": 1e-3},
    "lbfgs": {"optimizer": "lbfgs", "validation": 0.2},
    "lbfgs of all": {"optimizer": "lbfgs"},
    "one batch": {"batch_size": None},
    "stream": {"stream": True},
    "one layer": {"layer_dims": (12, 3)},
    "float32": {"dtype": "float32"},
}


def agrees(more, be):
    how = {**HOW, **more, "backend": be}
    given = dict(how)
    if isinstance(how.get("validation"), tuple):
        given["validation"] = of("csc", DENSE[:30]), LABELS[:30]
    found = dlx.fit(of("csr"), LABELS, **given)
    expected = dlx.fit(DENSE, LABELS, **{**how, "stream": False})
    close = {"rtol": 2e-4, "atol": 1e-5} if "dtype" in more else {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(parameters(found), parameters(expected), **close)
    for name in set(expected.history) - {"seconds"}:
        np.testing.assert_allclose(found.history[name], expected.history[name], rtol=2e-4 if "dtype" in more else 1e-9)


@pytest.mark.parametrize("more", OPTIONS.values(), ids=OPTIONS)
def test_every_option_trains_as_with_the_dense_array(more):
    agrees(more, "numpy")


@pytest.mark.parametrize("more", [OPTIONS["weights"], OPTIONS["lbfgs"]], ids=["weights", "lbfgs"])
def test_every_library_trains_as_with_the_dense_array(more, be):
    agrees(more, be)


def test_every_method_says_what_it_says_of_the_dense_array(be):
    net = dlx.fit(DENSE, LABELS, **HOW, backend=be)
    X = of("csc matrix")
    np.testing.assert_array_equal(net.predict(X), net.predict(DENSE))
    np.testing.assert_allclose(net.predict_proba(X), net.predict_proba(DENSE), rtol=1e-12)
    assert net.score(X, LABELS, WEIGHTS) == pytest.approx(net.score(DENSE, LABELS, WEIGHTS), rel=1e-12)
    for found, expected in zip(net.activations(X), net.activations(DENSE), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert str(net.report(X, LABELS, (X, LABELS))) == str(net.report(DENSE, LABELS, (DENSE, LABELS)))


def test_the_search_for_a_learning_rate_takes_sparse_rows(be):
    how = {"layer_dims": (12, 8, 3), "batch_size": 16, "backend": be, "updates": 30}
    found = dlx.find_learning_rate(of("coo"), LABELS, rng=0, **how)
    np.testing.assert_allclose(found.losses, dlx.find_learning_rate(DENSE, LABELS, rng=0, **how).losses, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float32", "float64"])
def test_features_of_other_dtypes(dtype):
    whole = (3 * DENSE).astype(dtype) if dtype != "uint8" else np.abs(3 * DENSE).astype(dtype)
    nets = [dlx.fit(X, LABELS, **HOW) for X in (of("csr", whole), whole)]
    assert nets[0].dtype == nets[1].dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(parameters(nets[0]), parameters(nets[1]), rtol=2e-4, atol=1e-5)


def with_value(value):
    X = DENSE.copy()
    X[7, 5] = value
    return of("csr", X)


WRONG = {
    "nan": (with_value(np.nan), ValueError, r"^`X` must be finite in float64; got nan at row 7, column 5\. Fill or"),
    "inf": (with_value(-np.inf), ValueError, r"^`X` must be finite in float64; got -inf at row 7, column 5\. Fill or"),
    "complex": (of("csr", DENSE * 1j), TypeError, r"^`X` must hold real numbers; got dtype complex128\."),
    "narrow": (of("csr", DENSE[:, :5]), ValueError, r"^`X` must have shape \(n, 12\) to match the first layer; got"),
    "no rows": (of("csr", DENSE[:0]), ValueError, r"^`X` must have at least one row; got shape \(0, 12\)\."),
    "one row": (scipy.sparse.coo_array(DENSE[0]), ValueError, r"^`X` must have shape \(n, d0\): rows are samples; got"),
}


@pytest.mark.parametrize(("X", "error", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(X, error, text):
    net = dlx.fit(DENSE, LABELS, **HOW)
    for call in (lambda: dlx.fit(X, LABELS[: X.shape[0]], **HOW), lambda: net.predict(X)):
        with pytest.raises(error, match=text):
            call()


def test_what_is_too_large_for_the_dtype_is_named():
    text = r"^`X` must be finite in float32; got inf at row 7, column 5\."
    with pytest.raises(ValueError, match=text):
        dlx.fit(with_value(1e39), LABELS, **HOW, dtype="float32")


def test_the_fingerprint_is_that_of_the_matrix():
    be = dlx.get_backend("numpy")
    own = fingerprint.as_json(of("csr"), be)
    assert {fingerprint.as_json(X, be) for X in (of("csc matrix"), of("coo"), of("lil"))} == {own}
    other = DENSE.copy()
    other[0, 0] += 1
    moved = DENSE[:, [1, 0, *range(2, 12)]]
    told = {
        fingerprint.as_json(of("csr", X), be) for X in (other, moved, DENSE.astype("f4"), DENSE[::-1], DENSE[:, :11])
    }
    assert len(told) == 5
    assert own not in told


def test_a_training_of_sparse_rows_is_resumed(be, tmp_path):
    how = {**HOW, "backend": be, "validation": 0.2}
    dlx.fit(of("csr"), LABELS, **{**how, "epochs": 1}, checkpoint=tmp_path)
    found = dlx.fit(of("csc"), LABELS, **how, checkpoint=tmp_path)
    np.testing.assert_array_equal(parameters(found), parameters(dlx.fit(of("csr"), LABELS, **how)))
    with pytest.raises(ValueError, match="of one with a X that was"):
        dlx.fit(of("csr", DENSE[::-1]), LABELS, **how, checkpoint=tmp_path)


WIDE = 1 << 18
WORDS = np.sort(RNG.integers(0, WIDE // 100, (600, 100)) + np.arange(100) * (WIDE // 100), axis=1)
DOCUMENTS = scipy.sparse.csr_array((RNG.random(60_000), WORDS.ravel(), np.arange(0, 60_001, 100)), shape=(600, WIDE))
TOPICS = np.arange(600) % 2


@pytest.mark.parametrize("how", ["dlx.fit", "lbfgs", "estimator", "standardized estimator"])
def test_no_dense_rows_are_made_on_numpy(how):
    """`HashingVectorizer(n_features=2**18)`, 3,000 documents: predict took 2,048 MB, two epochs 896 MB."""
    weights = WIDE * 4 * 8
    if "estimator" in how:
        model = dlx.MLPClassifier((4,), max_iter=2, random_state=0, standardize="standard" in how, batch_size=200)
        with pytest.warns(ConvergenceWarning):
            fitting = peak(lambda: model.fit(DOCUMENTS, TOPICS))
        scale = 10 * WIDE * 8 if "standard" in how else 0
    else:
        found, scale = [], 0
        optimizer = "lbfgs" if how == "lbfgs" else "adam"
        dims = (WIDE, 4, 2)
        fitting = peak(
            lambda: found.append(dlx.fit(DOCUMENTS, TOPICS, dims, epochs=2, rng=0, optimizer=optimizer, validation=0.2))
        )
        model = found[0]
    vectors = 20 if how == "lbfgs" else 10
    assert fitting < vectors * weights + scale < 600 * WIDE * 8
    assert peak(lambda: model.predict(DOCUMENTS)) < 30e6
    assert peak(lambda: model.predict_proba(DOCUMENTS)) < 30e6


def test_elsewhere_blocks_are_bounded(be):
    net = dlx.Network([(np.zeros((WIDE, 2)), np.zeros(2))], loss="cross_entropy", backend=be)
    assert peak(lambda: net.predict(DOCUMENTS[:64])) < 200e6


def test_scipy_is_not_imported_for_others():
    code = "import sys, numpy as np, dlx; X, y = np.zeros((9, 2)), np.arange(9) % 2"
    code += "; dlx.fit(X, y, (2, 2), epochs=1).predict(X)"
    code += "; assert not any(name.split('.')[0] == 'scipy' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("column", [77, -5, 2_000_000])
def test_columns_beyond_the_matrix_are_refused(column):
    """A segmentation fault, or numbers from beyond the memory."""
    bad = scipy.sparse.csr_array(DENSE)
    bad.indices = bad.indices.copy()
    bad.indices[3] = column
    net = dlx.fit(DENSE, LABELS, **HOW)
    for ask in (lambda: dlx.fit(bad, LABELS, **HOW), lambda: net.predict(bad)):
        with pytest.raises(ValueError, match=r"^`X` must be a matrix that SciPy calls valid; got one of which"):
            ask()


def test_numbers_of_half_precision():
    half = scipy.sparse.csr_array(DENSE.astype("f4"))
    half.data = half.data.astype("f2")
    net = dlx.fit(half, LABELS, **HOW)
    np.testing.assert_allclose(
        net.params[0].W, dlx.fit(DENSE.astype("f4").astype("f2"), LABELS, **HOW).params[0].W, rtol=1e-5, atol=1e-6
    )


def test_a_report_and_the_figures_of_layers_hold_no_dense_rows():
    """1,444 and 2,107 MB for 3,000 rows of 2^18 columns."""
    wide = scipy.sparse.random_array((1500, 2**16), density=1e-3, format="csr", rng=np.random.default_rng(0))
    y = np.arange(1500) % 2
    net = dlx.fit(wide, y, (2**16, 4, 2), epochs=1, rng=0)
    dense = 1500 * 2**16 * 8
    assert peak(lambda: (net.report(wide, y), figures.layer_figures(net, wide, y, 1500))) < dense / 4
