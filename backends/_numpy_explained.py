"""What becomes of a training step on NumPy, as a text: the operations that were recorded, and their source."""

from __future__ import annotations

import textwrap
from typing import Any

from dlx.backend import HostArray, InPlace

from . import said
from ._numpy_steps import Recorded, record
from ._trace_listing import Listing, paths
from ._trace_source import source_of
from ._trace_writer import Call

WIDTH = 100  # columns of the source
WORDS = {  # for steps in place and others
    True: "The operations of one step, as they were recorded. `own` are the parameters, `slopes` their gradients, "
    "`slots` the optimizer's state, and `rows` the numbers of the batch's rows.",
    False: "The operations of one step, as they were recorded. `params` are the parameters, `state` is the "
    "optimizer's, and `rows` are the numbers of the batch's rows.",
}


def explained(step: Any, carry: Any, constants: Any, inputs: Any) -> str:
    """The text for a step of `Backend.loop` with these arguments."""
    try:
        program = record(step, carry, constants, inputs)
        recorded, written = Recorded(step, carry, constants, inputs), source_of(program)
    except Exception as reason:  # as in `_numpy_trace`
        return f"The step cannot be recorded, and runs as it is: {said(reason)}."
    arrays: dict[str, HostArray] = {}
    for nested in (carry, constants, *((step.kept,) if isinstance(step, InPlace) else ())):
        arrays |= paths(nested)
    names = {program.memory(array): name for name, array in arrays.items()}
    columns = {"f": 0, "i": 0}
    numbers = {}
    for name, column in paths(inputs):
        if column.ndim == 1:
            kind = column.dtype.kind
            numbers[columns[kind], kind] = name
            columns[kind] += 1
    listing = Listing(program, names, numbers)
    known = "; ".join(f"{name} {listing.memory(memory)}" for name, memory in written.memories.items())
    calls = [f"# call {k}: {_called(call)}" for k, call in enumerate(written.calls)]
    source = recorded.source[recorded.source.index("def steps(") :].splitlines()
    head = textwrap.fill(source[0], WIDTH, subsequent_indent="          ")
    legend = textwrap.fill(f"arrays: {known}", WIDTH, initial_indent="# ", subsequent_indent="# ")
    parts = [
        textwrap.fill(WORDS[isinstance(step, InPlace)], WIDTH),
        "\n".join(line.rstrip() for line in listing.lines),
        "What they became: a function for many steps, which numba compiles. Its calls are NumPy's own loops.",
        "\n".join([legend, *calls, head, *(line for line in source[1:] if not line.lstrip().startswith("#"))]),
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
