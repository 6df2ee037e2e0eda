"""What a diagnosis looks at: facts of the fit, and figures of the network, its history and its data, on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlx import activations, checks, data, losses, network, scoring, targets
from dlx.backend import HOST, Array, Backend, Namespace, common_backend, get_backend
from dlx.data import HostArray
from dlx.network import Layer, Params

ROWS = 4096  # looked at, drawn out of more: a unit that is on in 1 of 1,000 rows is missed with probability e^-4
AT_START = 128  # rows for the loss at the start: a batch


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

    @property
    def formulas(self) -> network.Formulas:
        """Without dropout and penalties."""


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


def outputs(net: Trained, X: Any) -> list[Array]:
    """A_1, ..., A_{L-1} and the scores Z_L, each (n, d_l), on the network's backend."""
    common_backend(net.backend, {"X": X}, of_network=True)
    data.require_names(X, net.feature_names)
    checked = data.features(X, net.backend, net.dtype, net.layer_dims[0])
    trace = network.forward(net.formulas, net.params, _converted(net, checked))
    return [*trace.fs, trace.Zs[-1]]


def facts(
    net: network.Formulas | None,
    initial: Sequence[tuple[Any, Any]],
    X: Array,
    target: targets.Targets,
    weights: HostArray | None,
    parts: tuple[HostArray | None, HostArray | None],
    restored: bool,
    backend: Backend,
    dtype: str,
) -> Facts:
    """Of a fit that begins, computed on the host: there it costs a millisecond, and no library compiles anything.

    `net` are its formulas on NumPy, None where they are a user's own; `parts` the rows to train on and to hold out.
    """
    trained, held = parts
    unseen = () if trained is None or held is None else _unseen(target, trained, target, held)
    if net is None:
        return Facts(math.nan, math.nan, weights is not None, restored, unseen)
    some = slice(None, None, -(-X.shape[0] // AT_START))
    A = targets.on_host(X[some, :], backend).astype(dtype)
    classes = np.arange(initial[-1][0].shape[1])[None, :] if target.one_hot else None
    Y = data.truth(np, target.Y[some].astype(dtype), classes, dtype)
    params = tuple(Layer(*(targets.on_host(each, backend).astype(dtype) for each in pair)) for pair in initial)
    with get_backend(HOST).scope():
        keys = range(1, len(params))  # with dropout, as the epochs' losses are
        Z = network.forward(net, params, A, keys).Zs[-1]
        values, w = net.loss.value(Z, Y), None if weights is None else weights[some]
        start = float(network.mean_loss(np, values, w) + network.penalty(net, params))
        error = float(np.std(values if w is None else w * values)) / math.sqrt(len(values))
        return Facts(start, error, weights is not None, restored, unseen)


def gather(net: Trained, X: Any, y: Any, validation: Any) -> Evidence:
    """The figures for these training data, and for the validation data, if there are any."""
    rows, target = _rows(net, X, y)
    n = rows.X.shape[0]
    numbers = np.sort(np.random.default_rng(0).choice(n, ROWS, replace=False)) if n > ROWS else None
    some = rows if numbers is None else data.some_rows(rows, numbers, net.backend)
    batch = data.gather(net.backend.xp, some, None, net.backend.dtype(net.dtype))
    now, unseen = None, () if net.facts is None else net.facts.unseen
    if validation is not None:
        held, held_target = _rows(net, *_pair(validation), name="_val")
        now = _loss(net, some), _loss(net, held)
        unseen = _unseen(target, np.arange(n), held_target, np.arange(held.X.shape[0]))
    return Evidence(
        f"all {n:,} rows" if numbers is None else f"{ROWS:,} of the {n:,} rows",
        min(n, ROWS),
        _columns(net, batch.X),
        tuple(each.name for each in net.activation),
        *_signals(net, batch),
        _guesses(net, batch.Y),
        net.history,
        net.facts,
        now,
        unseen,
    )


def _pair(validation: Any) -> tuple[Any, Any]:
    if not isinstance(validation, Sequence) or isinstance(validation, str) or len(validation) != 2:
        remedy = "A share that `fit` drew is known from the fit: leave it out."
        checks.reject("validation", "be the pair (X_val, y_val)", checks.shown(validation), remedy, TypeError)
    return validation[0], validation[1]


def _rows(net: Trained, X: Any, y: Any, name: str = "") -> tuple[data.Rows, targets.Targets]:
    common_backend(net.backend, {f"X{name}": X, f"y{name}": y}, of_network=True)
    data.require_names(X, net.feature_names, f"X{name}")
    features = data.features(X, net.backend, net.dtype, net.layer_dims[0], f"X{name}")
    host = targets.on_host(y, net.backend, f"y{name}")
    known = targets.known_classes(net)
    target = targets.check(host, net.loss, net.layer_dims[-1], features.shape[0], known, f"y{name}")
    return targets.place(target, None, features, net.backend, net.dtype, f"y{name}"), target


def _converted(net: Trained, X: Array) -> Array:
    return net.backend.xp.astype(X, net.backend.dtype(net.dtype), copy=False)


def _columns(net: Trained, X: Array) -> HostArray:
    """Lowest, highest, root mean square of each column."""
    xp = net.backend.xp
    low, high = xp.min(X, axis=0), xp.max(X, axis=0)
    return net.backend.stack_to_host([low, high, xp.sqrt(xp.mean(X * X, axis=0))]).astype(np.float64)


def _signals(net: Trained, batch: data.Batch) -> tuple[list[HostArray], HostArray]:
    """The largest |f'| of each hidden unit, and the norm of ∂J/∂Z_l of each layer."""
    xp, formulas = net.backend.xp, net.formulas
    trace = network.forward(formulas, net.params, batch.X)
    slopes = [
        net.backend.to_host(xp.max(xp.abs(activation.bind(xp).df(Z, a)), axis=0))
        for activation, Z, a in zip(net.activation, trace.Zs[:-1], trace.fs, strict=True)
    ]
    delta = network.mean_delta(formulas.loss.delta(trace.Zs[-1], batch.Y), None)
    norms = [_norm(xp, each) for _, each in network.deltas(formulas, net.params, trace, delta)]
    return slopes, net.backend.stack_to_host(norms)[::-1].astype(np.float64)


def _norm(xp: Namespace, x: Array) -> Array:
    """|x|, by its largest element, so that no square of a small one underflows."""
    top = xp.max(xp.abs(x))
    scaled = x / xp.where(top > 0, top, xp.ones_like(top))
    return top * xp.sqrt(xp.sum(scaled * scaled))


def _guesses(net: Trained, Y: Array) -> tuple[float, float]:
    """The mean loss of scores that are all zero, and of those whose prediction is the mean of Y."""
    xp = net.backend.xp
    zero = xp.zeros((Y.shape[0], net.layer_dims[-1]), dtype=Y.dtype, device=net.backend.device)
    mean = net.backend.to_host(xp.mean(Y, axis=0, keepdims=True)).astype(np.float64)
    within = np.clip(mean, 1e-6, 1.0 - 1e-6)  # of probabilities; of counts, above 0
    scores = {
        "real": mean,
        "counts": np.log(np.maximum(mean, 1e-6)),
        "binary": np.log(within) - np.log1p(-within),
        "classes": np.log(within),
    }[net.loss.targets]
    value = net.formulas.loss.value
    found = [network.mean_loss(xp, value(Z, Y), None) for Z in (zero, zero + net.backend.asarray(scores, net.dtype))]
    at_zero, at_mean = net.backend.stack_to_host(found).tolist()
    weighted = net.facts is not None and net.facts.weighted  # by weights unknown; for classes all give log K at zero
    return at_zero, at_zero if weighted else at_mean


def _loss(net: Trained, rows: data.Rows) -> float:
    dtype, xp = net.backend.dtype(net.dtype), net.backend.xp
    Z = scoring.scores(net.backend, net.formulas, net.params, rows.X, dtype)
    Y = data.truth(xp, rows.Y, rows.classes, dtype)
    return float(network.mean_loss(xp, net.formulas.loss.value(Z, Y), None))


def _unseen(target: targets.Targets, rows: HostArray, held: targets.Targets, held_rows: HostArray) -> tuple[Any, ...]:
    """The labels of those training rows that no held-out row has."""
    if target.labels is None or held.labels is None or target.classes is None:
        return ()
    return tuple(target.classes[np.setdiff1d(target.labels[rows], held.labels[held_rows])].tolist())
