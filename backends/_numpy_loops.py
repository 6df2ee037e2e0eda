"""One elementwise formula as one loop over NumPy arrays: in blocks that stay in cache, or compiled by numba.

A formula of dlx is a Python function of arrays, one ufunc after the other; on large arrays each of these passes goes
through memory. `traced` calls the function once with symbols in place of arrays and prints what it did to one element
as the body of a loop, which numba may compile; `in_blocks` calls the same function on pieces of its arguments. Both
give the bits of the plain formula: the loops have neither fast-math nor contraction, and a formula with a
transcendental function is not compiled, for NumPy's vectorised ones are faster than a scalar library's.
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

from dlx.backend import warn

from ._blocks import in_blocks

Formula = Callable[..., Any]
HostArray = np.ndarray[Any, Any]

BLOCK = 1 << 15  # elements: five float32 arrays of it fit in a cache of 1 MB
FITS_IN_CACHE = 1 << 17  # elements of which a few arrays stay in cache without blocks
SMALL = 1 << 12  # elements of which no way is faster than the plain one
WORK_OF_A_CALL = 1 << 14  # elements times passes from which a compiled loop's call repays
MOST_WAYS = 256
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
    """The formula does something that is not printed as a loop."""


class Symbol(np.lib.mixins.NDArrayOperatorsMixin):
    """One element of an array, or (dtype None) a number: every operation on it is written down as a line.

    An augmented assignment changes the symbol itself, as it changes the memory of an array.
    """

    def __init__(self, lines: list[str], text: str, dtype: Any) -> None:
        self.lines, self.text, self.dtype = lines, text, dtype

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        """The line of a ufunc."""
        if method != "__call__" or options or not (ufunc in INFIX or ufunc in FUNCTIONS):
            raise Untraceable(f"{ufunc.__name__}.{method}")
        arrays = [each.dtype for each in inputs if _is_array(each)]
        own = np.result_type(*arrays) if arrays else None
        terms = [_as(each, own) for each in inputs]
        text = f" {INFIX[ufunc]} ".join(terms) if ufunc in INFIX else f"{FUNCTIONS[ufunc]}({', '.join(terms)})"
        found = self._line(text, np.dtype(bool) if ufunc in COMPARISONS else own)
        if out is None:
            return found
        out[0].text = _as(found, out[0].dtype)
        return out[0]

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Symbol:
        """The line of a choice, the only function that is no ufunc."""
        if function is not np.where or len(arguments) != 3 or options:
            raise Untraceable(function.__name__)
        condition, yes, no = arguments
        own = np.result_type(*[each.dtype for each in (yes, no) if _is_array(each)] or [np.float64])
        return self._line(f"({_as(yes, own)} if {_as(condition, None)} else {_as(no, own)})", own)

    def __bool__(self) -> bool:
        """A loop has no branches."""
        raise Untraceable("a branch")

    def astype(self, dtype: Any, copy: bool = True) -> Symbol:
        """The line of a conversion."""
        return self._line(_as(self, np.dtype(dtype), cast=True), np.dtype(dtype))

    def _line(self, text: str, dtype: Any) -> Symbol:
        name = f"t{len(self.lines)}"
        whole = dtype is not None and dtype.kind == "i"  # numba computes integers in 64 bits, NumPy wraps in 32
        self.lines.append(f"{name} = np.{dtype.name}({text})" if whole else f"{name} = {text}")
        return Symbol(self.lines, name, dtype)


def _is_array(x: Any) -> bool:
    return isinstance(x, Symbol) and x.dtype is not None


def _as(x: Any, dtype: Any, cast: bool = False) -> str:
    """The text of an operand; numbers take the dtype of the arrays that they meet, as NumPy's do."""
    if isinstance(x, Symbol) and (dtype is None or (x.dtype is not None and not cast and x.dtype == dtype)):
        return x.text
    if not isinstance(x, Symbol | int | float):
        raise Untraceable(type(x).__name__)
    text = x.text if isinstance(x, Symbol) else repr(x)
    return text if dtype is None else f"np.{dtype.name}({text})"


class Loop(NamedTuple):
    """A formula's source as a function of its arguments and of the new arrays, and where its results lie.

    `places` holds for each result the number of the argument that it is written to, or None for a new array; `created`
    are the dtypes of those; `passes` counts the ufuncs; `single` tells one result from a tuple of one.
    """

    source: str
    places: tuple[int | None, ...]
    created: tuple[Any, ...]
    passes: int
    single: bool

    @property
    def repays_blocks(self) -> bool:
        """Whether its passes outweigh the copy of each new array's pieces."""
        return self.passes > PASSES_PER_COPY * len(self.created)

    @property
    def repays_compiling(self) -> bool:
        """Whether a scalar loop is faster than NumPy's."""
        return not any(f"{call}(" in self.source for call in TRANSCENDENTAL.values())


def traced(formula: Formula, name: str, dtypes: Sequence[Any], patterns: Sequence[str]) -> Loop:
    """The formula as a loop; `dtypes` are None for numbers, `patterns` the keys of `INDICES`."""
    lines: list[str] = []
    symbols = [
        Symbol(lines, f"x{k}" if pattern == "number" else f"x{k}_", dtype)
        for k, (dtype, pattern) in enumerate(zip(dtypes, patterns, strict=True))
    ]
    before = [symbol.text for symbol in symbols]
    found = formula(*symbols)
    results = found if isinstance(found, tuple) else (found,)
    places = tuple(next((k for k, symbol in enumerate(symbols) if symbol is each), None) for each in results)
    created = [each for each, place in zip(results, places, strict=True) if place is None]
    if not all(map(_is_array, created)):
        raise Untraceable("a result that is no array")
    new = "line" if "line" in patterns else "full"
    loads = [f"x{k}_ = x{k}{INDICES[each]}" for k, each in enumerate(patterns) if each != "number"]
    stores = [f"x{k}{INDICES[patterns[k]]} = {x.text}" for k, x in enumerate(symbols) if x.text != before[k]]
    stores += [f"new{k}{INDICES[new]} = {each.text}" for k, each in enumerate(created)]
    names = [*(f"x{k}" for k in range(len(symbols))), *(f"new{k}" for k in range(len(created)))]
    shaped = next((f"x{k}" for k, each in enumerate(patterns) if each == new), "new0")
    ranges = [
        f"for {index} in range({shaped}.shape[{axis}]):" for axis, index in enumerate("ij"[: 1 + (new == "full")])
    ]
    source = [
        # with the dtypes, so that those of two do not share a file, nor the index that numba keeps beside it
        f'"""The formula {name} as one loop of {", ".join(map(str, dtypes))}; written by dlx."""',
        "import numba",
        "import numpy as np",
        '@numba.njit(error_model="numpy", nogil=True, cache=True)',
        f"def {name}({', '.join(names)}):",
        *("    " * depth + line for depth, line in enumerate(ranges, start=1)),
        *("    " * (1 + len(ranges)) + line for line in [*loads, *lines, *stores]),
    ]
    return Loop(
        "\n".join(source) + "\n", places, tuple(each.dtype for each in created), len(lines), results is not found
    )


def compiled(name: str, loop: Loop, arguments: Sequence[Any]) -> Formula:
    """The loop as machine code, from the cache on disk if it was compiled before for the like of these arguments."""
    none = [x[:0] if isinstance(x, np.ndarray) else x for x in arguments]
    shape = next(x.shape for x in none if isinstance(x, np.ndarray))
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        function = _from_file(folder, name, loop.source)
        function(*none, *(np.empty(shape, dtype) for dtype in loop.created))  # compiles, saves or reads
    except (OSError, RuntimeError):  # no folder to write to, or no room
        return _in_memory(name, loop.source)
    except Exception as reason:  # numba's words for a damaged file are EOFError, ValueError, UnpicklingError ...
        warn(
            f"what was compiled cannot be read from the cache below {folder.parent}, so that loops are compiled anew; "
            f"delete {folder} and numba's files beside it: {type(reason).__name__}: {reason}",
        )
        return _in_memory(name, loop.source)
    return function


@functools.cache
def _in_memory(name: str, source: str) -> Formula:
    """The function, compiled for this process alone."""
    scope: dict[str, Any] = {}
    exec(source.replace("cache=True", "cache=False"), scope)
    function: Formula = scope[name]
    return function


@functools.cache
def _from_file(folder: Path, name: str, source: str) -> Formula:
    """The function from a file of its own, beside which numba keeps what it compiles."""
    path = folder / f"{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}.py"
    if not path.exists() or path.read_bytes() != source.encode():
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        try:
            with open(handle, "wb") as file:
                file.write(source.encode())
            os.replace(temporary, path)  # another process may be doing the same
        except OSError:
            os.unlink(temporary)
            raise
    spec = importlib.util.spec_from_file_location(f"dlx_loop_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where numba looks for it when it reads its cache
    spec.loader.exec_module(module)
    found: Formula = getattr(module, name)
    return found


def cache_folder() -> Path:
    """Where compiled loops are kept: in NUMBA_CACHE_DIR, XDG_CACHE_HOME or ~/.cache; it may be deleted."""
    known = [os.environ.get(name, "") for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")]
    return Path(next(filter(os.path.isabs, known), None) or Path.home() / ".cache") / "dlx"


def any_kept() -> bool:
    """Whether loops were compiled before, so that these may be among them."""
    try:
        return next(cache_folder().glob("*.py"), None) is not None
    except (OSError, RuntimeError):  # as where they are compiled
        return False


def layout(arguments: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[int, ...]] | None:
    """The dtypes, the patterns and the common shape of a formula's arguments; None where there is none of one or two
    axes.
    """
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
    """The formula, which takes for its arguments the way that repays: as it is, in blocks, or compiled.

    Its first two arguments are arrays, whose shapes give those of the others.
    """
    ways: dict[Any, Formula] = {}

    def call(first: HostArray, second: HostArray, *rest: Any) -> Any:
        if first.size <= SMALL and first.shape[-1] > 1:  # and not a column that a row makes large
            return formula(first, second, *rest)
        key = first.shape, second.shape, first.dtype
        way = ways.get(key)
        if way is None:
            if len(ways) >= MOST_WAYS:  # batches of ever new sizes
                ways.clear()
            ways[key] = way = _way(formula, name, compiles, (first, second, *rest))
        return way(first, second, *rest)

    return call


def _way(formula: Formula, name: str, compiles: bool, arguments: Sequence[Any]) -> Formula:
    """How to compute the formula for arguments of these shapes and dtypes."""
    laid = layout(arguments)
    if laid is None:
        return formula
    dtypes, patterns, shape = laid
    size = math.prod(shape)
    if size <= SMALL:
        return formula
    try:
        loop = traced(formula, name, dtypes, patterns)
    except Exception:  # Untraceable, or whatever follows from what a symbol cannot do
        return formula
    if compiles and loop.repays_compiling and size * loop.passes > WORK_OF_A_CALL:
        return functools.partial(_run, compiled(name, loop, arguments), loop, shape)
    if loop.repays_blocks and size >= FITS_IN_CACHE:
        return functools.partial(_in_blocks, formula, [each not in ("number", "row") for each in patterns], shape)
    return formula


def _in_blocks(formula: Formula, sliced: Sequence[bool], shape: tuple[int, ...], *arguments: Any) -> Any:
    rows = max(1, BLOCK // math.prod(shape[1:]))
    return in_blocks(formula, arguments, sliced, rows, lambda piece: np.empty(shape, piece.dtype))


def _run(function: Formula, loop: Loop, shape: tuple[int, ...], *arguments: Any) -> Any:
    created = [np.empty(shape, dtype) for dtype in loop.created]
    function(*arguments, *created)
    fresh = iter(created)
    results = tuple(next(fresh) if place is None else arguments[place] for place in loop.places)
    return results[0] if loop.single else results
