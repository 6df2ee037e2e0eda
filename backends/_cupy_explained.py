"""What becomes of a training step on CuPy, as a text: the operations that were recorded, and their kernels."""

from __future__ import annotations

from typing import Any

from . import said
from ._cuda_source import source_of
from ._cuda_writer import DEVICE, Kernel, Product
from ._cupy_kernels import record
from ._table import Layout, leaves_of
from ._trace_listing import legend, listed, paths


def explained(step: Any, carry: Any, constants: Any, inputs: Any) -> str:
    """The text for a step of `Backend.loop` with these arguments."""
    layout = Layout(inputs, leaves_of(carry)[0].dtype)
    try:
        program = record(step, carry, constants, layout)
        source = source_of(program, layout.width)
    except Exception as reason:  # as in `_cupy_kernels`
        return f"The step cannot be recorded, and its formulas are single kernels: {said(reason)}."
    kinds = zip(paths(inputs), layout.columns, layout.kinds, strict=True)
    numbers = {(columns.start, dtype): name for (name, _), columns, (dtype, _) in kinds}
    listing, text = listed(step, program, carry, constants, numbers)
    calls = [f"// {k}: {_called(call)}" for k, call in enumerate(source.calls)]
    parts = [
        text,
        f"What they became: {len(calls)} kernels and products, which are captured as one CUDA graph.",
        "\n".join([legend(listing, source.memories, "//"), *calls]),
        *(call.source.removeprefix(DEVICE).rstrip() for call in source.calls if isinstance(call, Kernel)),
    ]
    return "\n\n".join(parts)


def _called(call: Kernel | Product) -> str:
    """A call in words."""
    if isinstance(call, Kernel):
        size = f"{call.blocks} x {call.threads} threads"
        return f"{call.name}({', '.join(call.arrays)}) by {size}"
    a, b = (f"{name}.T" if flip else name for name, flip in zip(call.operands, call.flipped, strict=True))
    return f"{a} @ {b} to {call.out}{', beside what follows' if call.aside else ''}"
