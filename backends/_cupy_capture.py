"""Capture what is asked of a CUDA stream as a graph that can be repeated.

What shaped this file:

- CUDA refuses to capture a wait for the device, and gives the whole capture up at the first one. The capture has to be
  ended all the same, or the stream would be of no further use.
- CUDA captures a copy from or to the host without a word, and repeats it with whatever then lies at that address. So a
  graph with a copy, or with a call of the host, is refused here. Its nodes are known to CUDA's driver only.
- CuPy destroys no graph that its runtime module has made. So a graph has an owner.
- A small network leaves most of a GPU idle. So what is not needed at once is captured as branches of the graph, by
  other streams. Arrays that these read are kept until all branches join, or their memory would be written.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cupy

from dlx.backend import Array

from . import said

REFUSED = {
    1: "it copies arrays by other means than a kernel",
    3: "it calls a function of the host",
}  # types of nodes, CUgraphNodeType
_THREAD = threading.local()


class NotCaptured(Exception):
    """The step cannot be a graph; the text says why."""


class Graph:
    """A captured graph that can be launched. Raises `NotCaptured` if it must not be repeated."""

    def __init__(self, captured: int) -> None:
        self.executable = 0
        try:
            for kind in _node_types(captured):
                if kind in REFUSED:
                    raise NotCaptured(REFUSED[kind])
            self.executable = cupy.cuda.runtime.graphInstantiate(captured)
        finally:
            cupy.cuda.runtime.graphDestroy(captured)

    def launch(self) -> None:
        """Run the step on the current stream."""
        cupy.cuda.runtime.graphLaunch(self.executable, cupy.cuda.get_current_stream().ptr)

    def __del__(self) -> None:
        if self.executable and not sys.is_finalizing():
            cupy.cuda.runtime.graphExecDestroy(self.executable)


def capture(run: Callable[[], None]) -> Graph:
    """What `run` asks of the current stream, as a graph. It is recorded and not done.

    Raises `NotCaptured` where CUDA refuses to record it; the stream then is as it was before.
    """
    runtime, stream = cupy.cuda.runtime, cupy.cuda.get_current_stream().ptr
    _THREAD.captures = True
    try:
        runtime.streamBeginCapture(stream, runtime.streamCaptureModeRelaxed)
        run()
    except BaseException as reason:
        with contextlib.suppress(RuntimeError):  # CUDA has given the capture up already, or it has not begun
            runtime.graphDestroy(runtime.streamEndCapture(stream))
        if not isinstance(reason, Exception):
            raise
        raise NotCaptured(said(reason)) from reason
    finally:
        _THREAD.captures = False
    try:
        return Graph(runtime.streamEndCapture(stream))
    except RuntimeError as reason:
        raise NotCaptured(said(reason)) from reason


@contextlib.contextmanager
def fork() -> Iterator[None]:
    """The context in which `beside` makes branches of the graph that is captured; its end joins them."""
    if not vars(_THREAD).get("captures"):
        yield
        return
    _THREAD.fork = made = Fork(cupy.cuda.get_current_stream(), {}, [])
    try:
        yield
    finally:
        _THREAD.fork = None
    for stream in made.branches.values():
        made.main.wait_event(stream.record())


def beside(name: str, *read: Array) -> contextlib.AbstractContextManager[Any]:
    """The context whose work goes to the branch with this name, if there is a fork; it reads these arrays."""
    made: Fork | None = vars(_THREAD).get("fork")
    if made is None:
        return contextlib.nullcontext()
    made.read.extend(read)
    stream = made.branches.setdefault(name, own_stream(name))
    stream.wait_event(made.main.record())
    return current(stream)


class Fork(NamedTuple):
    """Branches of a graph: the stream of the rest, their own streams by name, and the arrays that they read."""

    main: Any
    branches: dict[str, Any]
    read: list[Array]


@contextlib.contextmanager
def current(stream: Any) -> Iterator[None]:
    """The context in which this stream is the current one.

    CuPy's own context would not go back to a stream that was made the current one by its method `use`.
    """
    before = cupy.cuda.get_current_stream()
    stream.use()
    try:
        yield
    finally:
        before.use()


def own_stream(name: str = "main") -> Any:
    """This thread's own stream of that name on the current device. No other stream waits for it."""
    streams: dict[tuple[str, int], Any] = vars(_THREAD).setdefault("streams", {})
    key = name, cupy.cuda.runtime.getDevice()
    if key not in streams:
        streams[key] = cupy.cuda.Stream(non_blocking=True)
    return streams[key]


@functools.cache
def _driver() -> ctypes.CDLL:
    """CUDA's driver, which CuPy has loaded."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _node_types(graph: int) -> list[int]:
    """The types of a captured graph's nodes."""
    driver, handle, count, kind = _driver(), ctypes.c_void_p(graph), ctypes.c_size_t(), ctypes.c_int()
    _driver_check(driver.cuGraphGetNodes(handle, None, ctypes.byref(count)))
    nodes = (ctypes.c_void_p * count.value)()
    _driver_check(driver.cuGraphGetNodes(handle, nodes, ctypes.byref(count)))
    kinds = []
    for node in nodes:
        _driver_check(driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)))
        kinds.append(kind.value)
    return kinds


def _driver_check(status: int) -> None:
    if status:
        raise RuntimeError(f"CUDA's driver failed with status {status}")
