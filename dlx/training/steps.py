"""One update as a function: what is trained on what, how, and with which numbers.

No formula stands here, and nothing waits for the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlx import network, optimizers
from dlx.backend import Array, Backend, HostArray, InPlace, Loop, Namespace
from dlx.data.features import Batch, Rows, gather, one_hot
from dlx.host import row_number_dtype
from dlx.network import Layer, Params
from dlx.schedules import Schedule
from dlx.training import flat


class Draws(Protocol):
    """What a training draws from: a `numpy.random.Generator`, or what stands for one."""

    def permutation(self, x: Any, /) -> Any:
        """The rows' numbers in another order."""

    def integers(self, low: int, high: int, size: Any, /) -> Any:
        """Numbers low <= x < high: dropout keys."""


class Task(NamedTuple):
    """A network's formulas and the rows that it is trained on: those with the numbers in `chosen`, or all if None.

    Tasks with equal keys have equal formulas. A `key` of None makes no such promise. `bound` gives the formulas on
    another backend, which a step needs that is recorded.
    """

    backend: Backend
    net: network.Formulas
    dtype: str
    rows: Rows
    chosen: HostArray | None
    key: Hashable = None
    bound: Callable[[Backend], network.Formulas] | None = None

    @property
    def size(self) -> int:
        """The number of rows that are trained on."""
        return int(self.rows.X.shape[0]) if self.chosen is None else len(self.chosen)

    def numbers(self) -> HostArray:
        """The numbers of the rows that are trained on."""
        return np.arange(self.size) if self.chosen is None else self.chosen

    def to_device(self, numbers: HostArray) -> Array:
        """Row numbers on the device."""
        return self.backend.row_numbers(numbers, self.rows.X.shape[0])

    def as_row_numbers(self, numbers: HostArray) -> HostArray:
        """Row numbers on the host, in the dtype that they have on the device."""
        return numbers.astype(row_number_dtype(self.rows.X.shape[0]), copy=False)


class Settings(NamedTuple):
    """How a network is trained; see the arguments of `fit`."""

    optimizer: optimizers.AnyOptimizer
    schedule: Schedule
    batch_size: int
    epochs: int
    shuffle: bool
    patience: int | None
    clip_norm: float | None
    clip_value: float | None


def work(n: int, dims: Sequence[int], settings: Settings) -> float:
    """The number of elements that fused formulas will compute: activations, their derivatives and updates."""
    parameters = sum((a + 1) * b for a, b in itertools.pairwise(dims))
    return settings.epochs * 2.0 * n * sum(dims[1:-1]) + updates(n, settings) * parameters


def updates(n: int, settings: Settings) -> int:
    """The number of updates of a training on n rows."""
    return settings.epochs * -(-n // settings.batch_size)


class Carry(NamedTuple):
    """What one step passes to the next, which may consume it."""

    params: Params
    state: optimizers.State


class Inputs(NamedTuple):
    """What one step takes. For many steps each part has a row for every step, and a backend's `loop` goes through them.

    row_numbers
        The numbers of the rows in the batch; None for all rows.
    dropout_keys
        A key for each hidden layer; None where nothing is dropped.
    coefficients
        The optimizer's coefficients.
    shrink
        The factor by which all weights are multiplied to decay; None where they do not decay.
    shares, l2, l1
        With `Padding`, the factors by which the weights of the rows are multiplied, and the rates of the penalties.
    """

    row_numbers: Any
    dropout_keys: Any
    coefficients: Any
    shrink: Any
    shares: Any = None
    l2: Any = None
    l1: Any = None


class Kept(NamedTuple):
    """The arrays that a step in place keeps: parameters, gradients and the optimizer's slots, as few vectors."""

    own: flat.Together
    slopes: flat.Together
    slots: tuple[Array, ...]


def _gradients(task: Task) -> Callable[[Params, Rows, Inputs, Params | None], tuple[Array, Params]]:
    """The loss and its gradients as a function of the parameters and of what one step takes."""
    net, xp, dtype = task.net, task.net.xp, task.backend.dtype(task.dtype)
    fused = task.backend.fuse(one_hot(xp, dtype), "one_hot")

    def gradients_of(params: Params, samples: Rows, inputs: Inputs, into: Params | None) -> tuple[Array, Params]:
        shares = inputs.shares
        formulas = net if shares is None else net._replace(l2=inputs.l2, l1=inputs.l1)
        X, Y, weights = batch_of(xp, samples, inputs.row_numbers, shares, dtype, fused)
        return network.loss_and_gradients(formulas, params, X, Y, weights, inputs.dropout_keys, into)

    return gradients_of


def _clipped(xp: Namespace, settings: Settings, gradients: Params) -> Params:
    if settings.clip_value is not None:
        gradients = optimizers.clip_by_value(xp, gradients, settings.clip_value)
    if settings.clip_norm is not None:
        gradients = optimizers.clip_by_norm(xp, gradients, settings.clip_norm)
    return gradients


def _in_place(task: Task, settings: Settings) -> Callable[[Kept, Carry, Rows, Inputs], tuple[Carry, Array]]:
    """The step that writes to the arrays that it keeps."""
    assert not settings.optimizer.full_batch
    xp, gradients_of, update = task.net.xp, _gradients(task), optimizers.bind(settings.optimizer, task.backend)
    clips = settings.clip_value is not None or settings.clip_norm is not None

    def run(kept: Kept, carry: Carry, samples: Rows, inputs: Inputs) -> tuple[Carry, Array]:
        own, slopes, slots = kept
        loss, _ = gradients_of(own.layers, samples, inputs, slopes.layers)
        g, shrink = slopes.vector, inputs.shrink
        if clips:
            g = _clipped(xp, settings, (Layer(g, g[:0]),))[0].W
        if shrink is not None:
            weights = own.weights
            weights *= shrink
        update(own.vector, g, *slots, *inputs.coefficients)
        return carry, loss

    return run


def make_step(
    task: Task, settings: Settings, params: Params, optimizer_state: optimizers.State | None = None
) -> tuple[Callable[[Carry, Rows, Inputs], tuple[Carry, Array]], Carry]:
    """One update as a function of arrays and numbers, which never branches on values or waits for the device.

    Returns ``step(carry, samples, inputs) -> (carry, loss)`` and the first carry. On a backend that writes in place the
    arrays of the carry stay the same: they are views of a few vectors, to which `params` are copied. The optimizer
    starts with `optimizer_state`, or with zeros if that is None.
    """
    xp, optimizer = task.net.xp, settings.optimizer
    assert not optimizer.full_batch
    if not (task.backend.in_place and optimizers.is_own(optimizer)):  # a user's own is given one array at a time
        gradients_of, update = _gradients(task), optimizers.bind(optimizer, task.backend)

        def pure(carry: Carry, samples: Rows, inputs: Inputs) -> tuple[Carry, Array]:
            loss, gradients = gradients_of(carry.params, samples, inputs, None)
            gradients = _clipped(xp, settings, gradients)
            coefficients, shrink = inputs.coefficients, inputs.shrink
            return Carry(*optimizers.step(update, carry.params, gradients, carry.state, coefficients, shrink)), loss

        if optimizer_state is None:
            optimizer_state = optimizers.start(task.backend, optimizer, params)
        return pure, Carry(params, optimizer_state)

    own, slopes = flat.together(task.backend, params), flat.together(task.backend, params)
    flat.add(own.layers, params)
    slots = tuple(xp.zeros_like(own.vector) for _ in range(optimizer.slots))
    views = [flat.views(xp, vector, params) for vector in slots]
    if optimizer_state is not None:
        for view, slot in zip(views, optimizers.by_slot(optimizer_state, optimizer.slots), strict=True):
            flat.add(view, slot)
    bound = task.bound

    def on(backend: Backend) -> Callable[..., tuple[Carry, Array]]:
        assert bound is not None
        return _in_place(task._replace(backend=backend, net=bound(backend)), settings)

    key = None if task.key is None else (task.key, kind(task, settings))
    step = InPlace(_in_place(task, settings), Kept(own, slopes, slots), None if bound is None else on, key)
    return step, Carry(own.layers, optimizers.by_layer(views, len(params)))


def chained(
    run: Loop, carry: Carry, groups: Iterable[tuple[Rows, Inputs, int]], position: int = 0, most: int | None = None
) -> Iterator[tuple[Carry, Array]]:
    """Run the loop over one group after another, beginning with the step at `position`."""
    for samples, inputs, steps in groups:
        for done in run(carry, samples, inputs, steps, min(position, steps), most):
            carry = done[0]
            yield done
        position = max(0, position - steps)


def formulas(task: Task) -> Hashable:
    """What the formulas depend on besides the numbers given to them; None if a user's own are among them."""
    net = task.net
    if task.key is None or net.kind is None:
        return None
    return net.kind, net.dropout, net.l2 is not None, net.l1 is not None


def kind(task: Task, settings: Settings) -> Hashable:
    """What a step depends on: equal kinds promise equal steps, and None makes no promise."""
    optimizer, known = settings.optimizer, formulas(task)
    assert not optimizer.full_batch
    if known is None or not optimizers.is_own(optimizer):
        return None
    return known, optimizer.name, tuple(optimizer.settings.items()), settings.clip_norm, settings.clip_value


def batch_of(
    xp: Namespace,
    samples: Rows,
    numbers: Array | None,
    shares: Array | None,
    dtype: Any,
    fused: Callable[..., Array] | None = None,
) -> Batch:
    """The rows of those numbers (all, if None), their weights multiplied by their shares, if there are any.

    `fused` is as in `gather`.
    """
    batch = gather(xp, samples, numbers, dtype, fused)
    if shares is None:
        return batch
    shares = xp.reshape(shares, (-1, 1))
    return batch._replace(weights=shares if batch.weights is None else shares * batch.weights)


def dropout_keys(task: Task, batches: int, rng: Draws) -> tuple[HostArray, ...] | None:
    """The dropout keys of an epoch's batches for each hidden layer; None if nothing is dropped."""
    if not any(rate > 0 for rate in task.net.dropout):
        return None
    keys = rng.integers(-(2**31), 2**31, (batches, len(task.net.dropout))).astype(np.int32)
    return tuple(keys.T)


def numbers(
    task: Task, settings: Settings, t: int, rates: Sequence[float]
) -> tuple[tuple[HostArray, ...], HostArray | None]:
    """The coefficients of an epoch's updates, and the factors by which weights decay, after t earlier updates."""
    optimizer = settings.optimizer
    assert not optimizer.full_batch
    coefficients = [optimizer.coefficients(t + 1 + k, rate) for k, rate in enumerate(rates)]
    decay = optimizer.weight_decay
    shrink = np.asarray([1.0 - rate * decay for rate in rates]) if decay else None
    return tuple(np.asarray(numbers, np.float64) for numbers in zip(*coefficients, strict=True)), shrink
