"""The array libraries that every parametrised test runs on."""

import importlib.util
import os
import signal

os.environ.setdefault("JAX_ENABLE_X64", "1")  # read when jax is first imported; float64 is what tests compute in
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # read when scipy is first imported; scikit-learn's dispatch needs it
if "PYTEST_XDIST_WORKER" in os.environ:  # beside other workers, threads of one product would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy is first imported

import numpy as np
import pytest

import dlx

LIBRARIES = {
    "numpy": ["numpy"],
    "array_api_strict": ["strict", "strict:device1"],
    "torch": ["torch"],
    "jax": ["jax"],
}
BESIDE = ("numba", "onnx", "onnxruntime", "ndonnx", "skl2onnx", "pyarrow")  # what other tests need
INSTALLED = [module for module in LIBRARIES if importlib.util.find_spec(module)]
SELECTORS = [selector for module in INSTALLED for selector in LIBRARIES[module]]

ON_EMULATED_CUPY = os.environ.get("DLX_CUPY_ON_CPU") == "1"  # set by: python tests/cupy_on_cpu
if ON_EMULATED_CUPY:
    from cupy_on_cpu import emulate

    emulate.install()
    SELECTORS += ["cupy", "cupy:1"]

# What `pytest -m gpu` runs: the same tests, where there is a device.
GPUS = [] if ON_EMULATED_CUPY else ["cupy", "torch:cuda"]
GPUS = [selector for selector in GPUS if isinstance(dlx.backend.try_backend(selector), dlx.Backend)]
EVERYWHERE = [*SELECTORS, *(pytest.param(selector, marks=pytest.mark.gpu) for selector in GPUS)]


def pytest_addoption(parser):
    parser.addoption("--require-all", action="store_true", help="fail at once if an array library is missing")


def pytest_configure(config):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with Ctrl-C ignored
    missing = [module for module in (*LIBRARIES, *BESIDE) if importlib.util.find_spec(module) is None]
    if config.getoption("--require-all") and missing:
        raise pytest.UsageError(f"--require-all: not installed: {', '.join(missing)}")


def pytest_report_header(config):
    return f"dlx on: {', '.join([*SELECTORS, *GPUS])}{' (CuPy emulated)' if ON_EMULATED_CUPY else ''}"


@pytest.fixture(params=EVERYWHERE)
def be(request):
    """A backend; what the test does runs inside its scope."""
    backend = dlx.get_backend(request.param)
    with backend.scope():
        yield backend


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def read_only(*arrays):
    """The arrays, which nobody may write from now on."""
    for array in arrays:
        array.flags.writeable = False
    return arrays if len(arrays) > 1 else arrays[0]
