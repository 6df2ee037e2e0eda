"""L-BFGS with a strong Wolfe line search: the search on the host, the vectors on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from dlx import checks
from dlx.backend import Array, Namespace
from dlx.network import Params

Evaluate = Callable[[Array], tuple[float, Array]]
SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.9  # c1 and c2 of Nocedal and Wright, section 3.1, for quasi-Newton methods


class Parts(NamedTuple):
    """The state of an optimizer in the parts that a file can hold.

    `slots` have the shapes of the parameters; `vectors` are as long as all parameters together, each one alone or a
    sequence of them; `numbers` are for JSON, and None where there are none.
    """

    slots: Sequence[Params] = ()
    vectors: Mapping[str, Any] = {}
    numbers: Mapping[str, Any] | None = None


class LBFGS(NamedTuple):
    """The settings of `lbfgs`.

    Its properties are those that `dlx.Optimizer` has too: a training asks for these, and not which of the two it has.
    """

    history: int
    max_search: int
    tolerance: float
    max_evaluations: float = math.inf

    @property
    def name(self) -> str:
        """Its name in `dlx.optimizers.OPTIMIZERS` and in checkpoints."""
        return "lbfgs"

    @property
    def description(self) -> dict[str, Any]:
        """Its name and its settings, by which a checkpoint tells it from others."""
        return {"name": self.name, **self._asdict()}

    @property
    def constants(self) -> Mapping[str, float]:
        """The settings that meet arrays, so that the working dtype must hold them: none, the search is on the host."""
        return {}

    @property
    def learning_rate(self) -> None:
        """Its own learning rate: none."""

    @property
    def takes_rate(self) -> Literal[False]:
        """Whether it takes a learning rate: no, it searches for the length of each step."""
        return False

    @property
    def full_batch(self) -> Literal[True]:
        """Whether an epoch is one iteration over all rows at once, and not one update for each batch."""
        return True

    @property
    def loss_after_epoch(self) -> bool:
        """Whether the loss of an epoch is that of the weights which the epoch leaves."""
        return True

    @property
    def vectors(self) -> int:
        """How many vectors, as long as all parameters together, it holds between two epochs."""
        return 2 * self.history

    def parts(self, state: MinimizerState) -> Parts:
        """The state for a file."""
        s_and_y = {name: [pair[k] for pair in state.pairs] for k, name in enumerate("sy")}
        numbers = {"f": state.f, "length": state.length, "sy": [sy for _, _, sy in state.pairs]}
        return Parts(vectors={"gradient": state.gradient, **s_and_y}, numbers=numbers)

    def state_of(self, parts: Parts, layers: int, evaluations: int) -> MinimizerState:
        """The state from a file, after so many evaluations; ValueError where the parts cannot be its own."""
        numbers, vectors = parts.numbers, parts.vectors
        if parts.slots or numbers is None or evaluations < 1:
            raise ValueError("L-BFGS within an epoch")
        sy = numbers["sy"]
        if len(sy) > self.history or not all(sy):
            raise ValueError(f"{len(sy)} pairs for L-BFGS")
        pairs = tuple(zip(vectors["s"], vectors["y"], sy, strict=True))
        return MinimizerState(numbers["f"], vectors["gradient"], pairs, numbers["length"], evaluations)


class Point(NamedTuple):
    """A trial of the line search: step length t, value f(x + t d), slope along d, gradient."""

    t: float
    f: float
    slope: float
    gradient: Array


class MinimizerState(NamedTuple):
    """What an iteration leaves to the next one beside the point that it has reached.

    The value and the gradient there, the pairs (s, y, sᵀy), the length of the last step, the number of evaluations.
    """

    f: float
    gradient: Array
    pairs: tuple[tuple[Array, Array, float], ...]
    length: float
    evaluations: int


def lbfgs(
    *, history: int = 10, max_search: int = 25, tolerance: float = 1e-7, max_evaluations: float = math.inf
) -> LBFGS:
    """Limited-memory BFGS for the whole data set at once; an epoch is one iteration, and no learning rate is needed.

    x ← x + t d,  d = -H g,  with H built from the last `history` pairs s = Δx, y = Δg (two-loop recursion) from
    H₀ = (sᵀy / yᵀy) I, and t from a line search for the strong Wolfe conditions

        f(x + t d) <= f(x) + 1e-4 t gᵀd,   |∇f(x + t d)ᵀd| <= 0.9 |gᵀd|

    Parameters
    ----------
    history : int >= 1, default 10
        The number of pairs (s, y) that H is built from. Each takes the memory of two networks.
    max_search : int >= 1, default 25
        The most evaluations in one line search.
    tolerance : float >= 0, default 1e-7
        Stop when the largest element of the gradient is this small.
    max_evaluations : int >= 1 or inf, default inf
        Stop when loss and gradient were computed so often: no line search begins after that, and none exceeds it.

    Returns
    -------
    LBFGS

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Numerics
    --------
    The iterates are those of torch.optim.LBFGS with its "strong_wolfe" until rounding parts them, but near the
    minimum: that drops every pair with sᵀy <= 1e-10, this one only those small beside the decrease expected of their
    step, whatever the units of f. Its search also departs from the book in two rare cases, in which this one does
    not: a second trial that is no lower than the first, and a low one that breaks the first condition. The search
    ends without the second condition after `max_search` evaluations, or when it moves no element by 1e-9.

    Source: Nocedal and Wright 2006, algorithms 7.4, 7.5, 3.5 and 3.6; cubic interpolation with the safeguards of
    Schmidt's minFunc, as in torch.optim.LBFGS.

    Examples
    --------
    >>> import dlx
    >>> dlx.lbfgs(history=5).history
    5
    """
    return LBFGS(
        checks.integer("history", history, low=1, remedy="Use 10, for example."),
        checks.integer("max_search", max_search, low=1, remedy="Use 25, for example."),
        checks.number("tolerance", tolerance, low=0, remedy="Use 1e-7, for example."),
        max_evaluations
        if max_evaluations == math.inf
        else checks.integer("max_evaluations", max_evaluations, low=1, remedy="Use 15000, or math.inf."),
    )


class Minimizer:
    """The iteration, one `advance` at a time, so that training can validate and stop in between.

    `x` is the point reached, the other attributes are those of `MinimizerState`; `length` is in units of the last
    direction.
    """

    def __init__(
        self, xp: Namespace, settings: LBFGS, evaluate: Evaluate, x: Array, state: MinimizerState | None = None
    ) -> None:
        self.xp, self.settings, self.evaluate = xp, settings, evaluate
        self.x = x
        self.f, self.gradient, pairs, self.length, self.evaluations = state or MinimizerState(*evaluate(x), (), 0.0, 1)
        self.pairs = list(pairs)

    @property
    def state(self) -> MinimizerState:
        """The state with which another minimizer goes on from `x`."""
        return MinimizerState(self.f, self.gradient, tuple(self.pairs), self.length, self.evaluations)

    def advance(self) -> bool:
        """One iteration: direction, line search, new pair; True if there is nothing more to gain."""
        left = self.settings.max_evaluations - self.evaluations
        if left < 1 or self._largest(self.gradient) <= self.settings.tolerance:
            return True
        d = self._direction()
        here = Point(0.0, self.f, self._dot(self.gradient, d), self.gradient)
        if not here.slope < 0.0:  # rounding has spoilt the pairs: go on from steepest descent
            self.pairs.clear()
            d = -self.gradient
            here = here._replace(slope=self._dot(self.gradient, d))
        if not math.isfinite(here.slope):
            raise OverflowError("the squared gradient is not finite")
        first = 1.0 if self.pairs else min(1.0, 1.0 / float(self.xp.sum(self.xp.abs(self.gradient))))
        most = int(min(self.settings.max_search, left))
        reached = search(lambda t: self._at(t, d), here, first, most, self._largest(d))
        if not reached.f < self.f:
            return True
        s, y = reached.t * d, reached.gradient - self.gradient
        sy = self._dot(s, y)
        if sy > -1e-10 * reached.t * here.slope:  # keeps H positive definite, whatever the units of f and x
            self.pairs = [*self.pairs, (s, y, sy)][-self.settings.history :]
        self.x, self.f, self.gradient, self.length = self.x + s, reached.f, reached.gradient, reached.t
        return False

    def _direction(self) -> Array:
        """-H g by the two-loop recursion, algorithm 7.4."""
        q = -self.gradient
        alphas = []
        for s, y, sy in reversed(self.pairs):
            alpha = self._dot(s, q) / sy
            alphas.append(alpha)
            q = q - alpha * y
        if self.pairs:
            _, y, sy = self.pairs[-1]
            q = q * (sy / self._dot(y, y))
        for (s, y, sy), alpha in zip(self.pairs, reversed(alphas), strict=True):
            beta = self._dot(y, q) / sy
            q = q + (alpha - beta) * s
        return q

    def _at(self, t: float, d: Array) -> Point:
        f, gradient = self.evaluate(self.x + t * d)
        self.evaluations += 1
        return Point(t, f, self._dot(gradient, d), gradient)

    def _dot(self, a: Array, b: Array) -> float:
        return float(self.xp.sum(a * b))

    def _largest(self, a: Array) -> float:
        return float(self.xp.max(self.xp.abs(a)))


def search(at: Callable[[float], Point], here: Point, first: float, most: int, size: float) -> Point:
    """A point that meets the strong Wolfe conditions, or the best one found in `most` evaluations.

    Algorithm 3.5: steps grow until an interval must hold such a point. `size` is the direction's largest element.
    """
    previous, trial = here, at(first)
    for evaluations in range(1, most + 1):
        if _too_high(trial, here) or (evaluations > 1 and trial.f >= previous.f):
            return _zoom(at, here, previous, trial, most - evaluations, size)
        if _flat(trial, here):
            return trial
        if trial.slope >= 0.0:
            return _zoom(at, here, trial, previous, most - evaluations, size)
        if evaluations == most:
            break
        low, high = trial.t + 0.01 * (trial.t - previous.t), 10.0 * trial.t
        previous, trial = trial, at(_within(low, high, _cubic_minimum(previous, trial)))
    return trial


def _zoom(at: Callable[[float], Point], here: Point, low: Point, high: Point, most: int, size: float) -> Point:
    """Algorithm 3.6: the interval between `low` and `high` shrinks onto a point that meets the conditions.

    `low` is the lowest point so far that meets the first condition, and f falls from it towards `high`.
    """
    crept = False  # the last trial lay close to an end of the interval
    for _ in range(most):
        left, right = min(low.t, high.t), max(low.t, high.t)
        if (right - left) * size < 1e-9:
            break
        t = _within(left, right, _cubic_minimum(low, high))
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            if crept or t >= right or t <= left:
                t, crept = (right - margin if right - t < t - left else left + margin), False
            else:
                crept = True
        else:
            crept = False
        trial = at(t)
        if _too_high(trial, here) or trial.f >= low.f:
            high = trial
            continue
        if _flat(trial, here):
            return trial
        if trial.slope * (high.t - low.t) >= 0.0:
            high = low
        low = trial
    return low


def _within(low: float, high: float, t: float) -> float:
    """The t nearest to t between the two; their middle where t is nan."""
    return 0.5 * (low + high) if math.isnan(t) else min(max(t, low), high)


def _too_high(trial: Point, here: Point) -> bool:
    """Whether the trial breaks the first condition, or is no number."""
    finite = math.isfinite(trial.f) and math.isfinite(trial.slope)
    return not (finite and trial.f <= here.f + SUFFICIENT_DECREASE * trial.t * here.slope)


def _flat(trial: Point, here: Point) -> bool:
    return abs(trial.slope) <= CURVATURE * abs(here.slope)


def _cubic_minimum(a: Point, b: Point) -> float:
    """The minimum of the cubic through two points and their slopes (equation 3.59); nan where it has none."""
    a, b = (a, b) if a.t <= b.t else (b, a)
    d1 = a.slope + b.slope - 3.0 * (a.f - b.f) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0.0:
        return math.nan
    d2 = math.sqrt(square)
    denominator = b.slope - a.slope + 2.0 * d2
    return math.nan if denominator == 0.0 else b.t - (b.t - a.t) * ((b.slope + d2 - d1) / denominator)
