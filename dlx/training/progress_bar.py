"""What a training shows of itself: a tqdm progress bar, or a line an epoch."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Histories = Mapping[str, Sequence[float]]
SHOWN = ("loss", "training_loss", "validation_loss", "validation_score")
LONGEST = 40  # characters of a bar that say what the loss is


def bars() -> Any:
    """tqdm's bar for where this runs, a terminal or a notebook."""
    try:
        return importlib.import_module("tqdm.auto").tqdm
    except ModuleNotFoundError as reason:
        raise ImportError("verbose=1 needs tqdm; run: pip install 'dlx-nn[progress]', or pass verbose=2") from reason


def has_bars() -> bool:
    """Whether there is tqdm."""
    try:
        bars()
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def progress(
    verbose: int, epochs: int, rows: int, done: int = 0, label: str = ""
) -> Iterator[Callable[[Histories], None]]:
    """A function that shows the history after each epoch: not at all, in a bar, or with 2 in lines.

    `done` epochs of them were before, each is over that many `rows`. The `label` says what the loss is, if its name
    alone does not.
    """
    if verbose == 0:
        yield lambda history: None
    elif verbose == 1:
        nowhere = sys.stderr is None  # a process without a console
        style: dict[str, Any] = {"unit": "epoch", "dynamic_ncols": True, "disable": nowhere}
        with bars()(total=epochs, initial=done, desc=shortened(label, LONGEST) or None, **style) as bar:

            def advance(history: Histories) -> None:
                speed = rows / max(history["seconds"][-1], 1e-9)
                bar.set_postfix_str(", ".join([*figures(history), f"{speed:,.0f} rows/s"]), refresh=False)
                bar.update()

            yield advance
    else:
        if label:
            print(f"loss: {label}", flush=True)
        yield lambda history: print(line(history, epochs), flush=True)


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and its end, for names often differ in their last characters."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 3
    return f"{text[: longest - 1 - end]}…{text[-end:]}"


def figures(history: Histories) -> list[str]:
    """The last epoch's figures in words."""
    return [f"{name.replace('_', ' ')} {history[name][-1]:.4f}" for name in SHOWN if name in history]


def line(history: Histories, epochs: int) -> str:
    """The last epoch in a line."""
    done = len(history["loss"])
    counted = f"epoch {done:>{len(str(epochs))}}/{epochs}"
    return "  ".join([counted, *figures(history), f"{history['seconds'][-1]:.2f} s"])
