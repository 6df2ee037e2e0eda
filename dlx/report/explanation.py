"""How a training step of a network is computed, as a text: `Network.explain`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlx import checks
from dlx.data.features import Rows
from dlx.network import Layer
from dlx.report.evidence import Trained
from dlx.training import arguments, steps
from dlx.training.plan import Plan


def text(net: Trained, optimizer: Any, batch_size: Any) -> str:
    """What becomes of a step on batches of so many rows. No step is run, and so the rows are zeros."""
    backend, K = net.backend, net.layer_dims[-1]
    n = checks.integer("batch_size", batch_size, low=1, remedy="Use 128, for example.")
    settings = arguments.settings(optimizer, arguments.DEFAULT_RATE, n, 1, True, None, None, None)
    explain = getattr(backend, "explain", None)
    if explain is None:
        return f"dlx gives the step to {backend.selector} as it is, and keeps no list of its operations."
    if settings.optimizer.full_batch:
        return "L-BFGS takes no steps of batches: its loss and gradient are computed as they are."
    labelled = net.classes is not None and K > 1
    X = np.zeros((n + 1, net.layer_dims[0]), net.dtype)
    Y = np.zeros((n + 1, 1), np.int32) if labelled else np.zeros((n + 1, K), net.dtype)
    classes = np.arange(K, dtype=np.int32)[None, :] if labelled else None
    rows = Rows(*(None if x is None else backend.asarray(x) for x in (X, Y, None, classes)))
    task = Plan(backend, net.dtype, net.layer_dims, net.activation, net.loss).task(rows, None)
    params = tuple(Layer(backend.copy(W), backend.copy(b)) for W, b in net.params)
    step, carry = steps.make_step(task, settings, params)
    numbers = task.as_row_numbers(np.zeros((1, n), np.int64))
    inputs = steps.Inputs(numbers, None, *steps.numbers(task, settings, 0, [1.0]))
    explained: str = explain(step, carry, rows, inputs)
    return explained
