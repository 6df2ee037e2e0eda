"""Run the unmodified CuPy wheel on a CPU, and count what it would have asked of a GPU.

Example::

    from cupy_on_cpu import emulate

    emulate.install()  # before anything imports cupy
    import cupy

    with emulate.counting() as done:
        float(cupy.ones(3).sum())
    assert (done.launches, done.device_to_host, done.syncs) == (2, 1, 1)

README.md says how it works, and what it cannot show.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterator
from typing import NamedTuple

from . import hooks, toolchain
from . import kernels as compilation


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
    graph_launches: int
    nodes: int  # of graphs, that ran: kernels, products, memsets and copies, which are counted nowhere above
    refused: int  # what a capture forbids; each has made its capture invalid


class Launched(NamedTuple):
    """A graph that was launched since the last `reset`."""

    nodes: list[str]  # kernels by their names, "gemm", "memset", "memcpy_host_to_device" and so on, in order
    launches: int


class Live(NamedTuple):
    """What has been made and not yet destroyed, by CuPy itself too; the difference of two of them shows a leak."""

    graphs: int
    executables: int  # instantiated graphs
    streams: int
    events: int
    cublas_handles: int
    bytes: int  # on all devices; what CuPy's pools keep is among it


class NvrtcReport(NamedTuple):
    """How many different kernels CuPy wrote in this process, and how many of them NVRTC accepted for what."""

    kernels: int
    sm_80: int
    sm_90: int
    compiled: int  # by g++ in this process; the others came from the cache


class _Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in Counters._fields]


class _Emulation(NamedTuple):
    library: ctypes.PyDLL
    kernels: compilation.Kernels


_ATTRIBUTE = "_cupy_on_cpu"  # of CuPy's runtime module: there is one, under whatever name this one was imported


def _installed() -> _Emulation | None:
    return getattr(sys.modules.get(hooks.RUNTIME), _ATTRIBUTE, None)


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
    library = ctypes.PyDLL(str(toolchain.runtime_library()), mode=ctypes.RTLD_GLOBAL)  # kernels are linked to it
    hooks.replace_runtime(library)
    hooks.load_driver_library()
    hooks.replace_cublas()
    setattr(sys.modules[hooks.RUNTIME], _ATTRIBUTE, _Emulation(library, hooks.import_cupy()))
    _variable("device_count").value = devices
    _variable("peer_access").value = peer_access


def _check_environment() -> None:
    """Refuse what cannot work, and say what to do about it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise RuntimeError(f"CuPy is emulated on x86-64 Linux only; this is {platform.machine()} {sys.platform}.")
    if "cupy" in sys.modules or hooks.RUNTIME in sys.modules:
        raise RuntimeError("cupy was imported already. Call emulate.install() before anything imports cupy.")
    try:
        found = importlib.metadata.version(hooks.DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        found = "not installed"
    if found != hooks.VERSION:
        raise RuntimeError(
            f"The emulation is written for {hooks.DISTRIBUTION} {hooks.VERSION}; found: {found}. Run: pip install "
            f"{hooks.DISTRIBUTION}=={hooks.VERSION}, or bring it up to date as tests/cupy_on_cpu/README.md says."
        )
    for tool, package in (("g++", "g++"), ("nm", "binutils")):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is not installed; kernels are compiled with it. Install the package {package}.")


# What was done -------------------------------------------------------------------------------------------------------


def _variable(name: str) -> ctypes.c_int | ctypes.c_size_t | _Counts:
    kind = {"counters": _Counts, "memory_size": ctypes.c_size_t}.get(name, ctypes.c_int)
    return kind.in_dll(_require().library, f"emulated_{name}")


def _call(name: str, *handles: int, result: type = ctypes.py_object) -> object:
    function = _require().library[f"emulated_{name}"]
    function.restype = result
    return function(*map(ctypes.c_ssize_t, handles))


def counters() -> Counters:
    """What was done since the last `reset`."""
    found = _variable("counters")
    return Counters(*(getattr(found, name) for name in Counters._fields))


def kernels() -> dict[str, int]:
    """The launches of each kernel since the last `reset`, by its name."""
    return _call("kernels")


def graphs() -> list[Launched]:
    """The graphs that were launched since the last `reset`, in the order in which they were instantiated."""
    return [Launched(*each) for each in _call("launched_graphs")]


def nodes(graph: object) -> list[str]:
    """The names of a graph's nodes, for a handle or a cupy.cuda.Graph: see Launched."""
    return _call("nodes", getattr(graph, "graphExec", graph))


def live() -> Live:
    """What exists now."""
    _require()
    handles = [_call(name, result=ctypes.c_long) for name in ("graphs", "executables", "streams", "events")]
    return Live(*handles, _variable("cublas_handles").value, _call("bytes", result=ctypes.c_long))


def reset() -> None:
    """Counting begins anew."""
    ctypes.memset(ctypes.addressof(_variable("counters")), 0, ctypes.sizeof(_Counts))
    _call("forget_kernels")
    _call("forget_graphs")


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
def asynchronous() -> Iterator[None]:
    """Work on a stream is done at the latest moment: when somebody waits for it.

    A result that differs from the usual one shows that a wait or an event is missing, or that memory was used again
    too early. Errors of kernels come with the wait, as on a GPU, and `kernels` counts them then.
    """
    variable = _variable("asynchronous")
    before = variable.value
    variable.value = 1
    try:
        yield
    finally:
        variable.value = before
        _call("finish")


@contextlib.contextmanager
def replay_order(order: str) -> Iterator[None]:
    """Graphs launch their nodes "as recorded", or with "forks first" or "forks last".

    A capture that spread to other streams allows several orders. A result that depends on the order shows that an
    event is missing, or that two streams share memory that they should not share.
    """
    variable = _variable("replay_order")
    before = variable.value
    variable.value = ("as recorded", "forks first", "forks last").index(order)
    try:
        yield
    finally:
        variable.value = before


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
