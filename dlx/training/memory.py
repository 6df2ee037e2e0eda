"""Errors about memory in the user's terms: which batch size was asked for, and how much memory each part needs."""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from dlx import scoring
from dlx.backend import Backend
from dlx.data.sparse import compressed
from dlx.optimizers import AnyOptimizer


class OutOfMemory(MemoryError):
    """A fit does not fit into the memory of the device or the host; the text names the batch size and an estimate."""


class Needs(NamedTuple):
    """An estimate of the bytes that a fit needs.

    `data` is X. `parameters` includes the gradients and the state of the optimizer. `batch` is what forward and
    backward hold of one batch. `blocks` is what predictions, validation and a report hold at a time.
    """

    data: float
    parameters: float
    batch: float
    blocks: float


def needs(X: Any, dims: Sequence[int], batch_size: int, optimizer: AnyOptimizer, size: int, backend: Backend) -> Needs:
    """What a fit of the rows X needs on the backend, if each number has `size` bytes.

    data = n d0;  parameters = (2 + vectors) Σ (d_in + 1) d_out;  batch = rows (2 d0 + 3 Σ d_out), for Z, A and δ of
    each layer. blocks is the larger of two numbers: rows (d0 + 2 max d_out + 4 K) for the outputs of two layers and a
    loss, and rows (d0 + 3 Σ d_out) for a report. The data of a sparse X are its values and their column numbers.
    """
    parameters = sum((d_in + 1) * d_out for d_in, d_out in pairwise(dims))
    n, widest = X.shape[0], max(dims)
    rows, sampled = min(batch_size, n), min(n, scoring.rows_sampled(widest))
    block = min(n, scoring.rows_at_once(backend, widest)) * (dims[0] + 2 * max(dims[1:]) + 4 * dims[-1])
    return Needs(
        float(X.nnz * (size + X.indices.itemsize) if compressed(X) else size * math.prod(X.shape)),
        float(size * (2 + optimizer.vectors) * parameters),
        float(size * rows * (2 * dims[0] + 3 * sum(dims[1:]))),
        float(size * max(block, sampled * (dims[0] + 3 * sum(dims[1:])))),
    )


@contextlib.contextmanager
def out_of_memory_explained(backend: Backend, batch_size: int, expected: Needs) -> Iterator[None]:
    """Turn the library's own out-of-memory error into `OutOfMemory`, and release the memory that it does not use."""
    try:
        yield
    except Exception as reason:
        if not backend.out_of_memory(reason):
            raise
        traceback.clear_frames(reason.__traceback__)  # whose arrays a reference cycle may keep alive for long
        backend.release_memory()
        parts = ", ".join(f"{name} {_in_units(part)}" for name, part in expected._asdict().items())
        raise OutOfMemory(
            f"`batch_size` must let a fit of about {_in_units(sum(expected))} ({parts}) into the memory of "
            f"{backend.selector}; got {batch_size}. Use a smaller batch_size, narrower layers, fewer rows at once or "
            "dtype='float32'."
        ) from reason


def _in_units(size: float) -> str:
    """A number of bytes in the largest unit that fits."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
