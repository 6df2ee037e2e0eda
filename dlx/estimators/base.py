"""What both estimators share: a training made of the parts of `dlx.fit`, predictions row by row, and pickling."""

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
from dlx.backend import HOST, Array, backend_of, library_of
from dlx.data import features, parameters, samples
from dlx.data.placement import common_backend, in_precision, preferring_tf32
from dlx.estimators import conversion, hyperparameters, inputs, pickles
from dlx.estimators.callbacks import CallbackSupport, Hooks
from dlx.estimators.onnx_hooks import OnnxHooks
from dlx.estimators.pickles import map_slots
from dlx.estimators.watch import (
    CheckedData,
    HeldOut,
    Optimizing,
    Watch,
    all_or_nothing,
    naming_validation_rows,
    starting_state,
)
from dlx.host import HostArray
from dlx.network import Layer, Params
from dlx.training import arguments, divergence, loop, ranges, steps
from dlx.training.plan import Plan, training_scope


class Base(CallbackSupport, OnnxHooks, BaseEstimator):
    """The training and the predictions of both estimators. Each of them has its own methods for targets."""

    _parameter_constraints = hyperparameters.CONSTRAINTS
    _standards: tuple[Any, Any] = (None, None)  # of inputs and of targets; None if they are not standardised
    _multilabel = False
    _no_improvement_count = 0
    _in_parts = False  # whether the last training was by partial_fit

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: tuple[Any, Any, Any]) -> None:
        """Train for all epochs."""
        hyperparameters.validate(self)
        first = not hasattr(self, "coefs_") or not self.warm_start
        inputs.require_whole_validation(*validation)
        with all_or_nothing(self):
            data = self._checked_data(X, y, sample_weight, first, part=False)
            with naming_validation_rows():
                held_out = None if validation[0] is None else self._checked_data(*validation, first=False, part=True)
            self._in_parts = False
            self._train(data, held_out, first, part=False)

    def _fit_part(self, X: Any, y: Any, sample_weight: Any) -> None:
        """Train for one epoch."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True: it has nothing to validate on.")
        first = not hasattr(self, "coefs_")
        with all_or_nothing(self):
            data = self._checked_data(X, y, sample_weight, first, part=True)
            self._in_parts = True
            self._train(data, None, first, part=True)

    def _train(self, data: CheckedData, validation_data: CheckedData | None, first: bool, part: bool) -> None:
        """Train for all epochs, or for one if the data are a `part`; from new weights if `first`, else from its own."""
        state = check_random_state(self.random_state)
        plan = self._plan(data)
        if first:
            self._forget()
        if not part or not hasattr(self, "_draws"):
            self._draws = hyperparameters.Draws(state)
        pairs = hyperparameters.initial_pairs(self, plan.dims, plan.hidden, state) if first else self._pairs(plan)
        rows = held_out_rows = None
        if self.early_stopping and validation_data is None:
            labels = self._labels_to_split(data.Y)
            rows, held_out_rows = inputs.validation_split(data.X.shape[0], self.validation_fraction, labels, state)
        n = data.X.shape[0] if rows is None else len(rows)
        rule = hyperparameters.stopping_rule(self, part and not first)
        settings = hyperparameters.training_settings(self, n, rule, self.t_, part, plan.dtype)
        plan = plan._replace(
            backend=plan.backend.expecting(steps.work(n, plan.dims, settings), steps.updates(n, settings)),
            dropout=arguments.dropout_rates(self.dropout, len(plan.hidden), settings.optimizer),
        )
        with training_scope(plan.backend, plan.dtype, data.X, plan.dims, settings, n):
            parameters.require_real(list(pairs), plan.backend, plan.dtype, "init")
            if first:
                of_inputs = inputs.standard_of_inputs(data.X, rows, plan.backend) if self.standardize else None
                self._standards = of_inputs, self._standard_of_targets(data.Y, rows, plan)
            split = rows, held_out_rows
            placed, total = self._placed_rows(data, split, plan, dense=settings.optimizer.full_batch)
            held_out = self._held_out(data, validation_data, placed, held_out_rows, plan)
            plan = plan._replace(l2=ranges.l2_of_alpha(self.alpha, total, plan.dtype))
            task = plan.task(placed, rows)
            hooks = Hooks(self, data.raw_X, data.raw_y, settings.epochs, is_told=not part)  # as in scikit-learn
            watch = Watch(self, plan, task, held_out, rule, hooks)
            params = parameters.own_params(pairs, plan.backend, plan.dtype)
            optimizing = None if first else getattr(self, "_optimizer", None)
            start = starting_state(optimizing, settings.optimizer, plan, params)
            try:
                with watch.shown(settings.epochs, n, part):
                    params, _ = loop.train(
                        task, settings, params, self._draws, watch.validate, watch.report, start, watch.keep
                    )
                watch.require_good_best()
            except divergence.DivergenceError as reason:
                params = watch.weights_after(reason, lambda: parameters.own_params(pairs, plan.backend, plan.dtype))
            self._set_fitted_attributes(plan, settings, watch, params, n)
            hooks.end_fit(lambda: self._weight_attributes(plan, params))
        if not part:
            watch.warn_unless_converged(settings.epochs)

    def _checked_data(self, X: Any, y: Any, sample_weight: Any, first: bool, part: bool) -> CheckedData:
        """The data after scikit-learn's checks."""
        checked, Y = self._targets(X, y, first, part)
        return CheckedData(X, self._for_scorers(y), checked, Y, inputs.sample_weights(sample_weight, checked))

    def _for_scorers(self, y: Any) -> Any:
        """The targets in a form that scikit-learn's metrics take."""
        return y

    def _labels_to_split(self, Y: HostArray) -> HostArray | None:
        """The class numbers whose proportions the held-out rows keep, if there are any."""
        return None

    def _standard_of_targets(self, Y: HostArray, rows: HostArray | None, plan: Plan) -> inputs.Standard | None:
        """The standard of the targets, over `rows` or over all if that is None, if they are standardised."""
        return None

    def _plan(self, data: CheckedData) -> Plan:
        """The network for these data, and where it is trained: where X lies, unless `backend` says otherwise."""
        sizes = hyperparameters.hidden_sizes(self)
        hidden = parameters.hidden_activations(self.activation, len(sizes))
        loss = self._loss()
        dims = (data.X.shape[1], *sizes, self._outputs(data.Y, loss))
        backend = common_backend(self.backend, {"X": data.X})
        dtype = features.working_dtype(self.dtype, data.X)
        backend.dtype(dtype)
        backend = in_precision(backend, self.tf32, dtype)
        self._hidden, self._fitted_loss = hidden, loss
        self.n_outputs_, self.n_layers_, self.out_activation_ = dims[-1], len(dims), loss.link.name
        stays = library_of(data.X) == backend.name != HOST
        return Plan(backend, dtype, dims, hidden, loss, stays=stays)

    def _forget(self) -> None:
        """Reset the attributes that grow from one training to the next."""
        self.t_, self.n_iter_ = 0, 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] | None = None
        self.validation_scores_: list[float] | None = None
        self.best_loss_: float | None = None
        self.best_validation_score_: float | None = None
        for name in ("_optimizer", "_draws", "_no_improvement_count"):
            self.__dict__.pop(name, None)

    def _pairs(self, plan: Plan) -> list[tuple[Any, Any]]:
        """The weights so far. Raises if they have other widths than the plan, or lie where it does not compute."""
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

    def _placed_rows(
        self, data: CheckedData, split: samples.Split, plan: Plan, dense: bool = False
    ) -> tuple[features.Rows, float]:
        """The rows on the backend, and the sum of the weights of those that are trained on."""
        of_inputs, of_targets = self._standards
        if of_targets is not None:
            inputs.require_scale_fits(data.Y, of_targets, plan.dtype)
        Y = data.Y if of_targets is None else inputs.standardized(of_targets, data.Y)
        how: dict[str, Any] = {"missing": None, "sample_weight": data.weights}
        if getattr(self, "class_weight", None) is not None:
            how |= {"class_weight": self.class_weight, "labels": np.asarray(self.classes_)}
        checked = samples.of_rows(data.X, Y, plan.loss, plan.dims[-1], plan.backend, **how)
        if checked.weights is not None and data.weights is not None:  # `of_rows` divides them by their largest
            checked = checked._replace(weights=ranges.product_of_weights(checked.weights, data.weights.max()))
        total = _sum_of_weights(checked, split[0])
        if not total > 0:
            got, remedy = f"{total:g}, class weights included", "Scale the weights up."
            checks.reject("sample_weight", "have a sum above 0", got, remedy)
        checked = checked.of_mean_one(split)
        X = inputs.training_rows(data.X, of_inputs, plan.backend, plan.dtype, dense)
        return checked._replace(X=X).on_backend(plan.backend, plan.dtype), total

    def _held_out(
        self,
        data: CheckedData,
        validation_data: CheckedData | None,
        placed: features.Rows,
        rows: HostArray | None,
        plan: Plan,
    ) -> HeldOut | None:
        """The rows to validate on: the user's own, or those of the `placed` ones with the numbers in `rows`."""
        if validation_data is not None:
            X, y, weights = validation_data.raw_X, validation_data.raw_y, validation_data.weights
            with naming_validation_rows():
                placed, _ = self._placed_rows(validation_data, (None, None), plan)
        elif rows is None:
            return None
        else:
            raw = (data.raw_X, data.raw_y) if self.scoring is not None else ()
            raw = tuple(x.tocsr() if features.compressed(x) else x for x in raw)  # other sparse kinds cannot be indexed
            X, y = (_safe_indexing(x, rows) for x in raw) if raw else (None, None)
            weights = data.weights
        largest = 1.0 if weights is None else weights[... if rows is None else rows].max()
        return HeldOut(X, y, placed, None if weights is None else (weights / largest)[:, None], rows)

    def _weight_attributes(self, plan: Plan, params: Params) -> dict[str, Any]:
        """The weights as fitted attributes, where X lies."""
        return {
            "coefs_": [_for_user(layer.W, plan) for layer in params],
            "intercepts_": [parameters.reshaped(_for_user(layer.b, plan), (-1,)) for layer in params],
        }

    def _set_fitted_attributes(
        self, plan: Plan, settings: steps.Settings, watch: Watch, params: Params, n: int
    ) -> None:
        """Set the fitted attributes after a training on n rows."""
        history, stochastic = watch.history, not settings.optimizer.full_batch
        self.__dict__.update(self._weight_attributes(plan, params if watch.best is None else watch.best))
        losses = history.get("loss", [])  # empty if Ctrl-C came in the first epoch
        self.n_iter_, self.loss_ = len(losses), losses[-1] if losses else math.nan
        self.loss_curve_ = [*self.loss_curve_, *losses]
        if "validation_loss" in history:
            self.validation_loss_curve_ = [*(self.validation_loss_curve_ or []), *history["validation_loss"]]
            self.validation_scores_ = [*(self.validation_scores_ or []), *history["validation_score"]]
            self.best_validation_score_ = max(
                (score for score in self.validation_scores_ if not math.isnan(score)), default=math.nan
            )
        self.best_loss_ = None if self.early_stopping else min(self.loss_curve_, default=math.nan)
        self.t_ += n * self.n_iter_ if stochastic else 0
        self._no_improvement_count = watch.rule.count
        self.__dict__.pop("_optimizer", None)
        if stochastic and watch.end is not None:
            slots = map_slots(lambda x: _for_user(x, plan), watch.end.optimizer_state)
            updates, is_own = watch.end.updates, callable(self.learning_rate)  # which may have no rate after the last
            rate = watch.rule.rate if is_own else settings.schedule(updates, updates + 1, losses)
            self._optimizer = Optimizing(settings.optimizer.name, slots, updates, rate)

    def _of_rows(
        self, X: Any, method: str, of_scores: scoring.OfScores, name: Any, after: scoring.After | None = None
    ) -> Array:
        """`of_scores`, and `after` of its results, for all rows; on the backend if X lies there, else on the host."""
        check_is_fitted(self, "coefs_")
        W = self.coefs_[0]
        if inputs.dispatches():
            inputs.require_same_place(X, W, f"{type(self).__name__}.{method}()")
        X = inputs.checked(self, X, reset=False)
        backend = common_backend(self.backend, {"X": X}) if library_of(W) == HOST else backend_of(W)
        backend = preferring_tf32(backend, hyperparameters.asks_for_tf32(vars(self)))
        dtype = features.dtype_name(W)
        with backend.scope():
            params = tuple(
                Layer(backend.asarray(W, dtype), backend.asarray(parameters.reshaped(b, (1, -1)), dtype))
                for W, b in zip(self.coefs_, self.intercepts_, strict=True)
            )
            asked = scoring.Predictor(backend, network.bind(backend, dtype, self._hidden, self._fitted_loss), params)
            if self._standards[0] is not None:
                constants = tuple(backend.asarray(x, dtype) for x in self._standards[0])
                asked = asked._replace(prepare=inputs.standardized, constants=constants, kind="in units")
            X = X.tocsr() if features.compressed(X) else X
            return asked.of_rows(X, of_scores, name, library_of(X) == backend.name, after)

    def to_sklearn(self) -> Any:
        """scikit-learn's own fitted estimator with the same parameters, weights and predictions.

        What scikit-learn has no parameter for is left out, and a standardisation becomes a part of the weights. Raises
        ValueError for an activation or a loss that scikit-learn does not have.
        """
        return conversion.to_sklearn(self)

    def to_onnx(self, path: Any, opset: int | None = None) -> None:
        """Write the fitted estimator as an ONNX model, including its standardisation; see `dlx.Network.to_onnx`."""
        conversion.write_onnx(self, path, opset)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy on the same backend, with the state of its optimizer, which a pickle might leave out."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        memo[id(self.backend)] = self.backend  # not copied, because it may be a module
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Host arrays and names; see `dlx.estimators.pickles`."""
        return pickles.picklable(super().__getstate__(), self.warm_start or self._in_parts)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Arrays on the backend that the pickle names, or on NumPy with a warning if that one is unusable."""
        super().__setstate__(pickles.unpickled(state))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = self.backend is None
        return tags


def _for_user(x: Array, plan: Plan) -> Array:
    """An array of the training as the user gets it: on the backend if X lies there, else on the host."""
    return x if plan.stays else plan.backend.to_host(x)


def _sum_of_weights(data: samples.Samples, rows: HostArray | None) -> float:
    """The sum of the weights of these rows, or of all rows if that is None; each row weighs 1 if there are none."""
    if data.weights is None:
        return float(data.X.shape[0] if rows is None else len(rows))
    weights = data.weights if rows is None else data.weights[rows]
    return float(weights.sum() / weights.shape[1])
