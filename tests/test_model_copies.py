"""`Network` as text, on another backend, deep-copied and pickled."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import dlx
from conftest import SELECTORS
from dlx import activations, losses

RNG = np.random.default_rng(4)
X = RNG.standard_normal((9, 4))
Y = np.array(["a", "b", "c"])[RNG.integers(0, 3, 9)]


def fitted(**settings):
    return dlx.fit(X, Y, (4, 6, 3), **{"epochs": 2, "rng": 0, "activation": activations.leaky_relu(0.2), **settings})


def host(net):
    return [net.backend.to_host(each) for layer in net.params for each in layer]


def assert_equal(one, other):
    """Same numbers, same formulas, same words."""
    for a, b in zip(host(one), host(other), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert [each[:3] for each in one.activation] == [each[:3] for each in other.activation]
    assert one.loss[:3] == other.loss[:3]
    assert one.layer_dims == other.layer_dims
    assert (one.dtype, one.history) == (other.dtype, other.history)
    np.testing.assert_array_equal(one.classes, other.classes)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-12)
    np.testing.assert_array_equal(one.predict(X), other.predict(X))


def assert_apart(original, copied):
    """A change to the copy leaves the original alone."""
    before, epochs = [each.copy() for each in host(original)], len(original.history["loss"])
    copied.history["loss"].append(0.0)
    if isinstance(copied.params[0].W, np.ndarray):
        copied.params[0].W[:] = 7.0
        copied.classes[:] = "z"
    assert len(original.history["loss"]) == epochs
    assert "z" not in original.classes
    for a, b in zip(host(original), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("target", SELECTORS)
def test_to_another_backend_and_back(be, target):
    original = fitted(backend=be)
    found = original.to(target)
    assert found.backend == dlx.get_backend(target)
    assert type(found.params[0].W) is type(found.backend.asarray(1.0))
    assert_equal(found, original)
    assert_equal(found.to(be), original)
    assert_apart(original, found)


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("loss", [losses.cross_entropy(0.1), "cross_entropy"])
def test_copies_and_pickles(again, loss, be):
    original = fitted(backend=be, loss=loss)
    found = again(original)
    assert found.backend == original.backend
    assert_equal(found, original)
    if again is not copy.copy:
        assert_apart(original, found)


def square(z):
    return z * z


def slope(z, a):
    return 2.0 * z


def value(Z, Y):
    return ((Z - Y) ** 2).sum(-1)[:, None]


def delta(Z, Y):
    return 2.0 * (Z - Y)


def test_own_functions_travel_in_a_pickle_and_a_copy():
    net = dlx.fit(X, X[:, :2], (4, 3, 2), activation=(square, slope), loss=(value, delta), epochs=2, rng=0)
    for found in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        np.testing.assert_array_equal(found.predict(X), net.predict(X))
        again = dlx.fit(X, X[:, :2], (4, 3, 2), activation=found.activation, loss=found.loss, epochs=2, rng=0)
        np.testing.assert_array_equal(again.predict(X), net.predict(X))
    anonymous = dlx.fit(X, X[:, :2], (4, 3, 2), activation=(lambda z: z, lambda z, a: z * 0 + 1), epochs=1, rng=0)
    np.testing.assert_array_equal(copy.deepcopy(anonymous).predict(X), anonymous.predict(X))
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(anonymous)


def test_a_pickle_is_as_large_as_the_parameters():
    net = dlx.Network([(np.zeros((300, 400), "f4"), np.zeros(400, "f4"))])
    assert len(pickle.dumps(net)) < 1.02 * 4 * (300 * 400 + 400) + 2000


# -- elsewhere --


def run(code, *arguments, **environment):
    """A fresh interpreter's output."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("selector", [name for name in ("torch", "jax") if name in SELECTORS])
def test_a_pickle_loads_where_its_library_is_absent(selector, tmp_path):
    net = fitted(backend=selector)
    path = tmp_path / "net.pickle"
    path.write_bytes(pickle.dumps(net))
    code = """
import pickle, sys, warnings
sys.modules[sys.argv[2]] = None  # as if it were not installed
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    net = pickle.load(open(sys.argv[1], "rb"))
import numpy as np
print(net.backend.selector, [str(each.message) for each in caught], type(net.params[0].W).__name__)
print(net.predict_proba(np.asarray(eval(sys.argv[3]))).tolist())
"""
    facts, probabilities = run(code, path, selector, X.tolist()).splitlines()
    assert facts.startswith("numpy ")
    assert facts[6:].startswith('["the network was unpickled on numpy, not on ' + selector)
    assert "must name a library that is installed" in facts
    assert facts.endswith("ndarray")
    np.testing.assert_allclose(eval(probabilities), net.to("numpy").predict_proba(X), rtol=1e-12)


@pytest.mark.parametrize("selector", [name for name in SELECTORS if name == "jax"])
def test_float64_where_the_library_has_none_is_a_TypeError(selector, tmp_path):
    """On its way there; a pickle from elsewhere stays on NumPy, with a warning."""
    net = fitted(backend=selector)
    net.save(tmp_path / "net.safetensors")
    (tmp_path / "net.pickle").write_bytes(pickle.dumps(net))
    code = """
import pickle, sys, warnings, dlx
folder = sys.argv[1]
def attempt(call):
    try:
        print("passed", call())
    except Exception as error:
        print(type(error).__name__, error)
net = dlx.load(folder + "/net.safetensors")
attempt(lambda: net.to("jax"))
attempt(lambda: dlx.load(folder + "/net.safetensors", backend="jax"))
attempt(lambda: dlx.fit([[1.0]], [1.0], (1, 1), backend="jax"))
attempt(lambda: dlx.L_layer_model([[1.0]], [[1.0]], (1, 1), backend="jax"))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(pickle.load(open(folder + "/net.pickle", "rb")).backend.selector, caught[0].message)
print(dlx.fit([[1.0]], [1.0], (1, 1), backend="jax", dtype="float32", epochs=1, rng=0).backend.name)
"""
    *four, pickled, single = run(code, tmp_path, JAX_ENABLE_X64="0", JAX_PLATFORMS="cpu").splitlines()
    for line in four:
        assert line.startswith("TypeError `dtype` must be one that jax:cpu:0 computes with; got float64. Switch it on")
    assert pickled.startswith("numpy the network was unpickled on numpy, not on jax:cpu:0: `dtype` must be one that")
    assert single == "jax"


# -- text --

LONG = [
    fitted(backend="numpy"),
    dlx.Network([(np.zeros((1, 1)), [0.0])]),
    dlx.Network(
        [(np.zeros((1, 30_000), "f4"), np.zeros(30_000)), (np.zeros((30_000, 1), "f4"), [0.0])],
        activation="leaky_relu",
        loss="binary_cross_entropy",
        backend="strict:device1" if "strict:device1" in SELECTORS else None,
        dtype="float64",
    ),
]


@pytest.mark.parametrize("net", LONG, ids=repr)
def test_summary_is_at_most_80_columns_and_counts_parameters(net):
    lines = net.summary().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["layer", "shape", "activation", "parameters"]
    for l, (W, _) in enumerate(net.params, start=1):
        name = net.activation[l - 1].name if l < len(net.params) else "(scores)"
        name += "(slope=0.2)" if net is LONG[0] and l == 1 else ""  # a setting that the name alone does not have
        assert lines[l].split() == [
            str(l),
            str(W.shape[0]),
            "->",
            str(W.shape[1]),
            name,
            f"{(W.shape[0] + 1) * W.shape[1]:,}",
        ]
    total = sum(int(np.prod(each.shape)) for layer in net.params for each in layer)
    facts = " ".join(lines[1 + len(net.params) :])
    assert facts == (
        f"{total:,} parameters, {8 * total:,} bytes (float64 on {net.backend.selector}); loss {net.loss.name}"
    )


def test_repr(be):
    assert repr(fitted(backend=be)) == f"<dlx.Network 4 -> 6 -> 3, cross_entropy, float64 on {be.selector}>"


def test_the_networks_arrays_are_its_own():
    W, b = np.ones((2, 1)), np.zeros(1)
    net = dlx.Network([(W, b)])
    W[:] = 5.0
    assert net.predict([[1.0, 1.0]]) == [2.0]
    assert net.params[0].b.shape == (1, 1)
