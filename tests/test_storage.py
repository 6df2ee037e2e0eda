"""Parameters as one vector and back, and as views of one vector."""

import math

import numpy as np
import pytest

import dlx
from dlx import network
from dlx.network import Layer
from dlx.training import flat

SHAPES = [((4, 3), (1, 3)), ((3, 5), (1, 5)), ((5, 1), (1, 1))]
PURE = ("strict", "jax")


def layers(be, rng):
    host = [tuple(rng.standard_normal(shape) for shape in pair) for pair in SHAPES]
    return host, tuple(Layer(*(be.asarray(each) for each in pair)) for pair in host)


def test_ravel_and_unravel_are_inverse(be, rng):
    host, params = layers(be, rng)
    x = flat.ravel(be.xp, params)
    np.testing.assert_array_equal(be.to_host(x), np.concatenate([each.ravel() for pair in host for each in pair]))
    back = flat.unravel(be.xp, x, params)
    assert all(isinstance(layer, network.Layer) for layer in back)
    for layer, pair in zip(back, host, strict=True):
        for each, expected in zip(layer, pair, strict=True):
            np.testing.assert_array_equal(be.to_host(each), expected)


def test_which_libraries_write_in_place(be):
    assert be.in_place == (be.name not in PURE)
    if be.in_place:  # a promise: slices and reshapes are views, and products go where they are told
        x = be.xp.zeros(6, dtype=be.dtype("float64"), device=be.device)
        view = be.xp.reshape(x[2:6], (2, 2))
        a = be.asarray([[1.0, 2.0], [3.0, 4.0]])
        be.product(be.transpose(a), a, view)
        np.testing.assert_array_equal(be.to_host(x), [0, 0, 10, 14, 14, 20])
        be.sum_rows(a, be.xp.reshape(x[:2], (1, 2)))
        np.testing.assert_array_equal(be.to_host(x), [4, 6, 10, 14, 14, 20])


def test_together_are_views_of_one_vector_weights_first(be, rng):
    if be.name in PURE:
        assert not be.in_place
        return
    host, params = layers(be, rng)
    found = flat.together(be, params)
    assert not be.to_host(found.vector).any()
    for view, layer in zip(found.layers, params, strict=True):
        assert isinstance(view, Layer)
        view.W[...], view.b[...] = layer
    vector = be.to_host(found.vector)
    start = 0
    for part in zip(*host, strict=True):
        for each in part:
            np.testing.assert_array_equal(vector[start : start + each.size], each.ravel())
            start += -(-each.size // flat.ALIGNED) * flat.ALIGNED
    assert vector.shape == (start,)
    assert np.count_nonzero(vector) == sum(each.size for pair in host for each in pair)
    weights = be.to_host(found.weights)
    assert np.count_nonzero(weights) == sum(math.prod(W) for W, _ in SHAPES)
    found.vector[...] = found.vector * 2.0
    np.testing.assert_array_equal(be.to_host(found.layers[1].W), 2 * host[1][0])


def own(update):
    """A user's optimizer, called like one of dlx's."""
    return dlx.optimizers.Optimizer("adam", {}, None, 0.0, 1, lambda t, rate: (rate,), lambda xp: update)


def test_a_users_own_optimizer_may_return_new_arrays(be):
    def update(w, g, m, rate):
        m = 0.9 * m + g
        return w - rate * m, m

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 4)), rng.integers(0, 3, 50)
    options = {"batch_size": 20, "epochs": 3, "learning_rate": 0.1, "rng": 0, "backend": be, "dtype": "float64"}
    found = dlx.fit(X, y, (4, 6, 3), optimizer=own(update), **options)
    expected = dlx.fit(X, y, (4, 6, 3), optimizer=dlx.optimizers.momentum(beta=0.9), **options)
    for layer, other in zip(found.params, expected.params, strict=True):
        for each, theirs in zip(layer, other, strict=True):
            np.testing.assert_allclose(be.to_host(each), be.to_host(theirs), rtol=0, atol=1e-14)


def test_two_optimizers_of_one_name_are_not_taken_for_each_other(be):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 4)), rng.integers(0, 3, 50)
    options = {"epochs": 2, "rng": 0, "backend": be, "dtype": "float64"}
    nets = [
        dlx.fit(X, y, (4, 6, 3), optimizer=each, **options)
        for each in (dlx.adam(), own(lambda w, g, m, rate: (w - rate * g, m)), own(lambda w, g, m, rate: (w, m)))
    ]
    first, second, third = (be.to_host(net.params[0].W) for net in nets)
    assert np.abs(first - second).max() > 1e-6
    assert np.abs(second - third).max() > 1e-6


OWN = {
    "keeps the last gradient": lambda w, g, prev, rate: (w - rate * (2.0 * g - prev), g),
    "keeps the last weights": lambda w, g, prev, rate: (w - rate * g + 0.5 * (w - prev), w),
    "looks at its array": lambda w, g, prev, rate: (w - rate * g * float(w.shape[0] > 1), prev),
}


@pytest.mark.parametrize("name", OWN)
def test_a_users_own_optimizer_is_given_one_parameter_at_a_time(name, be):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 4)), rng.standard_normal(50)
    options = {"optimizer": own(OWN[name]), "batch_size": 16, "epochs": 5, "learning_rate": 0.01, "rng": 0}
    found = dlx.fit(X, y, (4, 6, 3, 1), **options, backend=be, dtype="float64")
    rng = np.random.default_rng(0)  # the same by hand, a pure update of each array
    plain = dlx.get_backend("numpy")
    pure = type("Pure", (type(plain),), {"in_place": False})(plain.xp)
    expected = dlx.fit(X, y, (4, 6, 3, 1), **options, backend=pure, dtype="float64")
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=1e-10)


@pytest.mark.parametrize(("first", "second"), [("tanh", "sigmoid"), ("relu", "softplus")])
def test_losses_of_one_name_are_not_taken_for_each_other(first, second, be):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 4)), rng.uniform(0.1, 0.9, 50)
    found = []
    for name in (first, second):
        loss = dlx.losses.through(dlx.activations.get(name), dlx.losses.squared_error())._replace(name="mine")
        found.append(dlx.fit(X, y, (4, 3, 1), loss=loss, epochs=2, rng=0, backend=be, dtype="float64").history["loss"])
    assert found[0] != found[1]
