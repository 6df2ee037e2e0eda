"""What an estimator looks at after each epoch of its training, and when it ends it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state

from dlx import checks, losses, optimizers, scoring
from dlx.data import features
from dlx.estimators import hyperparameters, stopping
from dlx.estimators.callbacks import Hooks
from dlx.estimators.pickles import each_slot
from dlx.network import Layer, Params
from dlx.training import divergence, loop, progress_bar
from dlx.training.plan import Plan
from dlx.training.state import TrainingState
from dlx.training.steps import Task


class Diverged(divergence.DivergenceError, ValueError):
    """`DivergenceError`, as the kind of error that scikit-learn's users catch."""


class Given(NamedTuple):
    """Rows as the user gave them, and checked; `weights` (n,) or None."""

    raw_X: Any
    raw_y: Any
    X: Any
    Y: features.HostArray
    weights: features.HostArray | None


class Optimizing(NamedTuple):
    """Where the optimizer of that name stands after a training; `slots` is None where they were not kept."""

    name: str
    slots: optimizers.State | None
    updates: int
    learning_rate: float


class Held(NamedTuple):
    """Rows to validate on: as the user gave them, for a scorer, and on the backend.

    `weights` (n, 1) are those of the score, or None: as in scikit-learn, without those of the classes.
    """

    X: Any
    y: Any
    rows: features.Rows
    weights: Any
    numbers: Any


class Watch:
    """One training as the estimator `est` sees it: its best weights, its optimizer's end, whether a rule stopped it."""

    def __init__(
        self, est: Any, plan: Plan, task: Task, held: Held | None, rule: stopping.Plateau, hooks: Hooks
    ) -> None:
        self.est, self.plan, self.task, self.held, self.rule, self.hooks = est, plan, task, held, rule, hooks
        self.scorer: Callable[..., float] | None = None if est.scoring is None else check_scoring(est, est.scoring)
        self.optimizer = hyperparameters.optimizer(est)
        self.best: Params | None = None
        self.end: TrainingState | None = None
        self.history: loop.History = {}
        self.stopped = False
        self.reason = ""
        self.show: Callable[[loop.History], None] = self.lines

    def lines(self, history: loop.History) -> None:
        """The last epoch in scikit-learn's words."""
        print(f"Iteration {len(history['loss'])}, loss = {history['loss'][-1]:.8f}")
        if self.held is not None:
            print(f"Validation score: {history['validation_score'][-1]:f}")

    @contextlib.contextmanager
    def shown(self, epochs: int, rows: int, part: bool) -> Iterator[None]:
        """What `verbose` asks for: a bar, which is no use for a `part` of one epoch, or lines; last, why it stopped."""
        verbose = int(self.est.verbose)
        bar = verbose == 1 and not part and progress_bar.has_bars()
        if bar or not verbose:
            with progress_bar.progress(int(bar), epochs, rows, label=losses.label(self.est.loss)) as self.show:
                yield
        else:
            yield
        if self.reason:
            print(self.reason)

    def validate(self, params: Params) -> dict[str, float]:
        """An epoch's figures of the rows held out; the scorer, if there is one, sees the estimator as it then is."""
        if self.held is None:
            return {}
        rows, w, numbers = self.held.rows, self.held.weights, self.held.numbers
        backend, loss = self.plan.backend, self.plan.loss
        figures = scoring.validation_figures(backend, self.task.net, loss, params, rows, w, False, numbers)
        if not self.est._multilabel and len(getattr(self.est, "classes_", "01")) == 1:
            figures["validation_score"] = 1.0  # the one class there is
        if self.scorer is not None:
            vars(self.est).update(self.est._fitted(self.plan, params))
            figures["validation_score"] = float(self.scorer(self.est, self.held.X, self.held.y))
        return figures

    def keep(self, end: TrainingState) -> None:
        """Where the optimizer stands."""
        self.end = end

    def report(self, params: Params, history: loop.History) -> bool:
        """Whether the epoch that has just ended is the last."""
        est, self.history = self.est, history
        done, loss = len(history["loss"]), history["loss"][-1]
        self.show(history)
        if est.early_stopping:
            by_loss = est.early_stopping == "loss"
            figure = -history["validation_loss"][-1] if by_loss else history["validation_score"][-1]
            if self.best is None or figure > self.rule.best:
                copy = self.plan.backend.copy
                self.best = tuple(Layer(copy(W), copy(b)) for W, b in params)
            self.stopped = self.rule.ends(figure)
        elif not self.optimizer.full_batch:
            self.stopped = self.rule.ends(-loss)
        if self.optimizer.full_batch:
            self.stopped |= stopping.flat(history["loss"], hyperparameters.FLAT)
        if est.verbose and self.stopped:
            what = "Validation figure" if est.early_stopping else "Training loss"
            self.reason = f"{what} did not improve by more than tol={est.tol:f} any longer. Stopping."
        self.stopped |= self.hooks.epoch(
            lambda: est._fitted(self.plan, params), self.stopped or done == self.hooks.epochs
        )
        return self.stopped

    def warn_unless_converged(self, epochs: int) -> None:
        """Where all `epochs` are done, and no rule has stopped before."""
        full_batch, done = self.optimizer.full_batch, len(self.history.get("loss", []))
        exhausted = full_batch and self.end is not None and self.end.updates >= self.est.max_fun
        if exhausted or (done == epochs and not self.stopped):
            checks.warn(
                f"The training has not converged after {done} iterations, the maximum. Raise max_iter"
                f"{' or max_fun' if full_batch else ''}, scale the data, or raise tol.",
                ConvergenceWarning,
            )

    def require_good_best(self) -> None:
        """Raise where the best weights, by the validation's figures, have diverged all the same."""
        if self.best is not None:
            limit = divergence.highest_loss(divergence.zero_loss(self.task))
            epochs = len(self.history.get("loss", []))
            divergence.require_good(self.task, self.best, epochs, divergence.JUDGED, limit)

    def after(self, reason: divergence.DivergenceError, first: Callable[[], Params]) -> Params:
        """The best weights before the training diverged, with a warning; without early stopping, the error.

        Where those have diverged too, they are the `first` ones: as in scikit-learn, early stopping raises nothing.
        """
        if self.best is None:
            raise Diverged(
                "training diverged (Solver produced non-finite parameter weights. The input data may contain large "
                f"values and need to be preprocessed.): {reason}"
            ) from reason
        which = "best weights before"
        try:
            self.require_good_best()
        except divergence.DivergenceError:
            self.best, which = first(), "weights that it began with"
        for figures in () if reason.after_all else self.history.values():
            figures.append(math.nan)
        checks.warn(f"training diverged; the {which} are kept. {reason}", ConvergenceWarning)
        self.stopped, self.end = True, None  # the optimizer's slots are those of the divergence
        return self.best


def going_on(
    kept: Optimizing | None, optimizer: optimizers.AnyOptimizer, plan: Plan, params: Params
) -> TrainingState | None:
    """Where the optimizer goes on: with warm_start and in partial_fit it keeps its momenta."""
    if kept is None or kept.slots is None or optimizer.full_batch:
        return None
    if kept.name != optimizer.name:
        return None  # other slots, or others' meaning
    backend = plan.backend
    slots = each_slot(kept.slots, lambda x: backend.copy(backend.asarray(x, plan.dtype)))
    return TrainingState(params, slots, kept.updates)


@contextlib.contextmanager
def naming_validation_rows() -> Iterator[None]:
    """What is wrong with the rows to validate on is not taken for an error in those to train on."""
    try:
        yield
    except (TypeError, ValueError) as reason:
        reason.args = (f"in X_val, y_val: {reason}",)
        raise


@contextlib.contextmanager
def all_or_nothing(est: Any) -> Iterator[None]:
    """What fails inside leaves the estimator as it was, and what it draws from: a RandomState, or NumPy's own."""
    before, draws = dict(est.__dict__), getattr(est, "_draws", None)
    places = None if draws is None else draws.places
    streams = [] if draws is None else [draws.state]
    if est.random_state is None or isinstance(est.random_state, np.random.RandomState):
        streams.append(check_random_state(est.random_state))
    states = [each.get_state() for each in streams]
    try:
        yield
    except BaseException:
        for each, state in zip(streams, states, strict=True):
            each.set_state(state)
        if draws is not None:
            draws.places = places
        est.__dict__.clear()
        est.__dict__.update(before)
        raise
