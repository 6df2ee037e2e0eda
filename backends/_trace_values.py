"""The values of a generated loop over rows, whatever its language."""

from __future__ import annotations

from ._trace import Node, Unrecordable
from ._trace_writer import Writer


class Values:
    """The texts of the values in a loop over rows ("matrix") or elements ("vector"). A language says the rest."""

    def __init__(self, writer: Writer, kind: str, rows: int) -> None:
        self.writer, self.kind, self.rows = writer, kind, rows
        self.known: dict[Node, str] = {}  # values of the row
        self.results: dict[Node, str] = {}  # of rows, known when the present loop over columns is closed

    def is_row(self, node: Node) -> bool:
        """Whether the value is one number for the row."""
        return self.kind == "matrix" and (len(node.shape) < 2 or node.shape[1] == 1)

    def needs(self, node: Node, seen: set[Node]) -> bool:
        """Whether the value needs a row's result that is known when the loop is closed."""
        if node in seen or node in self.writer.homes:
            return False
        seen.add(node)
        return node in self.results or any(self.needs(arg, seen) for arg in node.args if node not in self.known)

    def text(self, node: Node) -> str:
        """How the value is computed or where it lies."""
        if len(node.shape) != (2 if self.kind == "matrix" else 1) or node.shape[0] not in (1, self.rows):
            raise Unrecordable("rows of another number")
        home = self.writer.lies(node)
        if home is not None:
            return f"{home}{self.index(node.shape)}"
        if node.kind == "gather":
            return self.gathered(node)
        if node.kind != "each":
            raise Unrecordable(f"a value by {node.kind} in a loop")
        return self.writer.formula(node, self.writer.terms_of(node, self.value))

    def index(self, shape: tuple[int, ...]) -> str:
        """Where the element of an array of this shape is."""
        raise NotImplementedError

    def gathered(self, node: Node) -> str:
        """An element of the batch's rows, where it lies."""
        raise NotImplementedError

    def value(self, node: Node) -> str:
        """The name of the value of the element or the row."""
        raise NotImplementedError
