"""The parameters of the estimators: their checks, and the parts of a training that they describe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, InvalidParameterError, Options, StrOptions

from dlx import activations, checks, initializers, losses, nearest, optimizers, quasi_newton, schedules
from dlx.activations import Activation
from dlx.backend import Backend
from dlx.data.parameters import Pairs
from dlx.estimators import stopping
from dlx.model import Network
from dlx.training import arguments, ranges, steps
from dlx.warm_start import begun_from

SCHEDULES: Mapping[str, Callable[[float], schedules.Schedule]] = {
    make.__name__: make
    for make in (
        schedules.step_decay,
        schedules.exponential,
        schedules.inverse_scaling,
        schedules.cosine,
        schedules.warmup_cosine,
        schedules.one_cycle,
        schedules.reduce_on_plateau,
    )
}
SKLEARN_RATES = ("constant", "invscaling", "adaptive")
LEAST_DECREASE = 2.2e-9  # the default of SciPy's "ftol", by which scikit-learn's lbfgs stops
PUBLIC_NAMES = {"learning_rate": "learning_rate_init", "eps": "epsilon"}  # the estimators' names of fit's settings
CONSTRAINTS: dict[str, Any] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [str, Activation, tuple, list],
    "solver": [StrOptions({*optimizers.OPTIMIZERS}), *get_args(optimizers.AnyOptimizer)],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({*SKLEARN_RATES, *SCHEDULES}), callable],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="left")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean", StrOptions({"score", "loss"})],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {math.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    "loss": [str, losses.Loss, tuple],
    "backend": "no_validation",
    "dtype": [StrOptions({"float32", "float64"}), None],
    "tf32": ["boolean", None],
    "dropout": [Interval(Real, 0, 1, closed="left"), tuple, list],
    "n_layers": [Interval(Integral, 0, None, closed="left"), None],
    "width": [Interval(Integral, 1, None, closed="left"), None],
    "init": [str, callable, list, tuple, Network],
    "standardize": ["boolean"],
    "scoring": [str, callable, HasMethods("_score"), None],
}


def constructor_arguments(arguments: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The parameters of an estimator, from the `locals()` of its constructor. Raises for unknown arguments."""
    nearest.refuse(arguments["unknown"], kind.__name__, kind)
    return {name: value for name, value in arguments.items() if name not in ("self", "__class__", "unknown")}


def validate(est: Any) -> None:
    """Check all parameters by scikit-learn's means. A loss, activation or solver in first place gets its own error."""
    first = est.hidden_layer_sizes
    for name, kind, known in (
        ("loss", losses.Loss, {*losses.LOSSES, "log_loss"}),
        ("activation", Activation, {*activations.ACTIVATIONS}),
        ("solver", optimizers.AnyOptimizer, {*optimizers.OPTIMIZERS}),
    ):
        if isinstance(first, kind) or (isinstance(first, str) and first in known):
            remedy = f"Here layer sizes come first: pass {name}={first!r} by name."
            checks.reject("hidden_layer_sizes", "hold widths of layers", repr(first), remedy, InvalidParameterError)
    est._validate_params()


def hidden_sizes(est: Any) -> list[int]:
    """The widths of the hidden layers: `hidden_layer_sizes`, or `n_layers` times `width`."""
    sizes = est.hidden_layer_sizes
    sizes = sizes.tolist() if isinstance(sizes, np.ndarray) else sizes
    sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if est.n_layers is not None or est.width is not None:
        if sizes != [100]:
            got, remedy = f"{sizes} beside n_layers or width", "Leave out one of them."
            checks.reject("hidden_layer_sizes", "be given alone", got, remedy)
        return [100 if est.width is None else int(est.width)] * (1 if est.n_layers is None else int(est.n_layers))
    remedy = "Each is the width of a hidden layer; () is a linear model."
    return [checks.integer("hidden_layer_sizes", size, low=1, remedy=remedy) for size in sizes]


def real_outputs(loss: losses.Loss, columns: int) -> int:
    """The number of outputs for targets with so many columns: one for each column, or for each quantile in a list."""
    q = loss.settings.get("q")
    if not isinstance(q, list):
        return columns
    if columns not in (1, len(q)):
        rule, remedy = f"have 1 column, or {len(q)} as q has", "One target is that of every quantile."
        checks.reject("y", rule, f"{columns} columns", remedy)
    return len(q)


def training_settings(
    est: Any, n: int, rule: stopping.Plateau, before: int, incremental: bool, dtype: str
) -> steps.Settings:
    """How to train on `n` rows: for one epoch if `incremental`, after `before` samples in earlier trainings."""
    batch_size = min(200, n) if est.batch_size == "auto" else int(est.batch_size)
    if batch_size > n:
        checks.warn(f"batch_size={batch_size} is more than the {n} rows to train on: all of them are taken.")
        batch_size = n
    chosen = optimizer(est)
    planned = est.max_iter * -(-n // batch_size)
    has_rate = chosen.learning_rate is not None
    settings = arguments.settings(
        chosen,
        arguments.DEFAULT_RATE if has_rate else rate_or_schedule(est, n, rule, before, planned, incremental),
        batch_size,
        1 if incremental else est.max_iter,
        est.shuffle,
        None,
        None,
        None,
    )
    return ranges.in_dtype(dtype, settings, est._hidden, est._fitted_loss, PUBLIC_NAMES)


def optimizer(est: Any) -> optimizers.AnyOptimizer:
    """The optimizer that `solver` names. scikit-learn's three solvers take their settings from the estimator."""
    if not isinstance(est.solver, str):
        return optimizers.get(est.solver)
    if est.solver == "adam":
        return _epsilon_hat(optimizers.adam(b1=est.beta_1, b2=est.beta_2, eps=est.epsilon))
    if est.solver == "sgd" and est.momentum > 0:
        make = optimizers.nesterov if est.nesterovs_momentum else optimizers.momentum
        return make(beta=est.momentum)
    if est.solver == "lbfgs":
        return quasi_newton.lbfgs(tolerance=est.tol, max_evaluations=int(est.max_fun))
    return optimizers.get(est.solver)


def _epsilon_hat(adam: optimizers.Optimizer) -> optimizers.Optimizer:
    """Adam with the ε̂ of its paper, as in scikit-learn, which is added to √v before the bias correction."""

    def coefficients(t: int, rate: float) -> tuple[float, ...]:
        root = math.sqrt(1.0 - adam.settings["b2"])  # √v is divided by it too, since the slot holds v / (1 - b2)
        return adam.coefficients(t, rate)[0], adam.settings["eps"] / root

    return adam._replace(coefficients=coefficients)


def asks_for_tf32(parameters: Mapping[str, Any]) -> bool:
    """Whether these parameters ask for TF32: `tf32`, or if that is None a Backend as `backend`."""
    backend, tf32 = parameters["backend"], parameters["tf32"]
    return isinstance(backend, Backend) and backend.tf32 if tf32 is None else bool(tf32)


def takes_parts(est: Any) -> bool:
    """Whether `partial_fit` exists: True if the optimizer takes batches. An invalid solver is refused by `validate`."""
    solver = optimizers.OPTIMIZERS[est.solver]() if est.solver in [*optimizers.OPTIMIZERS] else est.solver
    if getattr(solver, "full_batch", False) is True:  # of a class it is a property, which `validate` refuses
        raise AttributeError("partial_fit is only available for stochastic optimizers, and lbfgs is not one.")
    return True


def stopping_rule(est: Any, goes_on: bool) -> stopping.Plateau:
    """The rule that ends the training. If the training `goes_on`, in `partial_fit`, earlier epochs count too."""
    rule = stopping.Plateau(est.tol, est.n_iter_no_change, float(est.learning_rate_init), adapts(est))
    if goes_on and hasattr(est, "_optimizer"):
        rule.rate = est._optimizer.learning_rate
    if goes_on and est.best_loss_ is not None:
        rule.best, rule.count = -est.best_loss_, est._no_improvement_count
    return rule


def adapts(est: Any) -> bool:
    """Whether the learning rate is divided by 5 when the training would end; as in scikit-learn, not with "adam"."""
    return bool(est.solver != "adam" and isinstance(est.learning_rate, str) and est.learning_rate == "adaptive")


def rate_or_schedule(
    est: Any, n: int, rule: stopping.Plateau, before: int, planned: int, incremental: bool
) -> float | schedules.Schedule:
    """The learning rate or the schedule that `learning_rate` names."""
    if callable(est.learning_rate) or est.learning_rate in SCHEDULES:
        make = SCHEDULES.get(est.learning_rate) if isinstance(est.learning_rate, str) else None
        schedule = est.learning_rate if make is None else make(est.learning_rate_init)
        return stopping.over(schedule, planned) if incremental else schedule
    if est.solver == "adam" or est.learning_rate == "constant":
        return float(est.learning_rate_init)
    if est.learning_rate == "adaptive":
        return rule.schedule
    return stopping.by_samples(est.learning_rate_init, est.power_t, before, n)


class Draws:
    """The generator of a training, which draws the same batches from a `random_state` as scikit-learn does.

    scikit-learn shuffles the order of the epoch before. Pickles of estimators name this class.
    """

    def __init__(self, state: np.random.RandomState) -> None:
        self.state = state
        self.places: np.ndarray[Any, Any] = np.arange(0)

    def permutation(self, x: Any, /) -> Any:
        """The row numbers `x` in the order of the next epoch."""
        if len(self.places) != len(x):
            self.places = np.arange(len(x))
        self.places = self.places[self.state.permutation(len(x))]
        return x[self.places]

    def integers(self, low: int, high: int, size: Any, /) -> Any:
        """Random keys for dropout, low <= key < high."""
        return self.state.randint(low, high, size, dtype=np.int64)


def initial_pairs(est: Any, dims: Sequence[int], hidden: Sequence[Activation], state: np.random.RandomState) -> Pairs:
    """The first weights: drawn from `random_state` as in scikit-learn, drawn as `init` says, or its own arrays."""
    if not isinstance(est.init, str) or est.init != "auto":
        init = arguments.initializer(begun_from(est.init, hidden), dims)
        if isinstance(init, list):
            return init
        generator = np.random.default_rng(state.randint(2**31 - 1))
        return initializers.draw(init, generator, dims, [activation.init for activation in hidden])
    if any(activation.name not in initializers.BY_SKLEARN for activation in hidden):
        generator = np.random.default_rng(state.randint(2**31 - 1))
        return initializers.draw(None, generator, dims, [activation.init for activation in hidden])
    return initializers.as_scikit_learn(state, dims, [activation.name for activation in hidden])
