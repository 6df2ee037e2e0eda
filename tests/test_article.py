"""`L_layer_model` beside the article's own algorithm, its slips put right; each of the four has a test."""

import re

import numpy as np
import pytest

import dlx
from conftest import EVERYWHERE, SELECTORS
from oracles import AUTODIFF

RNG = np.random.default_rng(6)
X = RNG.standard_normal((4, 9))
Y = RNG.standard_normal((2, 9))
DIMS = (4, 5, 3, 2)
SHAPES = [(4, 2), (4, 5, 2), DIMS, (1, 1, 1, 1, 1), (3, 1, 7, 1, 2), (2, 30, 30, 30, 4)]
FUNCTIONS = {  # f and, slip 1 put right, its derivative: of each element by itself
    "none": (lambda Z: Z, lambda Z: np.ones_like(Z)),
    "relu": (lambda Z: np.maximum(Z, 0), lambda Z: np.where(Z > 0, 1.0, 0.0)),
    "sigmoid": (lambda Z: 1 / (1 + np.exp(-Z)), lambda Z: np.exp(-Z) / (1 + np.exp(-Z)) ** 2),
}


def initialize_parameters(layer_dims):
    np.random.seed(2)
    parameters = {}
    for l in range(1, len(layer_dims)):
        parameters[f"W{l}"] = np.random.randn(layer_dims[l], layer_dims[l - 1]) * 0.01
        parameters[f"b{l}"] = np.zeros((layer_dims[l], 1))
    return parameters


def compute_cost(AL, Y):
    return np.sum((Y - AL) ** 2) / Y.shape[1]


def transcription(X, Y, layer_dims, names, learning_rate, num_iterations):
    """The article: columns are samples, caches, then grads from the last layer to the first, then the update."""
    parameters, costs, L, m = initialize_parameters(layer_dims), [], len(layer_dims) - 1, X.shape[1]
    for _ in range(num_iterations):
        A, caches = X, []
        for l in range(1, L + 1):
            Z = np.dot(parameters[f"W{l}"], A) + parameters[f"b{l}"]
            caches.append((A, Z))
            A = FUNCTIONS[names[l - 1]][0](Z)
        costs.append(compute_cost(A, Y))
        grads, dA = {}, -2 * (Y - A)
        for l in range(L, 0, -1):
            A_prev, Z = caches[l - 1]
            dZ = dA * FUNCTIONS[names[l - 1]][1](Z)
            grads[f"dW{l}"] = np.dot(dZ, A_prev.T) / m
            grads[f"db{l}"] = np.sum(dZ, axis=1, keepdims=True) / m
            dA = np.dot(parameters[f"W{l}"].T, dZ)
        for name in parameters:
            parameters[name] = parameters[name] - learning_rate * grads[f"d{name}"]
    return parameters, costs


def data(layer_dims, m=9):
    rng = np.random.default_rng(7)
    return rng.standard_normal((layer_dims[0], m)), rng.standard_normal((layer_dims[-1], m))


def assert_parameters(found, expected, layer_dims, be=None, tolerance=1e-12):
    pairs = [f"{part}{l}" for l in range(1, len(layer_dims)) for part in "Wb"]
    assert list(found) == pairs
    for name in pairs:
        host = found[name] if be is None else be.to_host(found[name])
        np.testing.assert_allclose(host, expected[name], rtol=0, atol=tolerance, strict=True)


@pytest.mark.parametrize("layer_dims", SHAPES)
def test_ten_iterations_are_the_articles(layer_dims):
    X, Y = data(layer_dims)
    params, costs = dlx.L_layer_model(X, Y, layer_dims)  # the defaults: none, 0.05, 10
    expected, expected_costs = transcription(X, Y, layer_dims, ["none"] * (len(layer_dims) - 1), 0.05, 10)
    assert_parameters(params, expected, layer_dims)
    np.testing.assert_allclose(costs, expected_costs, rtol=1e-13)


MIXED = [("relu", "relu", "none"), ("sigmoid", "relu", "sigmoid"), ("none", "sigmoid", "relu"), ("relu",) * 3]


@pytest.mark.parametrize("names", MIXED)
def test_activations_on_every_layer_are_the_articles(names, be):
    params, costs = dlx.L_layer_model(X, Y, DIMS, 0.5, 20, activation=names, backend=be)
    expected, expected_costs = transcription(X, Y, DIMS, names, 0.5, 20)
    assert np.abs(expected["b3"]).max() > 0.01
    assert_parameters(params, expected, DIMS, be)
    np.testing.assert_allclose(costs, expected_costs, rtol=1e-12)


@pytest.mark.parametrize("library", AUTODIFF)
@pytest.mark.parametrize("hidden", ["none", "relu", "sigmoid"])
@pytest.mark.parametrize("last", ["none", "relu", "sigmoid"])
def test_one_update_is_the_automatic_derivative(library, hidden, last):
    """Of the printed cost, by every weight and bias."""
    start = initialize_parameters((4, 5, 2))
    names = ["W1", "b1", "W2", "b2"]
    ends = np.cumsum([start[name].size for name in names])

    def objective(xp, array):
        f = {
            "none": lambda Z: Z,
            "relu": lambda Z: xp.where(Z > 0, Z, 0.0 * Z),
            "sigmoid": lambda Z: 1 / (1 + xp.exp(-Z)),
        }

        def cost(vector):
            W1, b1, W2, b2 = (
                xp.reshape(vector[end - start[name].size : end], start[name].shape)
                for name, end in zip(names, ends.tolist(), strict=True)
            )
            A2 = f[last](W2 @ f[hidden](W1 @ array(X) + b1) + b2)
            return xp.sum((array(Y) - A2) ** 2) / 9

        return cost

    vector = np.concatenate([start[name].ravel() for name in names])
    value, gradient = AUTODIFF[library](objective, vector)
    params, costs = dlx.L_layer_model(X, Y, (4, 5, 2), 0.05, 1, activation=[hidden, last])
    moved = np.concatenate([params[name].ravel() for name in names])
    np.testing.assert_allclose((vector - moved) / 0.05, gradient, rtol=1e-10, atol=1e-13)
    assert costs == [pytest.approx(float(value), rel=1e-14)]


@pytest.mark.parametrize("selector", EVERYWHERE)
def test_every_library_agrees_with_numpy(selector):
    be = dlx.get_backend(selector)
    how = {"learning_rate": 0.5, "num_iterations": 30, "activation": ("tanh", "relu", "sigmoid")}
    expected, expected_costs = dlx.L_layer_model(X, Y, DIMS, **how)
    for x, y, backend in ((X, Y, be), (be.asarray(X), be.asarray(Y), None), (X.tolist(), Y.tolist(), selector)):
        params, costs = dlx.L_layer_model(x, y, DIMS, **how, backend=backend)
        assert_parameters(params, expected, DIMS, be)
        np.testing.assert_allclose(costs, expected_costs, rtol=0, atol=1e-12)
        assert type(params["W1"]) is type(be.asarray(1.0))


# -- the four slips --


def test_slip_1_the_derivative_of_relu_is_of_each_element():
    """Units with mixed signs over the samples: where Z < 0 nothing flows, elsewhere all of it."""
    x, y = np.array([[1.0, -1.0, 2.0]]), np.array([[1.0, 1.0, 1.0]])
    W = initialize_parameters((1, 1))["W1"][0, 0]
    assert W < 0  # so that the middle sample alone is active
    params, _ = dlx.L_layer_model(x, y, (1, 1), 0.3, 1, activation="relu")
    assert params["W1"][0, 0] == pytest.approx(W - 0.3 * -2 * (1.0 - -W) * -1.0 / 3, rel=1e-12)
    assert params["b1"][0, 0] == pytest.approx(-0.3 * -2 * (1.0 - -W) / 3, rel=1e-12)


def test_slip_2_the_cost_is_what_the_update_descends():
    """The squared error, summed over outputs and averaged over samples; its numeric derivative is the update."""
    start, h = initialize_parameters((4, 2)), 1e-6
    params, costs = dlx.L_layer_model(X, Y, (4, 2), 0.05, 1)

    def cost(**other):
        p = start | other
        return sum(sum((Y[k, i] - (p["W1"] @ X + p["b1"])[k, i]) ** 2 for k in range(2)) for i in range(9)) / 9

    assert costs == [pytest.approx(cost(), rel=1e-13)]
    for name, x in start.items():
        for place in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[place] = h
            slope = (cost(**{name: x + step}) - cost(**{name: x - step})) / (2 * h)
            assert (x - params[name])[place] / 0.05 == pytest.approx(slope, abs=1e-8)


def test_slip_3_nothing_is_printed_but_costs(capsys):
    dlx.L_layer_model(X, Y, DIMS)
    assert capsys.readouterr() == ("", "")
    _, costs = dlx.L_layer_model(X, Y, DIMS, num_iterations=5, print_cost=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Cost is {cost:.6g} on iteration {i}" for i, cost in enumerate(costs)]
    assert re.fullmatch(r"Cost is \d\.\d+ on iteration 3", lines[3])


def test_slip_3_the_form_of_the_line(capsys):
    dlx.L_layer_model([[0.0]], [[np.sqrt(0.12)]], (1, 1), 1e-9, 4, print_cost=True)
    assert capsys.readouterr().out.splitlines()[3] == "Cost is 0.12 on iteration 3"


def test_slip_4_costs_are_numbers(be):
    _, costs = dlx.L_layer_model(X, Y, DIMS, num_iterations=3, backend=be)
    assert [type(cost) for cost in costs] == [float] * 3


# -- dtype, divergence, errors --


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        ("float64", None, "float64"),
        ("float32", None, "float32"),
        ("int64", None, "float64"),
        ("int8", "float32", "float32"),
    ],
)
def test_dtype(given, asked, expected, be):
    params, _ = dlx.L_layer_model(be.asarray(X.astype(given)), be.asarray(Y), DIMS, dtype=asked)
    assert {str(each.dtype).rpartition(".")[-1] for each in params.values()} == {expected}


def test_the_callers_arrays_are_not_written_and_no_iteration_is_the_start():
    x, y = X.copy(), Y.copy()
    x.flags.writeable = y.flags.writeable = False
    params, costs = dlx.L_layer_model(x, y, DIMS, num_iterations=0)
    assert costs == []
    assert_parameters(params, initialize_parameters(DIMS), DIMS, tolerance=0)
    dlx.L_layer_model(x, y, DIMS, activation="relu")
    np.testing.assert_array_equal(x, X)


def test_a_rate_too_high_names_the_iteration(be):
    with pytest.raises(dlx.DivergenceError, match=r"`cost` must stay finite; got (inf|nan) on iteration \d+\. Lower "):
        dlx.L_layer_model(100 * X, Y, (4, 2), 1e3, 500, backend=be)


def hole(x, value):
    x = x.copy()
    x[1, 2] = value
    return x


ERRORS = [
    (
        {"X": X.T},
        ValueError,
        r"`X` must have shape \(4, m\): columns are samples; got \(9, 4\)\. For rows that are samp",
    ),
    (
        {"Y": Y.T},
        ValueError,
        r"`Y` must have shape \(2, m\): columns are samples; got \(9, 2\)\. For rows that are sampl",
    ),
    ({"X": X[0]}, ValueError, r"`X` must have shape \(4, m\): columns are samples; got \(9,\)"),
    ({"X": X[:, :0], "Y": Y[:, :0]}, ValueError, r"`X` must have shape \(4, m\)"),
    ({"Y": Y[:, :5]}, ValueError, r"`Y` must have 9 columns, one for each of X; got 5\. Columns are samples"),
    ({"X": hole(X, np.nan)}, ValueError, r"`X` must be finite in float64; got nan at row 1, column 2"),
    ({"Y": hole(Y, np.inf)}, ValueError, r"`Y` must be finite in float64; got inf at row 1, column 2"),
    ({"X": X + 0j}, TypeError, r"`X` must hold real numbers; got dtype complex128"),
    ({"Y": Y.astype(str)}, TypeError, r"`Y` must hold real numbers; got dtype <U"),
    ({"X": [[1.0], [1.0, 2.0]]}, ValueError, r"`X` must be an array, or rows of one length"),
    ({"layer_dims": 5}, TypeError, r"`layer_dims` must be a sequence of widths; got 5"),
    ({"layer_dims": (4,)}, ValueError, r"`layer_dims` must hold at least an input and an output width"),
    ({"layer_dims": (4, 0, 2)}, ValueError, r"`layer_dims\[1\]` must be an integer >= 1; got 0"),
    ({"learning_rate": 0}, ValueError, r"`learning_rate` must be a number > 0; got 0"),
    ({"learning_rate": "0.1"}, TypeError, r"`learning_rate` must be a number > 0; got '0.1'"),
    ({"num_iterations": -1}, ValueError, r"`num_iterations` must be an integer >= 0; got -1"),
    ({"num_iterations": 2.0}, TypeError, r"`num_iterations` must be an integer >= 0; got 2.0"),
    ({"activation": "Relu"}, ValueError, r"`activation` must be one of"),
    ({"activation": ["relu"] * 2}, ValueError, r"`activation` must be one activation or a sequence of 3; got 2"),
    ({"cost": "mse"}, ValueError, r"`cost` must be one of"),
    ({"cost": None}, TypeError, r"`cost` must be one of"),
    ({"backend": "nump"}, ValueError, r"`backend` must be"),
    ({"dtype": "float16"}, ValueError, r"`dtype` must be one of"),
    ({"print_cost": "yes"}, TypeError, r"`print_cost` must be True or False; got 'yes'"),
]


@pytest.mark.parametrize(("wrong", "kind", "text"), ERRORS)
def test_errors(wrong, kind, text, capsys):
    with pytest.raises((TypeError, ValueError), match=text) as caught:
        dlx.L_layer_model(**{"X": X, "Y": Y, "layer_dims": DIMS, "print_cost": True, **wrong})
    assert type(caught.value) is kind
    assert capsys.readouterr().out == ""  # before any work


@pytest.mark.parametrize("selector", [selector for selector in SELECTORS if selector != "numpy"])
def test_mixed_libraries(selector):
    own = dlx.get_backend(selector).asarray
    for x, y in ((own(X), Y), (X, own(Y))):
        with pytest.raises(TypeError, match=r"`Y` must be of the same library as `X`, "):
            dlx.L_layer_model(x, y, DIMS)
