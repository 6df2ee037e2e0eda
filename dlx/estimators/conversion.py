"""Conversion of scikit-learn's own MLPs to dlx's estimators and back, with the same predictions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from dlx import checks
from dlx.backend import HOST, backend_of, library_of
from dlx.data import parameters
from dlx.data.parameters import Pairs
from dlx.host import HostArray
from dlx.interchange import onnx_model

SKLEARN_NAMES = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}
SHARED = ("loss_", "best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_", "t_", "n_iter_")
SHAPES = ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "feature_names_in_", "classes_")


def fill(est: Any, mlp: Any) -> None:
    """Give a dlx estimator the weights and the fitted attributes of scikit-learn's estimator."""
    est._forget()
    est.__dict__.update(shared_attributes(mlp))
    est.coefs_, est.intercepts_ = [W.copy() for W in mlp.coefs_], [b.copy() for b in mlp.intercepts_]
    est._multilabel = is_classifier(mlp) and mlp._label_binarizer.y_type_.startswith("multilabel")
    est._hidden = parameters.hidden_activations(mlp.activation, len(mlp.coefs_) - 1)
    est._fitted_loss = est._loss()


def shared_attributes(est: Any) -> dict[str, Any]:
    """Copies of the fitted attributes, weights aside, that both dlx's and scikit-learn's estimators have."""
    return {name: copy.copy(getattr(est, name)) for name in (*SHARED, *SHAPES) if hasattr(est, name)}


def to_sklearn(est: Any) -> Any:
    """scikit-learn's estimator with the parameters, weights and predictions of a dlx estimator.

    Parameters that scikit-learn does not have, such as dropout, class weights or another solver, are left out: they
    matter only while training. A standardisation becomes a part of the weights.

    Parameters
    ----------
    est : fitted dlx.MLPClassifier or dlx.MLPRegressor

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor

    Raises
    ------
    ValueError
        It has an activation or a loss that scikit-learn does not have, several activations, or labels that scikit-learn
        cannot tell apart.
    NotFittedError
        It has no weights yet.
    """
    check_is_fitted(est, "coefs_")
    if is_classifier(est) and np.asarray(est.classes_).dtype.kind == "O":
        rule, got = "be labels that scikit-learn tells apart, for to_sklearn", f"{list(est.classes_)}"
        checks.reject("classes_", rule, got, "Rename those that end in a NUL.")
    names = {activation.name for activation in est._hidden} or {"relu"}
    if len(names) > 1 or not names <= SKLEARN_NAMES.keys():
        rule, got = f"be one of {', '.join(SKLEARN_NAMES.values())} for to_sklearn", ", ".join(sorted(names))
        checks.reject("activation", rule, got, "scikit-learn knows no other.")
    if est._fitted_loss.name not in ("squared_error", "poisson", "binary_cross_entropy", "cross_entropy"):
        checks.reject("loss", "be one of scikit-learn's for to_sklearn", est._fitted_loss.name, "It knows no other.")
    make = TheirClassifier if is_classifier(est) else TheirRegressor
    known = make().get_params()
    mlp = make(
        **{name: value for name, value in est.get_params().items() if name in known and _sklearn_takes(name, value)}
    )
    mlp.set_params(activation=SKLEARN_NAMES[names.pop()], hidden_layer_sizes=tuple(W.shape[1] for W in est.coefs_[:-1]))
    vars(mlp).update(shared_attributes(est))
    if not mlp.early_stopping and mlp.best_loss_ is None:  # scikit-learn does not stop early by the loss
        mlp.best_loss_ = min(mlp.loss_curve_, default=np.inf)
    pairs = folded_pairs(est)
    if is_classifier(est):
        pairs = one_column(pairs) if len(est.classes_) == 2 and not est._multilabel else pairs
        mlp._label_binarizer = LabelBinarizer().fit(
            np.eye(len(est.classes_), dtype=int) if est._multilabel else est.classes_
        )
    else:
        mlp.loss = "poisson" if est._fitted_loss.name == "poisson" else "squared_error"
    mlp._no_improvement_count = est._no_improvement_count
    mlp.n_outputs_ = pairs[-1][0].shape[1]
    mlp.out_activation_ = est.out_activation_ if mlp.n_outputs_ > 1 or not is_classifier(est) else "logistic"
    mlp.coefs_, mlp.intercepts_ = [W for W, _ in pairs], [b for _, b in pairs]
    if mlp.early_stopping:  # from which scikit-learn's warm start goes on
        mlp._best_coefs, mlp._best_intercepts = [W.copy() for W, _ in pairs], [b.copy() for _, b in pairs]
    return mlp


def write_onnx(est: Any, path: Any, opset: int | None = None) -> None:
    """Write a dlx estimator as an ONNX model, which includes its standardisation.

    Raises
    ------
    ValueError
        It has functions of the user's own, or has been trained on one class only, or `opset` is out of range.
    """
    onnx_model.write(path, onnx_parts(est), opset)


def onnx_parts(est: Any) -> onnx_model.Parts:
    """The parts of the ONNX model of a dlx estimator."""
    check_is_fitted(est, "coefs_")
    classes = None if not is_classifier(est) or est._multilabel else np.asarray(est.classes_)
    one_label = classes is not None and est._fitted_loss.link.answers == "yes or no"
    if one_label and len(est.classes_) < 2:
        checks.reject("classes_", "hold at least two labels for to_onnx", est.classes_, "Train it on two.")
    pairs = [(_host_copy(W), _host_copy(b)) for W, b in zip(est.coefs_, est.intercepts_, strict=True)]
    yes = "Greater"  # than 0: in scikit-learn a score of 0 is a no
    return onnx_model.Parts(pairs, est._hidden, est._fitted_loss, classes, one_label, yes, *est._standards)


def _sklearn_takes(name: str, value: Any) -> bool:
    """Whether scikit-learn takes this value of a parameter. If not, the parameter gets its default there."""
    choices = {
        "solver": ("lbfgs", "sgd", "adam"),
        "learning_rate": ("constant", "invscaling", "adaptive"),
        "early_stopping": (True, False),
        "loss": ("squared_error", "poisson"),
    }
    return name not in ("activation", "hidden_layer_sizes") and (
        name not in choices or (isinstance(value, str | bool) and value in choices[name])
    )


def folded_pairs(est: Any) -> Pairs:
    """The weights on the host, with the standardisations of inputs and of targets folded into them.

    x W + b with x = (X - m) / s is X (W / s) + (b - m (W / s));  M + S (a W + b) is a (W S) + (b S + M)
    """
    pairs = [(_host_copy(W), _host_copy(b)) for W, b in zip(est.coefs_, est.intercepts_, strict=True)]
    inputs, outputs = est._standards
    if (
        inputs is not None or outputs is not None
    ):  # in float32 digits would be lost, as m W / s may be much larger than b
        pairs = [(W.astype(np.float64), b.astype(np.float64)) for W, b in pairs]
    if inputs is not None:
        W, b = pairs[0]
        W = (W / inputs.scale.T).astype(W.dtype)
        pairs[0] = W, (b - (inputs.mean @ W)[0]).astype(b.dtype)
    if outputs is not None:
        W, b = pairs[-1]
        pairs[-1] = (W * outputs.scale).astype(W.dtype), (b * outputs.scale[0] + outputs.mean[0]).astype(b.dtype)
    return pairs


def one_column(pairs: Pairs) -> Pairs:
    """The last layer with one score in place of two: softmax(z)_1 = σ(z_1 - z_0)."""
    W, b = pairs[-1]
    return pairs if W.shape[1] == 1 else [*pairs[:-1], (W[:, 1:] - W[:, :1], b[1:] - b[:1])]


def _host_copy(x: Any) -> HostArray:
    """A copy on the host."""
    return np.array(x if library_of(x) == HOST else backend_of(x).to_host(x))
