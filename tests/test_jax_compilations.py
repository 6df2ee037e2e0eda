"""How often JAX compiles, and that what is added to fill few sizes weighs nothing."""

import contextlib

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score

import dlx
from conftest import INSTALLED

MOST = 12  # compilations in a process for one architecture, whatever the numbers of rows
RNG = np.random.default_rng(5)
X, LABELS = RNG.standard_normal((300, 6)), np.arange(300) % 3
TARGETS = np.stack([X[:, 0] - X[:, 1] ** 2, np.tanh(X[:, 2])], axis=1)

pytestmark = [
    pytest.mark.skipif("jax" not in INSTALLED, reason="JAX is not installed"),
    pytest.mark.filterwarnings("ignore:.*converged"),
]


@contextlib.contextmanager
def compilations():
    """The names of what XLA compiles inside."""
    import jax.monitoring
    from jax._src import monitoring

    names = []

    def hear(event, seconds, **more):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(more.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        yield names
    finally:
        monitoring.unregister_event_duration_listener(hear)


def vector(net):
    return np.concatenate([np.asarray(each).ravel() for layer in net.params for each in layer])


def assert_agree(one, other):
    """To 1e-12 beside NumPy, the losses that are reported too."""
    np.testing.assert_allclose(vector(one), vector(other), rtol=0, atol=1e-12)
    for name in ("loss", *(name for name in other.history if name.startswith("validation"))):
        np.testing.assert_allclose(one.history[name], other.history[name], rtol=1e-11, atol=1e-12)


def test_predictions_of_twenty_sizes_compile_once():
    """It was 260 compilations and 7.4 s (NumPy 1 ms) for k = 20 ... 39."""
    net = dlx.fit(X, LABELS, (6, 17, 3), backend="jax", epochs=1, rng=0)
    with compilations() as names:
        found = [net.predict_proba(X[:k]) for k in range(20, 40)]
    assert len(names) <= 2
    expected = net.to("numpy").predict_proba(X[:39])
    for k, each in zip(range(20, 40), found, strict=True):
        np.testing.assert_allclose(each, expected[:k], rtol=1e-12)


def test_time_series_compile_a_dozen_times():
    """It was 263 compilations and 11 s (NumPy 0.1 s)."""
    how = {"hidden_layer_sizes": (18,), "max_iter": 2, "random_state": 0}
    with compilations() as names:
        found = cross_val_score(dlx.MLPClassifier(**how, backend="jax"), X, LABELS, cv=TimeSeriesSplit(10))
    assert len(names) <= MOST
    expected = cross_val_score(dlx.MLPClassifier(**how, backend="numpy"), X, LABELS, cv=TimeSeriesSplit(10))
    np.testing.assert_array_equal(found, expected)


def test_a_grid_of_rates_and_penalties_compiles_a_dozen_times():
    """It was 97 compilations and 5 s for 12 settings of 3 parts each (NumPy 0.3 s)."""
    grid = {"learning_rate_init": [1e-3, 2e-3, 3e-3, 5e-3], "alpha": [0.0, 1e-4, 1e-3]}
    with compilations() as names:
        search = GridSearchCV(dlx.MLPClassifier((19,), max_iter=2, random_state=0, backend="jax"), grid, cv=3)
        search.fit(X, LABELS)
    assert len(names) <= MOST


def test_fits_of_twenty_numbers_of_rows_compile_a_dozen_times():
    """One batch of all rows, full batches, ragged ones; each of another number of rows and another penalty."""
    sizes = [1, 2, 7, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 131, 170, 200, 255, 256, 257, 300]
    with compilations() as names:
        for n in sizes:
            dlx.fit(X[:n], TARGETS[:n], (6, 20, 2), backend="jax", batch_size=64, epochs=2, l2=1e-3 * n, rng=0)
    assert len(names) <= MOST


def test_streamed_and_lbfgs_compile_about_a_dozen_times_each():
    """Of L-BFGS each operation on vectors is one, whatever the number of rows."""
    for how, most in (({"stream": True, "batch_size": 64}, MOST), ({"optimizer": "lbfgs"}, MOST + 2)):
        with compilations() as names:
            for n in (65, 80, 99, 101, 127):
                dlx.fit(X[:n], TARGETS[:n], (6, 21, 2), backend="jax", epochs=2, rng=0, **how)
        assert len(names) <= most, (how, names)


@pytest.mark.parametrize("n", [1, 31, 64, 65, 129, 300])
@pytest.mark.parametrize(
    "how",
    [
        {"batch_size": None, "l2": 1e-2},
        {"batch_size": 32, "dropout": 0.3, "l1": 1e-3},
        {"batch_size": 50, "validation": (X[:13], TARGETS[:13]), "sample_weight": True},
        {"batch_size": 50, "stream": True, "optimizer": dlx.adamw(1e-2), "sample_weight": True, "dropout": 0.2},
        {"optimizer": "lbfgs", "l2": 1e-2, "sample_weight": True},
    ],
    ids=["all rows", "dropout", "validation", "streamed", "lbfgs"],
)
def test_ragged_batches_train_as_on_numpy(n, how):
    """In float64, with Adam for some 50 updates; dropout's masks are those of the real rows' places."""
    how = dict(how)
    if how.pop("sample_weight", False):
        how["sample_weight"] = 1.0 + np.arange(n) % 3
    how["epochs"] = 8 if how.get("optimizer") == "lbfgs" else -(-50 // -(-n // (how["batch_size"] or n)))
    on = [dlx.fit(X[:n], TARGETS[:n], (6, 9, 2), activation="tanh", rng=1, backend=b, **how) for b in ("jax", "numpy")]
    if how.get("optimizer") == "lbfgs":
        np.testing.assert_allclose(vector(on[0]), vector(on[1]), rtol=0, atol=1e-8)
    else:
        assert_agree(*on)


def test_a_validation_share_of_labels_agrees_with_numpy():
    how = {"batch_size": 37, "epochs": 12, "validation": 0.2, "patience": 3, "rng": 2}
    assert_agree(*(dlx.fit(X, LABELS, (6, 9, 3), backend=backend, **how) for backend in ("jax", "numpy")))


def test_other_penalties_of_one_kind_are_other_numbers():
    """One compiled loop serves all penalties; none, L1 and L2 are of their own kinds."""
    for penalties in ({}, {"l2": 0.1}, {"l2": 0.3}, {"l1": 0.1}, {"l2": 0.1, "l1": 0.2}):
        how = {"batch_size": 64, "epochs": 3, "rng": 0, **penalties}
        assert_agree(*(dlx.fit(X, TARGETS, (6, 8, 2), backend=backend, **how) for backend in ("jax", "numpy")))


def test_a_row_that_was_added_is_not_seen_to_diverge():
    """What fills a batch weighs 0, and 0 times an infinite loss is 0."""
    with pytest.raises(dlx.DivergenceError, match="got inf in epoch 1, batch 1"):
        dlx.fit(X[:70], TARGETS[:70] * 1e200, (6, 4, 2), backend="jax", batch_size=None, epochs=1, rng=0)


@pytest.mark.parametrize("n", [1, 33, 513, 2048, 4700])
@pytest.mark.parametrize("key", [None, "kept"])
@pytest.mark.parametrize("to_host", [True, False])
def test_rows_that_are_added_are_taken_away(be, n, key, to_host):
    """Of one array or of several, from the host or from here."""
    A, B = RNG.standard_normal((n, 3)), RNG.standard_normal((n, 1))

    def function(constants, given):
        A, B = given
        return A * constants[0] + B, A[:, 0] * constants[1]

    key = None if key is None else (key, "rowwise test")
    constants = (be.asarray([[1.0, 2.0, 3.0]], "float64"), be.asarray([2.0], "float64"))
    call = be.rowwise(function, key)
    with be.scope():
        for given in ((A, B), (be.asarray(A, "float64"), be.asarray(B, "float64"))):
            whole, first = call(constants, given, to_host=to_host)
            assert isinstance(whole, np.ndarray) == (to_host or be.name == "numpy")
            whole, first = (each if to_host else be.to_host(each) for each in (whole, first))
            np.testing.assert_allclose(whole, A * [[1.0, 2.0, 3.0]] + B, rtol=0, atol=1e-13)
            np.testing.assert_allclose(first, 2 * A[:, 0], rtol=0, atol=1e-13)


def test_what_a_network_is_made_of_is_its_own():
    """JAX may share a NumPy array's memory; parameters and their copies do not."""
    be = dlx.get_backend("jax")
    for size in (3, 64, 4096):
        host = np.ones((size, size))
        net = dlx.Network([(host, np.zeros(size))], backend=be)
        copy = be.copy(net.params[0].W)
        host[:] = 7
        assert float(np.asarray(net.params[0].W).max()) == float(np.asarray(copy).max()) == 1


def test_few_sizes():
    be = dlx.get_backend("jax")
    assert len({be.padded(n) for n in range(1, 2**16 + 1)}) == 8
    assert all(n <= be.padded(n) <= max(64, 4 * n) for n in range(1, 2**16 + 1, 7))
    assert (be.padded(2**16), be.padded(2**16 + 1)) == (2**16, 2**16 + 1)
    assert dlx.get_backend("numpy").padded(17) is None


@pytest.mark.parametrize("block", [2, 3, 32])
def test_steps_in_blocks_are_the_same_steps(block, monkeypatch):
    """A loop of known length in one whose length is given, as on a GPU."""
    from dlx.backends._jax import JaxBackend

    how = {"backend": "jax", "batch_size": 16, "dropout": 0.2, "rng": 3, "optimizer": dlx.nadam(1e-2)}
    plain = dlx.fit(X, TARGETS, (6, 7, 2), epochs=12, **how)
    monkeypatch.setattr(JaxBackend, "block", block)
    monkeypatch.setattr("dlx.backends._jax._COMPILED", {})
    found = dlx.fit(X, TARGETS, (6, 7, 2), epochs=12, **how)
    np.testing.assert_allclose(vector(found), vector(plain), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.history["loss"], plain.history["loss"], rtol=1e-12)


@pytest.mark.parametrize(
    ("first", "steps", "most"), [(0, 75, None), (5, 75, 7), (40, 41, None), (0, 3, 2), (74, 75, 1)]
)
def test_a_loop_in_blocks_makes_each_step_once(first, steps, most, monkeypatch):
    from dlx.backends._jax import JaxBackend

    be = dlx.get_backend("jax")
    monkeypatch.setattr(JaxBackend, "block", 4)

    def step(carry, constants, inputs):
        number, row = inputs
        return (carry[0] * constants + number, carry[1] + 1), number * 2.0 + row[0]

    inputs = np.arange(80) * 0.5, be.asarray(np.arange(160).reshape(80, 2), "int32")
    with be.scope():
        carry, outputs = (be.asarray(1.0, "float64"), be.asarray(0, "int32")), []
        for done in be.loop(step)(carry, be.asarray(0.9, "float64"), inputs, steps, first, most):
            carry, new = done
            assert len(new) <= (most or 80)
            outputs.extend(new.tolist())
    expected = 1.0
    for number in np.arange(first, steps) * 0.5:
        expected = expected * 0.9 + number
    assert outputs == [k * 3.0 for k in range(first, steps)]
    assert int(carry[1]) == steps - first
    np.testing.assert_allclose(float(carry[0]), expected, rtol=1e-14)


def test_reports_and_activations_of_any_number_of_rows():
    """36 compilations for each number of rows, and 5."""
    net = dlx.fit(X, LABELS, (6, 21, 3), backend="jax", epochs=1, rng=0)
    with compilations() as names:
        for k in range(50, 60):
            net.report(X[:k], LABELS[:k])
            net.activations(X[:k])
    assert len(names) <= 2
    for one, other in zip(net.activations(X[:57]), net.to("numpy").activations(X[:57]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
