"""What both scikit-learn estimators have in common: a training over `fit`'s parts, scores, and how they are pickled."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import check_is_fitted

from dlx import checks, network, scoring
from dlx.backend import (
    HOST,
    Array,
    backend_of,
    library_of,
)
from dlx.data import features, parameters, samples
from dlx.data.placement import common_backend
from dlx.estimators import conversion, hyperparameters, inputs, pickles
from dlx.estimators.callbacks import CallbackSupport, Hooks
from dlx.estimators.onnx_hooks import OnnxHooks
from dlx.estimators.pickles import each_slot
from dlx.estimators.watch import Given, Held, Optimizing, Watch, all_or_nothing, going_on, naming_validation_rows
from dlx.network import Layer, Params
from dlx.training import arguments, divergence, loop, ranges, steps
from dlx.training.plan import Plan, training_scope

HostArray = np.ndarray[Any, Any]


class Base(CallbackSupport, OnnxHooks, BaseEstimator):
    """The training and the scores of both estimators; what their targets are, they say themselves."""

    _parameter_constraints = hyperparameters.CONSTRAINTS
    _standards: tuple[Any, Any] = (None, None)  # of inputs and of targets
    _multilabel = False
    _no_improvement_count = 0
    _in_parts = False  # whether the last training was by partial_fit

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: tuple[Any, Any, Any]) -> None:
        """All epochs."""
        hyperparameters.validate(self)
        first = not hasattr(self, "coefs_") or not self.warm_start
        inputs.require_both(*validation)
        with all_or_nothing(self):
            given = self._given(X, y, sample_weight, first, part=False)
            with naming_validation_rows():
                held_out = None if validation[0] is None else self._given(*validation, first=False, part=True)
            self._in_parts = False
            self._train(given, held_out, first, part=False)

    def _fit_part(self, X: Any, y: Any, sample_weight: Any) -> None:
        """One epoch."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True: it has nothing to validate on.")
        first = not hasattr(self, "coefs_")
        with all_or_nothing(self):
            given = self._given(X, y, sample_weight, first, part=True)
            self._in_parts = True
            self._train(given, None, first, part=True)

    def _train(self, given: Given, held_out: Given | None, first: bool, part: bool) -> None:
        """All epochs, or one where only a `part` of the data is given; the first weights are drawn, or go on."""
        state = check_random_state(self.random_state)
        plan = self._plan(given)
        if first:
            self._forget()
        if not part or not hasattr(self, "_draws"):
            self._draws = hyperparameters.Draws(state)
        pairs = hyperparameters.initial(self, plan.dims, plan.hidden, state) if first else self._pairs(plan)
        rows = held_rows = None
        if self.early_stopping and held_out is None:
            labels = self._labels_to_split(given.Y)
            rows, held_rows = inputs.split(given.X.shape[0], self.validation_fraction, labels, state)
        n = given.X.shape[0] if rows is None else len(rows)
        rule = hyperparameters.rule(self, part and not first)
        settings = hyperparameters.settings(self, n, rule, self.t_, part, plan.dtype)
        plan = plan._replace(
            backend=plan.backend.expecting(steps.work(n, plan.dims, settings)),
            dropout=arguments.dropout_rates(self.dropout, len(plan.hidden), settings.optimizer),
        )
        with training_scope(given.X.tocsr() if features.compressed(given.X) else given.X, plan, settings, n):
            parameters.require_real(list(pairs), plan.backend, plan.dtype, "init")
            if first:
                of_inputs = inputs.standard(given.X, rows, plan.backend) if self.standardize else None
                self._standards = of_inputs, self._standard_of_targets(given.Y, rows, plan)
            split = rows, held_rows
            placed, total = self._rows(given, split, plan, dense=settings.optimizer.full_batch)
            held = self._held(given, held_out, placed, held_rows, plan)
            plan = plan._replace(l2=ranges.l2_of_alpha(self.alpha, total, plan.dtype))
            task = plan.task(placed, rows)
            hooks = Hooks(self, given.raw_X, given.raw_y, settings.epochs, heard=not part)  # as in scikit-learn
            watch = Watch(self, plan, task, held, rule, hooks)
            params = parameters.own_params(pairs, plan.backend, plan.dtype)
            start = None if first else going_on(getattr(self, "_optimizer", None), settings.optimizer, plan, params)
            try:
                with watch.shown(settings.epochs, n, part):
                    params, _ = loop.train(
                        task, settings, params, self._draws, watch.validate, watch.report, start, watch.keep
                    )
                watch.require_good_best()
            except divergence.DivergenceError as reason:
                params = watch.after(reason, lambda: parameters.own_params(pairs, plan.backend, plan.dtype))
            self._finish(plan, settings, watch, params, n)
            hooks.close(lambda: self._fitted(plan, params))
        if not part:
            watch.warn_unless_converged(settings.epochs)

    def _given(self, X: Any, y: Any, sample_weight: Any, first: bool, part: bool) -> Given:
        """Rows, by scikit-learn's checks."""
        checked, Y = self._targets(X, y, first, part)
        return Given(X, self._for_scorers(y), checked, Y, inputs.sample_weights(sample_weight, checked))

    def _for_scorers(self, y: Any) -> Any:
        """Targets as scikit-learn's metrics take them."""
        return y

    def _plan(self, given: Given) -> Plan:
        """The network for these rows, and where it is trained: where X lies, unless `backend` says otherwise."""
        sizes = hyperparameters.hidden_sizes(self)
        hidden = parameters.hidden_activations(self.activation, len(sizes))
        loss = self._loss()
        dims = (given.X.shape[1], *sizes, self._outputs(given.Y, loss))
        backend = common_backend(self.backend, {"X": given.X})
        dtype = features.working_dtype(self.dtype, given.X)
        backend.dtype(dtype)
        self._hidden, self._fitted_loss = hidden, loss
        self.n_outputs_, self.n_layers_, self.out_activation_ = dims[-1], len(dims), loss.link.name
        stays = library_of(given.X) == backend.name != HOST
        return Plan(backend, dtype, dims, hidden, loss, stays=stays)

    def _forget(self) -> None:
        """Attributes that grow from one training to the next."""
        self.t_, self.n_iter_ = 0, 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] | None = None
        self.validation_scores_: list[float] | None = None
        self.best_loss_: float | None = None
        self.best_validation_score_: float | None = None
        for name in ("_optimizer", "_draws", "_no_improvement_count"):
            self.__dict__.pop(name, None)

    def _pairs(self, plan: Plan) -> list[tuple[Any, Any]]:
        """The weights so far, if they are of these widths, and where they can be trained on."""
        home, dims = library_of(self.coefs_[0]), plan.dims
        if home not in (HOST, plan.backend.name):
            rule, remedy = f"be of {home}, as before, where a training goes on", "Convert X, or clone the estimator."
            checks.reject("X", rule, f"an array of {plan.backend.name}", remedy, TypeError)
        pairs = parameters.as_pairs(list(zip(self.coefs_, self.intercepts_, strict=True)), "coefs_")
        if parameters.layer_dims(pairs) != dims:
            remedy = "Set warm_start=False, or clone the estimator."
            got = f"{parameters.layer_dims(pairs)} before and {dims} now"
            checks.reject("hidden_layer_sizes", "stay what it was where a training goes on", got, remedy)
        return pairs

    def _rows(self, given: Given, split: samples.Split, plan: Plan, dense: bool = False) -> tuple[features.Rows, float]:
        """Rows on the backend, and the sum of the weights of those that are trained on."""
        of_inputs, outputs = self._standards
        if outputs is not None:
            inputs.require_held(given.Y, outputs, plan.dtype)
        Y = given.Y if outputs is None else (given.Y - outputs.mean) / outputs.scale
        how: dict[str, Any] = {"missing": None, "sample_weight": given.weights}
        if getattr(self, "class_weight", None) is not None:
            how |= {"class_weight": self.class_weight, "labels": np.asarray(self.classes_)}
        checked = samples.of_rows(given.X, Y, plan.loss, plan.dims[-1], plan.backend, **how)
        if checked.weights is not None and given.weights is not None:  # which have 1 as their largest there
            checked = checked._replace(weights=ranges.product_of_weights(checked.weights, given.weights.max()))
        total = _sum_of_weights(checked, split[0])
        if not total > 0:
            got, remedy = f"{total:g}, class weights included", "Scale the weights up."
            checks.reject("sample_weight", "have a sum above 0", got, remedy)
        checked = checked.of_mean_one(split)
        X = inputs.prepared(given.X, of_inputs, plan.backend, plan.dtype, dense)
        return checked._replace(X=X).on_backend(plan.backend, plan.dtype), total

    def _held(
        self, given: Given, held_out: Given | None, placed: features.Rows, rows: HostArray | None, plan: Plan
    ) -> Held | None:
        """The rows to validate on: the user's own, or those held back."""
        if held_out is not None:
            X, y, own = held_out.raw_X, held_out.raw_y, held_out.weights
            with naming_validation_rows():
                placed, _ = self._rows(held_out, (None, None), plan)
        elif rows is None:
            return None
        else:
            raw = (given.raw_X, given.raw_y) if self.scoring is not None else ()
            raw = tuple(each.tocsr() if features.compressed(each) else each for each in raw)  # others have no rows
            X, y = (_safe_indexing(each, rows) for each in raw) if raw else (None, None)
            own = given.weights
        largest = 1.0 if own is None else own[... if rows is None else rows].max()
        return Held(X, y, placed, None if own is None else (own / largest)[:, None], rows)

    def _fitted(self, plan: Plan, params: Params) -> dict[str, Any]:
        """The weights as attributes: where X lies."""
        return {
            "coefs_": [_leave(each.W, plan) for each in params],
            "intercepts_": [parameters.reshaped(_leave(each.b, plan), (-1,)) for each in params],
        }

    def _finish(self, plan: Plan, settings: steps.Settings, watch: Watch, params: Params, n: int) -> None:
        """The fitted attributes."""
        history, stochastic = watch.history, not settings.optimizer.full_batch
        self.__dict__.update(self._fitted(plan, params if watch.best is None else watch.best))
        losses = history.get("loss", [])  # none, where Ctrl-C came before the first
        self.n_iter_, self.loss_ = len(losses), losses[-1] if losses else math.nan
        self.loss_curve_ = [*self.loss_curve_, *losses]
        if "validation_loss" in history:
            self.validation_loss_curve_ = [*(self.validation_loss_curve_ or []), *history["validation_loss"]]
            self.validation_scores_ = [*(self.validation_scores_ or []), *history["validation_score"]]
            self.best_validation_score_ = max(
                (s for s in self.validation_scores_ if not math.isnan(s)), default=math.nan
            )
        self.best_loss_ = None if self.early_stopping else min(self.loss_curve_, default=math.nan)
        self.t_ += n * self.n_iter_ if stochastic else 0
        self._no_improvement_count = watch.rule.count
        self.__dict__.pop("_optimizer", None)
        if stochastic and watch.end is not None:
            slots = each_slot(watch.end.optimizer_state, lambda x: _leave(x, plan))
            updates, own = watch.end.updates, callable(self.learning_rate)  # which may end with the last update
            rate = watch.rule.rate if own else settings.schedule(updates, updates + 1, losses)
            self._optimizer = Optimizing(settings.optimizer.name, slots, updates, rate)

    def _of_rows(
        self, X: Any, method: str, of_scores: scoring.OfScores, name: Any, after: scoring.After | None = None
    ) -> Array:
        """`of_scores`, and what comes `after` it, of all rows: on the backend if X lies there, else on the host."""
        check_is_fitted(self, "coefs_")
        W = self.coefs_[0]
        if inputs.dispatches():
            inputs.require_same_place(X, W, f"{type(self).__name__}.{method}()")
        X = inputs.checked(self, X, reset=False)
        backend = common_backend(self.backend, {"X": X}) if library_of(W) == HOST else backend_of(W)
        dtype = features.dtype_name(W)
        with backend.scope():
            params = tuple(
                Layer(backend.asarray(W, dtype), backend.asarray(parameters.reshaped(b, (1, -1)), dtype))
                for W, b in zip(self.coefs_, self.intercepts_, strict=True)
            )
            asked = scoring.Asked(backend, network.bind(backend, dtype, self._hidden, self._fitted_loss), params)
            if self._standards[0] is not None:
                units = tuple(backend.asarray(each, dtype) for each in self._standards[0])
                asked = asked._replace(prepare=inputs.in_units, constants=units, kind="in units")
            X = X.tocsr() if features.compressed(X) else X
            return asked.of_rows(X, of_scores, name, library_of(X) == backend.name, after)

    def to_sklearn(self) -> Any:
        """scikit-learn's own estimator with the same predictions; see `dlx.estimators.conversion.to_sklearn`."""
        return conversion.to_sklearn(self)

    def to_onnx(self, path: Any, opset: int | None = None) -> None:
        """Write the fitted estimator as an ONNX model, its standardisation included; see `dlx.Network.to_onnx`."""
        conversion.to_onnx(self, path, opset)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """On the same backend, with all of its optimizer: not by way of a pickle."""
        found = memo[id(self)] = type(self).__new__(type(self))
        memo[id(self.backend)] = self.backend  # a module, maybe, of which there is one
        found.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Host arrays and names; see `dlx.estimator_pickles`."""
        return pickles.plain(super().__getstate__(), self.warm_start or self._in_parts)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """On the backend of its name, or on NumPy with a warning where that one cannot compute."""
        super().__setstate__(pickles.restored(state))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = self.backend is None
        return tags


def _leave(x: Array, plan: Plan) -> Array:
    """An array of the training, where the user has it."""
    return x if plan.stays else plan.backend.to_host(x)


def _sum_of_weights(given: samples.Samples, rows: HostArray | None) -> float:
    """Of the rows of those numbers (all, if None): how many they are, where they have no weights."""
    if given.weights is None:
        return float(given.X.shape[0] if rows is None else len(rows))
    weights = given.weights if rows is None else given.weights[rows]
    return float(weights.sum() / weights.shape[1])
