"""Recording what a CUDA device is asked to do, with PyTorch, and finding what no recording can hold."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(Protocol):
    """What records the work of a device."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record the work that the function asks for, without doing it. The result does it, each time it is called."""

    def mark(self) -> Callable[[], None]:
        """A place in the queue of the device. The result waits until the device has reached it."""


SPOILT: list[Any] = []  # graphs whose recording CUDA has ended; PyTorch's allocator of host memory still asks them


@functools.cache
def _stream(device: torch.device) -> Any:
    """The stream on which graphs are recorded: one for each device, as cuBLAS keeps a workspace for each stream."""
    return torch.cuda.Stream(device)


@functools.cache
def _pool(device: torch.device, stream: int) -> tuple[Any, Any]:
    """The memory of temporary arrays in graphs that are replayed on one stream, and so one after the other.

    PyTorch gives the pool of a graph back only when memory is short, so that each fit would leave one. The graph that
    is returned beside the pool does nothing of use: it keeps the pool.
    """
    handle, one = torch.cuda.graph_pool_handle(), torch.zeros(1, device=device)
    return handle, _graph(one.zero_, device, handle)


def release_pools() -> None:
    """Leave each pool to the graphs that use it, if any."""
    _pool.cache_clear()


RECORDING = threading.RLock()  # the stream, the pool and the collector of garbage are those of all threads


def _graph(function: Callable[[], Any], device: torch.device, pool: Any) -> Any:
    """The work that the function asks for as a graph with temporary arrays from the pool. The caller holds the lock."""
    graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
    gc.disable()  # a graph that is collected meanwhile would spoil the recording
    try:
        with torch.cuda.stream(_stream(device)):
            square = torch.zeros((8, 8), device=device)
            square @ square  # makes cuBLAS's workspace for this stream, which no pool of graphs should hold
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                function()
            finally:
                _end(graph, pool)
    finally:
        if collects:
            gc.enable()
    return graph


def _end(graph: Any, pool: Any) -> None:
    """End the recording. If CUDA has ended it before, PyTorch forgets to end three things; they are ended here."""
    try:
        graph.capture_end()
    except RuntimeError:
        SPOILT.append(graph)
        _pool.cache_clear()  # PyTorch takes the recording into this pool for one that goes on
        _stream.cache_clear()
        index = torch.cuda.current_device()
        with contextlib.suppress(AttributeError, RuntimeError):  # no memory comes from its pool any more
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)
        with contextlib.suppress(AttributeError, RuntimeError):  # the generator of random numbers leaves it
            graph.reset()
            generator: Any = torch.cuda.default_generators[index]
            generator.graphsafe_set_state(generator.clone_state())
        raise


class CudaRecorder:
    """CUDA graphs on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """As in `Recorder`."""
        with torch.cuda.device(self.device), RECORDING:
            pool, _ = _pool(self.device, torch.cuda.current_stream().cuda_stream)
            replay: Callable[[], None] = _graph(function, self.device, pool).replay
        return replay

    def mark(self) -> Callable[[], None]:
        """As in `Recorder`: an event of the current stream."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        wait: Callable[[], None] = event.synchronize
        return wait


class Refused(Exception):
    """Why a step cannot be replayed."""


class Watch(TorchDispatchMode):  # type: ignore[misc]
    """Raises `Refused` for an operation that waits for the device, copies from or to the host, or draws numbers."""

    TAGS = (torch.Tag.data_dependent_output, torch.Tag.nondeterministic_seeded)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation on tensors inside the context passes here."""
        kwargs, tags = kwargs or {}, getattr(function, "tags", ())
        if any(tag in tags for tag in self.TAGS):
            random = torch.Tag.nondeterministic_seeded in tags
            raise Refused(f"{function} {'draws random numbers' if random else 'waits for the device'}")
        result = function(*args, **kwargs)
        if torch.Tag.dynamic_output_shape in tags and not _is_plain_index(function, args):
            raise Refused(f"{function} waits for the device to know the shape of its result")
        given = [x.device for x in tensors((args, kwargs)) if x.ndim]
        made = [x.device for x in tensors(result) if x.ndim]
        if function is torch.ops.aten._to_copy.default or function is torch.ops.aten.copy_.default:
            given = [x.device for x in tensors((args, kwargs))]
            made = [x.device for x in tensors(result)]
        if len({*given, *made}) > 1:
            raise Refused(f"{function} copies between the host and the device")
        return result


def _is_plain_index(function: Any, args: Any) -> bool:
    """Whether the operation is x[numbers], whose shape is known, and not x[mask]."""
    if "index" not in str(function):
        return False
    return all(x.dtype not in (torch.bool, torch.uint8) for x in tensors(args[1]))


def tensors(nested: Any) -> Iterator[Any]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(nested, torch.Tensor):
        yield nested
    elif isinstance(nested, dict):
        yield from tensors(tuple(nested.values()))
    elif isinstance(nested, tuple | list):
        for part in nested:
            yield from tensors(part)
