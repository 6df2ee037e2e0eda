"""A training step on PyTorch as a CUDA graph: recorded once, then one launch for each step.

What shaped it:

- A graph reads and writes at fixed addresses. What changes from step to step lies in one table on the device; the graph
  copies its own row of it to a fixed place, and counts on. An epoch needs one transfer.
- Kernels are loaded when they first run, and cuBLAS is prepared then, which a recording refuses. So a step runs plainly
  before it is recorded.
- A recording refuses copies from the host and waits. dlx's own formulas have none; a user's own function is tried
  first, with the state put back, and trains plainly if it waits, draws random numbers, or gives other results when it
  is replayed.
- The host may be hundreds of launches ahead of the device, and Ctrl-C must not wait for them: it is at most two chunks
  of a tenth of a second ahead.

Nothing here depends on CUDA but `CudaRecorder`.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dlx.backend import Array, HostArray, Loop
from dlx.checks import warn
from dlx.nesting import each_of

SECONDS_AT_ONCE = 0.1  # of the launches in a chunk, at most
MOST_GRAPHS = 4  # of a fit: full batches and the ragged one; more only for a caller who changes his arrays
WORD = np.dtype(np.int32)  # tables hold words of this type, whatever their columns mean


class Recorder(Protocol):
    """What records the work of a device."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record the work that the function asks for, without doing it. The result does it, each time it is called."""

    def mark(self) -> Callable[[], None]:
        """A place in the queue of the device. The result waits until the device has reached it."""


class CudaRecorder:
    """CUDA graphs on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """As in `Recorder`. Temporary arrays come from a pool of the graph's own, which lives as long as the graph."""
        graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
        gc.disable()  # a graph that is collected meanwhile would spoil the recording
        try:
            with torch.cuda.device(self.device), torch.cuda.stream(torch.cuda.Stream(self.device)):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    function()
                finally:
                    graph.capture_end()
        finally:
            if collects:
                gc.enable()
        replay: Callable[[], None] = graph.replay
        return replay

    def mark(self) -> Callable[[], None]:
        """As in `Recorder`: an event of the current stream."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        wait: Callable[[], None] = event.synchronize
        return wait


class Refused(Exception):
    """Why a step cannot be replayed."""


class Watch(TorchDispatchMode):
    """Raises `Refused` for an operation that waits for the device, copies from or to the host, or draws numbers."""

    TAGS = (torch.Tag.data_dependent_output, torch.Tag.nondeterministic_seeded)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation on tensors inside the context passes here."""
        kwargs = kwargs or {}
        if any(tag in function.tags for tag in self.TAGS):
            random = torch.Tag.nondeterministic_seeded in function.tags
            raise Refused(f"{function} {'draws random numbers' if random else 'waits for the device'}")
        result = function(*args, **kwargs)
        if torch.Tag.dynamic_output_shape in function.tags and not _is_plain_index(function, args):
            raise Refused(f"{function} waits for the device to know the shape of its result")
        given = [x.device for x in _tensors((args, kwargs)) if x.ndim]
        made = [x.device for x in _tensors(result) if x.ndim]
        if function is torch.ops.aten._to_copy.default or function is torch.ops.aten.copy_.default:
            given = [x.device for x in _tensors((args, kwargs))]
            made = [x.device for x in _tensors(result)]
        if len({*given, *made}) > 1:
            raise Refused(f"{function} copies between the host and the device")
        return result


def _is_plain_index(function: Any, args: Any) -> bool:
    """Whether the operation is x[numbers], whose shape is known, and not x[mask]."""
    if "index" not in str(function):
        return False
    return all(x.dtype not in (torch.bool, torch.uint8) for x in _tensors(args[1]))


def _tensors(nested: Any) -> Iterator[Any]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(nested, torch.Tensor):
        yield nested
    elif isinstance(nested, dict):
        yield from _tensors(tuple(nested.values()))
    elif isinstance(nested, tuple | list):
        for part in nested:
            yield from _tensors(part)


class Layout:
    """How the rows of nested inputs lie side by side in rows of words: the longest words first, so that all align."""

    def __init__(self, inputs: Any, precision: torch.dtype) -> None:
        self.inputs = each_of(lambda _: True, inputs)
        self.precision = torch.empty(0, dtype=precision).numpy().dtype
        self.kinds = [(self._dtype(x), x.shape[1:]) for x in _leaves(inputs)]
        places = sorted(range(len(self.kinds)), key=lambda k: -self.kinds[k][0].itemsize)
        widths = [math.prod(shape) * dtype.itemsize // WORD.itemsize for dtype, shape in self.kinds]
        ends = dict(zip(places, itertools.accumulate(widths[k] for k in places), strict=True))
        self.slices = [slice(ends[k] - widths[k], ends[k]) for k in range(len(widths))]
        self.width = -(-sum(widths) // 2) * 2 or 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and (self.inputs, self.kinds) == (other.inputs, other.kinds)

    __hash__ = None  # type: ignore[assignment]

    def _dtype(self, x: Any) -> Any:
        """The dtype of these inputs on the device."""
        dtype = x.dtype if isinstance(x, np.ndarray) else torch.empty(0, dtype=x.dtype).numpy().dtype
        return self.precision if dtype.kind == "f" else dtype

    def words(self, inputs: Any, steps: int) -> HostArray:
        """The table of so many rows, on the host."""
        table = np.zeros((steps, self.width), WORD)
        for x, (dtype, _), place in zip(_leaves(inputs), self.kinds, self.slices, strict=True):
            host = x if isinstance(x, np.ndarray) else x.cpu().numpy()
            rows = np.ascontiguousarray(host[:steps].reshape(steps, -1), dtype)
            table[:, place] = rows.view(WORD)
        return table

    def parts(self, row: Array) -> Any:
        """The parts of a row of words on the device, as views, nested as the inputs are."""
        views = []
        for (dtype, shape), place in zip(self.kinds, self.slices, strict=True):
            kind = torch.from_numpy(np.empty(0, dtype)).dtype
            views.append(row[place].view(kind).reshape(shape))
        found = iter(views)
        return each_of(lambda _: next(found), self.inputs)


def _leaves(nested: Any) -> list[Any]:
    """All arrays in nested tuples."""
    arrays: list[Any] = []
    each_of(arrays.append, nested)
    return arrays


class Recorded:
    """A step of these arrays, which is run plainly, then recorded, then replayed."""

    def __init__(
        self, step: Callable[..., tuple[Any, Array]], carry: Any, constants: Any, layout: Layout, steps: int
    ) -> None:
        self.step, self.carry, self.constants, self.layout, self.steps = step, carry, constants, layout, steps
        self.arrays = _all(carry)
        device = self.arrays[0].device
        self.table = torch.zeros((max(steps, 2), layout.width), dtype=torch.int32, device=device)
        self.row = torch.zeros((1, layout.width), dtype=torch.int32, device=device)
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)
        self.inputs = layout.parts(self.row[0])
        self.outputs: Any = None
        self.replay: Callable[[], None] | None = None
        self.done = False  # whether the step has run plainly
        self.chunk = 1

    def suits(self, carry: Any, constants: Any, layout: Layout, steps: int) -> bool:
        """Whether it is a step of these very arrays."""
        known = (*self.arrays, *_all(self.constants))
        same = _are_same(known, (*_all(carry), *_all(constants)))
        return same and self.steps == steps and self.layout == layout

    def begin(self, inputs: Any, first: int) -> None:
        """Prepare the steps from the `first` one on."""
        self.table[: self.steps, :].copy_(torch.from_numpy(self.layout.words(inputs, self.steps)))
        self.counter.fill_(first)

    def once(self) -> None:
        """One step as it is recorded: fetch a row, make the step, keep its output, count on."""
        torch.index_select(self.table, 0, self.counter, out=self.row)
        carry, output = self.step(self.carry, self.constants, self.inputs)
        moved = [(old, x.clone()) for old, x in zip(self.arrays, _all(carry), strict=True) if x is not old]
        for old, copy in moved:
            old.copy_(copy)
        if self.outputs is None:
            self.outputs = torch.zeros((len(self.table), *output.shape), dtype=output.dtype, device=output.device)
        self.outputs.index_copy_(0, self.counter, output.unsqueeze(0))
        self.counter += 1

    def state(self) -> list[Any]:
        """A copy of all that the steps have changed."""
        return [x.clone() for x in self.arrays]

    def put_back(self, state: list[Any]) -> None:
        """Make the arrays of the carry what they were."""
        for array, copy in zip(self.arrays, state, strict=True):
            array.copy_(copy)

    def got(self, first: int, last: int) -> Array:
        """A copy of the outputs of these steps."""
        return self.outputs[first:last].clone()

    def record(self, recorder: Recorder, first: int, trusted: bool) -> None:
        """Record the step, so that it can be replayed from the `first` one on."""
        if trusted:
            self.replay = recorder.record(self.once)
        else:
            self.try_out(recorder, first)

    def try_out(self, recorder: Recorder, first: int) -> None:
        """Record a step of unknown functions, after a comparison of two plain steps with two replays.

        It changes no state, and raises `Refused` if the step cannot be replayed.
        """
        start = min(first, len(self.table) - 2)
        if self.steps == 1:
            self.table[1, :].copy_(self.table[0, :])
        before = self.state()

        def twice(step: Callable[[], None]) -> list[Any]:
            self.put_back(before)
            self.counter.fill_(start)
            step()
            step()
            return [*self.state(), self.got(start, start + 2)]

        try:
            with Watch():
                plain = twice(self.once)
            replay = recorder.record(self.once)
            self.outputs.zero_()
            again = twice(replay)
        except Refused:
            raise
        except Exception as reason:
            raise Refused(f"{type(reason).__name__}: {reason}") from reason
        finally:
            self.put_back(before)
            self.counter.fill_(first)
        if not all(torch.equal(_bits(a), _bits(b)) for a, b in zip(plain, again, strict=True)):
            raise Refused("a replay gives other numbers than the step")
        self.replay = replay


def _bits(x: Array) -> Array:
    """The bits of a float array as integers, which are equal also where both are nan."""
    return x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


def _all(nested: Any) -> list[Any]:
    """All tensors in nested tuples and lists."""
    return list(_tensors(nested))


def _are_same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether both hold the very same arrays."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def loop(step: Callable[..., tuple[Any, Array]], plain: Loop, recorder: Recorder, trusted: bool) -> Loop:
    """A `Backend.loop` that replays the step. It yields outputs with one axis more: one for each step.

    `plain` is the loop that calls the step. A step that is `trusted` is made of dlx's own formulas.
    """
    known: list[Recorded] = []
    latest: list[Any] = []  # the constants of the last run: arrays that come again are worth a recording
    refused = False

    def refuse(reason: Exception) -> None:
        nonlocal refused
        refused = True
        known.clear()
        text = str(reason).partition("\n")[0]
        warn(f"a training step could not be recorded, so each step is launched piece by piece, which is slower: {text}")

    def recorded(carry: Any, constants: Any, inputs: Any, steps: int) -> Recorded:
        layout = Layout(inputs, next(x.dtype for x in _all(carry) if x.is_floating_point()))
        for each in known:
            if each.suits(carry, constants, layout, steps):
                return each
        known.append(Recorded(step, carry, constants, layout, steps))
        if len(known) > MOST_GRAPHS:
            del known[0]
        return known[-1]

    def run(
        carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
    ) -> Iterator[tuple[Any, Array]]:
        nonlocal latest
        again, latest = _are_same(latest, _all(constants)), _all(constants)
        if first < steps and not refused and _all(carry) and (again or steps - first > 1):
            steady = recorded(carry, constants, inputs, steps)
            carry = steady.carry
            steady.begin(inputs, first)
            if trusted and not steady.done:
                steady.once()
                steady.done, first = True, first + 1
                yield carry, steady.got(first - 1, first)
            try:
                if steady.replay is None and first < steps:
                    steady.record(recorder, first, trusted)
            except (Refused, RuntimeError) as reason:
                refuse(reason)
            else:
                yield from _replayed(steady, recorder, first, steps, most)
                return
        for after, output in plain(carry, constants, inputs, steps, first, most):
            yield after, output[None]

    return run


def _replayed(
    steady: Recorded, recorder: Recorder, first: int, steps: int, most: int | None
) -> Iterator[tuple[Any, Array]]:
    """The steps from the `first` one on, in chunks. The device is at most two of them behind the host."""
    replay, before, since = steady.replay, None, time.perf_counter()
    while first < steps:
        assert replay is not None
        last = min(first + min(steady.chunk, most or steady.chunk), steps)
        for _ in range(first, last):
            replay()
        mark, outputs = recorder.mark(), steady.got(first, last)
        if before is not None:
            before()
            seconds, since = time.perf_counter() - since, time.perf_counter()
            if seconds > SECONDS_AT_ONCE:
                steady.chunk = max(1, steady.chunk // 2)
            elif seconds < SECONDS_AT_ONCE / 2 and last - first == steady.chunk:
                steady.chunk *= 2
        before, first = mark, last
        yield steady.carry, outputs
