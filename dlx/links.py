"""Links: what the scores Z of a network stand for, and the answer that they give, without any targets.

IDENTITY (P = Z), EXP (P = e^Z), LOGISTIC (P = 1 / (1 + e^-Z)), SOFTMAX (P_k = e^{Z_k} / Σ_j e^{Z_j}).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Literal, NamedTuple

from dlx.activations import log1p_exp, logistic
from dlx.backend import Array, Namespace

OnScores = Callable[[Namespace, Array], Array]


class Link(NamedTuple):
    """The link of a loss: what scores stand for, and the answer that they give.

    predict(xp, Z)       the prediction P (..., n, K)
    log_predict(xp, Z)   log P, straight from the scores, so that it is finite where P itself would underflow
    inverse(xp, P)       the scores whose prediction is P, for P strictly within `range`

    `name` is scikit-learn's: "identity", "exp", "logistic" or "softmax". `answers` is the kind of the answers that
    `decide` gives: the number of a "class", "yes or no", or the predicted "number" itself. `range` holds the bounds of
    predictions.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> link, Z = dlx.losses.cross_entropy().link, np.log([[1.0, 3.0]])
    >>> link.predict(np, Z), link.decide(np, Z)
    (array([[0.25, 0.75]]), array([1]))
    """

    name: str
    answers: Literal["class", "yes or no", "number"]
    range: tuple[float, float]
    predict: OnScores
    log_predict: OnScores
    inverse: OnScores

    def decide(self, xp: Namespace, Z: Array, tie: bool = True) -> Array:
        """The class of the largest score (..., n), yes or no as 1 or 0 (..., n, K), or the prediction (..., n, K).

        Parameters
        ----------
        xp : array namespace
        Z : array (..., n, K)
            Scores.
        tie : bool, default True
            Whether a score of 0, a probability of one half, is a yes. In scikit-learn it is a no.

        Returns
        -------
        array
            Of integers, but for predictions, which have the dtype of the scores.
        """
        if self.answers == "class":
            return xp.argmax(Z, axis=-1)
        if self.answers == "yes or no":
            return xp.astype(Z >= 0 if tie else Z > 0, xp.int32)
        return self.predict(xp, Z)


def _log_logistic(xp: Namespace, Z: Array) -> Array:
    """log σ(Z) = -log(1 + e^-Z)."""
    return -log1p_exp(xp, -Z)


def _logit(xp: Namespace, P: Array) -> Array:
    """Z = log P - log(1 - P)."""
    return xp.log(P) - xp.log1p(-P)


def exponentials(xp: Namespace) -> Callable[[Array, Array], tuple[Array, Array]]:
    """(Z, max_k Z_k) -> (z, e^z) with z = Z - max_k Z_k, so that no exponential overflows."""

    def shifted(Z: Array, top: Array) -> tuple[Array, Array]:
        z = Z - top
        return z, xp.exp(z)

    return shifted


def _softmax(xp: Namespace, Z: Array) -> Array:
    """P_k = e^{z_k} / Σ_j e^{z_j}, z = Z - max_k Z_k."""
    _, e = exponentials(xp)(Z, xp.max(Z, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def _log_softmax(xp: Namespace, Z: Array) -> Array:
    """log P = z - log Σ_k e^{z_k}, z = Z - max_k Z_k."""
    z, e = exponentials(xp)(Z, xp.max(Z, axis=-1, keepdims=True))
    return z - xp.log(xp.sum(e, axis=-1, keepdims=True))


IDENTITY = Link("identity", "number", (-inf, inf), lambda xp, Z: Z, lambda xp, Z: xp.log(Z), lambda xp, P: P)
EXP = Link("exp", "number", (0.0, inf), lambda xp, Z: xp.exp(Z), lambda xp, Z: Z, lambda xp, P: xp.log(P))
LOGISTIC = Link("logistic", "yes or no", (0.0, 1.0), logistic, _log_logistic, _logit)
SOFTMAX = Link("softmax", "class", (0.0, 1.0), _softmax, _log_softmax, lambda xp, P: xp.log(P))


def behind(f: OnScores, link: Link) -> Link:
    """The link of scores that go through `f` first, P = link(f(Z)); name, range and inverse stay those of `link`."""
    return link._replace(
        predict=lambda xp, Z: link.predict(xp, f(xp, Z)),
        log_predict=lambda xp, Z: link.log_predict(xp, f(xp, Z)),
    )
