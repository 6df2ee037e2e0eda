"""Fully connected neural networks, written once against the Python Array API standard."""

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
from dlx.fitting import fit
from dlx.losses import Loss
from dlx.memory import OutOfMemory
from dlx.model import Network, load
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
from dlx.saving import FileError
from dlx.training import DivergenceError

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
    "Network",
    "Optimizer",
    "OutOfMemory",
    "activations",
    "adagrad",
    "adam",
    "adamw",
    "available_backends",
    "fit",
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
    "rmsprop",
    "schedules",
]
__version__ = "0.1.0"
