"""A torch.nn.Sequential from layers, and the layers of one. It is made from NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import importing

with importing("torch", "torch", "Run: pip install 'dlx-nn[torch]'."):
    import torch
    from torch import nn

Step = tuple[str, Any]

# The module of each activation. From z = 40 on, log(1 + e^z) is z to the last digit of float64; PyTorch's threshold of
# 20 is exact in float32 only.
MODULES: Mapping[str, Callable[..., Any]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": lambda slope: nn.LeakyReLU(slope),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": lambda: nn.Softplus(threshold=40.0),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}

# The name and the settings of the activation that each module computes; None if dlx has no such activation.
FORMULAS: Mapping[type, Callable[[Any], Step | None]] = {
    nn.Identity: lambda m: ("identity", {}),
    nn.ReLU: lambda m: ("relu", {}),
    nn.LeakyReLU: lambda m: ("leaky_relu", {"slope": m.negative_slope}) if 0 <= m.negative_slope < 1 else None,
    nn.ELU: lambda m: ("elu", {"alpha": m.alpha}) if m.alpha > 0 else None,
    nn.SELU: lambda m: ("selu", {}),
    nn.GELU: lambda m: ("gelu", {}) if m.approximate == "tanh" else None,
    nn.SiLU: lambda m: ("silu", {}),
    nn.Mish: lambda m: ("mish", {}),
    nn.Softplus: lambda m: ("softplus", {}) if m.beta == 1 and m.threshold >= 20 else None,  # off by e^-20 at most
    nn.Sigmoid: lambda m: ("sigmoid", {}),
    nn.Tanh: lambda m: ("tanh", {}),
}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")  # they may change what a module computes


def sequential(pairs: Sequence[tuple[Any, Any]], hidden: Sequence[Step]) -> nn.Sequential:
    """A Linear for each W (d_in, d_out) and b (1, d_out) on the host, and between them the activations."""
    modules: list[Any] = []
    for l, (W, b) in enumerate(pairs):
        linear = nn.Linear(*W.shape, device="meta")  # on "meta" it draws nothing from PyTorch's generator
        linear.weight, linear.bias = nn.Parameter(_tensor(W.T)), nn.Parameter(_tensor(b[0]))
        modules.append(linear)
        if l < len(hidden):
            name, settings = hidden[l]
            modules.append(MODULES[name](**settings))
    return nn.Sequential(*modules)


def steps(module: Any, name: str) -> Iterator[tuple[str, str, Any]]:
    """The steps of a Sequential as (place, kind, content). A Sequential inside it is opened.

    The kinds are "linear" with the content (W, b); "activation" with a name, settings and text; and "dropout",
    "flatten" and "other" with the text that PyTorch prints for the module.
    """
    if not _is_sequential(module):
        yield name, "other", f"{type(module).__module__}.{type(module).__name__}"
        return
    for place, child in ((f"{name}[{i}]", child) for i, child in enumerate(module)):
        if _is_sequential(child):
            yield from steps(child, place)
        else:
            yield place, *_step(child)


def _is_sequential(module: Any) -> bool:
    """Whether the module is a Sequential without hooks and without a forward of its own."""
    plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    return plain and not _has_hooks(module)


def _has_hooks(module: nn.Module) -> bool:
    """Whether the module has hooks."""
    return any(getattr(module, hooks) for hooks in HOOKS)


def _step(module: nn.Module) -> Step:
    """The kind and the content of a module."""
    shown = " ".join(repr(module).split())
    if _has_hooks(module):
        return "other", f"{shown} with hooks"
    if type(module) is nn.Linear:
        W = module.weight.detach().T.contiguous()
        return "linear", (W, W.new_zeros(W.shape[1]) if module.bias is None else module.bias.detach())
    if type(module) in (nn.Dropout, nn.AlphaDropout):
        return "dropout", shown
    if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return "flatten", shown
    formula = FORMULAS.get(type(module), lambda _: None)(module)
    return ("other", shown) if formula is None else ("activation", (*formula, shown))


def _tensor(x: Any) -> torch.Tensor:
    """A copy of a NumPy array as a tensor."""
    return torch.from_numpy(np.array(x, order="C"))
