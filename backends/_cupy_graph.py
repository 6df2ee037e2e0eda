"""A training step on CuPy, captured once as a CUDA graph and then launched for every update.

What shaped this file:

- A graph repeats its kernels with the same addresses and numbers. So whatever changes from step to step lies on the
  device: the inputs of all steps in one table, a row for each step. One kernel at the head of the graph copies
  the row of this step to a fixed place, and one at its end stores the output and counts the step. Constants that come
  from another place than before, as a batch from the host does, are copied to a fixed place, too.
- The memory of the step's intermediate arrays must not be given to anyone else while the graph lives. So they come from
  a memory pool of the graph's own, from which nothing else is ever taken once the graph has been captured.
- Only a stream that waits for no other can be captured: one of dlx's own. It begins after what the user's current
  stream has been given, and that stream goes on after it.
- The first step with some shapes runs plainly, so that kernels are compiled and the pool is filled; the second is
  captured. A last batch with fewer rows has shapes of its own, and a graph of its own from the second epoch on.
- A user's own function may depend on more than its arrays. So a graph that contains one is compared with plain steps,
  before its first use and before each epoch. What changes within an epoch goes unnoticed.
- What other threads do, such as to wait for the whole device, can spoil a capture. So dlx's own steps get another try.
- Launches do not wait for the device. So that Ctrl-C is answered soon, only few of them are on their way at a time.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cupy
import numpy as np

from dlx.backend import Array, each_of

from . import _cupy_blas, _cupy_kernels, said
from ._cupy_capture import Graph, NotCaptured, capture, current, own_stream
from ._table import Layout, leaves_of, warn_of_plain_steps

HOPPER = 90  # compute capability
WORKSPACES = 4 << 20, 32 << 20  # bytes for cuBLAS before Hopper and from it on, as NVIDIA recommends
LEAST_WORKSPACE = 16 << 10  # where memory is short, of which they take a sixteenth
GRAPHS = 4  # that are kept for a training
TRIES = 5  # to capture a step of dlx's own
SECONDS = 0.05  # of the device's time that launches between two yields may take, roughly; twice as much is on its way
THREADS = 256  # of a block of the kernels below

KERNELS = r"""
extern "C" __global__ void dlx_fetch(const long long* table, const int* step, int words, long long* row) {
    int word = blockIdx.x * blockDim.x + threadIdx.x;
    if (word < words) row[word] = table[(long long)step[0] * words + word];
}
extern "C" __global__ void dlx_store(const unsigned int* output, int words, unsigned int* outputs, int* step) {
    long long first = (long long)step[0] * words;
    for (int word = threadIdx.x; word < words; word += blockDim.x) outputs[first + word] = output[word];
    __syncthreads();
    if (threadIdx.x == 0) step[0] += 1;
}
"""


class Loop:
    """Runs a step over the rows of its inputs; see `Backend.loop`.

    `plain` is the loop that takes over where the step cannot be a graph. A step that is `trusted` has dlx's functions
    only, and its graph needs no trial.
    """

    def __init__(
        self, step: Callable[..., tuple[Any, Array]], plain: Callable[..., Any], trusted: bool, tf32: bool
    ) -> None:
        self.step, self.plain, self.trusted, self.tf32 = step, plain, trusted, tf32
        self.recordings: dict[Any, Recording] = {}  # which know nothing of this loop, so that they end with it
        self.at_once = 1
        self.refusal: str | None = None  # why the step runs plainly
        self.warned = False

    def __call__(
        self, carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
    ) -> Iterator[tuple[Any, Array]]:
        recording: Recording | None = None
        launched: list[tuple[int, Any, Any]] = []
        while first < steps and self.refusal is None:
            with self.on_own_stream() as stream:
                if recording is None:
                    recording = self.recording(carry, constants, inputs, steps)
                    recording.load(constants, inputs, first)
                try:
                    captured = recording.prepare(first, checks=not launched and steps - first > 1)
                except NotCaptured as reason:
                    self.refusal = str(reason)
                    break
                at_once = min(self.at_once, most or self.at_once) if captured else 1
                last = min(first + at_once, steps)
                begun = stream.record(cupy.cuda.Event())
                recording.advance(last - first)
                outputs = recording.outputs[first:last].copy()
                launched.append((last - first, begun, stream.record(cupy.cuda.Event())))
            first = last
            yield carry, outputs
            if len(launched) == 2:
                self.adapt(*launched.pop(0))
        if self.refusal is not None:
            for state, output in self.plain(carry, constants, inputs, steps, first, most):
                if not self.warned:  # here, as a step that fails should raise its own error and nothing else
                    self.warned = True
                    warn_of_plain_steps(self.refusal, self.trusted)
                yield state, output[None, ...]

    @contextlib.contextmanager
    def on_own_stream(self) -> Iterator[Any]:
        """The context in which dlx's own stream is the current one, between what the caller's did and does."""
        stream, callers = own_stream(), cupy.cuda.get_current_stream()
        stream.wait_event(callers.record())
        try:
            with current(stream):
                yield stream
        finally:
            callers.wait_event(stream.record())

    def recording(self, carry: Any, constants: Any, inputs: Any, steps: int) -> Recording:
        """The recording for this carry and for arrays of these shapes. The one unused for longest is dropped."""
        rows = max((steps, *map(len, leaves_of(inputs))))
        key = rows, _addresses(carry), _shapes(constants), _shapes(inputs)
        recording = self.recordings.pop(key, None) or Recording(
            Program(self.step, self.trusted, self.tf32, self.workspaces), carry, constants, inputs, rows
        )
        self.recordings[key] = recording
        if len(self.recordings) > GRAPHS:
            del self.recordings[next(iter(self.recordings))]
        return recording

    def adapt(self, launches: int, begun: Any, ended: Any) -> None:
        """Wait until these launches are done, and choose how many may be made at once by the time that they took."""
        if not ended.done:
            ended.synchronize()
        took = cupy.cuda.get_elapsed_time(begun, ended) / 1e3
        if took < SECONDS and launches == self.at_once:
            self.at_once *= 2
        elif took > 2 * SECONDS:
            self.at_once = max(1, self.at_once // 2)

    @functools.cached_property
    def workspaces(self) -> list[Array]:
        """Memory in which cuBLAS computes, for both branches of a graph that have products."""
        size = WORKSPACES[int(cupy.cuda.Device().compute_capability) >= HOPPER]
        free = int(cupy.cuda.runtime.memGetInfo()[0]) + cupy.get_default_memory_pool().free_bytes()
        return [cupy.empty(max(LEAST_WORKSPACE, min(size, free // 32)), cupy.uint8) for _ in range(2)]


class Program(NamedTuple):
    """What all recordings of a loop run, and the memory for their products."""

    step: Callable[..., tuple[Any, Array]]
    trusted: bool
    tf32: bool
    workspaces: list[Array]


class Recording:
    """A step on arrays with fixed addresses, run plainly or as a graph."""

    def __init__(self, program: Program, carry: Any, constants: Any, inputs: Any, rows: int) -> None:
        self.program, self.carry, self.constants, self.moved = program, carry, constants, False
        self.pool = cupy.cuda.MemoryPool()
        # CuPy's pools do not free by themselves what they keep. The finalizer holds the pool, for one that is found in
        # a cycle of garbage can no longer free it.
        weakref.finalize(self, _emptied, self.pool, cupy.cuda.runtime.getDevice()).atexit = False
        self.layout = Layout(inputs, leaves_of(carry)[0].dtype)
        self.table = cupy.empty((rows, self.layout.width), cupy.int32)
        self.row = cupy.empty(self.layout.width, cupy.int32)
        self.inputs = self.layout.parts(self.row, lambda words, dtype, shape: words.view(dtype).reshape(shape))
        self.counter = cupy.zeros(1, cupy.int32)  # of the next step
        self.outputs: Any = None
        self.steps: Any = None  # the step as few kernels, if it is one of dlx's own
        self.ran = False
        self.graph: Graph | None = None

    def load(self, constants: Any, inputs: Any, first: int) -> None:
        """Bring the inputs of all steps to the device, and the constants to their place if they come from elsewhere.

        The next step is the one with the number `first`.
        """
        if not self.moved and _addresses(constants) != _addresses(self.constants):
            self.constants, self.moved = each_of(cupy.empty_like, constants), True
            self.steps = self.graph = self.outputs = None
            self.ran = False
        if self.moved:
            for kept, given in zip(leaves_of(self.constants), leaves_of(constants), strict=True):
                kept[...] = given
        host = each_of(cupy.asnumpy, inputs)
        self.table[...] = cupy.asarray(self.layout.words(host, len(self.table)))
        self.counter.fill(first)
        if self.outputs is None and self.program.trusted:
            self.record()

    def record(self) -> None:
        """Let the step be few kernels, if it can be recorded."""
        special = {"table": self.table, "counter": self.counter, "row": self.row, "place": self.row}
        arrays = self.carry, self.constants
        with cupy.cuda.using_allocator(self.allocate):
            self.steps = _cupy_kernels.steps_of(self.program.step, *arrays, self.layout, special, self.program.tf32)
        if self.steps is not None:
            self.outputs = self.steps.arrays["outputs"]

    def prepare(self, first: int, checks: bool) -> bool:
        """Capture the graph, if it is time. Returns whether there is one; without one, one plain step can be run.

        With `checks`, a graph that is not trusted is compared with plain steps once more.
        """
        if not self.program.trusted:
            if self.graph is None or checks:
                self.graph = self.tried(first)
        elif self.graph is None and self.ran:
            self.graph = self.captured()
        return self.graph is not None

    def captured(self) -> Graph:
        """The step of dlx's own functions as a graph."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(NotCaptured):
                return capture(self.one_step)
        return capture(self.one_step)

    def advance(self, steps: int) -> None:
        """Run so many steps."""
        for _ in range(steps):
            self.one_step() if self.graph is None else self.graph.launch()
        self.ran = True

    def allocate(self, size: int) -> Any:
        """Memory from the graph's pool. If none is left, CuPy's own pool gives back what it keeps for reuse."""
        try:
            return self.pool.malloc(size)
        except cupy.cuda.memory.OutOfMemoryError:
            cupy.get_default_memory_pool().free_all_blocks()
            return self.pool.malloc(size)

    def one_step(self) -> None:
        """Run a step, or within a capture record it."""
        for stream, workspace in zip((own_stream(), own_stream("products")), self.program.workspaces, strict=True):
            with current(stream):
                _cupy_blas.use_workspace(workspace, self.program.tf32)
        if self.steps is not None:
            self.steps.run()
            return
        pairs = self.row.size // 2
        arguments = self.table, self.counter, np.int32(pairs), self.row
        _kernel("dlx_fetch")((-(-pairs // THREADS),), (THREADS,), arguments)
        with cupy.cuda.using_allocator(self.allocate):
            carry, output = self.program.step(self.carry, self.constants, self.inputs)
            for kept, new in _changed(self.carry, carry):
                _copy()(new, kept)
            output = cupy.ascontiguousarray(output).reshape(output.shape)
        if self.outputs is None:
            self.outputs = cupy.zeros((len(self.table), *output.shape), output.dtype)
        arguments = output, np.int32(output.nbytes // 4), self.outputs, self.counter
        _kernel("dlx_store")((1,), (THREADS,), arguments)

    def tried(self, first: int) -> Graph:
        """The step as a graph, after two runs of it gave the same bits as two plain steps. The carry stays as it is."""
        before, graph = _copies(self.carry), self.graph

        def results(run: Callable[[], None]) -> list[Array]:
            found = []
            for _ in range(2):
                self.counter.fill(first)
                run()
                found.append(self.outputs[first].copy())
            return [*found, *_copies(self.carry)]

        def restore() -> None:
            for kept, copy in zip(leaves_of(self.carry), before, strict=True):
                kept[...] = copy
            self.counter.fill(first)

        try:
            plain = results(self.one_step)
            restore()
            graph = graph or capture(self.one_step)
            replayed = results(graph.launch)
        except (MemoryError, NotCaptured):
            raise
        except Exception as reason:
            raise NotCaptured(said(reason)) from reason
        finally:
            restore()
        if not all(map(_equal_bits, plain, replayed)):
            raise NotCaptured("two repeated steps gave other numbers than two plain ones")
        return graph


def _addresses(arrays: Any) -> tuple[Any, ...]:
    return tuple((x.data.ptr, x.shape, x.strides, x.dtype.str) for x in leaves_of(arrays))


def _shapes(arrays: Any) -> tuple[Any, ...]:
    return tuple((x.shape, x.dtype.str) for x in leaves_of(arrays))


def _copies(arrays: Any) -> list[Array]:
    return [x.copy() for x in leaves_of(arrays)]


def _changed(kept: Any, new: Any) -> list[tuple[Array, Array]]:
    """The pairs of a carry before a step and after it that do not share their memory."""
    both = zip(leaves_of(kept), leaves_of(new), strict=True)
    pairs = [(a, b) for a, b in both if (a.data.ptr, a.strides) != (b.data.ptr, b.strides)]
    taken = {a.data.mem.ptr for a in leaves_of(kept)}  # an array that lies in there is copied before they are written
    return [(a, _copy()(b) if b.data.mem.ptr in taken else b) for a, b in pairs]


def _emptied(pool: Any, device: int) -> None:
    with cupy.cuda.Device(device):
        pool.free_all_blocks()


def _equal_bits(a: Array, b: Array) -> bool:
    return bool((a.reshape(-1).view(cupy.uint8) == b.reshape(-1).view(cupy.uint8)).all())


@functools.cache
def _copy() -> Any:
    """A copy by a kernel, as a graph with other copies is refused."""
    return cupy.ElementwiseKernel("T x", "T y", "y = x", "dlx_copy")


@functools.cache
def _kernel(name: str) -> Any:
    return cupy.RawKernel(KERNELS, name)
