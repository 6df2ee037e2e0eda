"""Scores of many rows, and what is reported of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlx import data, losses, metrics, network
from dlx.activations import log1p_exp
from dlx.backend import Array, Backend
from dlx.data import HostArray
from dlx.network import Params


def scores(backend: Backend, net: network.Formulas, params: Params, X: Array, dtype: Any) -> Array:
    """The scores of all rows, computed over blocks of rows, so that no layer's output is held for all of them."""
    xp = net.xp
    widest = max(max(layer.W.shape[-2:]) for layer in params)
    n, rows = X.shape[0], max(backend.fewest_rows, backend.elements_at_once // widest)
    blocks = [
        network.scores(net, params, xp.astype(data.block(X, first, min(first + rows, n), backend), dtype, copy=False))
        for first in range(0, n, rows)
    ]
    return blocks[0] if len(blocks) == 1 else xp.concat(blocks)


def loss_of(
    backend: Backend, net: network.Formulas, params: Params, samples: data.Rows, numbers: Any, dtype: Any
) -> float:
    """J of the rows of those numbers (an array of the host; all, if None), without penalties and dropout."""
    if numbers is not None:
        samples = data.some_rows(samples, numbers, backend)
    Z, Y = scores(backend, net, params, samples.X, dtype), data.truth(net.xp, samples.Y, samples.classes, dtype)
    return float(network.loss_at(net, Z, Y, samples.weights))


def log_probabilities(xp: Any, loss: losses.Loss, Z: Array) -> Array:
    """The logarithm of the link, straight from the scores: none is -inf where a probability is too small for a float.

    log softmax(Z) = Z - max Z - log Σ_k e^{Z_k - max Z};  log σ(Z) = -log(1 + e^-Z)
    """
    if loss.targets == "classes":
        z = Z - xp.max(Z, axis=-1, keepdims=True)
        return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))
    return -log1p_exp(xp, -Z)


def figure_of_merit(
    backend: Backend, net: network.Formulas, loss: losses.Loss, Z: Array, Y: Array, w: Array | None, tie: bool = True
) -> float:
    """Accuracy, R² or D², as `Network.score` reports it; `Y` (n, K) or class numbers (n, 1), `w` (n, 1) or (n, K).

    `tie` says whether a score of 0 is a yes, which it is not in scikit-learn.
    """
    xp = net.xp
    if loss.targets == "classes":
        right = Y[:, 0] if Y.shape[1] == 1 else xp.argmax(Y, axis=-1)
        return metrics.accuracy(xp, xp.expand_dims(xp.argmax(Z, axis=-1) == right, axis=1), w)
    if loss.targets == "binary":
        return metrics.accuracy(xp, (Z >= 0 if tie else Z > 0) == (Y >= 0.5), w)
    # in float32, sums over a million rows would be off
    truth, predicted = (backend.to_host(each).astype(np.float64) for each in (Y, net.loss.predict(Z)))
    return explained(loss, truth, predicted, None if w is None else backend.to_host(w).astype(np.float64))


def explained(loss: losses.Loss, Y: HostArray, predicted: HostArray, w: HostArray | None) -> float:
    """R² of real targets, or for quantiles D² of the pinball loss, all on the host.

    A target that is nan, as a loss of one's own may take it, weighs 0.
    """
    there = ~np.isnan(Y)
    if not there.all():
        Y, w = np.where(there, Y, 0.0), there * (1.0 if w is None else w)
    if loss.name != "quantile" or not losses.is_own(loss):
        return metrics.r2(np, Y, predicted, w)
    pinball = loss.bind(np, np.asarray).terms
    assert pinball is not None
    q = loss.settings["q"]
    constant = metrics.quantiles(np, Y, q if isinstance(q, list) else [q] * predicted.shape[1], w)
    return metrics.d2(np, pinball(predicted, Y), pinball(constant, Y), w, pooled=isinstance(q, list))


def validation_figures(
    backend: Backend,
    net: network.Formulas,
    loss: losses.Loss,
    params: Params,
    held: data.Rows,
    w: Array | None,
    dtype: Any,
    tie: bool = True,
) -> dict[str, float]:
    """Loss, without penalties, and score of held-out rows, whose weights have mean 1.

    `w` (n, 1) or (n, K) are the score's weights, `tie` as above.
    """
    xp = net.xp
    Z, Y = scores(backend, net, params, held.X, dtype), data.truth(xp, held.Y, held.classes, dtype)
    return {
        "validation_loss": float(network.loss_at(net, Z, Y, held.weights)),
        "validation_score": figure_of_merit(backend, net, loss, Z, held.Y, w, tie),
    }
