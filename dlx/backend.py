"""One array library on one device: how it is chosen, entered and left.

All mathematics of dlx speaks the Python Array API standard (https://data-apis.org/array-api/). What it leaves
to each library - devices, the way in from and out to the host, compilation - is a `Backend`. No array library
but NumPy is imported here; ``get_backend("torch")`` imports ``dlx.backends._torch`` by name.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import itertools
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Self, TypeVar

import array_api_compat
import numpy as np

from dlx.checks import reject
from dlx.host import as_numpy, way_to_host
from dlx.nesting import each_of, rows_of

Array = Any  # no static type describes the arrays of every library
Namespace = Any
Function = TypeVar("Function", bound=Callable[..., Any])
Loop = Callable[..., Iterator[tuple[Any, Array]]]
Fuse = Callable[[Any, str], Any]  # Backend.fuse; no static type keeps the function's own through an argument

HOST = "numpy"  # the library of the host: its arrays may enter every backend
KNOWN = ("cupy", "jax", HOST, "strict", "torch")
ENTRY_POINTS = "dlx.backends"


class BackendNotInstalled(ImportError):
    """The array library that was asked for is not installed."""


class BackendUnavailable(RuntimeError):
    """The array library is installed but cannot compute here; the text holds its own reason."""


def unfused(function: Function, name: str) -> Function:
    """The function itself, for a `fuse` that does nothing."""
    return function


class Backend:
    """An array library on one device.

    This class serves any compliant library; the files in ``backends/`` override what theirs does differently.

    Parameters
    ----------
    xp : module
        A namespace of the Array API standard.
    device : object, optional
        The library's own device object; None is its default device.
    name : str, optional
        The library's name in selectors; by default the namespace's own.
    """

    name: str = ""
    float64_hint: str = "Use float32."
    in_place: bool = False  # whether slices and reshapes of an array are views of its memory, which may be written
    multiplies_sparse: bool = False  # whether matrices of SciPy's may be the left factors of products
    elements_at_once: int = 1 << 20  # of a layer's input or output, while predicting
    fewest_rows: int = 1 << 10  # which a matrix product wants, unless they would be
    most_elements: int = 1 << 22

    def __init__(self, xp: Namespace, device: Any = None, name: str | None = None) -> None:
        self.xp = xp
        self.device = device
        self.name = name or type(self).name or _short(xp.__name__)

    @classmethod
    def open(cls, device: str | None) -> Self:
        """The backend that the selector ``name:device`` names; raises where it cannot compute."""
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

    def __repr__(self) -> str:
        return f"<dlx backend {self.selector}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backend) and self.selector == other.selector

    def __hash__(self) -> int:
        return hash(self.selector)

    def __reduce__(self) -> tuple[Any, ...]:
        if type(self) is Backend:  # has no selector that get_backend knows
            return _reopen, (self.xp.__name__, self.device, self.name)
        return get_backend, (self.selector,)

    def dtype(self, name: str) -> Any:
        """The library's dtype of that name; TypeError where it has none."""
        available = self.xp.__array_namespace_info__().dtypes(device=self.device)
        if name not in available:
            remedy = self.float64_hint if name == "float64" else f"Use one of {', '.join(sorted(available))}."
            reject("dtype", f"be one that {self.selector} computes with", name, remedy, TypeError)
        return getattr(self.xp, name)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """The only way in: a host array or one of the library's own, on this device; may share memory.

        Without `dtype` the library chooses, and may narrow float64; where one is named it is never narrowed.
        """
        own = x if library_of(x) == self.name else host_array(x)
        return self.xp.asarray(own, dtype=None if dtype is None else self.dtype(dtype), device=self.device)

    def copy(self, x: Array) -> Array:
        """The same values in memory of their own."""
        return self.xp.asarray(x, copy=True)

    def padded(self, n: int) -> int | None:
        """To how many rows n rows are to be extended before they meet a compiled function; None: they may stay n.

        A library that compiles for each shape names few sizes, so that it compiles seldom.
        """
        return None

    def take(self, x: Array, numbers: np.ndarray[Any, Any]) -> Array:
        """The rows of those numbers (of the host), copied."""
        return self.xp.take(x, self.row_numbers(numbers, x.shape[0]), axis=0)

    def row_numbers(self, numbers: np.ndarray[Any, Any], n: int) -> Array:
        """Numbers of rows, out of n, on the device: as small as they may be."""
        return self.asarray(numbers, "int32" if n < 2**31 else "int64")

    def zeros_like(self, x: Array) -> Array:
        """Zeros of the shape and dtype of `x`."""
        return self.xp.zeros_like(x)

    def all_finite(self, x: Array) -> bool:
        """Whether no value is nan or infinite; waits for the device."""
        return self.seems_finite(x) or bool(self.xp.all(self.xp.isfinite(x)))

    def seems_finite(self, x: Array) -> bool:
        """The same by their sum, in one pass: large values may be taken for infinite."""
        return bool(self.xp.isfinite(self.xp.sum(x)))

    def to_host(self, x: Array) -> np.ndarray[Any, Any]:
        """The only way out: a NumPy array; waits for the device; may share memory."""
        return as_numpy(x, "x")

    def stack_to_host(self, scalars: Sequence[Array]) -> np.ndarray[Any, Any]:
        """Arrays of one shape as one NumPy array, in one transfer."""
        with self.scope():
            return self.to_host(self.xp.stack(list(scalars)))

    def transpose(self, x: Array) -> Array:
        """The last two axes exchanged, a view where there are views."""
        return self.xp.matrix_transpose(x)

    def product(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The matrix product a b; written to `out`, where arrays are written in place."""
        return a @ b

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """Σ_i x_i over the rows of (..., n, K), of shape (..., 1, K); `out` as in `product`."""
        return self.xp.sum(x, axis=-2, keepdims=True)

    def sum_squares(self, x: Array) -> Array:
        """Σ x² over the last two axes: of (..., n, K), of shape (...,)."""
        return self.xp.sum(x * x, axis=(-2, -1))

    def synchronize(self) -> None:
        """Return when the device has done everything that was asked of it."""

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """A context for all computation: the current device, no gradient tape; here, none of NumPy's warnings.

        Overflow ends in `DivergenceError`, as where a library never warns.
        """
        return np.errstate(all="ignore")

    def compile(self, function: Function, key: Hashable = None) -> Function:
        """The same pure function, compiled where the library can.

        Equal keys promise equal functions, so that a compiled one is used again; None promises nothing.
        """
        return function

    def placed(self, x: Any) -> Array:
        """A block of rows, of the host or of the library, where `rowwise` computes."""
        return self.asarray(x)

    def rowwise(self, function: Callable[[Any, Any], Any], key: Hashable = None) -> Callable[..., Any]:
        """``function(constants, X)``, a pure function that gives a row for each row of `X`, for blocks of any number.

        The result is called as ``call(constants, X, to_host=False)``: `X` may lie on the host, from where it is
        brought here, and with `to_host` so may what is returned. Both may be tuples of arrays of as many rows. A
        library that compiles for each shape may add rows and take them away again. Equal keys promise equal functions,
        so that a compiled one is used again; None promises nothing.
        """

        def call(constants: Any, X: Any, to_host: bool = False) -> Any:
            found = function(constants, each_of(self.placed, X))
            return each_of(self.to_host, found) if to_host else found

        return call

    def fuse(self, function: Function, name: str) -> Function:
        """The same elementwise formula as one loop or kernel, called `name`, where the library can.

        Its arguments are arrays that broadcast together, then numbers; it may write the arrays in place.
        """
        return function

    def loop(self, step: Callable[..., tuple[Any, Array]], key: Hashable = None) -> Loop:
        """``step(carry, constants, inputs) -> (carry, output)`` as a loop over the rows of `inputs`.

        ``run(carry, constants, inputs, steps, first, most)`` begins with row `first` and yields (carry, outputs) as
        often as it may be stopped: here after each step, with its one output; a library that compiles the loop yields
        after many, but no more than `most` if that is not None, with the vector of their outputs.
        `inputs` are nested tuples of None, vectors of the host, of which a step gets one Python number each, and
        matrices on the device, of which it gets a row; they may have more rows than `steps`. A step gets tuples of the
        same types, so that it may read by name. Equal keys promise equal steps, so that a compiled one is used again;
        None promises nothing.
        """
        compiled = self.compile(step)

        def run(
            carry: Any, constants: Any, inputs: Any, steps: int, first: int = 0, most: int | None = None
        ) -> Iterator[tuple[Any, Array]]:
            for each in itertools.islice(rows_of(inputs), first, steps):
                carry, output = compiled(carry, constants, each)
                yield carry, output

        return run

    def outputs_to_host(self, outputs: Sequence[Array]) -> np.ndarray[Any, Any]:
        """All outputs that a `loop` has yielded as one NumPy vector, in one transfer."""
        return self.stack_to_host(outputs)

    def expecting(self, elements: float) -> Self:
        """This backend, prepared to compute that many elements by fused formulas: it may compile where that repays."""
        return self

    def out_of_memory(self, error: Exception) -> bool:
        """Whether `error` says that memory, of the device or of the host, did not suffice."""
        return isinstance(error, MemoryError)

    def release_memory(self) -> None:
        """Give back to the device what the library keeps for reuse."""

    def describe(self) -> dict[str, str]:
        """What ``python -m dlx`` prints of it: version, devices, and what bears on precision and speed."""
        root = importlib.import_module(self.xp.__name__.removeprefix("array_api_compat.").partition(".")[0])
        devices = map(str, self.xp.__array_namespace_info__().devices())
        return {"version": getattr(root, "__version__", "unknown"), "devices": ", ".join(devices)}

    def arithmetic(self) -> dict[str, str]:
        """What the last bits of a result depend on beside the numbers: the library, its kernels, threads, device."""
        return {"version": self.describe()["version"]}


def namespace_of(array: Array) -> Namespace:
    """The namespace of the Array API standard that `array` belongs to."""
    return array_api_compat.array_namespace(array)


def library_of(x: Any) -> str | None:
    """The name of the array library that `x` belongs to; None for lists, data frames and scalars."""
    if isinstance(x, np.ndarray | np.generic):
        return HOST
    return _short(namespace_of(x).__name__) if array_api_compat.is_array_api_obj(x) else None


def host_array(x: Any, name: str = "x") -> np.ndarray[Any, Any]:
    """`x` as an aligned NumPy array of native byte order without negative strides; copies only if it must."""
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
    """The backend on which `array` lies; lists, data frames and scalars belong to NumPy."""
    return (_backend_class(library_of(array) or HOST) or Backend).of(array)


def get_backend(backend: str | types.ModuleType | Backend | None = None) -> Backend:
    """The backend that a selector names, never another: a request does not fall back.

    Parameters
    ----------
    backend : str, module, Backend or None
        ``name[:device]`` - "numpy", "cupy", "cupy:1", "torch:cuda:1", "jax:gpu" - or a name that another
        distribution registers as an entry point of ``dlx.backends``; "auto", CuPy if a matrix product really
        ran there, else NumPy; a module that follows the Array API standard; a Backend itself; None, NumPy.

    Raises
    ------
    BackendNotInstalled, BackendUnavailable
        The library is missing, and how to install it; or it cannot compute here, and its own reason.
    ValueError, TypeError
        There is no such name or device; it is no selector at all.

    Examples
    --------
    >>> import dlx
    >>> be = dlx.get_backend("numpy")
    >>> be, be.to_host(be.asarray([1, 2], "float32"))
    (<dlx backend numpy>, array([1., 2.], dtype=float32))
    """
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
    found = _backend_class(name)
    if found is None or (colon and not device):
        known = ", ".join(map(repr, known_backends()))
        rule = f"be 'auto', or 'name' or 'name:device' with one of the names {known}"
        reject("backend", rule, repr(backend), "For another library pass its module, or a Backend.")
    return found.open(device or None)


def available_backends() -> list[str]:
    """The names of the backends that compute here, found by opening each one (this imports its library)."""
    return [name for name in known_backends() if isinstance(try_backend(name), Backend)]


def known_backends() -> list[str]:
    """Every backend's name: dlx's own and those registered as entry points."""
    return sorted({*KNOWN, *importlib.metadata.entry_points(group=ENTRY_POINTS).names})


def try_backend(selector: str) -> Backend | Exception:
    """The backend, or the exception that says why there is none."""
    try:
        return get_backend(selector)
    except Exception as reason:  # a third party's backend may raise anything; one must not hide the others
        return reason


def _short(namespace: str) -> str:
    root = namespace.removeprefix("array_api_compat.").partition(".")[0]
    return {"array_api_strict": "strict"}.get(root, root)


def _reopen(namespace: str, device: Any, name: str) -> Backend:
    return Backend(importlib.import_module(namespace), device, name)


def _from_module(module: types.ModuleType) -> Backend:
    name = _short(module.__name__)
    # numpy.linalg has no asarray and is no namespace; nor has jax, but who passes it means jax.numpy
    if (hasattr(module, "asarray") or module.__name__ == name) and _backend_class(name):
        return get_backend(name)
    with contextlib.suppress(AttributeError, TypeError):
        return Backend.of(module.zeros(1))
    remedy = "Pass one whose arrays have __array_namespace__, or a name: backend='numpy'."
    reject("backend", "be a module that follows the Array API standard", module.__name__, remedy, TypeError)


def _backend_class(name: str) -> type[Backend] | None:
    if name in KNOWN:
        known: type[Backend] = importlib.import_module(f"dlx.backends._{name}").BACKEND
        return known
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        found = entry.load()
        if not (isinstance(found, type) and issubclass(found, Backend)):
            reject(entry.value, "be a subclass of dlx.Backend", repr(found), "Mend its entry point.", TypeError)
        return found
    return None
