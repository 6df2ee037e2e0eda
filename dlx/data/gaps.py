"""Targets with gaps: a target may be missing in a row that has others, and each may have a weight of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlx import checks, losses
from dlx.data import labels
from dlx.data.features import HostArray

RULES = ("raise", "mask", "keep")


def rule(missing: Any, loss: losses.Loss, outputs: int) -> str:
    """The argument `missing` of `fit`, if that loss can do so."""
    remedy = "'mask' gives missing targets the weight 0, 'keep' leaves them to a loss of your own."
    checks.choice("missing", missing, RULES, remedy)
    if missing == "keep" and losses.is_own(loss):
        got = f"'keep' with {loss.name}"
        checks.reject("missing", "be 'raise' or 'mask' with a loss of dlx's", got, "Pass missing='mask'.")
    if missing == "mask":
        remedy = "Pass missing='keep', and leave out nan in"
        require_terms(loss, outputs, "missing", "be 'raise' or 'keep' with", remedy)
    return str(missing)


def require_terms(loss: losses.Loss, outputs: int, name: str, rule: str, remedy: str) -> None:
    """Raise where targets are weighted one by one, but the loss is a function of one's own, of whole rows."""
    if outputs > 1 and loss.targets != "classes" and not losses.is_own(loss):
        text = f"{rule} a loss of your own for several outputs"
        checks.reject(name, text, repr(loss.name), f"{remedy} your functions.")


def as_nan(y: HostArray) -> HostArray:
    """Numbers among which None or pandas' NA stand for what is missing, with nan in their place; others as they are."""
    found = labels.real(y) if y.dtype.kind == "O" else None
    return y if found is None or not np.isnan(found).any() else found


def whole_rows(y: HostArray) -> HostArray:
    """The rows without a gap, if there are any: by them a kind of targets is told."""
    y = as_nan(y)
    whole = ~np.isnan(y).reshape(len(y), -1).any(axis=1) if y.dtype.kind == "f" and y.ndim else np.ones(0, bool)
    return y[whole] if whole.any() else y


def require_finite(Y: HostArray, name: str, missing: str | None) -> None:
    """Raise on the first value that is not finite, or that is infinite, where missing ones are masked or kept.

    `missing` is None for targets of which none can be masked.
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
    """Raise where a row has no label: of one label a row, none is left where it is missing."""
    absent = np.isnan(y) if y.dtype.kind == "f" else np.zeros(y.shape, bool)
    if absent.any():
        row = int(np.argwhere(absent)[0, 0])
        remedy = "Drop such rows, or give them any label and a sample_weight of 0."
        checks.reject(name, "hold a label in every row for cross_entropy", f"nan at row {row}", remedy)


def masked(Y: HostArray, name: str) -> tuple[HostArray, HostArray | None]:
    """Targets with 0 in place of nan, and where there is one; None where none is missing."""
    present = ~np.isnan(Y)
    if present.all():
        return Y, None
    if not present.any():
        checks.reject(name, "hold a target that is not missing", "nan alone", "Check how it was selected.")
    return np.where(present, Y, np.zeros((), Y.dtype)), present


def with_nan(Y: HostArray, present: HostArray | None) -> HostArray:
    """The targets as they were given."""
    return Y if present is None else np.where(present, Y, np.nan)


def require_in_each_column(present: HostArray | None, rows: HostArray | None) -> None:
    """Raise where an output has no target in the rows to train on (all, if None): nothing would teach it."""
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
    """Weights (n, K) of several yes-or-no labels a row: "balanced", or a dict of 0 and 1 to weight for each label.

    Each label is taken for itself: "balanced" is n / (2 · rows of the answer) over the rows that have the label.
    """
    if ((Y != 0) & (Y != 1)).any():
        got = Y[(Y != 0) & (Y != 1)][0]
        checks.reject("class_weight", "come with labels of 0 and 1", got, "Use sample_weight instead.")
    K, answers = Y.shape[1], np.arange(2)
    found = np.empty(Y.shape)
    for k, of_label in enumerate(_by_label(class_weight, K)):
        labels = Y[:, k].astype(np.int64)
        there = labels if present is None else labels[present[:, k]]
        found[:, k] = weight_of_classes(of_label, answers, there)[labels]
    return found


def _by_label(class_weight: Any, K: int) -> list[Any]:
    """For each label "balanced", or a dict of 0 and 1 to weight."""
    rule = f"be 'balanced' or {K} dicts for several labels a row, one for each"
    remedy = f"For example [{{0: 1, 1: 5}}] * {K}; or a dict of column to such a dict."
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            checks.reject("class_weight", rule, repr(class_weight), remedy)
        return ["balanced"] * K
    if isinstance(class_weight, Mapping) and K == 1 and not any(isinstance(w, Mapping) for w in class_weight.values()):
        return [dict(class_weight)]
    if isinstance(class_weight, Mapping) and all(isinstance(each, Mapping) for each in class_weight.values()):
        unknown = [each for each in class_weight if each not in range(K)]
        if unknown:
            checks.reject("class_weight", f"name columns 0..{K - 1} of y", repr(unknown[0]), "Number them from 0.")
        return [dict(class_weight.get(k, {})) for k in range(K)]
    several = isinstance(class_weight, Sequence) and all(isinstance(each, Mapping) for each in class_weight)
    if not several:
        checks.reject("class_weight", rule, checks.shown(class_weight), remedy, TypeError)
    if len(class_weight) != K:
        checks.reject("class_weight", rule, f"{len(class_weight)} of them", remedy)
    return [dict(each) for each in class_weight]
