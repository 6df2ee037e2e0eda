"""Missing targets, also in rows that have other targets, and weights for each target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlx import checks, losses
from dlx.data import labels
from dlx.host import HostArray

MISSING_RULES = ("raise", "mask", "keep")


def missing_rule(missing: Any, loss: losses.Loss, outputs: int) -> str:
    """Check the argument `missing` of `fit` for this loss and number of outputs, and return it."""
    remedy = "'mask' gives missing targets the weight 0, 'keep' leaves them to a loss of your own."
    checks.choice("missing", missing, MISSING_RULES, remedy)
    if missing == "keep" and losses.is_own(loss):
        got = f"'keep' with {loss.name}"
        checks.reject("missing", "be 'raise' or 'mask' with a loss of dlx's", got, "Pass missing='mask'.")
    if missing == "mask":
        remedy = "Pass missing='keep', and leave out nan in"
        require_terms(loss, outputs, "missing", "be 'raise' or 'keep' with", remedy)
    return str(missing)


def require_terms(loss: losses.Loss, outputs: int, name: str, rule: str, remedy: str) -> None:
    """Raise if targets need a weight each, but the loss is a user's own, which only gives one value per row."""
    if outputs > 1 and loss.targets != "classes" and not losses.is_own(loss):
        text = f"{rule} a loss of your own for several outputs"
        checks.reject(name, text, repr(loss.name), f"{remedy} your functions.")


def as_nan(y: HostArray) -> HostArray:
    """Objects that are numbers, None or pandas' NA, as floats with nan for the missing ones; other arrays unchanged."""
    floats = labels.real(y) if y.dtype.kind == "O" else None
    return y if floats is None or not np.isnan(floats).any() else floats


def whole_rows(y: HostArray) -> HostArray:
    """The rows without a missing target, which show the kind of targets; all rows if there is no such row."""
    y = as_nan(y)
    complete = ~np.isnan(y).reshape(len(y), -1).any(axis=1) if y.dtype.kind == "f" and y.ndim else np.ones(0, bool)
    return y[complete] if complete.any() else y


def require_finite_targets(Y: HostArray, name: str, missing: str | None) -> None:
    """Raise at the first value that is not finite. With `missing` "mask" or "keep", nan is allowed.

    `missing` is None for targets that cannot be masked.
    """
    good = ~np.isinf(Y) if missing in ("mask", "keep") else np.isfinite(Y)
    if good.all():
        return
    row, column = np.argwhere(~good)[0]
    remedy = "Fill or drop such rows."
    if missing == "raise" and np.isnan(Y[row, column]):
        remedy = "Fill or drop such rows, or pass missing='mask' to fit, for which missing targets weigh 0."
    checks.reject(name, "be finite", f"{Y[row, column]} at row {row}, column {column}", remedy)


def require_none(y: HostArray, name: str) -> None:
    """Raise if a row has no label. A missing label cannot be masked where it is the only one of its row."""
    absent = np.isnan(y) if y.dtype.kind == "f" else np.zeros(y.shape, bool)
    if absent.any():
        row = int(np.argwhere(absent)[0, 0])
        remedy = "Drop such rows, or give them any label and a sample_weight of 0."
        checks.reject(name, "hold a label in every row for cross_entropy", f"nan at row {row}", remedy)


def masked(Y: HostArray, name: str) -> tuple[HostArray, HostArray | None]:
    """Targets with 0 instead of nan, and an array that is true where a target is present, or None if all are."""
    present = ~np.isnan(Y)
    if present.all():
        return Y, None
    if not present.any():
        checks.reject(name, "hold a target that is not missing", "nan alone", "Check how it was selected.")
    return np.where(present, Y, np.zeros((), Y.dtype)), present


def with_nan(Y: HostArray, present: HostArray | None) -> HostArray:
    """The targets as the user passed them, with nan where one is missing: the inverse of `masked`."""
    return Y if present is None else np.where(present, Y, np.nan)


def require_in_each_column(present: HostArray | None, rows: HostArray | None) -> None:
    """Raise if an output has no target in the rows to train on (None: all rows), as it could not be trained."""
    if present is None:
        return
    empty = np.flatnonzero(~(present if rows is None else present[rows]).any(axis=0))
    if empty.size:
        where = "" if rows is None else " on the rows to train on"
        remedy = "Drop it, and its output in layer_dims." if rows is None else "Hold out fewer rows, or (X_val, y_val)."
        checks.reject("y", f"hold a target in each column{where}", f"none in column {empty[0]}", remedy)


def mean(w: HostArray, present: HostArray | None) -> float:
    """The mean weight of the targets that are present."""
    if present is None:
        return float(w.mean())
    return float(w.sum() / np.broadcast_to(present, w.shape).sum())


def weights_of_labels(
    class_weight: Any,
    Y: HostArray,
    present: HostArray | None,
    weight_of_classes: Callable[[Any, HostArray, HostArray], HostArray],
) -> HostArray:
    """Weights (n, K) for several yes-or-no labels a row: "balanced", or for each label a dict of 0 and 1 to weight.

    Labels are weighted apart. "balanced" gives an answer the weight n / (2 · rows with this answer), where n counts the
    rows that have the label.
    """
    if ((Y != 0) & (Y != 1)).any():
        got = Y[(Y != 0) & (Y != 1)][0]
        checks.reject("class_weight", "come with labels of 0 and 1", got, "Use sample_weight instead.")
    K, answers = Y.shape[1], np.arange(2)
    w = np.empty(Y.shape)
    for k, of_label in enumerate(_by_label(class_weight, K)):
        labels = Y[:, k].astype(np.int64)
        known = labels if present is None else labels[present[:, k]]
        w[:, k] = weight_of_classes(of_label, answers, known)[labels]
    return w


def _by_label(class_weight: Any, K: int) -> list[Any]:
    """For each of K labels "balanced", or a dict of 0 and 1 to weight."""
    rule = f"be 'balanced' or {K} dicts for several labels a row, one for each"
    remedy = f"For example [{{0: 1, 1: 5}}] * {K}; or a dict of column to such a dict."
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            checks.reject("class_weight", rule, repr(class_weight), remedy)
        return ["balanced"] * K
    if isinstance(class_weight, Mapping) and K == 1 and not any(isinstance(w, Mapping) for w in class_weight.values()):
        return [dict(class_weight)]
    if isinstance(class_weight, Mapping) and all(isinstance(weights, Mapping) for weights in class_weight.values()):
        unknown = [column for column in class_weight if column not in range(K)]
        if unknown:
            checks.reject("class_weight", f"name columns 0..{K - 1} of y", repr(unknown[0]), "Number them from 0.")
        return [dict(class_weight.get(k, {})) for k in range(K)]
    are_dicts = isinstance(class_weight, Sequence) and all(isinstance(weights, Mapping) for weights in class_weight)
    if not are_dicts:
        checks.reject("class_weight", rule, checks.shown(class_weight), remedy, TypeError)
    if len(class_weight) != K:
        checks.reject("class_weight", rule, f"{len(class_weight)} of them", remedy)
    return [dict(weights) for weights in class_weight]
