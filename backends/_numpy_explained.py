"""What becomes of a training step on NumPy, as a text: the operations that were recorded, and their source."""

from __future__ import annotations

import textwrap
from typing import Any

from . import said
from ._numpy_steps import Recorded, record
from ._trace_listing import PAGE, legend, listed, paths
from ._trace_source import source_of
from ._trace_writer import Call


def explained(step: Any, carry: Any, constants: Any, inputs: Any) -> str:
    """The text for a step of `Backend.loop` with these arguments."""
    try:
        program = record(step, carry, constants, inputs)
        recorded, written = Recorded(step, carry, constants, inputs), source_of(program)
    except Exception as reason:  # as in `_numpy_trace`
        return f"The step cannot be recorded, and runs as it is: {said(reason)}."
    columns = {"f": 0, "i": 0}
    numbers = {}
    for name, column in paths(inputs):
        if column.ndim == 1:
            kind = column.dtype.kind
            numbers[columns[kind], kind] = name
            columns[kind] += 1
    listing, text = listed(step, program, carry, constants, numbers)
    calls = [f"# call {k}: {_called(call)}" for k, call in enumerate(written.calls)]
    source = recorded.source[recorded.source.index("def steps(") :].splitlines()
    head = textwrap.fill(source[0], PAGE, subsequent_indent="          ")
    body = [line for line in source[1:] if not line.lstrip().startswith("#")]
    parts = [
        text,
        "What they became: a function for many steps, which numba compiles. Its calls are NumPy's own loops.",
        "\n".join([legend(listing, written.memories, "#"), *calls, head, *body]),
    ]
    return "\n\n".join(parts)


def _called(call: Call) -> str:
    """A call in words."""
    kind, value, _, flipped = call.operation
    *given, out = call.arrays
    if kind == "copy":
        return f"a copy of {given[1]}.T for the next call, where that makes it faster"
    if kind == "product":
        given = [f"{name}.T" if flip else name for name, flip in zip(given, flipped, strict=True)]
    function = {"product": "matmul", "dots": "vecdot", "call": getattr(value.op, "__name__", "")}.get(kind, "sum")
    return f"{function}({', '.join(given)}) to {out}"
