"""JAX, on any of its devices."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function, HostArray, Loop, Namespace, host_array

from . import importing, no_device, unavailable

with importing("jax", "jax", "Run: pip install 'dlx-nn[jax]'."):
    import jax


SECONDS_AT_ONCE = 0.5  # of a compiled loop. A call copies its carry, which Ctrl-C must find whole; so not much less
PRECISIONS = {False: "highest", True: "tensorfloat32"}  # JAX's names
BLOCK = 32  # steps without a wait: a GPU's host waits for the condition of every loop whose length is not known
MOST_COMPILED = 64  # functions that are cached; each takes a megabyte or two of machine code and compiler data
FEW_ROWS = 1 << 16  # up to this many rows are extended to one of a few sizes
SIZES = (1 << 6, 1 << 8, 1 << 10, 1 << 12, 1 << 13, 1 << 14, 1 << 15, FEW_ROWS)  # of the samples to train on
BLOCKS = (1 << 11, 1 << 5)  # rows of the large and the small block of `rowwise`
_LOCK = threading.Lock()
_COMPILED: dict[Hashable, Callable[..., Any]] = {}  # compiled functions by key, for later fits and predictions


def _take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    """jax.numpy.take for numbers that exist. To take others as nan or from the end, it needs ten more operations."""
    return jax.numpy.take(x, indices, axis=axis, mode="clip")


def _namespace() -> Namespace:
    """jax.numpy with the faster function above."""
    namespace = types.ModuleType("jax.numpy")
    vars(namespace).update(vars(jax.numpy) | {"take": _take})
    return namespace


NAMESPACE = _namespace()


class JaxBackend(Backend):
    """JAX arrays on one device."""

    name = "jax"
    float64_hint = (
        "Switch it on with jax.config.update('jax_enable_x64', True) before the first array, or pass dtype='float32'."
    )
    tf32_hint = "choose backend='jax:gpu'"

    def __init__(self, xp: Namespace, device: Any = None, name: str | None = None) -> None:
        super().__init__(xp, device, name)
        self.takes_tf32 = device is not None and device.platform == "gpu"

    @classmethod
    def open(cls, device: str | None) -> Self:
        """The backend for "jax", which is JAX's first device, "jax:cpu", "jax:gpu", "jax:gpu:1", "jax:tpu" ..."""
        platform, colon, index = (device or "").partition(":")
        if device and (not platform or platform.isdecimal() or (colon and not index)):
            no_device("jax", device, [_device_name(known) for known in jax.local_devices()])
        try:
            devices = jax.local_devices(backend=platform or None)
        except RuntimeError as reason:
            unavailable(f"jax:{device}" if device else "jax", f"JAX {jax.__version__}", reason)
        for known in devices:
            if index in ("", str(known.id)):
                return cls(NAMESPACE, known)
        no_device("jax", str(device), [_device_name(known) for known in devices])

    @classmethod
    def of(cls, array: Array) -> Self:
        """The backend of an array on a single device; raises for a sharded array, which has several."""
        devices = array.devices()
        if len(devices) != 1:
            raise ValueError(
                f"`array` must lie on one device; got one that is sharded over {len(devices)}. "
                "Gather it with jax.device_put(array, jax.devices()[0])."
            )
        return cls(NAMESPACE, next(iter(devices)))

    @property
    def device_name(self) -> str:
        """The device as in a selector: "gpu:1"."""
        return _device_name(self.device)

    @property
    def block(self) -> int:
        """The steps in a loop whose length XLA knows. The CPU waits for no condition, and compiles one step less."""
        return 1 if self.device.platform == "cpu" else BLOCK

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """As in `Backend`. Few rows are converted on the host, as jax.numpy would compile for each shape."""
        if isinstance(x, jax.core.Tracer) or not _is_few(x):
            return super().asarray(x, dtype)
        host = x if isinstance(x, jax.Array) else host_array(x)
        target = jax.dtypes.canonicalize_dtype(host.dtype if dtype is None else self.dtype(dtype))
        return jax.device_put(host if host.dtype == target else np.asarray(host).astype(target), self.device)

    def copy(self, x: Array) -> Array:
        """A copy of `x`. Few rows go by way of the host, where nothing is compiled."""
        return jax.device_put(np.array(x), self.device) if _is_few(x) else super().copy(x)

    def padded(self, n: int) -> int | None:
        """The next of a few sizes. Many rows are not extended, and compiled for their own number."""
        return next((size for size in SIZES if size >= n), n)

    def take(self, x: Array, numbers: HostArray) -> Array:
        """A copy of the rows with these numbers. Few rows go by way of the host."""
        if not _is_few(x):
            return super().take(x, numbers)
        return jax.device_put(np.take(np.asarray(x), numbers, axis=0), self.device)

    def zeros_like(self, x: Array) -> Array:
        """Zeros by way of the host, where nothing is compiled."""
        return jax.device_put(np.zeros(x.shape, x.dtype), self.device)

    def seems_finite(self, x: Array) -> bool:
        """As in `Backend`. Few rows are checked on the host."""
        return bool(np.isfinite(np.asarray(x)).all()) if _is_few(x) else super().seems_finite(x)

    def to_host(self, x: Array) -> HostArray:
        """`x` as a NumPy array in its own memory, as JAX's view of its memory is read-only."""
        return np.array(x)

    def stack_to_host(self, scalars: Any) -> HostArray:
        """The arrays, fetched side by side and stacked on the host: JAX would compile a stack of hundreds of them."""
        return np.asarray(jax.device_get(list(scalars)))

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The product a b in this backend's precision, outside of `scope` too."""
        return jax.numpy.matmul(a, b, precision=PRECISIONS[self.tf32])

    def synchronize(self) -> None:
        """Wait for all arrays on the platform, as JAX has no barrier."""
        jax.block_until_ready(jax.live_arrays(self.device.platform))

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """The context in which new arrays go to this device, and products have this backend's precision.

        JAX's own default is TF32 on recent GPUs and bfloat16 on TPUs, so that full precision has to be asked for.
        """
        with super().scope(), jax.default_device(self.device), self._precision():
            yield

    def _precision(self) -> contextlib.AbstractContextManager[None]:
        """The context in which products have this backend's precision."""
        context: contextlib.AbstractContextManager[None] = jax.default_matmul_precision(PRECISIONS[self.tf32])
        return context

    def _precise(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function in this backend's precision, wherever it is called or traced."""

        @functools.wraps(function)
        def precise(*arguments: Any, **named: Any) -> Any:
            with self._precision():
                return function(*arguments, **named)

        return precise

    def out_of_memory(self, error: Exception) -> bool:
        """Whether `error` has XLA's status code for too little memory."""
        return isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
        )

    def compile(self, function: Function, key: Hashable = None) -> Function:
        """The function by jax.jit, which compiles it once for each set of shapes."""
        compiled: Function = _compiled(None if key is None else (self, key), self._precise(function))
        return compiled

    def rowwise(self, function: Callable[[Any, Any], Any], key: Hashable = None) -> Callable[..., Any]:
        """As in `Backend`, by one compiled function for each size of a block, to which rows are extended on the host.

        A user's own function, which has no key, is not compiled as a whole, as the next call could not use it again.
        """

        def call(constants: Any, X: Any, to_host: bool = False) -> Any:
            many, arrays = self._precise(function), jax.tree.leaves(X)
            if key is not None:
                shapes = [(array.shape, str(array.dtype)) for array in jax.tree.leaves(constants)]
                shapes += [(array.shape[1:], str(array.dtype)) for array in arrays]
                many = _compiled((self, "rowwise", key, *shapes), many)
            n = arrays[0].shape[0]
            if n > FEW_ROWS or n in BLOCKS:
                rows = many(constants, jax.tree.map(self.asarray, X))
                return jax.tree.map(self.to_host, rows) if to_host else rows
            host, blocks = jax.tree.map(np.asarray, X), list(_blocks(n))
            parts = [many(constants, jax.tree.map(functools.partial(self._block, block=b), host)) for b in blocks]
            rows = jax.tree.map(functools.partial(_joined, blocks=blocks), parts[0], *parts[1:])
            return rows if to_host else jax.device_put(rows, self.device)

        return call

    def _block(self, x: HostArray, block: tuple[int, int, int]) -> Array:
        """The rows of the block, extended to its size and brought to the device."""
        first, last, size = block
        return jax.device_put(_extended(x[first:last], size), self.device)

    def loop(self, step: Callable[..., tuple[Any, Array]], key: Hashable = None) -> Loop:
        """Many steps in one compiled loop, which yields after a second at most, or after one step, for Ctrl-C."""
        many_steps = functools.partial(_steps, self._precise(step), block=self.block)
        alone = _compiled(None, many_steps, "size") if key is None else None
        at_once = 1

        def run(
            carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
        ) -> Iterator[tuple[Any, Array]]:
            nonlocal at_once
            precision = jax.tree.leaves(carry)[0].dtype
            inputs = jax.tree.map(lambda x: x.astype(precision) if x.dtype.kind == "f" else x, inputs)
            kinds = tuple((jax.numpy.shape(x), str(x.dtype)) for x in jax.tree.leaves((carry, constants, inputs)))
            size = max([steps, *(x.shape[0] for x in jax.tree.leaves(inputs))])
            many = alone or _compiled((self, "loop", key, kinds, size), many_steps, "size")
            while first < steps:
                last = min(first + min(at_once, most or at_once), steps)
                started = time.perf_counter()
                carry, outputs = many(carry, constants, inputs, first, last, size=size)
                own = np.asarray(outputs)[first:last]
                at_once = at_once * 2 if time.perf_counter() - started < SECONDS_AT_ONCE else max(1, at_once // 2)
                first = last
                yield carry, own

        return run

    def outputs_to_host(self, outputs: Any) -> HostArray:
        """All outputs as one vector; the loop has brought them to the host."""
        return np.concatenate(outputs)

    def describe(self) -> dict[str, str]:
        """As in `Backend`, with float64. JAX's own setting for precision has no effect in `scope`."""
        return {
            "version": jax.__version__,
            "devices": ", ".join(f"{_device_name(known)} ({known.device_kind})" for known in jax.local_devices()),
            "tf32": str(self.tf32),
            "enable_x64": str(jax.config.jax_enable_x64),
        }

    def arithmetic(self) -> dict[str, str]:
        """The version, the precision, the device and the number of CPUs, for which XLA compiles."""
        description = self.describe()
        settings = {name: description[name] for name in ("version", "tf32")}
        return settings | {"device": self.device.device_kind, "CPUs": str(os.cpu_count())}


def _is_few(x: Any) -> bool:
    """Whether `x`, of the host or of JAX, has real numbers and so few rows that it may go by way of the host."""
    return (
        isinstance(x, np.ndarray | jax.Array)
        and not isinstance(x, jax.core.Tracer)
        and x.dtype.kind in "biuf"
        and (x.ndim == 0 or x.shape[0] <= FEW_ROWS)
    )


def _extended(x: HostArray, n: int) -> HostArray:
    """`x` with n rows: its own, then copies of its first."""
    if n == x.shape[0]:
        return x
    extended = np.empty((n, *x.shape[1:]), x.dtype)
    extended[: x.shape[0]], extended[x.shape[0] :] = x, x[:1]
    return extended


def _blocks(n: int) -> Iterator[tuple[int, int, int]]:
    """The blocks (first, last, size) of n rows: at most 16 small ones, or large ones of at most four times the rows."""
    first, (large, small) = 0, BLOCKS
    while first < n:
        size = large if n - first > large // 4 else small
        last = min(first + size, n)
        yield first, last, size
        first = last


def _joined(*parts: Array, blocks: list[tuple[int, int, int]]) -> HostArray:
    """The rows of all blocks on the host, without the rows that extended them."""
    return np.concatenate(
        [np.asarray(part)[: last - first] for part, (first, last, _) in zip(parts, blocks, strict=True)]
    )


def _compiled(key: Hashable, function: Callable[..., Any], static: str | None = None) -> Any:
    """The function, compiled now or earlier for an equal key. The cache drops those that were not used for longest."""
    if key is None:
        return jax.jit(function, static_argnames=static)
    with _LOCK:
        compiled = _COMPILED.pop(key, None) or jax.jit(function, static_argnames=static)
        _COMPILED[key] = compiled
        if len(_COMPILED) > MOST_COMPILED:
            del _COMPILED[next(iter(_COMPILED))]
    return compiled


def _steps(
    step: Callable[..., Any],
    carry: Any,
    constants: Any,
    inputs: Any,
    first: Array,
    last: Array,
    size: int,
    block: int,
) -> Any:
    """The carry after the steps from `first` to before `last`, and a vector of `size` with their outputs.

    As many as possible are made in blocks, whose length XLA knows.
    """

    def one(number: Array, so_far: Any) -> Any:
        carry, outputs = so_far
        carry, output = step(carry, constants, jax.tree.map(lambda x: x[number], inputs))
        return carry, outputs.at[number].set(output)

    def some(start: Array, so_far: Any) -> Any:
        carry, outputs = so_far
        rows = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, block), inputs)
        carry, new = jax.lax.scan(lambda carry, row: step(carry, constants, row), carry, rows, block)
        return carry, jax.lax.dynamic_update_slice_in_dim(outputs, new, start, 0)

    _, output = jax.eval_shape(step, carry, constants, jax.tree.map(lambda x: x[0], inputs))
    so_far = carry, jax.numpy.zeros((size, *output.shape), output.dtype)
    if 1 < block <= min([size, *(x.shape[0] for x in jax.tree.leaves(inputs))]):
        blocks = (last - first) // block
        so_far = jax.lax.fori_loop(0, blocks, lambda k, so_far: some(first + k * block, so_far), so_far)
        first += blocks * block
    return jax.lax.fori_loop(first, last, one, so_far)


def _device_name(device: Any) -> str:
    """The name of a device in selectors."""
    return f"{device.platform}:{device.id}"


BACKEND = JaxBackend
