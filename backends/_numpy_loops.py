"""An elementwise formula as one loop over NumPy arrays: in blocks that stay in cache, or compiled by numba.

A formula of dlx is a Python function of arrays, which calls one ufunc after the other. On large arrays each of these
passes goes through memory. `traced` calls the function once with symbols in place of arrays, and writes its operations
on one element as the body of a loop, which numba can compile. `in_blocks` calls the function on pieces of its
arguments. Both give the bits of the plain formula, as the loops have neither fast-math nor contraction. A formula with
a transcendental function is not compiled, as NumPy's vectorised functions are faster than those of a scalar library.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlx.backend import HostArray, warn

from ._blocks import in_blocks

Formula = Callable[..., Any]

BLOCK = 1 << 15  # elements: five such float32 arrays fit in a cache of 1 MB
FITS_IN_CACHE = 1 << 17  # elements: a few such arrays stay in cache without blocks
SMALL = 1 << 12  # elements: up to this size the plain formula is the fastest
WORK_OF_A_CALL = 1 << 14  # elements times passes above which a compiled loop repays the cost of its call
MOST_WAYS = 256  # for each formula
PASSES_PER_COPY = 4  # measured on activations: relu and tanh lose in blocks, gelu and sigmoid gain

INFIX = {
    np.add: "+", np.subtract: "-", np.multiply: "*", np.divide: "/",
    np.greater: ">", np.greater_equal: ">=", np.less: "<", np.less_equal: "<=", np.equal: "==", np.not_equal: "!=",
    np.bitwise_and: "&", np.bitwise_or: "|", np.bitwise_xor: "^", np.left_shift: "<<", np.right_shift: ">>",
}  # fmt: skip
INDICES = {"line": "[i]", "full": "[i, j]", "row": "[0, j]", "column": "[i, 0]", "number": ""}
CALLS = {np.maximum: "np.maximum", np.minimum: "np.minimum", np.sqrt: "np.sqrt", np.absolute: "abs", np.negative: "-"}
TRANSCENDENTAL = {np.exp: "np.exp", np.expm1: "np.expm1", np.log: "np.log", np.log1p: "np.log1p", np.tanh: "np.tanh"}
FUNCTIONS = CALLS | TRANSCENDENTAL
COMPARISONS = (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)


class Untraceable(TypeError):
    """The formula has an operation that `traced` cannot write as a loop."""


class Symbol(np.lib.mixins.NDArrayOperatorsMixin):
    """One element of an array, or with dtype None a number. Every operation on it adds a line to `lines`.

    An augmented assignment changes the symbol itself, as it changes the memory of an array.
    """

    def __init__(self, lines: list[str], text: str, dtype: Any) -> None:
        self.lines, self.text, self.dtype = lines, text, dtype

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        """Add the line of a ufunc."""
        if method != "__call__" or options or not (ufunc in INFIX or ufunc in FUNCTIONS):
            raise Untraceable(f"{ufunc.__name__}.{method}")
        dtypes = [operand.dtype for operand in inputs if _is_array(operand)]
        common = np.result_type(*dtypes) if dtypes else None
        terms = [_as(operand, common) for operand in inputs]
        text = f" {INFIX[ufunc]} ".join(terms) if ufunc in INFIX else f"{FUNCTIONS[ufunc]}({', '.join(terms)})"
        result = self._line(text, np.dtype(bool) if ufunc in COMPARISONS else common)
        if out is None:
            return result
        out[0].text = _as(result, out[0].dtype)
        return out[0]

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Symbol:
        """Add the line of np.where, the only function that is not a ufunc."""
        if function is not np.where or len(arguments) != 3 or options:
            raise Untraceable(function.__name__)
        condition, yes, no = arguments
        common = np.result_type(*[operand.dtype for operand in (yes, no) if _is_array(operand)] or [np.float64])
        return self._line(f"({_as(yes, common)} if {_as(condition, None)} else {_as(no, common)})", common)

    def __bool__(self) -> bool:
        """Raise, as a loop has no branches."""
        raise Untraceable("a branch")

    def astype(self, dtype: Any, copy: bool = True) -> Symbol:
        """Add the line of a conversion."""
        return self._line(_as(self, np.dtype(dtype), cast=True), np.dtype(dtype))

    def _line(self, text: str, dtype: Any) -> Symbol:
        """Add a line that computes `text`, and return the symbol of its result."""
        name = f"t{len(self.lines)}"
        whole = dtype is not None and dtype.kind == "i"  # numba computes integers in 64 bits, NumPy wraps in 32
        self.lines.append(f"{name} = np.{dtype.name}({text})" if whole else f"{name} = {text}")
        return Symbol(self.lines, name, dtype)


def _is_array(x: Any) -> bool:
    """Whether `x` is the symbol of an array."""
    return isinstance(x, Symbol) and x.dtype is not None


def _as(x: Any, dtype: Any, cast: bool = False) -> str:
    """The text of an operand in this dtype. Numbers take the dtype of the arrays beside them, as in NumPy."""
    if isinstance(x, Symbol) and (dtype is None or (x.dtype is not None and not cast and x.dtype == dtype)):
        return x.text
    if not isinstance(x, Symbol | int | float):
        raise Untraceable(type(x).__name__)
    text = x.text if isinstance(x, Symbol) else repr(x)
    return text if dtype is None else f"np.{dtype.name}({text})"


class Loop(NamedTuple):
    """A formula as the source of a function of its arguments and its new arrays.

    source : str
    places : tuple of int or None
        For each result the number of the argument that it is written to, or None for a new array.
    created : tuple of dtype
        The dtypes of the new arrays.
    passes : int
        The number of ufuncs.
    single : bool
        Whether the formula returns one result, and not a tuple.
    """

    source: str
    places: tuple[int | None, ...]
    created: tuple[Any, ...]
    passes: int
    single: bool

    @property
    def repays_blocks(self) -> bool:
        """Whether blocks save more in the passes than the copies of the pieces of new arrays cost."""
        return self.passes > PASSES_PER_COPY * len(self.created)

    @property
    def repays_compiling(self) -> bool:
        """Whether a compiled loop is faster than NumPy's ufuncs."""
        return not any(f"{call}(" in self.source for call in TRANSCENDENTAL.values())


def traced(formula: Formula, name: str, dtypes: Sequence[Any], patterns: Sequence[str]) -> Loop:
    """The formula as a loop, for arguments with these dtypes (None for numbers) and patterns (keys of `INDICES`)."""
    lines: list[str] = []
    symbols = [
        Symbol(lines, f"x{k}" if pattern == "number" else f"x{k}_", dtype)
        for k, (dtype, pattern) in enumerate(zip(dtypes, patterns, strict=True))
    ]
    before = [symbol.text for symbol in symbols]
    returned = formula(*symbols)
    results = returned if isinstance(returned, tuple) else (returned,)
    places = tuple(next((k for k, symbol in enumerate(symbols) if symbol is result), None) for result in results)
    created = [result for result, place in zip(results, places, strict=True) if place is None]
    if not all(map(_is_array, created)):
        raise Untraceable("a result that is no array")
    new = "line" if "line" in patterns else "full"
    loads = [f"x{k}_ = x{k}{INDICES[pattern]}" for k, pattern in enumerate(patterns) if pattern != "number"]
    stores = [f"x{k}{INDICES[patterns[k]]} = {x.text}" for k, x in enumerate(symbols) if x.text != before[k]]
    stores += [f"new{k}{INDICES[new]} = {result.text}" for k, result in enumerate(created)]
    names = [*(f"x{k}" for k in range(len(symbols))), *(f"new{k}" for k in range(len(created)))]
    shaped = next((f"x{k}" for k, pattern in enumerate(patterns) if pattern == new), "new0")
    ranges = [
        f"for {index} in range({shaped}.shape[{axis}]):" for axis, index in enumerate("ij"[: 1 + (new == "full")])
    ]
    source = [
        # The dtypes are in the source so that two combinations of them share neither a file nor numba's index of it.
        f'"""The formula {name} as one loop of {", ".join(map(str, dtypes))}; written by dlx."""',
        "import numba",
        "import numpy as np",
        '@numba.njit(error_model="numpy", nogil=True, cache=True)',
        f"def {name}({', '.join(names)}):",
        *("    " * depth + line for depth, line in enumerate(ranges, start=1)),
        *("    " * (1 + len(ranges)) + line for line in [*loads, *lines, *stores]),
    ]
    dtypes_created = tuple(result.dtype for result in created)
    return Loop("\n".join(source) + "\n", places, dtypes_created, len(lines), results is not returned)


def compiled(name: str, loop: Loop, arguments: Sequence[Any]) -> Formula:
    """The loop as machine code, from the cache on disk if it was compiled before for arguments of these dtypes."""
    empty = [x[:0] if isinstance(x, np.ndarray) else x for x in arguments]
    shape = next(x.shape for x in empty if isinstance(x, np.ndarray))
    return prepared(name, loop.source, (*empty, *(np.empty(shape, dtype) for dtype in loop.created)))


def prepared(name: str, source: str, arguments: Sequence[Any]) -> Formula:
    """The function of this name as machine code. A call with these arguments has compiled it, or read it."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        function = _from_file(folder, name, source)
        function(*arguments)  # compiles and saves, or reads
    except (OSError, RuntimeError):  # there is no folder to write to, or no room
        return _in_memory(name, source)
    except Exception as reason:  # for a damaged file numba raises EOFError, ValueError, UnpicklingError ...
        warn(
            f"what was compiled cannot be read from the cache below {folder.parent}, so that loops are compiled anew; "
            f"delete {folder} and numba's files beside it: {type(reason).__name__}: {reason}",
        )
        return _in_memory(name, source)
    return function


def is_cached(name: str, source: str) -> bool:
    """Whether the function has been compiled before, by this process or another one."""
    try:
        return _path(cache_folder(), name, source).exists()
    except (OSError, RuntimeError):  # as in `prepared`
        return False


def _path(folder: Path, name: str, source: str) -> Path:
    """The file of the function."""
    return folder / f"{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}.py"


@functools.cache
def _in_memory(name: str, source: str) -> Formula:
    """The function, compiled for this process only."""
    scope: dict[str, Any] = {}
    exec(source.replace("cache=True", "cache=False"), scope)
    function: Formula = scope[name]
    return function


@functools.cache
def _from_file(folder: Path, name: str, source: str) -> Formula:
    """The function from a file of its own. Numba caches the machine code in the same folder."""
    path = _path(folder, name, source)
    if not path.exists() or path.read_bytes() != source.encode():
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        try:
            with open(handle, "wb") as file:
                file.write(source.encode())
            os.replace(temporary, path)  # atomic, as another process may do the same
        except OSError:
            os.unlink(temporary)
            raise
    spec = importlib.util.spec_from_file_location(f"dlx_loop_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # numba looks for it there when it reads its cache
    spec.loader.exec_module(module)
    function: Formula = getattr(module, name)
    return function


def cache_folder() -> Path:
    """The folder of compiled loops, in NUMBA_CACHE_DIR, XDG_CACHE_HOME or ~/.cache. It may be deleted."""
    parents = [os.environ.get(name, "") for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")]
    return Path(next(filter(os.path.isabs, parents), None) or Path.home() / ".cache") / "dlx"


def any_cached() -> bool:
    """Whether the cache has compiled loops, so that the next ones may be among them."""
    try:
        return next(cache_folder().glob("*.py"), None) is not None
    except (OSError, RuntimeError):  # there is no such folder, as in `compiled`
        return False


def layout(arguments: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[int, ...]] | None:
    """The dtypes, the patterns and the common shape of the arguments; None without a shape of one or two axes."""
    arrays = [x for x in arguments if isinstance(x, np.ndarray)]
    axes = arrays[0].ndim
    if axes not in (1, 2) or any(x.ndim != axes for x in arrays):
        return None
    shape = tuple(max(sizes) for sizes in zip(*(x.shape for x in arrays), strict=True))
    patterns = []
    for x in arguments:
        if not isinstance(x, np.ndarray):
            patterns.append("number")
        elif x.shape == shape:
            patterns.append("line" if axes == 1 else "full")
        elif axes == 2 and x.shape == (1, shape[1]):
            patterns.append("row")
        elif axes == 2 and x.shape == (shape[0], 1):
            patterns.append("column")
        else:
            return None
    return tuple(x.dtype if isinstance(x, np.ndarray) else None for x in arguments), tuple(patterns), shape


def fused(formula: Any, name: str, compiles: bool) -> Any:
    """The formula, computed in the way that is fastest for its arguments: as it is, in blocks, or compiled.

    Its first two arguments are arrays. Their shapes determine those of the others.
    """
    ways: dict[Any, Formula] = {}

    def call(first: HostArray, second: HostArray, *rest: Any) -> Any:
        if type(first) is not np.ndarray:  # a recording
            return formula(first, second, *rest)
        if first.size <= SMALL and first.shape[-1] > 1:  # a column may give a large result with a row
            return formula(first, second, *rest)
        key = first.shape, second.shape, first.dtype
        way = ways.get(key)
        if way is None:
            if len(ways) >= MOST_WAYS:  # every batch has another size
                ways.clear()
            ways[key] = way = _way(formula, name, compiles, (first, second, *rest))
        return way(first, second, *rest)

    return call


def _way(formula: Formula, name: str, compiles: bool, arguments: Sequence[Any]) -> Formula:
    """The fastest function that computes the formula for arguments with these shapes and dtypes."""
    laid_out = layout(arguments)
    if laid_out is None:
        return formula
    dtypes, patterns, shape = laid_out
    size = math.prod(shape)
    if size <= SMALL:
        return formula
    try:
        loop = traced(formula, name, dtypes, patterns)
    except Exception:  # Untraceable, or any error of an operation that symbols do not have
        return formula
    if compiles and loop.repays_compiling and size * loop.passes > WORK_OF_A_CALL:
        return functools.partial(_run, compiled(name, loop, arguments), loop, shape)
    if loop.repays_blocks and size >= FITS_IN_CACHE:
        sliced = [pattern not in ("number", "row") for pattern in patterns]
        return functools.partial(_in_blocks, formula, sliced, shape)
    return formula


def _in_blocks(formula: Formula, sliced: Sequence[bool], shape: tuple[int, ...], *arguments: Any) -> Any:
    """The results of the formula, computed in blocks that stay in cache."""
    rows = max(1, BLOCK // math.prod(shape[1:]))
    return in_blocks(formula, arguments, sliced, rows, lambda piece: np.empty(shape, piece.dtype))


def _run(function: Formula, loop: Loop, shape: tuple[int, ...], *arguments: Any) -> Any:
    """The results of the formula, computed by its compiled function."""
    created = [np.empty(shape, dtype) for dtype in loop.created]
    function(*arguments, *created)
    remaining = iter(created)
    results = tuple(next(remaining) if place is None else arguments[place] for place in loop.places)
    return results[0] if loop.single else results
