"""An epoch's batches: which rows are in each, in groups of equally large ones, and with which inputs.

No formula stands here, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dlx.backend import Array, Backend, HostArray, Staging
from dlx.data.features import Batch, Rows, compressed, spans
from dlx.data.streaming import begun, some_rows, streams
from dlx.nesting import each_of
from dlx.training.steps import Draws, Inputs, Settings, Task, batch_of


class Padding(NamedTuple):
    """The few sizes that are used on a library which compiles for each shape. Rows that fill them up weigh nothing.

    `samples` are the rows, filled up with copies of the first; `batch` is the number of rows in a batch, and `batches`
    the number of batches in an epoch. `shares` are those of all batches, on the device; None if rows are streamed.
    """

    samples: Rows
    batch: int
    batches: int
    shares: Array | None = None


def padding(task: Task, batch_size: int) -> Padding | None:
    """The padding for batches of this many rows; None if the rows are trained on as they are."""
    backend, n, samples = task.backend, task.size, task.rows
    rows, trained = backend.padded(int(samples.X.shape[0])), backend.padded(n)
    if rows is None or trained is None:
        return None
    batch = trained if n <= batch_size else batch_size
    if streams(samples, backend):
        return Padding(samples, batch, -(-n // batch))
    X, Y, w, classes = samples
    X, Y, w = (None if x is None else _filled(x, rows, backend) for x in (X, Y, w))
    batches = -(-trained // batch)
    shares = backend.asarray(_shares(n, batch, 0, batches), task.dtype)
    return Padding(Rows(X, Y, w, classes), batch, batches, shares)


def _filled(x: Array, n: int, backend: Backend) -> Array:
    """The rows of `x`, then copies of its first one, n in all; made on the host, where nothing is compiled."""
    if n == x.shape[0]:
        return x
    host = backend.to_host(x)
    return backend.asarray(np.concatenate([host, np.repeat(host[:1], n - len(host), axis=0)]))


def _shares(n: int, batch: int, first: int, last: int) -> HostArray:
    """The factors for the weights of the rows in batches first:last, with a row for each batch.

    The factor is 0 for a row that was added and batch / real for every other, so that a mean over the batch is the mean
    over its `real` rows.
    """
    real = np.clip(n - batch * np.arange(first, last), 0, batch)[:, None]
    return np.where(np.arange(batch) < real, batch / np.maximum(real, 1), 0.0)


def order(task: Task, settings: Settings, rng: Draws) -> HostArray | None:
    """The epoch's row numbers in their random order, on the host; None for one batch of all rows."""
    one_batch, streamed = settings.batch_size >= task.size, streams(task.rows, task.backend)
    if one_batch and task.chosen is None and not streamed:
        return None
    numbers: HostArray = rng.permutation(task.numbers()) if settings.shuffle and not one_batch else task.numbers()
    return numbers


def groups(
    task: Task,
    settings: Settings,
    order: HostArray | None,
    inputs: Inputs,
    batches: int,
    padding: Padding | None = None,
    stage: Staging | None = None,
) -> Iterator[tuple[Rows, Inputs, int]]:
    """An epoch in groups of equally large batches: the rows that they are taken from, their inputs, and their number.

    `inputs` has the parts for all batches except the row numbers. If the rows lie on the host, each batch is a group of
    its own, whose rows are brought to the device.
    """
    size = settings.batch_size
    if padding is not None:
        yield from _padded_groups(task, order, inputs, batches, padding)
    elif order is None:
        yield task.rows, inputs, batches
    elif streams(task.rows, task.backend):
        yield from _streamed_groups(task, size, order, inputs, batches, stage)
    else:
        order, full = task.as_row_numbers(order), task.size // size
        if full:
            table = order[: full * size].reshape(full, size)
            yield task.rows, _part(inputs, 0, full)._replace(row_numbers=table), full
        if full < batches:
            table = order[full * size :].reshape(1, -1)
            yield task.rows, _part(inputs, full, batches)._replace(row_numbers=table), 1


def _streamed_groups(
    task: Task, size: int, order: HostArray, inputs: Inputs, batches: int, stage: Staging | None
) -> Iterator[tuple[Rows, Inputs, int]]:
    """A group for each batch. The rows of the next one are begun before this one is trained on."""
    placed = None if compressed(task.rows.X) else task.to_device(order)
    some = [slice(first, last) for first, last in spans(len(order), size)]

    def begin(batch: int) -> Callable[[], Rows]:
        on_device = None if placed is None else placed[some[batch]]
        return begun(task.rows, order[some[batch]], task.backend, task.dtype, stage, on_device)

    bring = begin(0)
    for batch in range(batches):
        samples = bring()
        if batch + 1 < batches:
            bring = begin(batch + 1)
        yield samples, _part(inputs, batch, batch + 1), 1


def _padded_groups(
    task: Task, order: HostArray | None, inputs: Inputs, batches: int, padding: Padding
) -> Iterator[tuple[Rows, Inputs, int]]:
    """The groups in few sizes: one for all batches, or one for each batch if the rows are streamed."""
    l2, l1 = (None if rate is None else np.full(padding.batches, rate) for rate in (task.net.l2, task.net.l1))
    inputs = _extended(inputs, padding.batches)._replace(l2=l2, l1=l1)
    table = None if order is None else _table(order, padding)
    if table is not None and streams(task.rows, task.backend):
        for batch in range(batches):
            samples = some_rows(task.rows, table[batch], task.backend)
            shares = _shares(task.size, padding.batch, batch, batch + 1)
            yield samples, _part(inputs, batch, batch + 1)._replace(shares=shares), 1
    else:
        row_numbers = None if table is None else task.to_device(table)
        yield padding.samples, inputs._replace(row_numbers=row_numbers, shares=padding.shares), batches


def all_rows(task: Task) -> tuple[Callable[[Any], Batch], Any]:
    """The function that makes one batch of all training rows, and its argument."""
    xp, chosen, dtype, filling = task.net.xp, task.chosen, task.backend.dtype(task.dtype), padding(task, task.size)
    if filling is None:
        batch = batch_of(xp, task.rows, None if chosen is None else task.to_device(chosen), None, dtype)
        return lambda batch: batch, batch
    numbers = None if chosen is None else task.to_device(_table(chosen, filling)[0])
    given = filling.samples, numbers, _shares(task.size, filling.batch, 0, 1).astype(task.dtype)
    return lambda given: batch_of(xp, given[0], given[1], given[2], dtype), given


def _table(order: HostArray, padding: Padding) -> HostArray:
    """An epoch's row numbers, a batch in each row; the last real one fills what is left."""
    table = np.full(padding.batches * padding.batch, order[-1])
    table[: len(order)] = order
    return table.reshape(padding.batches, padding.batch)


def _extended(inputs: Inputs, n: int) -> Inputs:
    """The inputs of n steps: those of the last one are repeated."""

    def extended(table: HostArray) -> HostArray:
        return np.append(table, [table[-1]] * (n - len(table))).astype(table.dtype)

    found: Inputs = each_of(extended, inputs)
    return found


def _part(inputs: Inputs, first: int, last: int) -> Inputs:
    """The inputs of the steps from the `first` to before the `last`."""
    found: Inputs = each_of(lambda table: table[first:last], inputs)
    return found
