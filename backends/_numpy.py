"""NumPy, on the host."""

from __future__ import annotations

import importlib
import os
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, host_array, namespace_of

from . import no_device

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE")


ROWS_AT_ONCE = 1024


class NumpyBackend(Backend):
    """NumPy arrays in the host's memory."""

    name = "numpy"

    @classmethod
    def open(cls, device: str | None) -> Self:
        """Of the selectors "numpy" and "numpy:cpu"."""
        if device not in (None, "cpu"):
            no_device("numpy", device, ["cpu"])
        return cls(namespace_of(np.empty(0)))

    @classmethod
    def of(cls, array: Array) -> Self:
        """NumPy has one device."""
        return cls.open(None)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """NumPy's own arrays too may be masked, of foreign byte order or not aligned."""
        return super().asarray(host_array(x), dtype)

    def sum_rows(self, x: Array) -> Array:
        """In blocks where there are many: NumPy adds one row after the other, and float32 would drift."""
        n = x.shape[-2]
        blocks = x if n <= ROWS_AT_ONCE else np.add.reduceat(x, np.arange(0, n, ROWS_AT_ONCE), axis=-2)
        return np.sum(blocks, axis=-2, keepdims=True)

    def describe(self) -> dict[str, str]:
        """Its BLAS decides its speed, and the threads of the BLAS."""
        found: Any = np.show_config(mode="dicts")
        blas = found.get("Build Dependencies", {}).get("blas", {})
        facts = super().describe() | {"BLAS": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()}
        return facts | {"BLAS threads": _threads()}


def _threads() -> str:
    try:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
    except ImportError:  # it is optional: then the environment is all there is to say
        told = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
        return ", ".join(told) or f"as it chooses, of {os.cpu_count()} CPUs"
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(f"{pool['num_threads']} ({pool['internal_api']} {pool.get('architecture')})" for pool in pools)


BACKEND = NumpyBackend
