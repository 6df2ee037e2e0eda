"""The JSON description of a network, the tensors that it promises, and the way back to the arguments of `Network`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlx import activations, checks, losses
from dlx.activations import ACTIVATIONS, Activation
from dlx.data import labels
from dlx.files.container import Layout, NamedArrays
from dlx.host import HostArray
from dlx.losses import LOSSES, Loss
from dlx.training.loop import ORDER
from dlx.version import __version__

KEYS = ["activation", "classes", "dtype", "feature_names", "history", "layer_dims", "loss", "made_by"]
MISSING_KEY = "missing"  # the rule for missing targets, where it is not "raise"
TF32_KEY = "tf32"  # True, where float32 products are TF32 on CUDA devices
TRAINING = "training"  # the state of a training, in a checkpoint
TRAINING_KEYS = ["best_epoch", "drawn_from", "ended", "epoch", "first_drawn_from", "lbfgs", "limit", "position"]
TRAINING_KEYS += ["seconds", "settings", "slots", "updates"]
HISTORY, SLOTS, BEST = "history/", "slots/", "best/"  # prefixes of the names of tensors
OWN = "functions of your own"
MOST_LAYERS, MOST_SLOTS = 10_000, 8  # so that few bytes cannot promise many tensors
MOST_LETTERS, MOST_FIGURES = 1 << 22, 1 << 26  # so that few bytes do not become many in memory


def described(part: Activation | Loss) -> dict[str, Any] | None:
    """Name and settings of an activation or loss of dlx; None for a user's own, which is code."""
    own = activations.is_own(part) if isinstance(part, Activation) else losses.is_own(part)
    return {"name": part.name, "settings": dict(part.settings)} if own else None


def activation_from(entry: Mapping[str, Any]) -> Activation:
    """The activation with the name and settings of this entry."""
    return ACTIVATIONS[entry["name"]](**entry["settings"])


def loss_from(entry: Mapping[str, Any]) -> Loss:
    """The loss with the name and settings of this entry."""
    return LOSSES[entry["name"]](**entry["settings"])


def description_of(net: Any, history: NamedArrays) -> dict[str, Any]:
    """The description of a `Network`, with None for each function of the user's own.

    `history` is the result of `history_arrays`.
    """
    return {
        **({} if net.missing == "raise" else {MISSING_KEY: net.missing}),
        **({TF32_KEY: True} if net.tf32 else {}),
        "activation": [described(activation) for activation in net.activation],
        "classes": None if net.classes is None else net.classes.tolist(),
        "dtype": net.dtype,
        "feature_names": net.feature_names,
        "history": {name.removeprefix(HISTORY): figures.size for name, figures in history.items()},
        "layer_dims": list(net.layer_dims),
        "loss": described(net.loss),
        "made_by": f"dlx {__version__}",
    }


def require_readable(description: Mapping[str, Any]) -> None:
    """Raise if `layout` would refuse a file with this description."""
    if len(description["layer_dims"]) > MOST_LAYERS:
        remedy = "Save net.params with numpy."
        checks.reject("save", f"be of at most {MOST_LAYERS} layers", len(description["layer_dims"]), remedy)
    if _letters(description["classes"]) > MOST_LETTERS:
        rule, got = f"have at most {MOST_LETTERS} letters, all as long as the longest", _letters(description["classes"])
        checks.reject("classes", rule, got, "Number the labels, and save their names elsewhere.")
    if sum(description["history"].values()) > MOST_FIGURES:
        remedy = "Shorten net.history."
        checks.reject("history", f"hold at most {MOST_FIGURES} numbers", sum(description["history"].values()), remedy)


def _letters(classes: Any) -> int:
    """The number of letters of all labels, when NumPy makes all as long as the longest."""
    return len(classes) * max(map(len, classes)) if classes and isinstance(classes[0], str) else 0


def require_describable(description: Mapping[str, Any]) -> None:
    """Raise if the network has functions of the user's own, which no file can hold."""
    if None in (*description["activation"], description["loss"]):
        rule = "be of a network with dlx's own activations and loss"
        remedy = "No file can hold code: save net.params with numpy, and rebuild with dlx.Network(params, ...)."
        checks.reject("save", rule, OWN, remedy)


def tensors_of(pairs: Sequence[tuple[Any, Any]], prefix: str = "") -> dict[str, Any]:
    """The arrays of the pairs (W, b) by the names of their tensors: the inverse of `pairs_of`."""
    tensors = ((f"{prefix}{name}{l}", x) for l, pair in enumerate(pairs, 1) for name, x in zip("Wb", pair, strict=True))
    return dict(tensors)


def pairs_of(arrays: NamedArrays, layers: int, prefix: str = "") -> list[tuple[Any, Any]]:
    """The pairs (W, b) of all layers from tensors with this prefix: the inverse of `tensors_of`."""
    return [(arrays[f"{prefix}W{l}"], arrays[f"{prefix}b{l}"]) for l in range(1, layers + 1)]


def history_arrays(history: Mapping[str, Any]) -> dict[str, HostArray]:
    """The history as tensors. Raises if a callback has added anything but lists of numbers."""
    try:
        "".join(history).encode()  # raises if a name is no text, or has no UTF-8
        tensors = {HISTORY + name: _figures(figures) for name, figures in history.items()}
    except (TypeError, ValueError, AttributeError, OverflowError) as reason:
        remedy = "Take out of net.history what is not a list of numbers."
        checks.reject("history", "be a dict of lists of numbers to be saved", reason, remedy)
    return tensors


def _figures(figures: Any) -> HostArray:
    """One list of the history as float64."""
    plain = type(figures) is list and {*map(type, figures)} <= {float}  # as fit's own, which may be long
    return np.array(figures if plain else [_figure(value) for value in figures], np.float64)


def _figure(value: Any) -> float:
    """A number of the history; a text is none, even if float reads it."""
    if isinstance(value, str | bytes):
        raise TypeError(f"a text, {value[:40]!r}")
    return float(value)


def history_of(description: Mapping[str, Any], arrays: NamedArrays) -> dict[str, list[float]]:
    """The history that a file holds."""
    names = sorted(description["history"], key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return {name: arrays[HISTORY + name].tolist() for name in names}


def layout(description: Mapping[str, Any]) -> Layout:
    """Names, dtypes and shapes of the tensors that a description promises. Any error means that the file is bad."""
    if sorted({*description} - {TRAINING, MISSING_KEY, TF32_KEY}) != KEYS:
        raise KeyError(f"description of {sorted(description)}")
    if description.get(MISSING_KEY, "mask") not in ("mask", "keep"):
        raise ValueError(f"missing targets that {description[MISSING_KEY]}")
    if description.get(TF32_KEY, True) is not True:
        raise ValueError(f"TF32 that is {description[TF32_KEY]}")
    dims, dtype = description["layer_dims"], description["dtype"]
    if dtype not in ("float32", "float64") or any(type(d) is not int or d < 1 for d in dims):
        raise ValueError(f"layers {dims} of dtype {dtype}")
    if not 2 <= len(dims) <= MOST_LAYERS:
        raise ValueError(f"{len(dims)} widths of layers")
    classes = description["classes"]
    if classes is not None and (len({*map(type, classes)}) != 1 or type(classes[0]) not in (str, int, bool)):
        raise ValueError("labels of several kinds")  # NumPy would make all as wide as the widest
    if _letters(classes) > MOST_LETTERS or sum(description["history"].values()) > MOST_FIGURES:
        raise ValueError("more labels or figures than dlx writes")
    pairs = [((dtype, (a, b)), (dtype, (1, b))) for a, b in itertools.pairwise(dims)]
    tensors = tensors_of(pairs) | {HISTORY + name: ("f8", (n,)) for name, n in description["history"].items()}
    if TRAINING not in description:
        return tensors
    training = description[TRAINING]
    if sorted(training) != TRAINING_KEYS:
        raise KeyError(f"training of {sorted(training)}")
    for k in range(count(training["slots"], MOST_SLOTS)):
        tensors |= tensors_of(pairs, f"{SLOTS}{k}/")
    if training["best_epoch"] is not None:
        tensors |= tensors_of(pairs, BEST)
    if training["lbfgs"] is not None:
        size, memory = sum((a + 1) * b for a, b in itertools.pairwise(dims)), len(training["lbfgs"]["sy"])
        tensors |= {"gradient": (dtype, (size,)), "s": (dtype, (memory, size)), "y": (dtype, (memory, size))}
    return tensors | {"losses": (dtype, (count(training["position"], 1 << 32),))}


def count(value: Any, most: float = math.inf) -> int:
    """Check that a number in a file is a count of at most `most`. Any error means that the file is bad."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"a count of {value}")
    return value


def arguments_of(description: Mapping[str, Any], arrays: NamedArrays) -> dict[str, Any]:
    """The arguments of `Network` that a file holds. Any error means that the file is bad."""
    layers = len(description["layer_dims"]) - 1
    return {
        "params": pairs_of(arrays, layers),
        "activation": [activation_from(entry) for entry in description["activation"]],
        "loss": loss_from(description["loss"]),
        "history": history_of(description, arrays),
        "classes": _exact_labels(description["classes"]),
        **{name: description[name] for name in ("dtype", "feature_names", MISSING_KEY) if name in description},
    }


def _exact_labels(classes: Any) -> HostArray | None:
    """A list of labels as an array that holds them exactly."""
    return None if classes is None else labels.settled(labels.listed(classes))
