"""What an estimator does after each epoch of its training: validate, remember the best weights, decide to stop."""

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
from dlx.estimators.pickles import map_slots
from dlx.host import HostArray
from dlx.network import Layer, Params
from dlx.training import divergence, loop, progress_bar
from dlx.training.plan import Plan
from dlx.training.state import TrainingState
from dlx.training.steps import Task


class Diverged(divergence.DivergenceError, ValueError):
    """A `DivergenceError` that is a `ValueError` too, which is what scikit-learn's users catch."""


class CheckedData(NamedTuple):
    """Rows as the user passed them, `raw_X` and `raw_y`, and as they were checked; `weights` (n,) or None."""

    raw_X: Any
    raw_y: Any
    X: Any
    Y: HostArray
    weights: HostArray | None


class Optimizing(NamedTuple):
    """An optimizer after a training; `slots` is None if a pickle left them out. Pickles name this class."""

    name: str
    slots: optimizers.State | None
    updates: int
    learning_rate: float


class HeldOut(NamedTuple):
    """Rows to validate on: `X` and `y` as the user passed them, for a scorer, and `rows` on the backend.

    `numbers` are those of the rows to validate on among `rows`, or None for all. `weights` (n, 1) are those of the
    score, or None. As in scikit-learn, they do not include class weights.
    """

    X: Any
    y: Any
    rows: features.Rows
    weights: Any
    numbers: Any


class Watch:
    """Follows one training of the estimator `est`.

    `best` are the weights of the best epoch with early stopping, `end` is the state after the last epoch, `stopped`
    says whether a rule or a callback ended the training, and `reason` is the text that says so.
    """

    def __init__(
        self, est: Any, plan: Plan, task: Task, held_out: HeldOut | None, rule: stopping.Plateau, hooks: Hooks
    ) -> None:
        self.est, self.plan, self.task, self.held_out, self.rule, self.hooks = est, plan, task, held_out, rule, hooks
        self.scorer: Callable[..., float] | None = None if est.scoring is None else check_scoring(est, est.scoring)
        self.optimizer = hyperparameters.optimizer(est)
        self.best: Params | None = None
        self.end: TrainingState | None = None
        self.history: loop.History = {}
        self.stopped = False
        self.reason = ""
        self.show: Callable[[loop.History], None] = self.print_epoch

    def print_epoch(self, history: loop.History) -> None:
        """Print the last epoch in scikit-learn's words."""
        print(f"Iteration {len(history['loss'])}, loss = {history['loss'][-1]:.8f}")
        if self.held_out is not None:
            print(f"Validation score: {history['validation_score'][-1]:f}")

    @contextlib.contextmanager
    def shown(self, epochs: int, rows: int, part: bool) -> Iterator[None]:
        """Show a bar or lines, as `verbose` asks, and in the end why the training stopped. A `part` gets no bar."""
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
        """The figures of the held-out rows after an epoch. A scorer sees the estimator with its present weights."""
        if self.held_out is None:
            return {}
        rows, w, numbers = self.held_out.rows, self.held_out.weights, self.held_out.numbers
        backend, loss = self.plan.backend, self.plan.loss
        figures = scoring.validation_figures(backend, self.task.net, loss, params, rows, w, False, numbers)
        if not self.est._multilabel and len(getattr(self.est, "classes_", "01")) == 1:
            figures["validation_score"] = 1.0  # there is one class only, which is what it predicts
        if self.scorer is not None:
            vars(self.est).update(self.est._weight_attributes(self.plan, params))
            figures["validation_score"] = float(self.scorer(self.est, self.held_out.X, self.held_out.y))
        return figures

    def keep(self, end: TrainingState) -> None:
        """Remember the state after an epoch."""
        self.end = end

    def report(self, params: Params, history: loop.History) -> bool:
        """Whether the epoch that has just ended is the last."""
        est, self.history = self.est, history
        epochs_done, loss = len(history["loss"]), history["loss"][-1]
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
            self.stopped |= stopping.flat(history["loss"], hyperparameters.LEAST_DECREASE)
        if est.verbose and self.stopped:
            what = "Validation figure" if est.early_stopping else "Training loss"
            self.reason = f"{what} did not improve by more than tol={est.tol:f} any longer. Stopping."
        last = self.stopped or epochs_done == self.hooks.epochs
        self.stopped |= self.hooks.end_epoch(lambda: est._weight_attributes(self.plan, params), last)
        return self.stopped

    def warn_unless_converged(self, epochs: int) -> None:
        """Warn if all `epochs`, or all evaluations that `max_fun` allows, were done before the training converged."""
        full_batch, epochs_done = self.optimizer.full_batch, len(self.history.get("loss", []))
        exhausted = full_batch and self.end is not None and self.end.updates >= self.est.max_fun
        if exhausted or (epochs_done == epochs and not self.stopped):
            checks.warn(
                f"The training has not converged after {epochs_done} iterations, the maximum. Raise max_iter"
                f"{' or max_fun' if full_batch else ''}, scale the data, or raise tol.",
                ConvergenceWarning,
            )

    def require_good_best(self) -> None:
        """Raise if the weights that validation found best have diverged on the training rows."""
        if self.best is not None:
            limit = divergence.highest_loss(divergence.zero_loss(self.task))
            epochs = len(self.history.get("loss", []))
            divergence.require_good(self.task, self.best, epochs, divergence.JUDGED, limit)

    def weights_after(self, reason: divergence.DivergenceError, first: Callable[[], Params]) -> Params:
        """The best weights before the training diverged, with a warning. Raises if there was no early stopping.

        If the best weights have diverged too, the `first` ones are returned, because in scikit-learn early stopping
        never raises.
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
        self.stopped, self.end = True, None  # not the slots of the optimizer, which has diverged
        return self.best


def starting_state(
    optimizing: Optimizing | None, optimizer: optimizers.AnyOptimizer, plan: Plan, params: Params
) -> TrainingState | None:
    """The state with which `params` go on with the slots of the last training; None if the optimizer starts anew."""
    if optimizing is None or optimizing.slots is None or optimizer.full_batch:
        return None
    if optimizing.name != optimizer.name:
        return None  # its slots are others, or mean something else
    backend = plan.backend
    slots = map_slots(lambda x: backend.copy(backend.asarray(x, plan.dtype)), optimizing.slots)
    return TrainingState(params, slots, optimizing.updates)


@contextlib.contextmanager
def naming_validation_rows() -> Iterator[None]:
    """Say in errors that they are about the rows to validate on, and not about those to train on."""
    try:
        yield
    except (TypeError, ValueError) as reason:
        reason.args = (f"in X_val, y_val: {reason}",)
        raise


@contextlib.contextmanager
def all_or_nothing(est: Any) -> Iterator[None]:
    """If the work fails, leave the estimator and the random stream that it draws from as they were."""
    before, draws = dict(est.__dict__), getattr(est, "_draws", None)
    places = None if draws is None else draws.places
    streams = [] if draws is None else [draws.state]
    if est.random_state is None or isinstance(est.random_state, np.random.RandomState):
        streams.append(check_random_state(est.random_state))
    states = [stream.get_state() for stream in streams]
    try:
        yield
    except BaseException:
        for stream, state in zip(streams, states, strict=True):
            stream.set_state(state)
        if draws is not None:
            draws.places = places
        est.__dict__.clear()
        est.__dict__.update(before)
        raise
