"""The figures that the plots show, as NumPy arrays on the host. They are computed without matplotlib."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import checks, network
from dlx.backend import backend_of
from dlx.data import features, labels, samples, targets
from dlx.host import HostArray
from dlx.model import Network

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Curves(NamedTuple):
    """Losses by epoch.

    loss : array (epochs,)
        The "training_loss" of the history, by which the best epoch was chosen, or without one its "loss".
    validation : array (epochs,) or None
    best : int >= 1
        The number of the best epoch.
    """

    loss: HostArray
    validation: HostArray | None
    best: int


class LayerFigures(NamedTuple):
    """The figures of one layer on a sample of rows.

    name : str
        The name of the activation.
    units : int
    activations : array (5,)
        `QUANTILES` of the absolute values that are not zero; nan if all are zero.
    zeros : float
        The share of activations that are zero.
    dead : int
        The number of units whose activation is zero in every row.
    gradients : array (5,)
        As `activations`, for the gradients of the loss by the weights.
    zero_gradients : float
        The share of these gradients that are zero.
    """

    name: str
    units: int
    activations: HostArray
    zeros: float
    dead: int
    gradients: HostArray
    zero_gradients: float


def on_host(x: Any, name: str) -> HostArray:
    """An array of any library, a list or a data frame as a NumPy array."""
    array = features.as_array(x, name)
    return backend_of(array).to_host(array)


def curves(net: Any) -> Curves:
    """The curves of a Network or a fitted estimator. The best epoch has the lowest validation loss, if there is one."""
    history = getattr(net, "history", None) or {
        "loss": getattr(net, "loss_curve_", None),
        "validation_loss": getattr(net, "validation_loss_curve_", None),
    }
    if not history.get("loss"):
        checks.reject("net", "have a history", "a network without one", "Train it with dlx.fit.")
    loss = np.asarray(history.get("training_loss", history["loss"]), np.float64)
    validation: HostArray | None = None
    if history.get("validation_loss") is not None:
        validation = np.asarray(history["validation_loss"], np.float64)
        validation = None if np.isnan(validation).all() else validation
    watched = loss if validation is None else validation
    return Curves(loss, validation, 1 + int(np.argmin(np.where(np.isnan(watched), np.inf, watched))))


def classes_of(net: Any) -> HostArray:
    """The labels of a classifier with one label for each row, in the order of its probabilities."""
    if isinstance(net, Network):
        known = targets.known_classes(net)
        if known is not None:
            return known
    elif getattr(net, "classes_", None) is not None and not getattr(net, "_multilabel", False):
        return np.asarray(net.classes_)
    got = f"{type(net).__name__} of loss {net.loss.name}" if isinstance(net, Network) else type(net).__name__
    checks.reject("net", "be a trained classifier with one label a row", got, "Train it on labels.", TypeError)


def places(y: Any, classes: HostArray) -> HostArray:
    """The class numbers (n,) of the labels `y`."""
    y = targets.on_host(y, backend_of(y))
    if y.ndim != 1:
        checks.reject("y", "hold one label a row, (n,)", f"shape {y.shape}", "For rows of probabilities: y.argmax(1).")
    numbers = labels.places(y, classes)
    if (numbers < 0).any():
        checks.reject("y", "hold labels of the training data", repr(y[numbers < 0].tolist()[0]), "Drop such rows.")
    return numbers


def require_rows(y: HostArray, X: HostArray) -> None:
    """Raise if `y` does not have one entry for each row of `X`."""
    if len(y) != len(X):
        checks.reject("y", f"have {len(X)} rows, one for each row of X", len(y), "Check how they were selected.")


def confusion_counts(net: Any, X: Any, y: Any) -> tuple[HostArray, HostArray]:
    """Counts (K, K) of the true class (row) and the predicted class (column), and the labels (K,)."""
    classes = classes_of(net)
    truth, predicted = places(y, classes), places(net.predict(X), classes)
    require_rows(truth, predicted)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts, classes


def plane(X: Any, name: str = "X") -> HostArray:
    """The rows of `X` as points in the plane, (n, 2) in float64."""
    points = on_host(X, name)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        remedy = "Only a model of two inputs can be drawn in the plane."
        checks.reject(name, "have shape (n, 2)", f"shape {points.shape}", remedy)
    return _finite(points, name)


def real_targets(y: Any) -> HostArray:
    """The targets in float64."""
    return _finite(on_host(y, "y"), "y")


def _finite(x: HostArray, name: str) -> HostArray:
    """Check that `x` holds finite numbers, and return it in float64."""
    if x.dtype.kind not in "biuf":
        checks.reject(name, "hold real numbers", f"dtype {x.dtype}", "Encode it as numbers first.", TypeError)
    if not np.isfinite(x).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(x))[0])
        checks.reject(name, "be finite to be drawn", f"{x[place]} in row {place[0]}", "Fill or drop such rows.")
    return x.astype(np.float64)


def grid(points: HostArray, across: int, margin: float = 0.08) -> tuple[HostArray, HostArray]:
    """The coordinates of a grid around the points, (across,) for each axis, with a `margin` as a share of the range."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = margin * np.where(high > low, high - low, 1.0)
    first, second = (np.linspace(a, b, across) for a, b in zip(low - room, high + room, strict=True))
    return first, second


def on_grid(predict: Any, first: HostArray, second: HostArray) -> HostArray:
    """The predictions of the method at each point of the grid, (second, first) or (second, first, K)."""
    rows = np.stack([coordinates.ravel() for coordinates in np.meshgrid(first, second)], axis=1)
    with warnings.catch_warnings():  # an estimator that was trained on a data frame warns of rows without names
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        predictions = on_host(predict(rows), "predictions")
    return predictions.reshape(len(second), len(first), *predictions.shape[1:])


def first_layer_weights(net: Any) -> HostArray:
    """The weights (d0, d1) of the first layer of a network or an estimator."""
    if isinstance(net, Network):
        with net.backend.scope():
            return net.backend.to_host(net.params[0].W)
    if not getattr(net, "coefs_", None):
        checks.reject("net", "be trained", type(net).__name__, "Train it with dlx.fit or its method fit.", TypeError)
    return on_host(net.coefs_[0], "coefs_[0]")


def image_shape(shape: Any, inputs: int) -> tuple[int, int]:
    """The height and the width of the inputs as an image; without a `shape` it is a square."""
    side = math.isqrt(inputs)
    if shape is None and side * side == inputs:
        return side, side
    rule, remedy = f"be (height, width) of {inputs} pixels", "The first layer's inputs are taken row by row."
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) != 2:
        checks.reject("shape", rule, checks.shown(shape), remedy)
    height, width = (checks.integer("shape", side, low=1, remedy=remedy) for side in shape)
    if height * width != inputs:
        checks.reject("shape", rule, tuple(shape), remedy)
    return height, width


def mosaic(W: HostArray, shape: tuple[int, int], count: int) -> tuple[HostArray, int]:
    """The columns of W with the largest norms as images side by side, with nan between them, and their number."""
    strongest = np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[:count]
    (height, width), across = shape, math.ceil(math.sqrt(len(strongest)))
    picture = np.full((math.ceil(len(strongest) / across) * (height + 1) - 1, across * (width + 1) - 1), np.nan)
    for k, unit in enumerate(strongest):
        top, left = (k // across) * (height + 1), (k % across) * (width + 1)
        picture[top : top + height, left : left + width] = W[:, unit].reshape(height, width)
    return picture, len(strongest)


def layer_figures(net: Network, X: Any, y: Any, rows: int) -> list[LayerFigures]:
    """The figures of all layers on at most `rows` evenly spaced rows. The loss has no penalties and no dropout."""
    backend, formulas = net.backend, net.formulas
    with backend.scope():
        given = samples.for_network(net, X, y)
        n = int(given.X.shape[0])
        numbers = np.linspace(0, n - 1, min(rows, n)).round().astype(np.int64)
        A, Y, w = features.batch(given.where_they_lie(backend), numbers, backend, net.dtype)
        trace = network.forward(formulas, net.params, A)
        outputs = [backend.to_host(output) for output in (*trace.fs, trace.Zs[-1])]
        _, layers = network.loss_and_gradients(formulas, net.params, A, Y, w, None)
        gradients = [backend.to_host(layer.W) for layer in layers]
    names = [*(activation.name for activation in net.activation), "(scores)"]
    return [
        LayerFigures(
            name,
            a.shape[1],
            _quantiles(a),
            float(np.mean(a == 0)),
            int(np.sum((a == 0).all(axis=0))),
            _quantiles(g),
            float(np.mean(g == 0)),
        )
        for name, a, g in zip(names, outputs, gradients, strict=True)
    ]


def _quantiles(x: HostArray) -> HostArray:
    """`QUANTILES` of the absolute values that are not zero; nan if all are zero."""
    sizes = np.abs(x[x != 0]).astype(np.float64)
    return np.quantile(sizes, QUANTILES) if sizes.size else np.full(len(QUANTILES), np.nan)
