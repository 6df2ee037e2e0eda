"""PyTorch, on any of its devices."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from dlx.backend import Array, Backend, Function, HostArray, Loop, Namespace, host_array, library_of, namespace_of

from . import importing, no_device, unavailable
from ._blocks import in_blocks

with importing("torch", "torch", "Run: pip install 'dlx-nn[torch]'."):
    import torch

    from . import _torch_graph, _torch_recorder
    from ._torch_precision import precision


BLOCK = 1 << 17  # elements: fewer do not occupy PyTorch's threads


def _bound(limited: Callable[..., Array], exact: Callable[..., Array]) -> Callable[..., Array]:
    """The function `limited` for a bound that is a number, and `exact` for a bound that is an array."""

    def function(x: Array, bound: Array | float) -> Array:
        return exact(x, bound) if torch.is_tensor(bound) else limited(x, bound)

    return function


def _take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    """The rows with these numbers, none of which is negative."""
    return torch.index_select(x, 0 if axis is None else axis, indices)


def _namespace() -> Namespace:
    """The namespace of array_api_compat, whose functions would copy numbers from the host to a device in every step.

    A CUDA graph cannot hold such copies, and without it each of them waits.
    """
    compat = namespace_of(torch.empty(0))
    namespace = types.ModuleType(compat.__name__)
    own = {"maximum": _bound(torch.clamp_min, compat.maximum), "minimum": _bound(torch.clamp_max, compat.minimum)}
    vars(namespace).update(vars(compat) | own | {"take": _take})
    return namespace


ON_DEVICES = _namespace()


class TorchBackend(Backend):
    """PyTorch tensors on one device, without gradients."""

    name = "torch"
    in_place = True
    float64_hint = "MPS has no float64: pass dtype='float32', or use 'torch:cpu'."
    tf32_hint = "choose backend='torch:cuda'"

    def __init__(self, xp: Namespace, device: Any = None, name: str | None = None) -> None:
        super().__init__(xp if device is None or device.type == "cpu" else ON_DEVICES, device, name)
        self.takes_tf32 = device is not None and device.type == "cuda"

    @classmethod
    def open(cls, device: str | None) -> Self:
        """The backend for "torch", which is PyTorch's default device, "torch:cpu", "torch:cuda:1", "torch:mps" ..."""
        try:
            wanted = torch.device(device) if device else torch.get_default_device()
        except RuntimeError:
            no_device("torch", str(device), _devices())
        if wanted.index:  # PyTorch takes "cpu:3" for the CPU; for index 0 the product below gives the reason
            known = _devices()
            if str(wanted) not in known and f"{wanted.type}:0" in known:
                no_device("torch", str(device), known)
        try:  # a matrix product must run on the device
            one = torch.ones((1, 1), device=wanted)
            one @ one
        except (RuntimeError, AssertionError, NotImplementedError) as reason:
            unavailable(f"torch:{wanted}", f"PyTorch {torch.__version__}", reason)
        return cls(namespace_of(one), one.device)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """`x`, detached from any gradient. It may share memory with an array of the host, which dlx never writes."""
        if library_of(x) == self.name:
            if x.layout != torch.strided:
                raise TypeError(f"`x` must be dense; got a tensor of layout {x.layout}. Use its method .to_dense().")
            return super().asarray(x.detach(), dtype)
        host = host_array(x)
        host = host.astype(np.float64) if host.dtype == np.longdouble else host  # PyTorch has no longdouble
        return super().asarray(_writable(host), dtype)

    def dtype(self, name: str) -> Any:
        """As in `Backend`, but for MPS, which has no float64 although its list of dtypes holds it."""
        if name == "float64" and self.device.type == "mps":
            raise TypeError(f"`dtype` must be one that {self.selector} computes with; got {name}. {self.float64_hint}")
        return super().dtype(name)

    def copy(self, x: Array) -> Array:
        """A copy of `x` in its own memory."""
        return x.detach().clone()

    def to_host(self, x: Array) -> HostArray:
        """`x` as a NumPy array, which shares memory with a tensor on the CPU. NumPy has float32 for bfloat16."""
        tensor = x.detach().cpu()
        host: HostArray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return host

    def transpose(self, x: Array) -> Array:
        """A view by an attribute, which is faster than a function."""
        return x.mT

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The product a b, written directly to `out`."""
        return torch.matmul(a, b, out=out)

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """The sum over rows, written directly to `out`."""
        return torch.sum(x, dim=-2, keepdim=True, out=out)

    def fuse(self, function: Function, name: str) -> Function:
        """The formula, on the CPU over blocks of long vectors that stay in cache.

        An optimizer updates all parameters as one long vector.
        """

        def in_cache(first: Array, *rest: Any) -> Any:
            if len(first.shape) != 1 or first.shape[0] < 2 * BLOCK:
                return function(first, *rest)
            arguments = first, *rest
            sliced = [torch.is_tensor(x) and x.ndim == 1 for x in arguments]
            return in_blocks(function, arguments, sliced, BLOCK, partial(_empty, first))

        fused: Any = in_cache
        return function if self.device.type != "cpu" else fused

    def recorder(self) -> _torch_recorder.Recorder | None:
        """What records a step so that it can be replayed; None where nothing does."""
        return _torch_recorder.CudaRecorder(self.device) if self.device.type == "cuda" else None

    def loop(self, step: Callable[..., tuple[Any, Array]], key: Hashable = None) -> Loop:
        """As in `Backend`; on CUDA by a graph, which is one launch for each step."""
        recorder, plain = self.recorder(), super().loop(step, key)
        return plain if recorder is None else _torch_graph.loop(step, plain, recorder, trusted=key is not None)

    def outputs_to_host(self, outputs: Sequence[Array]) -> HostArray:
        """As in `Backend`; outputs of recorded steps have one axis more."""
        return super().outputs_to_host(outputs) if self.recorder() is None else self.to_host(torch.cat(list(outputs)))

    def out_of_memory(self, error: Exception) -> bool:
        """Whether `error` is PyTorch's class for devices without memory, or has its text for the CPU."""
        on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
        return on_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)

    def release_memory(self) -> None:
        """Empty the cache of CUDA or MPS, and with it the memory of graphs that are gone. The CPU has none."""
        if self.device.type in ("cuda", "mps"):
            _torch_recorder.release_pools()
            getattr(torch, self.device.type).empty_cache()

    def synchronize(self) -> None:
        """Wait for the current stream of the device. The CPU has nothing to wait for."""
        if self.device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(self.device)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """The context without a gradient tape, as dlx writes in place, and in this backend's precision.

        Autocast is off, and PyTorch's switch for the precision of products is as `tf32` says.
        """
        known = torch.amp.is_autocast_available(self.device.type)
        autocast = torch.autocast(self.device.type, enabled=False) if known else contextlib.nullcontext()
        with super().scope(), torch.no_grad(), autocast, precision(self.device.type, self.tf32):
            yield

    def describe(self) -> dict[str, str]:
        """As in `Backend`, with threads. PyTorch's own switches for precision have no effect in `scope`."""
        return {
            "version": str(torch.__version__),
            "devices": ", ".join(_devices()),
            "threads": str(torch.get_num_threads()),
            "tf32": str(self.tf32),
        }

    def arithmetic(self) -> dict[str, str]:
        """The version, the precision and the device; for the CPU the threads that split a sum, and their kernels."""
        description = self.describe()
        settings = {name: description[name] for name in ("version", "tf32")}
        if self.device.type == "cpu":
            kernels = torch.backends.cpu.get_cpu_capability()
            return settings | {"threads": description["threads"], "kernels": kernels}
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return settings | {"device": name}


def _empty(whole: Array, piece: Array) -> Array:
    """An array with the shape of `whole` and the dtype of `piece`."""
    return torch.empty(whole.shape, dtype=piece.dtype)


def _devices() -> list[str]:
    """The names of all devices in selectors."""
    if not torch.accelerator.is_available():
        return ["cpu:0"]
    kind: Any = torch.accelerator.current_accelerator()
    return ["cpu:0", *(f"{kind.type}:{index}" for index in range(torch.accelerator.device_count()))]


def _writable(x: HostArray) -> HostArray:
    """A view without the read-only flag, of which PyTorch warns. dlx does not write arrays that a user passes."""
    if x.flags.writeable:
        return x
    interface = {**x.__array_interface__, "data": (x.__array_interface__["data"][0], False)}
    return np.asarray(types.SimpleNamespace(__array_interface__=interface, owner=x))  # the view keeps `x` alive


BACKEND = TorchBackend
