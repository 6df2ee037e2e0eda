"""Elementwise formulas on NumPy: in blocks and compiled they give the bits of the plain formula."""

import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import dlx
from dlx import activations, dropout, losses, optimizers

loops = importlib.import_module("dlx.backends._numpy_loops")
NUMPY = dlx.get_backend("numpy")
WAYS = [False, True] if importlib.util.find_spec("numba") else [False]


def compiled_too(test):
    """The test, where numba is installed."""
    return test if len(WAYS) > 1 else None


ROOT = Path(__file__).parents[1]
SHAPES = [(), (3, 5), (40, 30), (7, 3000), (600, 250), (70_000, 2)]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 3e38, -3e38]
OWN = ("softmax", "cross_entropy", "dropout")


def formulas(dtype):
    """Every formula of dlx that is fused, as it is handed to `fuse`: (name, function, kinds of its arguments)."""
    seen = {}

    class Recorder(type(NUMPY)):
        def fuse(self, function, name):
            seen[name] = function
            return function

    recorder = Recorder(NUMPY.xp)
    for name in activations.ACTIVATIONS:
        dlx.network.bind(recorder, dtype, [activations.get(name)], losses.cross_entropy(0.1))
    for make in optimizers.OPTIMIZERS.values():
        if isinstance(made := make(), optimizers.Optimizer):
            optimizers.bind(made, recorder)
    slots = {each.name: each.slots for make in optimizers.OPTIMIZERS.values() if hasattr(each := make(), "slots")}
    numbers = {make().name: len(make().coefficients(3, 1e-3)) for make in map(optimizers.OPTIMIZERS.get, slots)}
    for name, function in seen.items():
        if name in slots:
            kinds = ["line"] * (2 + slots[name]) + [1e-3] * numbers[name]
        elif name.endswith("_chain"):
            kinds = ["full"] * 3
        else:
            kinds = {
                "softmax": ["full", "column"],
                "cross_entropy": ["full", "column", "full", 0.01],
                "dropout": ["whole column", "whole row", -7, 1.25],
            }.get(name, ["full", "row"])
        yield name, function, kinds


def arguments(kinds, shape, dtype, rng):
    """Random arrays with all special values among them, and numbers as they are."""
    shape = shape or (1, 1)
    sizes = {"full": shape, "row": (1, shape[1]), "column": (shape[0], 1), "line": (shape[0] * shape[1],)}
    for kind in kinds:
        if not isinstance(kind, str):
            yield kind
        elif kind.startswith("whole"):
            yield rng.integers(-(2**31), 2**31, sizes[kind.split()[1]]).astype(np.int32)
        else:
            x = (3 * rng.standard_normal(sizes[kind])).astype(dtype)
            with np.errstate(all="ignore"):
                x.ravel()[rng.integers(0, x.size, len(SPECIAL))] = SPECIAL
            yield x


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


CASES = {
    (name, dtype): (function, kinds) for dtype in ("float32", "float64") for name, function, kinds in formulas(dtype)
}


def test_every_formula_is_among_them():
    names = {name for name, _ in CASES}
    assert {each.name for make in optimizers.OPTIMIZERS.values() if hasattr(each := make(), "bind")} <= names
    assert {f"{activations.get(name).name}{end}" for name in activations.ACTIVATIONS for end in ("", "_chain")} <= names
    assert set(OWN) <= names


@pytest.mark.parametrize("compiles", WAYS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_way_gives_the_bits_of_the_plain_formula(case, shape, compiles, monkeypatch):
    monkeypatch.setattr(loops, "FITS_IN_CACHE", 1)
    monkeypatch.setattr(loops, "BLOCK", 1 << 12)
    function, kinds = CASES[case]
    plain = list(arguments(kinds, shape, case[1], np.random.default_rng(0)))
    fused = list(arguments(kinds, shape, case[1], np.random.default_rng(0)))
    with np.errstate(all="ignore"):
        expected, found = function(*plain), loops.fused(function, case[0], compiles)(*fused)
    assert isinstance(found, tuple) == isinstance(expected, tuple)
    expected, found = as_tuple(expected), as_tuple(found)
    assert len(found) == len(expected)
    for x, y in itertools.chain(zip(found, expected, strict=True), zip(fused, plain, strict=True)):
        if isinstance(y, np.ndarray):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
    for x, y in zip(found, expected, strict=True):  # what is written in place, and what is new
        assert [x is each for each in fused] == [y is each for each in plain]


@compiled_too
def test_cheap_formulas_are_compiled_and_transcendental_ones_are_not():
    chosen = {}
    for (name, dtype), (function, kinds) in CASES.items():
        given = list(arguments(kinds, (600, 250), dtype, np.random.default_rng(0)))
        way = loops._way(function, name, True, given)
        chosen[name] = getattr(way, "func", way)
    for name in ("relu", "relu_chain", "leaky_relu", "sigmoid_chain", "tanh_chain", "adam", "lion", "sgd", "dropout"):
        assert chosen.get(name, loops._run) is loops._run, name
    for name in ("gelu", "silu", "mish_chain", "sigmoid", "elu_chain"):
        assert chosen[name] is loops._in_blocks, name
    assert chosen["tanh"] is CASES["tanh", "float64"][0]  # one pass: blocks would only copy


def test_small_arrays_are_left_to_the_plain_formula():
    function, _ = CASES["adam", "float32"]
    assert loops._way(function, "adam", True, [np.zeros(50, np.float32)] * 4 + [0.1, 0.1]) is function


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + np.sum(b),
        lambda a, b: np.clip(a, 0, 1),
        lambda a, b: np.float64(3.0),
        lambda a, b: a[0] * b,
        lambda a, b: a / b.shape[-1],
        lambda a, b: a * 2 if a > 3 else a,
    ],
    ids=["reduction", "clip", "number", "index", "shape", "branch"],
)
def test_what_cannot_be_traced_is_computed_as_it_is(function):
    given = np.ones((600, 250)), np.ones((600, 250))
    assert loops._way(function, "odd", True, given) is function


@pytest.mark.parametrize("given", [(np.ones((2, 300, 300)), np.ones((1, 300))), (np.ones((9, 9)), np.ones(3))], ids=str)
def test_arrays_of_more_axes_are_left_to_the_plain_formula(given):
    assert loops.layout(given) is None


@pytest.mark.parametrize("compiles", WAYS)
def test_strided_arrays_are_taken_too(compiles):
    function, _ = CASES["relu_chain", "float32"]
    rng = np.random.default_rng(0)
    base = [rng.standard_normal((600, 500)).astype("float32") for _ in range(3)]
    plain, fused = ([x[:, ::2].copy() for x in base], [x.copy()[:, ::2] for x in base])
    function(*plain)
    loops.fused(function, "relu_chain", compiles)(*fused)
    np.testing.assert_array_equal(fused[0], plain[0])


def test_ever_new_shapes_are_forgotten(monkeypatch):
    monkeypatch.setattr(loops, "MOST_WAYS", 4)
    function, _ = CASES["relu_chain", "float64"]
    fused = loops.fused(function, "relu_chain", False)
    for n in range(1, 20):
        x = np.ones((n, 4))
        np.testing.assert_array_equal(fused(x.copy(), x, x), 1.0)
    assert len(fused.__closure__[[cell for cell in fused.__code__.co_freevars].index("ways")].cell_contents) <= 4


FIT = """
import json, sys, numpy as np, dlx
numpy = dlx.get_backend("numpy")
rng = np.random.default_rng(0)
X, y = rng.standard_normal((600, 40)).astype("float32"), rng.integers(0, 3, 600)
Formulas = type("Formulas", (type(numpy),), {"loop": dlx.Backend.loop})  # it compiles them, and not whole steps
backend = Formulas(numpy.xp, compiles=True)
net = dlx.fit(X, y, (40, 300, 3), dropout=0.2, epochs=2, rng=0, backend=backend)
loops = sys.modules["dlx.backends._numpy_loops"]
own = [module for name, module in sys.modules.items() if name.startswith("dlx_loop_")]
stats = [each.stats for module in own for each in vars(module).values() if hasattr(each, "stats")]
hits = sum(sum(each.cache_hits.values()) for each in stats)
print(json.dumps([len(stats), hits, float(net.history["loss"][-1])]))
"""


def fit_in_a_process(**environment):
    run = subprocess.run(
        [sys.executable, "-c", FIT],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return importlib.import_module("json").loads(run.stdout.splitlines()[-1])


@compiled_too
def test_loops_are_compiled_once_and_read_from_the_cache_afterwards(tmp_path):
    folder = str(tmp_path)
    kernels, hits, loss = fit_in_a_process(NUMBA_CACHE_DIR=folder)
    assert kernels >= 3
    assert hits == 0
    for source in (tmp_path / "dlx").glob("relu*.py"):  # a file that was cut short is written again
        source.write_text("")
    again, hits, same = fit_in_a_process(NUMBA_CACHE_DIR=folder)
    assert again == kernels
    assert 0 < hits <= kernels
    assert same == loss


@compiled_too
@pytest.mark.parametrize("damage", [b"", b"garbage"])
def test_a_damaged_cache_is_said_and_done_without(tmp_path, damage):
    folder = str(tmp_path)
    _, _, loss = fit_in_a_process(NUMBA_CACHE_DIR=folder)
    kept = [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]
    assert len(kept) >= 6
    for path in kept:
        path.write_bytes(damage)
    run = subprocess.run(
        [sys.executable, "-c", FIT], cwd=ROOT, env={**os.environ, "NUMBA_CACHE_DIR": folder}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert f"cannot be read from the cache below {tmp_path}" in run.stderr
    assert json.loads(run.stdout.splitlines()[-1])[2] == loss


@compiled_too
def test_without_a_folder_for_the_cache_loops_are_compiled_all_the_same(tmp_path):
    (tmp_path / "file").write_text("no folder")
    kernels, _, loss = fit_in_a_process(NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert kernels == 0  # in no module of their own
    assert np.isfinite(loss)


def test_compiled_training_gives_the_same_bits():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 30)).astype("float32"), rng.integers(0, 3, 300)
    nets = [
        dlx.fit(
            X, y, (30, 400, 300, 3), activation=["relu", "gelu"], dropout=0.1, l2=1e-3, clip_norm=1.0, epochs=3,
            optimizer="nadam", batch_size=100, rng=0, backend=type(NUMPY)(NUMPY.xp, compiles=compiles),
        )
        for compiles in WAYS
    ]  # fmt: skip
    plain = dlx.fit(
        X, y, (30, 400, 300, 3), activation=["relu", "gelu"], dropout=0.1, l2=1e-3, clip_norm=1.0, epochs=3,
        optimizer="nadam", batch_size=100, rng=0, backend=Unfused(NUMPY.xp),
    )  # fmt: skip
    for net, (mine, theirs) in itertools.product(nets, zip("Wb", "Wb", strict=True)):
        for layer, other in zip(net.params, plain.params, strict=True):
            np.testing.assert_array_equal(getattr(layer, mine), getattr(other, theirs))


class Unfused(type(NUMPY)):
    """NumPy's plain formulas."""

    def fuse(self, function, name):
        return function


def test_only_much_work_is_compiled(monkeypatch):
    assert NUMPY.expecting(1e6) is NUMPY
    monkeypatch.setitem(sys.modules, "numba", None)  # as if it were not installed
    assert NUMPY.expecting(1e12) is NUMPY


@compiled_too
def test_much_work_is_compiled_where_numba_is():
    assert NUMPY.expecting(1e12).compiles
    assert NUMPY.expecting(1e12) == NUMPY  # the same place, and the same selector in a pickle
    never = type(NUMPY)(NUMPY.xp, compiles=False)
    assert never.expecting(1e12) is never


def test_less_work_is_compiled_where_less_is_to_be_done_for_it(monkeypatch, tmp_path):
    def least(imported, kept):  # of 1e7, 2e7, ... elements, those that are compiled
        with monkeypatch.context() as patch:
            patch.setenv("NUMBA_CACHE_DIR", str(tmp_path / kept))
            patch.delitem(sys.modules, "numba", raising=False)
            if imported:
                patch.setitem(sys.modules, "numba", importlib)
            patch.setattr(sys.modules[type(NUMPY).__module__], "importlib", types.SimpleNamespace(import_module=len))
            return next(k for k in itertools.count(1) if NUMPY.expecting(k * 1e7).compiles)

    (tmp_path / "kept" / "dlx").mkdir(parents=True)
    (tmp_path / "kept" / "dlx" / "adam_0123456789abcdef.py").write_text("")
    assert least(True, "kept") < least(False, "kept") < least(False, "nothing")
    assert least(True, "kept") < least(True, "nothing") < least(False, "nothing")


@pytest.mark.parametrize("refusal", [OSError("no such disk"), RuntimeError("Could not determine home directory.")])
def test_no_cache_is_none(monkeypatch, refusal):
    def refuses():
        raise refusal

    monkeypatch.setattr(loops, "cache_folder", refuses)
    assert not loops.any_cached()


def test_a_numba_that_cannot_be_imported_is_said_and_done_without(monkeypatch):
    def refuses(name):
        raise ImportError("Numba needs NumPy 2.3 or less")

    monkeypatch.setattr(importlib, "import_module", refuses)
    with pytest.warns(UserWarning, match="numba is installed but cannot be imported, so that training is slower"):
        assert NUMPY.expecting(1e12) is NUMPY


@pytest.mark.parametrize("optimizer", [name for name in optimizers.OPTIMIZERS if name != "lbfgs"])
@pytest.mark.parametrize("compiles", WAYS)
def test_every_optimizer_trains_a_network_large_enough_for_it(optimizer, compiles, monkeypatch):
    monkeypatch.setattr(loops, "FITS_IN_CACHE", 1 << 13)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 100)).astype("float32"), rng.integers(0, 3, 60)
    options = {"optimizer": optimizer, "epochs": 3, "batch_size": 25, "rng": 0}
    found = dlx.fit(X, y, (100, 200, 3), **options, backend=type(NUMPY)(NUMPY.xp, compiles=compiles))
    plain = dlx.fit(X, y, (100, 200, 3), **options, backend=Unfused(NUMPY.xp))
    assert found.history["loss"] == plain.history["loss"]
    for layer, other in zip(found.params, plain.params, strict=True):
        np.testing.assert_array_equal(layer.W, other.W)
        np.testing.assert_array_equal(layer.b, other.b)


def scaled_relu(xp):
    """A user's own activation, which looks at its array."""
    return activations.Formulas(
        lambda z: xp.maximum(z, 0.0) / z.shape[-1], lambda z, a: xp.astype(z > 0, z.dtype) / z.shape[-1]
    )


@pytest.mark.parametrize("compiles", WAYS)
@pytest.mark.parametrize("name", ["scaled_relu", "my act", "relu"])
def test_a_users_own_activation_is_never_traced(name, compiles):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    own = dlx.Activation(name, {}, "he_normal", scaled_relu)
    losses_found = [
        dlx.fit(X, y, (5, 300, 3), activation=own, epochs=2, rng=0, backend=backend).history["loss"]
        for backend in (type(NUMPY)(NUMPY.xp, compiles=compiles), Unfused(NUMPY.xp))
    ]
    assert losses_found[0] == losses_found[1]


def test_dropout_is_traced_as_integers_of_32_bits():
    seen = []
    dropout.bind(NUMPY.xp, np.dtype("float32"), lambda function, name: seen.append(function))
    i, f = np.dtype("int32"), np.dtype("float32")
    loop = loops.traced(seen[0], "dropout", [i, i, None, None], ["column", "row", "number", "number"])
    assert loop.created == (f,)
    assert loop.source.count("np.int32(") > 10


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
@pytest.mark.parametrize("bound", [0.0, -0.5, np.nan, np.inf, -np.inf])
def test_a_maximum_with_a_number_is_numpys(bound, dtype):
    xp = dlx.get_backend("numpy").xp
    values = [-2, 0, 3] if dtype == "int32" else [np.nan, -np.inf, -1.5, -0.0, 0.0, 0.5, np.inf]
    for repeats in (1, 1000):
        x = np.asarray(values * repeats, dtype)
        expected = np.maximum(x, bound)
        found = xp.maximum(x, bound)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("axis", [None, 0, -1, (-2, -1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_the_straight_reductions_are_numpys(dtype, axis, keepdims):
    x, xp = np.arange(-6, 6).reshape(3, 4).astype(dtype), NUMPY.xp
    for found, expected in [
        (xp.sum(x, axis=axis, keepdims=keepdims), np.sum(x, axis=axis, keepdims=keepdims)),
        (xp.max(x, axis=axis, keepdims=keepdims), np.max(x, axis=axis, keepdims=keepdims)),
    ]:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, strict=True)


def test_the_straight_functions_are_numpys():
    x, rows, xp = np.arange(12.0).reshape(3, 4), np.asarray([2, 0]), NUMPY.xp
    np.testing.assert_array_equal(xp.take(x, rows, axis=0), x[rows], strict=True)
    np.testing.assert_array_equal(xp.astype(x, np.float32), x.astype(np.float32), strict=True)
    assert xp.astype(x, np.float64, copy=False) is x
    assert not np.shares_memory(xp.astype(x, np.float64), x)
    assert xp.sum(np.ones(3, np.float32), dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (300, 700), (2, 40, 30), (0, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_squares(shape, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    found, exact = NUMPY.sum_squares(x), np.sum(x.astype(np.longdouble) ** 2, axis=(-2, -1))
    assert found.dtype == x.dtype
    assert found.shape == exact.shape
    for each in (found, NUMPY.sum_squares(np.asfortranarray(x))):
        np.testing.assert_allclose(each, exact.astype(np.float64), rtol=20 * np.finfo(dtype).eps)
