"""CuPy, on one CUDA device."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function, Namespace, namespace_of

from . import importing, no_device, unavailable

with importing(
    "cupy",
    "cupy",
    "Run: pip install 'dlx-nn[cuda12x]' for CUDA 12, pip install 'dlx-nn[cuda13x]' for CUDA 13.",
):
    import cupy


class CupyBackend(Backend):
    """CuPy arrays on one CUDA device.

    CuPy's creation functions ignore their ``device`` argument, so everything happens inside `scope`, which
    makes this device the current one.
    """

    name = "cupy"
    in_place = True

    @classmethod
    def open(cls, device: str | None) -> Self:
        """Of "cupy" (the current device) or "cupy:1"; a matrix product must really run there."""
        if not (device or "0").isdecimal():
            raise ValueError(
                f"`backend` must name a CUDA device by its number; got 'cupy:{device}'. Use 'cupy:0' or the like."
            )
        selector = f"cupy:{device}" if device else "cupy"
        try:
            count = cupy.cuda.runtime.getDeviceCount()
            index = cupy.cuda.runtime.getDevice() if device is None else int(device)
        except RuntimeError as reason:
            unavailable(selector, f"CuPy {cupy.__version__}", reason)
        if index >= count:
            no_device("cupy", str(index), [str(known) for known in range(count)])
        return cls(_namespace(index), cupy.cuda.Device(index))

    @classmethod
    def of(cls, array: Array) -> Self:
        """The device that holds `array`."""
        return cls(_namespace(array.device.id), array.device)

    @property
    def device_name(self) -> str:
        """As in a selector: "1"."""
        return str(self.device.id)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """From the host, or from any CUDA device."""
        with self.scope():
            return super().asarray(x, dtype)

    def copy(self, x: Array) -> Array:
        """The same values in memory of their own."""
        with self.scope():
            return x.copy()

    def to_host(self, x: Array) -> np.ndarray[Any, Any]:
        """One copy from the device; waits for it."""
        found: np.ndarray[Any, Any] = cupy.asnumpy(x)
        return found

    def transpose(self, x: Array) -> Array:
        """A view, without the cost of a function's call."""
        return x.mT

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """cuBLAS, straight into `out`."""
        return cupy.matmul(a, b, out=out)

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """One reduction, straight into `out`."""
        return cupy.sum(x, axis=-2, keepdims=True, out=out)

    def fuse(self, function: Function, name: str) -> Function:
        """cupy.fuse: one kernel, compiled at its first call for each combination of dtypes."""
        fused: Function = cupy.fuse(kernel_name=f"dlx_{name}")(function)
        return fused

    def release_memory(self) -> None:
        """Empty CuPy's memory pools; arrays in use stay."""
        with self.scope():
            cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()

    def synchronize(self) -> None:
        """Wait for the device."""
        self.device.synchronize()

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """This device is the current one; a Device of its own, for it remembers where to return to."""
        with super().scope(), cupy.cuda.Device(self.device.id):
            yield

    def describe(self) -> dict[str, str]:
        """Its float32 products are TF32 only where CUPY_TF32 is 1."""
        runtime = cupy.cuda.runtime
        names = [runtime.getDeviceProperties(index)["name"].decode() for index in range(runtime.getDeviceCount())]
        return {
            "version": cupy.__version__,
            "devices": ", ".join(f"{index} ({name})" for index, name in enumerate(names)),
            "CUDA": f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}",
            "CUPY_TF32": os.environ.get("CUPY_TF32", "0"),
        }

    def arithmetic(self) -> dict[str, str]:
        """Its kernels are those of the device and of the CUDA release."""
        facts, name = self.describe(), cupy.cuda.runtime.getDeviceProperties(self.device.id)["name"].decode()
        return {each: facts[each] for each in ("version", "CUDA", "CUPY_TF32")} | {"device": name}


@functools.cache  # an error is not cached: what was mended works at once
def _namespace(index: int) -> Namespace:
    try:  # a missing cuBLAS or NVRTC shows only at the first kernel and the first product
        with cupy.cuda.Device(index):
            one = cupy.ones((2, 2), dtype=cupy.float32)  # a product of (1, 1) arrays does not call cuBLAS
            float((one @ one)[0, 0])
    except Exception as reason:
        unavailable(f"cupy:{index}", f"CuPy {cupy.__version__}", reason)
    return namespace_of(one)


BACKEND = CupyBackend
