"""A network as a text of 80 columns, and as a table for notebooks."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from dlx import checks
from dlx.activations import ACTIVATIONS
from dlx.losses import LOSSES

COLUMNS = 80
ALWAYS = ("q",)  # the setting that is always told: nobody takes a quantile's level for granted
SIZES = {"float32": 4, "float64": 8}
RULE = "1px solid rgba(128, 128, 128, 0.5)"  # seen on light and on dark; every other colour is the page's own
SCROLLING = "max-height: 30em; overflow: auto"  # of a very deep network
NARROW = "padding: 0.15em 0.8em"


class Row(NamedTuple):
    """What is said of a layer."""

    number: int
    shape: str
    activation: str
    parameters: int


def rows(net: Any) -> list[Row]:
    """The layers of a Network."""
    names = [*map(called, net.activation), "(scores)"]
    pairs = zip(net.layer_dims[:-1], net.layer_dims[1:], names, strict=True)
    return [Row(l, f"{a} -> {b}", name, (a + 1) * b) for l, (a, b, name) in enumerate(pairs, start=1)]


def facts(net: Any) -> list[str]:
    """Parameters and bytes, dtype and backend; the loss."""
    count = sum(each.parameters for each in rows(net))
    size = f"{count:,} parameters, {count * SIZES[net.dtype]:,} bytes ({net.dtype} on {net.backend.selector})"
    return [size, f"loss {called(net.loss)}"]


def called(part: Any) -> str:
    """An activation or a loss by its name, with the settings that the name alone would not give it."""
    make: Callable[..., Any] | None = {**ACTIVATIONS, **LOSSES}.get(part.name)
    usual = part.settings if make is None else make().settings
    told = {key: value for key, value in part.settings.items() if value != usual.get(key) or key in ALWAYS}
    return " ".join((checks.called(part.name, told) if told else part.name).split())


def text(net: Any) -> str:
    """The layers and the facts; an activation whose name is too long is cut, and so is no number."""
    layers = rows(net)
    number = max(len("layer"), len(str(len(layers))))
    shape = max(len("shape"), *(len(each.shape) for each in layers))
    count = max(len("parameters"), *(len(f"{each.parameters:,}") for each in layers))
    room = COLUMNS - number - shape - count - 3 * len("  ")
    name = min(room, max(len("activation"), *(len(each.activation) for each in layers)))
    lines = [f"{'layer':>{number}}  {'shape':<{shape}}  {'activation':<{name}}  {'parameters':>{count}}"]
    for each in layers:
        called = each.activation if len(each.activation) <= name else each.activation[: name - 3] + "..."
        lines.append(f"{each.number:>{number}}  {each.shape:<{shape}}  {called:<{name}}  {each.parameters:>{count},}")
    return "\n".join([*lines, *textwrap.wrap("; ".join(facts(net)), COLUMNS)])


def table(net: Any) -> str:
    """The same as HTML, in the page's own colours and fonts, with the epochs that the history has."""
    head = _line("th", ["layer", "shape", "activation", "parameters"], f"; border-bottom: {RULE}")
    body = "".join(_line("td", [f"{l}", shape, name, f"{count:,}"]) for l, shape, name, count in rows(net))
    epochs = len(net.history.get("loss", []))
    trained = "no epoch trained" if epochs == 0 else f"{epochs:,} epoch{'s' if epochs > 1 else ''} trained"
    return (
        f'<div style="{SCROLLING}"><table style="border-collapse: collapse"><thead>{head}</thead>'
        f"<tbody>{body}</tbody></table></div><div>{html.escape('; '.join([*facts(net), trained]))}</div>"
    )


def _line(tag: str, cells: list[str], style: str = "") -> str:
    """A row of the table, numbers to the right."""
    found = (
        f'<{tag} style="text-align: {side}; {NARROW}{style}">{html.escape(cell)}</{tag}>'
        for cell, side in zip(cells, ("right", "left", "left", "right"), strict=True)
    )
    return f"<tr>{''.join(found)}</tr>"
