"""How many operations a training step asks of a device: dlx on (emulated) CuPy beside PyTorch eager.

    python tests/benchmarks/launches.py

Adam, ReLU, cross-entropy, L layers, data on the device. For dlx, kernel launches and cuBLAS products as counted by
tests/cupy_on_cpu; for PyTorch, operators that compute, as its dispatcher sees them (views are not counted), with the
plain, the foreach and the fused Adam; a foreach operator can be several launches.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cupy_on_cpu import emulate

emulate.install()

import numpy as np
import torch
from cupy_on_cpu.test_budget import DIMS, counted, one_step
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Counts the operators that make new values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not (func.is_view or func.overloadpacket in (torch.ops.aten.detach, torch.ops.aten.empty))
        return func(*args, **(kwargs or {}))


def torch_operators(dims: tuple[int, ...], **adam: bool) -> int:
    """Of one step of the same network."""
    layers = [torch.nn.Sequential(torch.nn.Linear(a, b), torch.nn.ReLU()) for a, b in pairwise(dims)]
    layers[-1] = layers[-1][0]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), **adam)
    X, y = torch.randn(300, dims[0]), torch.from_numpy(np.arange(300) % dims[-1])
    numbers = torch.arange(60)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(X[numbers]), y[numbers]).backward()
        optimizer.step()

    step()
    with Operators() as seen:
        step()
    return seen.count


def main() -> None:
    """Print the table."""
    print("| layers | dlx on CuPy: launches + products | torch: Adam fused | foreach | plain |")
    print("|---|---|---|---|---|")
    for layers, dims in DIMS.items():
        done = counted(one_step(layers))
        peers = [torch_operators(dims, **how) for how in ({"fused": True}, {"foreach": True}, {"foreach": False})]
        print(f"| {layers} | {done.launches} + {done.gemms} | {peers[0]} | {peers[1]} | {peers[2]} |")


if __name__ == "__main__":
    main()
