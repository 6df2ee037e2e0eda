"""The law of every loss, *delta is the derivative of value*; values beside trusted outsiders'; settings."""

import numpy as np
import pytest
import scipy.special

import dlx
import oracles
from dlx import activations, get_backend, losses

NUMPY = get_backend("numpy")
CASES = {  # each for K outputs
    "squared_error": lambda K: losses.squared_error(),
    "absolute_error": lambda K: losses.absolute_error(),
    "huber": lambda K: losses.huber(),
    "huber(0.5)": lambda K: losses.huber(0.5),
    "quantile": lambda K: losses.quantile(),
    "quantile(0.9)": lambda K: losses.quantile(0.9),
    "quantile, one q per output": lambda K: losses.quantile([(k + 1) / (K + 1) for k in range(K)]),
    "poisson": lambda K: losses.poisson(),
    "binary_cross_entropy": lambda K: losses.binary_cross_entropy(),
    "cross_entropy": lambda K: losses.cross_entropy(),
    "cross_entropy(0.1)": lambda K: losses.cross_entropy(label_smoothing=0.1),
}
every_loss = pytest.mark.parametrize("make", CASES.values(), ids=CASES)
every_width = pytest.mark.parametrize("K", [1, 2, 5])
either_weighting = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])


def sample(loss, K, rng, n=6):
    """Scores and targets of the kind that the loss takes; |Z - Y| stays off 0 and Huber's widths."""
    Z = 2.0 * rng.standard_normal((n, K))
    if loss.targets == "counts":
        return Z, rng.poisson(2.0, (n, K)).astype(float)
    if loss.targets == "binary":
        return Z, np.where(rng.random((n, K)) < 0.3, rng.random((n, K)), rng.integers(0, 2, (n, K)))
    if loss.targets == "classes":
        Y = np.eye(K)[rng.integers(0, K, n)]
        Y[0] = rng.dirichlet(np.ones(K))
        return Z, Y
    gaps = rng.permuted(np.resize([0.1, -0.2, 0.4, -0.7, 0.8, -1.3, 2.0, -5.0], (n, K)))
    return Z, Z + gaps


def problem(loss, K, weighted, rng):
    """Z; mean_i w_i value_i as a function of Z, once a library is named; the law's derivative of it."""
    Z, Y = sample(loss, K, rng)
    w = rng.uniform(0.2, 3.0, (len(Z), 1)) if weighted else np.ones((len(Z), 1))

    def objective(xp, array):
        value, targets, weights = loss.bind(xp, array).value, array(Y), array(w)
        return lambda Z: xp.mean(weights * value(Z, targets), axis=(-2, -1))

    def derivative(be):
        return w * be.to_host(bind(loss, be).delta(be.asarray(Z), be.asarray(Y))) / len(Z)

    return Z, objective, derivative


def bind(loss, be, dtype="float64"):
    return loss.bind(be.xp, lambda x: be.asarray(x, dtype))


# -- the law --


@either_weighting
@every_width
@every_loss
def test_delta_by_complex_step(make, K, weighted, rng):
    Z, objective, derivative = problem(make(K), K, weighted, rng)
    expected = oracles.complex_gradient(objective(oracles.COMPLEX, np.asarray), Z)
    oracles.assert_close(derivative(NUMPY), expected, 1e-12)


@either_weighting
@every_width
@every_loss
def test_delta_by_central_differences(make, K, weighted, be, rng):
    Z, objective, derivative = problem(make(K), K, weighted, rng)
    expected = oracles.central_gradient(be, objective(be.xp, be.asarray), Z)
    oracles.assert_close(derivative(be), expected, 1e-7)


@oracles.by_library(oracles.AUTODIFF)
@either_weighting
@every_width
@every_loss
def test_delta_by_automatic_differentiation(make, K, weighted, library, rng):
    Z, objective, derivative = problem(make(K), K, weighted, rng)
    _, expected = oracles.AUTODIFF[library](objective, Z)
    oracles.assert_close(derivative(NUMPY), expected, 1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_one_class_is_degenerate(smoothing, be):
    value, delta, predict = bind(losses.cross_entropy(smoothing), be)
    Z, Y = be.asarray(np.array([[-2.0], [0.0], [900.0]])), be.asarray(np.ones((3, 1)))
    assert [be.to_host(each).tolist() for each in (value(Z, Y), delta(Z, Y))] == [[[0.0]] * 3] * 2
    assert be.to_host(predict(Z)).tolist() == [[1.0]] * 3


@pytest.mark.parametrize("name", ["squared_error", "absolute_error", "huber", "quantile(0.9)"])
def test_at_equality_delta_is_zero(name, be):
    Z = be.asarray(np.array([[1.5, -2.0]]))
    assert be.to_host(bind(CASES[name](2), be).delta(Z, Z)).tolist() == [[0.0, 0.0]]


SMOOTH = ("identity", "gelu", "silu", "mish", "softplus", "sigmoid", "tanh")


@every_width
@pytest.mark.parametrize("name", SMOOTH)
def test_through_an_activation_the_law_holds(name, K, rng):
    activation = activations.get(name)
    loss = losses.through(activation, losses.squared_error())
    Z, objective, derivative = problem(loss, K, True, rng)
    expected = oracles.complex_gradient(objective(oracles.COMPLEX, np.asarray), Z)
    oracles.assert_close(derivative(NUMPY), expected, 1e-12)
    value, _, predict = bind(loss, NUMPY)
    A = activation.bind(np).f(Z)
    oracles.assert_close(value(Z, 0.5 * Z), np.sum((A - 0.5 * Z) ** 2, axis=1, keepdims=True), 1e-14)
    np.testing.assert_array_equal(predict(Z), A)


def test_through_keeps_the_targets_and_the_link_of_its_loss():
    loss = losses.through(activations.tanh(), losses.poisson())
    assert loss.targets == "counts"
    found = loss.bind(np, np.asarray).predict(np.ones((1, 1)))
    np.testing.assert_allclose(found, [[np.exp(np.tanh(1.0))]], rtol=1e-15)


# -- values and links --


@every_width
@every_loss
def test_value_and_prediction_are_those_of_scipy_and_scikit_learn(make, K, be, rng):
    loss = make(K)
    Z, Y = sample(loss, K, rng)
    value, _, predict = bind(loss, be)
    expected = oracles.HOST_LOSSES[loss.name](Z, Y, **loss.settings).sum(axis=1, keepdims=True)
    oracles.assert_close(be.to_host(value(be.asarray(Z), be.asarray(Y))), expected, 1e-12)
    oracles.assert_close(be.to_host(predict(be.asarray(Z))), oracles.LINKS.get(loss.name, np.array)(Z), 1e-12)


@oracles.by_library(oracles.TORCH_LOSSES)
@every_width
@pytest.mark.parametrize("name", [name for name in CASES if "quantile" not in name])
def test_value_and_delta_are_those_of_torch(name, K, library, rng):
    loss = CASES[name](K)
    Z, Y = sample(loss, K, rng)
    expected, gradient = oracles.loss_of(library, loss, Z, Y)
    value, delta, _ = loss.bind(np, np.asarray)
    oracles.assert_close(value(Z, Y), expected, 1e-12)
    oracles.assert_close(delta(Z, Y), gradient, 1e-12)


SIDES = [1000, -1000]
EXTREMES = [  # scores, targets, value, delta, prediction; e^1000 is no float, so poisson goes to 80 only
    (losses.squared_error(), SIDES, [0, 0], 2e6, [2000, -2000], SIDES),
    (losses.absolute_error(), SIDES, [0, 0], 2000, [1, -1], SIDES),
    (losses.huber(0.5), SIDES, [0, 0], 999.75, [0.5, -0.5], SIDES),
    (losses.quantile(0.9), SIDES, [0, 0], 1000, [0.1, -0.9], SIDES),
    (losses.quantile([0.9, 0.2]), SIDES, [0, 0], 300, [0.1, -0.2], SIDES),
    (losses.poisson(), [80, -1000], [0, 3], 3000 + np.exp(80), [np.exp(80), -3], [np.exp(80), 0]),
    (losses.binary_cross_entropy(), SIDES, [1, 0], 0, [0, 0], [1, 0]),
    (losses.binary_cross_entropy(), SIDES, [0, 1], 2000, [1, -1], [1, 0]),
    (losses.cross_entropy(), SIDES, [1, 0], 0, [0, 0], [1, 0]),
    (losses.cross_entropy(), SIDES, [0, 1], 2000, [1, -1], [1, 0]),
    (losses.cross_entropy(0.1), SIDES, [0, 1], 1900, [0.95, -0.95], [1, 0]),
]


@pytest.mark.parametrize(
    ("loss", "Z", "Y", "value", "delta", "prediction"), EXTREMES, ids=[row[0].name for row in EXTREMES]
)
def test_extreme_scores(loss, Z, Y, value, delta, prediction):
    Z, Y = np.array([Z], dtype="float32"), np.array([Y], dtype="float32")
    formulas = loss.bind(np, lambda x: np.asarray(x, dtype="float32"))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = formulas.value(Z, Y), formulas.delta(Z, Y), formulas.predict(Z)
    for each, expected in zip(found, ([[value]], [delta], [prediction]), strict=True):
        assert each.dtype == np.float32
        np.testing.assert_allclose(each, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("score", [5.0, 20.0, 80.0])
def test_binary_cross_entropy_of_a_sure_and_right_score_keeps_its_digits(score, be):
    """log(1 + e^z) - z would be 0 here, from float32 on: what is left is log1p(e^-z)."""
    Z, Y = (be.asarray(np.array(each), "float32") for each in ([[score], [-score]], [[1.0], [0.0]]))
    found = be.to_host(bind(losses.binary_cross_entropy(), be, "float32").value(Z, Y))
    np.testing.assert_allclose(found, np.full((2, 1), -scipy.special.log_expit(score)), rtol=1e-6)


# -- arrays --


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)], ids=["n x K", "3 x n x K"])
@every_loss
def test_shape_and_dtype_are_kept_and_the_inputs_are_not_written(make, lead, dtype, be, rng):
    loss = make(2)
    host = [np.resize(each, (*lead, 6, 2)).astype(dtype) for each in sample(loss, 2, rng)]
    before = [each.copy() for each in host]
    for each in host:
        each.setflags(write=False)
    Z, Y = map(be.asarray, host)
    value, delta, predict = bind(loss, be, dtype)
    for found, last in ((value(Z, Y), 1), (delta(Z, Y), 2), (predict(Z), 2)):
        assert tuple(found.shape) == (*lead, 6, last)
        assert found.dtype == be.dtype(dtype)
    np.testing.assert_array_equal([be.to_host(Z), be.to_host(Y)], before)


@every_width
@every_loss
def test_three_models_at_once_equal_three_calls(make, K, rng):
    loss = make(K)
    Zs, Ys = (np.stack(each) for each in zip(*(sample(loss, K, rng) for _ in range(3)), strict=True))
    value, delta, predict = loss.bind(np, np.asarray)
    for function, given in ((value, (Zs, Ys)), (delta, (Zs, Ys)), (predict, (Zs,))):
        one_by_one = np.stack([function(*each) for each in zip(*given, strict=True)])
        np.testing.assert_array_equal(function(*given), one_by_one)


# -- names, users' own, settings --


@pytest.mark.parametrize("name", losses.LOSSES)
def test_get_by_name(name):
    found = losses.get(name)
    assert found.name == name
    assert losses.get(found) is found


@pytest.mark.parametrize("link", [(), (np.exp,)], ids=["pair", "triple"])
def test_get_takes_functions(link):
    value, delta, predict = (found := losses.get((np.minimum, np.maximum, *link))).bind(np, np.asarray)
    assert (found.name, found.targets, dict(found.settings)) == ("custom", "real", {})
    assert (value, delta) == (np.minimum, np.maximum)
    assert predict(3.0) == (np.exp(3.0) if link else 3.0)


@pytest.mark.parametrize(
    ("given", "error", "got"),
    [
        ("mse", ValueError, "'mse'"),
        (None, TypeError, "None"),
        ((abs,), TypeError, "tuple"),
        ((abs, 3), TypeError, "tuple"),
        ((abs,) * 4, TypeError, "tuple"),
        (losses.huber, TypeError, "function"),
    ],
)
def test_get_rejects(given, error, got):
    text = rf"^`loss` must be one of 'absolute_error', .*, 'squared_error'; got {got}\. .*: value\(Z, Y\), delta"
    with pytest.raises(error, match=text):
        losses.get(given)


BETWEEN, POSITIVE, RATE = "be a number > 0 and < 1", "be a number > 0", "be a number >= 0 and < 1"


@pytest.mark.parametrize(
    ("name", "setting", "error", "rule", "got"),
    [
        ("width", 0, ValueError, POSITIVE, "0"),
        ("width", -1.0, ValueError, POSITIVE, r"-1\.0"),
        ("width", np.inf, ValueError, "be finite", "inf"),
        ("width", True, TypeError, POSITIVE, "True"),
        ("q", 0, ValueError, BETWEEN, "0"),
        ("q", 1.0, ValueError, BETWEEN, r"1\.0"),
        ("q", [0.1, 90], ValueError, BETWEEN, "90"),
        ("q", "0.5", TypeError, BETWEEN, r"'0\.5'"),
        ("q", [0.1, None], TypeError, BETWEEN, "None"),
        ("q", [], ValueError, "hold at least one quantile", "none"),
        ("label_smoothing", 1, ValueError, RATE, "1"),
        ("label_smoothing", -0.1, ValueError, RATE, r"-0\.1"),
        ("label_smoothing", None, TypeError, RATE, "None"),
    ],
)
def test_settings_reject(name, setting, error, rule, got):
    make, remedy = {
        "width": (losses.huber, r"Use 1\.0, in units of the target\."),
        "q": (losses.quantile, r"Use 0\.5 for the median\."),
        "label_smoothing": (losses.cross_entropy, r"Use 0\.1, for example\."),
    }[name]
    with pytest.raises(error, match=rf"^`{name}` must {rule}; got {got}\. {remedy}$"):
        make(setting)


def test_settings_are_plain_python():
    assert losses.huber(np.float32(0.5)).settings == {"width": 0.5}
    assert losses.cross_entropy(0).settings == {"label_smoothing": 0.0}
    found = losses.quantile((0.25, np.float64(0.5))).settings
    assert found == {"q": [0.25, 0.5]}
    assert [type(q) for q in found["q"]] == [float, float]


def test_constants_of_a_loss_of_ones_own_have_the_working_dtype(be):
    """A list that `bind` makes an array of was float64 in the trial before a float32 training, which refused it."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((2, 20, 2)).astype("float32")
    theirs = losses.quantile([0.1, 0.9])
    nets = [
        dlx.fit(X, Y, (2, 2), loss=loss, backend=be, epochs=2, rng=0) for loss in (theirs._replace(name="mine"), theirs)
    ]
    for w, other in zip(*(net.params[0] for net in nets), strict=True):
        np.testing.assert_allclose(be.to_host(w), be.to_host(other), rtol=1e-5)
