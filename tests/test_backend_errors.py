"""The table of errors: every text says what is wrong, with the library's own reason, and what to do."""

import importlib
import math
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import dlx
from conftest import INSTALLED
from dlx.backend import Backend, backend_of, host_array
from dlx.data.placement import common_backend

FORM = r"^`\w+` must .+; got .+\. .+\.$"
NO_CUBLAS = ImportError("libcublas.so.12: cannot open shared object file")
INSTALL = {
    "cupy": ("cupy", r"pip install 'dlx-nn\[cuda12x\]' for CUDA 12.*pip install 'dlx-nn\[cuda13x\]' for CUDA 13"),
    "jax": ("jax", r"Run: pip install 'dlx-nn\[jax\]'"),
    "torch": ("torch", r"Run: pip install 'dlx-nn\[torch\]'"),
    "strict": ("array_api_strict", "Run: pip install array-api-strict"),
}


def rejects(kind, match):
    """Like pytest.raises, and the text has the one form that dlx's errors have."""
    return pytest.raises(kind, match=rf"(?s)(?={FORM}).*{match}")


@pytest.fixture
def library(monkeypatch):
    """Stands something else in the place of an array library, which dlx has not imported yet."""

    def stand_in(name, module, substitute):
        ours = f"dlx.backends._{name}"
        monkeypatch.setitem(sys.modules, module, substitute)
        monkeypatch.setitem(sys.modules, ours, None)  # remembers what to put back at the end
        monkeypatch.delitem(sys.modules, ours)

    return stand_in


class Device:
    """CuPy's: it never says that it does not exist."""

    def __init__(self, id):
        self.id = id

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        return None


class One:
    """A matrix whose product needs a library that is not there."""

    def __matmul__(self, other):
        raise NO_CUBLAS


def gpus(count, one=One):
    """A CuPy that finds `count` GPUs."""
    cupy = types.ModuleType("cupy")
    cupy.__version__, cupy.float32, cupy.ones = "14.9", "f4", lambda shape, dtype: one()
    cupy.cuda = types.SimpleNamespace(
        Device=Device, runtime=types.SimpleNamespace(getDeviceCount=lambda: count, getDevice=lambda: 0)
    )
    return cupy


@pytest.mark.parametrize("name", INSTALL)
def test_a_library_that_is_not_installed(name, library):
    module, command = INSTALL[name]
    library(name, module, None)  # None in sys.modules is how Python itself says that there is none
    with rejects(dlx.BackendNotInstalled, f"name a library that is installed; got '{name}'.*{command}"):
        dlx.get_backend(name)
    assert issubclass(dlx.BackendNotInstalled, ImportError)
    assert name not in dlx.available_backends()


@pytest.mark.parametrize("line", ["raise OSError('libcudart.so.12: no such file')", "import libcudart_so_12"])
@pytest.mark.parametrize("name", INSTALL)
def test_a_library_that_cannot_be_imported(name, line, library, monkeypatch, tmp_path):
    module, _ = INSTALL[name]
    (tmp_path / f"{module}.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    library(name, module, None)
    del sys.modules[module]
    with rejects(dlx.BackendUnavailable, f"got '{name}', which cannot be imported: .*libcudart.so.12.*Mend its"):
        dlx.get_backend(name)
    assert issubclass(dlx.BackendUnavailable, RuntimeError)


if importlib.util.find_spec("cupy"):

    def test_cupy_without_a_gpu():
        code = "import dlx\ntry: dlx.get_backend('cupy')\nexcept dlx.BackendUnavailable as e: print(e)"
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # on a machine with a GPU too
        run = subprocess.run([sys.executable, "-c", code], env=hidden, capture_output=True, text=True, check=True)
        version = importlib.import_module("cupy").__version__
        with rejects(RuntimeError, rf"got 'cupy' \(CuPy {version}\): CUDARuntimeError: cudaError\w+: .*another"):
            raise RuntimeError(run.stdout.strip())


def test_cupy_with_a_gpu_but_no_cublas(library):
    library("cupy", "cupy", gpus(2))
    with rejects(dlx.BackendUnavailable, r"'cupy:1' \(CuPy 14.9\): ImportError: libcublas.so.12: cannot") as error:
        dlx.get_backend("cupy:1")
    assert error.value.__cause__ is NO_CUBLAS
    assert dlx.get_backend("auto") == dlx.get_backend("numpy")  # only "auto" may take another library
    array = types.SimpleNamespace(device=Device(0))
    with rejects(dlx.BackendUnavailable, "libcublas"):  # nor is it taken because an array lies there
        importlib.import_module("dlx.backends._cupy").BACKEND.of(array)


def test_a_gpu_that_is_not_there(library):
    library("cupy", "cupy", gpus(1))
    with rejects(ValueError, r"got 'cupy:7' \(device 7; 1 available\). Use 'cupy:0'"):
        dlx.get_backend("cupy:7")
    library("cupy", "cupy", gpus(2))
    with rejects(ValueError, r"\(device 2; 2 available\). Use 'cupy:0' or 'cupy:1'"):
        dlx.get_backend("cupy:2")


@pytest.mark.parametrize("device", ["x", "-1", "0:0", "1.5", " 1"])
def test_a_gpu_is_named_by_its_number(device, library):
    library("cupy", "cupy", gpus(1))
    with rejects(ValueError, f"name a CUDA device by its number; got 'cupy:{device}'. Use 'cupy:0'"):
        dlx.get_backend(f"cupy:{device}")


WRONG_DEVICES = [("numpy:7", "device 7; 1", "numpy:cpu"), ("numpy:cpu:0", "device cpu:0; 1", "numpy:cpu")]
if "array_api_strict" in INSTALLED:
    WRONG_DEVICES += [("strict:device9", "device device9; .", "strict:device1")]
if "jax" in INSTALLED:
    WRONG_DEVICES += [(f"jax:{d}", f"device {d}; 1", "jax:cpu:0") for d in ("cpu:7", "cpu:x", "cpu:", "0", ":0")]
if "torch" in INSTALLED:
    WRONG_DEVICES += [(f"torch:{d}", f"device {d}; 1", "torch:cpu:0") for d in ("cpu:3", "nonsense", "0", "cuda:x")]


@pytest.mark.parametrize(("selector", "device", "use"), WRONG_DEVICES)
def test_a_device_that_is_not_there(selector, device, use):
    with rejects(ValueError, rf"name a device that exists; got '{selector}' \({device} available\). Use.*'{use}'"):
        dlx.get_backend(selector)


@pytest.mark.parametrize("selector", ["nonsense", "NumPy", " numpy", "", ":", ":cpu", "numpy:", "auto:1", "math"])
def test_an_unknown_name(selector):
    known = "'auto', or 'name' or 'name:device' with one of the names 'cupy', 'jax', 'numpy', 'strict', 'torch'"
    with rejects(ValueError, f"{known}; got '{selector}'. For another library pass its module"):
        dlx.get_backend(selector)


@pytest.mark.parametrize("backend", [3, b"numpy", np.ndarray, ["numpy"], np.zeros(1)], ids=lambda x: type(x).__name__)
def test_not_a_selector_at_all(backend):
    with rejects(TypeError, rf"a selector such as 'cupy:1'.*got {type(backend).__name__}. Pass for example"):
        dlx.get_backend(backend)


@pytest.mark.parametrize("module", [math, sys, np.linalg, dlx, types.ModuleType("numpy.random")])
def test_a_module_that_is_no_array_library(module):
    name = module.__name__
    with rejects(TypeError, f"a module that follows the Array API standard; got {name}. Pass one whose arrays have"):
        dlx.get_backend(module)


def test_a_third_party_that_registers_no_backend(monkeypatch):
    entry = importlib.metadata.EntryPoint("acme", "math:pi", "dlx.backends")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **query: [entry])
    with pytest.raises(TypeError, match=r"`math:pi` must be a subclass of dlx.Backend; got 3.14\d+. Mend its entry"):
        dlx.get_backend("acme")


def test_a_dtype_that_no_library_has(be):
    for name in ("nonsense", "zeros", "float33"):
        with rejects(
            TypeError, f"`dtype` must be one that {be.selector} computes with; got {name}. Use one of .*float32"
        ):
            be.asarray([1], name)


if "array_api_strict" in INSTALLED:

    def test_float64_on_a_device_without_it():
        be = dlx.get_backend("strict:no_float64")
        with rejects(TypeError, "one that strict:no_float64 computes with; got float64. Use float32"):
            be.asarray(np.zeros(3), "float64")
        assert be.asarray(np.zeros(3), "float32").dtype == be.dtype("float32")


if "jax" in INSTALLED:

    def test_float64_where_jax_has_it_switched_off():
        import jax

        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", False)
        try:
            with rejects(TypeError, r"got float64. Switch it on with jax.config.update\('jax_enable_x64', True\).*or"):
                dlx.get_backend("jax").asarray([1.0], "float64")
            assert dlx.get_backend("jax").asarray(np.zeros(1), "float32").dtype == np.float32
        finally:
            jax.config.update("jax_enable_x64", before)

    def test_a_jax_platform_that_is_not_there():
        with rejects(dlx.BackendUnavailable, r"got 'jax:tpu' \(JAX [\d.]+\): RuntimeError: Unknown backend.*another"):
            dlx.get_backend("jax:tpu")

    def test_a_sharded_jax_array():
        backend = type(dlx.get_backend("jax"))
        with rejects(ValueError, "`array` must lie on one device; got one that is sharded over 2. Gather it with jax"):
            backend.of(types.SimpleNamespace(devices=lambda: {1, 2}))


if "torch" in INSTALLED:

    def test_torch_without_cuda(monkeypatch):
        import torch

        class Refuses:
            def __matmul__(self, other):
                raise AssertionError("Torch not compiled with CUDA enabled\nsecond line")

        monkeypatch.setattr(torch, "ones", lambda shape, device: Refuses())  # on a machine with a GPU too
        reason = r"got 'torch:cuda' \(PyTorch \d[^)]*\): AssertionError: Torch not compiled with CUDA enabled\. Mend"
        with rejects(dlx.BackendUnavailable, reason) as error:
            dlx.get_backend("torch:cuda")
        assert "second" not in str(error.value)

    def test_a_torch_gpu_that_is_not_there(monkeypatch):
        import torch

        dlx.get_backend("torch")
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
        with rejects(ValueError, r"\(device cuda:9; 3 available\). Use 'torch:cpu:0' or 'torch:cuda:0' or"):
            dlx.get_backend("torch:cuda:9")

    def test_torch_mps_has_no_float64():
        import torch

        be = type(dlx.get_backend("torch"))(torch, torch.device("mps"))
        with rejects(TypeError, "got float64. MPS has no float64: pass dtype='float32', or use 'torch:cpu'"):
            be.dtype("float64")

    def test_sparse_tensors_are_refused():
        import torch

        with rejects(
            TypeError, r"`x` must be dense; got a tensor of layout torch.sparse_coo. Use its method .to_dense"
        ):
            dlx.get_backend("torch").asarray(torch.ones(2, 2).to_sparse())


class Sparse:
    """As SciPy's are."""

    nnz = 3

    def toarray(self):
        """Dense."""


def test_what_is_no_dense_host_array(be):
    remedy = "Fill or drop its masked values first. Missing targets are nan: y.filled(numpy.nan), with missing='mask'."
    with rejects(TypeError, re.escape(f"`y` must not be masked; got a masked array. {remedy}")):
        host_array(np.ma.masked_array([1.0], [True]), "y")
    with rejects(TypeError, "`x` must not be masked"):
        be.asarray(np.ma.masked_array([1.0], [True]))
    with rejects(TypeError, r"`x` must be dense; got Sparse. Convert it with its method .toarray\(\)"):
        be.asarray(Sparse())


if "array_api_strict" in INSTALLED:  # the second library that every installation with tests has

    def test_arrays_of_two_libraries():
        strict, numpy = dlx.get_backend("strict:device1"), dlx.get_backend("numpy")
        ours, guest = np.ones(2), strict.asarray([1.0])
        mend = r"Pass backend='strict:device1', which takes NumPy arrays too\.$"
        with rejects(TypeError, f"`y` must be of the same library as `X`, numpy; got an array of strict. {mend}"):
            common_backend(None, {"X": ours, "y": guest})
        with rejects(TypeError, f"`y` must be of the same library as `X`, strict; got an array of numpy. {mend}"):
            common_backend(None, {"X": guest, "y": ours})
        with rejects(TypeError, f"`X` must be of the same library as `backend`, numpy; got an array of strict. {mend}"):
            common_backend("numpy", {"X": guest})
        assert common_backend("strict:device1", {"X": guest, "y": ours}) == strict  # what the texts advise, works
        other = Backend(np, name="other")
        mend = (
            r"Pass backend='other', which takes NumPy arrays too. "
            r"Make `X` one with dlx.backend.backend_of\(X\).to_host\(X\)"
        )
        with rejects(TypeError, f"`X` must be of the same library as `backend`, other; got an array of strict. {mend}"):
            common_backend(other, {"X": guest})
        with rejects(TypeError, r"`x` must lie on the host; got an array of strict. Bring it.*backend_of\(x\).to_host"):
            numpy.asarray(guest)
        assert backend_of(guest).to_host(guest).tolist() == [1]

    def test_arrays_on_two_devices():
        one, two = dlx.get_backend("strict:device1"), dlx.get_backend("strict:device2")
        rule = "`y` must lie on the same device as `X`, strict:device1; got strict:device2"
        with rejects(ValueError, rf"{rule}. Move it with dlx.get_backend\('strict:device1'\).asarray\(y\)"):
            common_backend(None, {"X": one.asarray([1.0]), "y": two.asarray([1.0])})
        with rejects(ValueError, "`X` must lie on the same device as `backend`, strict:device1; got strict:device2"):
            common_backend("strict:device1", {"X": two.asarray([1.0])})
        assert backend_of(one.asarray(two.asarray([1.0]))) == one  # what the text advises, works


def test_the_base_class_has_no_selector():
    with pytest.raises(NotImplementedError, match="opened from a module or an array"):
        Backend.open("cpu")
