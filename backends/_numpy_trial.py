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
    """A recorded step, which writes to the arrays of the carry that it was recorded with."""

    def run(self, tables: Any, first: int, last: int) -> HostArray:
        """Make these steps, and return their losses."""


class Trial:
    """A recorded step with the carry that it writes to, and whether it may be trusted."""

    def __init__(self, recorded: Repeated, carry: Any) -> None:
        self.recorded, self.carry = recorded, carry
        self.compared = 0  # steps
        self.failed = False

    def is_due(self, steps: int) -> bool:
        """Whether the next steps, so many, begin with a trial."""
        return self.compared < STEPS or steps > 1

    def of(
        self, plain: Iterator[tuple[Any, Array]], carry: Any, tables: Any, first: int
    ) -> Generator[tuple[Any, Array], None, Any]:
        """Make the `plain` steps of the training, which begin at `first`; then compare them with the recorded ones.

        Returns the carry to go on with.
        """
        before, losses = [x.copy() for x in leaves_of(carry)], []
        for carry, loss in plain:
            losses.append(loss)
            yield carry, loss
        after = [x.copy() for x in leaves_of(carry)]
        _write(self.carry, before)
        found = self.recorded.run(tables, first, first + len(losses))
        self.failed = not all(map(_equal_bits, [*found, *leaves_of(self.carry)], [*losses, *after]))
        self.compared += len(losses)
        _write(carry, after)  # in any case, as it may share arrays with the recording's
        return carry

    def take(self, carry: Any) -> Any:
        """Write another carry to the recording's own, which is returned. Both may have the same arrays, swapped."""
        if carry is self.carry:
            return carry
        arrays = leaves_of(carry)
        if any(a is not b for a, b in zip(leaves_of(self.carry), arrays, strict=True)):
            _write(self.carry, [x.copy() for x in arrays])
        return self.carry


def _write(carry: Any, values: list[HostArray]) -> None:
    """Write the values to the arrays of the carry."""
    for array, value in zip(leaves_of(carry), values, strict=True):
        array[...] = value


def _equal_bits(a: HostArray, b: HostArray) -> bool:
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
