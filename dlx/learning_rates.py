"""The learning-rate range test: a short training in which the rate rises shows at which rates a network learns."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import checks, nearest, optimizers
from dlx.backend import HOST, library_of
from dlx.data import features, streaming
from dlx.fitting import Asked, fit, prepare
from dlx.host import HostArray
from dlx.training import arguments, steps

UNUSED = ("epochs", "validation", "patience", "callbacks", "verbose", "checkpoint")  # arguments of fit
LOSS_LIMIT = 4.0  # ratio to the loss at the start; the search ends above it
SMOOTHING = 0.05  # the standard deviation of the smoothing Gaussian, as a share of the search
SIGNIFICANT = 4.0  # standard errors by which the loss must fall


class RateSearch(NamedTuple):
    """The result of `find_learning_rate`.

    rates : float64 array (updates,)
        The rate of each update.
    losses : float64 array (updates,)
        The loss of each batch before its update.
    smoothed : float64 array (updates,)
        Each loss averaged with its neighbours.
    suggestion : float or None
        The rate where the smoothed loss falls most steeply by the logarithm of the rate; None if it does not fall.
    diverges : float or None
        The rate from which on the smoothed loss stays above its start; None if there is no such rate.
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
    """Train for a few hundred updates while the learning rate rises exponentially, and find where the loss falls.

    rate_t = lowest (highest / lowest)^(t / (updates - 1)),  t = 0, 1, ... updates - 1

    The search ends early if the loss explodes, without an error. The weights are dropped.

    Parameters
    ----------
    X : array (n, d0)
        As in `fit`.
    y : array (n,) or (n, K)
        As in `fit`.
    layer_dims : sequence of int
        As in `fit`.
    lowest : float > 0, default 1e-6
        The first rate.
    highest : float > lowest, default 10
        The last rate.
    updates : int >= 20, default 300
    **fit_arguments
        Other arguments of `fit`, so that both functions take the same ones: optimizer, batch_size, activation, rng ...
        The rate of an optimizer object is not used, nor are epochs, validation, patience, callbacks, verbose and
        checkpoint.

    Returns
    -------
    RateSearch
        rates, losses, smoothed, suggestion, diverges.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, as in `fit`.

    Numerics: the smoothed loss is a mean with Gaussian weights whose standard deviation is 5 % of the search. Small
    batches blur the suggestion, by a factor of two or more if their losses scatter as much as the loss falls. The
    suggestion is a start and not an optimum: try rates a few times lower and higher.

    Source: Smith 2017, arXiv:1506.01186, section 3.3.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> X = np.random.default_rng(0).standard_normal((500, 3))
    >>> search = dlx.find_learning_rate(X, X @ [1.0, 2.0, 3.0], (3, 16, 1), rng=0)
    >>> 1e-3 < search.suggestion < search.diverges
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
        limit = LOSS_LIMIT * abs(float(np.mean(losses[: max(1, updates // 20)] or [math.inf])))
        diverged = not (math.isfinite(loss) and loss <= limit)
        if diverged:
            break
        losses.append(loss)
    return _search_result(rates, np.asarray(losses), SMOOTHING * updates, diverged)


def _losses(X: Any, y: Any, layer_dims: Sequence[int], rates: HostArray, given: dict[str, Any]) -> Iterator[float]:
    """The loss of each batch. Each is followed by an update at the next rate."""
    rng = arguments.generator(given.get("rng"))
    stays = features.compressed(X) or library_of(X) in (None, HOST)  # then the batches come from the host, one by one
    used = {name: value for name, value in given.items() if name not in UNUSED}
    bound = inspect.signature(fit).bind(X, y, layer_dims, **used | {"rng": rng, "stream": stays, "epochs": 1})
    bound.apply_defaults()
    optimizer = optimizers.get(bound.arguments["optimizer"])
    if not optimizer.takes_rate:
        checks.reject("optimizer", "have a learning rate", optimizer.name, "It searches for step lengths of its own.")
    with contextlib.ExitStack() as resources:
        job = prepare(X, y, Asked(**bound.arguments), resources)
        task, settings, backend = job.task, job.settings, job.task.backend
        step, carry = steps.make_step(task, settings, job.net.params)
        run, stage = backend.loop(step, steps.kind(task, settings)), backend.staging()
        shuffled = settings.shuffle and settings.batch_size < task.size
        batches = _batches(task.size, min(settings.batch_size, task.size), rng if shuffled else None)
        for t, (rate, batch) in enumerate(zip(rates.tolist(), batches, strict=False)):
            tables = steps.dropout_keys(task, 1, rng), *steps.numbers(task, settings, t, [rate])
            rows = streaming.some_rows(task.rows, batch, backend, task.dtype, stage)
            ((carry, loss),) = run(carry, rows, steps.Inputs(None, *tables), 1)
            yield float(backend.outputs_to_host([loss])[0])


def _batches(n: int, size: int, rng: np.random.Generator | None) -> Iterator[HostArray]:
    """Row numbers for endless batches of one size, from one pass over the rows after the other."""
    numbers = np.arange(0)
    while True:
        while len(numbers) < size:
            numbers = np.concatenate([numbers, np.arange(n) if rng is None else rng.permutation(n)])
        yield numbers[:size]
        numbers = numbers[size:]


def _search_result(rates: HostArray, losses: HostArray, width: float, diverged: bool) -> RateSearch:
    """The result of a search with these losses, smoothed over `width` updates; `diverged` if it ended early."""
    n = len(losses)
    if n < 2:
        return RateSearch(rates[:n], losses, losses, None, float(rates[0]))
    smoothed = _smoothed(losses, width)
    first = max(1, len(rates) // 20)
    scatter = float(np.median(np.abs(np.diff(losses)))) / (0.6745 * math.sqrt(2))  # the σ of a normal distribution
    start = min(float(np.mean(losses[:first])), float(losses[0]) + SIGNIFICANT * scatter)  # no update came before it
    margin = SIGNIFICANT * scatter / math.sqrt(2 * math.sqrt(math.pi) * width)  # the error of smoothed losses
    lowest = int(np.argmin(smoothed))
    slope = np.gradient(smoothed)[: lowest + 1]
    fell = start - smoothed[lowest] > margin
    above = smoothed > start + margin
    rises = n - int(np.argmin(above[::-1])) if not above.all() else 0
    return RateSearch(
        rates[:n],
        losses,
        smoothed,
        float(rates[np.argmin(slope)]) if fell else None,
        float(rates[rises]) if rises < n or diverged else None,
    )


def _smoothed(losses: HostArray, width: float) -> HostArray:
    """The means of the losses with Gaussian weights of the standard deviation `width`, normalised at both ends."""
    reach = math.ceil(4 * width)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    middle = slice(reach, reach + len(losses))
    means: HostArray = np.convolve(losses, weights)[middle] / np.convolve(np.ones(len(losses)), weights)[middle]
    return means
