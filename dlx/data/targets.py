"""Checks of targets and weights on the host, where a bad label raises; as an index on a GPU it would not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import checks, losses
from dlx.backend import HOST, Array, Backend, get_backend, host_array, library_of
from dlx.data import gaps, labels
from dlx.data.features import Rows, as_array, compressed, require_finite
from dlx.host import HostArray


class Targets(NamedTuple):
    """Checked targets on the host.

    `Y` (n, K) are the targets; if `one_hot`, `Y` (n, 1) are class numbers that stand for one-hot rows. `classes` (K,)
    are the labels that class numbers stand for, or None. `labels` (n,) is the class number of each row, or None.
    `present` (n, K) is false where a target is missing, for which `Y` holds 0; it is None if none is missing.
    `outputs` is the number of targets in a row that may have a weight each, and `several` tells whether they are
    yes-or-no labels.
    """

    Y: HostArray
    classes: HostArray | None = None
    labels: HostArray | None = None
    one_hot: bool = False
    present: HostArray | None = None
    outputs: int = 1
    several: bool = False


def on_host(y: Any, backend: Backend, name: str = "y") -> HostArray:
    """`y`, of the host or of the backend's library, on the host in a plain dtype that holds it exactly."""
    if library_of(y) == backend.name != HOST:
        host = backend.to_host(y)
        real = backend.xp.isdtype(y.dtype, "real floating")
        return host.astype(np.float32) if real and host.dtype.kind != "f" else host  # from bfloat16, which NumPy lacks
    if compressed(y):
        one_hot = "; for one-hot rows with loss='cross_entropy'" if name.startswith("y") else ""
        remedy = f"Pass {name}.toarray(){one_hot}."
        checks.reject(name, "be dense", type(y).__name__, remedy, TypeError)
    return labels.settled(host_array(as_array(labels.listed(y), name), name))


def hold_zero_and_one(y: HostArray) -> bool:
    """Whether floats are all 0 or 1 or missing, and both occur, as in yes-or-no labels and one-hot rows."""
    yes = y == 1
    return y.dtype.kind == "f" and bool(yes.any() and not yes.all() and (yes | (y == 0) | np.isnan(y)).all())


def are_one_hot(y: HostArray) -> bool:
    """Whether each row holds a single 1, and otherwise zeros."""
    return y.ndim == 2 and y.shape[1] > 1 and bool(((y == 1).sum(axis=1) == 1).all() and (y != 0).sum() == len(y))


def require_kind(loss: losses.Loss, kinds: Sequence[losses.Targets], remedy: str) -> None:
    """Raise where the loss takes no targets of one of these kinds."""
    if loss.targets not in kinds:
        checks.reject("loss", f"be one for {' or '.join(kinds)}", loss.name, remedy)


def one_label(loss: losses.Loss, outputs: int) -> bool:
    """Whether the network answers one question with yes or no."""
    return loss.targets == "binary" and outputs == 1


def own_classes(given: Any, loss: losses.Loss, outputs: int) -> HostArray | None:
    """Check the labels that a user names for the class numbers, and return a copy; None if `given` is None."""
    if given is None:
        return None
    if loss.targets not in ("classes", "binary"):
        checks.reject("classes", f"be None for loss {loss.name}", checks.shown(given), "It has no labels.")
    classes, count = on_host(given, get_backend(HOST), "classes"), 2 if one_label(loss, outputs) else outputs
    if not labels.are_labels(classes) or not len(classes) == len(labels.distinct(classes)[0]) == count:
        rule = f"be {count} distinct labels: integers, booleans or strings"
        checks.reject("classes", rule, classes.tolist(), "Name one for each class number.")
    return classes.copy()


def known_classes(net: Any) -> HostArray | None:
    """The labels that a network predicts: its own, or else class numbers; None if it predicts no labels."""
    if net.classes is not None or not (net.loss.targets == "classes" or one_label(net.loss, net.layer_dims[-1])):
        return net.classes  # type: ignore[no-any-return]
    return np.arange(max(net.layer_dims[-1], 2))


def check(
    y: HostArray,
    loss: losses.Loss,
    outputs: int,
    n: int,
    known: HostArray | None = None,
    name: str = "y",
    missing: str | None = "raise",
) -> Targets:
    """Check that `y` holds n targets that the loss takes, and return them.

    `known` are the labels of earlier data, which `y` must share. `missing` is as in `fit`; it is None for callers
    without such an argument, who need all targets.
    """
    if y.ndim == 0 or y.shape[0] != n:
        remedy = "Check how they were selected."
        checks.reject(name, f"have {n} rows, one for each row of X", f"shape {y.shape}", remedy)
    if y.ndim > 2:
        checks.reject(name, f"have shape ({n},) or ({n}, {outputs})", y.shape, "Flatten its last axes.")
    if known is not None and labels.are_strings(known) and y.ndim == 1 and not labels.are_strings(y):
        if y.dtype.kind in "SOT":
            labels.reject_labels(y, name)
        checks.reject(name, "hold strings, as the training data do", f"dtype {y.dtype}", "Convert it.", TypeError)
    if missing in ("mask", "keep"):
        y = gaps.as_nan(y)
        if loss.targets == "classes":
            gaps.require_none(y, name)
    if y.ndim == 1 and (loss.targets == "classes" or one_label(loss, outputs)):
        integers = labels.as_integers(y)
        y = y if integers is None else integers
        if labels.are_labels(y):
            one_hot = loss.targets == "classes"
            return _class_targets(y, outputs if one_hot else 2, known, name)._replace(one_hot=one_hot)
        if loss.targets == "classes" or y.dtype.kind != "f":
            labels.reject_labels(y, name)
    if loss.targets == "classes":
        return _probabilities(y, outputs, name)
    Y = _real_columns(y, name)
    shared = isinstance(loss.settings.get("q"), list) and Y.shape[1] == 1  # every quantile has the same target
    if Y.shape[1] != outputs and not shared:
        rule = f"have {outputs} columns to match the last layer"
        remedy = f"Change layer_dims[-1] to {Y.shape[1]}, or {name}."
        if y.ndim == 1 and (labels.are_labels(y) or labels.as_integers(Y[~np.isnan(Y)]) is not None):
            if np.isnan(Y).any():
                labels.reject_labels(y, name)
            remedy = f"Change layer_dims[-1] or {name}; if these are class labels, pass loss='cross_entropy'."
        checks.reject(name, rule, f"{Y.dtype} of shape {y.shape}", remedy)
    gaps.require_finite_targets(Y, name, missing)
    Y, present = gaps.masked(Y, name) if missing == "mask" else (Y, None)
    if loss.targets == "binary" and ((Y < 0) | (Y > 1)).any():
        bad = Y[(Y < 0) | (Y > 1)][0]
        checks.reject(name, "lie in [0, 1] for binary_cross_entropy", bad, "Encode no as 0 and yes as 1.")
    if loss.targets == "counts" and (Y < 0).any():
        checks.reject(name, "be >= 0 for poisson", Y[Y < 0][0], "Counts are not negative.")
    classes = np.arange(2) if one_label(loss, outputs) else None
    return Targets(Y, classes, present=present, outputs=outputs, several=loss.targets == "binary")


def _real_columns(y: HostArray, name: str) -> HostArray:
    """Targets that must be real numbers, in two dimensions."""
    numbers = labels.real(y) if y.dtype.kind == "O" else y
    if numbers is None or numbers.dtype.kind not in "biuf":
        remedy = f"Convert it with {name}.astype(float); class labels are one a row: numpy.ravel({name}), none missing."
        if labels.are_strings(y) and all(map(labels.spells_number, y.flat)):
            remedy = f"Convert it: numpy.asarray({name}, float)."
        elif y.dtype.kind in "UST" or labels.are_strings(y):
            remedy = f"Class labels are one a row: numpy.ravel({name}); of several columns encode each as numbers."
        elif y.dtype.kind in "Mm":
            remedy = f"Make numbers of them, for example ({name} - {name}.min()) / numpy.timedelta64(1, 'D')."
        checks.reject(name, "hold real numbers for this loss", f"dtype {y.dtype}", remedy, TypeError)
    return numbers[:, None] if numbers.ndim == 1 else numbers


def _probabilities(y: HostArray, outputs: int, name: str) -> Targets:
    """Targets that are rows of probabilities, checked."""
    Y = _real_columns(y, name)
    gaps.require_finite_targets(Y, name, None)
    remedy = f"Pass labels as numpy.ravel({name}); for several labels a row use loss='binary_cross_entropy'."
    if Y.shape[1] != outputs:
        checks.reject(name, f"hold one label a row, or rows of {outputs} probabilities", f"shape {y.shape}", remedy)
    bad = (Y < 0).any(axis=1) | (np.abs(Y.sum(axis=1) - 1.0) > 1e-4)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        got = f"row {row} with smallest {Y[row].min():g} and sum {Y[row].sum():g}"
        checks.reject(name, "hold rows of probabilities, >= 0 and with sum 1", got, remedy)
    return Targets(Y, np.arange(outputs))


def _class_targets(y: HostArray, count: int, known: HostArray | None, name: str) -> Targets:
    """Labels as class numbers (n, 1), among the `known` labels, or else among the `count` labels that `y` defines."""
    if known is None:
        classes, numbers = _defined(y, count, name)
    else:
        classes, numbers = known, _looked_up(y, known, name)
    numbers = numbers.astype(np.int32)
    return Targets(numbers[:, None], classes, numbers)


def _looked_up(y: HostArray, known: HostArray, name: str) -> HostArray:
    """The class numbers of labels that must be `known` from earlier data."""
    if labels.are_strings(y) != labels.are_strings(known):
        checks.reject(name, "hold numbers, as the training data do", f"dtype {y.dtype}", "Convert it.", TypeError)
    numbers = labels.places(y, known)
    if (numbers < 0).any():
        got = repr(y[numbers < 0][:1].tolist()[0])
        checks.reject(name, "hold labels of the training data", got, "Drop such rows.")
    return numbers


def _defined(y: HostArray, count: int, name: str) -> tuple[HostArray, HostArray]:
    """The labels that training data define, and the class numbers of the rows.

    Integers within 0..count-1 are class numbers themselves, even if some of these do not occur. Booleans always define
    False and True.
    """
    if y.dtype.kind == "b" and count == 2:
        return np.array([False, True]), y
    if y.dtype.kind in "iu" and ((y >= 0) & (y < count)).all():
        return np.arange(count), y
    classes, numbers = labels.distinct(y)
    if len(classes) != count:
        are_integers = y.dtype.kind in "iu"
        rule = f"be labels 0..{count - 1}, or {count} others," if are_integers else f"hold {count} distinct labels"
        first = f"{', '.join(map(repr, classes[:5].tolist()))}{', ...' if len(classes) > 5 else ''}"
        got = f"{len(classes)} distinct ones ({first})" if len(classes) > 1 else f"{first} alone"
        remedy = f"Change layer_dims[-1] to {len(classes)}" if len(classes) > 1 else "Check how they were selected"
        remedy += "; for real targets pass loss='squared_error'." if are_integers else "."
        checks.reject(name, f"{rule} to match the last layer", got, remedy)
    return classes.astype(np.int64) if classes.dtype.kind in "iu" and classes[-1] < 1 << 63 else classes, numbers


def weights(sample_weight: Any, class_weight: Any, target: Targets, backend: Backend) -> HostArray | None:
    """The product of sample weights and class weights, (n, 1) or (n, K) float64 on the host; None without weights.

    Missing targets have weight 0.
    """
    w = None
    if sample_weight is not None:
        w = _sample_weights(on_host(sample_weight, backend, "sample_weight"), target)
    if class_weight is not None:
        by_class = _class_weights(class_weight, target)
        w = by_class if w is None else w * by_class
        if not w.any():
            remedy = "Use 1 for a plain class."
            checks.reject("class_weight", "leave some row a weight above 0", "0 for every row", remedy)
    if target.present is not None:
        w = target.present * (1.0 if w is None else w)
        if not w.any():
            rule, got = "leave some target that is not missing a weight above 0", "0 for each of them"
            checks.reject("sample_weight", rule, got, "Use 1 for a plain target.")
    return w


def _sample_weights(w: HostArray, target: Targets) -> HostArray:
    """Weights of rows (n, 1), or of targets (n, K), divided by the largest one, so that no sum overflows."""
    n, K = target.Y.shape[0], target.outputs
    remedy = "Use 1 for a plain row, 0 to leave one out."
    if w.dtype.kind not in "biuf":
        checks.reject("sample_weight", "hold real numbers", f"dtype {w.dtype}", remedy, TypeError)
    if w.shape != (n,) and (target.one_hot or w.shape != (n, K)):
        or_targets = f", or one for each target, ({n}, {K})" if K > 1 else ""
        checks.reject("sample_weight", f"be {n} numbers, one for each row of X{or_targets}", f"shape {w.shape}", remedy)
    w = w.astype(np.float64).reshape(n, -1)
    if not np.isfinite(w).all() or (w < 0).any() or not w.any():
        checks.reject("sample_weight", "be finite, >= 0 and not all 0", f"{w.min():g} to {w.max():g}", remedy)
    scaled: HostArray = w / w.max()
    return scaled


def _class_weights(class_weight: Any, target: Targets) -> HostArray:
    """Weights by class: of rows (n, 1), or of several yes-or-no labels a row, (n, K)."""
    if target.several:
        return gaps.weights_of_labels(class_weight, target.Y, target.present, _weight_of_classes)
    if target.classes is None or target.labels is None:
        got, remedy = "other targets", "Use sample_weight instead."
        checks.reject("class_weight", "come with one label a row, or with several yes-or-no labels", got, remedy)
    return _weight_of_classes(class_weight, target.classes, target.labels)[target.labels, None]


def _weight_of_classes(class_weight: Any, classes: HostArray, labels: HostArray) -> HostArray:
    """The weight of each class: "balanced", or from a dict of label to weight, in which 1 is the default.

    "balanced" is n / (classes that occur · rows of the class), as in scikit-learn.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if isinstance(class_weight, str) and class_weight == "balanced":
        return np.where(counts > 0, counts.sum() / ((counts > 0).sum() * np.maximum(counts, 1)), 0.0)
    if not isinstance(class_weight, dict):
        kind = ValueError if isinstance(class_weight, str) else TypeError
        rule, remedy = "be 'balanced' or a dict of label to weight", "For example {0: 1, 1: 5}."
        checks.reject("class_weight", rule, repr(class_weight), remedy, kind)
    weight_of = np.ones(len(classes))
    for label, weight in class_weight.items():
        numbers = [k for k, known in enumerate(classes.tolist()) if known == label]
        if not numbers:
            checks.reject("class_weight", "name labels of y", repr(label), f"They are {classes.tolist()}.")
        remedy = "Use 1 for a plain class."
        weight_of[numbers] = checks.number(f"class_weight[{label!r}]", weight, low=0, remedy=remedy)
    return weight_of


def to_mean_one(
    w: HostArray | None, rows: HostArray | None, held_out: HostArray | None, present: HostArray | None = None
) -> HostArray | None:
    """Weights scaled to mean 1 over the `rows` to train on (None: all), and over the rows held out.

    Only their proportions matter. Means are over the targets that are `present` (None: all).
    """
    if w is None:
        return None
    w = w / w.max()  # so that the mean of huge weights does not overflow
    if rows is None or held_out is None:
        return np.asarray(w / gaps.mean(w, present))
    for part, text in ((rows, "train on"), (held_out, "hold out")):
        if not w[part].any():
            rule, got = f"leave weight on the rows to {text}", "0 for each of them"
            checks.reject("validation", rule, got, "Use another share, or (X_val, y_val).")
        w[part] /= gaps.mean(w[part], None if present is None else present[part])
    return w


def split(target: Targets, share: float, rng: np.random.Generator) -> tuple[HostArray, HostArray]:
    """Row numbers for training and for validation. Labels keep their proportions, and each one has a row for training.

    The rows are shuffled and sorted by label. The first row of each label stays for training, and of the others every
    (1 / share)-th is held out.
    """
    n = target.Y.shape[0]
    order = rng.permutation(n)
    if target.labels is not None:
        order = order[np.argsort(target.labels[order], kind="stable")]
        groups = target.labels[order]
        candidates = order[1:][groups[1:] == groups[:-1]]
    else:
        candidates = order[1:]
    count = min(round(share * n), len(candidates))
    if count == 0:
        remedy = "Use a larger share, more data, or (X_val, y_val)."
        checks.reject("validation", f"leave rows on both sides of {n}", share, remedy)
    held_out = np.sort(candidates[(np.arange(count) * len(candidates) + len(candidates) // 2) // count])
    return np.setdiff1d(np.arange(n), held_out, assume_unique=True), held_out


def place(target: Targets, w: HostArray | None, X: Array, backend: Backend, dtype: str, name: str = "y") -> Rows:
    """`X` as it is, with targets and weights on the backend."""
    Y = backend.asarray(target.Y, "int32" if target.one_hot else dtype)
    if not target.one_hot and not np.isnan(target.Y.min()):  # nan is left for a loss of the user's own
        require_finite(Y, backend, name)
    return Rows(X, Y, None if w is None else backend.asarray(w, dtype), class_numbers(target, backend))


def class_numbers(target: Targets, backend: Backend) -> Array | None:
    """The class numbers 0..K-1, (1, K), on the backend; None if the targets are no class numbers."""
    if not target.one_hot or target.classes is None:
        return None
    return backend.asarray(np.arange(len(target.classes))[None, :], "int32")


def require_fit(target: Targets, dtype: str, name: str = "y") -> None:
    """Raise if real targets are too large for the dtype in which a network computes."""
    if not target.one_hot and not np.isnan(target.Y.min()):  # nan is left for a loss of the user's own
        require_finite(target.Y, get_backend(HOST), name, dtype)
