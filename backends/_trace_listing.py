"""A recorded step as a text that people read: its operations, one a line, in the words of NumPy.

What shaped it:

- An elementwise value that is needed once stands where it is needed; one that is needed more often has a line and a
  name of its own. So the lines are few, and say what is computed and not how.
- Arrays are called what the step calls them; `<-` writes to one of them.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dlx.backend import InPlace

from ._numpy_loops import FUNCTIONS, INFIX
from ._trace import Memory, Node, Operation, Program

WIDTH = 62  # columns, where the shapes begin
PAGE = 100  # columns of a text
WORDS = {  # for steps in place and others
    True: "The operations of one step, as they were recorded. `own` are the parameters, `slopes` their gradients, "
    "`slots` the optimizer's state, and `rows` the numbers of the batch's rows.",
    False: "The operations of one step, as they were recorded. `params` are the parameters, `state` is the "
    "optimizer's, and `rows` are the numbers of the batch's rows.",
}


class Listing:
    """The lines of a program whose memories and numbers have these names."""

    def __init__(self, program: Program, names: Mapping[Memory, str], numbers: Mapping[Any, str]) -> None:
        self.program, self.names, self.numbers = program, dict(names), numbers
        self.unnamed = 0
        self.known: dict[Node, str] = {}
        self.count = 0
        self.lines: list[str] = []
        self.uses = Counter(arg for node in program.nodes.values() for arg in node.args)
        self.uses.update(operation.value for operation in program.operations if operation.kind == "store")
        for operation in program.operations:
            self._add(operation)
        assert program.output is not None
        self._line(f"loss = {self._text(program.output, outermost=True)}", ())

    def _line(self, text: str, shape: tuple[int, ...]) -> None:
        size = " x ".join(map(str, shape)) or "a number"
        self.lines.append(f"{text:<{WIDTH}}  # {size}")

    def _name(self, node: Node, text: str) -> str:
        """A line with the value, which has a name from now on."""
        self.count += 1
        self.known[node] = f"v{self.count}"
        self._line(f"{self.known[node]} = {text}", node.shape)
        return self.known[node]

    def _add(self, operation: Operation) -> None:
        kind, value, memory, flipped = operation
        if kind == "store":
            assert memory is not None
            self._line(f"{self.memory(memory)} <- {self._text(value, outermost=True)}", value.shape)
        elif kind == "make":
            if value.kind == "gather" and value not in self.known:
                self._name(value, self._text(value))
        elif value not in self.known:
            text = self._whole(value, flipped)
            if memory is None:
                self._name(value, text)
            else:
                self.known[value] = self.memory(memory)
                self._line(f"{self.memory(memory)} <- {text}", value.shape)

    def memory(self, memory: Memory) -> str:
        """The name of a memory: of an array that the step has made, a number."""
        if memory not in self.names:
            self.unnamed += 1
            self.names[memory] = f"a{self.unnamed}"
        return self.names[memory]

    def _whole(self, value: Node, flipped: tuple[bool, bool]) -> str:
        """An operation on whole arrays or rows."""
        terms = [self._text(arg, outermost=value.kind != "product") for arg in value.args]
        match value.kind:
            case "product":
                left, right = (f"{term}.T" if flip else term for term, flip in zip(terms, flipped, strict=True))
                return f"{left} @ {right}"
            case "call":
                return f"{value.op.__name__}({terms[0]})"
            case "dots":
                return f"vecdot({terms[0]}, {terms[0]})"
            case "blocks":
                return f"sum({terms[0]}, axis=0), of {value.op} rows at a time"
        function = "max" if value.kind == "row" and value.op.__name__ == "maximum" else "sum"
        axis = {"row": ", axis=1", "rows": ", axis=1", "columns": ", axis=0"}.get(value.kind, "")
        return f"{function}({terms[0]}{axis})"

    def _text(self, node: Node, outermost: bool = False) -> str:
        """The value as an expression."""
        if node in self.known:
            return self.known[node]
        match node.kind:
            case "load":
                return self.memory(node.data)
            case "gather":
                return f"{self.memory(node.data)}[rows]"
            case "number":
                return repr(node.data)
            case "input":
                return self.numbers[node.data]
        if self.uses[node] > 1 and node.shape != ():
            return self._name(node, self._formula(node, True))
        return self._formula(node, outermost)

    def _formula(self, node: Node, outermost: bool) -> str:
        """An elementwise operation."""
        terms = [self._text(arg, outermost=node.op not in INFIX) for arg in node.args]
        if node.op in INFIX:
            text = f" {INFIX[node.op]} ".join(terms)
            return text if outermost else f"({text})"
        if node.op in ("cast", "where"):
            return f"{node.dtype.name if node.op == 'cast' else 'where'}({', '.join(terms)})"
        return f"{FUNCTIONS[node.op].removeprefix('np.')}({', '.join(terms)})"


def listed(step: Any, program: Program, carry: Any, constants: Any, numbers: Mapping[Any, str]) -> tuple[Listing, str]:
    """The list of a step's program, and the text of it."""
    arrays: dict[str, Any] = {}
    for nested in (carry, constants, *((step.kept,) if isinstance(step, InPlace) else ())):
        arrays |= paths(nested)
    listing = Listing(program, {program.memory(array): name for name, array in arrays.items()}, numbers)
    words = textwrap.fill(WORDS[isinstance(step, InPlace)], PAGE)
    return listing, "\n\n".join([words, "\n".join(line.rstrip() for line in listing.lines)])


def legend(listing: Listing, names: Mapping[str, Memory], comment: str) -> str:
    """What the names of a source stand for, as a comment."""
    known = "; ".join(f"{name} {listing.memory(memory)}" for name, memory in names.items())
    return textwrap.fill(f"arrays: {known}", PAGE, initial_indent=f"{comment} ", subsequent_indent=f"{comment} ")


def paths(nested: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays in nested tuples, each with the names and numbers that lead to it."""
    if isinstance(nested, tuple):
        fields = getattr(nested, "_fields", None)
        for k, part in enumerate(nested):
            inner = f"[{k}]" if fields is None else f".{fields[k]}"
            yield from paths(part, f"{name}{inner}".removeprefix("."))
    elif nested is not None:
        yield name, nested
