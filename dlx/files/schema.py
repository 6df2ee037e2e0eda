"""What a file says of a network in JSON, which tensors that promises, and the way back: names and numbers, no code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlx import activations, checks, losses
from dlx.activations import ACTIVATIONS, Activation
from dlx.data import labels
from dlx.files.container import Arrays, Layout
from dlx.losses import LOSSES, Loss
from dlx.training.loop import ORDER
from dlx.version import __version__

KEYS = ["activation", "classes", "dtype", "feature_names", "history", "layer_dims", "loss", "made_by"]
MISSING = "missing"  # what nan among targets is, where it does not raise
TRAINING = "training"  # what a checkpoint holds beside the network
TRAINING_KEYS = ["best_epoch", "drawn_from", "ended", "epoch", "first_drawn_from", "lbfgs", "limit", "position"]
TRAINING_KEYS += ["seconds", "settings", "slots", "updates"]
HISTORY, SLOTS, BEST = "history/", "slots/", "best/"  # prefixes of tensors' names
OWN = "functions of your own"
MOST_LAYERS, MOST_SLOTS = 10_000, 8  # so that few bytes cannot promise many tensors
MOST_LETTERS, MOST_FIGURES = 1 << 22, 1 << 26  # so that few bytes do not become many in memory


def described(part: Activation | Loss) -> dict[str, Any] | None:
    """Name and settings of one of dlx's own activations or losses; None for a user's own, which is code."""
    own = activations.is_own(part) if isinstance(part, Activation) else losses.is_own(part)
    return {"name": part.name, "settings": dict(part.settings)} if own else None


def activation_from(entry: Mapping[str, Any]) -> Activation:
    """The activation of that name and those settings."""
    return ACTIVATIONS[entry["name"]](**entry["settings"])


def loss_from(entry: Mapping[str, Any]) -> Loss:
    """The loss of that name and those settings."""
    return LOSSES[entry["name"]](**entry["settings"])


def description_of(net: Any, history: Arrays) -> dict[str, Any]:
    """What a file says of a `Network` beside its tensors; None stands for a function of one's own.

    `history` is what `history_arrays` gives.
    """
    return {
        **({} if net.missing == "raise" else {MISSING: net.missing}),
        "activation": [described(each) for each in net.activation],
        "classes": None if net.classes is None else net.classes.tolist(),
        "dtype": net.dtype,
        "feature_names": net.feature_names,
        "history": {name.removeprefix(HISTORY): figures.size for name, figures in history.items()},
        "layer_dims": list(net.layer_dims),
        "loss": described(net.loss),
        "made_by": f"dlx {__version__}",
    }


def require_readable(description: Mapping[str, Any]) -> None:
    """Raise where a file of this description would be refused by `layout`."""
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
    """Of all strings together, when NumPy makes all as long as the longest."""
    return len(classes) * max(map(len, classes)) if classes and isinstance(classes[0], str) else 0


def require_own(description: Mapping[str, Any]) -> None:
    """Raise where a file cannot hold all of the network."""
    if None in (*description["activation"], description["loss"]):
        rule = "be of a network with dlx's own activations and loss"
        remedy = "No file can hold code: save net.params with numpy, and rebuild with dlx.Network(params, ...)."
        checks.reject("save", rule, OWN, remedy)


def named(pairs: Sequence[tuple[Any, Any]], prefix: str = "") -> dict[str, Any]:
    """The pairs (W, b) by their tensors' names."""
    each = ((f"{prefix}{name}{l}", x) for l, pair in enumerate(pairs, 1) for name, x in zip("Wb", pair, strict=True))
    return dict(each)


def pairs_of(arrays: Arrays, layers: int, prefix: str = "") -> list[tuple[Any, Any]]:
    """The pairs (W, b) of those names."""
    return [(arrays[f"{prefix}W{l}"], arrays[f"{prefix}b{l}"]) for l in range(1, layers + 1)]


def history_arrays(history: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The history as a file holds it; what a callback may have added must be numbers too."""
    try:
        "".join(history).encode()  # the names of tensors are texts, in UTF-8
        found = {HISTORY + name: _figures(figures) for name, figures in history.items()}
    except (TypeError, ValueError, AttributeError, OverflowError) as reason:
        remedy = "Take out of net.history what is not a list of numbers."
        checks.reject("history", "be a dict of lists of numbers to be saved", reason, remedy)
    return found


def _figures(figures: Any) -> np.ndarray[Any, Any]:
    """Of fit's own, which are floats, there may be a hundred thousand at each save."""
    plain = type(figures) is list and {*map(type, figures)} <= {float}
    return np.array(figures if plain else [_figure(each) for each in figures], np.float64)


def _figure(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError(f"a text, {value[:40]!r}")
    return float(value)


def history_of(description: Mapping[str, Any], arrays: Arrays) -> dict[str, list[float]]:
    """The history that a file holds."""
    names = sorted(description["history"], key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return {name: arrays[HISTORY + name].tolist() for name in names}


def layout(description: Mapping[str, Any]) -> Layout:
    """Names, dtypes and shapes of the tensors that a description promises; any error is the file's."""
    if sorted({*description} - {TRAINING, MISSING}) != KEYS:
        raise KeyError(f"description of {sorted(description)}")
    if description.get(MISSING, "mask") not in ("mask", "keep"):
        raise ValueError(f"missing targets that {description[MISSING]}")
    dims, dtype = description["layer_dims"], description["dtype"]
    if dtype not in ("float32", "float64") or any(type(d) is not int or d < 1 for d in dims):
        raise ValueError(f"layers {dims} of dtype {dtype}")
    if not 2 <= len(dims) <= MOST_LAYERS:
        raise ValueError(f"{len(dims)} widths of layers")
    classes = description["classes"]
    if classes is not None and (len({*map(type, classes)}) != 1 or type(classes[0]) not in (str, int, bool)):
        raise ValueError("labels of several kinds")  # which NumPy would make all as wide as the widest
    if _letters(classes) > MOST_LETTERS or sum(description["history"].values()) > MOST_FIGURES:
        raise ValueError("more labels or figures than dlx writes")
    pairs = [((dtype, (a, b)), (dtype, (1, b))) for a, b in itertools.pairwise(dims)]
    found = named(pairs) | {HISTORY + name: ("f8", (n,)) for name, n in description["history"].items()}
    if TRAINING not in description:
        return found
    training = description[TRAINING]
    if sorted(training) != TRAINING_KEYS:
        raise KeyError(f"training of {sorted(training)}")
    for k in range(count(training["slots"], MOST_SLOTS)):
        found |= named(pairs, f"{SLOTS}{k}/")
    if training["best_epoch"] is not None:
        found |= named(pairs, BEST)
    if training["lbfgs"] is not None:
        size, kept = sum((a + 1) * b for a, b in itertools.pairwise(dims)), len(training["lbfgs"]["sy"])
        found |= {"gradient": (dtype, (size,)), "s": (dtype, (kept, size)), "y": (dtype, (kept, size))}
    return found | {"losses": (dtype, (count(training["position"], 1 << 32),))}


def count(value: Any, most: float = math.inf) -> int:
    """A number of things that a file names; any error is the file's."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"a count of {value}")
    return value


def arguments_of(description: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    """The arguments of `Network` that a file holds; any error is the file's."""
    layers = len(description["layer_dims"]) - 1
    return {
        "params": pairs_of(arrays, layers),
        "activation": [activation_from(each) for each in description["activation"]],
        "loss": loss_from(description["loss"]),
        "history": history_of(description, arrays),
        "classes": _labels(description["classes"]),
        **{name: description[name] for name in ("dtype", "feature_names", MISSING) if name in description},
    }


def _labels(found: Any) -> np.ndarray[Any, Any] | None:
    """As an array that holds them exactly."""
    return None if found is None else labels.settled(labels.listed(found))
