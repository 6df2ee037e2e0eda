"""The pictures of `dlx.plot`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx import checks
from dlx.learning_rates import RateSearch, find_learning_rate
from dlx.model import Network
from dlx.plot import figures
from dlx.plot.layout import within
from dlx.training import progress_bar

Axes = Any  # matplotlib is optional
# Okabe and Ito's colours, which the colour-blind can tell apart; markers and line styles tell them apart in grey
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", VERMILION, "#F0E442")
MARKERS = "os^DvPX"
GREY = "0.5"
ACROSS = 300  # points of a grid
SHADES = 24  # of a class: the eye sees no steps, and files are half as large
MOST_NUMBERED = 25  # classes whose counts can be read
WIDE, LONGEST = 72, 24  # characters: of a legend, and of a label


def history(net: Any, ax: Axes = None) -> Axes:
    """Training and validation loss by epoch, the best epoch marked.

    The best is the epoch of the lowest validation loss, or without validation of the lowest training loss: that of all
    rows after each epoch, where `patience` had it computed, and else the mean of the epoch's batches. The axis is
    logarithmic where all losses are positive and the largest is more than 10 times the smallest.

    Parameters
    ----------
    net : Network, or a fitted estimator
    ax : matplotlib Axes, optional

    Raises
    ------
    ValueError
        There is no history.
    """
    loss, validation, best = figures.curves(net)
    ax = _axes(ax)
    epochs = np.arange(1, len(loss) + 1)
    marker = "o" if len(loss) == 1 else ""
    ax.plot(epochs, loss, color=BLUE, linestyle="--", marker=marker, label="training loss")
    watched = loss
    if validation is not None:
        ax.plot(epochs, validation, color=VERMILION, linewidth=2, marker=marker, label="validation loss")
        watched = validation
    seen = np.concatenate([loss, watched])
    seen = seen[np.isfinite(seen)]
    if len(seen) and seen.min() > 0 and seen.max() > 10 * seen.min():
        ax.set_yscale("log")
    ax.plot([best], [watched[best - 1]], color=_ink(), marker="o", linestyle="", zorder=3)
    _mark(ax, best, f"best epoch: {best}\nloss {watched[best - 1]:.4g}", right=best > len(loss) / 2)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel="loss")
    ax.set_xlim((1, len(loss)) if len(loss) > 1 else (0, 2))
    _legend(ax)
    return within(ax)


def boundary(net: Any, X: Any, y: Any, ax: Axes = None) -> Axes:
    """What a model of two inputs says of the plane, and the data.

    A classifier's regions have the colour of their class, the paler the less probable it is, and a line where two
    classes are equal. A regression's predictions are a filled contour, and points have the colour of their target.

    Parameters
    ----------
    net : Network, or a fitted estimator with predict, and predict_proba if it is a classifier
    X : array (n, 2)
    y : array (n,)
    ax : matplotlib Axes, optional

    Raises
    ------
    ValueError, TypeError
        `X` does not have two columns, `y` not a row for each, one is not finite, or the model has several outputs.
    """
    points = figures.plane(X)
    first, second = figures.grid(points, ACROSS)
    names = list(getattr(X, "columns", ("X[:, 0]", "X[:, 1]")))
    if _regresses(net):
        values = figures.real_targets(y)
        found = figures.on_grid(net.predict, first, second)
        if values.ndim != 1 or found.ndim != 2:
            got = f"{values.shape[1:] or found.shape[2:]} of them"
            checks.reject("y", "hold one real target a row", got, "Draw one output at a time.")
        figures.require_rows(values, points)
        ax = _axes(ax)
        _contour(ax, first, second, found, points, values)
    else:
        classes = figures.classes_of(net)
        truth = figures.places(y, classes)
        figures.require_rows(truth, points)
        P = figures.on_grid(net.predict_proba, first, second)
        ax = _axes(ax)
        _regions(ax, first, second, P)
        colours, drawn = _colours(len(classes)), []
        for k, label in enumerate(classes.tolist()):
            own = points[truth == k]
            style = {"color": colours[k], "marker": MARKERS[k % len(MARKERS)], "label": str(label)}
            drawn.append(ax.scatter(own[:, 0], own[:, 1], s=_size(points), edgecolors="black", linewidths=0.5, **style))
        _legend(ax, drawn)
    ax.set_xlabel(_short(names[0]), parse_math=False)
    ax.set_ylabel(_short(names[1]), parse_math=False)
    ax.set(xlim=first[[0, -1]], ylim=second[[0, -1]])
    return within(ax)


def weights(net: Any, shape: Sequence[int] | None = None, count: int = 25, ax: Axes = None) -> Axes:
    """The first layer's weights as images: what each hidden unit looks for.

    Those `count` units whose weights have the largest norm, the largest first, all in one scale of colours with white
    at 0.

    Parameters
    ----------
    net : Network, or a fitted estimator
    shape : (height, width), optional
        Of the inputs as an image, row by row; by default a square.
    count : int >= 1
    ax : matplotlib Axes, optional

    Raises
    ------
    ValueError, TypeError
        `shape` does not hold as many pixels as there are inputs, or there is no square of so many.
    """
    W = figures.first_weights(net)
    count = checks.integer("count", count, low=1, remedy="Use 25, for example.")
    picture, drawn = figures.mosaic(W, figures.image_shape(shape, W.shape[0]), count)
    ax = _axes(ax)
    most = float(np.nanmax(np.abs(picture))) or 1.0
    cmap = _matplotlib().get_cmap("RdBu_r").with_extremes(bad="0.85")
    image = ax.imshow(picture, cmap=cmap, vmin=-most, vmax=most, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.8)
    ax.set_axis_off()
    which = f"{drawn} of {W.shape[1]} units, those of the largest weights"
    ax.set_title(f"first layer: {which if drawn < W.shape[1] else f'all {drawn} units'}", fontsize="medium")
    return within(ax)


def confusion(net: Any, X: Any, y: Any, ax: Axes = None) -> Axes:
    """How often each class is taken for each: counts, shaded by their share of the true class; 0 is left blank.

    Parameters
    ----------
    net : Network, or a fitted estimator, which has classes
    X : array (n, d0)
    y : labels (n,)
    ax : matplotlib Axes, optional

    Raises
    ------
    ValueError, TypeError
        The model is no classifier with one label a row, or `X` and `y` do not fit it.
    """
    counts, classes = figures.confusion(net, X, y)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax, K = _axes(ax, height=4.8), len(classes)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.figure.colorbar(image, ax=ax, label="share of the true class")
    for i, j in zip(*np.nonzero(counts if K <= MOST_NUMBERED else counts[:0]), strict=True):
        shade = "white" if shares[i, j] > 0.5 else "black"
        ax.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=shade, fontsize=min(10, 160 / K))
    ticks = np.arange(0, K, math.ceil(K / MOST_NUMBERED))
    names = [progress_bar.shortened(str(classes[k]), LONGEST if K <= 10 else LONGEST * 2 // 3) for k in ticks]
    style = {"parse_math": False, "fontsize": min(10, 160 / len(ticks))}
    ax.set_xticks(ticks, names, rotation=90 if max(map(len, names)) * K > 40 else 0, **style)
    ax.set_yticks(ticks, names, **style)
    n = int(counts.sum())
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_title(f"{int(np.trace(counts)):,} of {n:,} right: {np.trace(counts) / n:.1%}", fontsize="medium")
    return within(ax)


def layers(net: Network, X: Any, y: Any, ax: Axes = None, rows: int = 1000) -> Axes:
    """Activations and gradients of every layer, by their absolute values: what is dead, vanishes or explodes.

    A thin line holds the middle 90 % of what is not zero, a thick one the middle half, a dot the median; medians are
    joined from layer to layer. Gradients are those of the loss by the weights, without penalties and dropout. The bar
    beside a hidden layer is black for its dead units, which are zero in every row, and grey for all other zeros; a
    layer without zeros has no bar.

    Parameters
    ----------
    net : Network
    X, y : as in `fit`
    ax : matplotlib Axes, optional
        The bars stand to its right, for which layout="constrained" of the figure makes room.
    rows : int >= 1
        At most so many, evenly spaced.

    Raises
    ------
    ValueError, TypeError
        `X` or `y` does not fit the network.
    """
    if not isinstance(net, Network):
        checks.reject("net", "be a dlx.Network", type(net).__name__, "Train one with dlx.fit.", TypeError)
    rows = checks.integer("rows", rows, low=1, remedy="Use 1000, for example.")
    found = figures.layers(net, X, y, rows)
    ax = _axes(ax, height=max(3.0, 1.3 + 0.45 * len(found)))
    numbers = np.arange(1, len(found) + 1)
    for colour, marker, name, shift, all_quantiles in (
        (BLUE, "o", "activations", -0.15, [each.activations for each in found]),
        (VERMILION, "D", "gradients of weights", 0.15, [each.gradients for each in found]),
    ):
        heights = numbers + shift
        for height, (q05, q25, _, q75, q95) in zip(heights, all_quantiles, strict=True):
            ax.plot([q05, q95], [height, height], color=colour, linewidth=1, solid_capstyle="butt")
            ax.plot([q25, q75], [height, height], color=colour, linewidth=5, alpha=0.5, solid_capstyle="butt")
        medians = [each[2] for each in all_quantiles]
        ax.plot(medians, heights, color=colour, marker=marker, markersize=5, linewidth=0.8, linestyle=":", label=name)
    for number, each in zip(numbers[:-1], found[:-1], strict=True):
        if each.zeros > 0:
            _zeros(ax, number, each)
    names = [f"{l}  {_short(each.name)}" for l, each in enumerate(found, start=1)]
    ax.set_yticks(numbers, names, parse_math=False)
    ax.set_ylim(len(found) + 0.5, 0.5)
    ax.set_xscale("log")
    if all(np.isnan([each.activations, each.gradients]).all() for each in found):
        ax.set_xlim(0.1, 1)  # there is nothing to scale by
    ax.set(xlabel="absolute value, of what is not zero", ylabel="layer")
    _legend(ax)
    return within(ax)


def learning_rates(
    X: Any,
    y: Any,
    layer_dims: Sequence[int],
    ax: Axes = None,
    lowest: float = 1e-6,
    highest: float = 10.0,
    **fit_arguments: Any,
) -> Axes:
    """The learning-rate finder: `dlx.find_learning_rate`, drawn by `rate_search`.

    Parameters
    ----------
    X, y, layer_dims, lowest, highest, **fit_arguments
        As in `dlx.find_learning_rate`, which raises the same.
    ax : matplotlib Axes, optional
    """
    _matplotlib()
    found = find_learning_rate(X, y, layer_dims, lowest=lowest, highest=highest, **fit_arguments)
    return rate_search(found, ax)


def rate_search(found: RateSearch, ax: Axes = None) -> Axes:
    """What `dlx.find_learning_rate` found: loss by learning rate, where it falls most steeply and where it diverges.

    Parameters
    ----------
    found : RateSearch
    ax : matplotlib Axes, optional
    """
    if not isinstance(found, RateSearch):
        remedy = "It is what dlx.find_learning_rate returns."
        checks.reject("found", "be a RateSearch", type(found).__name__, remedy, TypeError)
    ax = _axes(ax)
    ax.plot(found.rates, found.losses, color="0.75", linewidth=1, label="loss of a batch")
    ax.plot(found.rates, found.smoothed, color=BLUE, linewidth=2, label="smoothed")
    ax.set_xscale("log")
    if found.suggestion is not None:
        place = int(np.searchsorted(found.rates, found.suggestion))
        ax.plot([found.suggestion], [found.smoothed[place]], color=_ink(), marker="o", linestyle="", zorder=3)
        _mark(ax, found.suggestion, f"falls most steeply\nat {found.suggestion:.2g}", right=True)
    if found.diverges is not None:
        _mark(ax, found.diverges, f"diverges\nfrom {found.diverges:.2g}", colour=VERMILION)
    shown = found.smoothed, np.quantile(found.losses, [0.0, 0.9]) if len(found.losses) else found.losses
    low, high = (float(f(np.concatenate(shown), initial=0.0)) for f in (np.min, np.max))
    ax.set(xlabel="learning rate", ylabel="loss", ylim=(low, high + 0.3 * ((high - low) or 1.0)))
    _legend(ax)
    return within(ax)


def _matplotlib() -> Any:
    """matplotlib.pyplot, imported when it is first needed."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as reason:
        if str(reason.name).partition(".")[0] != "matplotlib":
            raise
        raise ImportError("dlx.plot needs matplotlib; run: pip install 'dlx-nn[plot]'") from reason
    return plt


def _axes(ax: Axes, height: float = 4.0) -> Axes:
    """`ax`, or that of a new figure of 600 pixels' width, without the lines above and to the right."""
    plt = _matplotlib()
    if ax is None:
        _, ax = plt.subplots(figsize=(6.0, height), dpi=100, layout="constrained")
    elif not hasattr(ax, "transAxes"):
        remedy = "For example one of matplotlib.pyplot.subplots()."
        checks.reject("ax", "be a matplotlib Axes", type(ax).__name__, remedy, TypeError)
    elif ax.name != "rectilinear":
        rule, remedy = "be an Axes of two straight axes", "Leave out its projection."
        checks.reject("ax", rule, f"a {ax.name} one", remedy, TypeError)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _ink() -> Any:
    """The colour of text, which the user may have set to white on black."""
    return _matplotlib().rcParams["text.color"]


def _legend(ax: Axes, drawn: Sequence[Any] | None = None) -> None:
    """The labels of what is `drawn`, by default of all that has one, above the picture."""
    style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "borderaxespad": 0.2, "fontsize": "small"}
    if drawn is None:
        ax.legend(ncols=4, **style)
        return
    names = [_short(each.get_label()) for each in drawn]
    columns = max(1, min(4, WIDE // (4 + max(map(len, names)))))
    legend = ax.legend(drawn, ["."] * len(drawn), ncols=columns, **style)  # it would leave out what begins with _
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # a user's $ is no mathematics
        text.set_text(name)


def _short(name: Any) -> str:
    """A label that leaves room for the picture."""
    return progress_bar.shortened(str(name), LONGEST)


def _mark(ax: Axes, x: float, said: str, right: bool = False, colour: str = GREY) -> None:
    """A vertical line at x, with words at its top, which lie to its left if it stands to the `right`."""
    ax.axvline(x, color=colour, linewidth=1, linestyle=":")
    offset, side = ((-4, -2), "right") if right else ((4, -2), "left")
    style: dict[str, Any] = {"ha": side, "va": "top", "fontsize": "small"}
    style["bbox"] = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "alpha": 0.9, "pad": 1.0}
    ax.annotate(said, (x, 1), xycoords=ax.get_xaxis_transform(), xytext=offset, textcoords="offset points", **style)


def _zeros(ax: Axes, number: int, layer: figures.LayerFigures) -> None:
    """Beside the layer of that number a bar as long as all its activations: dead units, other zeros, the rest."""
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    inches = ax.figure.dpi_scale_trans + ScaledTranslation(1, 0, ax.transAxes)  # from the right edge of the Axes
    beside, left, width = blended_transform_factory(inches, ax.transData), 0.12, 0.75
    dead, ink = layer.dead / layer.units, _ink()
    for start, end, colour in ((0, dead, ink), (dead, layer.zeros, "0.6"), (layer.zeros, 1, "0.9")):
        corner, size = (left + width * start, number - 0.4), (width * max(end - start, 0), 0.18)
        bar = ax.add_patch(Rectangle(corner, *size, transform=beside, facecolor=colour))
        bar.set_clip_box(None)  # it lies outside, and the layout makes room for it
    share = f"{layer.zeros:.0%}" if not 0.995 < layer.zeros < 1 else "over 99%"
    style = {"transform": beside, "va": "top", "fontsize": "small"}
    ax.text(left, number - 0.16, f"{share} zeros", color=GREY, **style)
    if dead:
        ax.text(left, number + 0.1, f"{layer.dead} of {layer.units} dead", fontweight="bold", **style)


def _regresses(net: Any) -> bool:
    if isinstance(net, Network):
        return net.loss.link.answers == "number"
    return hasattr(net, "predict") and not hasattr(net, "predict_proba")


def _size(points: Any) -> float:
    """Of markers: many points are drawn smaller."""
    return float(np.clip(8000 / len(points), 4, 25))


def _colours(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return list(_matplotlib().get_cmap("viridis")(np.linspace(0, 1, count)))


def _regions(ax: Axes, first: Any, second: Any, P: Any) -> None:
    """Each point of the grid in its class's colour: nearly white where the class is no surer than chance."""
    from matplotlib.colors import to_rgb

    K = P.shape[-1]
    colours = np.asarray([to_rgb(each) for each in _colours(K)])
    sure = (P.max(axis=-1, keepdims=True) - 1 / K) / max(1 - 1 / K, 1 / K)
    strength = 0.1 + 0.5 * np.round(sure * SHADES) / SHADES
    picture = 1 - strength * (1 - colours[P.argmax(axis=-1)])
    extent = (first[0], first[-1], second[0], second[-1])
    ax.imshow(picture, extent=extent, origin="lower", aspect="auto", interpolation="nearest")
    for k in range(K if K > 2 else K - 1):
        ahead = P[..., k] - np.delete(P, k, axis=-1).max(axis=-1)
        if ahead.min() < 0 < ahead.max():
            ax.contour(first, second, ahead, levels=[0.0], colors="black", linewidths=0.8)


def _contour(ax: Axes, first: Any, second: Any, found: Any, points: Any, values: Any) -> None:
    """Predictions and targets in one scale of colours."""
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    low, high = (float(f([f(found), f(values)])) for f in (np.min, np.max))
    levels = MaxNLocator(12).tick_values(low, high if high > low else low + 1)
    scale = Normalize(levels[0], levels[-1])
    filled = ax.contourf(first, second, found, levels=levels, cmap="viridis", norm=scale)
    ax.figure.colorbar(filled, ax=ax, label="prediction; points: target")
    style = {"s": _size(points), "edgecolors": "white", "linewidths": 0.5}
    ax.scatter(points[:, 0], points[:, 1], c=values, cmap="viridis", norm=scale, **style)
