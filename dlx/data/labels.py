"""Labels as exact NumPy arrays, whatever object held them, and the look-up of their class numbers.

Integers never pass through float64. Strings that differ stay different: NumPy's strings of fixed width drop NULs at the
end, so that labels which end in NUL stay Python objects.
"""

from __future__ import annotations

import decimal
import numbers
from typing import Any, NoReturn

import numpy as np

from dlx import checks
from dlx.backend import HOST, Array, Backend, library_of
from dlx.host import HostArray

WIDE_UNSIGNED = (np.uint16, np.uint32, np.uint64)  # PyTorch cannot take rows of these
MISSING_TYPES = ("NoneType", "NAType", "NaTType")  # by name, since pandas need not be installed


def listed(y: Any) -> Any:
    """A list of single values as an array of objects; other things unchanged.

    NumPy would convert a list of several types to strings or floats.
    """
    if not isinstance(y, list | tuple) or not y:
        return y
    kinds = {type(value) for value in y}
    if kinds == {float} or any(hasattr(kind, "__len__") and not issubclass(kind, str | bytes) for kind in kinds):
        return y  # floats, which NumPy holds exactly, or rows, or arrays
    objects = np.empty(len(y), object)
    objects[:] = y
    return objects


def settled(y: HostArray) -> HostArray:
    """Objects in the plain dtype that holds all of them exactly, or unchanged if no dtype does.

    Integers become int64, or uint64 if int64 does not hold them. Other real numbers, also decimals, become float64.
    """
    if y.dtype.kind not in "OT" or not y.size:
        return y
    y = y.astype(object, copy=False)
    kinds = {type(value) for value in y.flat}
    if _all(kinds, str):
        return _strings(y)
    if _all(kinds, bool, np.bool_):
        return y.astype(bool)
    if _all(kinds, numbers.Integral, np.bool_):
        return _integers(y)
    if any(kind.__name__ in MISSING_TYPES for kind in kinds) or (floats := real(y)) is None:
        return y
    integers = [(x, value) for x, value in zip(floats.flat, y.flat, strict=True) if isinstance(value, numbers.Integral)]
    return floats if all(int(x) == value for x, value in integers) else y


def real(y: HostArray) -> HostArray | None:
    """Objects as float64, with nan for missing ones; None if they are not all real numbers."""
    kinds = {type(value) for value in y.flat}
    if not all(
        kind.__name__ in MISSING_TYPES or _all({kind}, numbers.Real, decimal.Decimal, np.bool_) for kind in kinds
    ):
        return None
    if any(kind.__name__ in MISSING_TYPES for kind in kinds):
        y = np.where(np.array([type(value).__name__ in MISSING_TYPES for value in y.flat]).reshape(y.shape), np.nan, y)
    try:
        return y.astype(np.float64)
    except (ArithmeticError, ValueError):  # an integer beyond all floats, or a signalling nan
        return None


def _all(kinds: set[type], *wanted: type) -> bool:
    """Whether all types are subclasses of one of the `wanted` ones."""
    return all(issubclass(kind, wanted) for kind in kinds)


def _strings(y: HostArray) -> HostArray:
    """Strings in NumPy's oldest dtype, which can be sorted, compared and saved; objects if it would drop a NUL."""
    values = [str.__str__(label) for label in y.flat]  # the value of a member of an enumeration, not its name
    if any(label.endswith("\0") for label in values):
        objects = np.empty(len(values), object)
        objects[:] = values
        return objects.reshape(y.shape)
    return np.array(values, dtype=str).reshape(y.shape)


def _integers(y: HostArray) -> HostArray:
    """Integers as int64 or uint64, or unchanged if neither holds all of them."""
    values = [int(label) for label in y.flat]
    low, high = min(values), max(values)
    if low >= -(1 << 63) and high < 1 << 63:
        return np.array(values, np.int64).reshape(y.shape)
    return np.array(values, np.uint64).reshape(y.shape) if low >= 0 and high < 1 << 64 else y


def as_integers(y: HostArray) -> HostArray | None:
    """Floats that are all equal to integers of 64 bits, as these; None for other arrays."""
    if y.dtype.kind != "f" or not (np.isfinite(y) & (y == np.trunc(y))).all():
        return None
    if ((y >= -(2.0**63)) & (y < 2.0**63)).all():
        return y.astype(np.int64)
    return y.astype(np.uint64) if ((y >= 0) & (y < 2.0**64)).all() else None


def are_strings(y: HostArray) -> bool:
    """Whether all labels are strings, whatever the dtype of the array."""
    return y.dtype.kind == "U" or (y.dtype.kind in "OT" and all(isinstance(label, str) for label in y.flat))


def spells_number(value: Any) -> bool:
    """Whether `value` is a number, or a string that spells one, such as "3.5"."""
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def are_labels(y: HostArray) -> bool:
    """Whether `y` holds integers, booleans or strings in one dimension."""
    return y.ndim == 1 and (y.dtype.kind in "biu" or are_strings(y))


def distinct(y: HostArray) -> tuple[HostArray, HostArray]:
    """The distinct labels in sorted order, and for each row the place of its label among them."""
    if y.dtype.kind != "O":
        return np.unique(y, return_inverse=True)
    objects = np.empty(len(known := sorted(set(y.tolist()))), object)
    objects[:] = known
    classes = settled(objects)
    return classes, places(y, classes)


def places(y: HostArray, classes: HostArray) -> HostArray:
    """The place of each label among `classes`, or -1 if it is not one of them.

    Labels are compared as Python compares them, which is exact between all types of numbers.
    """
    count = len(classes)
    if y.dtype.kind in "iu" and classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(count)):
        within = (y >= 0) & (y < count)
        class_numbers = np.full(len(y), -1)
        class_numbers[within] = y[within]
        return class_numbers
    place = {label: k for k, label in enumerate(classes.tolist())}
    if y.dtype.kind not in "biuf":
        return np.array([place.get(label, -1) for label in y.tolist()], np.int64)
    distinct_labels, rows = np.unique(y, return_inverse=True)
    return np.array([place.get(label, -1) for label in distinct_labels.tolist()], np.int64)[rows]


def is_missing(value: Any) -> bool:
    """Whether `value` stands for a missing value: None, nan, or pandas' NA or NaT."""
    if isinstance(value, decimal.Decimal):  # a signalling nan raises if it is compared
        return value.is_nan()
    return type(value).__name__ in MISSING_TYPES or (isinstance(value, numbers.Number | np.generic) and value != value)


def reject_labels(y: HostArray, name: str) -> NoReturn:
    """Raise for an array (n,) that holds no labels of one type; the error says what is wrong and how to mend it."""
    objects = y.astype(object) if y.dtype.kind in "fOTSV" else y  # dates would become integers
    values = [*enumerate(objects.flat)]
    for row, value in values:
        if is_missing(value):
            checks.reject(name, "have no missing labels", f"{value!r} at row {row}", "Fill or drop such rows.")
    row, value = next(((k, label) for k, label in values if isinstance(label, bytes)), (0, None))
    if value is not None:
        remedy = f"Decode them: [each.decode() for each in {name}]."
        checks.reject(name, "hold strings, not bytes", f"{value!r} at row {row}", remedy, TypeError)
    if any(isinstance(label, str) for _, label in values):
        row, value = next((k, label) for k, label in values if not isinstance(label, str))
        remedy = f"Make strings of all, [str(each) for each in {name}], or drop such rows."
        checks.reject(name, "hold labels of one kind", f"{value!r} at row {row} among strings", remedy, TypeError)
    number = f"Number them: np.unique({name}, return_inverse=True)[1]."
    if y.dtype.kind == "f":
        bad = ((k, label) for k, label in values if not float(label).is_integer() or not -(2.0**63) <= label < 2.0**64)
        row, value = next(bad, values[0])
        remedy = f"{number} For real targets pass loss='squared_error'."
        checks.reject(name, "hold integer or string labels for this loss", f"{value!r} at row {row}", remedy)
    if all(isinstance(label, numbers.Real | decimal.Decimal | np.bool_) for _, label in values):
        got = f"numbers from {min(label for _, label in values)} to {max(label for _, label in values)}"
        checks.reject(name, "hold labels that 64 bits hold exactly", got, number)
    got = f"dtype {y.dtype}" if y.dtype.kind != "O" else f"{checks.shown(values[0][1])} at row 0"
    checks.reject(name, "hold labels: integers, booleans or strings", got, number, TypeError)


def at(places: Array, classes: HostArray, backend: Backend, stays: bool) -> Array:
    """The labels (n,) of class numbers (n,), `places`.

    They are an array of the backend's library if they are to `stay` there and it can hold them, else of the host.
    """
    if stays and backend.name != HOST:
        own_numbers = classes.dtype == np.int64 and np.array_equal(classes, np.arange(len(classes)))
        if own_numbers and places.dtype == backend.xp.int64:
            return places
        on_device = _on_device(classes, backend)
        if on_device is not None:
            return backend.xp.take(on_device, places, axis=0)
    return classes[places if library_of(places) == HOST else backend.to_host(places)]


def _on_device(classes: HostArray, backend: Backend) -> Array | None:
    """The labels as an array of the backend's library; None if it cannot hold them, as JAX without 64-bit integers.

    This is decided on the host, so that a prediction does not wait for the device.
    """
    if classes.dtype.kind == "f":
        return backend.asarray(classes)
    signed = classes.astype(np.int64) if classes.dtype in WIDE_UNSIGNED else classes
    if classes.dtype.kind not in "biu" or not np.array_equal(signed, classes):
        return None
    try:
        backend.dtype(signed.dtype.name)
    except TypeError:  # JAX without 64-bit integers, which narrows them
        if not np.array_equal(signed.astype(np.int32), signed):
            return None
    return backend.asarray(signed)
