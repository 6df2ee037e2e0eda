"""A network as a text of 80 columns, and as a table for notebooks."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from dlx import checks
from dlx.activations import ACTIVATIONS
from dlx.losses import LOSSES

SUMMARY_WIDTH = 80  # characters
ALWAYS = ("q",)  # settings that are shown even at their default, as the level of a quantile has no obvious one
SIZES = {"float32": 4, "float64": 8}
RULE = "1px solid rgba(128, 128, 128, 0.5)"  # visible on light and on dark; all other colours are those of the page
SCROLLING = "max-height: 30em; overflow: auto"  # for very deep networks
NARROW = "padding: 0.15em 0.8em"


class Row(NamedTuple):
    """One layer in the table: its number from 1, "d_in -> d_out", its activation, and its count of parameters."""

    number: int
    shape: str
    activation: str
    parameters: int


def rows(net: Any) -> list[Row]:
    """The layers of a Network."""
    names = [*map(name_with_settings, net.activation), "(scores)"]
    pairs = zip(net.layer_dims[:-1], net.layer_dims[1:], names, strict=True)
    return [Row(l, f"{a} -> {b}", name, (a + 1) * b) for l, (a, b, name) in enumerate(pairs, start=1)]


def size_and_loss(net: Any) -> list[str]:
    """Two texts: parameters, bytes, dtype and backend; and the loss."""
    count = sum(row.parameters for row in rows(net))
    size = f"{count:,} parameters, {count * SIZES[net.dtype]:,} bytes ({net.dtype} on {net.backend.selector})"
    return [size, f"loss {name_with_settings(net.loss)}"]


def name_with_settings(part: Any) -> str:
    """The name of an activation or a loss, with those of its settings that differ from the defaults of this name."""
    make: Callable[..., Any] | None = {**ACTIVATIONS, **LOSSES}.get(part.name)
    defaults = part.settings if make is None else make().settings
    shown = {key: value for key, value in part.settings.items() if value != defaults.get(key) or key in ALWAYS}
    return " ".join((checks.called(part.name, shown) if shown else part.name).split())


def text(net: Any) -> str:
    """The table of layers as a text. It cuts the name of an activation that is too long, but never a number."""
    layers = rows(net)
    number = max(len("layer"), len(str(len(layers))))
    shape = max(len("shape"), *(len(row.shape) for row in layers))
    count = max(len("parameters"), *(len(f"{row.parameters:,}") for row in layers))
    room = SUMMARY_WIDTH - number - shape - count - 3 * len("  ")
    name = min(room, max(len("activation"), *(len(row.activation) for row in layers)))
    lines = [f"{'layer':>{number}}  {'shape':<{shape}}  {'activation':<{name}}  {'parameters':>{count}}"]
    for row in layers:
        cut = row.activation if len(row.activation) <= name else row.activation[: name - 3] + "..."
        lines.append(f"{row.number:>{number}}  {row.shape:<{shape}}  {cut:<{name}}  {row.parameters:>{count},}")
    return "\n".join([*lines, *textwrap.wrap("; ".join(size_and_loss(net)), SUMMARY_WIDTH)])


def table(net: Any) -> str:
    """The table of layers as HTML in the colours and fonts of the page, with the number of epochs in the history."""
    head = _line("th", ["layer", "shape", "activation", "parameters"], f"; border-bottom: {RULE}")
    body = "".join(_line("td", [f"{l}", shape, name, f"{count:,}"]) for l, shape, name, count in rows(net))
    epochs = len(net.history.get("loss", []))
    trained = "no epoch trained" if epochs == 0 else f"{epochs:,} epoch{'s' if epochs > 1 else ''} trained"
    return (
        f'<div style="{SCROLLING}"><table style="border-collapse: collapse"><thead>{head}</thead>'
        f"<tbody>{body}</tbody></table></div><div>{html.escape('; '.join([*size_and_loss(net), trained]))}</div>"
    )


def _line(tag: str, texts: list[str], style: str = "") -> str:
    """A row of the table, with its numbers to the right."""
    cells = (
        f'<{tag} style="text-align: {side}; {NARROW}{style}">{html.escape(text)}</{tag}>'
        for text, side in zip(texts, ("right", "left", "left", "right"), strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"
