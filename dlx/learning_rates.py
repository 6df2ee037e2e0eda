"""The learning-rate range test: which rates a network learns at, found by a short training in which the rate rises."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import checks, nearest, optimizers
from dlx.backend import HOST, library_of
from dlx.data import features
from dlx.fitting import Asked, fit, prepare
from dlx.training import arguments, steps

HostArray = np.ndarray[Any, Any]
NO_PART = ("epochs", "validation", "patience", "callbacks", "verbose", "checkpoint")  # of fit, that play none here
EXPLODED = 4.0  # times the loss at the start, where the search ends
SMOOTHING = 0.05  # of the search: the standard deviation of the Gaussian that losses are averaged with
SIGNIFICANT = 4.0  # standard errors by which the loss must fall


class RateSearch(NamedTuple):
    """What `find_learning_rate` found.

    rates, losses, smoothed (updates,) float64: the rate of each update, its batch's loss before it, and that loss
    averaged over its neighbours. `suggestion` is the rate where the smoothed loss falls most steeply by the logarithm
    of the rate, None where it does not fall; `diverges` the one from which on it stays above its start, None where it
    does not.
    """

    rates: HostArray
    losses: HostArray
    smoothed: HostArray
    suggestion: float | None
    diverges: float | None


def find_learning_rate(
    X: Any,
    y: Any,
    layer_dims: Sequence[int],
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    updates: int = 300,
    **fit_arguments: Any,
) -> RateSearch:
    """Train for a few hundred updates while the learning rate rises exponentially, and see where the loss falls.

    rate_t = lowest (highest / lowest)^(t / (updates - 1)),  t = 0, 1, ... updates - 1

    The search ends early where the loss explodes, which raises nothing. Nothing is kept of the weights.

    Parameters
    ----------
    X, y, layer_dims
        As in `fit`.
    lowest, highest : float > 0
        The first and the last rate.
    updates : int >= 20
    **fit_arguments
        As in `fit`, so that both can be given the same ones: optimizer, batch_size, activation, rng ... An optimizer
        object's own rate is not used; epochs, validation, patience, callbacks, verbose and checkpoint play no part.

    Returns
    -------
    RateSearch
        rates, losses, smoothed, suggestion, diverges.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, as in `fit`.

    Numerics: the smoothed loss is a mean with Gaussian weights, of a standard deviation of 5 % of the search. Small
    batches blur the suggestion, by a factor of two or more where their losses scatter as much as the loss falls. It is
    a start, not an optimum: try a few times less and more.

    Source: Smith 2017, arXiv:1506.01186, section 3.3.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> X = np.random.default_rng(0).standard_normal((500, 3))
    >>> found = dlx.find_learning_rate(X, X @ [1.0, 2.0, 3.0], (3, 16, 1), rng=0)
    >>> 1e-3 < found.suggestion < found.diverges
    True
    """
    lowest = checks.number("lowest", lowest, low=0, above=True, remedy="Use 1e-6, for example.")
    highest = checks.number("highest", highest, low=lowest, above=True, remedy="Use 10, for example.")
    updates = checks.integer("updates", updates, low=20, remedy="Use 300, for example.")
    for name in [name for name in fit_arguments if nearest.meant_by(name, ["learning_rate"])]:
        got = checks.shown(fit_arguments[name])
        checks.reject(name, "be left out", got, "It is what is searched, from `lowest` to `highest`.")
    nearest.refuse(fit_arguments, "find_learning_rate", find_learning_rate, fit)
    rates = np.geomspace(lowest, highest, updates)
    losses: list[float] = []
    diverged = False
    for loss in _losses(X, y, layer_dims, rates, fit_arguments):
        limit = EXPLODED * abs(float(np.mean(losses[: max(1, updates // 20)] or [math.inf])))
        diverged = not (math.isfinite(loss) and loss <= limit)
        if diverged:
            break
        losses.append(loss)
    return _judged(rates, np.asarray(losses), SMOOTHING * updates, diverged)


def _losses(X: Any, y: Any, layer_dims: Sequence[int], rates: HostArray, given: dict[str, Any]) -> Iterator[float]:
    """The loss of each batch, then an update at the next of the rates."""
    rng = arguments.generator(given.get("rng"))
    stays = features.compressed(X) or library_of(X) in (None, HOST)  # the batches come from the host, one by one
    used = {name: value for name, value in given.items() if name not in NO_PART}
    bound = inspect.signature(fit).bind(X, y, layer_dims, **used | {"rng": rng, "stream": stays, "epochs": 1})
    bound.apply_defaults()
    optimizer = optimizers.get(bound.arguments["optimizer"])
    if not optimizer.takes_rate:
        checks.reject("optimizer", "have a learning rate", optimizer.name, "It searches for step lengths of its own.")
    with prepare(X, y, Asked(**bound.arguments)) as job:
        task, settings, backend = job.task, job.settings, job.task.backend
        step, carry, _ = steps.make_step(task, settings, job.net.params)
        run = backend.loop(step)
        shuffled = settings.shuffle and settings.batch_size < task.size
        batches = _batches(task.size, min(settings.batch_size, task.size), rng if shuffled else None)
        for t, (rate, batch) in enumerate(zip(rates.tolist(), batches, strict=False)):
            tables = steps.dropout_keys(task, 1, rng), *steps.numbers(task, settings, t, [rate])
            rows = features.some_rows(task.rows, batch, backend, task.dtype)
            ((carry, loss),) = run(carry, rows, steps.Inputs(None, *tables), 1)
            yield float(backend.outputs_to_host([loss])[0])


def _batches(n: int, size: int, rng: np.random.Generator | None) -> Iterator[HostArray]:
    """Row numbers without end, one pass over the rows after the other, all batches of one size."""
    left = np.arange(0)
    while True:
        while len(left) < size:
            left = np.concatenate([left, np.arange(n) if rng is None else rng.permutation(n)])
        yield left[:size]
        left = left[size:]


def _judged(rates: HostArray, losses: HostArray, width: float, diverged: bool) -> RateSearch:
    """What the losses say; `width` is that of the smoothing, in updates, and `diverged` that the search ended early."""
    n = len(losses)
    if n < 2:
        return RateSearch(rates[:n], losses, losses, None, float(rates[0]))
    smoothed = _smoothed(losses, width)
    first = max(1, len(rates) // 20)
    scatter = float(np.median(np.abs(np.diff(losses)))) / (0.6745 * math.sqrt(2))  # of a normal distribution
    start = min(float(np.mean(losses[:first])), float(losses[0]) + SIGNIFICANT * scatter)  # no update was before that
    doubt = SIGNIFICANT * scatter / math.sqrt(2 * math.sqrt(math.pi) * width)
    lowest = int(np.argmin(smoothed))
    slope = np.gradient(smoothed)[: lowest + 1]
    fell = start - smoothed[lowest] > doubt
    above = smoothed > start + doubt
    rises = n - int(np.argmin(above[::-1])) if not above.all() else 0
    return RateSearch(
        rates[:n],
        losses,
        smoothed,
        float(rates[np.argmin(slope)]) if fell else None,
        float(rates[rises]) if rises < n or diverged else None,
    )


def _smoothed(losses: HostArray, width: float) -> HostArray:
    """Means with Gaussian weights of that standard deviation, of the losses that there are."""
    reach = math.ceil(4 * width)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    middle = slice(reach, reach + len(losses))
    found: HostArray = np.convolve(losses, weights)[middle] / np.convolve(np.ones(len(losses)), weights)[middle]
    return found
