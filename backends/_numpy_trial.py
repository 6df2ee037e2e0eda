"""The trial of a recorded step that has functions of a user's own: two of its steps are compared with two plain ones.

What shaped it:

- Such a function may depend on more than its arrays: on random numbers, on a global variable, on what it was given
  before. A recording does not see that, and so it is trusted only when its bits are those of the function itself.
- The plain steps are those of the training, so that nothing has to be taken back where the two differ.
- What a function depends on may change later, as in a callback. So each epoch of several steps begins with a trial.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol

from dlx.backend import Array, HostArray

from ._table import leaves_of

STEPS = 2  # of a trial


class Repeated(Protocol):
    """A recorded step, which keeps its carry in arrays of its own."""

    carry: Any

    def run(self, tables: Any, first: int, last: int) -> HostArray:
        """Make these steps, and return their losses."""


class Trial:
    """Whether a recorded step may be trusted: it `runs` as long as its bits are those of plain steps."""

    def __init__(self) -> None:
        self.compared = 0  # steps
        self.failed = False

    def is_due(self, steps: int) -> bool:
        """Whether the next steps, so many, begin with a trial."""
        return self.compared < STEPS or steps > 1

    def of(
        self, recorded: Repeated, tables: Any, carry: Any, plain: Iterator[tuple[Any, Array]], first: int
    ) -> Generator[tuple[Any, Array], None, Any]:
        """Make the `plain` steps of the training, which begin at `first`; then compare them with the recorded ones.

        Returns the carry to go on with.
        """
        before, losses = [x.copy() for x in leaves_of(carry)], []
        for carry, loss in plain:
            losses.append(loss)
            yield carry, loss
        after = [x.copy() for x in leaves_of(carry)]
        restore(recorded.carry, before)
        found = recorded.run(tables, first, first + len(losses))
        self.failed = not all(map(_equal_bits, [*found, *leaves_of(recorded.carry)], [*losses, *after]))
        self.compared += len(losses)
        restore(carry, after)  # in any case, as it may share arrays with the recording's
        return carry


def restore(carry: Any, values: list[HostArray]) -> None:
    """Write the values to the arrays of the carry."""
    for array, value in zip(leaves_of(carry), values, strict=True):
        array[...] = value


def load(carry: Any, given: Any) -> None:
    """Write another carry to the arrays of this one. Those of the two may be the same ones in another order."""
    arrays = leaves_of(given)
    if any(a is not b for a, b in zip(leaves_of(carry), arrays, strict=True)):
        restore(carry, [x.copy() for x in arrays])


def _equal_bits(a: HostArray, b: HostArray) -> bool:
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
