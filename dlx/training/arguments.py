"""Checks of the arguments of `fit` that are not data, each of which becomes what a training needs."""

from __future__ import annotations

import inspect
import itertools
import numbers
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dlx import activations, checks, initializers, losses, nearest, optimizers, quasi_newton, schedules
from dlx.backend import HOST, Array, Backend, library_of
from dlx.data import features, labels, parameters, targets
from dlx.host import HostArray
from dlx.training import progress_bar, steps

DEFAULT_RATE = 1e-3  # the learning rate of `fit`
MOST_WEIGHTS = 2**60 - 1  # of a layer, so that the number of its bytes fits an integer of 64 bits
Listener = Callable[[Any], Any]  # takes a Network


def widths(layer_dims: Any) -> tuple[int, ...]:
    """The widths of input, hidden layers and output."""
    remedy = "For example (784, 256, 10): inputs, hidden units, outputs."
    if (
        isinstance(layer_dims, str | bytes)
        or not isinstance(layer_dims, Sequence | np.ndarray)
        or not np.ndim(layer_dims)
    ):
        checks.reject("layer_dims", "be a sequence of widths", repr(layer_dims), remedy, TypeError)
    if len(layer_dims) < 2:
        checks.reject("layer_dims", "hold at least an input and an output width", tuple(layer_dims), remedy)
    dims = tuple(checks.integer(f"layer_dims[{l}]", d, low=1, remedy=remedy) for l, d in enumerate(layer_dims))
    if any(d_in * d_out > MOST_WEIGHTS for d_in, d_out in itertools.pairwise(dims)):
        checks.reject("layer_dims", "have layers of fewer than 2**60 weights", dims, remedy)
    return dims


def settings(
    optimizer: Any,
    learning_rate: Any,
    batch_size: Any,
    epochs: Any,
    shuffle: Any,
    patience: Any,
    clip_norm: Any,
    clip_value: Any,
) -> steps.Settings:
    """How to train: the arguments of `fit` that a training reads, checked."""
    chosen = optimizers.get(optimizer)
    for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if isinstance(chosen, quasi_newton.LBFGS) and limit is not None:
            checks.reject(name, "be None with lbfgs", limit, "Its line search needs the true gradient.")
    schedule = _schedule(learning_rate)
    own_rate = chosen.learning_rate
    if own_rate is not None and learning_rate is not DEFAULT_RATE:  # by identity: a 0.001 that the caller wrote counts
        got = f"{checks.shown(learning_rate)} beside the optimizer's own"
        checks.reject("learning_rate", "be given once", got, "Leave it out of fit or out of the optimizer.")
    if not isinstance(shuffle, bool | np.bool_):
        checks.reject("shuffle", "be True or False", repr(shuffle), "False keeps the rows' order.", TypeError)
    return steps.Settings(
        optimizer=chosen,
        schedule=schedule if own_rate is None else _schedule(own_rate),
        batch_size=_count("batch_size", batch_size, "None takes all rows.") or sys.maxsize,
        epochs=checks.integer("epochs", epochs, low=1, remedy="Use 100, for example."),
        shuffle=bool(shuffle),
        patience=_count("patience", patience, "None never stops."),
        clip_norm=_limit("clip_norm", clip_norm),
        clip_value=_limit("clip_value", clip_value),
    )


def _count(name: str, count: Any, remedy: str) -> int | None:
    """An integer of at least 1, or None."""
    return None if count is None else checks.integer(name, count, low=1, remedy=remedy)


def _schedule(learning_rate: Any) -> schedules.Schedule:
    """A schedule that checks its rates: floats >= 0, since numbers of another type would change the weights' dtype."""
    schedule = schedules.get(learning_rate)
    if not _takes(schedule, 3):
        rule, remedy = "take (step, steps, losses)", "dlx's own are made by a call: dlx.schedules.cosine(1e-3)."
        checks.reject("learning_rate", rule, repr(learning_rate), remedy, TypeError)

    def checked(step: int, steps: int, losses: Sequence[float]) -> float:
        rate = schedule(step, steps, losses)
        return checks.number("learning_rate", rate, low=0, remedy="So must each rate of a schedule.")

    checked(0, 100, [])
    if isinstance(schedule, schedules.Named):
        return schedules.Named(checked, schedule.name, schedule.settings)
    return checked


def verbosity(verbose: Any) -> int:
    """How much to show; True counts as 1, which needs tqdm."""
    level = int(verbose) if isinstance(verbose, bool) else verbose
    level = checks.integer("verbose", level, low=0, remedy="1 shows a bar, 2 prints a line an epoch, 0 nothing.")
    if level == 1:
        progress_bar.bars()  # raises here if tqdm is missing, and not after the training has begun
    return level


def streaming(stream: Any, X: Array, optimizer: optimizers.AnyOptimizer) -> bool:
    """Whether X stays on the host, from where batches go to the device one by one."""
    if not isinstance(stream, bool | np.bool_):
        checks.reject("stream", "be True or False", repr(stream), "True keeps X on the host.", TypeError)
    if stream and library_of(X) not in (None, HOST):  # None for a matrix of SciPy's
        checks.reject("stream", "be False where X lies on a device", stream, "Pass X as a NumPy array.")
    if stream and isinstance(optimizer, quasi_newton.LBFGS):
        checks.reject("stream", "be False with lbfgs", stream, "It needs all rows at once; use adam, for example.")
    return bool(stream)


def _limit(name: str, limit: Any) -> float | None:
    """A number above 0, or None."""
    return None if limit is None else checks.number(name, limit, low=0, above=True, remedy="Use 1.0, or None.")


def dropout_rates(dropout: Any, hidden: int, optimizer: optimizers.AnyOptimizer) -> tuple[float, ...]:
    """The dropout rate of each of the `hidden` layers, from one rate for all of them or one for each."""
    by_layer = isinstance(dropout, Sequence) and not isinstance(dropout, str)
    if by_layer and len(dropout) != hidden:
        checks.reject(
            "dropout", f"be one rate or a sequence of {hidden}", len(dropout), "Name one for each hidden layer."
        )
    remedy = "It is the share of units that is dropped: 0.1 drops 10 %."
    rates = tuple(
        checks.number("dropout", rate, low=0, high=1, below=True, remedy=remedy)
        for rate in (dropout if by_layer else [dropout])
    )
    if isinstance(optimizer, quasi_newton.LBFGS) and any(rates):
        checks.reject("dropout", "be 0 with lbfgs", dropout, "Its line search needs a loss that does not change.")
    return rates if by_layer else rates * hidden


def listeners(callbacks: Any) -> dict[str, list[Listener]]:
    """The functions to call on each event, from one callback or a sequence of them."""
    events: dict[str, list[Listener]] = {"on_start": [], "on_epoch_end": [], "on_end": []}
    several = isinstance(callbacks, Sequence) and not isinstance(callbacks, str)
    for callback in callbacks if several else [callbacks]:
        others = [name for name in dir(callback) if name.startswith("on_") and name not in events]
        if hooks := [name for name in others if callable(getattr(callback, name, None))]:
            rule, remedy = f"have no hooks but {', '.join(events)}", f"Did you mean {nearest.hook(hooks[0])}?"
            owner = callback.__name__ if isinstance(callback, type) else type(callback).__name__
            checks.reject("callbacks", rule, f"{owner}.{hooks[0]}", remedy, TypeError)
        methods = {event: getattr(callback, event) for event in events if callable(getattr(callback, event, None))}
        if isinstance(callback, type) or not (methods or callable(callback)):
            checks.reject(
                "callbacks",
                "be functions of the network, or objects with on_start, on_epoch_end or on_end",
                repr(callback),
                "For example callbacks=[lambda net: print(net.history['loss'][-1])].",
                TypeError,
            )
        for event, method in (methods or {"on_epoch_end": callback}).items():
            if not _takes(method, 1):
                rule, remedy = "take one argument, the network", "For example lambda net: ..."
                checks.reject("callbacks", rule, repr(callback), remedy, TypeError)
            events[event].append(method)
    return events


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    """Whether the function can be called with so many positional arguments, as far as Python can tell."""
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # a builtin function without a signature
        return True
    return True


def generator(rng: Any) -> np.random.Generator:
    """The one generator of a training, from what `numpy.random.default_rng` takes (SPEC 7)."""
    try:
        if isinstance(rng, np.random.RandomState | bool | str | float):
            raise TypeError
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        shown = str(rng) if isinstance(rng, numbers.Real) else repr(rng) if isinstance(rng, str) else type(rng).__name__
        rule = "be None, an int >= 0, a SeedSequence, a BitGenerator or a Generator"
        kind = ValueError if isinstance(rng, numbers.Integral) and not isinstance(rng, bool) else TypeError
        checks.reject("rng", rule, shown, "Pass an int, or numpy.random.default_rng(seed).", kind)


def initializer(init: Any, dims: Sequence[int]) -> initializers.Initializer | list[tuple[Any, Any]] | None:
    """A function, None for "auto", or the user's own pairs (W, b), whose shapes are checked here."""
    if isinstance(init, str) or callable(init) or not isinstance(init, Sequence):
        return initializers.get(init)
    pairs = parameters.as_pairs(init, "init")
    if parameters.layer_dims(pairs) != tuple(dims):
        rule = f"have the widths of layer_dims, {tuple(dims)}"
        checks.reject("init", rule, parameters.layer_dims(pairs), "Change layer_dims or the arrays.")
    return pairs


def validation_source(validation: Any) -> tuple[Any, Any, float | None]:
    """X_val, y_val and the share of rows to hold out: either the first two or the last are None."""
    if validation is None:
        return None, None, None
    remedy = "Use 0.1 for a tenth of the rows, or (X_val, y_val)."
    if isinstance(validation, Sequence) and not isinstance(validation, str):
        if len(validation) != 2 or any(array is None for array in validation):
            got = f"{len(validation)} of them, {sum(array is None for array in validation)} None"
            checks.reject("validation", "be a share of the rows or two arrays", got, remedy, TypeError)
        return validation[0], validation[1], None
    return None, None, checks.number("validation", validation, low=0, high=1, above=True, below=True, remedy=remedy)


def loss_for(loss: Any, y: HostArray, outputs: int) -> losses.Loss:
    """The loss that `loss` names, or for "auto" the one for targets like `y`; checked against the number of outputs."""
    if isinstance(loss, str) and loss == "auto":
        loss = _loss_of(y, outputs)
    chosen = losses.get(loss)
    if chosen.name == "quantile" and isinstance(chosen.settings["q"], list) and len(chosen.settings["q"]) != outputs:
        rule = f"end in {len(chosen.settings['q'])}, one output for each q"
        checks.reject("layer_dims", rule, outputs, "Or pass a single q.")
    if chosen.name == "cross_entropy" and outputs == 1:
        remedy = "One output takes binary_cross_entropy."
        checks.reject("layer_dims", "end in at least 2 for cross_entropy", outputs, remedy)
    return chosen


def _loss_of(y: HostArray, outputs: int) -> str:
    """The name of the loss for labels, or for real numbers; raises for targets that may be either."""
    if labels.are_labels(y):
        return "binary_cross_entropy" if outputs == 1 else "cross_entropy"
    if y.ndim == 1 and y.dtype.kind not in "biuf":
        numbers = labels.real(y) if y.dtype.kind == "O" else None
        # whole numbers that are still objects here: `labels.settled` found no plain dtype that holds them
        if numbers is None or (numbers[~np.isnan(numbers)] % 1 == 0).all():
            labels.reject_labels(y, "y")
    real = "or loss='squared_error' for real targets."
    if targets.are_one_hot(y):
        remedy = f"Pass loss='cross_entropy' for classes, {real}"
        checks.reject("loss", "be named where the rows of `y` are one-hot", "'auto'", remedy)
    if outputs == 1 and targets.hold_zero_and_one(y):
        remedy = f"Pass loss='binary_cross_entropy' for no and yes, {real}"
        checks.reject("loss", "be named where `y` holds 0 and 1 alone", "'auto'", remedy)
    if y.ndim == 2 and y.dtype.kind in "biu":
        remedy = f"Pass numpy.ravel(y) for one label a row, loss='binary_cross_entropy' for several, {real}"
        checks.reject("loss", "be named where `y` has two dimensions of integers", "'auto'", remedy)
    return "squared_error"


def try_own_functions(
    hidden: Sequence[activations.Activation], loss: losses.Loss, backend: Backend, compute: Any, outputs: int
) -> None:
    """Call a user's own functions once, on two rows of zeros, so that a wrong shape is reported before any work."""
    if all(map(activations.is_own, hidden)) and losses.is_own(loss):
        return
    Z = backend.xp.zeros((2, outputs), dtype=compute, device=backend.device)
    for l, activation in enumerate(hidden):
        if activations.is_own(activation):
            continue
        f, df = activation.bind(backend.xp)
        a = f(Z)
        if not (_keeps_shape(a, Z) and _keeps_shape(df(Z, a), Z)):
            rule = "return arrays of the shape and dtype of z, from f(z) and from df(z, a)"
            checks.reject(f"activation[{l}]", rule, "others", "It works elementwise.")
    if not losses.is_own(loss):
        array = partial(backend.asarray, dtype=features.dtype_name(Z))
        value, delta, predict = loss.bind(backend.xp, array)
        results = [value(Z, Z), delta(Z, Z), predict(Z)]
        shapes = [tuple(getattr(result, "shape", ())) for result in results]
        if shapes != [(2, 1), (2, outputs), (2, outputs)] or any(result.dtype != Z.dtype for result in results):
            rule = "return value of shape (n, 1), delta and predict of shape (n, K), in the dtype of the scores"
            got = f"{', '.join(map(str, shapes))} for scores of shape (2, {outputs})"
            checks.reject("loss", rule, got, "Sum the value over outputs with keepdims=True.")


def _keeps_shape(result: Array, z: Array) -> bool:
    """Whether a function returned an array of the shape and the dtype of its argument z."""
    return bool(getattr(result, "shape", None) == z.shape and result.dtype == z.dtype)
