"""PyTorch, on any of its devices."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from functools import partial
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function, host_array, library_of, namespace_of

from . import importing, no_device, unavailable
from ._blocks import in_blocks

with importing("torch", "torch", "Run: pip install 'dlx-nn[torch]'."):
    import torch


BLOCK = 1 << 17  # elements: fewer do not occupy PyTorch's threads


class TorchBackend(Backend):
    """PyTorch tensors on one device, without gradients."""

    name = "torch"
    in_place = True
    float64_hint = "MPS has no float64: pass dtype='float32', or use 'torch:cpu'."

    @classmethod
    def open(cls, device: str | None) -> Self:
        """Of "torch" (PyTorch's default device), "torch:cpu", "torch:cuda", "torch:cuda:1", "torch:mps"."""
        try:
            wanted = torch.device(device) if device else torch.get_default_device()
        except RuntimeError:
            no_device("torch", str(device), _devices())
        if wanted.index:  # PyTorch takes "cpu:3" for the CPU; for index 0 the product below says what is wrong
            known = _devices()
            if str(wanted) not in known and f"{wanted.type}:0" in known:
                no_device("torch", str(device), known)
        try:  # a matrix product must really run there
            one = torch.ones((1, 1), device=wanted)
            one @ one
        except (RuntimeError, AssertionError, NotImplementedError) as reason:
            unavailable(f"torch:{wanted}", f"PyTorch {torch.__version__}", reason)
        return cls(namespace_of(one), one.device)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Detached from any gradient; a host array may share memory, and dlx never writes it."""
        if library_of(x) == self.name:
            if x.layout != torch.strided:
                raise TypeError(f"`x` must be dense; got a tensor of layout {x.layout}. Use its method .to_dense().")
            return super().asarray(x.detach(), dtype)
        host = host_array(x)
        host = host.astype(np.float64) if host.dtype == np.longdouble else host  # PyTorch has none that is longer
        return super().asarray(_writable(host), dtype)

    def dtype(self, name: str) -> Any:
        """As everywhere, but the list that this reads holds float64 for MPS too, which has none."""
        if name == "float64" and self.device.type == "mps":
            raise TypeError(f"`dtype` must be one that {self.selector} computes with; got {name}. {self.float64_hint}")
        return super().dtype(name)

    def copy(self, x: Array) -> Array:
        """The same values in memory of their own."""
        return x.detach().clone()

    def to_host(self, x: Array) -> np.ndarray[Any, Any]:
        """A NumPy array, which shares memory with a tensor on the CPU; NumPy has no bfloat16, so float32."""
        host = x.detach().cpu()
        found: np.ndarray[Any, Any] = (host.float() if host.dtype == torch.bfloat16 else host).numpy()
        return found

    def transpose(self, x: Array) -> Array:
        """A view, without the cost of a function's call."""
        return x.mT

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """PyTorch's own, straight into `out`."""
        return torch.matmul(a, b, out=out)

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """PyTorch's own, straight into `out`."""
        return torch.sum(x, dim=-2, keepdim=True, out=out)

    def fuse(self, function: Function, name: str) -> Function:
        """On the CPU, over blocks of a long vector that stay in its cache: an optimizer's update of all parameters."""

        def in_cache(first: Array, *rest: Any) -> Any:
            if len(first.shape) != 1 or first.shape[0] < 2 * BLOCK:
                return function(first, *rest)
            arguments = first, *rest
            return in_blocks(function, arguments, list(map(torch.is_tensor, arguments)), BLOCK, partial(_empty, first))

        fused: Any = in_cache
        return function if self.device.type != "cpu" else fused

    def out_of_memory(self, error: Exception) -> bool:
        """PyTorch has a class for devices, and a sentence for the CPU."""
        on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
        return on_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)

    def release_memory(self) -> None:
        """Empty the cache of CUDA or MPS; the CPU has none."""
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).empty_cache()

    def synchronize(self) -> None:
        """Wait for the device's current stream; the CPU has nothing to wait for."""
        if self.device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(self.device)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """No gradient tape, for dlx writes parameters in place; no autocast, which would change the precision."""
        known = torch.amp.is_autocast_available(self.device.type)
        autocast = torch.autocast(self.device.type, enabled=False) if known else contextlib.nullcontext()
        with super().scope(), torch.no_grad(), autocast:
            yield

    def describe(self) -> dict[str, str]:
        """Its float32 products may be TF32 on CUDA."""
        return {
            "version": str(torch.__version__),
            "devices": ", ".join(_devices()),
            "threads": str(torch.get_num_threads()),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cuda.matmul.allow_tf32": str(torch.backends.cuda.matmul.allow_tf32),
            "cudnn.allow_tf32": str(torch.backends.cudnn.allow_tf32),
        }

    def arithmetic(self) -> dict[str, str]:
        """A sum on the CPU is split among threads, by kernels for that processor."""
        facts = self.describe()
        found = {name: facts[name] for name in ("version", "float32_matmul_precision")}
        if self.device.type == "cpu":
            return found | {"threads": facts["threads"], "kernels": torch.backends.cpu.get_cpu_capability()}
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return found | {"device": name}


def _empty(whole: Array, piece: Array) -> Array:
    return torch.empty(whole.shape, dtype=piece.dtype)


def _devices() -> list[str]:
    if not torch.accelerator.is_available():
        return ["cpu:0"]
    kind: Any = torch.accelerator.current_accelerator()
    return ["cpu:0", *(f"{kind.type}:{index}" for index in range(torch.accelerator.device_count()))]


def _writable(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A view without the read-only mark, which PyTorch warns of; dlx writes into no array that it is given."""
    if x.flags.writeable:
        return x
    interface = {**x.__array_interface__, "data": (x.__array_interface__["data"][0], False)}
    return np.asarray(types.SimpleNamespace(__array_interface__=interface, owner=x))  # it keeps the owner alive


BACKEND = TorchBackend
