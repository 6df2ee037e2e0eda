"""JAX, on any of its devices."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function, Loop

from . import importing, no_device, unavailable

with importing("jax", "jax", "Run: pip install 'dlx-nn[jax]'."):
    import jax


SECONDS_AT_ONCE = 0.5  # a call copies its carry, which Ctrl-C must find whole; so not much less
MOST_LOOPS = 16  # each holds tens of megabytes of machine code and its compiler's leftovers
_LOCK = threading.Lock()
_LOOPS: dict[Hashable, Callable[..., Any]] = {}  # compiled for one fit, ready for the next of the same kind


class JaxBackend(Backend):
    """JAX arrays on one device."""

    name = "jax"
    float64_hint = (
        "Switch it on with jax.config.update('jax_enable_x64', True) before the first array, or pass dtype='float32'."
    )

    @classmethod
    def open(cls, device: str | None) -> Self:
        """Of "jax" (JAX's first device), "jax:cpu", "jax:gpu", "jax:gpu:1", "jax:tpu" ..."""
        platform, colon, index = (device or "").partition(":")
        if device and (not platform or platform.isdecimal() or (colon and not index)):
            no_device("jax", device, [_device_name(known) for known in jax.local_devices()])
        try:
            devices = jax.local_devices(backend=platform or None)
        except RuntimeError as reason:
            unavailable(f"jax:{device}" if device else "jax", f"JAX {jax.__version__}", reason)
        for known in devices:
            if index in ("", str(known.id)):
                return cls(jax.numpy, known)
        no_device("jax", str(device), [_device_name(known) for known in devices])

    @classmethod
    def of(cls, array: Array) -> Self:
        """Of a single-device array; a sharded one has no one device."""
        devices = array.devices()
        if len(devices) != 1:
            raise ValueError(
                f"`array` must lie on one device; got one that is sharded over {len(devices)}. "
                "Gather it with jax.device_put(array, jax.devices()[0])."
            )
        return cls(jax.numpy, next(iter(devices)))

    @property
    def device_name(self) -> str:
        """As in a selector: "gpu:1"."""
        return _device_name(self.device)

    def to_host(self, x: Array) -> np.ndarray[Any, Any]:
        """A NumPy array, in the caller's own memory: JAX's own view is read-only."""
        return np.array(x)

    def stack_to_host(self, scalars: Any) -> np.ndarray[Any, Any]:
        """Fetched side by side: a stack of hundreds of operands would be compiled first."""
        return np.asarray(jax.device_get(list(scalars)))

    def synchronize(self) -> None:
        """Wait for every array on the platform: JAX has no barrier."""
        jax.block_until_ready(jax.live_arrays(self.device.platform))

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """New arrays go to this device."""
        with super().scope(), jax.default_device(self.device):
            yield

    def out_of_memory(self, error: Exception) -> bool:
        """XLA says so by its status code."""
        return isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
        )

    def compile(self, function: Function) -> Function:
        """jax.jit: traced once for each set of shapes."""
        compiled: Function = jax.jit(function)
        return compiled

    def loop(self, step: Callable[..., tuple[Any, Array]], key: Hashable = None) -> Loop:
        """Many steps in one compiled loop; it comes back after a second at most, or a step, for Ctrl-C."""
        alone = _compiled(step) if key is None else None
        at_once = 1

        def run(
            carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
        ) -> Iterator[tuple[Any, Array]]:
            nonlocal at_once
            precision = jax.tree.leaves(carry)[0].dtype
            inputs = jax.tree.map(lambda x: x.astype(precision) if x.dtype.kind == "f" else x, inputs)
            kinds = tuple((jax.numpy.shape(x), str(x.dtype)) for x in jax.tree.leaves((carry, constants, inputs)))
            many = alone or _shared((type(self), self.selector, key, kinds, steps), step)
            while first < steps:
                last = min(first + min(at_once, most or at_once), steps)
                started = time.perf_counter()
                carry, outputs = many(carry, constants, inputs, first, last, steps=steps)
                found = np.asarray(outputs)[first:last]
                at_once = at_once * 2 if time.perf_counter() - started < SECONDS_AT_ONCE else max(1, at_once // 2)
                first = last
                yield carry, found

        return run

    def outputs_to_host(self, outputs: Any) -> np.ndarray[Any, Any]:
        """Vectors of the host already."""
        return np.concatenate(outputs)

    def describe(self) -> dict[str, str]:
        """Its float32 products are TF32 on recent GPUs unless the precision says otherwise."""
        return {
            "version": jax.__version__,
            "devices": ", ".join(f"{_device_name(known)} ({known.device_kind})" for known in jax.local_devices()),
            "default_matmul_precision": jax.config.jax_default_matmul_precision or "default",
            "enable_x64": str(jax.config.jax_enable_x64),
        }

    def arithmetic(self) -> dict[str, str]:
        """XLA compiles for the device, on the host for its threads."""
        facts = self.describe()
        found = {name: facts[name] for name in ("version", "default_matmul_precision")}
        return found | {"device": self.device.device_kind, "CPUs": str(os.cpu_count())}


def _compiled(step: Callable[..., Any]) -> Callable[..., Any]:
    many: Callable[..., Any] = jax.jit(functools.partial(_steps, step), static_argnames="steps")
    return many


def _shared(known: Hashable, step: Callable[..., Any]) -> Callable[..., Any]:
    """The loop that was compiled for an equal key and equal shapes, or a new one; the oldest are let go."""
    with _LOCK:
        _LOOPS[known] = many = _LOOPS.pop(known, None) or _compiled(step)
        if len(_LOOPS) > MOST_LOOPS:
            del _LOOPS[next(iter(_LOOPS))]
    return many


def _steps(
    step: Callable[..., Any], carry: Any, constants: Any, inputs: Any, first: Array, last: Array, steps: int
) -> Any:
    """The steps from `first` to before `last`, and a vector with room for the outputs of all."""

    def at(number: Array) -> Any:
        return jax.tree.map(lambda x: x[number], inputs)

    def body(number: Array, so_far: Any) -> Any:
        carry, outputs = so_far
        carry, output = step(carry, constants, at(number))
        return carry, outputs.at[number].set(output)

    _, output = jax.eval_shape(step, carry, constants, at(0))
    return jax.lax.fori_loop(first, last, body, (carry, jax.numpy.zeros(steps, output.dtype)))


def _device_name(device: Any) -> str:
    return f"{device.platform}:{device.id}"


BACKEND = JaxBackend
