"""Bad arguments other than data raise before any work, with a text that names the argument, the rule and the value."""

import random

import numpy as np
import pytest

import dlx
from conftest import SELECTORS
from dlx import initializers
from rejection import REAL, X, Y, assert_rejected, real, title

W, B = np.zeros((4, 3)), np.zeros(3)
NAN = float("nan")
DEEP = {"layer_dims": (4, 5, 3)}

# name: (rule, wrong values, values of wrong kinds)
NUMBERS = {
    "learning_rate": ("be a number > 0", (0, -1e-3, NAN), (True, "0.1", None, [0.1], 1j)),
    "batch_size": ("be an integer >= 1", (0, -1), (True, "8", 8.0, NAN)),
    "epochs": ("be an integer >= 1", (0, -1), (True, "8", 8.0, NAN, None)),
    "l2": ("be a number >= 0", (-1e-9, NAN), (True, "0", None)),
    "l1": ("be a number >= 0", (-1e-9, NAN), (True, "0", None)),
    "dropout": ("be a number >= 0 and < 1", (-0.1, 1.0, 1.5, NAN), (True, "0.5", None)),
    "patience": ("be an integer >= 1", (0, -1), (True, "3", 2.0)),
    "clip_norm": ("be a number > 0", (0, -1.0, NAN), (True, "1")),
    "clip_value": ("be a number > 0", (0, -1.0, NAN), (True, "1")),
    "verbose": ("be an integer >= 0", (-1,), ("yes", 1.5, None, NAN)),
}
INFINITE = ("learning_rate", "l2", "l1", "clip_norm", "clip_value")
BAD_NUMBERS = [
    ({name: value}, kind, f"`{name}` must {rule}; got {value!r}")
    for name, (rule, values, kinds) in NUMBERS.items()
    for kind, wrong in ((ValueError, values), (TypeError, kinds))
    for value in wrong
] + [({name: float("inf")}, ValueError, f"`{name}` must be finite; got inf") for name in INFINITE]
CHOICES = [
    *[({"activation": a}, ValueError, "`activation` must be one of 'elu'") for a in ("Relu", "")],
    *[({"activation": a}, TypeError, "`activation` must be one of 'elu'") for a in (None, 3, (np.tanh, 1))],
    ({"activation": ["relu"]}, ValueError, "`activation` must be one activation or a sequence of 0; got 1"),
    (
        {**DEEP, "activation": ["relu"] * 2},
        ValueError,
        "`activation` must be one activation or a sequence of 1",
    ),
    ({**DEEP, "activation": ["Relu"]}, ValueError, "`activation[0]` must be one of 'elu'"),
    *[({"loss": bad}, ValueError, "`loss` must be one of 'absolute_error'") for bad in ("mse", "Auto")],
    *[({"loss": bad}, TypeError, "`loss` must be one of 'absolute_error'") for bad in (None, 1, (np.sum,), np.sum)],
    ({"optimizer": "ada"}, ValueError, "`optimizer` must be one of 'adagrad'"),
    *[({"optimizer": bad}, TypeError, "`optimizer` must be one of 'adagrad'") for bad in (None, dlx.adam, 1)],
    ({"backend": "nump"}, ValueError, "`backend` must be 'auto', or 'name' or 'name:device'"),
    ({"backend": "numpy:1"}, ValueError, "`backend` must name a device that exists; got 'numpy:1'"),
    ({"backend": 3}, TypeError, "`backend` must be a selector"),
    *[
        ({"dtype": bad}, ValueError, "`dtype` must be one of 'float32', 'float64'; got")
        for bad in ("float16", int, np.complex64)
    ],
    *[({"shuffle": bad}, TypeError, "`shuffle` must be True or False; got") for bad in ("no", 1, None)],
    ({"optimizer": dlx.adam(-1.0)}, ValueError, "`learning_rate` must be a number > 0; got -1.0"),
    ({"optimizer": dlx.adam(0.1), "learning_rate": 1e-3}, ValueError, "`learning_rate` must be given once; got 0.001"),
    *[
        ({"learning_rate": f}, TypeError, "`learning_rate` must take (step, steps, losses); got <function")
        for f in (dlx.schedules.cosine, lambda step: 0.1)
    ],
    ({"optimizer": dlx.adam(0.1), "learning_rate": -1.0}, ValueError, "`learning_rate` must be a number > 0; got -1.0"),
    *[
        ({"learning_rate": lambda *_, rate=r: rate}, k, "`learning_rate` must be a number >= 0; got")
        for r, k in ((-1.0, ValueError), (NAN, ValueError), (None, TypeError), ("a", TypeError))
    ],
    ({"optimizer": "lbfgs", **DEEP, "dropout": 0.1}, ValueError, "`dropout` must be 0 with lbfgs; got 0.1"),
    ({"optimizer": "lbfgs", "clip_norm": 1.0}, ValueError, "`clip_norm` must be None with lbfgs; got 1.0"),
    ({"optimizer": "lbfgs", "clip_value": 1.0}, ValueError, "`clip_value` must be None with lbfgs; got 1.0"),
    ({**DEEP, "dropout": [0.1, 0.1]}, ValueError, "`dropout` must be one rate or a sequence of 1; got 2"),
    ({**DEEP, "dropout": ["0.1"]}, TypeError, "`dropout` must be a number >= 0 and < 1; got '0.1'"),
]
DIMS = [
    *[
        ({"layer_dims": d}, TypeError, "`layer_dims` must be a sequence of widths; got")
        for d in ("abc", 4, None, {4, 3}, b"ab", np.array(4))
    ],
    *[
        ({"layer_dims": d}, ValueError, "`layer_dims` must hold at least an input and an output width; got")
        for d in ((), (4,))
    ],
    *[({"layer_dims": (4, d, 3)}, ValueError, "`layer_dims[1]` must be an integer >= 1; got") for d in (0, -2)],
    *[
        ({"layer_dims": (4, d, 3)}, TypeError, "`layer_dims[1]` must be an integer >= 1; got")
        for d in (2.0, "5", None, True)
    ],
    (
        {"layer_dims": (4, 10**19, 3)},
        ValueError,
        "`layer_dims` must have layers of fewer than 2**60 weights; got (4, 1000",
    ),
    ({"layer_dims": np.ones((2, 2), int)}, TypeError, "`layer_dims[0]` must be an integer >= 1; got"),
]
INIT = [
    ({"init": "he"}, ValueError, "`init` must be one of 'auto'"),
    *[({"init": bad}, TypeError, "`init` must be one of 'auto'") for bad in (None, W, 1.0)],
    ({"init": []}, TypeError, "`init` must be a sequence of pairs (W, b), one for each layer; got []"),
    ({"init": [W]}, TypeError, "`init[0]` must be a pair (W, b); got ndarray"),
    ({"init": [(W, B, B)]}, TypeError, "`init[0]` must be a pair (W, b); got 3 of them"),
    (
        {"init": [(W, np.zeros(4))]},
        ValueError,
        "`init[0]` must have W of shape (d_in, d_out) and b of shape (1, d_out); got (4, 3)",
    ),
    (
        {"init": [(W, B[:, None])]},
        ValueError,
        "`init[0]` must have W of shape (d_in, d_out) and b of shape (1, d_out); got",
    ),
    (
        {"init": [(W[0], B)]},
        ValueError,
        "`init[0]` must have W of shape (d_in, d_out) and b of shape (1, d_out); got (3,)",
    ),
    (
        {"init": [(W, B), (W, B)]},
        ValueError,
        "`init[1]` must have W of shape (3, d_out) and b of shape (1, d_out); got (4",
    ),
    ({"init": [(W, B), (W[:3], B)]}, ValueError, "`init` must have the widths of layer_dims, (4, 3); got (4, 3, 3)"),
    ({"init": [(W.T, W[:, 0])]}, ValueError, "`init` must have the widths of layer_dims, (4, 3); got (3, 4)"),
    ({"init": [(W + NAN, B)]}, ValueError, "`init[0].W` must be finite in float64; got nan at row 0, column 0"),
    ({"init": [(W, B - np.inf)]}, ValueError, "`init[0].b` must be finite in float64; got -inf at row 0, column 0"),
    ({"init": [(W + 1e99, B)], "dtype": "float32"}, ValueError, "`init[0].W` must be finite in float32; got inf"),
    ({"init": [(W.astype(str), B)]}, TypeError, "`init[0].W` must hold real numbers; got dtype <U"),
    ({"init": [(W, B + 1j)]}, TypeError, "`init[0].b` must hold real numbers; got dtype complex128"),
    ({"init": [([[1.0], [1.0, 2.0]], B)]}, ValueError, "`init[0].W` must be an array, or rows of one length"),
    ({"init": lambda rng, m, n: np.zeros((n, m))}, ValueError, "`init` must return W of shape (4, 3); got (3, 4)"),
    ({"init": lambda rng, m, n: np.full((m, n), NAN)}, ValueError, "`init[0].W` must be finite in float64; got nan"),
    ({"init": lambda rng, m, n: np.full((m, n), "a")}, TypeError, "`init[0].W` must hold real numbers; got dtype <U1"),
]
RNG = [
    *[
        ({"rng": r}, TypeError, "`rng` must be None, an int >= 0, a SeedSequence, a BitGenerator or a Generator; got")
        for r in (
            np.random.RandomState(0),
            random.Random(0),
            "7",
            1.5,
            True,
            np.True_,
            (i for i in [1]),
            np.random,
            [0.5],
        )
    ],
    *[
        (
            {"rng": r},
            ValueError,
            "`rng` must be None, an int >= 0, a SeedSequence, a BitGenerator or a Generator; got -1",
        )
        for r in (-1, np.int64(-1))
    ],
]


class Listener:
    def on_epoch_end(self, net):
        pass


CALLBACKS = [
    (
        {"callbacks": c},
        TypeError,
        "`callbacks` must be functions of the network, or objects with on_start, on_epoch_end",
    )
    for c in (3, None, "", "print", [print, 3], ["print"], object(), Listener, [Listener])
]


def sums(Z, Y):
    return np.sum((Z - Y) ** 2, axis=-1, keepdims=True)


def difference(Z, Y):
    return 2 * (Z - Y)


SHAPES = "`loss` must return value of shape (n, 1), delta and predict of shape (n, K), in the dtype of the scores; got"
OWN = [
    ({**DEEP, "activation": (f, df)}, ValueError, "`activation[0]` must return arrays of the shape and dtype of z")
    for f, df in (
        (lambda z: z.sum(), lambda z, a: z),
        (lambda z: z, lambda z, a: 1.0),
        (lambda z: z.astype("f4"), lambda z, a: z),
        (lambda z: z.T, lambda z, a: z),
        (lambda z: None, lambda z, a: z),
    )
] + [
    ({**real(dims=(4, 1)), "loss": own}, ValueError, f"{SHAPES} {shapes}")
    for own, shapes in (
        ((lambda Z, Y: sums(Z, Y)[:, 0], difference), "(2,), (2, 1), (2, 1) for scores of shape (2, 1)"),
        ((lambda Z, Y: 0.0, difference), "(), (2, 1), (2, 1)"),
        ((sums, lambda Z, Y: difference(Z, Y).T), "(2, 1), (1, 2), (2, 1)"),
        ((sums, difference, lambda Z: Z[:, 0]), "(2, 1), (2, 1), (2,)"),
    )
]
CASES = [*BAD_NUMBERS, *CHOICES, *DIMS, *INIT, *RNG, *CALLBACKS, *OWN]


@pytest.mark.parametrize("case", CASES, ids=title)
def test_bad_argument(case):
    assert_rejected(*case)


MIXED = {"y": REAL, "sample_weight": np.ones(6), "init": [(W[:, :1], B[:1])], "validation": (X, REAL)}


def moved(given, be):
    """The same on a backend: an array, or a tuple or list of such."""
    return be.asarray(given) if isinstance(given, np.ndarray) else type(given)(moved(each, be) for each in given)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("selector", [selector for selector in SELECTORS if selector != "numpy"])
def test_mixed_libraries(selector, name):
    """A library's X beside NumPy's others, and the other way round; a list belongs to none."""
    be = dlx.get_backend(selector)
    where = {"init": "init[0].W", "validation": "X_val"}.get(name, name)
    for own, others in ((moved(X, be), MIXED[name]), (X, moved(MIXED[name], be))):
        text = f"`{where}` must be of the same library as `X`, "
        assert_rejected({**real([0.0] * 6), "X": own, name: others}, TypeError, text)


@pytest.mark.parametrize("other", SELECTORS)
def test_X_of_another_library_or_device_than_the_backend(be, other):
    """Only the host's arrays may enter every backend."""
    chosen, own = dlx.get_backend(other), be.asarray(X)
    if chosen.name != be.name != "numpy":
        text = f"`X` must be of the same library as `backend`, {chosen.name}; got an array of {be.name}"
        assert_rejected({"X": own, "backend": other}, TypeError, text)
    elif chosen != be and be.name != "numpy":
        text = f"`X` must lie on the same device as `backend`, {chosen.selector}; got {be.selector}"
        assert_rejected({"X": own, "backend": other}, ValueError, text)
    else:
        assert dlx.fit(own, Y, (4, 3), backend=other, epochs=1, rng=0).backend == chosen


@pytest.mark.parametrize("initializer", initializers.INITIALIZERS)
def test_every_initializer_is_accepted(initializer):
    with pytest.raises(AssertionError, match="the training began"):
        assert_rejected({"init": initializer}, ValueError, "`")


def test_an_activation_object_of_a_user_s_is_tried_like_a_pair():
    narrow = dlx.activations.Activation(
        "mine", {}, "he_normal", lambda xp: dlx.activations.Formulas(xp.tanh, lambda z, a: z[:, :1])
    )
    with pytest.raises(ValueError, match=r"`activation\[0\]` must return arrays of the shape and dtype of z"):
        dlx.fit(np.ones((4, 2)), np.ones((4, 2)), (2, 3, 2), activation=narrow, epochs=1)
