"""Out of memory, said in the user's terms: which batch size, and what needs how much."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from dlx import optimizers
from dlx.backend import Backend


class OutOfMemory(MemoryError):
    """The device's memory, or the host's, does not hold a fit; the text names the batch size and an estimate."""


class Needs(NamedTuple):
    """Bytes of a fit, estimated: the data, parameters with gradients and state, and one batch on its way."""

    data: float
    parameters: float
    batch: float


def needs(shape: Sequence[int], dims: Sequence[int], batch_size: int, optimizer: Any, size: int) -> Needs:
    """What a fit of data of this shape needs, `size` bytes a number.

    data = n d0;  parameters = (2 + slots) Σ (d_in + 1) d_out;  batch = rows (2 d0 + 3 Σ d_out): a layer's Z, A and δ
    """
    slots = optimizer.slots if isinstance(optimizer, optimizers.Optimizer) else 2 * optimizer.history
    parameters = sum((d_in + 1) * d_out for d_in, d_out in pairwise(dims))
    rows = min(batch_size, shape[0])
    return Needs(
        float(size * math.prod(shape)),
        float(size * (2 + slots) * parameters),
        float(size * rows * (2 * dims[0] + 3 * sum(dims[1:]))),
    )


@contextlib.contextmanager
def explained(backend: Backend, batch_size: int, expected: Needs) -> Iterator[None]:
    """The library's own out-of-memory error becomes `OutOfMemory`, and its unused memory is released."""
    try:
        yield
    except Exception as reason:
        if not backend.out_of_memory(reason):
            raise
        backend.release_memory()
        parts = ", ".join(f"{name} {_in_units(part)}" for name, part in expected._asdict().items())
        raise OutOfMemory(
            f"`batch_size` must let a fit of about {_in_units(sum(expected))} ({parts}) into the memory of "
            f"{backend.selector}; got {batch_size}. Use a smaller batch_size, narrower layers, fewer rows at once or "
            "dtype='float32'."
        ) from reason


def _in_units(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
