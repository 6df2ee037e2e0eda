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

Nothing here depends on CUDA; the recorder does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from dlx.backend import Array, Loop, each_of

from . import first_line
from ._table import Layout, warn_of_plain_steps
from ._torch_recorder import Recorder, Refused, Watch, tensors

SECONDS_AT_ONCE = 0.1  # of the launches in a chunk, at most
MOST_GRAPHS = 4  # of a fit: full batches and the ragged one; more only for a caller who changes his arrays


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
        self.inputs = layout.parts(self.row[0, :], _view)
        self.outputs: Any = None
        self.replay: Callable[[], None] | None = None
        self.done = False  # whether the step has run plainly
        self.chunk = 1

    def suits(self, carry: Any, constants: Any, layout: Layout, steps: int) -> bool:
        """Whether it is a step of these very arrays."""
        known = (*self.arrays, *_all(self.constants))
        same = _are_same(known, (*_all(carry), *_all(constants)))
        return same and self.steps == steps and self.layout == layout

    def load(self, inputs: Any, first: int) -> None:
        """Prepare the steps from the `first` one on."""
        self.table[: self.steps, :].copy_(torch.from_numpy(self.layout.words(inputs, self.steps)))
        self.counter.fill_(first)

    def one_step(self) -> None:
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
            self.replay = recorder.record(self.one_step)
        else:
            self.tried(recorder, first)

    def tried(self, recorder: Recorder, first: int) -> None:
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
                plain = twice(self.one_step)
            replay = recorder.record(self.one_step)
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
            raise Refused("two repeated steps gave other numbers than two plain ones")
        self.replay = replay


def _numpy_dtype(x: Array) -> Any:
    """NumPy's dtype for that of a tensor."""
    return torch.empty(0, dtype=x.dtype).numpy().dtype


def _on_host(x: Any) -> Any:
    """A table of inputs as an array of NumPy's."""
    return x.cpu().numpy() if torch.is_tensor(x) else x


def _view(words: Array, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Words of a row as numbers of this dtype of NumPy's."""
    return words.view(getattr(torch, dtype.name)).reshape(shape)


def _bits(x: Array) -> Array:
    """The bytes of an array, which are equal also where both are nan."""
    return x.contiguous().reshape(-1).view(torch.uint8)


def _all(nested: Any) -> list[Any]:
    """All tensors in nested tuples and lists."""
    return list(tensors(nested))


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
        warn_of_plain_steps(first_line(str(reason)), trusted)

    def recorded(carry: Any, constants: Any, inputs: Any, steps: int) -> Recorded:
        layout = Layout(inputs, next(_numpy_dtype(x) for x in _all(carry) if x.is_floating_point()))
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
            given = each_of(_on_host, inputs)
            steady = recorded(carry, constants, given, steps)
            carry = steady.carry
            steady.load(given, first)
            if trusted and not steady.done:
                steady.one_step()
                steady.done, first = True, first + 1
                yield carry, steady.got(first - 1, first)
            try:
                if steady.replay is None and first < steps:
                    steady.record(recorder, first, trusted)
            except torch.OutOfMemoryError:
                raise
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
            seconds = time.perf_counter() - since
            if seconds > SECONDS_AT_ONCE:
                steady.chunk = max(1, steady.chunk // 2)
            elif seconds < SECONDS_AT_ONCE / 2 and last - first == steady.chunk:
                steady.chunk *= 2
        before, first = mark, last
        yield steady.carry, outputs
        since = time.perf_counter()
