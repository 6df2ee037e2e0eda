"""Every activation against torch, JAX, the complex step and central differences; what settings reject."""

import numpy as np
import pytest

import dlx
import oracles
from dlx import activations, checks

CASES = {
    "identity": activations.identity(),
    "relu": activations.relu(),
    "leaky_relu": activations.leaky_relu(),
    "leaky_relu(0.2)": activations.leaky_relu(0.2),
    "leaky_relu(0)": activations.leaky_relu(0),
    "elu": activations.elu(),
    "elu(0.7)": activations.elu(0.7),
    "selu": activations.selu(),
    "gelu": activations.gelu(),
    "silu": activations.silu(),
    "mish": activations.mish(),
    "softplus": activations.softplus(),
    "sigmoid": activations.sigmoid(),
    "tanh": activations.tanh(),
}
KINKED = ("relu", "leaky_relu", "elu", "selu")
every_activation = pytest.mark.parametrize("activation", CASES.values(), ids=CASES)


def points(activation):
    """From far left to far right, finely near 0; 0 itself only where the activation is smooth there."""
    z = np.concatenate([np.linspace(-30, 30, 61), np.linspace(-3, 3, 101)])
    return z[np.abs(z) > 0.02] if activation.name in KINKED else z


def derivative(xp, activation, z):
    f, df = activation.bind(xp)
    return df(z, f(z))


@oracles.by_library(oracles.ACTIVATIONS)
@every_activation
def test_value_and_derivative_are_those_of_other_libraries(activation, library):
    z = points(activation)
    value, gradient = oracles.activation_of(library, activation, z)
    oracles.assert_close(activation.bind(np).f(z), value, 1e-12)
    oracles.assert_close(derivative(np, activation, z), gradient, 1e-12)


@every_activation
def test_derivative_by_complex_step(activation):
    z = points(activation)
    expected = oracles.complex_step(activation.bind(oracles.COMPLEX).f, z)
    oracles.assert_close(derivative(np, activation, z), expected, 1e-12)


@every_activation
def test_derivative_by_central_differences(activation, be):
    z = points(activation)
    found = be.to_host(derivative(be.xp, activation, be.asarray(z, "float64")))
    oracles.assert_close(found, oracles.central_difference(be, activation.bind(be.xp).f, z), 1e-7)


@pytest.mark.parametrize(
    ("name", "left"), [("relu", 0.0), ("leaky_relu", 0.01), ("leaky_relu(0.2)", 0.2), ("elu(0.7)", 0.7)]
)
def test_at_the_kink_the_derivative_is_the_left_one(name, left, be):
    z = be.asarray(np.zeros((1, 2)), "float64")
    assert be.to_host(derivative(be.xp, CASES[name], z)).tolist() == [[left, left]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 2), (3, 4, 5), (0, 4), ()], ids=str)
@every_activation
def test_shape_and_dtype_are_kept_and_the_input_is_not_written(activation, shape, dtype, be, rng):
    given = rng.standard_normal(shape).astype(dtype)
    before = given.copy()
    given.setflags(write=False)
    z = be.asarray(given)
    f, df = activation.bind(be.xp)
    a = f(z)
    value = be.to_host(a).copy()
    for each in (a, df(z, a)):
        assert tuple(each.shape) == shape
        assert each.dtype == be.dtype(dtype)
    np.testing.assert_array_equal(be.to_host(z), before)
    np.testing.assert_array_equal(be.to_host(a), value)


EXTREMES = {"float32": [1000.0, 1e13, 3e19, 3e38], "float64": [1000.0, 1e103, 1e155, 1e308]}


FAR_OUT = {  # f(x), f(-x), f'(x), f'(-x), exact to 1e-6 from x = 1000 on; of all others they are those of relu
    "relu": lambda x: (x, 0.0, 1.0, 0.0),
    "identity": lambda x: (x, -x, 1.0, 1.0),
    "leaky_relu": lambda x, slope: (x, -slope * x, 1.0, slope),
    "elu": lambda x, alpha: (x, -alpha, 1.0, 0.0),
    "selu": lambda x: (1.0507009873554805 * x, -1.7580993408473766, 1.0507009873554805, 0.0),
    "sigmoid": lambda x: (1.0, 0.0, 0.0, 0.0),
    "tanh": lambda x: (1.0, -1.0, 0.0, 0.0),
}


@pytest.mark.parametrize("dtype", EXTREMES)
@every_activation
def test_far_out_nothing_overflows(activation, dtype):
    right = np.asarray(EXTREMES[dtype], dtype=dtype)
    f, df = activation.bind(np)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        values = [f(z) for z in (right, -right)]
        slopes = [df(z, a) for z, a in zip((right, -right), values, strict=True)]
    own = activation.name in FAR_OUT
    limits = FAR_OUT[activation.name](right, **activation.settings) if own else FAR_OUT["relu"](right)
    for found, expected in zip([*values, *slopes], limits, strict=True):
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-6, atol=0)


def test_gelu_does_not_feel_the_limit_that_keeps_its_cube_finite(be):
    z = np.linspace(-12, 12, 97)
    u = np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)
    found = be.to_host(activations.gelu().bind(be.xp).f(be.asarray(z, "float64")))
    oracles.assert_close(found, 0.5 * z * (1 + np.tanh(u)), 1e-14)


# -- names and users' own --


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_get_by_name(name):
    found = activations.get(name)
    assert found.name == {"none": "identity", "logistic": "sigmoid"}.get(name, name)
    assert activations.get(found) is found


def test_get_takes_a_pair_of_functions(be):
    found = activations.get((lambda z: z * z, lambda z, a: 2.0 * z))
    z = np.linspace(-2, 2, 9)
    f, df = found.bind(be.xp)
    x = be.asarray(z, "float64")
    assert (found.name, dict(found.settings)) == ("custom", {})
    oracles.assert_close(be.to_host(df(x, f(x))), oracles.central_difference(be, f, z), 1e-7)


@pytest.mark.parametrize(
    ("given", "error", "got"),
    [
        ("rleu", ValueError, "'rleu'"),
        ("", ValueError, "''"),
        (None, TypeError, "None"),
        (3, TypeError, "3"),
        ((abs,), TypeError, "tuple"),
        ((abs, abs, abs), TypeError, "tuple"),
        ((abs, 3), TypeError, "tuple"),
        ([abs, abs], TypeError, "list"),
        (activations.relu, TypeError, "function"),
    ],
)
def test_get_rejects(given, error, got):
    remedy = r"A user's own is a pair of functions: f\(z\) and df\(z, a\)\."
    with pytest.raises(error, match=rf"^`activation` must be one of 'elu', 'gelu', .*; got {got}\. {remedy}$"):
        activations.get(given)
    with pytest.raises(error, match=r"^`output` must"):
        activations.get(given, "output")


# -- settings --


@pytest.mark.parametrize(
    ("make", "value", "error", "text"),
    [
        (activations.leaky_relu, 2, ValueError, r"^`slope` must be a number >= 0 and < 1; got 2\. Use 0\.01"),
        (activations.leaky_relu, 1.0, ValueError, r"^`slope` must be a number >= 0 and < 1; got 1\.0\. "),
        (activations.leaky_relu, -0.1, ValueError, r"^`slope` must be a number >= 0 and < 1; got -0\.1\. "),
        (activations.leaky_relu, "0.1", TypeError, r"^`slope` must be a number >= 0 and < 1; got '0\.1'\. "),
        (activations.elu, 0, ValueError, r"^`alpha` must be a number > 0; got 0\. Use 1\.0"),
        (activations.elu, np.nan, ValueError, r"^`alpha` must be a number > 0; got nan\. "),
        (activations.elu, np.inf, ValueError, r"^`alpha` must be finite; got inf\. "),
        (activations.elu, None, TypeError, r"^`alpha` must be a number > 0; got None\. "),
    ],
)
def test_settings_reject(make, value, error, text):
    with pytest.raises(error, match=text):
        make(value)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), np.float64(0.5), np.int64(0)])
def test_a_setting_is_a_python_float(value):
    found = activations.leaky_relu(value).settings["slope"]
    assert (type(found), found) == (float, float(value))


# -- dlx.checks, behind every setting of the package --

SHOWN = [  # what a value of the wrong kind is called
    (True, "True"),
    (np.True_, "True"),
    (None, "None"),
    ("3", "'3'"),
    (1j, "1j"),
    ([1, 2], r"\[1, 2\]"),
    ((), r"\(\)"),
    (np.array([0.5]), r"\[0\.5\]"),
    (np.zeros(100), "ndarray"),
    (list(range(100)), "list"),
    (abs, "builtin_function_or_method"),
    (object(), "object"),
    (float, "type"),
]


@pytest.mark.parametrize(
    ("value", "found"), [(np.float32(0.5), 0.5), (np.int64(3), 3.0), (3, 3.0), (0.25, 0.25), (-1, -1.0)]
)
def test_number_takes(value, found):
    given = checks.number("x", value, remedy="Mend it.")
    assert (type(given), given) == (float, found)


@pytest.mark.parametrize(
    ("bounds", "value", "rule"),
    [
        ({}, np.nan, "be a number; got nan"),
        ({}, np.inf, "be finite; got inf"),
        ({}, 10**400, "be finite; got inf"),
        ({}, -np.inf, "be finite; got -inf"),
        ({"low": 0}, -1, "be a number >= 0; got -1"),
        ({"low": 0}, np.float32(-0.5), r"be a number >= 0; got -0\.5"),
        ({"low": 0}, -np.inf, "be a number >= 0; got -inf"),
        ({"low": 0, "above": True}, 0.0, r"be a number > 0; got 0\.0"),
        ({"low": 0, "above": True}, np.inf, "be finite; got inf"),
        ({"high": 1}, 1.5, r"be a number <= 1; got 1\.5"),
        ({"high": 1, "below": True}, np.int64(1), "be a number < 1; got 1"),
        ({"low": 0.5, "high": 1}, np.inf, r"be a number >= 0\.5 and <= 1; got inf"),
        ({"low": 0.5, "high": 1}, np.nan, r"be a number >= 0\.5 and <= 1; got nan"),
    ],
)
def test_number_rejects_values(bounds, value, rule):
    with pytest.raises(ValueError, match=rf"^`x` must {rule}\. Mend it\.$"):
        checks.number("x", value, remedy="Mend it.", **bounds)


@pytest.mark.parametrize(("value", "shown"), SHOWN)
def test_number_rejects_kinds(value, shown):
    with pytest.raises(TypeError, match=rf"^`x` must be a number >= 0; got {shown}\. Mend it\.$"):
        checks.number("x", value, low=0, remedy="Mend it.")


@pytest.mark.parametrize("value", [1, 3, np.int64(3), np.uint8(3), 10**400])
def test_integer_takes(value):
    found = checks.integer("n", value, low=1, remedy="Mend it.")
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (-3, "-3"), (np.int64(0), "0")])
def test_integer_rejects_values(value, shown):
    with pytest.raises(ValueError, match=rf"^`n` must be an integer >= 1; got {shown}\. Mend it\.$"):
        checks.integer("n", value, low=1, remedy="Mend it.")


@pytest.mark.parametrize(
    ("value", "shown"),
    [*SHOWN, (3.0, r"3\.0"), (np.float32(0.5), r"0\.5"), (np.nan, "nan"), (np.inf, "inf")],
)
def test_integer_rejects_kinds(value, shown):
    with pytest.raises(TypeError, match=rf"^`n` must be an integer >= 1; got {shown}\. Mend it\.$"):
        checks.integer("n", value, low=1, remedy="Mend it.")


def test_choice():
    assert checks.choice("solver", "b", {"b": 1, "a": 2}, "Mend it.") == "b"
    with pytest.raises(ValueError, match=r"^`solver` must be one of 'a', 'b'; got 'c'\. Mend it\.$"):
        checks.choice("solver", "c", ["b", "a"], "Mend it.")


@pytest.mark.parametrize(("value", "shown"), [*SHOWN[:3], *SHOWN[4:], (np.int64(3), "3")])
def test_choice_rejects_kinds(value, shown):
    with pytest.raises(TypeError, match=rf"^`solver` must be one of 'a', 'b'; got {shown}\. Mend it\.$"):
        checks.choice("solver", value, ("a", "b"), "Mend it.")


def test_a_formula_of_a_user_s_under_a_name_of_dlx_s_is_the_user_s(tmp_path):
    mine = dlx.activations.relu()._replace(bind=lambda xp: dlx.activations.Formulas(lambda z: 2 * z, lambda z, a: 2))
    net = dlx.Network([(np.eye(2), np.zeros(2)), (np.eye(2), np.zeros(2))], activation=mine)
    with pytest.raises(ValueError, match="own"):
        net.save(tmp_path / "net.safetensors")
    odd = dlx.activations.Activation("relu", {"slope": 0.1}, "he_normal", mine.bind)
    assert not dlx.activations.is_own(odd)
