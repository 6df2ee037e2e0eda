"""What a diagnosis looks at: facts of the fit, and figures of the network, its history and its data, on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlx import activations, checks, losses, network, scoring
from dlx.backend import HOST, Array, Backend, Namespace, get_backend, library_of
from dlx.data import features, samples, targets
from dlx.data.features import HostArray
from dlx.data.placement import common_backend
from dlx.network import Layer, Params
from dlx.training.plan import Plan

AT_START = 128  # rows for the loss at the start: a batch
OFF_BOUND = 1e-6  # of a mean at a bound of the predictions, which no score reaches


class Facts(NamedTuple):
    """What only the fit knows: its loss at the start, and whether it had weights of rows, `patience` and dropout.

    `start` (or nan) is the mean of some hundred rows, and `error` its standard error.
    `unseen` are the labels that have rows to train on, but none among the validation rows that were drawn.
    """

    start: float
    error: float
    weighted: bool
    restored: bool
    unseen: tuple[Any, ...]
    dropout: bool = False


class Trained(Protocol):
    """What is looked at of a network; see `dlx.Network`."""

    backend: Backend
    dtype: str
    layer_dims: tuple[int, ...]
    params: Params
    activation: tuple[activations.Activation, ...]
    loss: losses.Loss
    classes: HostArray | None
    feature_names: list[str] | None
    history: dict[str, list[float]]
    facts: Facts | None
    missing: str

    @property
    def formulas(self) -> network.Formulas:
        """Without dropout and penalties."""

    def to(self, backend: Any) -> Trained:
        """A copy on another backend."""


class Evidence(NamedTuple):
    """All that the rules look at, on the host.

    `rows` says how many were looked at; `columns` (3, d0) holds lowest, highest and root mean square of each input,
    `slopes` the largest |f'| of each hidden unit, `signals` (L,) the norms of ∂J/∂Z_l; `guesses` are the losses of all
    scores zero and of predicting the mean, `now` those of the training and validation data, `unseen` the labels that
    have no row among the latter.
    """

    rows: str
    sampled: int
    columns: HostArray
    hidden: tuple[str, ...]
    slopes: list[HostArray]
    signals: HostArray
    guesses: tuple[float, float]
    history: dict[str, list[float]]
    facts: Facts | None
    now: tuple[float, float] | None
    unseen: tuple[Any, ...]


def outputs(net: Trained, X: Array, stays: bool) -> list[Array]:
    """A_1, ..., A_{L-1} and the scores Z_L, each (n, d_l), of checked X; on the backend, if they `stay` there."""
    backend, formulas, working = net.backend, net.formulas, net.backend.dtype(net.dtype)

    def function(params: Params, rows: Array) -> tuple[Array, ...]:
        trace = network.forward(formulas, params, formulas.xp.astype(rows, working, copy=False))
        return *trace.fs, trace.Zs[-1]

    call = backend.rowwise(function, None if formulas.kind is None else ("outputs", formulas.kind))
    blocks = scoring.Asked(backend, formulas, net.params).blocks(X)
    found = ((first, list(call(net.params, rows, not stays))) for first, _, rows in blocks)
    return scoring.gathered(found, X.shape[0], backend)


def facts(
    plan: Plan,
    initial: Sequence[tuple[Any, Any]],
    X: Array,
    given: samples.Samples,
    split: samples.Split,
    restored: bool,
) -> Facts:
    """Of a fit that begins, computed on the host: there it costs a millisecond, and no library compiles anything.

    X are the rows of the samples where they were given, `split` the numbers of those to train on and to hold out.
    """
    (target, weights), (trained, held), (backend, dtype) = given[1:3], split, (plan.backend, plan.dtype)
    unseen = () if trained is None or held is None else _unseen(target, trained, target, held)
    mask = target.present  # is known from y
    weighted = weights is not None and not (mask is not None and np.array_equal(weights, mask))
    net, dropout = plan.formulas_on_host(), any(plan.dropout)
    if net is None:
        return Facts(math.nan, math.nan, weighted, restored, unseen, dropout)
    widest = max(max(W.shape) for W, _ in initial)
    most = min(AT_START, max(2, get_backend(HOST).most_elements // widest))
    some = np.arange(0, X.shape[0], -(-X.shape[0] // most))
    A = features.taken(X, some, backend)
    A = (A if features.compressed(A) else targets.on_host(A, backend)).astype(dtype)
    classes = np.arange(initial[-1][0].shape[1])[None, :] if target.one_hot else None
    Y = features.truth(np, target.Y[some].astype(dtype), classes, dtype)
    params = tuple(Layer(*(targets.on_host(each, backend).astype(dtype) for each in pair)) for pair in initial)
    with get_backend(HOST).scope():
        keys = range(1, len(params))  # with dropout, as the epochs' losses are
        Z = network.forward(net, params, A, keys).Zs[-1]
        w = None if weights is None else weights[some]
        values = network.values_at(net, Z, Y, network.weighs_targets(w))
        start = float(network.mean_loss(np, values, w) + network.penalty(net, params))
        error = float(np.std(values if w is None else (w * values).sum(axis=1))) / math.sqrt(len(values))
        return Facts(start, error, weighted, restored, unseen, dropout)


def gather(net: Trained, X: Any, y: Any, validation: Any) -> Evidence:
    """The figures for these training data, and for the validation data, if there are any."""
    given = _samples(net, X, y)
    rows, n = given.where_they_lie(net.backend), given.X.shape[0]
    looked = _most(net, rows.X)
    numbers = np.sort(np.random.default_rng(0).choice(n, looked, replace=False)) if n > looked else np.arange(n)
    now, unseen = None, () if net.facts is None else net.facts.unseen
    if validation is not None:
        held = _samples(net, *_pair(validation), suffix="_val")
        now = _loss(net, rows, numbers), _loss(net, held.where_they_lie(net.backend), None)
        unseen = _unseen(given.target, np.arange(n), held.target, np.arange(held.X.shape[0]))
    looking, batch = _looked_at(net, rows, numbers)
    return Evidence(
        f"all {n:,} rows" if n <= looked else f"{looked:,} of the {n:,} rows",
        len(numbers),
        _columns(looking, batch.X),
        tuple(each.name for each in net.activation),
        *_signals(looking, batch),
        _guesses(looking, batch),
        net.history,
        net.facts,
        now,
        unseen,
    )


def _looked_at(net: Trained, rows: features.Rows, numbers: HostArray) -> tuple[Trained, features.Batch]:
    """Those rows, and who looks at them: on the host where the library would compile for each number of rows."""
    if net.backend.padded(1) is None or net.formulas.kind is None:
        return net, features.batch(rows, numbers, net.backend, net.dtype)
    X = features.taken(rows.X, numbers, net.backend)
    X = X if features.compressed(X) or library_of(X) == HOST else net.backend.to_host(X)
    Y, w = (None if each is None else each[numbers] for each in (rows.Y, rows.weights))
    classes = None if rows.classes is None else np.arange(rows.classes.shape[1])[None, :]
    host = net.to(HOST)
    with host.backend.scope():
        rows = features.Rows(X, Y, w, classes)
        return host, features.batch(rows, np.arange(len(numbers)), host.backend, host.dtype)


def _pair(validation: Any) -> tuple[Any, Any]:
    if not isinstance(validation, Sequence) or isinstance(validation, str) or len(validation) != 2:
        remedy = "A share that `fit` drew is known from the fit: leave it out."
        checks.reject("validation", "be the pair (X_val, y_val)", checks.shown(validation), remedy, TypeError)
    return validation[0], validation[1]


def _samples(net: Trained, X: Any, y: Any, suffix: str = "") -> samples.Samples:
    """The samples where they lie, checked."""
    common_backend(net.backend, {f"X{suffix}": X, f"y{suffix}": y}, of_network=True)
    return samples.for_network(net, X, y, suffix=suffix)


def _most(net: Trained, X: Array) -> int:
    """How many rows are looked at: fewer where they are very wide."""
    stays = features.compressed(X) and net.backend.multiplies_sparse
    return scoring.rows_sampled(max(net.layer_dims[1:] if stays else net.layer_dims))


def _columns(net: Trained, X: Array) -> HostArray:
    """Lowest, highest, root mean square of each column."""
    xp, n = net.backend.xp, X.shape[0]
    low, high, squares = np.inf, -np.inf, 0.0
    for first, last in features.spans(n, scoring.ELEMENTS_SAMPLED // X.shape[1]):
        rows = X[first:last].toarray() if features.compressed(X) else X[first:last, :]
        figures = [xp.min(rows, axis=0), xp.max(rows, axis=0), xp.sqrt(xp.mean(rows * rows, axis=0))]
        lowest, highest, roots = net.backend.stack_to_host(figures).astype(np.float64)
        low, high = np.minimum(low, lowest), np.maximum(high, highest)
        squares = squares + roots**2 * ((last - first) / n)
    return np.stack([low, high, np.sqrt(squares)])


def _signals(net: Trained, batch: features.Batch) -> tuple[list[HostArray], HostArray]:
    """The largest |f'| of each hidden unit, and the norm of ∂J/∂Z_l of each layer."""
    xp, formulas = net.backend.xp, net.formulas
    trace = network.forward(formulas, net.params, batch.X)
    slopes = [
        net.backend.to_host(xp.max(xp.abs(activation.bind(xp).df(Z, a)), axis=0))
        for activation, Z, a in zip(net.activation, trace.Zs[:-1], trace.fs, strict=True)
    ]
    delta = network.mean_delta(formulas.loss.delta(trace.Zs[-1], batch.Y), batch.weights)
    norms = [_norm(xp, each) for _, each in network.deltas(formulas, net.params, trace, delta)]
    return slopes, net.backend.stack_to_host(norms)[::-1].astype(np.float64)


def _norm(xp: Namespace, x: Array) -> Array:
    """|x|, by its largest element, so that no square of a small one underflows."""
    top = xp.max(xp.abs(x))
    scaled = x / xp.where(top > 0, top, xp.ones_like(top))
    return top * xp.sqrt(xp.sum(scaled * scaled))


def _guesses(net: Trained, batch: features.Batch) -> tuple[float, float]:
    """The mean loss of scores that are all zero, and of those whose prediction is the mean of Y."""
    xp, (_, Y, w) = net.backend.xp, batch
    zero = xp.zeros((Y.shape[0], net.layer_dims[-1]), dtype=Y.dtype, device=net.backend.device)
    average = xp.mean(Y, axis=0, keepdims=True)
    if w is not None:  # there may be no target in a column of the rows that were drawn
        mass = xp.sum(w, axis=0, keepdims=True)
        average = xp.sum(w * Y, axis=0, keepdims=True) / xp.where(mass > 0, mass, xp.ones_like(mass))
    mean = net.backend.to_host(average).astype(np.float64)
    low, high = net.loss.link.range
    scores = net.loss.link.inverse(np, np.clip(mean, low + OFF_BOUND, high - OFF_BOUND))
    both = zero, zero + net.backend.asarray(scores, net.dtype)
    found = [network.loss_at(net.formulas, Z, Y, w) for Z in both]
    at_zero, at_mean = net.backend.stack_to_host(found).tolist()
    weighted = net.facts is not None and net.facts.weighted  # by weights unknown; for classes all give log K at zero
    return at_zero, at_zero if weighted else at_mean


def _loss(net: Trained, rows: features.Rows, numbers: HostArray | None) -> float:
    return scoring.loss_of(net.backend, net.formulas, net.params, rows, numbers)


def _unseen(target: targets.Targets, rows: HostArray, held: targets.Targets, held_rows: HostArray) -> tuple[Any, ...]:
    """The labels of those training rows that no held-out row has."""
    if target.labels is None or held.labels is None or target.classes is None:
        return ()
    return tuple(target.classes[np.setdiff1d(target.labels[rows], held.labels[held_rows])].tolist())
