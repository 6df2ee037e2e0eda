"""Backends: the ways in and out of every library, selectors, modules, third parties, following the arrays."""

import importlib
import pickle
import sys
from importlib.metadata import packages_distributions, version

import numpy as np
import pytest

import dlx
from conftest import INSTALLED, SELECTORS, read_only
from dlx import backend as backends
from dlx.backend import Backend, backend_of, host_array, library_of
from dlx.data.placement import common_backend

BASE = np.arange(12, dtype=np.float32).reshape(3, 4)
PACKED = np.zeros(3, dtype=[("byte", "i1"), ("x", "f4")])
HOST_ARRAYS = {
    "plain": BASE,
    "read-only": read_only(BASE.copy()),
    "F-ordered": np.asfortranarray(BASE),
    "strided": BASE[:, ::2],
    "reversed": BASE[::-1, ::-1],
    "broadcast": np.broadcast_to(BASE[0], (3, 4)),
    "big-endian": BASE.astype(">f4"),
    "big-endian 0-d": np.asarray(3, dtype=">i4"),
    "not aligned": PACKED["x"],
    "0-d": np.asarray(2.5, dtype=np.float32),
    "scalar": np.float32(2.5),
    "empty": np.empty((0, 4), dtype=np.float32),
    "uint8": BASE.astype(np.uint8),
    "int64": BASE.astype(np.int64),
    "bool": BASE > 3,
    "float64": BASE.astype(np.float64),
}
MODULES = [("numpy", "numpy"), ("array_api_compat.numpy", "numpy"), ("array_api_strict", "strict")]
MODULES += [("torch", "torch"), ("array_api_compat.torch", "torch"), ("jax", "jax"), ("jax.numpy", "jax")]
MODULES = [case for case in MODULES if case[0].removeprefix("array_api_compat.").split(".")[0] in INSTALLED]


@pytest.mark.parametrize("case", HOST_ARRAYS)
def test_the_way_in_and_out_keeps_values_shape_and_dtype(be, case):
    x = HOST_ARRAYS[case]
    found = be.to_host(be.asarray(x))
    assert type(found) is np.ndarray
    assert found.dtype == x.dtype.newbyteorder("=")
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, x, strict=False)
    assert found.shape == x.shape


@pytest.mark.parametrize("case", HOST_ARRAYS)
def test_the_way_in_converts(be, case):
    found = be.asarray(HOST_ARRAYS[case], "float32")
    assert found.dtype == be.dtype("float32")
    assert library_of(found) == be.name
    np.testing.assert_array_equal(be.to_host(found), HOST_ARRAYS[case].astype("f4"))


@pytest.mark.parametrize("x", [[[1, 2], [3, 4]], 5, (1.5, 2.5), [True, False]], ids=str)
def test_lists_and_numbers_enter(be, x):
    np.testing.assert_array_equal(be.to_host(be.asarray(x, "float64")), np.asarray(x, dtype=np.float64))
    np.testing.assert_array_equal(be.to_host(be.asarray(x)), np.asarray(x))


def test_own_arrays_enter_and_change_dtype(be):
    x = be.asarray(BASE)
    np.testing.assert_array_equal(be.to_host(be.asarray(x)), BASE)
    assert be.asarray(x, "int32").dtype == be.dtype("int32")


@pytest.mark.parametrize("case", ["plain", "read-only", "broadcast", "0-d"])
def test_a_copy_owns_its_memory(be, case):
    x = be.asarray(HOST_ARRAYS[case])
    y = be.copy(x)
    assert y.dtype == x.dtype
    y += 1
    np.testing.assert_array_equal(be.to_host(x), HOST_ARRAYS[case])
    np.testing.assert_array_equal(be.to_host(y), HOST_ARRAYS[case] + 1)


def test_stack_to_host(be):
    found = be.stack_to_host([be.asarray(value, "float32") for value in (1.5, 2.5)])
    assert (found.tolist(), found.dtype) == ([1.5, 2.5], np.float32)
    assert be.stack_to_host([be.asarray(BASE), be.asarray(BASE)]).shape == (2, 3, 4)


def test_compiled_functions_compute_the_same(be):
    x = be.asarray(BASE)
    found = be.compile(lambda a, b: a * b + 1)(x, x)
    be.synchronize()
    np.testing.assert_array_equal(be.to_host(found), BASE * BASE + 1)


def test_arrays_lead_back_to_their_backend(be):
    assert backend_of(be.asarray(BASE)) == be
    assert backend_of(be.xp.zeros(2, device=be.device)).selector == be.selector
    assert common_backend(None, {"X": be.asarray(BASE)}) == be


def test_selectors_lead_back_to_their_backend(be):
    again = dlx.get_backend(be.selector)
    assert (again, hash(again), again.selector) == (be, hash(be), be.selector)
    assert repr(be) == f"<dlx backend {be.selector}>"
    assert pickle.loads(pickle.dumps(be)) == be
    assert dlx.get_backend(be) is be
    assert be != be.selector


def test_a_backend_describes_itself(be):
    facts = be.describe()
    assert {type(text) for item in facts.items() for text in item} == {str}
    distributions = packages_distributions()[{"strict": "array_api_strict"}.get(be.name, be.name)]
    plain = {version(each).partition("+")[0] for each in distributions}  # "2.11.0+cu130" has a local part
    assert facts["version"].partition("+")[0] in plain
    assert facts["devices"]


@pytest.mark.parametrize(("module", "name"), MODULES)
def test_a_module_is_a_selector(module, name):
    assert dlx.get_backend(importlib.import_module(module)) == dlx.get_backend(name)


def test_known_and_available_backends():
    assert set(backends.KNOWN) <= set(backends.known_backends())
    assert {selector.partition(":")[0] for selector in SELECTORS} <= set(dlx.available_backends())


def test_none_is_numpy_and_auto_is_cupy_where_it_computes(monkeypatch):
    assert dlx.get_backend() == dlx.get_backend("numpy") == dlx.get_backend("numpy:cpu")
    guest = Backend(np, name="guest")
    monkeypatch.setattr(backends, "try_backend", lambda selector: guest if selector == "cupy" else None)
    assert dlx.get_backend("auto") is guest
    monkeypatch.setattr(backends, "try_backend", lambda selector: dlx.BackendUnavailable(selector))
    assert dlx.get_backend("auto") == dlx.get_backend("numpy")


def test_selectors_of_strict():
    assert dlx.get_backend("strict").selector == "strict:CPU_DEVICE"
    assert dlx.get_backend("strict:device1") != dlx.get_backend("strict:device2")


def test_numpy_ignores_overflow_inside_its_scope_only():
    be = dlx.get_backend("numpy")
    with be.scope():
        assert np.isinf(np.float32(1e38) * np.float32(10))
    with pytest.raises(RuntimeWarning):
        np.float32(1e38) * np.float32(10)


def test_host_array_does_not_copy_what_is_good():
    for good in (BASE, np.asfortranarray(BASE), BASE[:, ::2], HOST_ARRAYS["read-only"]):
        assert host_array(good) is good
    fields = host_array(PACKED["x"])
    assert (fields.flags.aligned, fields.dtype) == (True, np.float32)


@pytest.mark.parametrize("x", [[1, 2], 3, 2.5, None, "text", {"a": 1}], ids=str)
def test_lists_and_scalars_belong_to_no_library(x):
    assert library_of(x) is None
    assert common_backend(None, {"X": x}) == dlx.get_backend("numpy")


def test_the_first_array_with_a_library_leads(be):
    y = be.asarray([1.0], "float32")
    assert common_backend(None, {"X": [[1.0]], "y": y, "w": None}) == be
    assert common_backend(be.selector, {"X": BASE, "y": y, "w": [1.0]}) == be
    assert common_backend(be, {"X": None}) is be


if "torch" in INSTALLED:

    def test_torch_tensors_leave_their_gradients_at_the_door():
        import torch

        be, variable = dlx.get_backend("torch"), torch.ones(2, requires_grad=True)
        for found in (be.asarray(variable), be.asarray(variable, "float64"), be.copy(variable)):
            assert not found.requires_grad
        assert be.to_host(variable * 2).tolist() == [2, 2]
        with be.scope():
            assert not (variable * 2).requires_grad

    def test_torch_subclasses_and_half_precision():
        import torch

        be = dlx.get_backend("torch:cpu:0")
        parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        own = torch.ones(2).as_subclass(type("Own", (torch.Tensor,), {}))
        assert (library_of(parameter), library_of(own), backend_of(own)) == ("torch", "torch", be)
        found = be.to_host(parameter)  # NumPy has no bfloat16
        assert (found.dtype, found.tolist()) == (np.float32, [1, 1])

    def test_torch_meta_is_a_device():
        assert dlx.get_backend("torch:meta").asarray([1.0]).device.type == "meta"


if "jax" in INSTALLED:

    def test_jax_arrays_come_out_writable_and_traced_ones_are_known():
        import jax

        be, seen = dlx.get_backend("jax"), []
        found = be.to_host(be.asarray(BASE))
        found += 1
        jax.jit(lambda x: seen.append(library_of(x)) or be.asarray(x, "float64"))(be.asarray(BASE))
        assert (seen, dlx.get_backend("jax:cpu")) == (["jax"], be)


ACME = '''
"""An array library that follows the standard as far as this test needs."""
import numpy as np
__version__ = "7"
float32, float64 = np.float32, np.float64
class Array:
    def __init__(self, values): self.values, self.dtype, self.device = values, values.dtype, "tray"
    def __array__(self, dtype=None, copy=None): return np.asarray(self.values, dtype=dtype)
    def __array_namespace__(self, api_version=None): import acme; return acme
class __array_namespace_info__:
    def dtypes(self, device=None): return {"float32": float32, "float64": float64}
    def devices(self): return ["tray"]
def asarray(x, dtype=None, device=None, copy=None):
    return Array(np.array(x.values if isinstance(x, Array) else x, dtype=dtype))
def zeros(shape): return Array(np.zeros(shape))
def stack(arrays): return Array(np.stack([array.values for array in arrays]))
'''
REGISTERED = """
from dlx.backend import Backend
class Registered(Backend):
    @classmethod
    def open(cls, device):
        import acme
        return cls(acme, device or "tray", name="acme")
broken = 3
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """A compliant library that dlx has never heard of."""
    (tmp_path / "acme.py").write_text(ACME)
    (tmp_path / "acme_dlx.py").write_text(REGISTERED)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("acme")
    for name in ("acme", "acme_dlx"):
        sys.modules.pop(name, None)


def register(folder, entry):
    """Install a distribution that registers the backend "acme"."""
    info = folder / "acme_dlx-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-dlx\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[dlx.backends]\nacme = {entry}\n")
    importlib.invalidate_caches()


def test_any_compliant_module_or_array_works(acme):
    be = dlx.get_backend(acme)
    x = be.asarray([1, 2], "float32")
    assert (type(be), be.selector, be.describe()) == (Backend, "acme:tray", {"version": "7", "devices": "tray"})
    assert (library_of(x), backend_of(x), common_backend(None, {"X": x})) == ("acme", be, be)
    assert be.to_host(x).tolist() == [1, 2]
    assert be.to_host(be.copy(x)).dtype == np.float32
    assert be.stack_to_host([x, x]).shape == (2, 2)
    assert pickle.loads(pickle.dumps(be)) == be
    with be.scope():
        assert be.compile(be.asarray) == be.asarray
    assert Backend(acme).selector == "acme"
    assert "acme" not in backends.known_backends()


def test_third_parties_register_by_entry_point(acme, tmp_path):
    register(tmp_path, "acme_dlx:Registered")
    registered = importlib.import_module("acme_dlx").Registered
    assert "acme" in dlx.available_backends()
    for be in (dlx.get_backend("acme"), dlx.get_backend(acme), backend_of(acme.zeros(1))):
        assert (type(be), be.selector) == (registered, "acme:tray")
    assert dlx.get_backend("acme:shelf").device == "shelf"
    assert pickle.loads(pickle.dumps(be)) == be


@pytest.mark.parametrize("entry", ["acme_dlx:broken", "acme_dlx:missing", "nowhere:Registered"])
def test_a_broken_third_party_hides_no_other_backend(acme, tmp_path, entry):
    register(tmp_path, entry)
    assert "acme" in backends.known_backends()
    assert "acme" not in dlx.available_backends()
    assert "numpy" in dlx.available_backends()


# -- loops --


def tally(carry, constants, inputs):
    """Adds to the carry what a step is given: a row, numbers of the host in nested tuples, constants."""
    row, (first, (second,)), nothing = inputs
    assert nothing is None
    carry = carry + row * first + constants
    return carry, second * 1.0 + carry[0]


def run_tally(be, steps, stop=None, key=None, step=tally):
    rows = be.asarray(np.arange(steps * 2.0).reshape(steps, 2), "float32")
    firsts, seconds = np.linspace(0, 1, steps, dtype="f4"), np.arange(steps, dtype="f4")
    run = be.loop(step, key)
    carry, outputs = be.asarray([0.0, 1.0], "float32"), []
    for done in run(carry, be.asarray([1.0, 2.0], "float32"), (rows, (firsts, (seconds,)), None), steps):
        carry, output = done
        outputs.append(output)
        if stop is not None and len(outputs) == stop:
            break
    return be.to_host(be.asarray(carry)), be.outputs_to_host(outputs)


def expected_tally(steps):
    carry, outputs = np.array([0.0, 1.0]), []
    for k in range(steps):
        carry = carry + np.array([2 * k, 2 * k + 1]) * np.linspace(0, 1, steps)[k] + np.array([1.0, 2.0])
        outputs.append(k + carry[0])
    return carry, np.array(outputs)


@pytest.mark.parametrize("steps", [1, 2, 37])
def test_a_loop_is_its_steps_one_after_the_other(be, steps):
    carry, outputs = run_tally(be, steps)
    expected_carry, expected = expected_tally(steps)
    np.testing.assert_allclose(carry, expected_carry, rtol=1e-5)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_a_loop_may_be_left(be):
    _, outputs = run_tally(be, 37, stop=2)
    done = len(outputs)
    assert done in (2, 3)  # JAX makes one step, then two at a time, and so on
    np.testing.assert_allclose(outputs, expected_tally(37)[1][:done], rtol=1e-5)


def test_a_loop_needs_no_inputs(be):
    run = be.loop(lambda carry, constants, inputs: (carry + 1.0, carry * 2.0))
    *_, (carry, _) = run(be.asarray(0.0, "float32"), None, (None, ()), 5)
    assert float(carry) == 5.0


if "jax" in INSTALLED:

    def test_equal_loops_are_compiled_once():
        be, traced = dlx.get_backend("jax"), []

        def counted(*arguments):
            traced.append(1)
            return tally(*arguments)

        first = run_tally(be, 9, key="tally", step=counted)
        once = len(traced)
        assert once > 0
        np.testing.assert_array_equal(run_tally(be, 9, key="tally", step=counted)[0], first[0])
        assert len(traced) == once
        for key in ("another", None, None):
            run_tally(be, 9, key=key, step=counted)
            assert len(traced) > once
            once = len(traced)

    def test_old_loops_are_forgotten(monkeypatch):
        module = importlib.import_module("dlx.backends._jax")
        monkeypatch.setattr(module, "MOST_COMPILED", 3)
        monkeypatch.setattr(module, "_COMPILED", {})
        for key in (0, 1, 2, 3, 0, 4, 5, 0):
            run_tally(dlx.get_backend("jax"), 2, key=key)
        assert [key for _, _, key, *_ in module._COMPILED] == [4, 5, 0]
        run_tally(dlx.get_backend("jax"), 3, key=0)  # of other shapes, so another loop
        assert [key for _, _, key, *_ in module._COMPILED] == [5, 0, 0]

    def test_two_fits_of_one_kind_trace_once(monkeypatch):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((50, 4)).astype("float32"), rng.integers(0, 3, 50)
        traced, inner = [], dlx.network.loss_and_gradients
        monkeypatch.setattr(dlx.network, "loss_and_gradients", lambda *rest: (traced.append(1), inner(*rest))[1])
        options = {"epochs": 2, "batch_size": 20, "rng": 0, "backend": "jax", "l2": 0.0123}
        first = dlx.fit(X, y, (4, 6, 3), **options)
        once = len(traced)
        assert once > 0
        second = dlx.fit(X, y, (4, 6, 3), **options)
        assert len(traced) == once
        np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
        dlx.fit(X, y, (4, 6, 3), **options, activation="tanh")
        assert len(traced) > once
