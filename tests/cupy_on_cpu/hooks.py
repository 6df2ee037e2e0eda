"""Put the emulated runtime, driver, cuBLAS and compiler into CuPy, before and while it is imported.

All that is private to CuPy is here: what to look at when its version changes.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from . import kernels, toolchain

DISTRIBUTION, VERSION = "cupy-cuda12x", "14.2.0"
RUNTIME, DRIVER, CUBLAS = (
    "cupy_backends.cuda.api.runtime",
    "cupy_backends.cuda.api.driver",
    "cupy_backends.cuda.libs.cublas",
)


def replace_runtime(library: ctypes.PyDLL) -> None:
    """CUDA's runtime and driver; the driver module takes over what it finds in the runtime module, so in this order."""
    replace_functions(importlib.import_module(RUNTIME), library, "runtime_")
    replace_functions(importlib.import_module(DRIVER), library, "driver_")


def replace_functions(module: ModuleType, library: ctypes.PyDLL, prefix: str) -> None:
    """Put each function of `library` with this prefix in the place of the module's function of that name.

    CuPy's other modules take the C functions, when they are imported, from capsules in `__pyx_capi__`; Python code
    finds them as attributes.
    """
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_void_p, [ctypes.py_object]
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    for name, capsule in list(module.__pyx_capi__.items()):
        try:
            function = library[prefix + name]
        except AttributeError:
            continue  # not emulated: CuPy's own function will complain that there is no driver
        signature = api.PyCapsule_GetName(capsule)  # in the module's memory: it outlives the capsule
        module.__pyx_capi__[name] = api.PyCapsule_New(ctypes.cast(function, ctypes.c_void_p), signature, None)
        if hasattr(module, name):
            setattr(module, name, for_python(function, name, ctypes.string_at(signature).decode()))


def for_python(function: Callable[..., object], name: str, signature: str) -> Callable[..., object]:
    """A Python function that calls one whose Cython signature is, say, `intptr_t (size_t, int __pyx_skip_dispatch)`."""
    types = {
        "PyObject *": ctypes.py_object,
        "float": ctypes.c_float,
        "int": ctypes.c_int,
        "intptr_t": ctypes.c_ssize_t,
        "size_t": ctypes.c_size_t,
        "unsigned int": ctypes.c_uint,
    }
    result, parameters = re.fullmatch(r"(.+?) ?\((.*)\)", signature).groups()
    words = [] if parameters == "void" else parameters.split(", ")
    visible = [types[word] for word in words if "__pyx_" not in word]
    # Cython's own: a flag of no concern here, and a pointer to the optional arguments, NULL for their defaults.
    hidden = [ctypes.c_void_p if "*" in word else ctypes.c_int for word in words if "__pyx_" in word]
    optional = bool(hidden) and hidden[-1] is ctypes.c_void_p
    function.restype = ctypes.py_object if "struct" in result else types[result]
    function.argtypes = [*visible, *hidden]

    def call(*arguments: object) -> object:
        given = arguments[len(visible) :]
        cython = [kind() for kind in hidden]
        if optional and given:  # a structure: how many there are, and their values, integers wherever we have one
            cython[-1] = ctypes.cast((ctypes.c_int * (1 + len(given)))(len(given), *given), ctypes.c_void_p)
        return function(*arguments[: len(visible)], *cython)

    call.__name__ = name
    return call


def load_driver_library() -> None:
    """Load our libcuda.so.1, in which there are only the functions that say what a graph is made of."""
    ctypes.CDLL(str(toolchain.small_library("libcuda.so.1", toolchain.RUNTIME / "cuda.cpp")), mode=ctypes.RTLD_GLOBAL)


def replace_cublas() -> None:
    """Load our libcublas.so.12, and CuPy's module that asks for one, before CuPy looks for NVIDIA's.

    cuda.pathfinder, asked for cublas, first wants cublasLt: an empty one satisfies it.
    """
    empty = toolchain.small_library("libcublasLt.so.12", toolchain.RUNTIME / "empty.cpp")
    for library in (empty, toolchain.cublas_library(Path(importlib.util.find_spec(CUBLAS).origin))):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    importlib.import_module(CUBLAS)


def import_cupy() -> kernels.Kernels:
    """Import cupy, and put our compiler in the place of its own."""
    settings = {
        "CUPY_ACCELERATORS": "",  # CUB and cuTENSOR cannot be emulated; CuPy reads its choice once
        "CUPY_CACHE_DIR": str(
            toolchain.cache("libraries") / "unused"
        ),  # no emulated kernel may get into CuPy's own cache
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        cupy = importlib.import_module("cupy")
        core = importlib.import_module("cupy._core.core")
        compiler = importlib.import_module("cupy.cuda.compiler")
        backend = importlib.import_module("cupy.cuda._compiler_cache").KernelCacheBackend
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
    try:
        nvrtc = "NVRTC {}.{}".format(*compiler._get_nvrtc_version())
        core.assemble_cupy_compiler_options(())  # looks for CUDA's headers
    except Exception as reason:
        raise RuntimeError(
            f"NVRTC or CUDA's headers are missing: {reason} Run: pip install 'nvidia-cuda-nvrtc-cu12<13' "
            "'nvidia-cuda-runtime-cu12<13'"
        ) from reason

    class NoCache(backend):  # toolchain.py has one
        def load(self, name: str) -> None:
            return None

        def save(self, name: str, cubin: bytes, source: str) -> None:
            pass

    compiler._set_kernel_cache_backend(NoCache())
    headers = Path(cupy.__file__).parent / "_core" / "include"
    compiled = kernels.Kernels(compiler._compile_using_nvrtc_no_warning, headers, f"CuPy {VERSION}, {nvrtc}")
    compiler._compile_using_nvrtc_no_warning = compiled.compile
    return compiled
