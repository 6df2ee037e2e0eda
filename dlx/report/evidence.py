"""The figures that a diagnosis judges: those of the network, its history and its data, and facts of the fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlx import activations, checks, losses, network, scoring
from dlx.backend import HOST, Array, Backend, Namespace, get_backend, library_of
from dlx.data import features, samples, targets
from dlx.data.placement import common_backend
from dlx.host import HostArray
from dlx.network import Layer, Params
from dlx.training.plan import Plan

AT_START = 128  # rows for the loss at the start, as many as the default batch has
OFF_BOUND = 1e-6  # how far a mean is kept from a bound of the predictions, which no finite score reaches


class Facts(NamedTuple):
    """What only the fit knows of a training.

    start : float
        The loss before the first update, on some hundred rows; nan for functions that are not computed on the host.
    error : float
        The standard error of `start`.
    weighted : bool
        Whether the fit had weights, other than those that mask missing targets.
    restored : bool
        Whether `patience` restored the best weights.
    unseen : tuple
        The labels of training rows that no row of a validation share drawn by the fit has.
    dropout : bool
        Whether a hidden layer had dropout.
    path : (str, bool) or None
        How the steps ran, in words, and whether a function of the user's own made them slower.
    """

    start: float
    error: float
    weighted: bool
    restored: bool
    unseen: tuple[Any, ...]
    dropout: bool = False
    path: tuple[str, bool] | None = None


class Trained(Protocol):
    """The part of a `dlx.Network` that a diagnosis reads."""

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
        """The formulas of the network, without dropout and penalties."""

    def to(self, backend: Any) -> Trained:
        """A copy on another backend."""


class Evidence(NamedTuple):
    """All figures that the rules judge, on the host.

    rows : str
        The number of rows that the figures are computed from, in words.
    sampled : int
        The same number.
    columns : array (3, d0)
        The lowest value, the highest value and the root mean square of each input.
    hidden : tuple of str
        The name of each hidden activation.
    slopes : list of arrays (d_l,)
        The largest |f'| of each hidden unit.
    signals : array (L,)
        The norm of ∂J/∂Z_l of each layer.
    guesses : pair of float
        The loss of scores that are all zero, and the loss of predicting the mean.
    history : dict of lists
    facts : Facts or None
    now : pair of float, or None without validation data
        The loss of the training rows and of the validation rows.
    unseen : tuple
        The labels that no validation row has.
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
    """A_1, ..., A_{L-1} and the scores Z_L for checked rows `X`, each (n, d_l).

    They are on the backend if they `stay` there, and otherwise on the host.
    """
    backend, formulas, working = net.backend, net.formulas, net.backend.dtype(net.dtype)

    def function(params: Params, rows: Array) -> tuple[Array, ...]:
        trace = network.forward(formulas, params, formulas.xp.astype(rows, working, copy=False))
        return *trace.fs, trace.Zs[-1]

    call = backend.rowwise(function, None if formulas.kind is None else ("outputs", formulas.kind))
    blocks = scoring.Predictor(backend, formulas, net.params).blocks(X)
    results = ((first, list(call(net.params, rows, not stays))) for first, _, rows in blocks)
    return scoring.gathered(results, X.shape[0], backend)


def facts(
    plan: Plan,
    initial: Sequence[tuple[Any, Any]],
    X: Array,
    given: samples.Samples,
    split: samples.Split,
    restored: bool,
) -> Facts:
    """The facts of a fit that begins with the parameters `initial`.

    `X` are the rows of the samples `given`, where they lie. `split` holds the numbers of the rows to train on and to
    validate on. The loss is computed on the host, which takes a millisecond and compiles nothing.
    """
    (target, weights), (train_rows, validation_rows) = given[1:3], split
    backend, dtype = plan.backend, plan.dtype
    unseen: tuple[Any, ...] = ()
    if train_rows is not None and validation_rows is not None:
        unseen = _unseen(target, train_rows, target, validation_rows)
    mask = target.present  # `report` knows it from y, so that it is no weight of the fit's own
    weighted = weights is not None and not (mask is not None and np.array_equal(weights, mask))
    net, dropout = plan.formulas_on_host(), any(plan.dropout)
    if net is None:
        return Facts(math.nan, math.nan, weighted, restored, unseen, dropout)
    widest = max(max(W.shape) for W, _ in initial)
    most = min(AT_START, max(2, get_backend(HOST).most_elements // widest))
    numbers = np.arange(0, X.shape[0], -(-X.shape[0] // most))
    A = features.taken(X, numbers, backend)
    A = (A if features.compressed(A) else targets.on_host(A, backend)).astype(dtype)
    classes = np.arange(initial[-1][0].shape[1])[None, :] if target.one_hot else None
    Y = features.truth(np, target.Y[numbers].astype(dtype), classes, dtype)
    params = tuple(Layer(*(targets.on_host(array, backend).astype(dtype) for array in pair)) for pair in initial)
    with get_backend(HOST).scope():
        keys = range(1, len(params))  # dropout is on, as it is in the losses of the epochs
        Z = network.forward(net, params, A, keys).Zs[-1]
        w = None if weights is None else weights[numbers]
        values = network.values_at(net, Z, Y, network.weighs_targets(w))
        start = float(network.mean_loss(np, values, w) + network.penalty(net, params))
        error = float(np.std(values if w is None else (w * values).sum(axis=1))) / math.sqrt(len(values))
        return Facts(start, error, weighted, restored, unseen, dropout)


def collect(net: Trained, X: Any, y: Any, validation: Any) -> Evidence:
    """The evidence from the training data `X` and `y`, and from the validation data unless they are None."""
    given = _samples(net, X, y)
    rows, n = given.where_they_lie(net.backend), given.X.shape[0]
    most = _most_rows(net, rows.X)
    numbers = np.sort(np.random.default_rng(0).choice(n, most, replace=False)) if n > most else np.arange(n)
    now, unseen = None, () if net.facts is None else net.facts.unseen
    if validation is not None:
        validating = _samples(net, *_pair(validation), suffix="_val")
        now = _loss(net, rows, numbers), _loss(net, validating.where_they_lie(net.backend), None)
        unseen = _unseen(given.target, np.arange(n), validating.target, np.arange(validating.X.shape[0]))
    computing, batch = _computing(net, rows, numbers)
    return Evidence(
        f"all {n:,} rows" if n <= most else f"{most:,} of the {n:,} rows",
        len(numbers),
        _column_figures(computing, batch.X),
        tuple(activation.name for activation in net.activation),
        *_signals(computing, batch),
        _guesses(computing, batch),
        net.history,
        net.facts,
        now,
        unseen,
    )


def _computing(net: Trained, rows: features.Rows, numbers: HostArray) -> tuple[Trained, features.Batch]:
    """The network and the rows with these numbers, on the host if the library would compile for each number of rows."""
    if net.backend.padded(1) is None or net.formulas.kind is None:
        return net, features.batch(rows, numbers, net.backend, net.dtype)
    X = features.taken(rows.X, numbers, net.backend)
    X = X if features.compressed(X) or library_of(X) == HOST else net.backend.to_host(X)
    Y, w = (None if array is None else array[numbers] for array in (rows.Y, rows.weights))
    classes = None if rows.classes is None else np.arange(rows.classes.shape[1])[None, :]
    host = net.to(HOST)
    with host.backend.scope():
        rows = features.Rows(X, Y, w, classes)
        return host, features.batch(rows, np.arange(len(numbers)), host.backend, host.dtype)


def _pair(validation: Any) -> tuple[Any, Any]:
    """Check that `validation` is a pair (X_val, y_val)."""
    if not isinstance(validation, Sequence) or isinstance(validation, str) or len(validation) != 2:
        remedy = "A share that `fit` drew is known from the fit: leave it out."
        checks.reject("validation", "be the pair (X_val, y_val)", checks.shown(validation), remedy, TypeError)
    return validation[0], validation[1]


def _samples(net: Trained, X: Any, y: Any, suffix: str = "") -> samples.Samples:
    """The checked samples, where they lie."""
    common_backend(net.backend, {f"X{suffix}": X, f"y{suffix}": y}, of_network=True)
    return samples.for_network(net, X, y, suffix=suffix)


def _most_rows(net: Trained, X: Array) -> int:
    """The largest number of rows to compute figures from; it is lower for very wide rows."""
    stays_sparse = features.compressed(X) and net.backend.multiplies_sparse
    return scoring.rows_sampled(max(net.layer_dims[1:] if stays_sparse else net.layer_dims))


def _column_figures(net: Trained, X: Array) -> HostArray:
    """The lowest value, the highest value and the root mean square of each column, (3, d0)."""
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
    norms = [_norm(xp, layer_delta) for _, layer_delta in network.deltas(formulas, net.params, trace, delta)]
    return slopes, net.backend.stack_to_host(norms)[::-1].astype(np.float64)


def _norm(xp: Namespace, x: Array) -> Array:
    """The norm |x|, scaled by the largest element so that no square of a small one underflows."""
    top = xp.max(xp.abs(x))
    scaled = x / xp.where(top > 0, top, xp.ones_like(top))
    return top * xp.sqrt(xp.sum(scaled * scaled))


def _guesses(net: Trained, batch: features.Batch) -> tuple[float, float]:
    """The mean loss of scores that are all zero, and of scores whose prediction is the mean of Y."""
    xp, (_, Y, w) = net.backend.xp, batch
    zero = xp.zeros((Y.shape[0], net.layer_dims[-1]), dtype=Y.dtype, device=net.backend.device)
    average = xp.mean(Y, axis=0, keepdims=True)
    if w is not None:  # a column may have no target in the rows that were drawn
        mass = xp.sum(w, axis=0, keepdims=True)
        average = xp.sum(w * Y, axis=0, keepdims=True) / xp.where(mass > 0, mass, xp.ones_like(mass))
    mean = net.backend.to_host(average).astype(np.float64)
    low, high = net.loss.link.range
    scores = net.loss.link.inverse(np, np.clip(mean, low + OFF_BOUND, high - OFF_BOUND))
    both = zero, zero + net.backend.asarray(scores, net.dtype)
    at_zero, at_mean = net.backend.stack_to_host([network.loss_at(net.formulas, Z, Y, w) for Z in both]).tolist()
    # The weights of the fit, and so its weighted mean, are not known here. At zero, labels have log K with any weights.
    weighted = net.facts is not None and net.facts.weighted
    return at_zero, at_zero if weighted else at_mean


def _loss(net: Trained, rows: features.Rows, numbers: HostArray | None) -> float:
    """The loss of the rows with these numbers, or of all rows, without penalties and dropout."""
    return scoring.loss_of(net.backend, net.formulas, net.params, rows, numbers)


def _unseen(
    target: targets.Targets, train_rows: HostArray, validation: targets.Targets, validation_rows: HostArray
) -> tuple[Any, ...]:
    """The labels of those training rows that none of the validation rows has."""
    if target.labels is None or validation.labels is None or target.classes is None:
        return ()
    missing = np.setdiff1d(target.labels[train_rows], validation.labels[validation_rows])
    return tuple(target.classes[missing].tolist())
