"""The order in which the values of a recorded step are computed one by one, each as a whole array.

What shaped it:

- Operations stay in the order in which they were recorded. An elementwise value is computed once, where it is needed
  first, or directly to the memory to which it is stored.
- Before memory is overwritten, what is to be computed from its content is computed, so that it need not be copied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from ._trace import Memory, Node, Operation, Program


class Task(NamedTuple):
    """Compute the value in this way, or if `operation` is None copy it, to the memory if there is one."""

    value: Node
    memory: Memory | None
    operation: Operation | None

    @property
    def reads(self) -> tuple[Node, ...]:
        """The values that it reads."""
        return (self.value,) if self.operation is None else self.value.args


def lying(loads: Iterable[Node], memory: Memory, writes: list[Memory]) -> list[Node]:
    """Those of the loads that read what lies in the memory now, after these writes, and not what it will hold later."""
    near = [load for load in loads if load.data.overlaps(memory)]
    return [load for load in near if load.op <= sum(map(load.data.overlaps, writes))]


def is_constant(node: Node) -> bool:
    """Whether it is an array of one number, which elementwise operations take as a number."""
    return node.kind == "each" and node.op == "cast" and node.args[0].kind == "number"


def varying(node: Node) -> Iterable[Node]:
    """The arguments that are no such arrays."""
    return (arg for arg in node.args if not is_constant(arg))


class Order:
    """The tasks of a step in the order in which they are done."""

    def __init__(self, program: Program) -> None:
        self.tasks: list[Task] = []
        self.done: set[Node] = set()
        self.writes: list[Memory] = []
        self.readers: dict[Node, list[Node]] = defaultdict(list)  # of what lies in memory
        self._find_readers(program)
        for operation in program.operations:
            self._add(operation)
        assert program.output is not None
        self._need(program.output)

    def _find_readers(self, program: Program) -> None:
        seen: set[Node] = set()
        assert program.output is not None
        stack = [program.output, *(operation.value for operation in program.operations)]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack += node.args
                for arg in node.args if node.kind == "each" else ():
                    if arg.kind == "load":
                        self.readers[arg].append(node)

    def _add(self, operation: Operation) -> None:
        kind, value, memory, _ = operation
        if kind == "make" or (kind != "store" and value in self.done):
            self._need(value)
            return
        direct = kind != "store" or (value.kind == "each" and value not in self.done)
        if direct:
            self._need_all(value.args if value.kind != "each" else varying(value))
        else:
            self._need(value)
        if memory is not None:
            for load in lying(self.readers, memory, self.writes):
                self._need_all([reader for reader in self.readers.pop(load) if reader is not value])
            self.writes.append(memory)
        self.tasks.append(Task(value, memory, operation if direct else None))
        self.done.add(value)

    def _need_all(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._need(node)

    def _need(self, node: Node) -> None:
        """Compute an elementwise value, and before it what it is computed from."""
        if node.kind != "each" or node in self.done:
            return
        self.done.add(node)
        self._need_all(varying(node))
        self.tasks.append(Task(node, None, Operation("each", node)))
