"""What a network says of many rows, and what is reported of it, block by block.

No layer's output is held for all rows, and no prediction beside the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dlx import data, losses, metrics, network
from dlx.activations import log1p_exp
from dlx.backend import HOST, Array, Backend, library_of
from dlx.data import HostArray
from dlx.network import Params

After = Callable[[Array], Array]  # of what `OfScores` gives, row by row
OfScores = Callable[[network.Formulas, Array], Array]  # from scores (n, K), a row for each row


def rows_at_once(backend: Backend, widest: int) -> int:
    """How many rows a block has: by the widest layer, input and output among them."""
    wanted = max(backend.fewest_rows, backend.elements_at_once // widest)
    return max(1, min(wanted, backend.most_elements // widest))


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
        return data.dtype_name(self.params[0].W)

    def rowwise(self, of_scores: OfScores, name: Hashable) -> Callable[[Array, bool], Array]:
        """``call(X, to_host)``: for a block of rows `of_scores` of their scores, which is called `name`."""
        net, prepare, working = self.net, self.prepare, self.backend.dtype(self.dtype)

        def function(constants: Any, X: Array) -> Array:
            params, others = constants
            X = net.xp.astype(X, working, copy=False)
            return of_scores(net, network.scores(net, params, X if prepare is None else prepare(others, X)))

        key = None if net.kind is None else ("scores", net.kind, self.kind, name)
        call = self.backend.rowwise(function, key)
        return lambda X, to_host: call((self.params, self.constants), X, to_host)

    def blocks(self, X: Array, numbers: HostArray | None = None) -> Iterator[tuple[int, int, Array]]:
        """(first, last, the rows between) of X, or of its rows of those numbers."""
        n = X.shape[0] if numbers is None else len(numbers)
        widest = max(max(layer.W.shape[-2:]) for layer in self.params)
        for first, last in data.spans(n, rows_at_once(self.backend, widest)):
            yield first, last, data.block(X, first, last, numbers, self.backend, self.dtype)

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
    """Which labels of several a row has, (n, K), 1 or 0."""
    return net.xp.astype(Z > 0, net.xp.int64)


def certainty(log: bool = False) -> OfScores:
    """Of one class, the only one there is, the probability or its logarithm, (n, 1)."""
    return lambda net, Z: net.xp.full_like(Z, 0.0 if log else 1.0)


def probabilities(loss: losses.Loss, both: bool, log: bool = False) -> OfScores:
    """The probability of each output's yes, or with `both`, for one output, of its no and yes; or the logarithms."""

    def found(net: network.Formulas, Z: Array) -> Array:
        Z = net.xp.concat([-Z, Z], axis=1) if both else Z  # not 1 - P, which is 0 for P near 1
        return log_probabilities(net.xp, loss, Z) if log else net.loss.predict(Z)

    return found


def answers(loss: losses.Loss, tie: bool = True) -> OfScores:
    """What scores say: the class number (n,), yes or no as 1 or 0 (n, K), or the prediction (n, K).

    `tie` says whether a score of 0 is a yes, which it is not in scikit-learn.
    """

    def answer(net: network.Formulas, Z: Array) -> Array:
        if loss.targets == "classes":
            return net.xp.argmax(Z, axis=-1)
        if loss.targets == "binary":
            return net.xp.astype(Z >= 0 if tie else Z > 0, net.xp.int32)
        return net.loss.predict(Z)

    return answer


def log_probabilities(xp: Any, loss: losses.Loss, Z: Array) -> Array:
    """The logarithm of the link, straight from the scores: none is -inf where a probability is too small for a float.

    log softmax(Z) = Z - max Z - log Σ_k e^{Z_k - max Z};  log σ(Z) = -log(1 + e^-Z)
    """
    if loss.targets == "classes":
        z = Z - xp.max(Z, axis=-1, keepdims=True)
        return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))
    return -log1p_exp(xp, -Z)


def loss_of(
    backend: Backend, net: network.Formulas, params: Params, samples: data.Rows, numbers: Any, dtype: Any
) -> float:
    """J of the rows of those numbers (an array of the host; all, if None), without penalties and dropout."""
    n = samples.X.shape[0] if numbers is None else len(numbers)
    blocks = _scored(Asked(backend, net, params), samples, numbers, dtype)
    return _sum(backend, [lost for _, _, _, lost, _ in blocks]) / n


def validation_figures(
    backend: Backend,
    net: network.Formulas,
    loss: losses.Loss,
    params: Params,
    held: data.Rows,
    w: Array | None,
    dtype: Any,
    tie: bool = True,
    numbers: HostArray | None = None,
) -> dict[str, float]:
    """Loss, without penalties, and score of held-out rows: of those of the `numbers` in `held` (all, if None).

    `w` (n,) are the score's weights, one for each row of X; `tie` as in `answers`.
    """
    found, answer = [], answers(loss, tie)

    def answered() -> Iterator[tuple[int, int, HostArray]]:
        for first, last, Z, lost, weight in _scored(Asked(backend, net, params), held, numbers, dtype):
            found.append((lost, weight))
            yield first, last, backend.to_host(answer(net, Z))

    score = figure_of_merit(backend, loss, held.Y, w, answered(), numbers)
    sums, weights = zip(*found, strict=True)
    n = held.X.shape[0] if numbers is None else len(numbers)
    total = n if held.weights is None else _sum(backend, weights)
    return {"validation_loss": _sum(backend, sums) / total, "validation_score": score}


def figure_of_merit(
    backend: Backend,
    loss: losses.Loss,
    Y: Array,
    w: Array | None,
    answered: Iterable[tuple[int, int, HostArray]],
    numbers: HostArray | None = None,
) -> float:
    """Accuracy or R², as `Network.score` reports it, of the rows of those numbers (all, if None).

    `Y` (n, K) or class numbers (n, 1) and `w` (n,) lie on the backend or on the host. `answered` are blocks of rows in
    their order: first, last, and what `answers` says of them, on the host.
    """

    def part(x: Array | None, first: int, last: int) -> HostArray | None:
        if x is None:
            return None
        rows = x[first:last, ...] if numbers is None else data.taken(x, numbers[first:last], backend)
        return rows if library_of(rows) == HOST else backend.to_host(rows)

    def doubles(x: Array | None, first: int, last: int) -> Any:  # in float32, sums over a million rows would be off
        rows = part(x, first, last)
        return None if rows is None else rows.astype(np.float64)

    if loss.targets in ("classes", "binary"):
        counts = [metrics.right_of(np, _right(loss, part(Y, *at), said), doubles(w, *at)) for *at, said in answered]
        right, total = map(sum, zip(*counts, strict=True))
        return float(right / total)
    n = Y.shape[0] if numbers is None else len(numbers)
    spans = data.spans(n, data.CHECKED_AT_ONCE // 16 // Y.shape[1])
    spread = metrics.spread_of(np, ((doubles(Y, *at), doubles(w, *at)) for at in spans))
    residual, squares = 0.0, 0.0
    for *at, said in answered:
        missed, spreads = metrics.squares(np, doubles(Y, *at), said.astype(np.float64), doubles(w, *at), spread)
        residual, squares = residual + missed, squares + spreads
    return metrics.r2_of(np, residual, squares, spread)


def _right(loss: losses.Loss, Y: Any, said: HostArray) -> HostArray:
    """Which rows are answered as in `Y` (n, K), or class numbers (n, 1)."""
    if loss.targets == "classes":
        right: HostArray = said == (Y[:, 0] if Y.shape[1] == 1 else np.argmax(Y, axis=-1))
        return right
    return np.asarray(np.all(said == (Y >= 0.5), axis=-1))


def _scored(
    asked: Asked, samples: data.Rows, numbers: HostArray | None, dtype: Any
) -> Iterator[tuple[int, int, Array, Array, Array | None]]:
    """Block by block: first, last, the scores, the sum of the weighted losses, and that of the weights."""
    backend, net = asked.backend, asked.net
    call = asked.rowwise(as_they_are, "scores")
    for first, last, X in asked.blocks(samples.X, numbers):
        Y, w = data.beside(samples, first, last, numbers, backend, asked.dtype)
        Z = call(X, False)
        values = net.loss.value(Z, data.truth(net.xp, Y, samples.classes, dtype))
        yield first, last, Z, net.xp.sum(values if w is None else w * values), None if w is None else net.xp.sum(w)


def _sum(backend: Backend, scalars: Any) -> float:
    """The sum of numbers that lie on the backend."""
    return float(backend.stack_to_host(scalars).astype(np.float64).sum())
