"""CuPy, on one CUDA device."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function, HostArray, Loop, Namespace, Staging, namespace_of

from . import importing, no_device, unavailable

with importing(
    "cupy",
    "cupy",
    "Run: pip install 'dlx-nn[cuda12x]' for CUDA 12, pip install 'dlx-nn[cuda13x]' for CUDA 13.",
):
    import cupy

    from . import _cupy_blas, _cupy_capture, _cupy_explained, _cupy_graph, _cupy_kernels, _cupy_staging


FEW_BYTES = 1 << 14  # to bring so many to the host takes less time than a kernel and its result


class CupyBackend(Backend):
    """CuPy arrays on one CUDA device.

    CuPy's creation functions ignore their ``device`` argument. So everything happens inside `scope`, which makes this
    device the current one.
    """

    name = "cupy"
    in_place = True
    takes_tf32 = True  # `product` reads `tf32`

    @classmethod
    def open(cls, device: str | None) -> Self:
        """The backend for "cupy", the current device, or "cupy:1"; raises unless a matrix product runs there."""
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
        """The backend of the device that holds `array`."""
        return cls(_namespace(array.device.id), array.device)

    @property
    def device_name(self) -> str:
        """The device as in a selector: "1"."""
        return str(self.device.id)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """`x`, from the host or any CUDA device, on this device."""
        with self.scope():
            return super().asarray(x, dtype)

    def holds(self, x: Array) -> bool:
        """Whether `x` lies on this device."""
        return bool(x.device.id == self.device.id)

    @property
    def elements_at_once(self) -> int:  # type: ignore[override]
        """As many as a quarter of the free memory holds, with the inputs and outputs of a layer in float64."""
        free = cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()
        return max(super().elements_at_once, min(int(free) // 4 // (3 * 8), 1 << 28))

    @property
    def most_elements(self) -> int:  # type: ignore[override]
        """The same: no row is too wide for a device."""
        return max(super().most_elements, self.elements_at_once)

    def seems_finite(self, x: Array) -> bool:
        """As in `Backend`. A few numbers are looked at on the host, which needs no kernels."""
        few = x.nbytes <= FEW_BYTES
        return bool(np.isfinite(x.get() if few else cupy.sum(x).get()).all())

    def copy(self, x: Array) -> Array:
        """A copy of `x` in its own memory."""
        with self.scope():
            return x.copy()

    def to_host(self, x: Array) -> HostArray:
        """`x` as a NumPy array, by one copy from the device."""
        host: HostArray = cupy.asnumpy(x)
        return host

    def staging(self) -> Staging:
        """As in `Backend`, by copies beside the computation; see `_cupy_staging`."""
        return _cupy_staging.Staging()

    def transpose(self, x: Array) -> Array:
        """A view by an attribute, which is faster than a function."""
        return x.mT

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The product a b by cuBLAS, written directly to `out`."""
        with _cupy_capture.beside("products", a, b) if out is not None else contextlib.nullcontext():
            return _cupy_blas.product(a, b, out, self.tf32)

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """The sum over rows by one reduction, written directly to `out`."""
        with self.beside(x) if out is not None else contextlib.nullcontext():
            return cupy.sum(x, axis=-2, keepdims=True, out=out)

    def fork(self) -> contextlib.AbstractContextManager[Any]:
        """As in `Backend`, while a graph is captured, of which `beside` makes other branches."""
        return _cupy_capture.fork()

    def beside(self, *read: Array) -> contextlib.AbstractContextManager[Any]:
        """As in `Backend`: on a branch for all that are no products."""
        return _cupy_capture.beside("sums", *read)

    def fuse(self, function: Function, name: str) -> Function:
        """The formula as one kernel of cupy.fuse, compiled at the first call for each combination of dtypes.

        cupy.fuse would copy an argument that the formula writes in place and returns. Such a one is left out of what
        the kernel returns.
        """
        places: list[int | None] = []  # of each result among the arguments; None for a new array
        single = False

        def new_results(*arguments: Any) -> Any:
            nonlocal places, single
            returned = function(*arguments)
            single = not isinstance(returned, tuple)
            results = (returned,) if single else returned
            places = [_place(result, arguments) for result in results]
            new = tuple(result for result, place in zip(results, places, strict=True) if place is None)
            return new[0] if len(new) == 1 else new or None

        kernel = cupy.fuse(kernel_name=f"dlx_{name}")(new_results)

        def fused(*arguments: Any) -> Any:
            new = kernel(*arguments)
            rest = iter(new if isinstance(new, tuple) else (new,))
            results = tuple(next(rest) if place is None else arguments[place] for place in places)
            return results[0] if single else results

        return fused  # type: ignore[return-value]

    def loop(self, step: Callable[..., tuple[Any, Array]], key: Hashable = None) -> Loop:
        """The step as a CUDA graph, launched for each row of the inputs; see `_cupy_graph`."""
        return _cupy_graph.Loop(step, super().loop(step, key), key is not None, self.tf32)

    def explain(self, step: Callable[..., tuple[Any, Array]], carry: Any, constants: Any, inputs: Any) -> str:
        """What becomes of a step of `loop` with these arguments, as a text: its operations, and their kernels."""
        return _cupy_explained.explained(step, carry, constants, inputs)

    def outputs_to_host(self, outputs: Sequence[Array]) -> HostArray:
        """All outputs, which the loop yields as vectors, as one."""
        with self.scope():
            return self.to_host(outputs[0] if len(outputs) == 1 else cupy.concatenate(outputs))

    def release_memory(self) -> None:
        """Empty CuPy's memory pools. Arrays in use stay."""
        with self.scope():
            cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()

    def synchronize(self) -> None:
        """Wait for the device."""
        self.device.synchronize()

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """The context in which this device is the current one."""
        # A new Device object for each scope, as it stores the device to return to.
        with super().scope(), cupy.cuda.Device(self.device.id):
            yield

    def describe(self) -> dict[str, str]:
        """As in `Backend`, with CUDA. CuPy's own setting CUPY_TF32 has no effect on dlx's products."""
        runtime = cupy.cuda.runtime
        names = [runtime.getDeviceProperties(index)["name"].decode() for index in range(runtime.getDeviceCount())]
        return {
            "version": cupy.__version__,
            "devices": ", ".join(f"{index} ({name})" for index, name in enumerate(names)),
            "CUDA": f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}",
            "tf32": str(self.tf32),
        }

    def arithmetic(self) -> dict[str, str]:
        """The versions of CuPy, CUDA and dlx's own kernels, and the device: they decide the order of every sum."""
        description, name = self.describe(), cupy.cuda.runtime.getDeviceProperties(self.device.id)["name"].decode()
        return {key: description[key] for key in ("version", "CUDA", "tf32")} | {"device": name} | _cupy_kernels.KIND


def _place(result: Any, arguments: tuple[Any, ...]) -> int | None:
    """The number of the argument that `result` is; None if it is new."""
    return next((k for k, argument in enumerate(arguments) if argument is result), None)


@functools.cache  # an error is not cached, so that a mended installation works at once
def _namespace(index: int) -> Namespace:
    """CuPy's namespace, after a matrix product has run on this device."""
    try:  # a missing cuBLAS or NVRTC shows only at the first kernel and the first product
        with cupy.cuda.Device(index):
            one = cupy.ones((2, 2), dtype=cupy.float32)  # a product of (1, 1) arrays does not call cuBLAS
            float((one @ one)[0, 0])
    except Exception as reason:
        unavailable(f"cupy:{index}", f"CuPy {cupy.__version__}", reason)
    return namespace_of(one)


BACKEND = CupyBackend
