"""What a network says of many rows, and what is reported of it, block by block.

No layer's output is held for all rows, and no prediction beside the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import losses, metrics, network
from dlx.backend import HOST, Array, Backend, library_of
from dlx.data import features
from dlx.data.features import HostArray
from dlx.network import Params

ROWS_SAMPLED = 4096  # by a report, out of more: a unit that is on in 1 of 1,000 rows is missed with probability e^-4
ELEMENTS_SAMPLED = 1 << 23  # of a layer's input or output on those rows
After = Callable[[Array], Array]  # of what `OfScores` gives, row by row
OfScores = Callable[[network.Formulas, Array], Array]  # from scores (n, K), a row for each row


def rows_at_once(backend: Backend, widest: int) -> int:
    """How many rows a block has: by the widest layer, input and output among them."""
    wanted = max(backend.fewest_rows, backend.elements_at_once // widest)
    return max(1, min(wanted, backend.most_elements // widest))


def rows_sampled(widest: int) -> int:
    """How many rows a report looks at, where the widest layer is so wide."""
    return min(ROWS_SAMPLED, max(1, ELEMENTS_SAMPLED // widest))


class Asked(NamedTuple):
    """Who is asked: a network's formulas and parameters on a backend.

    `prepare` is what inputs go through first, given `constants`: equal `kind` promises an equal one.
    """

    backend: Backend
    net: network.Formulas
    params: Params
    prepare: Callable[[Any, Array], Array] | None = None
    constants: Any = None
    kind: Hashable = None

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return features.dtype_name(self.params[0].W)

    def rowwise(self, of_scores: OfScores, name: Hashable) -> Callable[[Array, bool], Array]:
        """``call(X, to_host)``: for a block of rows `of_scores` of their scores, which is called `name`."""

        def function(constants: Any, X: Array) -> Array:
            return of_scores(self.net, self._scores(constants, X))

        call = self.backend.rowwise(function, self._key("scores", name))
        return lambda X, to_host: call((self.params, self.constants), X, to_host)

    def judged(
        self, of_scores: OfScores, name: Hashable, by_target: bool
    ) -> Callable[[Array, Array, Array | None], tuple[HostArray, HostArray]]:
        """``call(X, Y, classes)``: for a block of rows the same, and the losses, or terms `by_target`; on the host."""

        def function(constants: Any, rows: tuple[Array, Array]) -> tuple[Array, Array]:
            (*given, classes), (X, Y) = constants, rows
            Z = self._scores(given, X)
            truth = features.truth(self.net.xp, Y, classes, Z.dtype)
            return of_scores(self.net, Z), network.values_at(self.net, Z, truth, by_target)

        call = self.backend.rowwise(function, self._key("losses", (name, by_target)))
        return lambda X, Y, classes: call((self.params, self.constants, classes), (X, Y), True)

    def _scores(self, constants: Any, X: Array) -> Array:
        params, others = constants
        X = self.net.xp.astype(X, self.backend.dtype(self.dtype), copy=False)
        return network.scores(self.net, params, X if self.prepare is None else self.prepare(others, X))

    def _key(self, what: str, name: Hashable) -> Hashable:
        """Equal ones promise an equal function; None promises nothing."""
        return None if self.net.kind is None else (what, self.net.kind, self.kind, name)

    def blocks(self, X: Array, numbers: HostArray | None = None) -> Iterator[tuple[int, int, Array]]:
        """(first, last, the rows between) of X, or of its rows of those numbers."""
        n = X.shape[0] if numbers is None else len(numbers)
        widest = max(max(layer.W.shape[-2:]) for layer in self.params)
        for first, last in features.spans(n, rows_at_once(self.backend, widest)):
            yield first, last, features.block(X, first, last, numbers, self.backend, self.dtype)

    def of_rows(self, X: Array, of_scores: OfScores, name: Hashable, stays: bool, after: After | None = None) -> Array:
        """`of_scores`, and what comes `after` it, of all rows: on the backend if it `stays` there, else on the host."""
        call = self.rowwise(of_scores, name)
        found = ((first, call(rows, not stays)) for first, _, rows in self.blocks(X))
        blocks = ((first, [each if after is None else after(each)]) for first, each in found)
        return gathered(blocks, X.shape[0], self.backend)[0]


def gathered(blocks: Iterable[tuple[int, list[Array]]], n: int, backend: Backend) -> list[Array]:
    """Arrays of n rows from blocks of each, which begin at that row, on the backend or all on the host."""
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
    return wholes or [backend.xp.concat(each) for each in zip(*lists, strict=True)]


def _empty(like: Array, n: int, backend: Backend) -> Array:
    """Room for n such rows, where they lie."""
    if library_of(like) == HOST:
        return np.empty((n, *like.shape[1:]), like.dtype)
    return backend.xp.empty((n, *like.shape[1:]), dtype=like.dtype, device=backend.device)


def as_they_are(net: network.Formulas, Z: Array) -> Array:
    """The scores themselves, (n, K)."""
    return Z


def difference(net: network.Formulas, Z: Array) -> Array:
    """The scores of the second of two classes above those of the first, (n,)."""
    return Z[:, 0] if Z.shape[1] == 1 else Z[:, 1] - Z[:, 0]


def yes(net: network.Formulas, Z: Array) -> Array:
    """Which labels of several a row has, (n, K), 1 or 0 as scikit-learn has them: int64, and no for a score of 0."""
    return net.xp.astype(losses.LOGISTIC.decide(net.xp, Z, tie=False), net.xp.int64)


def certainty(log: bool = False) -> OfScores:
    """Of one class, the only one there is, the probability or its logarithm, (n, 1)."""
    return lambda net, Z: net.xp.full_like(Z, 0.0 if log else 1.0)


def probabilities(loss: losses.Loss, both: bool, log: bool = False) -> OfScores:
    """The probability of each output's yes, or with `both`, for one output, of its no and yes; or the logarithms."""

    of_link = loss.link.log_predict if log else loss.link.predict

    def of_scores(net: network.Formulas, Z: Array) -> Array:
        Z = net.xp.concat([-Z, Z], axis=1) if both else Z  # not 1 - P, which is 0 for P near 1
        return of_link(net.xp, Z)

    return of_scores


def answers(loss: losses.Loss, tie: bool = True) -> OfScores:
    """What the loss's link decides: class number (n,), yes or no (n, K), or prediction (n, K); `tie` as there."""
    link = loss.link
    return lambda net, Z: link.decide(net.xp, Z, tie)


def loss_of(backend: Backend, net: network.Formulas, params: Params, samples: features.Rows, numbers: Any) -> float:
    """J of the rows of those numbers (an array of the host; all, if None), without penalties and dropout."""
    answered = _judged(Asked(backend, net, params), samples, numbers, (_nothing, "nothing"))
    return _mean([(last - first, loss) for first, last, _, loss in answered])


def validation_figures(
    backend: Backend,
    net: network.Formulas,
    loss: losses.Loss,
    params: Params,
    held: features.Rows,
    w: Array | None,
    tie: bool = True,
    numbers: HostArray | None = None,
) -> dict[str, float]:
    """Loss, without penalties, and score of held-out rows: of those of the `numbers` in `held` (all, if None).

    Their weights have mean 1. `w` (n, 1) or (n, K) are the score's weights, one for each row of X; `tie` as in
    `answers`.
    """
    found = []

    def answered() -> Iterator[Block]:
        asked, answer = Asked(backend, net, params), (answers(loss, tie), ("answers", tie))
        for first, last, said, lost in _judged(asked, held, numbers, answer):
            found.append((last - first, lost))
            yield first, last, said

    score = figure_of_merit(backend, loss, held.Y, w, answered(), numbers)
    return {"validation_loss": _mean(found), "validation_score": score}


Block = tuple[int, int, HostArray]  # first row, last, and what is said of the rows between
Part = Callable[[int, int], Any]


def figure_of_merit(
    backend: Backend,
    loss: losses.Loss,
    Y: Array,
    w: Array | None,
    answered: Iterable[Block],
    numbers: HostArray | None = None,
) -> float:
    """Accuracy, R² or D², as `Network.score` reports it, of the rows of those numbers (all, if None).

    `Y` (n, K) or class numbers (n, 1) and `w` (n, 1) or (n, K) lie on the backend or on the host. `answered` are
    blocks of rows in their order, and what `answers` says of them, on the host.
    """

    def part(x: Array, first: int, last: int) -> HostArray:
        rows = x[first:last, ...] if numbers is None else features.taken(x, numbers[first:last], backend)
        return rows if library_of(rows) == HOST else backend.to_host(rows)

    def weights(first: int, last: int) -> HostArray | None:
        return None if w is None else part(w, first, last).astype(np.float64)

    if loss.link.answers != "number":
        counts = [metrics.right_of(np, _right(loss, part(Y, *at), said), weights(*at)) for *at, said in answered]
        right, total = map(sum, zip(*counts, strict=True))
        return float(right / total)

    def truth(first: int, last: int) -> HostArray:  # in float32, sums over a million rows would be off
        return part(Y, first, last).astype(np.float64)

    return explained(loss, truth, weights, Y.shape[0] if numbers is None else len(numbers), answered)


def explained(loss: losses.Loss, truth: Part, weights: Part, n: int, answered: Iterable[Block]) -> float:
    """R² of n real targets, or for quantiles D² of the pinball loss, all on the host, block by block.

    ``truth(first, last)`` are float64 targets, and ``weights(first, last)`` their weights or None. A target that is
    nan, as a loss of one's own may take it, weighs 0.
    """

    def weighed(first: int, last: int) -> tuple[HostArray, HostArray | None]:
        Y, w = truth(first, last), weights(first, last)
        there = ~np.isnan(Y)
        return (Y, w) if there.all() else (np.where(there, Y, 0.0), there * (1.0 if w is None else w))

    if loss.name == "quantile" and losses.is_own(loss):
        return _d2(loss, weighed, n, answered)
    spans = features.spans(n, features.CHECKED_AT_ONCE // 16 // truth(0, 1).shape[1])
    spread = metrics.spread_of(np, (weighed(*at) for at in spans))
    residual, squares = 0.0, 0.0
    for *at, said in answered:
        Y, w = weighed(*at)
        missed, spreads = metrics.squares(np, Y, said.astype(np.float64), w, spread)
        residual, squares = residual + missed, squares + spreads
    return metrics.r2_of(np, residual, squares, spread)


def _d2(loss: losses.Loss, weighed: Part, n: int, answered: Iterable[Block]) -> float:
    """D²: the constants that it compares with are quantiles of all targets, which are sorted."""
    pinball, q = loss.bind(np, np.asarray).terms, loss.settings["q"]
    assert pinball is not None
    sums, constant = [], None
    for *at, said in answered:
        if constant is None:
            Y, w = weighed(0, n)
            constant = metrics.quantiles(np, Y, q if isinstance(q, list) else [q] * said.shape[1], w)
        Y, w = weighed(*at)
        sums.append(metrics.losses_of(np, pinball(said.astype(np.float64), Y), pinball(constant, Y), w))
    lost, of_constant, mass = (sum(each) for each in zip(*sums, strict=True))
    return metrics.d2_of(np, lost, of_constant, mass, pooled=isinstance(q, list))


def _right(loss: losses.Loss, Y: HostArray, answers: HostArray) -> HostArray:
    """Which answers are as in `Y` (n, K), or class numbers (n, 1): (n,), of several labels (n, K)."""
    if loss.link.answers == "class":
        right: HostArray = answers == (Y[:, 0] if Y.shape[1] == 1 else np.argmax(Y, axis=-1))
        return right
    return np.asarray(answers == (Y >= 0.5))


def _judged(
    asked: Asked, samples: features.Rows, numbers: HostArray | None, answer: tuple[OfScores, Hashable]
) -> Iterator[tuple[int, int, HostArray, float]]:
    """Block by block: first, last, what is said of the scores, and J of them."""
    call = asked.judged(*answer, network.weighs_targets(samples.weights))
    for first, last, X in asked.blocks(samples.X, numbers):
        Y, w = features.beside(samples, first, last, numbers, asked.backend, asked.dtype)
        said, values = call(X, Y, samples.classes)
        weights = None if w is None else asked.backend.to_host(w)
        yield first, last, said, float(network.mean_loss(np, values.astype(np.float64), weights))


def _nothing(net: network.Formulas, Z: Array) -> Array:
    return Z[:, :0]


def _mean(losses: Sequence[tuple[int, float]]) -> float:
    """The mean over all rows, from so many rows and their mean each."""
    sizes, means = zip(*losses, strict=True)
    return float(np.average(means, weights=sizes))
