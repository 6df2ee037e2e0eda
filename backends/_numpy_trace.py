"""Training on NumPy with the step recorded once: as one function that numba has compiled, or as a list of calls.

What shaped it:

- The result is that of the plain step to the last bit. So it makes no difference when the plain steps end and the
  others begin: a training may be resumed anywhere, and nobody has to know which path was taken.
- What is not compiled is replayed: the calls of the step are listed once, which takes milliseconds and no numba.
- What a compiled step saves is what Python takes for a plain one. That grows with the number of its operations, as does
  the time to compile it: seconds. Reading what was compiled takes a tenth of that. So the number of updates decides,
  which is known before.
- A training that brings new arrays for every step (`stream`, sparse rows) runs plainly. So does what cannot be recorded
  or compiled; it is not tried again.
- The function comes back at least every half second, for Ctrl-C and checkpoints.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from dlx.backend import Array, InPlace, Loop, warn

from . import _numpy_inner, _numpy_loops
from ._numpy_replay import Replayed
from ._numpy_steps import NAME, PREAMBLE, Recorded, Tables
from ._table import leaves_of

SECONDS_AT_ONCE = 0.25  # in the compiled function
SAVED, COMPILING = 4.5e-7, 0.02  # seconds for each line of a step's source: saved in each step, and to compile it
IMPORTING, READING = 0.25, 0.2  # seconds: of numba, of a step that is cached
FEWEST = 400  # steps that may repay compiling them
FEWEST_REPLAYED = 200  # steps that repay recording them and listing their calls: 3 ms, of which each saves 20 us
MOST_SOURCES = 256
MOST_KINDS = 4  # of arrays in a fit: full batches and the ragged one; more only if every batch brings its own
_IN_MEMORY: set[str] = set()  # the sources that have been compiled or read in this process
_SOURCES: dict[Any, str] = {}  # of steps that have been recorded, by their formulas and the kinds of their arrays


class Recordings:
    """The recorded steps of one training, by what tells their arrays apart. There are about so many `steps` in all."""

    def __init__(self, step: Any, kind: Hashable, steps: float, has_numba: Callable[[], bool]) -> None:
        self.step, self.kind, self.steps, self.has_numba = step, kind, steps, has_numba
        self.known: dict[Any, Recorded | Replayed | None] = {}
        self.longest = 1  # steps of an epoch
        self.seen: dict[Any, Any] = {}  # arrays by their identities, which are theirs as long as they are alive

    def get(self, carry: Any, constants: Any, inputs: Any, steps: int) -> Recorded | Replayed | None:
        """The recorded step of these arrays, ready to run; None if they are to be trained on plainly.

        Arrays of a single step have to come back first: a stream brings others every time.
        """
        key = _identities(carry, constants, inputs)
        if key in self.known:
            return self.known[key]
        again = key in self.seen
        if len(self.seen) >= MOST_KINDS and not again:
            return None
        self.seen[key] = carry, constants
        self.longest = max(self.longest, steps)
        if steps == 1 and not again:
            return None
        given = carry, constants, inputs
        self.known[key] = self._new(*given) or self._replayed(*given, steps)
        return self.known[key]

    def _replayed(self, carry: Any, constants: Any, inputs: Any, steps: int) -> Replayed | None:
        """The step as a list of calls, if there are enough of its kind: so many for each epoch of the `longest` one."""
        if self.steps * steps / self.longest < FEWEST_REPLAYED:
            return None
        try:
            return Replayed(self.step, carry, constants, inputs)
        except Exception:  # as in `_new`
            return None

    def _new(self, carry: Any, constants: Any, inputs: Any) -> Recorded | None:
        if self.steps < FEWEST:
            return None
        kind = self.kind, _kinds(carry, constants, inputs)
        if kind in _SOURCES and not self._is_wanted(_SOURCES[kind]):
            return None
        try:
            new = Recorded(self.step, carry, constants, inputs)
            if not _numpy_inner.work(new.dtype):
                return None
        except Exception:  # Unrecordable, or any error of an operation that recordings do not have
            return None
        if len(_SOURCES) >= MOST_SOURCES:
            _SOURCES.clear()
        _SOURCES[kind] = new.source
        if not self._is_wanted(new.source):
            return None
        try:
            new.compile(Tables(inputs).arrays())
        except Exception as reason:
            warn(f"the training step cannot be compiled by numba, so that training is slower: {reason}")
            return None
        _IN_MEMORY.add(new.source)
        return new

    def _is_wanted(self, source: str) -> bool:
        """Whether the step is to run compiled. The second kind of a training, the ragged batch, is not worth much."""
        if source in _IN_MEMORY:
            return True
        return not any(self.known.values()) and self._repays(source) and self.has_numba()

    def _repays(self, source: str) -> bool:
        """Whether the steps save more than it takes to compile them, or to read them from the cache."""
        lines = source.count("\n") - PREAMBLE.count("\n")
        importing = 0.0 if "numba" in sys.modules else IMPORTING
        preparing = READING if _numpy_loops.is_cached(NAME, source) else COMPILING * lines
        return self.steps * lines * SAVED > importing + preparing


def loop(step: Any, kind: Hashable, plain: Loop, steps: float, has_numba: Callable[[], bool]) -> Loop:
    """The loop of a step that is made in place, about so many times in all; `plain` where it is not to be compiled."""
    if not isinstance(step, InPlace) or steps < FEWEST_REPLAYED:
        return plain
    interpreted = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
    recordings = Recordings(step, kind, steps, (lambda: False) if interpreted else has_numba)
    at_once = 1

    def run(
        carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
    ) -> Iterator[tuple[Any, Array]]:
        nonlocal at_once
        recorded = recordings.get(carry, constants, inputs, steps)
        if recorded is None:
            yield from plain(carry, constants, inputs, steps, first, most)
            return
        tables = recorded.tables(inputs)
        while first < steps:
            last = min(first + min(at_once, most or at_once), steps)
            started = time.perf_counter()
            losses = recorded.run(tables, first, last)
            if time.perf_counter() - started > SECONDS_AT_ONCE:
                at_once = max(1, at_once // 2)
            elif last - first == at_once:
                at_once *= 2
            first = last
            yield carry, losses

    return run


def _identities(carry: Any, constants: Any, inputs: Any) -> Any:
    """What tells one recording from another: the arrays, and of the inputs their kinds."""
    arrays = [(id(x), x.shape) for x in leaves_of((carry, constants))]
    return (*arrays, *((x.dtype.char, x.shape[1:]) for x in leaves_of(inputs)))


def _kinds(carry: Any, constants: Any, inputs: Any) -> Any:
    """What the source depends on besides the formulas."""
    arrays = [(x.dtype.char, x.shape) for x in leaves_of((carry, constants))]
    return (*arrays, *((x.dtype.char, x.shape[1:]) for x in leaves_of(inputs)))
