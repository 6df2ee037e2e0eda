"""Fully connected neural networks, written once against the Python Array API standard."""

import importlib
from typing import TYPE_CHECKING, Any

from dlx import activations, initializers, losses, optimizers, schedules
from dlx.activations import Activation
from dlx.article import L_layer_model
from dlx.backend import (
    Backend,
    BackendNotInstalled,
    BackendUnavailable,
    available_backends,
    get_backend,
)
from dlx.files.container import FileError
from dlx.fitting import fit
from dlx.learning_rates import find_learning_rate
from dlx.losses import Loss
from dlx.model import Network, from_torch, load
from dlx.network import Layer
from dlx.optimizers import (
    Optimizer,
    adagrad,
    adam,
    adamw,
    gradient_descent,
    lion,
    momentum,
    nadam,
    nesterov,
    rmsprop,
)
from dlx.quasi_newton import LBFGS, lbfgs
from dlx.training.divergence import DivergenceError
from dlx.training.memory import OutOfMemory
from dlx.version import __version__

if TYPE_CHECKING:
    from dlx import onnx_hooks as onnx_hooks
    from dlx import plot
    from dlx.estimators import MLPClassifier, MLPRegressor, from_sklearn

__all__ = [
    "LBFGS",
    "Activation",
    "Backend",
    "BackendNotInstalled",
    "BackendUnavailable",
    "DivergenceError",
    "FileError",
    "L_layer_model",
    "Layer",
    "Loss",
    "MLPClassifier",
    "MLPRegressor",
    "Network",
    "Optimizer",
    "OutOfMemory",
    "__version__",
    "activations",
    "adagrad",
    "adam",
    "adamw",
    "available_backends",
    "find_learning_rate",
    "fit",
    "from_sklearn",
    "from_torch",
    "get_backend",
    "gradient_descent",
    "initializers",
    "lbfgs",
    "lion",
    "load",
    "losses",
    "momentum",
    "nadam",
    "nesterov",
    "optimizers",
    "plot",
    "rmsprop",
    "schedules",
]

_WITH_SKLEARN = ("MLPClassifier", "MLPRegressor", "from_sklearn")


def __getattr__(name: str) -> Any:
    """The names that need an optional library, when they are first asked for."""
    if name == "plot":
        return importlib.import_module("dlx.plot")
    if name not in (*_WITH_SKLEARN, "onnx_hooks"):
        raise AttributeError(f"module 'dlx' has no attribute {name!r}")
    try:
        if name == "onnx_hooks":
            return importlib.import_module("dlx.onnx_hooks")
        return getattr(importlib.import_module("dlx.estimators"), name)
    except ModuleNotFoundError as reason:
        if str(reason.name).partition(".")[0] != "sklearn":
            raise
        raise ImportError(f"dlx.{name} needs scikit-learn; run: pip install 'dlx-nn[sklearn]'") from reason
