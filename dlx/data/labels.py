"""Labels as NumPy holds them exactly, whatever they came in, and the one look-up of them.

Integers never pass through float64, and strings stay apart where they differ: NumPy's strings of fixed width drop
NULs at the end, so that labels which end in one stay Python objects.
"""

from __future__ import annotations

import decimal
import numbers
from typing import Any, NoReturn

import numpy as np

from dlx import checks
from dlx.backend import HOST, Array, Backend, library_of

HostArray = np.ndarray[Any, Any]
WIDE_UNSIGNED = (np.uint16, np.uint32, np.uint64)  # of which PyTorch takes no rows
MISSING = ("NoneType", "NAType", "NaTType")  # of Python and of pandas, which need not be installed


def listed(y: Any) -> Any:
    """A list of single values as an array of objects: NumPy makes strings, or floats, of lists of several kinds."""
    if not isinstance(y, list | tuple) or not y:
        return y
    kinds = {type(each) for each in y}
    if kinds == {float} or any(hasattr(kind, "__len__") and not issubclass(kind, str | bytes) for kind in kinds):
        return y  # of what NumPy holds exactly, of rows, or of arrays
    found = np.empty(len(y), object)
    found[:] = y
    return found


def settled(y: HostArray) -> HostArray:
    """Objects in the plain dtype that holds all of them exactly; what none holds stays as it is.

    Integers become int64 or, where they must, uint64; other real numbers, those of `decimal` too, float64.
    """
    if y.dtype.kind not in "OT" or not y.size:
        return y
    y = y.astype(object, copy=False)
    kinds = {type(each) for each in y.flat}
    if _all(kinds, str):
        return _strings(y)
    if _all(kinds, bool, np.bool_):
        return y.astype(bool)
    if _all(kinds, numbers.Integral, np.bool_):
        return _integers(y)
    if any(kind.__name__ in MISSING for kind in kinds) or (found := real(y)) is None:
        return y
    exact = [(x, each) for x, each in zip(found.flat, y.flat, strict=True) if isinstance(each, numbers.Integral)]
    return found if all(int(x) == each for x, each in exact) else y


def real(y: HostArray) -> HostArray | None:
    """Objects as float64, missing ones as nan; None where they are no real numbers."""
    kinds = {type(each) for each in y.flat}
    if not all(kind.__name__ in MISSING or _all({kind}, numbers.Real, decimal.Decimal, np.bool_) for kind in kinds):
        return None
    if any(kind.__name__ in MISSING for kind in kinds):
        y = np.where(np.array([type(each).__name__ in MISSING for each in y.flat]).reshape(y.shape), np.nan, y)
    try:
        return y.astype(np.float64)
    except (ArithmeticError, ValueError):  # an integer beyond all floats, a signalling nan
        return None


def _all(kinds: set[type], *wanted: type) -> bool:
    return all(issubclass(kind, wanted) for kind in kinds)


def _strings(y: HostArray) -> HostArray:
    """In NumPy's oldest dtype, which can be sorted, compared and saved, unless it would drop a NUL."""
    values = [str.__str__(each) for each in y.flat]  # of an enumeration, its value, and not its name
    if any(each.endswith("\0") for each in values):
        found = np.empty(len(values), object)
        found[:] = values
        return found.reshape(y.shape)
    return np.array(values, dtype=str).reshape(y.shape)


def _integers(y: HostArray) -> HostArray:
    values = [int(each) for each in y.flat]
    low, high = min(values), max(values)
    if low >= -(1 << 63) and high < 1 << 63:
        return np.array(values, np.int64).reshape(y.shape)
    return np.array(values, np.uint64).reshape(y.shape) if low >= 0 and high < 1 << 64 else y


def whole(y: HostArray) -> HostArray | None:
    """Floats that are all whole as the integers that they are equal to; None for others."""
    if y.dtype.kind != "f" or not (np.isfinite(y) & (y == np.trunc(y))).all():
        return None
    if ((y >= -(2.0**63)) & (y < 2.0**63)).all():
        return y.astype(np.int64)
    return y.astype(np.uint64) if ((y >= 0) & (y < 2.0**64)).all() else None


def are_strings(y: HostArray) -> bool:
    """Whether all of `y` are strings, of whatever dtype."""
    return y.dtype.kind == "U" or (y.dtype.kind in "OT" and all(isinstance(each, str) for each in y.flat))


def spells_number(value: Any) -> bool:
    """Whether it is a number, perhaps in writing, such as "3.5"."""
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def are_labels(y: HostArray) -> bool:
    """Whether `y` holds integers, booleans or strings in one dimension."""
    return y.ndim == 1 and (y.dtype.kind in "biu" or are_strings(y))


def distinct(y: HostArray) -> tuple[HostArray, HostArray]:
    """The different labels in order, and for each row the place of its own among them."""
    if y.dtype.kind != "O":
        return np.unique(y, return_inverse=True)
    different = np.empty(len(known := sorted(set(y.tolist()))), object)
    different[:] = known
    classes = settled(different)
    return classes, places(y, classes)


def places(y: HostArray, classes: HostArray) -> HostArray:
    """The place among `classes` of each label; -1 where there is none.

    They are compared as Python compares them, which is exact between all kinds of numbers.
    """
    count = len(classes)
    if y.dtype.kind in "iu" and classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(count)):
        within = (y >= 0) & (y < count)
        found = np.full(len(y), -1)
        found[within] = y[within]
        return found
    place = {label: k for k, label in enumerate(classes.tolist())}
    if y.dtype.kind not in "biuf":
        return np.array([place.get(label, -1) for label in y.tolist()], np.int64)
    different, rows = np.unique(y, return_inverse=True)
    return np.array([place.get(label, -1) for label in different.tolist()], np.int64)[rows]


def missing(value: Any) -> bool:
    """Whether it stands for a missing value: None, nan, or one of pandas' own."""
    if isinstance(value, decimal.Decimal):  # of which some raise where they are compared
        return value.is_nan()
    return type(value).__name__ in MISSING or (isinstance(value, numbers.Number | np.generic) and value != value)


def refuse(y: HostArray, name: str) -> NoReturn:
    """Raise for one label a row that are no labels of one kind, with the remedy for what is wrong with them."""
    objects = y.astype(object) if y.dtype.kind in "fOTSV" else y  # of dates, objects are nothing but integers
    values = [*enumerate(objects.flat)]
    for row, value in values:
        if missing(value):
            checks.reject(name, "have no missing labels", f"{value!r} at row {row}", "Fill or drop such rows.")
    row, value = next(((k, each) for k, each in values if isinstance(each, bytes)), (0, None))
    if value is not None:
        remedy = f"Decode them: [each.decode() for each in {name}]."
        checks.reject(name, "hold strings, not bytes", f"{value!r} at row {row}", remedy, TypeError)
    if any(isinstance(each, str) for _, each in values):
        row, value = next((k, each) for k, each in values if not isinstance(each, str))
        remedy = f"Make strings of all, [str(each) for each in {name}], or drop such rows."
        checks.reject(name, "hold labels of one kind", f"{value!r} at row {row} among strings", remedy, TypeError)
    number = f"Number them: np.unique({name}, return_inverse=True)[1]."
    if y.dtype.kind == "f":
        odd = ((k, each) for k, each in values if not float(each).is_integer() or not -(2.0**63) <= each < 2.0**64)
        row, value = next(odd, values[0])
        remedy = f"{number} For real targets pass loss='squared_error'."
        checks.reject(name, "hold integer or string labels for this loss", f"{value!r} at row {row}", remedy)
    if all(isinstance(each, numbers.Real | decimal.Decimal | np.bool_) for _, each in values):
        got = f"numbers from {min(each for _, each in values)} to {max(each for _, each in values)}"
        checks.reject(name, "hold labels that 64 bits hold exactly", got, number)
    got = f"dtype {y.dtype}" if y.dtype.kind != "O" else f"{checks.shown(values[0][1])} at row 0"
    checks.reject(name, "hold labels: integers, booleans or strings", got, number, TypeError)


def at(places: Array, classes: HostArray, backend: Backend, stays: bool) -> Array:
    """The labels of those class numbers, (n,): if that `stays` there, in the backend's library where it holds them."""
    theirs = _on_device(classes, backend) if stays and backend.name != HOST else None
    if theirs is not None:
        return backend.xp.take(theirs, places, axis=0)
    return classes[places if library_of(places) == HOST else backend.to_host(places)]


def _on_device(classes: HostArray, backend: Backend) -> Array | None:
    """The labels as an array of the backend's library; None where that cannot hold them, as JAX of 32 bits.

    It is decided on the host: a prediction does not wait for the device.
    """
    if classes.dtype.kind == "f":
        return backend.asarray(classes)
    signed = classes.astype(np.int64) if classes.dtype in WIDE_UNSIGNED else classes
    if classes.dtype.kind not in "biu" or not np.array_equal(signed, classes):
        return None
    try:
        backend.dtype(signed.dtype.name)
    except TypeError:  # 64-bit integers are off in JAX, which narrows them
        if not np.array_equal(signed.astype(np.int32), signed):
            return None
    return backend.asarray(signed)
