"""What the emulated runtime refuses: kernels, functions it lacks, and surroundings in which it cannot work."""

import os
import subprocess
import sys
from pathlib import Path

import cupy
import cupy.cublas
import numpy as np
import pytest

from cupy_on_cpu import emulate

HERE = Path(__file__).parent
CUDARuntimeError = cupy.cuda.runtime.CUDARuntimeError


@pytest.fixture
def x():
    return cupy.ones((3, 3))


def python(code):
    """A fresh interpreter in which the package can be imported."""
    lines = [line.removeprefix(" " * 8) for line in code.strip().splitlines()]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(["from cupy_on_cpu import emulate", *lines])],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
    )


def succeeds(code):
    done = python(code)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Kernels that must not run -------------------------------------------------------------------------------------------

WRITE_ONE = 'extern "C" __global__ void write_one(float* x) { *x = 1; }'


def test_an_address_of_the_host_raises():
    host = np.zeros(1, dtype="float32")
    kernel = cupy.RawKernel(WRITE_ONE, "write_one")
    with pytest.raises(CUDARuntimeError, match="write_one was given an address that is no device's"):
        kernel((1,), (1,), (np.uint64(host.ctypes.data),))


@pytest.mark.parametrize(("grid", "block"), [((1,), (1025,)), ((1, 65536), (1,)), ((1,), (1, 1, 65))])
def test_a_launch_beyond_the_limits_raises(grid, block, x):
    kernel = cupy.RawKernel(WRITE_ONE, "write_one")
    with pytest.raises(CUDARuntimeError, match="cudaErrorInvalidValue"):
        kernel(grid, block, (x,))


def test_what_nvrtc_refuses_raises():
    done = python(
        """
        emulate.install()
        import cupy
        kernel = cupy.RawKernel('#include <vector>\\nextern "C" __global__ void f(float* x) {}', "f")
        try:
            kernel((1,), (1,), (0,))
        finally:
            print(emulate.nvrtc_report())
        """
    )
    assert "CompileException" in done.stderr
    assert "NvrtcReport(kernels=1, sm_80=0, sm_90=0, compiled=1)" in done.stdout


def test_what_the_emulation_lacks_is_named(x):
    kernel = cupy.RawKernel('extern "C" __global__ void f(int* x) { *x = __brev(*x); }', "f")
    with pytest.raises(RuntimeError, match=r"(?s)headers/kernel\.h.*__brev"):
        kernel((1,), (1,), (x,))


def test_a_cublas_function_that_is_missing_is_named(x, capfd):
    with pytest.raises(cupy.cuda.cublas.CUBLASError, match="NOT_SUPPORTED"):
        cupy.cublas.nrm2(cupy.ones(3))
    assert "cublasDnrm2_v2" in capfd.readouterr().err


def test_every_kernel_was_accepted_by_nvrtc(x):
    x + 1
    report = emulate.nvrtc_report()
    assert report.kernels == report.sm_80 == report.sm_90 > 0
    assert report.compiled <= report.kernels


# Installing ----------------------------------------------------------------------------------------------------------


def test_with_peer_access_mixing_is_counted():
    assert "foreign=3" in succeeds(
        """
        import warnings
        emulate.install(peer_access=True)
        import cupy
        x = cupy.ones((3, 3))
        with cupy.cuda.Device(1):
            y = cupy.ones((3, 3))
        warnings.simplefilter("ignore")  # CuPy's PerformanceWarning
        with emulate.counting() as done:
            x + y
            y @ y
        print(done)
        """
    )


def test_again():
    emulate.install()
    with pytest.raises(RuntimeError, match="emulated already"):
        emulate.install(devices=3)


def test_not_installed():
    assert "Call emulate.install()" in python("emulate.counters()").stderr


def test_cupy_came_first():
    assert "cupy was imported already. Call emulate.install() before" in python("import cupy; emulate.install()").stderr


@pytest.mark.parametrize("found", ["'14.3.0'", "importlib.metadata.PackageNotFoundError"])
def test_another_version(found):
    code = f"""
        import importlib.metadata
        def version(name):
            found = {found}
            if isinstance(found, str):
                return found
            raise found
        importlib.metadata.version = version
        emulate.install()
        """
    message = python(code).stderr
    assert "written for cupy-cuda12x 14.2.0; found: " in message
    assert "pip install cupy-cuda12x==14.2.0" in message


def test_no_compiler(tmp_path):
    code = f"import os; os.environ['PATH'] = {str(tmp_path)!r}; emulate.install()"
    assert "g++ is not installed" in python(code).stderr


def test_another_processor():
    message = python("import platform; platform.machine = lambda: 'aarch64'; emulate.install()").stderr
    assert "x86-64 Linux only; this is aarch64 linux" in message


def test_the_environment_is_left_alone():
    assert "CUPY_CACHE_DIR" not in os.environ
    assert "CUPY_ACCELERATORS" not in os.environ


def test_main_runs_pytest(tmp_path):
    (tmp_path / "test_variable.py").write_text("import os\ndef test(): assert os.environ['DLX_CUPY_ON_CPU'] == '1'\n")
    done = subprocess.run([sys.executable, HERE, "-q", tmp_path], cwd=tmp_path, capture_output=True, text=True)
    assert "1 passed" in done.stdout
