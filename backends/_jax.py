"""JAX, on any of its devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function

from . import importing, no_device, unavailable

with importing("jax", "jax", "Run: pip install 'dlx-nn[jax]'."):
    import jax


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

    def describe(self) -> dict[str, str]:
        """Its float32 products are TF32 on recent GPUs unless the precision says otherwise."""
        return {
            "version": jax.__version__,
            "devices": ", ".join(f"{_device_name(known)} ({known.device_kind})" for known in jax.local_devices()),
            "default_matmul_precision": jax.config.jax_default_matmul_precision or "default",
            "enable_x64": str(jax.config.jax_enable_x64),
        }


def _device_name(device: Any) -> str:
    return f"{device.platform}:{device.id}"


BACKEND = JaxBackend
