"""Losses: each owns its link, and takes scores, the output of the last layer before any activation.

squared_error, absolute_error, huber, quantile, poisson, binary_cross_entropy, cross_entropy.

``huber()`` describes a loss; ``.bind(xp, array)`` gives its formulas on one array library, where ``array``
turns a list into an array of the working dtype and device:

    value(Z, Y)   the loss of each sample, (..., n, 1), summed over outputs
    delta(Z, Y)   its derivative by the scores, (..., n, K): the law is *delta is the derivative of value*
    predict(Z)    what the scores stand for, (..., n, K), by the link

and, where the value is a sum over outputs, its ``.terms(Z, Y)``, (..., n, K), which may be weighted one by one;

with Z (..., n, K) and Y (..., n, K). Averaging over samples and weighting are the network's, written once
there.

``huber().link`` is the loss's link; see `dlx.links`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from dlx import checks
from dlx.activations import Activation
from dlx.backend import Array, Fuse, Namespace, unfused
from dlx.links import EXP, IDENTITY, LOGISTIC, SOFTMAX, Link, behind, exponentials

Targets = Literal["real", "counts", "binary", "classes"]
Both = Callable[[Array, Array], tuple[Array, Array]]


class _Formulas(NamedTuple):
    value: Callable[[Array, Array], Array]
    delta: Callable[[Array, Array], Array]
    predict: Callable[[Array], Array]


class Formulas(_Formulas):
    """A loss on one library: three functions, and beside them the terms that `value` is the sum of, if it is one."""

    terms: Callable[[Array, Array], Array] | None = None


class Loss(NamedTuple):
    """What a loss is: its name, its settings, the targets it takes, its link, its formulas.

    ``share(xp, fuse)``, where there is one, gives value and delta at once from what they have in common.
    """

    name: str
    settings: Mapping[str, Any]
    targets: Targets
    link: Link
    bind: Callable[[Namespace, Callable[[Any], Array]], Formulas]
    share: Callable[[Namespace, Fuse], Both] | None = None

    def __repr__(self) -> str:
        return checks.called(self.name, self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        """One of dlx's own is pickled by its name: its formulas are functions that no pickle can hold."""
        return (_named, (self.name, dict(self.settings))) if is_own(self) else (Loss, tuple(self))


def _scores(Z: Array) -> Array:
    """The prediction of a user's own loss without a `predict`; pickles of such losses name this function."""
    return Z


def _sum(xp: Namespace, terms: Array) -> Array:
    return xp.sum(terms, axis=-1, keepdims=True)


def _summed(
    xp: Namespace,
    terms: Callable[[Array, Array], Array],
    delta: Callable[[Array, Array], Array],
    link: Link = IDENTITY,
) -> Formulas:
    """The formulas of a loss whose value is the sum of its terms over outputs."""

    def value(Z: Array, Y: Array) -> Array:
        return _sum(xp, terms(Z, Y))

    formulas = Formulas(value, delta, partial(link.predict, xp))
    formulas.terms = terms
    return formulas


def squared_error(half: bool = False) -> Loss:
    """The squared error, summed over outputs.

    value = Σ_k (Z_k - Y_k)²,  delta = 2 (Z - Y),  predict = Z

    Parameters
    ----------
    half : bool, default False
        Whether value and delta are half of the above.

    Returns
    -------
    Loss

    Raises
    ------
    TypeError
        `half` is neither True nor False.

    Source: the article's cost. Its own gradient, -2 (Y - A), has no half.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> value, delta, predict = dlx.losses.squared_error().bind(np, np.asarray)
    >>> Z, Y = np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])
    >>> value(Z, Y), delta(Z, Y)
    (array([[5.]]), array([[ 2., -4.]]))
    """
    if not isinstance(half, bool):
        checks.reject("half", "be True or False", checks.shown(half), "True halves value and slope.", TypeError)

    def bind(xp: Namespace, array: Callable[[Any], Array]) -> Formulas:
        def terms(Z: Array, Y: Array) -> Array:
            squares = (Z - Y) * (Z - Y)
            return 0.5 * squares if half else squares

        def delta(Z: Array, Y: Array) -> Array:
            return Z - Y if half else 2.0 * (Z - Y)

        return _summed(xp, terms, delta)

    return Loss("squared_error", {"half": True} if half else {}, "real", IDENTITY, bind)


def absolute_error() -> Loss:
    """The absolute error, summed over outputs: its minimum is the conditional median.

    value = Σ_k |Z_k - Y_k|,  delta = sign(Z - Y), which is 0 at equality,  predict = Z

    Returns
    -------
    Loss

    Source: Koenker and Bassett 1978, Econometrica 46: it is twice their loss for q = 1/2.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> value, delta, predict = dlx.losses.absolute_error().bind(np, np.asarray)
    >>> delta(np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 2.0, 4.0]]))
    array([[ 1.,  0., -1.]])
    """

    def bind(xp: Namespace, array: Callable[[Any], Array]) -> Formulas:
        def terms(Z: Array, Y: Array) -> Array:
            return xp.abs(Z - Y)

        def delta(Z: Array, Y: Array) -> Array:  # not xp.sign, which waits for the device on CuPy
            return xp.astype(Z > Y, Z.dtype) - xp.astype(Z < Y, Z.dtype)

        return _summed(xp, terms, delta)

    return Loss("absolute_error", {}, "real", IDENTITY, bind)


def huber(width: float = 1.0) -> Loss:
    """Huber's loss, summed over outputs: a parabola near zero, straight lines in the tails.

    value = Σ_k (d_k²/2 where |d_k| <= width, else width (|d_k| - width/2)),  d = Z - Y
    delta = d clipped to [-width, width],  predict = Z

    Parameters
    ----------
    width : float > 0, default 1
        Where the parabola becomes a line, in units of the target.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError, TypeError
        `width` is out of range or not a number.

    Source: Huber 1964, Annals of Mathematical Statistics 35.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> value, delta, predict = dlx.losses.huber().bind(np, np.asarray)
    >>> value(np.array([[0.5], [3.0]]), np.zeros((2, 1))).ravel()
    array([0.125, 2.5  ])
    """
    width = checks.number("width", width, low=0, above=True, remedy="Use 1.0, in units of the target.")

    def bind(xp: Namespace, array: Callable[[Any], Array]) -> Formulas:
        def terms(Z: Array, Y: Array) -> Array:
            d = xp.abs(Z - Y)
            near = xp.minimum(d, width)
            return near * (d - 0.5 * near)

        def delta(Z: Array, Y: Array) -> Array:
            return xp.minimum(xp.maximum(Z - Y, -width), width)

        return _summed(xp, terms, delta)

    return Loss("huber", {"width": width}, "real", IDENTITY, bind)


def quantile(q: float | Sequence[float] = 0.5) -> Loss:
    """The quantile (pinball) loss, summed over outputs: its minimum is the conditional q-quantile.

    value = Σ_k max(q d_k, (q - 1) d_k),  d = Y - Z
    delta = 1 - q where Z > Y, -q where Z < Y, and 0 at equality,  predict = Z

    Parameters
    ----------
    q : float in (0, 1), or a sequence of one for each output, default 0.5
        Several turn one target into a band: with ``quantile([0.1, 0.5, 0.9])`` and three outputs, `y` of
        shape (n,) is the target of all three.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError, TypeError
        A `q` is out of range or not a number, or the sequence is empty.

    Source: Koenker and Bassett 1978, Econometrica 46.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> value, delta, predict = dlx.losses.quantile(0.9).bind(np, np.asarray)
    >>> value(np.array([[0.0], [2.0]]), np.ones((2, 1))).ravel().round(6)
    array([0.9, 0.1])
    """
    several = isinstance(q, Sequence) and not isinstance(q, str)
    qs = [
        checks.number("q", number, low=0, high=1, above=True, below=True, remedy="Use 0.5 for the median.")
        for number in (q if isinstance(q, Sequence) and several else [q])
    ]
    if not qs:
        checks.reject("q", "hold at least one quantile", "none", "Use 0.5 for the median.")

    def bind(xp: Namespace, array: Callable[[Any], Array]) -> Formulas:
        rate = array([qs]) if several else qs[0]

        def terms(Z: Array, Y: Array) -> Array:
            d = Y - Z
            return xp.maximum(rate * d, (rate - 1.0) * d)

        def delta(Z: Array, Y: Array) -> Array:
            return (1.0 - rate) * xp.astype(Z > Y, Z.dtype) - rate * xp.astype(Z < Y, Z.dtype)

        return _summed(xp, terms, delta)

    return Loss("quantile", {"q": qs if several else qs[0]}, "real", IDENTITY, bind)


def poisson() -> Loss:
    """The negative log-likelihood of counts Y >= 0, without its constant log Y!; scores are logarithms of rates.

    value = Σ_k e^{Z_k} - Y_k Z_k,  delta = e^Z - Y,  predict = e^Z

    Returns
    -------
    Loss

    Source: McCullagh and Nelder 1989, section 6.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> value, delta, predict = dlx.losses.poisson().bind(np, np.asarray)
    >>> predict(np.zeros((1, 1))), delta(np.zeros((1, 1)), np.array([[3.0]]))
    (array([[1.]]), array([[-2.]]))
    """

    def bind(xp: Namespace, array: Callable[[Any], Array]) -> Formulas:
        def terms(Z: Array, Y: Array) -> Array:
            return xp.exp(Z) - Y * Z

        def delta(Z: Array, Y: Array) -> Array:
            return EXP.predict(xp, Z) - Y

        return _summed(xp, terms, delta, EXP)

    return Loss("poisson", {}, "counts", EXP, bind)


def binary_cross_entropy() -> Loss:
    """The cross-entropy of independent yes-or-no outputs, 0 <= Y <= 1: one label a row, or several.

    value = Σ_k log(1 + e^{Z_k}) - Y_k Z_k,  delta = σ(Z) - Y,  predict = σ(Z)

    Returns
    -------
    Loss

    Numerics: stable for any score, by max(z, 0) - z y + log(1 + e^-|z|); no probability is clipped.

    Source: Cox 1958, Journal of the Royal Statistical Society B 20.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> value, delta, predict = dlx.losses.binary_cross_entropy().bind(np, np.asarray)
    >>> value(np.array([[-1000.0]]), np.array([[1.0]]))
    array([[1000.]])
    """

    def bind(xp: Namespace, array: Callable[[Any], Array]) -> Formulas:
        def terms(Z: Array, Y: Array) -> Array:
            # in this order: a sure and right score leaves log(1 + e^-|z|), which z would swallow
            return xp.maximum(Z, 0.0) - Z * Y + xp.log1p(xp.exp(-xp.abs(Z)))

        def delta(Z: Array, Y: Array) -> Array:
            return LOGISTIC.predict(xp, Z) - Y

        return _summed(xp, terms, delta, LOGISTIC)

    return Loss("binary_cross_entropy", {}, "binary", LOGISTIC, bind)


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """The cross-entropy of one class among K; Y holds rows of probabilities, for integer labels a single one.

    value = log Σ_k e^{Z_k} - Σ_k T_k Z_k,  delta = softmax(Z) - T,  predict = softmax(Z)
    T = (1 - s) Y + s / K with s = label_smoothing;  Σ_k Y_k = 1

    Parameters
    ----------
    label_smoothing : float in [0, 1), default 0
        The share of each row's probability that is spread evenly over all classes.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError, TypeError
        `label_smoothing` is out of range or not a number.

    Numerics: stable for any score, because the row's maximum is subtracted first.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7, for the smoothing.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> value, delta, predict = dlx.losses.cross_entropy().bind(np, np.asarray)
    >>> value(np.array([[0.0, 1000.0]]), np.array([[1.0, 0.0]]))
    array([[1000.]])
    """
    s = checks.number("label_smoothing", label_smoothing, low=0, high=1, below=True, remedy="Use 0.1, for example.")
    keep = 1.0 - s  # outside the formula: cupy.fuse computes between two scalars in half precision

    def share(xp: Namespace, fuse: Fuse) -> Callable[[Array, Array], tuple[Array, Array]]:
        """value and delta at once: both are of log softmax(Z), from which softmax(Z) is one exponential away."""

        def terms(z: Array, total: Array, Y: Array, floor: float) -> tuple[Array, Array]:
            log_p = z - xp.log(total)
            T = keep * Y + floor if s else Y
            return -T * log_p, xp.exp(log_p) - T

        shifted, terms = fuse(exponentials(xp), "softmax"), fuse(terms, "cross_entropy")

        def both(Z: Array, Y: Array) -> tuple[Array, Array]:
            z, e = shifted(Z, xp.max(Z, axis=-1, keepdims=True))
            values, delta = terms(z, _sum(xp, e), Y, s / Y.shape[-1])
            return _sum(xp, values), delta

        return both

    def bind(xp: Namespace, array: Callable[[Any], Array]) -> Formulas:
        both = share(xp, unfused)
        return Formulas(lambda Z, Y: both(Z, Y)[0], lambda Z, Y: both(Z, Y)[1], partial(SOFTMAX.predict, xp))

    return Loss("cross_entropy", {"label_smoothing": s}, "classes", SOFTMAX, bind, share)


def through(activation: Activation, loss: Loss) -> Loss:
    """The loss of an output layer that has an activation f of its own.

    value(f(Z), Y),  delta(f(Z), Y) f'(Z),  predict(f(Z))

    Parameters
    ----------
    activation : Activation
    loss : Loss
        What is paid for f(Z).

    Returns
    -------
    Loss
        Of the same kind of targets, and with no name of dlx's own.

    Source: the chain rule.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> loss = dlx.losses.through(dlx.activations.relu(), dlx.losses.squared_error())
    >>> value, delta, predict = loss.bind(np, np.asarray)
    >>> Z, Y = np.array([[-1.0, 2.0]]), np.array([[3.0, 3.0]])
    >>> predict(Z), value(Z, Y), delta(Z, Y)
    (array([[0., 2.]]), array([[10.]]), array([[-0., -2.]]))
    """
    link = behind(lambda xp, Z: activation.bind(xp).f(Z), loss.link)

    def bind(xp: Namespace, array: Callable[[Any], Array]) -> Formulas:
        f, df = activation.bind(xp)
        inner = loss.bind(xp, array)

        def value(Z: Array, Y: Array) -> Array:
            return inner.value(f(Z), Y)

        def delta(Z: Array, Y: Array) -> Array:
            a = f(Z)
            return inner.delta(a, Y) * df(Z, a)

        return Formulas(value, delta, partial(link.predict, xp))

    return Loss("custom", {}, loss.targets, link, bind)


LOSSES: Mapping[str, Callable[..., Loss]] = {
    make.__name__: make
    for make in (squared_error, absolute_error, huber, quantile, poisson, binary_cross_entropy, cross_entropy)
}


def get(loss: Any) -> Loss:
    """The `Loss` that is meant.

    Parameters
    ----------
    loss : name, Loss, or tuple of functions (value, delta) or (value, delta, predict)
        A user's own functions are of arrays Z, Y (n, K) as above; without `predict` the prediction is Z. They must
        depend on their arrays alone, and should neither wait for the device nor copy from or to the host, as a training
        step may be recorded once and then repeated; see `dlx.activations.get`.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError, TypeError
        There is no loss of that name, or `loss` is none of these.

    Examples
    --------
    >>> import dlx
    >>> dlx.losses.get("huber")
    huber(width=1.0)
    """
    if isinstance(loss, Loss):
        if not isinstance(loss.link, Link):
            got, remedy = checks.shown(loss.link), "For example link=dlx.losses.SOFTMAX for classes."
            checks.reject("loss", "have a link of dlx.losses", got, remedy, TypeError)
        return loss
    if isinstance(loss, tuple) and len(loss) in (2, 3) and all(map(callable, loss)):
        formulas = Formulas(*loss, *([_scores] if len(loss) == 2 else []))
        link = behind(lambda xp, Z: formulas.predict(Z), IDENTITY)
        return Loss("custom", {}, "real", link, lambda xp, array: formulas)
    remedy = "A user's own is a tuple of functions: value(Z, Y), delta(Z, Y) and perhaps predict(Z)."
    return LOSSES[checks.choice("loss", loss, LOSSES, remedy)]()


def label(loss: Any) -> str:
    """The call that makes the loss, where its settings are not those that its name alone stands for; else nothing."""
    if not isinstance(loss, Loss) or (loss.name in LOSSES and loss.settings == LOSSES[loss.name]().settings):
        return ""
    return repr(loss) if loss.settings else ""


def is_own(loss: Loss) -> bool:
    """Whether its formulas are those of dlx's that it is named after."""
    return checks.is_made_by(LOSSES, loss)


def _named(name: str, settings: Mapping[str, Any]) -> Loss:
    """The loss of that name and those settings."""
    return LOSSES[name](**settings)
