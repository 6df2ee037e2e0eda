"""scikit-learn's two estimators, `MLPClassifier` and `MLPRegressor`, on every array library.

Their parameters, attributes and methods are those of scikit-learn 1.9; what is added is named by keyword only. They
are classes of scikit-learn's manners over the parts of `dlx.fit`.
"""

from __future__ import annotations

from typing import Any, Never, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted

from dlx import checks, losses, nearest, scoring
from dlx.backend import HOST, Array, backend_of, get_backend, library_of
from dlx.data import features, labels, targets
from dlx.estimators import conversion, hyperparameters, inputs
from dlx.estimators.base import Base, HostArray
from dlx.estimators.callbacks import with_callbacks
from dlx.estimators.watch import all_or_nothing
from dlx.training.plan import Plan


class MLPClassifier(ClassifierMixin, Base):
    """A classifier with scikit-learn's interface, on every array library.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int >= 1, default (100,)
        () is a linear model.
    activation : name, pair of functions (f, df), or a sequence of one for each hidden layer, default "relu"
        scikit-learn's "identity", "logistic", "tanh" and "relu", or any other of `dlx.activations`.
    solver : name or object such as ``dlx.adamw()``, default "adam"
        "lbfgs", "sgd", "adam", or any other of `dlx.optimizers`. `momentum`, `nesterovs_momentum`, `beta_1`, `beta_2`
        and `epsilon` are those of "sgd" and "adam".
    alpha : float >= 0, default 0.0001
        L2 penalty: the loss has the term alpha/2 Σ W² / (sum of the rows' weights), whatever the batch size.
    batch_size : int >= 1 or "auto", default "auto"
        "auto" is min(200, n).
    learning_rate : name or schedule, default "constant"
        scikit-learn's "constant", "invscaling" and "adaptive" (which "adam" ignores, as there), the name of one of
        `dlx.schedules`, whose rate is `learning_rate_init`, or a schedule. An object as solver may have one of its own.
    learning_rate_init : float > 0, default 0.001
    power_t : float >= 0, default 0.5
        Of "invscaling": rate / (1 + samples seen)^power_t.
    max_iter : int >= 1, default 200
        Epochs; of "lbfgs", iterations.
    shuffle : bool, default True
    random_state : int, RandomState or None, default None
        The same one draws the same first weights and the same batches as in scikit-learn.
    tol : float >= 0, default 1e-4
    verbose : bool or int, default False
        True or 1 shows a progress bar where tqdm is installed; 2 or more prints scikit-learn's lines, as does True
        without tqdm, and in `partial_fit`.
    warm_start : bool, default False
        `fit` goes on from the weights and the optimizer's momenta of the last one.
    momentum : float in [0, 1), default 0.9
    nesterovs_momentum : bool, default True
    early_stopping : bool, "score" or "loss", default False
        Hold out a share of the rows, stop when their score (True is "score") or their loss improves no more, and keep
        the best weights.
    validation_fraction : float in (0, 1), default 0.1
    beta_1, beta_2 : float in [0, 1), default 0.9 and 0.999
    epsilon : float > 0, default 1e-8
    n_iter_no_change : int >= 1 or inf, default 10
        How many epochs in a row may bring less than `tol`.
    max_fun : int >= 1, default 15000
        Evaluations of the loss by "lbfgs".
    loss : "log_loss" or a loss such as ``dlx.losses.cross_entropy(label_smoothing=0.1)``
        Its link must be a probability.
    backend : selector, default None
        Where to compute; see `dlx.get_backend`. None follows X. NumPy in, NumPy out, whatever the backend.
    dtype : "float32" or "float64", optional
        By default float32 for float32 data, and float64 for all other.
    dropout : float in [0, 1), or one for each hidden layer, default 0
        The share of hidden units that is dropped.
    class_weight : "balanced", or dict of label to weight, optional
        For several labels a row "balanced", or a dict {0: weight, 1: weight} for each of them: a list of K, or a dict
        of column to dict.
    n_layers, width : int, optional
        Number and width of the hidden layers, in place of `hidden_layer_sizes`: numbers can be searched, a tuple
        cannot. One without the other means a width of 100, or one layer.
    init : "auto", name, function, Network, or a sequence of (W, b), default "auto"
        First weights; "auto" draws as scikit-learn does, and for further activations as their papers say.
    standardize : bool, default False
        Bring the columns of X to mean 0 and variance 1 first; predictions are in the old units. Sparse columns
        are scaled only.
    scoring : scorer, its name, or None, default None
        What `validation_scores_` holds, and early stopping watches; None is the accuracy, whatever `class_weight`.

    Attributes
    ----------
    coefs_, intercepts_ : lists of arrays (d_in, d_out) and (d_out,)
    classes_ : array of labels
    loss_, best_loss_ : float
        Of the last and of the best epoch, with penalty; the latter is None with early stopping.
    loss_curve_ : list of float
        One entry for each epoch.
    validation_loss_curve_, validation_scores_ : list of float, or None without validation
    best_validation_score_ : float or None
    n_iter_, n_layers_, n_outputs_, n_features_in_, t_ : int
        Epochs; layers with input and output; outputs; columns; samples seen.
    feature_names_in_ : array of str
    out_activation_ : str

    Raises
    ------
    ValueError, TypeError
        In `fit` and `predict`, never here.

    Source: Rumelhart, Hinton and Williams 1986; the parameters are scikit-learn's.

    Examples
    --------
    >>> from dlx import MLPClassifier
    >>> clf = MLPClassifier((8,), solver="lbfgs", random_state=0).fit([[0.0], [1.0], [2.0]], ["a", "b", "b"])
    >>> clf.predict([[0.0], [3.0]]).tolist()
    ['a', 'b']
    """

    @nearest.closed
    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: Any = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: Any = "log_loss",
        backend: Any = None,
        dtype: str | None = None,
        dropout: Any = 0.0,
        class_weight: Any = None,
        n_layers: int | None = None,
        width: int | None = None,
        init: Any = "auto",
        standardize: bool = False,
        scoring: Any = None,
        **unknown: Never,
    ) -> None:
        self.__dict__.update(hyperparameters.given(locals(), MLPClassifier))

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train on rows `X` (n, d) and their labels `y`.

        Parameters
        ----------
        X : array, data frame, CSR or CSC matrix, or list (n, d)
        y : labels (n,), or several yes-or-no labels a row, (n, K)
        sample_weight : array (n,), optional
            Weights >= 0 of rows.
        X_val, y_val, sample_weight_val : as the above, optional
            Rows to validate on after each epoch, in place of a share of `X`.

        Raises
        ------
        ValueError, TypeError
            A parameter or the data are wrong; raised before any work.
        ValueError
            The training diverged (also a `DivergenceError`).

        Warns
        -----
        ConvergenceWarning
            `max_iter` came first.
        """
        self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))
        return self

    @available_if(hyperparameters.takes_parts)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on these rows, going on where the last call ended; so many calls are `fit`.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`
        classes : array of labels
            All that will ever come; needed in the first call.
        """
        hyperparameters.validate(self)
        if self.class_weight == "balanced":
            got, remedy = "'balanced'", "A part does not know the whole: name a weight for each label."
            checks.reject("class_weight", "be a dict in partial_fit", got, remedy)
        with all_or_nothing(self):
            inputs.require_classes(self, classes)
            self._fit_part(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> Array:
        """The label of each row, (n,); for several labels a row 0 and 1, (n, K)."""
        if self._fits_several():
            return self._of_rows(X, "predict", scoring.yes, "yes")
        said = self._of_rows(X, "predict", scoring.answers(self._fitted_loss, tie=False), "answers without ties")
        backend = backend_of(said)
        with backend.scope():
            places = said if said.ndim == 1 else said[:, 0] * (len(self.classes_) - 1)
            return labels.at(places, self.classes_, backend, stays=True)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows whose labels are all right."""
        return float(super().score(X, self._for_scorers(y), sample_weight))

    def _for_scorers(self, y: Any) -> Any:
        """Labels as scikit-learn's metrics take them: they refuse objects that are integers."""
        return inputs.plain_labels(y) if library_of(y) in (None, HOST) and not features.compressed(y) else y

    def decision_function(self, X: Any) -> Array:
        """The scores before the link: (n,) for two classes, above 0 for the second; otherwise one for each, (n, K)."""
        one = not self._fits_several() and len(self.classes_) <= 2
        of_scores = scoring.difference if one else scoring.as_they_are
        return self._of_rows(X, "decision_function", of_scores, ("decision", one))

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class in the order of `classes_`, (n, K)."""
        return self._probabilities(X, "predict_proba", log=False)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`, computed from the scores: never -inf."""
        return self._probabilities(X, "predict_log_proba", log=True)

    def _probabilities(self, X: Any, method: str, log: bool) -> Array:
        both = not self._fits_several() and self._fitted_loss.link.answers == "yes or no"
        if both and len(self.classes_) == 1:
            return self._of_rows(X, method, scoring.certainty(log), ("certainty", log))
        of_scores = scoring.probabilities(self._fitted_loss, both, log)
        return self._of_rows(X, method, of_scores, ("probabilities", both, log))

    def _fits_several(self) -> bool:
        """Whether it has learnt several labels a row."""
        check_is_fitted(self, "coefs_")
        return self._multilabel

    def _targets(self, X: Any, y: Any, first: bool, part: bool) -> tuple[Any, HostArray]:
        """X, and class numbers (n,) or several labels a row (n, K)."""
        X, y = inputs.classes_and_rows(self, X, y, reset=first)
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError("Multioutput target data is not supported: y must hold one label a row, or 0 and 1 alone.")
        several = kind == "multilabel-indicator"
        if first:
            self._multilabel = several
        elif several != self._multilabel:
            was, now = ("several labels", "one label") if self._multilabel else ("one label", "several labels")
            raise ValueError(f"`y` must stay what it was in the first call: {was} a row; got {now} a row.")
        if several:
            if ((y != 0) & (y != 1)).any():
                odd = y[(y != 0) & (y != 1)][0]
                checks.reject("y", "hold 0 and 1 for several labels a row", odd, "Encode no as 0 and yes as 1.")
            if first and not part:
                self.classes_ = np.arange(y.shape[1])
            elif y.shape[1] != len(self.classes_):
                raise ValueError(f"`y` must have {len(self.classes_)} columns, one a label; got {y.shape[1]}.")
            return X, (y != 0).astype(np.int8)
        classes = labels.distinct(y)[0]
        if first and not part:
            self.classes_ = classes
        elif not part and classes.tolist() != self.classes_.tolist():
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {classes}"
            )
        elif len(unknown := classes[labels.places(classes, self.classes_) < 0]):
            raise ValueError(f"`y` has classes not in `self.classes_`; got {unknown}, and {self.classes_} are known.")
        return X, labels.places(y, self.classes_)

    def _loss(self) -> losses.Loss:
        several = not self._multilabel and len(self.classes_) > 2
        if isinstance(self.loss, str) and self.loss == "log_loss":
            return losses.cross_entropy() if several else losses.binary_cross_entropy()
        loss = losses.get(self.loss)
        either = not self._multilabel and len(self.classes_) == 2
        remedy = "Use 'log_loss', which is cross_entropy for several classes and binary_cross_entropy otherwise."
        targets.require_kind(loss, ["classes", "binary"] if either else ["classes"] if several else ["binary"], remedy)
        return loss

    def _outputs(self, Y: HostArray, loss: losses.Loss) -> int:
        return Y.shape[1] if self._multilabel else len(self.classes_) if loss.link.answers == "class" else 1

    def _labels_to_split(self, Y: HostArray) -> HostArray | None:
        return None if self._multilabel else Y

    def _standard_of_targets(self, Y: HostArray, rows: HostArray | None, plan: Plan) -> inputs.Standard | None:
        return None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, Base):
    """A regressor with scikit-learn's interface, on every array library.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int >= 1, default (100,)
        () is a linear model.
    activation : name, pair of functions (f, df), or a sequence of one for each hidden layer, default "relu"
        scikit-learn's "identity", "logistic", "tanh" and "relu", or any other of `dlx.activations`.
    solver : name or object such as ``dlx.adamw()``, default "adam"
        "lbfgs", "sgd", "adam", or any other of `dlx.optimizers`. `momentum`, `nesterovs_momentum`, `beta_1`, `beta_2`
        and `epsilon` are those of "sgd" and "adam".
    alpha : float >= 0, default 0.0001
        L2 penalty: the loss has the term alpha/2 Σ W² / (sum of the rows' weights), whatever the batch size.
    batch_size : int >= 1 or "auto", default "auto"
        "auto" is min(200, n).
    learning_rate : name or schedule, default "constant"
        scikit-learn's "constant", "invscaling" and "adaptive" (which "adam" ignores, as there), the name of one of
        `dlx.schedules`, whose rate is `learning_rate_init`, or a schedule. An object as solver may have one of its own.
    learning_rate_init : float > 0, default 0.001
    power_t : float >= 0, default 0.5
        Of "invscaling": rate / (1 + samples seen)^power_t.
    max_iter : int >= 1, default 200
        Epochs; of "lbfgs", iterations.
    shuffle : bool, default True
    random_state : int, RandomState or None, default None
        The same one draws the same first weights and the same batches as in scikit-learn.
    tol : float >= 0, default 1e-4
    verbose : bool or int, default False
        True or 1 shows a progress bar where tqdm is installed; 2 or more prints scikit-learn's lines, as does True
        without tqdm, and in `partial_fit`.
    warm_start : bool, default False
        `fit` goes on from the weights and the optimizer's momenta of the last one.
    momentum : float in [0, 1), default 0.9
    nesterovs_momentum : bool, default True
    early_stopping : bool, "score" or "loss", default False
        Hold out a share of the rows, stop when their score (True is "score") or their loss improves no more, and keep
        the best weights.
    validation_fraction : float in (0, 1), default 0.1
    beta_1, beta_2 : float in [0, 1), default 0.9 and 0.999
    epsilon : float > 0, default 1e-8
    n_iter_no_change : int >= 1 or inf, default 10
        How many epochs in a row may bring less than `tol`.
    max_fun : int >= 1, default 15000
        Evaluations of the loss by "lbfgs".
    loss : str, Loss or pair of functions, default "squared_error"
        "squared_error" and "poisson" as in scikit-learn, any other of `dlx.losses`. The squared error is halved, and
        summed over outputs.
    backend : selector, default None
        Where to compute; see `dlx.get_backend`. None follows X. NumPy in, NumPy out, whatever the backend.
    dtype : "float32" or "float64", optional
        By default float32 for float32 data, and float64 for all other.
    dropout : float in [0, 1), or one for each hidden layer, default 0
        The share of hidden units that is dropped.
    n_layers, width : int, optional
        Number and width of the hidden layers, in place of `hidden_layer_sizes`: numbers can be searched, a tuple
        cannot. One without the other means a width of 100, or one layer.
    init : "auto", name, function, Network, or a sequence of (W, b), default "auto"
        First weights; "auto" draws as scikit-learn does, and for further activations as their papers say.
    standardize : bool, default False
        Bring the columns of X, and real targets, to mean 0 and variance 1 first; predictions are in the old units.
        Sparse columns are scaled only.
    scoring : scorer, its name, or None, default None
        What `validation_scores_` holds, and early stopping watches; None is what `score` gives.

    Attributes
    ----------
    coefs_, intercepts_ : lists of arrays (d_in, d_out) and (d_out,)
    loss_, best_loss_ : float
        Of the last and of the best epoch, with penalty; the latter is None with early stopping.
    loss_curve_ : list of float
        One entry for each epoch.
    validation_loss_curve_, validation_scores_ : list of float, or None without validation
    best_validation_score_ : float or None
    n_iter_, n_layers_, n_outputs_, n_features_in_, t_ : int
        Epochs; layers with input and output; outputs; columns; samples seen.
    feature_names_in_ : array of str
    out_activation_ : str

    Raises
    ------
    ValueError, TypeError
        In `fit` and `predict`, never here.

    Source: Rumelhart, Hinton and Williams 1986; the parameters are scikit-learn's.

    Examples
    --------
    >>> from dlx import MLPRegressor
    >>> reg = MLPRegressor((), solver="lbfgs", alpha=0.0, tol=1e-9).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> reg.predict([[3.0]]).round(3)
    array([7.])
    """

    @nearest.closed
    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: Any = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: Any = "squared_error",
        backend: Any = None,
        dtype: str | None = None,
        dropout: Any = 0.0,
        n_layers: int | None = None,
        width: int | None = None,
        init: Any = "auto",
        standardize: bool = False,
        scoring: Any = None,
        **unknown: Never,
    ) -> None:
        self.__dict__.update(hyperparameters.given(locals(), MLPRegressor))

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train on rows `X` (n, d) and their targets `y`, (n,) or (n, K); otherwise as `MLPClassifier.fit`."""
        self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))
        return self

    @available_if(hyperparameters.takes_parts)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows, going on where the last call ended; so many calls are `fit`."""
        hyperparameters.validate(self)
        self._fit_part(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> Array:
        """The prediction for each row, (n,) for one output and (n, K) for several."""
        check_is_fitted(self, "coefs_")

        def in_old_units(P: Array) -> Array:
            if self._standards[1] is None:
                return P
            backend = backend_of(P)
            mean, scale = (backend.asarray(each, features.dtype_name(P)) for each in self._standards[1])
            return mean + scale * P

        answers = scoring.answers(self._fitted_loss)
        P = self._of_rows(X, "predict", answers, "answers", in_old_units)
        return P[:, 0] if P.shape[1] == 1 else P

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R², averaged over outputs, or for quantiles D² of the pinball loss: as `Network.score` has it.

        One target `y` is that of every quantile.
        """
        check_is_fitted(self, "coefs_")
        if self._fitted_loss.name != "quantile":
            return float(super().score(X, y, sample_weight))
        return inputs.explained(self._fitted_loss, y, self.predict(X), sample_weight)

    def _targets(self, X: Any, y: Any, first: bool, part: bool) -> tuple[Any, HostArray]:
        X, y = inputs.real_targets(self, X, y, reset=first)
        return X, y[:, None] if y.ndim == 1 else y

    def _loss(self) -> losses.Loss:
        if isinstance(self.loss, str) and self.loss == "squared_error":
            return losses.squared_error(half=True)
        return losses.get(self.loss)

    def _outputs(self, Y: HostArray, loss: losses.Loss) -> int:
        return hyperparameters.real_outputs(loss, Y.shape[1])

    def _labels_to_split(self, Y: HostArray) -> HostArray | None:
        return None

    def _standard_of_targets(self, Y: HostArray, rows: HostArray | None, plan: Plan) -> inputs.Standard | None:
        """Real targets are standardised on the host; counts stay what they are."""
        if not self.standardize or plan.loss.link.name != "identity":
            return None
        return inputs.Standard(*features.center_and_scale(get_backend("numpy"), Y if rows is None else Y[rows]))


def from_sklearn(mlp: Any, backend: Any = None) -> Any:
    """A dlx estimator with the parameters, weights and predictions of scikit-learn's.

    Parameters
    ----------
    mlp : fitted sklearn.neural_network.MLPClassifier or MLPRegressor
    backend : selector, optional
        Where the estimator computes; see `dlx.get_backend`.

    Raises
    ------
    TypeError
        It is another object.
    NotFittedError
        It has no weights yet.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> from sklearn.neural_network import MLPRegressor
    >>> X, y = np.linspace(-1, 1, 20)[:, None], np.linspace(0, 1, 20)
    >>> theirs = MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0).fit(X, y)
    >>> bool(np.allclose(dlx.from_sklearn(theirs).predict(X), theirs.predict(X)))
    True
    """
    kinds = {TheirClassifier: MLPClassifier, TheirRegressor: MLPRegressor}
    make = next((ours for theirs, ours in kinds.items() if isinstance(mlp, theirs)), None)
    if make is None:
        rule = "be scikit-learn's MLPClassifier or MLPRegressor"
        checks.reject("mlp", rule, type(mlp).__name__, "Pass the fitted estimator itself.", TypeError)
    check_is_fitted(mlp, "coefs_")
    est: Any = make(**mlp.get_params(), backend=backend)
    conversion.fill(est, mlp)
    return est
