"""One array library on one device: how to choose it, and how arrays get there and back.

All mathematics of dlx uses the Python Array API standard (https://data-apis.org/array-api/). A `Backend` does what
the standard leaves to each library: devices, transfers from and to the host, compilation. NumPy is the only array
library that is imported here; ``get_backend("torch")`` imports ``dlx.backends._torch`` by name.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.metadata
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Self, TypeVar

import array_api_compat
import numpy as np

from dlx.checks import BackendNotInstalled as BackendNotInstalled
from dlx.checks import BackendUnavailable as BackendUnavailable
from dlx.checks import checked_tf32, reject
from dlx.checks import warn as warn
from dlx.host import HostArray as HostArray
from dlx.host import as_numpy, row_number_dtype, staged, way_to_host
from dlx.nesting import InPlace as InPlace
from dlx.nesting import each_of as each_of
from dlx.nesting import one_by_one

Array = Any  # no static type describes the arrays of every library
Namespace = Any
Function = TypeVar("Function", bound=Callable[..., Any])
Loop = Callable[..., Iterator[tuple[Any, Array]]]
Staging = Callable[[Callable[[HostArray, slice], Any], tuple[int, ...], str], Callable[[], Array]]  # Backend.staging
Fuse = Callable[[Any, str], Any]  # Backend.fuse; as an argument it loses the type variable `Function`

HOST = "numpy"  # the library of the host; every backend takes its arrays
KNOWN = ("cupy", "jax", HOST, "strict", "torch")
ENTRY_POINTS = "dlx.backends"


def unfused(function: Function, name: str) -> Function:
    """The function itself: what to pass as `fuse` where nothing is to be fused."""
    return function


class Backend:
    """An array library on one device.

    This class serves every library that follows the standard. The files in ``backends/`` override what their library
    does differently.

    Parameters
    ----------
    xp : module
        A namespace of the Array API standard.
    device : object, default None
        The library's own device object; None is its default device.
    name : str, default None
        The library's name in selectors; None takes the name of the namespace.

    Attributes
    ----------
    tf32 : bool
        Whether products of float32 arrays may be TF32, a format of CUDA devices with 10 of float32's 23 bits after the
        point; see `with_tf32`. False is full precision, whatever the library's own settings say.
    """

    name: str = ""
    tf32: bool = False
    takes_tf32: bool = False  # whether it computes on a CUDA device, where there is the choice
    float64_hint: str = "Use float32."
    tf32_hint: str = "choose backend='cupy', 'torch:cuda' or 'jax:gpu'"
    in_place: bool = False  # whether slices and reshapes of an array are writable views of its memory
    multiplies_sparse: bool = False  # whether a matrix of SciPy's may be the left factor of a product
    elements_at_once: int = 1 << 20  # of the widest layer, in a block of rows to predict
    fewest_rows: int = 1 << 10  # of such a block, for efficient matrix products
    most_elements: int = 1 << 22  # of the widest layer at most; for this a block may have fewer rows

    def __init__(self, xp: Namespace, device: Any = None, name: str | None = None) -> None:
        self.xp = xp
        self.device = device
        self.name = name or type(self).name or _short(xp.__name__)

    @classmethod
    def open(cls, device: str | None) -> Self:
        """The backend for the selector ``name:device``; raises if it cannot compute here."""
        raise NotImplementedError(f"{cls.__name__} is opened from a module or an array, not from a selector")

    @classmethod
    def of(cls, array: Array) -> Self:
        """The backend on which `array` lies."""
        return cls(namespace_of(array), array_api_compat.device(array), name=library_of(array))

    @property
    def device_name(self) -> str:
        """The device as it is written in a selector; empty for the default device."""
        return "" if self.device is None else str(self.device)

    @property
    def selector(self) -> str:
        """The text that `get_backend` turns into this backend again: ``name`` or ``name:device``."""
        return f"{self.name}:{self.device_name}" if self.device_name else self.name

    def with_tf32(self, tf32: bool) -> Self:
        """This backend, with TF32 or without it. Raises for True where there is no CUDA device.

        TF32 rounds the factors of a float32 product to 11 significant bits, and adds up in float32: a relative error of
        about 1e-3 in place of 1e-6. It takes effect on GPUs since NVIDIA's Ampere (2020).
        """
        other = copy.copy(self)
        other.tf32 = checked_tf32(tf32, self.selector, self.takes_tf32, self.tf32_hint)
        return other

    def __repr__(self) -> str:
        return f"<dlx backend {self.selector}{' in TF32' if self.tf32 else ''}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backend) and (self.selector, self.tf32) == (other.selector, other.tf32)

    def __hash__(self) -> int:
        return hash((self.selector, self.tf32))

    def __reduce__(self) -> tuple[Any, ...]:
        if type(self) is Backend:  # its library has no name that get_backend knows
            return _reopen, (self.xp.__name__, self.device, self.name)
        return get_backend, ((self.selector, True) if self.tf32 else (self.selector,))

    def dtype(self, name: str) -> Any:
        """The library's dtype with this name; raises TypeError if it has none."""
        available = self.xp.__array_namespace_info__().dtypes(device=self.device)
        if name not in available:
            remedy = self.float64_hint if name == "float64" else f"Use one of {', '.join(sorted(available))}."
            reject("dtype", f"be one that {self.selector} computes with", name, remedy, TypeError)
        return getattr(self.xp, name)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """`x`, an array of the host or of this library, on this device. It may share memory with `x`.

        This is the only way in. Without `dtype` the library chooses one, and may narrow float64; a `dtype` that is
        named is never narrowed.
        """
        own = x if library_of(x) == self.name else host_array(x)
        return self.xp.asarray(own, dtype=None if dtype is None else self.dtype(dtype), device=self.device)

    def holds(self, x: Array) -> bool:
        """Whether `x`, an array of this library, lies on this device as it is computed with. False is no promise."""
        return self.device is None

    def copy(self, x: Array) -> Array:
        """A copy of `x` in its own memory."""
        return self.xp.asarray(x, copy=True)

    def padded(self, n: int) -> int | None:
        """The number of rows to which n rows are extended for a compiled function; None if they stay n.

        A library that compiles once for each shape returns few different sizes, so that it compiles seldom.
        """
        return None

    def take(self, x: Array, numbers: HostArray) -> Array:
        """A copy of the rows with these numbers, which are on the host."""
        return self.xp.take(x, self.row_numbers(numbers, x.shape[0]), axis=0)

    def row_numbers(self, numbers: HostArray, n: int) -> Array:
        """Row numbers below n on the device, in int32 if that holds n, else in int64."""
        return self.asarray(numbers, row_number_dtype(n))

    def staging(self) -> Staging:
        """A function ``stage(fill, shape, dtype)`` for bringing arrays from the host to the device, one after another.

        It returns a function that brings the array. ``fill(out, rows)`` writes these rows of it to `out`, on the host.
        A library that copies while it computes may begin to fill the array at once, in threads; then it holds two
        arrays of each shape, which take turns. So the next array may be asked for when one has been brought.
        """
        return lambda *array: staged(self.asarray, *array)

    def zeros_like(self, x: Array) -> Array:
        """Zeros with the shape and dtype of `x`."""
        return self.xp.zeros_like(x)

    def all_finite(self, x: Array) -> bool:
        """Whether no value is nan or infinite. Waits for the device."""
        return self.seems_finite(x) or bool(self.xp.all(self.xp.isfinite(x)))

    def seems_finite(self, x: Array) -> bool:
        """`all_finite` by the sum of all values, in one pass. False also where the sum of finite values overflows."""
        return bool(self.xp.isfinite(self.xp.sum(x)))

    def to_host(self, x: Array) -> HostArray:
        """`x` as a NumPy array, which may share its memory. Waits for the device. This is the only way out."""
        return as_numpy(x, "x")

    def stack_to_host(self, scalars: Sequence[Array]) -> HostArray:
        """Arrays of equal shape, stacked into one NumPy array by one transfer."""
        with self.scope():
            return self.to_host(self.xp.stack(list(scalars)))

    def transpose(self, x: Array) -> Array:
        """`x` with its last two axes exchanged: a view, in libraries that have views."""
        return self.xp.matrix_transpose(x)

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The matrix product a b. Libraries that write arrays in place write it to `out`."""
        return a @ b

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """The sum over rows, Σ_i x_i: from (..., n, K) to (..., 1, K). `out` is as in `product`."""
        return self.xp.sum(x, axis=-2, keepdims=True)

    def sum_squares(self, x: Array) -> Array:
        """The sum of squares over the last two axes, Σ x²: from (..., n, K) to (...,)."""
        return self.xp.sum(x * x, axis=(-2, -1))

    def fork(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the work of `beside`, and products and sums with an `out`, may be done beside the rest.

        At its end they are done.
        """
        return contextlib.nullcontext()

    def beside(self, *read: Array) -> contextlib.AbstractContextManager[Any]:
        """The context of work that reads these arrays, and whose results nothing needs before the end of `fork`."""
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which everything is computed: it sets the current device and turns gradient tapes off.

        Here it silences NumPy's warnings. Overflow raises `DivergenceError` instead, as on libraries that never warn.
        """
        return np.errstate(all="ignore")

    def compile(self, function: Function, key: Hashable = None) -> Function:
        """The same pure function, compiled if the library can.

        Functions with equal keys are equal, so that one compiled function serves all of them. None makes no promise.
        """
        return function

    def placed(self, x: Any) -> Array:
        """A block of rows, from the host or of this library, in the place where `rowwise` computes."""
        return self.asarray(x)

    def rowwise(self, function: Callable[[Any, Any], Any], key: Hashable = None) -> Callable[..., Any]:
        """A pure ``function(constants, X)`` that gives one row for each row of `X`, ready for blocks of any size.

        Call the result as ``call(constants, X, to_host=False)``. `X` may lie on the host; with `to_host` the result is
        brought there. Both may be tuples of arrays with equal numbers of rows. A library that compiles once for each
        shape may add rows, and drop them from the result. `key` is as in `compile`.
        """

        def call(constants: Any, X: Any, to_host: bool = False) -> Any:
            rows = function(constants, each_of(self.placed, X))
            return each_of(self.to_host, rows) if to_host else rows

        return call

    def fuse(self, function: Function, name: str) -> Function:
        """The same elementwise formula as a single loop or kernel with this name, if the library can.

        Its arguments are arrays that broadcast together, followed by numbers. It may write the arrays in place.
        """
        return function

    def loop(self, step: Callable[..., tuple[Any, Array]], key: Hashable = None) -> Loop:
        """A loop that calls ``step(carry, constants, inputs) -> (carry, output)`` for each row of `inputs`.

        The result, ``run(carry, constants, inputs, steps, first=0, most=None)``, begins with row `first` and ends
        before row `steps`. It yields (carry, outputs) whenever the caller may stop it. Here that is after every step,
        with its single output. A library that compiles the loop yields after many steps, at most `most` of them, with
        the vector of their outputs.

        `inputs` are nested tuples of three kinds. None stays None in every step. Of a vector on the host a step gets
        one number, of a matrix on the host or on the device one row, which lies on the device. They may have more rows
        than `steps`. A step gets tuples of the same types, so that it may read their parts by name. `key` is as in
        `compile`. A library that captures the step gives it numbers as arrays of shape (), and may write over the
        arrays of the first carry. A step that writes in place may be an `InPlace`, which can be recorded. The result
        may have the attribute `path`: how its steps run, in words, and whether a function of the user's own slows them.
        """
        return one_by_one(self.compile(step), self.asarray)

    def outputs_to_host(self, outputs: Sequence[Array]) -> HostArray:
        """All outputs that a `loop` has yielded, as one NumPy vector, in one transfer."""
        return self.stack_to_host(outputs)

    def expecting(self, elements: float, updates: int = 0) -> Self:
        """This backend, prepared for a training: for fused formulas of this many elements in all, and so many updates.

        It may compile them to save time.
        """
        return self

    def out_of_memory(self, error: Exception) -> bool:
        """Whether `error` means that the device or the host has too little memory."""
        return isinstance(error, MemoryError)

    def release_memory(self) -> None:
        """Return the memory that the library keeps for reuse to the device."""

    def describe(self) -> dict[str, str]:
        """What ``python -m dlx`` prints: the version, the devices, and settings that affect precision and speed."""
        root = importlib.import_module(self.xp.__name__.removeprefix("array_api_compat.").partition(".")[0])
        devices = ", ".join(map(str, self.xp.__array_namespace_info__().devices()))
        return {"version": getattr(root, "__version__", "unknown"), "devices": devices}

    def arithmetic(self) -> dict[str, str]:
        """What the last bits of a result depend on beside its inputs: library version, kernels, threads, device."""
        return {"version": self.describe()["version"]}


def namespace_of(array: Array) -> Namespace:
    """The namespace of the Array API standard that `array` belongs to."""
    return array_api_compat.array_namespace(array)


def library_of(x: Any) -> str | None:
    """The name of the array library of `x`; None for lists, data frames and scalars."""
    if isinstance(x, np.ndarray | np.generic):
        return HOST
    return _short(namespace_of(x).__name__) if array_api_compat.is_array_api_obj(x) else None


def host_array(x: Any, name: str = "x") -> HostArray:
    """`x` as an aligned NumPy array with native byte order and no negative strides, copied only if necessary."""
    if library_of(x) not in (None, HOST):
        remedy = f"Bring it to the host with {way_to_host(x, name)}."
        reject(name, "lie on the host", f"an array of {library_of(x)}", remedy, TypeError)
    if isinstance(x, np.ma.MaskedArray):
        remedy = "Fill or drop its masked values first."
        if name.startswith("y"):
            remedy += f" Missing targets are nan: {name}.filled(numpy.nan), with missing='mask'."
        reject(name, "not be masked", "a masked array", remedy, TypeError)
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        reject(name, "be dense", type(x).__name__, "Convert it with its method .toarray().", TypeError)
    host = as_numpy(x, name)
    if host.dtype.isnative and host.flags.aligned and all(stride >= 0 for stride in host.strides):
        return host
    return np.array(host, dtype=host.dtype.newbyteorder("="), order="C")


def backend_of(array: Array) -> Backend:
    """The backend on which `array` lies; NumPy for lists, data frames and scalars."""
    return (_backend_class(library_of(array) or HOST) or Backend).of(array)


def get_backend(backend: str | types.ModuleType | Backend | None = None, tf32: bool | None = None) -> Backend:
    """The backend that a selector names. It never falls back to another one.

    Parameters
    ----------
    backend : str, module, Backend or None, default None
        - A selector ``name`` or ``name:device``: "numpy", "cupy", "cupy:1", "torch:cuda:1", "jax:gpu". Other
          distributions can add names as entry points of ``dlx.backends``.
        - "auto": CuPy if it can compute a matrix product here, else NumPy.
        - A module that follows the Array API standard.
        - A Backend, which is returned as it is.
        - None: NumPy.
    tf32 : bool, default None
        Whether products of float32 arrays may be TF32, on CUDA devices only; see `Backend.with_tf32`. None is False, or
        what a Backend says that is passed.

    Returns
    -------
    Backend

    Raises
    ------
    BackendNotInstalled
        The library is not installed; the text says how to install it.
    BackendUnavailable
        The library cannot compute here; the text states its reason.
    ValueError
        There is no backend with this name, or no such device; or `tf32` is True and it is no CUDA device.
    TypeError
        `backend` is of another type, or a module that does not follow the standard; or `tf32` is no bool.

    Examples
    --------
    >>> import dlx
    >>> be = dlx.get_backend("numpy")
    >>> be, be.to_host(be.asarray([1, 2], "float32"))
    (<dlx backend numpy>, array([1., 2.], dtype=float32))
    """
    if tf32 is not None:
        return get_backend(backend).with_tf32(tf32)
    if isinstance(backend, Backend):
        return backend
    if isinstance(backend, types.ModuleType):
        return _from_module(backend)
    backend = HOST if backend is None else backend
    if not isinstance(backend, str):
        rule = "be a selector such as 'cupy:1', a module, a Backend or None"
        reject("backend", rule, type(backend).__name__, "Pass for example backend='numpy'.", TypeError)
    if backend == "auto":
        chosen = try_backend("cupy")
        return chosen if isinstance(chosen, Backend) else get_backend(HOST)
    name, colon, device = backend.partition(":")
    backend_class = _backend_class(name)
    if backend_class is None or (colon and not device):
        known = ", ".join(map(repr, known_backends()))
        rule = f"be 'auto', or 'name' or 'name:device' with one of the names {known}"
        reject("backend", rule, repr(backend), "For another library pass its module, or a Backend.")
    return backend_class.open(device or None)


def available_backends() -> list[str]:
    """The names of the backends that can compute here. Each one is opened, which imports its library."""
    return [name for name in known_backends() if isinstance(try_backend(name), Backend)]


def known_backends() -> list[str]:
    """The names of all backends: those of dlx, and those that are registered as entry points."""
    return sorted({*KNOWN, *importlib.metadata.entry_points(group=ENTRY_POINTS).names})


def try_backend(selector: str) -> Backend | Exception:
    """The backend for a selector, or the exception that `get_backend` raises."""
    try:
        return get_backend(selector)
    except Exception as reason:  # the backend of another distribution may raise anything, and must not hide the rest
        return reason


def _short(namespace: str) -> str:
    """The name of a library in selectors, from the name of its namespace."""
    root = namespace.removeprefix("array_api_compat.").partition(".")[0]
    return {"array_api_strict": "strict"}.get(root, root)


def _reopen(namespace: str, device: Any, name: str) -> Backend:
    """The backend that a pickle describes, of a library without a selector."""
    return Backend(importlib.import_module(namespace), device, name)


def _from_module(module: types.ModuleType) -> Backend:
    """The backend for a module: by its name if dlx has a backend for it, else by an array that it makes."""
    name = _short(module.__name__)
    # numpy.linalg has no asarray and is no namespace. The module jax has none either, but stands for jax.numpy.
    if (hasattr(module, "asarray") or module.__name__ == name) and _backend_class(name):
        return get_backend(name)
    with contextlib.suppress(AttributeError, TypeError):
        return Backend.of(module.zeros(1))
    remedy = "Pass one whose arrays have __array_namespace__, or a name: backend='numpy'."
    reject("backend", "be a module that follows the Array API standard", module.__name__, remedy, TypeError)


def _backend_class(name: str) -> type[Backend] | None:
    """The class for this name, of dlx or from an entry point; None if there is none."""
    if name in KNOWN:
        known: type[Backend] = importlib.import_module(f"dlx.backends._{name}").BACKEND
        return known
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        loaded = entry.load()
        if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
            reject(entry.value, "be a subclass of dlx.Backend", repr(loaded), "Mend its entry point.", TypeError)
        return loaded
    return None
