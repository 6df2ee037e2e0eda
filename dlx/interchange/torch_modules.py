"""A network as a ``torch.nn.Sequential``, and the layers of such a module."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from dlx import activations, checks
from dlx.interchange import onnx_model

TORCH_MODULES = "dlx.backends._torch_modules"  # imported by name, as all files of backends/ are
REMEDY = (
    "dlx has Linear, ReLU, LeakyReLU, ELU, SELU, GELU(approximate='tanh'), SiLU, Mish, Softplus, Sigmoid, Tanh and "
    "Identity; Dropout is left out. Remove hooks, and keep other layers in PyTorch."
)


def sequential(pairs: onnx_model.Pairs, hidden: Sequence[activations.Activation]) -> Any:
    """The torch.nn.Sequential of these layers, for `dlx.Network.to_torch`."""
    onnx_model.require_own("to_torch", hidden)
    steps = [(activation.name, dict(activation.settings)) for activation in hidden]
    return importlib.import_module(TORCH_MODULES).sequential(pairs, steps)


def layers_of(module: Any) -> tuple[list[tuple[Any, Any]], list[activations.Activation]]:
    """The pairs (W, b) and the activations of a ``torch.nn.Sequential``, for `dlx.from_torch`."""
    pairs: list[tuple[Any, Any]] = []
    hidden: list[activations.Activation] = []
    pending = None  # the activation since the last Linear, its place and its text
    for place, kind, content in importlib.import_module(TORCH_MODULES).steps(module, "sequential"):
        if kind == "linear":
            if pairs:
                hidden.append(pending[0] if pending else activations.identity())
            if any(tensor.is_meta for tensor in content):
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
    return pairs, hidden
