"""Out of memory, said in the user's terms: which batch size, and what needs how much."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from dlx import scoring
from dlx.backend import Backend
from dlx.data.sparse import compressed
from dlx.optimizers import AnyOptimizer


class OutOfMemory(MemoryError):
    """The device's memory, or the host's, does not hold a fit; the text names the batch size and an estimate."""


class Needs(NamedTuple):
    """Bytes of a fit, estimated: the data, parameters with gradients and state, and one batch on its way.

    `blocks` are what its predictions, validation and diagnosis hold at once.
    """

    data: float
    parameters: float
    batch: float
    blocks: float


def needs(X: Any, dims: Sequence[int], batch_size: int, optimizer: AnyOptimizer, size: int, backend: Backend) -> Needs:
    """What a fit of the rows X on the backend needs, `size` bytes a number.

    data = n d0;  parameters = (2 + vectors) Σ (d_in + 1) d_out;  batch = rows (2 d0 + 3 Σ d_out): a layer's Z, A and δ;
    blocks: the larger of rows (d0 + 2 max d_out + 4 K), of two layers and of a loss, and rows (d0 + 3 Σ d_out), of a
    diagnosis. Of a sparse X the data are its values and their columns.
    """
    parameters = sum((d_in + 1) * d_out for d_in, d_out in pairwise(dims))
    n, widest = X.shape[0], max(dims)
    rows, seen = min(batch_size, n), min(n, scoring.rows_sampled(widest))
    block = min(n, scoring.rows_at_once(backend, widest)) * (dims[0] + 2 * max(dims[1:]) + 4 * dims[-1])
    return Needs(
        float(X.nnz * (size + X.indices.itemsize) if compressed(X) else size * math.prod(X.shape)),
        float(size * (2 + optimizer.vectors) * parameters),
        float(size * rows * (2 * dims[0] + 3 * sum(dims[1:]))),
        float(size * max(block, seen * (dims[0] + 3 * sum(dims[1:])))),
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
