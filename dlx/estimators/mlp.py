"""scikit-learn's two estimators, `MLPClassifier` and `MLPRegressor`, on every array library.

Their parameters, attributes and methods are those of scikit-learn 1.9. Parameters that dlx adds are keyword-only. Both
train with the parts of `dlx.fit`.
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
from dlx.estimators.base import Base
from dlx.estimators.callbacks import with_callbacks
from dlx.estimators.watch import all_or_nothing
from dlx.host import HostArray
from dlx.training.plan import Plan


class MLPClassifier(ClassifierMixin, Base):
    """A multilayer perceptron that classifies, with the interface of scikit-learn, on every array library.

    Minimises  1/n Σ_i w_i loss(Z_i, y_i) + alpha/2 Σ W² / Σ_i w_i  over weights W and biases b, with the scores
    Z = f(... f(X W_1 + b_1) ...) W_L + b_L and weights w_i of rows that are scaled to mean 1 in the first term.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int >= 1, default (100,)
        The number of units in each hidden layer. () is a linear model.
    activation : name, pair of functions (f, df), or a sequence of one for each hidden layer, default "relu"
        The function after each hidden layer: scikit-learn's "identity", "logistic", "tanh" and "relu", or any other of
        `dlx.activations`. For functions of your own see `dlx.fit`.
    solver : name or object such as ``dlx.adamw()``, default "adam"
        How the weights are updated: scikit-learn's "lbfgs", "sgd" and "adam", or any other of `dlx.optimizers`.
        "lbfgs" uses all rows at once.
    alpha : float >= 0, default 0.0001
        The rate of the L2 penalty: the loss has the term alpha/2 Σ W² / (sum of the rows' weights), whatever the batch
        size.
    batch_size : int >= 1 or "auto", default "auto"
        The number of rows for each update. "auto" is min(200, n). Not used by "lbfgs".
    learning_rate : name or schedule, default "constant"
        How the learning rate changes while training. scikit-learn's names: "constant"; "invscaling", see `power_t`; and
        "adaptive", which divides the rate by 5 whenever the training would otherwise stop for lack of improvement.
        "adam" ignores the last two, as in scikit-learn. Also the name of a function in `dlx.schedules`, which starts
        from `learning_rate_init`, or a schedule itself. Ignored if the solver is an object with a rate of its own.
    learning_rate_init : float > 0, default 0.001
        The learning rate at the start: the factor of each update's step. Not used by "lbfgs".
    power_t : float >= 0, default 0.5
        The exponent of "invscaling", whose rate is learning_rate_init / (1 + samples so far)^power_t.
    max_iter : int >= 1, default 200
        The largest number of epochs, which are passes over all rows; for "lbfgs" that of iterations.
    shuffle : bool, default True
        Whether the rows are put in a new random order for each epoch, so that batches differ. Not used by "lbfgs".
    random_state : int, RandomState or None, default None
        The source of the first weights, the batches and the held-out rows. An int gives the same result each time, and
        it draws the same first weights and batches as in scikit-learn. None takes NumPy's global stream.
    tol : float >= 0, default 1e-4
        The smallest improvement that counts: the training stops if more than `n_iter_no_change` epochs in a row do not
        lower the best loss by `tol`, or with early stopping do not improve the best validation figure by it. "lbfgs"
        stops when no element of the gradient is larger than `tol`, or when the loss hardly changes, and by that rule
        only with early stopping.
    verbose : bool or int, default False
        Whether to show progress. True or 1 shows a progress bar if tqdm is installed. 2 or more prints scikit-learn's
        lines, as does True without tqdm, and in `partial_fit`.
    warm_start : bool, default False
        Whether `fit` goes on from the weights and the optimizer's state that the last `fit` left, or starts anew.
    momentum : float in [0, 1), default 0.9
        The share of the last step that the next one keeps. Only for "sgd".
    nesterovs_momentum : bool, default True
        Whether the momentum is Nesterov's. Only for "sgd" with momentum > 0.
    early_stopping : bool, "score" or "loss", default False
        Whether to hold out rows, to stop when their figure does not improve any longer, and to keep the best weights.
        The figure is the score ("score" or True) or the loss ("loss").
    validation_fraction : float in (0, 1), default 0.1
        The share of rows that early stopping holds out, unless `fit` gets X_val and y_val.
    beta_1, beta_2 : float in [0, 1), default 0.9 and 0.999
        The decay rates of the running means of the gradient and of its square: the nearer to 1, the more updates they
        average. Only for "adam".
    epsilon : float > 0, default 1e-8
        A small number that is added to a denominator, which bounds the step where gradients are almost zero. Only for
        "adam".
    n_iter_no_change : int >= 1 or inf, default 10
        The number of epochs in a row without an improvement by `tol` after which one more stops the training.
    max_fun : int >= 1, default 15000
        The largest number of evaluations of the loss. Only for "lbfgs".
    loss : "log_loss" or a loss such as ``dlx.losses.cross_entropy(label_smoothing=0.1)``, default "log_loss"
        What is minimised. It must predict probabilities.
    backend : str, module, Backend or None, default None
        Where to compute, such as "cupy" or "torch:cuda"; see `dlx.get_backend`. None computes where X lies. On any
        backend, NumPy arrays as inputs give NumPy arrays as results.
    dtype : "float32" or "float64", optional
        The dtype of weights and computation. By default float32 for float32 data, and float64 for all other data.
    tf32 : bool, default None
        Whether products of float32 arrays may be TF32, which is faster and has three correct digits in place of six, in
        training and in prediction. Only for CUDA devices; see `dlx.Backend.with_tf32`. None is False, or what a Backend
        says that is passed as `backend`.
    dropout : float in [0, 1), or a sequence of one for each hidden layer, default 0
        The share of hidden units that is dropped at random in each update: 0.1 drops 10 %. Not for "lbfgs".
    class_weight : "balanced", or dict of label to weight, optional
        Weights >= 0 of labels, which multiply those of rows. A label that the dict does not name weighs 1. "balanced"
        gives each label a weight in inverse proportion to its number of rows. For several yes-or-no labels a row, use
        "balanced", or a dict {0: weight, 1: weight} for each of them: a list of K, or a dict of column to dict.
    n_layers, width : int, optional
        The number and the width of the hidden layers, instead of `hidden_layer_sizes`. Searches can vary numbers more
        easily than a tuple. `n_layers` alone takes a width of 100; `width` alone takes one layer.
    init : "auto", name, function, Network, or a sequence of (W, b), default "auto"
        The first weights; see `dlx.initializers`. "auto" draws them as scikit-learn does, and for activations that
        scikit-learn does not have as their papers say.
    standardize : bool, default False
        Whether the columns of X are brought to mean 0 and variance 1 first. Sparse columns are only scaled.
    scoring : scorer, its name, or None, default None
        The score in `validation_scores_`, which early stopping watches. None takes the accuracy, without
        `class_weight`.

    Attributes
    ----------
    coefs_, intercepts_ : lists of arrays (d_in, d_out) and (d_out,)
        The weights and the biases of each layer.
    classes_ : array of labels
        The labels that `predict` chooses from.
    loss_, best_loss_ : float
        The loss of the last epoch and the lowest of all epochs, with penalty. `best_loss_` is None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_loss_curve_, validation_scores_ : list of float, or None without validation
        The loss and the score of the held-out rows after each epoch.
    best_validation_score_ : float or None
        The highest of `validation_scores_`.
    n_iter_ : int
        The number of epochs of the last training.
    n_layers_, n_outputs_, n_features_in_ : int
        The numbers of layers (input and output included), of outputs and of columns of X.
    t_ : int
        The number of samples that were trained on, counted anew in each epoch; 0 for "lbfgs".
    feature_names_in_ : array of str
        The names of the columns of X, if it has such names.
    out_activation_ : str
        The function that turns scores into predictions: "identity", "exp", "logistic" or "softmax".

    Raises
    ------
    ValueError, TypeError
        A parameter is wrong. Raised by `fit`, `partial_fit` and `predict`; only a wrong name is refused here.

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
        tf32: bool | None = None,
        dropout: Any = 0.0,
        class_weight: Any = None,
        n_layers: int | None = None,
        width: int | None = None,
        init: Any = "auto",
        standardize: bool = False,
        scoring: Any = None,
        **unknown: Never,
    ) -> None:
        self.__dict__.update(hyperparameters.constructor_arguments(locals(), MLPClassifier))

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
        """Train on rows `X` and their labels `y`.

        Parameters
        ----------
        X : array, data frame, CSR or CSC matrix, or list (n, d)
            The inputs: each row is a sample.
        y : array or list (n,), or (n, K) for several yes-or-no labels a row
            The labels: one for each row, or 0 and 1 for each of K questions.
        sample_weight : array (n,), optional
            Weights >= 0 of rows. By default each row weighs 1.
        X_val, y_val, sample_weight_val : as the above, optional
            Rows of your own to validate on after each epoch. Early stopping watches them, and holds out no others.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A parameter or the data are wrong. Raised before any work; the estimator stays as it was.
        ValueError
            The training diverged. This error is a `DivergenceError` too.

        Warns
        -----
        ConvergenceWarning
            `max_iter` or `max_fun` was reached before the training converged, or the training diverged and early
            stopping kept the best weights before.
        """
        self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))
        return self

    @available_if(hyperparameters.takes_parts)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on these rows, from where the last call ended.

        With all rows in each call, n calls are a `fit` of n epochs.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array of labels, optional
            All labels of all calls to come. It must be passed in the first call.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A parameter or the data are wrong. Raised before any work; the estimator stays as it was.
        ValueError
            The training diverged. This error is a `DivergenceError` too.
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
        """The predicted label of each row (n,), or 0 and 1 for several labels a row (n, K)."""
        if self._fits_several():
            return self._of_rows(X, "predict", scoring.yes, "yes")
        answers = self._of_rows(X, "predict", scoring.answers(self._fitted_loss, tie=False), "answers without ties")
        backend = backend_of(answers)
        with backend.scope():
            places = answers if answers.ndim == 1 else answers[:, 0] * (len(self.classes_) - 1)
            return labels.at(places, self.classes_, backend, stays=True)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy: the share of rows whose labels are all predicted correctly."""
        return float(super().score(X, self._for_scorers(y), sample_weight))

    def _for_scorers(self, y: Any) -> Any:
        """The labels in a form that scikit-learn's metrics take: they refuse integers in arrays of objects."""
        return inputs.plain_labels(y) if library_of(y) in (None, HOST) and not features.compressed(y) else y

    def decision_function(self, X: Any) -> Array:
        """The scores before the link: one a class (n, K), or (n,) for two classes, positive for the second one."""
        one = not self._fits_several() and len(self.classes_) <= 2
        of_scores = scoring.difference if one else scoring.as_they_are
        return self._of_rows(X, "decision_function", of_scores, ("decision", one))

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, in the order of `classes_` (n, K)."""
        return self._probabilities(X, "predict_proba", log=False)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`, computed from the scores, so that it is never -inf."""
        return self._probabilities(X, "predict_log_proba", log=True)

    def _probabilities(self, X: Any, method: str, log: bool) -> Array:
        """Probabilities or their logarithms, in two columns for two classes."""
        both = not self._fits_several() and self._fitted_loss.link.answers == "yes or no"
        if both and len(self.classes_) == 1:
            return self._of_rows(X, method, scoring.certainty(log), ("certainty", log))
        of_scores = scoring.probabilities(self._fitted_loss, both, log)
        return self._of_rows(X, method, of_scores, ("probabilities", both, log))

    def _fits_several(self) -> bool:
        """Whether it has been trained on several labels a row."""
        check_is_fitted(self, "coefs_")
        return self._multilabel

    def _targets(self, X: Any, y: Any, first: bool, part: bool) -> tuple[Any, HostArray]:
        """X, and class numbers (n,) or several labels a row (n, K). Learns the classes from the `first` data."""
        X, y = inputs.rows_and_labels(self, X, y, reset=first)
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
        """The loss that `loss` names, for the labels that were learnt."""
        several = not self._multilabel and len(self.classes_) > 2
        if isinstance(self.loss, str) and self.loss == "log_loss":
            return losses.cross_entropy() if several else losses.binary_cross_entropy()
        loss = losses.get(self.loss)
        binary = not self._multilabel and len(self.classes_) == 2
        remedy = "Use 'log_loss', which is cross_entropy for several classes and binary_cross_entropy otherwise."
        targets.require_kind(loss, ["classes", "binary"] if binary else ["classes"] if several else ["binary"], remedy)
        return loss

    def _outputs(self, Y: HostArray, loss: losses.Loss) -> int:
        """The number of outputs of the network."""
        return Y.shape[1] if self._multilabel else len(self.classes_) if loss.link.answers == "class" else 1

    def _labels_to_split(self, Y: HostArray) -> HostArray | None:
        """The class numbers whose proportions the held-out rows keep, if there are any."""
        return None if self._multilabel else Y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, Base):
    """A multilayer perceptron for regression, with the interface of scikit-learn, on every array library.

    Minimises  1/n Σ_i w_i loss(Z_i, y_i) + alpha/2 Σ W² / Σ_i w_i  over weights W and biases b, with the scores
    Z = f(... f(X W_1 + b_1) ...) W_L + b_L and weights w_i of rows that are scaled to mean 1 in the first term.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int >= 1, default (100,)
        The number of units in each hidden layer. () is a linear model.
    activation : name, pair of functions (f, df), or a sequence of one for each hidden layer, default "relu"
        The function after each hidden layer: scikit-learn's "identity", "logistic", "tanh" and "relu", or any other of
        `dlx.activations`. For functions of your own see `dlx.fit`.
    solver : name or object such as ``dlx.adamw()``, default "adam"
        How the weights are updated: scikit-learn's "lbfgs", "sgd" and "adam", or any other of `dlx.optimizers`.
        "lbfgs" uses all rows at once.
    alpha : float >= 0, default 0.0001
        The rate of the L2 penalty: the loss has the term alpha/2 Σ W² / (sum of the rows' weights), whatever the batch
        size.
    batch_size : int >= 1 or "auto", default "auto"
        The number of rows for each update. "auto" is min(200, n). Not used by "lbfgs".
    learning_rate : name or schedule, default "constant"
        How the learning rate changes while training. scikit-learn's names: "constant"; "invscaling", see `power_t`; and
        "adaptive", which divides the rate by 5 whenever the training would otherwise stop for lack of improvement.
        "adam" ignores the last two, as in scikit-learn. Also the name of a function in `dlx.schedules`, which starts
        from `learning_rate_init`, or a schedule itself. Ignored if the solver is an object with a rate of its own.
    learning_rate_init : float > 0, default 0.001
        The learning rate at the start: the factor of each update's step. Not used by "lbfgs".
    power_t : float >= 0, default 0.5
        The exponent of "invscaling", whose rate is learning_rate_init / (1 + samples so far)^power_t.
    max_iter : int >= 1, default 200
        The largest number of epochs, which are passes over all rows; for "lbfgs" that of iterations.
    shuffle : bool, default True
        Whether the rows are put in a new random order for each epoch, so that batches differ. Not used by "lbfgs".
    random_state : int, RandomState or None, default None
        The source of the first weights, the batches and the held-out rows. An int gives the same result each time, and
        it draws the same first weights and batches as in scikit-learn. None takes NumPy's global stream.
    tol : float >= 0, default 1e-4
        The smallest improvement that counts: the training stops if more than `n_iter_no_change` epochs in a row do not
        lower the best loss by `tol`, or with early stopping do not improve the best validation figure by it. "lbfgs"
        stops when no element of the gradient is larger than `tol`, or when the loss hardly changes, and by that rule
        only with early stopping.
    verbose : bool or int, default False
        Whether to show progress. True or 1 shows a progress bar if tqdm is installed. 2 or more prints scikit-learn's
        lines, as does True without tqdm, and in `partial_fit`.
    warm_start : bool, default False
        Whether `fit` goes on from the weights and the optimizer's state that the last `fit` left, or starts anew.
    momentum : float in [0, 1), default 0.9
        The share of the last step that the next one keeps. Only for "sgd".
    nesterovs_momentum : bool, default True
        Whether the momentum is Nesterov's. Only for "sgd" with momentum > 0.
    early_stopping : bool, "score" or "loss", default False
        Whether to hold out rows, to stop when their figure does not improve any longer, and to keep the best weights.
        The figure is the score ("score" or True) or the loss ("loss").
    validation_fraction : float in (0, 1), default 0.1
        The share of rows that early stopping holds out, unless `fit` gets X_val and y_val.
    beta_1, beta_2 : float in [0, 1), default 0.9 and 0.999
        The decay rates of the running means of the gradient and of its square: the nearer to 1, the more updates they
        average. Only for "adam".
    epsilon : float > 0, default 1e-8
        A small number that is added to a denominator, which bounds the step where gradients are almost zero. Only for
        "adam".
    n_iter_no_change : int >= 1 or inf, default 10
        The number of epochs in a row without an improvement by `tol` after which one more stops the training.
    max_fun : int >= 1, default 15000
        The largest number of evaluations of the loss. Only for "lbfgs".
    loss : str, Loss or pair of functions, default "squared_error"
        What is minimised: "squared_error" or "poisson" as in scikit-learn, or any other of `dlx.losses`. The squared
        error is halved, and summed over outputs.
    backend : str, module, Backend or None, default None
        Where to compute, such as "cupy" or "torch:cuda"; see `dlx.get_backend`. None computes where X lies. On any
        backend, NumPy arrays as inputs give NumPy arrays as results.
    dtype : "float32" or "float64", optional
        The dtype of weights and computation. By default float32 for float32 data, and float64 for all other data.
    tf32 : bool, default None
        Whether products of float32 arrays may be TF32, which is faster and has three correct digits in place of six, in
        training and in prediction. Only for CUDA devices; see `dlx.Backend.with_tf32`. None is False, or what a Backend
        says that is passed as `backend`.
    dropout : float in [0, 1), or a sequence of one for each hidden layer, default 0
        The share of hidden units that is dropped at random in each update: 0.1 drops 10 %. Not for "lbfgs".
    n_layers, width : int, optional
        The number and the width of the hidden layers, instead of `hidden_layer_sizes`. Searches can vary numbers more
        easily than a tuple. `n_layers` alone takes a width of 100; `width` alone takes one layer.
    init : "auto", name, function, Network, or a sequence of (W, b), default "auto"
        The first weights; see `dlx.initializers`. "auto" draws them as scikit-learn does, and for activations that
        scikit-learn does not have as their papers say.
    standardize : bool, default False
        Whether the columns of X, and real targets, are brought to mean 0 and variance 1 first. Predictions are in the
        units of `y`. Sparse columns are only scaled.
    scoring : scorer, its name, or None, default None
        The score in `validation_scores_`, which early stopping watches. None takes what `score` computes.

    Attributes
    ----------
    coefs_, intercepts_ : lists of arrays (d_in, d_out) and (d_out,)
        The weights and the biases of each layer.
    loss_, best_loss_ : float
        The loss of the last epoch and the lowest of all epochs, with penalty. `best_loss_` is None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_loss_curve_, validation_scores_ : list of float, or None without validation
        The loss and the score of the held-out rows after each epoch.
    best_validation_score_ : float or None
        The highest of `validation_scores_`.
    n_iter_ : int
        The number of epochs of the last training.
    n_layers_, n_outputs_, n_features_in_ : int
        The numbers of layers (input and output included), of outputs and of columns of X.
    t_ : int
        The number of samples that were trained on, counted anew in each epoch; 0 for "lbfgs".
    feature_names_in_ : array of str
        The names of the columns of X, if it has such names.
    out_activation_ : str
        The function that turns scores into predictions: "identity", "exp", "logistic" or "softmax".

    Raises
    ------
    ValueError, TypeError
        A parameter is wrong. Raised by `fit`, `partial_fit` and `predict`; only a wrong name is refused here.

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
        tf32: bool | None = None,
        dropout: Any = 0.0,
        n_layers: int | None = None,
        width: int | None = None,
        init: Any = "auto",
        standardize: bool = False,
        scoring: Any = None,
        **unknown: Never,
    ) -> None:
        self.__dict__.update(hyperparameters.constructor_arguments(locals(), MLPRegressor))

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
        """Train on rows `X` and their targets `y`.

        Parameters
        ----------
        X : array, data frame, CSR or CSC matrix, or list (n, d)
            The inputs: each row is a sample.
        y : array or list (n,) or (n, K)
            The targets: real numbers, or counts for the loss "poisson".
        sample_weight : array (n,), optional
            Weights >= 0 of rows. By default each row weighs 1.
        X_val, y_val, sample_weight_val : as the above, optional
            Rows of your own to validate on after each epoch. Early stopping watches them, and holds out no others.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A parameter or the data are wrong. Raised before any work; the estimator stays as it was.
        ValueError
            The training diverged. This error is a `DivergenceError` too.

        Warns
        -----
        ConvergenceWarning
            `max_iter` or `max_fun` was reached before the training converged, or the training diverged and early
            stopping kept the best weights before.
        """
        self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))
        return self

    @available_if(hyperparameters.takes_parts)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows, from where the last call ended.

        With all rows in each call, n calls are a `fit` of n epochs.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A parameter or the data are wrong. Raised before any work; the estimator stays as it was.
        ValueError
            The training diverged. This error is a `DivergenceError` too.
        """
        hyperparameters.validate(self)
        self._fit_part(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> Array:
        """The predicted targets: (n,) for one output and (n, K) for several."""
        check_is_fitted(self, "coefs_")

        def in_old_units(P: Array) -> Array:
            if self._standards[1] is None:
                return P
            backend = backend_of(P)
            mean, scale = (backend.asarray(x, features.dtype_name(P)) for x in self._standards[1])
            return mean + scale * P

        answers = scoring.answers(self._fitted_loss)
        P = self._of_rows(X, "predict", answers, "answers", in_old_units)
        return P[:, 0] if P.shape[1] == 1 else P

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R², averaged over outputs; for a loss of quantiles D² of the pinball loss, as in `Network.score`.

        If `y` is a single target, each quantile is compared with it.
        """
        check_is_fitted(self, "coefs_")
        if self._fitted_loss.name != "quantile":
            return float(super().score(X, y, sample_weight))
        return inputs.regression_score(self._fitted_loss, y, self.predict(X), sample_weight)

    def _targets(self, X: Any, y: Any, first: bool, part: bool) -> tuple[Any, HostArray]:
        """X, and real targets (n, K)."""
        X, y = inputs.rows_and_real_targets(self, X, y, reset=first)
        return X, y[:, None] if y.ndim == 1 else y

    def _loss(self) -> losses.Loss:
        """The loss that `loss` names."""
        if isinstance(self.loss, str) and self.loss == "squared_error":
            return losses.squared_error(half=True)
        return losses.get(self.loss)

    def _outputs(self, Y: HostArray, loss: losses.Loss) -> int:
        """The number of outputs of the network."""
        return hyperparameters.real_outputs(loss, Y.shape[1])

    def _standard_of_targets(self, Y: HostArray, rows: HostArray | None, plan: Plan) -> inputs.Standard | None:
        """The standard of real targets, over `rows` or over all if that is None. Counts are not standardised."""
        if not self.standardize or plan.loss.link.name != "identity":
            return None
        return inputs.Standard(*features.center_and_scale(get_backend("numpy"), Y if rows is None else Y[rows]))


def from_sklearn(mlp: Any, backend: Any = None) -> Any:
    """A dlx estimator with the parameters, weights and predictions of scikit-learn's.

    Parameters
    ----------
    mlp : fitted sklearn.neural_network.MLPClassifier or MLPRegressor
    backend : str, module, Backend or None, default None
        Where the estimator computes; see `dlx.get_backend`. None computes where X lies.

    Returns
    -------
    MLPClassifier or MLPRegressor

    Raises
    ------
    TypeError
        `mlp` is another object.
    NotFittedError
        `mlp` has no weights yet.

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
    make = next((kind for sklearn_kind, kind in kinds.items() if isinstance(mlp, sklearn_kind)), None)
    if make is None:
        rule = "be scikit-learn's MLPClassifier or MLPRegressor"
        checks.reject("mlp", rule, type(mlp).__name__, "Pass the fitted estimator itself.", TypeError)
    check_is_fitted(mlp, "coefs_")
    est: Any = make(**mlp.get_params(), backend=backend)
    conversion.fill(est, mlp)
    return est
