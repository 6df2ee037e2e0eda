"""array-api-strict, for tests: it has the standard and nothing more."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, HostArray

from . import _numpy, importing, no_device

with importing("strict", "array_api_strict", "Run: pip install array-api-strict."):
    import array_api_strict as xp

HOST_DEVICE = "CPU_DEVICE"


class StrictBackend(Backend):
    """Arrays of array-api-strict on one of its simulated devices."""

    name = "strict"

    @classmethod
    def open(cls, device: str | None) -> Self:
        """The backend for the selectors "strict", "strict:device1" and those of the other devices."""
        devices = {_device_name(known): known for known in xp.__array_namespace_info__().devices()}
        wanted = device or HOST_DEVICE
        if wanted not in devices:
            no_device("strict", wanted, sorted(devices))
        return cls(xp, devices[wanted])

    @property
    def device_name(self) -> str:
        """The device as in a selector: "device1"."""
        return _device_name(self.device)

    def to_host(self, x: Array) -> HostArray:
        """`x` as a NumPy array, by way of the CPU device, the only one that NumPy may read."""
        return np.asarray(x.to_device(xp.Device(HOST_DEVICE)))

    def describe(self) -> dict[str, str]:
        """As in `Backend`, with the devices as in selectors."""
        devices = map(_device_name, xp.__array_namespace_info__().devices())
        return super().describe() | {"devices": ", ".join(devices)}

    def arithmetic(self) -> dict[str, str]:
        """As in `Backend`, with NumPy's BLAS, which computes the products."""
        return super().arithmetic() | _numpy.blas()


def _device_name(device: Any) -> str:
    """The name of a device in selectors."""
    return str(device).split("'")[1]  # "array_api_strict.Device('device1')"


BACKEND = StrictBackend
