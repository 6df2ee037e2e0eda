"""A network from PyTorch's modules."""

from __future__ import annotations

import importlib
from typing import Any

from dlx import activations, checks
from dlx.export import TORCH_MODULES
from dlx.model import Network

REMEDY = (
    "dlx has Linear, ReLU, LeakyReLU, ELU, SELU, GELU(approximate='tanh'), SiLU, Mish, Softplus, Sigmoid, Tanh and "
    "Identity; Dropout is left out. Remove hooks, and keep other layers in PyTorch."
)


def from_torch(sequential: Any, *, loss: Any, classes: Any = None, backend: Any = None) -> Network:
    """The network that computes what a ``torch.nn.Sequential`` computes in ``eval()`` mode.

    Its last Linear gives the scores, whose link the loss owns: cross_entropy brings softmax, binary_cross_entropy the
    sigmoid. Dropout is left out, as in prediction; a Flatten in front too: dlx takes rows (n, d0). Weights are copied.

    Parameters
    ----------
    sequential : torch.nn.Sequential
        Of Linear (with or without bias) and activations between them; another Sequential inside is opened.
    loss : str, Loss or tuple of functions
        What it was trained with: PyTorch's module does not know.
    classes : array of labels, optional
        What the class numbers 0..K-1 stand for.
    backend : selector, optional
        By default PyTorch, on the device of the weights.

    Raises
    ------
    ValueError
        A module is one that dlx does not have, such as GELU in its exact form, or in a place where it has none; it has
        hooks, which may change what it computes, or no weights (PyTorch's device "meta").
    TypeError
        It is no Sequential, or one with hooks or a forward of its own.
    BackendNotInstalled
        PyTorch is not installed.

    Source: a PyTorch Linear computes x Wᵀ + b, its weight is (d_out, d_in).

    Examples
    --------
    >>> import dlx, numpy as np, torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> net = dlx.from_torch(module, loss="cross_entropy", backend="numpy")
    >>> net
    <dlx.Network 4 -> 8 -> 3, cross_entropy, float32 on numpy>
    >>> x = torch.ones(1, 4)
    >>> bool(np.allclose(net.predict_proba(x.numpy()), module(x).softmax(1).detach(), atol=1e-6))
    True
    """
    pairs: list[tuple[Any, Any]] = []
    hidden: list[activations.Activation] = []
    pending = None  # the activation since the last Linear
    for place, kind, content in importlib.import_module(TORCH_MODULES).steps(sequential, "sequential"):
        if kind == "linear":
            if pairs:
                hidden.append(pending[0] if pending else activations.identity())
            if any(each.is_meta for each in content):
                remedy = "Give it memory by to_empty(device='cpu'), then load_state_dict."
                checks.reject(place, "have weights", "a Linear on the meta device, which holds none", remedy)
            pairs.append(content)
            pending = None
        elif kind == "activation" and content[0] != "identity":
            name, settings, shown = content
            if not pairs or pending:
                checks.reject(place, "follow a Linear", shown, "dlx has one activation a hidden layer.")
            pending = activations.ACTIVATIONS[name](**settings), place, shown
        elif place == "sequential":
            rule = "be a torch.nn.Sequential without hooks and with no forward of its own"
            remedy = "Wrap layers: torch.nn.Sequential(linear)."
            checks.reject(place, rule, content, remedy, TypeError)
        elif kind == "other" or (kind == "flatten" and pairs):
            checks.reject(place, "be a layer that dlx has", content, REMEDY)
    if not pairs:
        checks.reject("sequential", "hold a Linear", "none", "A single layer is Sequential(Linear(4, 3)).")
    if pending:
        remedy = "Drop it: the link from scores to predictions is the loss's, such as the softmax of cross_entropy."
        checks.reject(pending[1], "not follow the last Linear", pending[2], remedy)
    net = Network(pairs, activation=hidden, loss=loss, classes=classes)
    return net if backend is None else net.to(backend)
