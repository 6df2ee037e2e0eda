"""Predictions, losses and scores of many rows, computed block by block.

Memory holds the outputs of the layers for one block only, and no copy of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import links, losses, metrics, network
from dlx.backend import HOST, Array, Backend, library_of
from dlx.data import features
from dlx.host import HostArray
from dlx.network import Params

ROWS_SAMPLED = 4096  # rows that a report looks at: it misses a unit that is on in 1 of 1,000 with probability e^-4
ELEMENTS_SAMPLED = 1 << 23  # the most elements of a layer's input or output on those rows
OfScores = Callable[[network.Formulas, Array], Array]  # a function of scores (n, K) that gives one row for each row
After = Callable[[Array], Array]  # a function of the rows that an `OfScores` gives, which also works row by row
Block = tuple[int, int, HostArray]  # the first row, the row after the last, and the answers for the rows between
Part = Callable[[int, int], Any]  # (first, last) -> the rows from `first` to before `last`


def rows_at_once(backend: Backend, widest: int) -> int:
    """The number of rows of a block; `widest` is the width of the widest layer, input and output included."""
    wanted = max(backend.fewest_rows, backend.elements_at_once // widest)
    return max(1, min(wanted, backend.most_elements // widest))


def rows_sampled(widest: int) -> int:
    """The largest number of rows that a report looks at; `widest` is as in `rows_at_once`."""
    return min(ROWS_SAMPLED, max(1, ELEMENTS_SAMPLED // widest))


class Predictor(NamedTuple):
    """A network's formulas and parameters on a backend, which computes the scores of rows.

    ``prepare(constants, X)`` transforms the rows first, unless it is None. Equal `kind` promises that two of these
    functions are equal.
    """

    backend: Backend
    net: network.Formulas
    params: Params
    prepare: Callable[[Any, Array], Array] | None = None
    constants: Any = None
    kind: Hashable = None

    @property
    def dtype(self) -> str:
        """The dtype of the parameters, in which the scores are computed."""
        return features.dtype_name(self.params[0].W)

    def rowwise(self, of_scores: OfScores, name: Hashable) -> Callable[[Array, bool], Array]:
        """``call(X, to_host)``, which gives `of_scores` for a block of rows.

        Equal `name` promises that two functions `of_scores` are equal.
        """

        def function(constants: Any, X: Array) -> Array:
            return of_scores(self.net, self._prepared_scores(constants, X))

        call = self.backend.rowwise(function, self._key("scores", name))
        return lambda X, to_host: call((self.params, self.constants), X, to_host)

    def rowwise_with_losses(
        self, of_scores: OfScores, name: Hashable, by_target: bool
    ) -> Callable[[Array, Array, Array | None], tuple[HostArray, HostArray]]:
        """``call(X, Y, classes)``, which gives `of_scores` and the losses for a block of rows, both on the host.

        The losses are (n, 1), or with `by_target` those of the single targets, (n, K).
        """

        def function(constants: Any, rows: tuple[Array, Array]) -> tuple[Array, Array]:
            (*own, classes), (X, Y) = constants, rows
            Z = self._prepared_scores(own, X)
            truth = features.truth(self.net.xp, Y, classes, Z.dtype)
            return of_scores(self.net, Z), network.values_at(self.net, Z, truth, by_target)

        call = self.backend.rowwise(function, self._key("losses", (name, by_target)))
        return lambda X, Y, classes: call((self.params, self.constants, classes), (X, Y), True)

    def _prepared_scores(self, constants: Any, X: Array) -> Array:
        """The scores of the rows after `prepare`; `constants` are the parameters and the constants of `prepare`."""
        params, of_prepare = constants
        X = self.net.xp.astype(X, self.backend.dtype(self.dtype), copy=False)
        return network.scores(self.net, params, X if self.prepare is None else self.prepare(of_prepare, X))

    def _key(self, what: str, name: Hashable) -> Hashable:
        """The key of a compiled function: equal keys promise equal functions, and None promises nothing."""
        return None if self.net.kind is None else (what, self.net.kind, self.kind, name)

    def blocks(self, X: Array, numbers: HostArray | None = None) -> Iterator[tuple[int, int, Array]]:
        """(first, last, the rows from `first` to before `last`) of `X`, or of its rows with these numbers."""
        n = X.shape[0] if numbers is None else len(numbers)
        widest = max(max(layer.W.shape[-2:]) for layer in self.params)
        for first, last in features.spans(n, rows_at_once(self.backend, widest)):
            yield first, last, features.block(X, first, last, numbers, self.backend, self.dtype)

    def of_rows(self, X: Array, of_scores: OfScores, name: Hashable, stays: bool, after: After | None = None) -> Array:
        """`of_scores` of all rows, then `after` of its result, on the backend if it `stays` there, else on the host."""
        call = self.rowwise(of_scores, name)
        results = ((first, call(rows, not stays)) for first, _, rows in self.blocks(X))
        blocks = ((first, [rows if after is None else after(rows)]) for first, rows in results)
        return gathered(blocks, X.shape[0], self.backend)[0]


def gathered(blocks: Iterable[tuple[int, list[Array]]], n: int, backend: Backend) -> list[Array]:
    """Arrays of n rows from their blocks, which are (first row, the rows of each array).

    All blocks lie on the backend, or all on the host. The arrays lie there too.
    """
    wholes: list[Array] = []
    lists: list[list[Array]] = []
    for first, parts in blocks:
        if parts[0].shape[0] == n:
            return parts
        writes = backend.in_place or library_of(parts[0]) == HOST
        if first == 0 and writes:
            wholes = [_empty(part, n, backend) for part in parts]
        if writes:
            for whole, part in zip(wholes, parts, strict=True):
                whole[first : first + part.shape[0], ...] = part
        else:
            lists.append(parts)
    return wholes or [backend.xp.concat(parts) for parts in zip(*lists, strict=True)]


def _empty(like: Array, n: int, backend: Backend) -> Array:
    """An array for n rows like those of `like`, in the same place."""
    if library_of(like) == HOST:
        return np.empty((n, *like.shape[1:]), like.dtype)
    return backend.xp.empty((n, *like.shape[1:]), dtype=like.dtype, device=backend.device)


def as_they_are(net: network.Formulas, Z: Array) -> Array:
    """The scores, (n, K)."""
    return Z


def difference(net: network.Formulas, Z: Array) -> Array:
    """The score of the second of two classes minus that of the first, (n,)."""
    return Z[:, 0] if Z.shape[1] == 1 else Z[:, 1] - Z[:, 0]


def yes(net: network.Formulas, Z: Array) -> Array:
    """Which of several labels a row has, (n, K), as in scikit-learn: 1 or 0 in int64, and 0 for a score of 0."""
    return net.xp.astype(links.LOGISTIC.decide(net.xp, Z, tie=False), net.xp.int64)


def certainty(log: bool = False) -> OfScores:
    """The probability of the only class, or its logarithm, (n, 1)."""
    return lambda net, Z: net.xp.full_like(Z, 0.0 if log else 1.0)


def probabilities(loss: losses.Loss, both: bool, log: bool = False) -> OfScores:
    """The probability of each class or of yes for each output, (n, K), or with `log` its logarithm.

    With `both`, which one yes-or-no output takes, they are the probabilities of no and of yes, (n, 2).
    """

    def of_scores(net: network.Formulas, Z: Array) -> Array:
        Z = net.xp.concat([-Z, Z], axis=1) if both else Z  # the probability of no is not 1 - P, which is 0 for P near 1
        return loss.link.log_predict(net.xp, Z) if log else net.loss.predict(Z)

    return of_scores


def answers(loss: losses.Loss, tie: bool = True) -> OfScores:
    """The answers of the loss: class numbers (n,) or yes or no (n, K), as its link decides, or predictions (n, K).

    `tie` says whether a score of 0 is a yes.
    """
    if loss.link.answers == "number":
        return lambda net, Z: net.loss.predict(Z)
    return lambda net, Z: loss.link.decide(net.xp, Z, tie)


def loss_of(backend: Backend, net: network.Formulas, params: Params, samples: features.Rows, numbers: Any) -> float:
    """J of the rows with these numbers (on the host; None: all rows), without penalties and dropout."""
    blocks = _answers_and_losses(Predictor(backend, net, params), samples, numbers, (_nothing, "nothing"))
    return _mean([(last - first, loss) for first, last, _, loss in blocks])


def validation_figures(
    backend: Backend,
    net: network.Formulas,
    loss: losses.Loss,
    params: Params,
    rows: features.Rows,
    w: Array | None,
    tie: bool = True,
    numbers: HostArray | None = None,
) -> dict[str, float]:
    """The loss, without penalties, and the score of validation rows: those of `rows` with these numbers (None: all).

    The weights in `rows` have mean 1 over the validation rows. `w`, (n, 1) or (n, K), are the weights of the score,
    with one row for each row of `rows`. `tie` is as in `answers`.
    """
    sizes_and_losses = []

    def answered() -> Iterator[Block]:
        predictor, answer = Predictor(backend, net, params), (answers(loss, tie), ("answers", tie))
        for first, last, decided, mean in _answers_and_losses(predictor, rows, numbers, answer):
            sizes_and_losses.append((last - first, mean))
            yield first, last, decided

    score = figure_of_merit(backend, loss, rows.Y, w, answered(), numbers)
    return {"validation_loss": _mean(sizes_and_losses), "validation_score": score}


def figure_of_merit(
    backend: Backend,
    loss: losses.Loss,
    Y: Array,
    w: Array | None,
    answered: Iterable[Block],
    numbers: HostArray | None = None,
) -> float:
    """The accuracy, R² or D² that `Network.score` reports, of the rows with these numbers (None: all rows).

    `Y` (n, K), or class numbers (n, 1), and `w` (n, 1) or (n, K) lie on the backend or on the host. `answered` are the
    blocks of these rows, in order, with the result of `answers` on the host.
    """

    def part(x: Array, first: int, last: int) -> HostArray:
        rows = x[first:last, ...] if numbers is None else features.taken(x, numbers[first:last], backend)
        return rows if library_of(rows) == HOST else backend.to_host(rows)

    def weights(first: int, last: int) -> HostArray | None:
        return None if w is None else part(w, first, last).astype(np.float64)

    if loss.link.answers != "number":
        correct = ((_correct(loss, part(Y, *span), decided), weights(*span)) for *span, decided in answered)
        right, total = map(sum, zip(*(metrics.right_of(np, *block) for block in correct), strict=True))
        return float(right / total)

    def truth(first: int, last: int) -> HostArray:  # in float32, sums over a million rows would be off
        return part(Y, first, last).astype(np.float64)

    return r2_or_d2(loss, truth, weights, Y.shape[0] if numbers is None else len(numbers), answered)


def r2_or_d2(loss: losses.Loss, truth: Part, weights: Part, n: int, answered: Iterable[Block]) -> float:
    """R² of n real targets, or D² of the pinball loss for quantiles, all on the host, block by block.

    ``truth(first, last)`` are float64 targets, and ``weights(first, last)`` are their weights or None. A target that is
    nan, which a user's own loss may accept, has the weight 0.
    """

    def weighted(first: int, last: int) -> tuple[HostArray, HostArray | None]:
        Y, w = truth(first, last), weights(first, last)
        present = ~np.isnan(Y)
        return (Y, w) if present.all() else (np.where(present, Y, 0.0), present * (1.0 if w is None else w))

    if loss.name == "quantile" and losses.is_own(loss):
        return _d2(loss, weighted, n, answered)
    spans = features.spans(n, features.CHECKED_AT_ONCE // 16 // truth(0, 1).shape[1])
    spread = metrics.spread_of(np, (weighted(*span) for span in spans))
    residual, total = 0.0, 0.0
    for *span, predicted in answered:
        Y, w = weighted(*span)
        residual_of_block, total_of_block = metrics.squares(np, Y, predicted.astype(np.float64), w, spread)
        residual, total = residual + residual_of_block, total + total_of_block
    return metrics.r2_of(np, residual, total, spread)


def _d2(loss: losses.Loss, weighted: Part, n: int, answered: Iterable[Block]) -> float:
    """D², which compares with the quantiles of all targets; these are sorted for it."""
    pinball, q = loss.bind(np, np.asarray).terms, loss.settings["q"]
    assert pinball is not None
    sums, constant = [], None
    for *span, predicted in answered:
        if constant is None:
            Y, w = weighted(0, n)
            constant = metrics.quantiles(np, Y, q if isinstance(q, list) else [q] * predicted.shape[1], w)
        Y, w = weighted(*span)
        sums.append(metrics.losses_of(np, pinball(predicted.astype(np.float64), Y), pinball(constant, Y), w))
    of_predictions, of_constant, mass = (sum(blocks) for blocks in zip(*sums, strict=True))
    return metrics.d2_of(np, of_predictions, of_constant, mass, pooled=isinstance(q, list))


def _correct(loss: losses.Loss, Y: HostArray, answers: HostArray) -> HostArray:
    """Whether each answer is correct, (n,), or (n, K) for several labels; `Y` is (n, K), or class numbers (n, 1)."""
    if loss.link.answers == "class":
        correct: HostArray = answers == (Y[:, 0] if Y.shape[1] == 1 else np.argmax(Y, axis=-1))
        return correct
    return np.asarray(answers == (Y >= 0.5))


def _answers_and_losses(
    predictor: Predictor, samples: features.Rows, numbers: HostArray | None, answer: tuple[OfScores, Hashable]
) -> Iterator[tuple[int, int, HostArray, float]]:
    """(first, last, answers, J) of each block; `answer` is a function of scores and its name."""
    call = predictor.rowwise_with_losses(*answer, network.weighs_targets(samples.weights))
    for first, last, X in predictor.blocks(samples.X, numbers):
        Y, w = features.targets_of(samples, first, last, numbers, predictor.backend, predictor.dtype)
        decided, values = call(X, Y, samples.classes)
        weights = None if w is None else predictor.backend.to_host(w)
        yield first, last, decided, float(network.mean_loss(np, values.astype(np.float64), weights))


def _nothing(net: network.Formulas, Z: Array) -> Array:
    """No columns, for callers that need the losses only."""
    return Z[:, :0]


def _mean(sizes_and_losses: Sequence[tuple[int, float]]) -> float:
    """The mean over all rows, from the number of rows and the mean loss of each block."""
    sizes, means = zip(*sizes_and_losses, strict=True)
    return float(np.average(means, weights=sizes))
