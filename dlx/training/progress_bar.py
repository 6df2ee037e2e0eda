"""What a training shows while it runs: a progress bar of tqdm, or one line for each epoch."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Histories = Mapping[str, Sequence[float]]
SHOWN_FIGURES = ("loss", "training_loss", "validation_loss", "validation_score")
LONGEST_LABEL = 40  # characters of the bar that name the loss


def bars() -> Any:
    """The class of tqdm's bar for a terminal or a notebook, wherever this runs."""
    try:
        return importlib.import_module("tqdm.auto").tqdm
    except ModuleNotFoundError as reason:
        raise ImportError("verbose=1 needs tqdm; run: pip install 'dlx-nn[progress]', or pass verbose=2") from reason


def has_bars() -> bool:
    """Whether tqdm is installed."""
    try:
        bars()
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def progress(
    verbose: int, epochs: int, rows: int, done: int = 0, label: str = ""
) -> Iterator[Callable[[Histories], None]]:
    """Yield a function that shows the history after each epoch: nothing for `verbose` 0, a bar for 1, a line for 2.

    `done` of all `epochs` were finished earlier, and each epoch trains on so many `rows`. The `label` describes the
    loss if its name alone does not.
    """
    if verbose == 0:
        yield lambda history: None
    elif verbose == 1:
        nowhere = sys.stderr is None  # as in a process without a console
        style: dict[str, Any] = {"unit": "epoch", "dynamic_ncols": True, "disable": nowhere}
        with bars()(total=epochs, initial=done, desc=shortened(label, LONGEST_LABEL) or None, **style) as bar:

            def advance(history: Histories) -> None:
                speed = rows / max(history["seconds"][-1], 1e-9)
                bar.set_postfix_str(", ".join([*latest_figures(history), f"{speed:,.0f} rows/s"]), refresh=False)
                bar.update()

            yield advance
    else:
        if label:
            print(f"loss: {label}", flush=True)
        yield lambda history: print(line(history, epochs), flush=True)


def shortened(text: str, longest: int) -> str:
    """The text, at most `longest` characters of it: its beginning and its end, in which names often differ."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 3
    return f"{text[: longest - 1 - end]}…{text[-end:]}"


def latest_figures(history: Histories) -> list[str]:
    """The figures of the last epoch, each with its name."""
    return [f"{name.replace('_', ' ')} {history[name][-1]:.4f}" for name in SHOWN_FIGURES if name in history]


def line(history: Histories, epochs: int) -> str:
    """The last epoch as a line of text."""
    done = len(history["loss"])
    counted = f"epoch {done:>{len(str(epochs))}}/{epochs}"
    return "  ".join([counted, *latest_figures(history), f"{history['seconds'][-1]:.2f} s"])
