"""Run the unmodified CuPy wheel on a CPU, and count what it would have asked of a GPU.

    from cupy_on_cpu import emulate

    emulate.install()  # before anything imports cupy
    import cupy

    with emulate.counting() as done:
        float(cupy.ones(3).sum())
    assert done.launches == 2 and done.device_to_host == done.syncs == 1
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from . import toolchain

DISTRIBUTION, VERSION = "cupy-cuda12x", "14.2.0"  # the emulation relies on private names of this release


class Counters(NamedTuple):
    """What was asked of the devices; `runtime/devices.h` has the same list."""

    launches: int  # kernels; products are counted apart
    gemms: int  # calls of a cuBLAS product; one call for a whole batch
    host_to_device: int
    device_to_host: int
    device_to_device: int  # copies between devices, and within one where CuPy launches no kernel for it
    syncs: int  # of a device, a stream or an event, and every copy that waits
    foreign: int  # arrays of another device than the current one that a kernel or a product was given
    mallocs: int  # misses of CuPy's memory pool: what the pool has kept is handed out again unseen


class NvrtcReport(NamedTuple):
    """How many different kernels this process loaded, and how many of them NVRTC accepted for each architecture."""

    kernels: int
    sm_80: int
    sm_90: int
    compiled: int  # by g++ in this process; the others came from the cache


class _Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in Counters._fields]  # noqa: RUF012 - ctypes wants a list


class _Emulation(NamedTuple):
    library: ctypes.PyDLL
    kernels: toolchain.Kernels


# On the module that every copy of this one shares, under whatever name it was imported.
_HOME, _ATTRIBUTE = "cupy_backends.cuda.api.runtime", "_cupy_on_cpu"


def _installed() -> _Emulation | None:
    return getattr(sys.modules.get(_HOME), _ATTRIBUTE, None)


def _require() -> _Emulation:
    found = _installed()
    if found is None:
        raise RuntimeError("CuPy is not emulated. Call emulate.install() before cupy is imported.")
    return found


def install(devices: int = 2, peer_access: bool = False) -> None:
    """Make `import cupy` give a CuPy that computes on the CPU.

    Parameters
    ----------
    devices : int
        How many devices there are to be.
    peer_access : bool
        Whether a device can read another's memory. Without, as with most pairs of cards, a kernel or a product that
        mixes devices raises; with it, such an operand is counted as `foreign`.

    Calling it again does nothing, but must ask for the same devices.

    Raises
    ------
    RuntimeError
        Where cupy was imported before, is not the release that this emulation was written for, or cannot be
        emulated for lack of a compiler, of NVRTC, or of the right processor.
    """
    if _installed():
        if _variable("device_count").value != devices or _variable("peer_access").value != peer_access:
            raise RuntimeError("CuPy is emulated already, with other devices. One process has one set of them.")
        return
    _check_environment()
    runtime = importlib.import_module(_HOME)
    library = ctypes.PyDLL(str(toolchain.runtime_library()), mode=ctypes.RTLD_GLOBAL)  # kernels are linked to it
    _replace_functions(runtime, library, "runtime_")  # the driver module takes over what it finds there: first
    _replace_functions(importlib.import_module("cupy_backends.cuda.api.driver"), library, "driver_")
    _load_cublas()
    kernels = _import_cupy()
    setattr(runtime, _ATTRIBUTE, _Emulation(library, kernels))
    _variable("device_count").value = devices
    _variable("peer_access").value = peer_access


def _check_environment() -> None:
    """Refuse what cannot work, and say what to do about it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise RuntimeError(f"CuPy is emulated on x86-64 Linux only; this is {platform.machine()} {sys.platform}.")
    if "cupy" in sys.modules or "cupy_backends.cuda.api.driver" in sys.modules:
        raise RuntimeError("cupy was imported already. Call emulate.install() before anything imports cupy.")
    try:
        found = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        found = "not installed"
    if found != VERSION:
        raise RuntimeError(
            f"The emulation is written for {DISTRIBUTION} {VERSION}; found: {found}. Run: pip install "
            f"{DISTRIBUTION}=={VERSION}, or bring it up to date as tests/cupy_on_cpu/README.md says."
        )
    for tool, package in (("g++", "g++"), ("nm", "binutils")):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is not installed; kernels are compiled with it. Install the package {package}.")


# Into CuPy -----------------------------------------------------------------------------------------------------------


def _replace_functions(module: ModuleType, library: ctypes.PyDLL, prefix: str) -> None:
    """Put each function of `library` with this prefix in the place of the module's function of that name.

    CuPy's other modules find the C functions, once, at their import, as capsules in `__pyx_capi__`; Python finds
    them as attributes.
    """
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_void_p, [ctypes.py_object]
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    for name, capsule in list(module.__pyx_capi__.items()):
        try:
            function = library[prefix + name]
        except AttributeError:
            continue  # not emulated: CuPy's own function will complain of a missing driver
        signature = api.PyCapsule_GetName(capsule)  # memory of the module: it outlives the capsule
        address = ctypes.cast(function, ctypes.c_void_p)
        module.__pyx_capi__[name] = api.PyCapsule_New(address, signature, None)
        if hasattr(module, name):
            setattr(module, name, _for_python(function, name, ctypes.string_at(signature).decode()))


def _for_python(function: Callable[..., object], name: str, signature: str) -> Callable[..., object]:
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
    hidden = [ctypes.c_void_p if "*" in word else ctypes.c_int for word in words if "__pyx_" in word]
    function.restype = ctypes.py_object if "struct" in result else types[result]
    function.argtypes = [*visible, *hidden]

    def call(*arguments: object, **named: object) -> object:
        given = [*arguments, *named.values()]
        given += [0] * (len(visible) - len(given))  # CuPy's optional parameters are flags, 0 by default
        return function(*given, *[kind() for kind in hidden])

    call.__name__ = name
    return call


def _load_cublas() -> None:
    """Our libcublas.so.12, and CuPy's module that asks for it, before CuPy looks for NVIDIA's."""
    extension = importlib.util.find_spec("cupy_backends.cuda.libs.cublas")
    library = toolchain.cublas_library(Path(extension.origin))
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    importlib.import_module("cupy_backends.cuda.libs.cublas")


def _import_cupy() -> toolchain.Kernels:
    """Import cupy, and put our compiler in the place of its own."""
    # CUB's and cuTENSOR's own kernels cannot be emulated; CuPy reads its choice once. It also makes the folder of
    # its kernel cache, which is none of ours: a real CuPy must never find an emulated kernel in it.
    settings = {"CUPY_ACCELERATORS": "", "CUPY_CACHE_DIR": str(toolchain.cache() / "unused")}
    kept = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        cupy = importlib.import_module("cupy")
        compiler = importlib.import_module("cupy.cuda.compiler")
        cache = importlib.import_module("cupy.cuda._compiler_cache")
    finally:
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

    class NoCache(cache.KernelCacheBackend):  # toolchain.py has one
        def load(self, name: str) -> None:
            return None

        def save(self, name: str, cubin: bytes, source: str) -> None:
            pass

    compiler._set_kernel_cache_backend(NoCache())
    try:
        nvrtc = "NVRTC {}.{}".format(*compiler._get_nvrtc_version())
    except Exception as reason:
        raise RuntimeError("NVRTC is missing. Run: pip install 'nvidia-cuda-nvrtc-cu12<13'") from reason
    headers = Path(cupy.__file__).parent / "_core" / "include"
    kernels = toolchain.Kernels(compiler._compile_using_nvrtc_no_warning, headers, f"CuPy {VERSION}, {nvrtc}")
    compiler._compile_using_nvrtc_no_warning = kernels.compile
    return kernels


# What was done -------------------------------------------------------------------------------------------------------


def _variable(name: str) -> ctypes.c_int | ctypes.c_size_t | _Counts:
    kind = {"counters": _Counts, "memory_size": ctypes.c_size_t}.get(name, ctypes.c_int)
    return kind.in_dll(_require().library, f"emulated_{name}")


def counters() -> Counters:
    """What was done since the last `reset`."""
    found = _variable("counters")
    return Counters(*(getattr(found, name) for name in Counters._fields))


def kernels() -> dict[str, int]:
    """The launches of each kernel since the last `reset`, by its name."""
    function = _require().library.emulated_kernels
    function.restype = ctypes.py_object
    return function()


def reset() -> None:
    """Counting begins anew."""
    ctypes.memset(ctypes.addressof(_variable("counters")), 0, ctypes.sizeof(_Counts))
    function = _require().library.emulated_forget_kernels
    function.restype = ctypes.py_object
    function()


class counting:
    """Count what is done in a `with` block: its fields are those of Counters, and `kernels`."""

    def __enter__(self) -> counting:
        self._before, self._after = (counters(), kernels()), None
        return self

    def __exit__(self, *_: object) -> None:
        self._after = counters(), kernels()

    @property
    def total(self) -> Counters:
        """All counters; while the block runs, so far."""
        now = self._after[0] if self._after else counters()
        return Counters(*(after - before for after, before in zip(now, self._before[0], strict=True)))

    @property
    def kernels(self) -> dict[str, int]:
        """The launches of each kernel."""
        now = self._after[1] if self._after else kernels()
        return dict(collections.Counter(now) - collections.Counter(self._before[1]))

    def __getattr__(self, name: str) -> int:
        if name not in Counters._fields:
            raise AttributeError(name)
        return getattr(self.total, name)

    def __repr__(self) -> str:
        return repr(self.total)


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Each device has `size` bytes, of which what is in use is in use; a malloc beyond them fails.

    CuPy then empties its pool, tries again, and raises cupy.cuda.memory.OutOfMemoryError.
    """
    limit = _variable("memory_size")
    before = limit.value
    limit.value = size
    try:
        yield
    finally:
        limit.value = before


def nvrtc_report() -> NvrtcReport:
    """What NVRTC made of the kernels. One that it refuses has raised at its first launch."""
    found = _require().kernels
    return NvrtcReport(len(found.seen), *(len(keys) for keys in found.accepted.values()), found.compiled)
