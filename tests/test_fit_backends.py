"""`fit` on every array library: the same numbers, the caller's arrays untouched, no wait for the device in a step."""

import contextlib
import importlib.util
import itertools

import numpy as np
import pytest

import dlx
from conftest import SELECTORS, read_only
from dlx import network
from dlx.backend import Backend
from dlx.data import features, parameters
from dlx.training import steps

N, DIMS = 45, (4, 8, 6, 3)
X = np.random.default_rng(1).standard_normal((N, 4))
Y = np.random.default_rng(2).integers(0, 3, N)
WEIGHT = np.random.default_rng(3).uniform(0.5, 2.0, N)
HOW = {"dropout": (0.25, 0.1), "l2": 1e-3, "l1": 1e-4, "clip_norm": 1.0, "sample_weight": WEIGHT, "activation": "tanh"}


def fit(X=X, y=Y, dims=DIMS, **settings):
    """By default 50 updates, the last of every five on five rows only."""
    return dlx.fit(X, y, dims, **{"epochs": 10, "batch_size": 10, "learning_rate": 0.01, "rng": 0, **settings})


def vector(net):
    return np.concatenate([net.backend.to_host(each).ravel() for layer in net.params for each in layer])


@contextlib.contextmanager
def uncompiled():
    import jax

    with jax.disable_jit():
        yield


@pytest.fixture(scope="module")
def on_numpy():
    return fit(**HOW), fit(X[:, :1] * [1, 2, 3, 4], dims=(4, 2), y=X[:, 1:3], optimizer="lbfgs", validation=0.2)


def assert_agree(net, reference):
    assert net.dtype == "float64"
    assert np.abs(vector(net) - vector(reference)).max() < 1e-12
    np.testing.assert_allclose(net.history["loss"], reference.history["loss"], rtol=0, atol=1e-12)
    assert net.history["loss"][-1] < net.history["loss"][0]


def test_fifty_steps_of_adam_with_dropout_agree(be, on_numpy):
    assert_agree(fit(**HOW, backend=be), on_numpy[0])


def test_fifty_steps_in_float32_agree(be):
    nets = [fit(**HOW | {"dtype": "float32"}, backend=each) for each in (be, "numpy")]
    assert np.abs(vector(nets[0]) - vector(nets[1])).max() < 1e-5
    assert nets[0].params[0].W.dtype == be.dtype("float32")


@pytest.mark.parametrize("selector", [name for name in SELECTORS if name == "jax"])
def test_so_they_do_where_nothing_is_compiled(selector):
    how = {"dims": (4, 8, 3), "batch_size": None, "epochs": 50, "dropout": 0.3, "sample_weight": WEIGHT}
    with uncompiled():
        eager = fit(**how, backend=selector)
    assert_agree(eager, fit(**how))
    assert_agree(eager, fit(**how, backend=selector))


def test_lbfgs_and_a_validation_share_agree(be, on_numpy):
    net = fit(X[:, :1] * [1, 2, 3, 4], X[:, 1:3], (4, 2), optimizer="lbfgs", validation=0.2, backend=be)
    np.testing.assert_allclose(vector(net), vector(on_numpy[1]), rtol=0, atol=1e-9)
    for name in ("loss", "validation_loss", "validation_score"):
        np.testing.assert_allclose(net.history[name], on_numpy[1].history[name], rtol=0, atol=1e-9)


def test_own_arrays_stay_where_they_are_and_are_never_written(be):
    """Of the host read-only, of the library's own compared; one batch of all rows, that nothing is copied for it."""
    start = fit(epochs=1, dims=(4, 3))
    host = {
        "X": X.copy(),
        "y": X[:, :3].copy(),
        "sample_weight": WEIGHT.copy(),
        "X_val": X[:5].copy(),
        "y_val": X[:5, :3].copy(),
        "W": start.params[0].W.copy(),
        "b": start.params[0].b.copy(),
    }
    own = {name: be.asarray(each.copy(), "float64") for name, each in host.items()}
    read_only(*host.values())
    nets = []
    for given, backend in ((host, be), (own, None)):
        init, validation = [(given["W"], given["b"])], (given["X_val"], given["y_val"])
        how = {"validation": validation, "sample_weight": given["sample_weight"], "patience": 3}
        net = fit(given["X"], given["y"], (4, 3), init=init, batch_size=None, backend=backend, **how)
        assert net.backend == be
        assert type(net.params[0].W) is type(own["X"])
        nets.append(net)
    for name, each in own.items():
        np.testing.assert_array_equal(be.to_host(each), host[name])
    np.testing.assert_array_equal(vector(nets[0]), vector(nets[1]))
    assert np.abs(vector(nets[0]) - np.concatenate([host["W"].ravel(), host["b"].ravel()])).max() > 0.01


def test_two_backends_in_one_process_do_not_disturb_each_other():
    """Each fit runs another, on the next library, between its two epochs."""
    how = {"epochs": 2, "dims": (4, 3)}
    alone = {selector: vector(fit(**how, backend=selector)) for selector in SELECTORS}
    inner = {}

    for one, other in zip(SELECTORS, [*SELECTORS[1:], SELECTORS[0]], strict=True):

        def elsewhere(net, other=other):
            if other not in inner:
                inner[other] = vector(fit(**how, backend=other))

        outer = fit(**how, backend=one, callbacks=elsewhere)
        assert outer.backend == dlx.get_backend(one)
        np.testing.assert_array_equal(vector(outer), alone[one])
        np.testing.assert_array_equal(inner[other], alone[other])


class Spy(Backend):
    """array-api-strict, counting what would make a GPU wait."""

    waits: list[str]

    def to_host(self, x):
        self.waits.append("to_host")
        return np.asarray(x)


@pytest.fixture
def spy(monkeypatch):
    strict = pytest.importorskip("array_api_strict") if "strict" in SELECTORS else None
    assert strict is not None
    backend = Spy(strict, name="strict")
    backend.waits = []
    kind = type(strict.asarray(1.0))
    for name in ("__float__", "__int__", "__bool__", "__index__", "__complex__"):
        inner = getattr(kind, name)

        def counted(self, name=name, inner=inner):
            backend.waits.append(name)
            return inner(self)

        monkeypatch.setattr(kind, name, counted)
    return backend


@pytest.mark.parametrize("optimizer", ["adam", dlx.lion(weight_decay=0.1)], ids=["adam", "lion"])
def test_one_transfer_an_epoch_and_no_wait_in_a_step(spy, optimizer):
    """Nothing else depends on the number of epochs or of steps."""
    marks = []
    how = {**HOW, "backend": spy, "optimizer": optimizer, "clip_value": 0.5}
    fit(**how, epochs=5, callbacks=lambda net: marks.append(len(spy.waits)))
    assert [spy.waits[a:b] for a, b in itertools.pairwise(marks)] == [["to_host"]] * 4
    epochs, spy.waits = list(spy.waits), []
    fit(**how, epochs=5, batch_size=1)
    assert spy.waits == epochs


def test_the_check_of_the_spy_sees_a_wait(spy, monkeypatch):
    mean = network.mean_loss
    monkeypatch.setattr(network, "mean_loss", lambda *rest: mean(*rest) * float(mean(*rest) > 0))
    fit(backend=spy, epochs=1)
    assert spy.waits.count("__float__") >= 5


if importlib.util.find_spec("torch"):

    @pytest.mark.parametrize("optimizer", [*(n for n in dlx.optimizers.OPTIMIZERS if n != "lbfgs")])
    def test_a_step_runs_on_torch_meta_where_every_wait_raises(optimizer):
        be = dlx.get_backend("torch:meta")
        net = network.bind(
            be,
            "float32",
            parameters.hidden_activations("mish", 2),
            dlx.losses.cross_entropy(0.1),
            dropout=(0.5, 0.5),
            l2=0.1,
            l1=0.1,
        )
        rows = features.Rows(
            be.xp.zeros((N, 4), device="meta"),
            be.xp.zeros((N, 1), dtype=be.xp.int32, device="meta"),
            be.xp.zeros((N, 1), device="meta"),
            be.xp.zeros((1, 3), dtype=be.xp.int32, device="meta"),
        )
        made = dlx.optimizers.get(optimizer)
        settings = steps.Settings(made, dlx.schedules.constant(0.1), 10, 1, True, None, 1.0, 0.1)
        params = tuple(
            network.Layer(be.xp.zeros(s, device="meta"), be.xp.zeros((1, s[1]), device="meta"))
            for s in ((4, 8), (8, 6), (6, 3))
        )
        task = steps.Task(be, net, "float32", rows, None)
        step, carry = steps.make_step(task, settings, params)
        numbers = be.xp.zeros(10, dtype=be.xp.int32, device="meta")
        with be.scope():
            carry, loss = step(carry, rows, steps.Inputs(numbers, [1, 2], made.coefficients(1, 0.1), 0.9))
        assert tuple(loss.shape) == ()
        assert carry.params[0].W.shape == (4, 8)
        with pytest.raises((RuntimeError, NotImplementedError)):
            float(loss)
