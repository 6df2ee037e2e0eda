"""The arguments of `fit`, checked at the door."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dlx import checks, data, initializers, losses, network, optimizers, quasi_newton, schedules, training
from dlx.backend import Array, Backend

Listener = Callable[[Any], Any]  # of a Network


def widths(layer_dims: Any) -> tuple[int, ...]:
    """The widths of input, hidden layers and output."""
    remedy = "For example (784, 256, 10): inputs, hidden units, outputs."
    if isinstance(layer_dims, str) or not isinstance(layer_dims, Sequence | np.ndarray):
        checks.reject("layer_dims", "be a sequence of widths", repr(layer_dims), remedy, TypeError)
    if len(layer_dims) < 2:
        checks.reject("layer_dims", "hold at least an input and an output width", tuple(layer_dims), remedy)
    return tuple(checks.integer(f"layer_dims[{l}]", d, low=1, remedy=remedy) for l, d in enumerate(layer_dims))


def settings(
    optimizer: Any,
    learning_rate: Any,
    batch_size: Any,
    epochs: Any,
    shuffle: bool,
    patience: Any,
    clip_norm: Any,
    clip_value: Any,
) -> training.Settings:
    """How to train."""
    chosen = optimizers.get(optimizer)
    if isinstance(chosen, quasi_newton.LBFGS) and (clip_norm is not None or clip_value is not None):
        checks.reject("clip_norm", "be None with lbfgs", "a limit", "Its line search needs the true gradient.")
    own_rate = chosen.learning_rate if isinstance(chosen, optimizers.Optimizer) else None
    return training.Settings(
        optimizer=chosen,
        schedule=schedules.get(learning_rate if own_rate is None else own_rate),
        batch_size=sys.maxsize
        if batch_size is None
        else checks.integer("batch_size", batch_size, low=1, remedy="None takes all rows."),
        epochs=checks.integer("epochs", epochs, low=1, remedy="Use 100, for example."),
        shuffle=bool(shuffle),
        patience=None if patience is None else checks.integer("patience", patience, low=1, remedy="None never stops."),
        clip_norm=_limit("clip_norm", clip_norm),
        clip_value=_limit("clip_value", clip_value),
    )


def _limit(name: str, limit: Any) -> float | None:
    return None if limit is None else checks.number(name, limit, low=0, above=True, remedy="Use 1.0, or None.")


def dropout_rates(dropout: Any, hidden: int, optimizer: optimizers.Optimizer | quasi_newton.LBFGS) -> tuple[float, ...]:
    """One rate for each hidden layer."""
    rates = list(dropout) if isinstance(dropout, Sequence) and not isinstance(dropout, str) else [dropout] * hidden
    if len(rates) != hidden:
        checks.reject("dropout", f"be one rate or a sequence of {hidden}", len(rates), "Name one a hidden layer.")
    remedy = "It is the share of units that is dropped: 0.1 drops 10 %."
    found = tuple(
        checks.number("dropout", each, low=0, high=1, below=True, remedy=remedy) for each in rates or [dropout]
    )
    if isinstance(optimizer, quasi_newton.LBFGS) and any(found):
        checks.reject("dropout", "be 0 with lbfgs", dropout, "Its line search needs a loss that does not change.")
    return found[:hidden]


def listeners(callbacks: Any) -> dict[str, list[Listener]]:
    """What to call on which event."""
    events: dict[str, list[Listener]] = {"on_start": [], "on_epoch_end": [], "on_end": []}
    for each in callbacks if isinstance(callbacks, Sequence) else [callbacks]:
        methods = {event: getattr(each, event) for event in events if callable(getattr(each, event, None))}
        if not methods and not callable(each):
            checks.reject(
                "callbacks",
                "be functions of the network, or objects with on_start, on_epoch_end or on_end",
                repr(each),
                "For example callbacks=[lambda net: print(net.history['loss'][-1])].",
                TypeError,
            )
        for event, method in (methods or {"on_epoch_end": each}).items():
            events[event].append(method)
    return events


def generator(rng: Any) -> np.random.Generator:
    """The one generator of a fit, after SPEC 7."""
    try:
        if isinstance(rng, np.random.RandomState | bool | str | float):
            raise TypeError
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        shown = repr(rng) if isinstance(rng, bool | str | float | int) else type(rng).__name__
        rule = "be None, an int >= 0, a SeedSequence, a BitGenerator or a Generator"
        kind = ValueError if isinstance(rng, int) and not isinstance(rng, bool) else TypeError
        checks.reject("rng", rule, shown, "Pass an int, or numpy.random.default_rng(seed).", kind)


def initializer(init: Any, dims: Sequence[int]) -> initializers.Initializer | list[tuple[Any, Any]] | None:
    """A function, None for "auto", or the user's own pairs (W, b), checked for their shapes."""
    if isinstance(init, str) or callable(init) or not isinstance(init, Sequence):
        return initializers.get(init)
    expected = list(pairwise(dims))
    if len(init) != len(expected) or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in init):
        rule = f"hold {len(expected)} pairs (W, b), one for each layer"
        checks.reject("init", rule, f"{len(init)} of something else", "For example init=net.params.")
    for l, ((W, b), (d_in, d_out)) in enumerate(zip(init, expected, strict=True)):
        shapes = np.shape(W), np.shape(b)
        if shapes[0] != (d_in, d_out) or shapes[1] not in ((d_out,), (1, d_out)):
            rule = f"have W of shape {(d_in, d_out)} and b of shape {(1, d_out)}"
            checks.reject(f"init[{l}]", rule, f"{shapes[0]} and {shapes[1]}", "Change layer_dims or the arrays.")
    return [(W, b) for W, b in init]


def named(initial: Any) -> dict[str, Any]:
    """The arrays of given pairs, by the names that errors call them."""
    pairs = initial if isinstance(initial, list) else []
    return {f"init[{l}].{part}": each for l, pair in enumerate(pairs) for part, each in zip("Wb", pair, strict=True)}


def validation_source(validation: Any) -> tuple[Any, Any, float | None]:
    """X_val, y_val, share: the first two or the last are None."""
    if validation is None:
        return None, None, None
    if isinstance(validation, Sequence) and not isinstance(validation, str) and len(validation) == 2:
        return validation[0], validation[1], None
    remedy = "Use 0.1 for a tenth of the rows, or (X_val, y_val)."
    return (
        None,
        None,
        checks.number("validation", validation, low=0, high=1, above=True, below=True, remedy=remedy),
    )


def loss_for(loss: Any, y: data.HostArray, outputs: int) -> losses.Loss:
    """What "auto" stands for, checked against the targets' kind."""
    if loss == "auto" and data.holds_labels(y):
        loss = "binary_cross_entropy" if outputs == 1 else "cross_entropy"
    elif loss == "auto" and y.dtype.kind in "biu":
        remedy = (
            "Pass loss='cross_entropy' for one-hot rows, 'binary_cross_entropy' for several labels a row, or y.ravel()."
        )
        checks.reject("loss", "be named where `y` has two dimensions of integers", "'auto'", remedy)
    elif loss == "auto":
        loss = "squared_error"
    found = losses.get(loss)
    if found.name == "cross_entropy" and outputs == 1:
        checks.reject(
            "layer_dims",
            "end in at least 2 for cross_entropy",
            outputs,
            "One output takes binary_cross_entropy.",
        )
    return found


def try_own_functions(
    net: network.Formulas, backend: Backend, compute: Any, names: Sequence[str], outputs: int
) -> None:
    """A user's own functions are called once, on two rows of zeros, so that a wrong shape shows before any work."""
    Z = backend.xp.zeros((2, outputs), dtype=compute, device=backend.device)
    for l, f_df in enumerate(net.hidden):
        if (names[l] == "custom" and not _keeps_shape(f_df.f(Z), Z)) or not _keeps_shape(f_df.df(Z, f_df.f(Z)), Z):
            checks.reject(
                f"activation[{l}]",
                "return arrays of the shape and dtype of z",
                "another",
                "It works elementwise.",
            )
    if names[-1] == "custom":
        value, delta = net.loss.value(Z, Z), net.loss.delta(Z, Z)
        if tuple(value.shape) != (2, 1) or not _keeps_shape(delta, Z):
            rule = "return value of shape (n, 1) and delta of shape (n, K)"
            shapes = f"{tuple(value.shape)} and {tuple(delta.shape)} for (2, {outputs})"
            checks.reject("loss", rule, shapes, "Sum the value over outputs with keepdims=True.")


def _keeps_shape(found: Array, z: Array) -> bool:
    return bool(getattr(found, "shape", None) == z.shape and found.dtype == z.dtype)
