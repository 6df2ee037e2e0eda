"""The operations of a recorded step in groups: loops over as many rows, and single calls.

What shaped it:

- An operation goes into the earliest loop over as many rows in which its arguments are there: a delta and its column
  sums are one pass through memory.
- What is read must be read before it is overwritten, and after it is written. Memory is known by its addresses: a
  vector of all gradients is read after each of its views has been written.
"""

from __future__ import annotations

from ._trace import Memory, Node, Operation, Program

LOOPS = ("store", "make", "row", "columns", "blocks")  # the operations that are loops over rows
Space = tuple[str, int]


class Group:
    """Operations of one loop over rows ("matrix", rows) or elements ("vector", elements), or a single call."""

    def __init__(self, space: Space | None, operations: list[Operation]) -> None:
        self.space, self.operations = space, operations


class Grouping:
    """The groups so far, and in which of them memory is read and written."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.homes: dict[Node, int] = {}  # the groups of what is no elementwise value
        self.made: set[Node] = set()  # the elementwise values that become arrays
        self.reads: list[tuple[Memory, int]] = []
        self.writes: list[tuple[Memory, int]] = []

    def add(self, operation: Operation) -> None:
        """Put an operation into its group."""
        kind, value, memory, _ = operation
        if kind != "store" and value in (self.made if kind == "make" else self.homes):
            return
        sources = (value,) if kind in ("store", "make") else value.args
        number, space = self._first(operation, sources), None
        if kind in LOOPS:
            shape = sources[0].shape
            space = ("matrix" if len(shape) == 2 else "vector", shape[0])
            number = next((k for k in range(number, len(self.groups)) if self.groups[k].space == space), -1)
        if space is None or number < 0:
            number = len(self.groups)
            self.groups.append(Group(space, []))
        self.groups[number].operations.append(operation)
        seen: set[Node] = set()
        for source in sources:
            self._collect(source, seen)
        self.reads += [(node.data, number) for node in seen if node.kind == "load"]
        if memory is not None:
            self.writes.append((memory, number))
        if kind == "make":
            self.made.add(value)
        elif kind != "store":
            self.homes[value] = number

    def _first(self, operation: Operation, sources: tuple[Node, ...]) -> int:
        """The first group in which the operation may be done."""
        found: dict[Node, int] = {}
        first = max(self._ready(source, found) for source in sources)
        memory = operation.memory
        if memory is None:
            return first
        same = operation.kind == "store"  # it may overwrite its own elements in the loop that reads them
        others = [(other, group) for other, group in [*self.reads, *self.writes] if other.overlaps(memory)]
        return max([first, *(group + (not same or other is not memory) for other, group in others)])

    def _ready(self, node: Node, found: dict[Node, int]) -> int:
        """The first group in which the value can be computed."""
        if node not in found:
            first = 0
            if node.kind == "load":
                before = [group for memory, group in self.writes if memory.overlaps(node.data)][: node.op]
                first = max(before, default=-1) + 1
            elif node in self.homes:
                first = self.homes[node] + (node.kind != "row")
            args = node.args if node not in self.homes else ()
            found[node] = max([first, *(self._ready(arg, found) for arg in args)])
        return found[node]

    def _collect(self, node: Node, seen: set[Node]) -> None:
        """Add all that the value is computed from in a loop."""
        if node not in seen:
            seen.add(node)
            for arg in node.args if node not in self.homes or node.kind == "row" else ():
                self._collect(arg, seen)


def grouped(program: Program) -> list[Group]:
    """The operations in groups, in an order in which they may run."""
    grouping = Grouping()
    for operation in program.operations:
        grouping.add(operation)
    return grouping.groups
