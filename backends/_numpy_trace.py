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
- A function of a user's own may do more than a recording sees. So a step that has one is tried first; see
  `_numpy_trial`.
- The function comes back at least every half second, for Ctrl-C and checkpoints.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

from dlx.backend import Array, InPlace, Loop, warn

from . import _numpy_inner, _numpy_loops, _numpy_trial, said
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


class Latest(NamedTuple):
    """What was asked for last, and the answer: in most trainings the next question is the same."""

    carry: Any
    constants: Any
    arrays: list[Array]
    shapes: list[tuple[int, ...]]  # as they were: an array can be resized
    inputs: Any
    recorded: Recorded | Replayed | None


class Recordings:
    """The recorded steps of one training, by what tells their arrays apart. There are about so many `steps` in all."""

    def __init__(self, step: Any, kind: Hashable, steps: float, has_numba: Callable[[], bool]) -> None:
        self.step, self.kind, self.steps, self.has_numba = step, kind, steps, has_numba
        self.known: dict[Any, Recorded | Replayed | None] = {}
        self.seen: dict[Any, Any] = {}  # arrays by their identities, which are theirs as long as they are alive
        self.longest = 1  # steps of an epoch
        self.trials: dict[Recorded | Replayed, _numpy_trial.Trial] = {}
        self.latest: Latest | None = None
        self.refused = False
        self.path: tuple[str, bool] = ("plainly, as they are not worth a recording", False)

    def get(self, carry: Any, constants: Any, inputs: Any, steps: int) -> Recorded | Replayed | None:
        """The recorded step of these arrays, ready to run; None if they are to be trained on plainly.

        Arrays of a single step have to come back first: a stream brings others every time.
        """
        if self.refused:
            return None
        kinds, at = _kinds(inputs, 1), self.latest
        same = at is not None and carry is at.carry and constants is at.constants and kinds == at.inputs
        if at is not None and same and [x.shape for x in at.arrays] == at.shapes:
            return at.recorded
        arrays = leaves_of((carry if isinstance(self.step, InPlace) else None, constants))
        shapes = [x.shape for x in arrays]
        key = _kinds(carry), tuple(zip(map(id, arrays), shapes, strict=True)), kinds
        if key not in self.known and not self._new_kind(key, carry, constants, inputs, steps):
            return None
        recorded = self.known[key]
        self.latest = Latest(carry, constants, arrays, shapes, kinds, recorded)
        return recorded

    def _new_kind(self, key: Any, carry: Any, constants: Any, inputs: Any, steps: int) -> bool:
        """Make up one's mind about arrays that are new; False if it is too early for that."""
        again = key in self.seen
        if len(self.seen) >= MOST_KINDS and not again:
            return False
        self.seen[key] = carry, constants
        self.longest = max(self.longest, steps)
        if steps == 1 and not again:
            self.plainly("each of them brings other arrays")
            return False
        given = carry, constants, inputs
        self.known[key] = new = self._new(*given) or self._replayed(*given, steps)
        if new is not None:
            self.trials[new] = _numpy_trial.Trial(new, carry)
        return True

    def plainly(self, reason: str, unknown: bool = False) -> None:
        """Note why steps run plainly, unless others are compiled: perhaps as it is `unknown` what they do."""
        if not any(self.known.values()):
            self.path = f"plainly, as {reason}", unknown and self.kind is None

    def refuse(self) -> None:
        """Train plainly from now on."""
        self.refused, self.latest = True, None
        self.known.clear()
        self.trials.clear()
        self.plainly("two recorded steps gave other numbers than two plain ones", unknown=True)

    def _replayed(self, carry: Any, constants: Any, inputs: Any, steps: int) -> Replayed | None:
        """The step as a list of calls, if there are enough of its kind: so many for each epoch of the `longest` one."""
        if self.steps * steps / self.longest < FEWEST_REPLAYED:
            return None
        try:
            new = Replayed(self.step, carry, constants, inputs)
        except Exception as reason:  # as in `_new`
            self.plainly(f"they cannot be recorded: {said(reason)}", unknown=True)
            return None
        if not any(self.known.values()):
            self.path = "as a list of calls", False
        return new

    def _new(self, carry: Any, constants: Any, inputs: Any) -> Recorded | None:
        if self.steps < FEWEST:
            return None
        kind = self.kind, _kinds((carry, constants)), _kinds(inputs, 1)
        if self.kind is not None and kind in _SOURCES and not self._is_wanted(_SOURCES[kind]):
            return None
        try:
            new = Recorded(self.step, carry, constants, inputs)
            if not _numpy_inner.work(new.dtype):
                self.plainly("NumPy's inner loops are not where they are looked for")
                return None
        except Exception as reason:  # Unrecordable, or any error of an operation that recordings do not have
            self.plainly(f"they cannot be recorded: {said(reason)}", unknown=True)
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
            self.plainly(f"numba cannot compile them: {said(reason)}")
            return None
        _IN_MEMORY.add(new.source)
        self.path = "as one compiled function", False
        return new

    def _is_wanted(self, source: str) -> bool:
        """Whether the step is to run compiled. The second kind of a training, the ragged batch, is not worth much."""
        if source in _IN_MEMORY:
            return self.has_numba()
        if any(self.known.values()):
            return False
        if not self._repays(source):
            self.plainly("they are too few to repay compiling")
            return False
        if not self.has_numba():
            self.plainly("there is no numba")
            return False
        return True

    def _repays(self, source: str) -> bool:
        """Whether the steps save more than it takes to compile them, or to read them from the cache."""
        lines = source.count("\n") - PREAMBLE.count("\n")
        importing = 0.0 if "numba" in sys.modules else IMPORTING
        preparing = READING if _numpy_loops.is_cached(NAME, source) else COMPILING * lines
        return self.steps * lines * SAVED > importing + preparing


class Traced:
    """A loop whose step may be recorded, and its recordings."""

    def __init__(self, run: Loop, recordings: Recordings) -> None:
        self.run, self.recordings = run, recordings

    def __call__(self, *arguments: Any, **options: Any) -> Iterator[tuple[Any, Array]]:
        return self.run(*arguments, **options)

    @property
    def path(self) -> tuple[str, bool]:
        """How its steps run."""
        return self.recordings.path


def loop(step: Any, kind: Hashable, plain: Loop, steps: float, has_numba: Callable[[], bool]) -> Loop:
    """The loop of a step that is made about so many times in all; `plain` where it is not to be compiled."""
    interpreted = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
    recordings = Recordings(step, kind, steps, (lambda: False) if interpreted else has_numba)
    if steps < FEWEST_REPLAYED:
        recordings.plainly("they are few")
        return Traced(plain, recordings)
    at_once = 1

    def run(
        carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
    ) -> Iterator[tuple[Any, Array]]:
        nonlocal at_once
        recorded = recordings.get(carry, constants, inputs, steps)
        trial = None if recorded is None else recordings.trials[recorded]
        if recorded is not None and trial is not None and kind is None and trial.is_due(steps - first):
            last = min(first + _numpy_trial.STEPS, steps)
            plain_steps = plain(carry, constants, inputs, last, first)
            carry = yield from trial.of(plain_steps, carry, recorded.tables(inputs), first)
            first = last
            if trial.failed:
                recordings.refuse()
                recorded = None
        if recorded is None or trial is None:
            yield from plain(carry, constants, inputs, steps, first, most)
            return
        tables = recorded.tables(inputs)
        if first < steps:
            carry = trial.take(carry)
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

    return Traced(run, recordings)


def _kinds(arrays: Any, first: int = 0) -> Any:
    """What the source depends on besides the formulas: dtypes and shapes, the latter from this axis on."""
    return tuple((x.dtype.char, x.shape[first:]) for x in leaves_of(arrays))
