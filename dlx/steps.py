"""One update as a function, and an epoch of them: what is trained on what, how, and with which numbers.

No formula stands here, and nothing waits for the device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlx import network, optimizers, quasi_newton, storage
from dlx.backend import Array, Backend, Loop
from dlx.data import Rows, gather, row_numbers, some_rows, streams
from dlx.network import Layer, Params
from dlx.schedules import Schedule

HostArray = np.ndarray[Any, Any]


class Draws(Protocol):
    """What a training draws from: a `numpy.random.Generator`, or what stands for one."""

    def permutation(self, x: Any, /) -> Any:
        """The rows' numbers in another order."""

    def integers(self, low: int, high: int, size: Any, /) -> Any:
        """Numbers low <= x < high: dropout keys."""


class Task(NamedTuple):
    """What is trained on what: `chosen` are the numbers of the rows that are trained on, None for all of them.

    Tasks of equal `key` have equal formulas; None promises nothing.
    """

    backend: Backend
    net: network.Formulas
    dtype: str
    rows: Rows
    chosen: HostArray | None
    key: Hashable = None

    @property
    def size(self) -> int:
        """How many rows are trained on."""
        return int(self.rows.X.shape[0]) if self.chosen is None else len(self.chosen)

    def numbers(self) -> HostArray:
        """The numbers of the rows that are trained on."""
        return np.arange(self.size) if self.chosen is None else self.chosen

    def to_device(self, numbers: HostArray) -> Array:
        """Row numbers on the device."""
        return row_numbers(numbers, self.rows.X.shape[0], self.backend)


class Settings(NamedTuple):
    """How it is trained."""

    optimizer: optimizers.Optimizer | quasi_newton.LBFGS
    schedule: Schedule
    batch_size: int
    epochs: int
    shuffle: bool
    patience: int | None
    clip_norm: float | None
    clip_value: float | None


def work(n: int, dims: Sequence[int], settings: Settings) -> float:
    """How many elements the fused formulas will compute: activations, their derivatives and updates."""
    updates = -(-n // settings.batch_size)
    parameters = sum((a + 1) * b for a, b in itertools.pairwise(dims))
    return settings.epochs * (2.0 * n * sum(dims[1:-1]) + updates * parameters)


class Carry(NamedTuple):
    """What goes from step to step where nothing is written in place."""

    params: Params
    state: optimizers.State


class Start(NamedTuple):
    """Where a training goes on beside its parameters: the optimizer's slots, layer by layer, and its updates so far.

    The layout does not depend on the backend's. L-BFGS has its memory, and counts evaluations. Of the updates, those of
    the first `epoch` epochs, and then of `position` batches with these `losses`, belong to this training, which holds
    a loss above `limit` for divergence.
    """

    slots: optimizers.State | quasi_newton.Memory | None
    updates: int
    epoch: int = 0
    position: int = 0
    losses: Sequence[float] | HostArray = ()
    limit: float = math.inf


def make_step(
    task: Task, settings: Settings, params: Params, slots: optimizers.State | None = None
) -> tuple[Callable[[Any, Rows, Any], tuple[Any, Array]], Any, Callable[[Any], Params]]:
    """One update as a pure function of arrays and numbers, a straight line without any wait for the device.

    Returns ``step(carry, samples, inputs) -> (carry, loss)``, the first carry, and the parameters in a carry. The
    inputs are the rows' numbers or None, dropout keys or None, the optimizer's coefficients, and a factor of all
    weights or None. The step of a backend that writes in place has buffers of its own, and `params` are copied.
    The optimizer starts with those `slots`, or with zeros.
    """
    net, xp, optimizer = task.net, task.net.xp, settings.optimizer
    assert isinstance(optimizer, optimizers.Optimizer)
    update = optimizers.bind(optimizer, task.backend)
    dtype = task.backend.dtype(task.dtype)

    def gradients_of(params: Params, samples: Rows, inputs: Any, into: Params | None) -> tuple[Array, Params]:
        X, Y, weights = gather(xp, samples, inputs[0], dtype)
        return network.loss_and_gradients(net, params, X, Y, weights, inputs[1], into)

    def clipped(gradients: Params) -> Params:
        if settings.clip_value is not None:
            gradients = optimizers.clip_by_value(xp, gradients, settings.clip_value)
        if settings.clip_norm is not None:
            gradients = optimizers.clip_by_norm(xp, gradients, settings.clip_norm)
        return gradients

    def pure(carry: Carry, samples: Rows, inputs: Any) -> tuple[Carry, Array]:
        loss, gradients = gradients_of(carry.params, samples, inputs, None)
        return Carry(*optimizers.step(update, carry.params, clipped(gradients), carry.state, *inputs[2:])), loss

    if not (task.backend.in_place and optimizers.is_own(optimizer)):  # a user's own is given one array at a time
        state = optimizers.start(xp, optimizer, params) if slots is None else slots
        return pure, Carry(params, state), lambda carry: carry.params

    own, slopes = storage.together(task.backend, params), storage.together(task.backend, params)
    storage.add(own.layers, params)
    vectors = [xp.zeros_like(own.vector) for _ in range(optimizer.slots)]
    for k, vector in enumerate(vectors if slots is not None else []):
        storage.add(storage.views(xp, vector, params), tuple(Layer(W[k], b[k]) for W, b in slots or ()))
    clips = settings.clip_value is not None or settings.clip_norm is not None

    def in_place(slots: Sequence[Array], samples: Rows, inputs: Any) -> tuple[Sequence[Array], Array]:
        loss, _ = gradients_of(own.layers, samples, inputs, slopes.layers)
        _, _, coefficients, shrink = inputs
        g = slopes.vector
        if clips:
            g = clipped((Layer(g, g[:0]),))[0].W
        if shrink is not None:
            weights = own.weights
            weights *= shrink
        return update(own.vector, g, *slots, *coefficients)[1:], loss

    return in_place, vectors, lambda slots: own.layers


def slots_of(task: Task, carry: Any, params: Params) -> optimizers.State:
    """The optimizer's slots in a carry of `make_step`, layer by layer; the next step may consume them."""
    if isinstance(carry, Carry):
        return carry.state
    each = [storage.views(task.net.xp, vector, params) for vector in carry]
    return tuple((tuple(slot[l].W for slot in each), tuple(slot[l].b for slot in each)) for l in range(len(params)))


def chained(
    run: Loop, carry: Carry, groups: Iterable[tuple[Rows, Any, int]], position: int = 0, most: int | None = None
) -> Iterator[tuple[Carry, Array]]:
    """The loop over one group after the other, from the step at `position` on."""
    for samples, inputs, steps in groups:
        for done in run(carry, samples, inputs, steps, min(position, steps), most):
            carry = done[0]
            yield done
        position = max(0, position - steps)


def kind(settings: Settings) -> Hashable:
    """What of the settings a step depends on."""
    optimizer = settings.optimizer
    assert isinstance(optimizer, optimizers.Optimizer)
    return optimizer.name, tuple(optimizer.settings.items()), settings.clip_norm, settings.clip_value


def dropout_keys(task: Task, batches: int, rng: Draws) -> tuple[HostArray, ...] | None:
    """For each hidden layer the keys of an epoch's batches, or None where nothing is dropped."""
    if not any(rate > 0 for rate in task.net.dropout):
        return None
    keys = rng.integers(-(2**31), 2**31, (batches, len(task.net.dropout))).astype(np.int32)
    return tuple(keys.T)


def numbers(
    task: Task, settings: Settings, t: int, rates: Sequence[float]
) -> tuple[tuple[HostArray, ...], HostArray | None]:
    """What an epoch's updates, of which t were before, take from their learning rates: coefficients and shrinkage."""
    optimizer = settings.optimizer
    assert isinstance(optimizer, optimizers.Optimizer)
    coefficients = [optimizer.coefficients(t + 1 + k, rate) for k, rate in enumerate(rates)]
    decay = optimizer.weight_decay
    shrink = np.asarray([1.0 - rate * decay for rate in rates]) if decay else None
    return tuple(np.asarray(each, np.float64) for each in zip(*coefficients, strict=True)), shrink


def order(task: Task, settings: Settings, rng: Draws) -> Array | None:
    """The epoch's row numbers where X lies, permuted by the host's generator; None for one batch of all rows."""
    one_batch, streamed = settings.batch_size >= task.size, streams(task.rows, task.backend)
    if one_batch and task.chosen is None and not streamed:
        return None
    numbers = rng.permutation(task.numbers()) if settings.shuffle and not one_batch else task.numbers()
    return numbers if streamed else task.to_device(numbers)


def groups(
    task: Task, settings: Settings, order: Array | None, tables: Any, batches: int
) -> Iterator[tuple[Rows, Any, int]]:
    """An epoch as groups of batches of one size: the rows that they are taken from, inputs, and how many they are.

    Rows that lie on the host are brought to the device a batch at a time, each a group.
    """
    xp, size = task.net.xp, settings.batch_size
    if order is None:
        yield task.rows, (None, *tables), batches
    elif streams(task.rows, task.backend):
        for batch in range(batches):
            samples = some_rows(task.rows, order[batch * size : (batch + 1) * size], task.backend, task.dtype)
            yield samples, (None, *_part(tables, batch, batch + 1)), 1
    else:
        full = task.size // size
        if full:
            yield task.rows, (xp.reshape(order[: full * size], (full, size)), *_part(tables, 0, full)), full
        if full < batches:
            yield task.rows, (xp.reshape(order[full * size :], (1, -1)), *_part(tables, full, batches)), 1


def _part(tables: Any, first: int, last: int) -> Any:
    """Those rows of every table."""
    if isinstance(tables, tuple):
        return tuple(_part(each, first, last) for each in tables)
    return None if tables is None else tables[first:last]
