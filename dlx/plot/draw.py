"""The plots of `dlx.plot`."""

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
# Okabe and Ito's colours, which colour-blind readers can tell apart. In grey, markers and line styles differ.
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", VERMILION, "#F0E442")
MARKERS = "os^DvPX"
GREY = "0.5"
ACROSS = 300  # points of a grid along each axis
SHADES = 24  # of a class: so many that the eye sees no steps, and so few that files are half as large
MOST_NUMBERED = 25  # the most classes whose counts can be read
WIDE, LONGEST = 72, 24  # the most characters of a legend, and of a label


def history(net: Any, ax: Axes = None) -> Axes:
    """The training and the validation loss by epoch, with a mark at the best epoch.

    The best epoch has the lowest validation loss, or without validation the lowest training loss. The training loss is
    that of all rows after each epoch if `patience` had it computed, and else the mean over the batches of the epoch.
    The axis is logarithmic if all losses are positive and the largest is more than 10 times the smallest.

    Parameters
    ----------
    net : Network, or a fitted estimator
    ax : matplotlib Axes, default None
        None draws into a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        `net` has no history.
    TypeError
        `ax` is not an Axes with two straight axes.
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
    drawn = np.concatenate([loss, watched])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) and drawn.min() > 0 and drawn.max() > 10 * drawn.min():
        ax.set_yscale("log")
    ax.plot([best], [watched[best - 1]], color=_ink(), marker="o", linestyle="", zorder=3)
    _mark(ax, best, f"best epoch: {best}\nloss {watched[best - 1]:.4g}", right=best > len(loss) / 2)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel="loss")
    ax.set_xlim((1, len(loss)) if len(loss) > 1 else (0, 2))
    _legend(ax)
    return within(ax)


def boundary(net: Any, X: Any, y: Any, ax: Axes = None) -> Axes:
    """The predictions of a model of two inputs in the plane, with the data as points.

    The regions of a classifier have the colour of their class, which is the paler the less probable the class is. A
    line shows where two classes are equally probable. The predictions of a regression are a filled contour, and the
    points have the colour of their target.

    Parameters
    ----------
    net : Network, or a fitted estimator with predict, and predict_proba if it is a classifier
    X : array (n, 2)
    y : array (n,)
        Labels, or real targets.
    ax : matplotlib Axes, default None
        None draws into a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError, TypeError
        `X` does not have two columns; `y` does not have an entry for each row; a value is not finite; or the model has
        several outputs.
    """
    points = figures.plane(X)
    first, second = figures.grid(points, ACROSS)
    names = list(getattr(X, "columns", ("X[:, 0]", "X[:, 1]")))
    if _regresses(net):
        values = figures.real_targets(y)
        predictions = figures.on_grid(net.predict, first, second)
        if values.ndim != 1 or predictions.ndim != 2:
            got = f"{values.shape[1:] or predictions.shape[2:]} of them"
            checks.reject("y", "hold one real target a row", got, "Draw one output at a time.")
        figures.require_rows(values, points)
        ax = _axes(ax)
        _contour(ax, first, second, predictions, points, values)
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
    ax.set_xlabel(_short_label(names[0]), parse_math=False)
    ax.set_ylabel(_short_label(names[1]), parse_math=False)
    ax.set(xlim=first[[0, -1]], ylim=second[[0, -1]])
    return within(ax)


def weights(net: Any, shape: Sequence[int] | None = None, count: int = 25, ax: Axes = None) -> Axes:
    """The weights of the first layer as images, one for each hidden unit.

    The images show the units whose weights have the largest norm, the largest first. They share one scale of colours,
    in which 0 is white.

    Parameters
    ----------
    net : Network, or a fitted estimator
    shape : (height, width), default None
        The shape of the inputs as an image, whose pixels are taken row by row. None is a square.
    count : int >= 1, default 25
        The most units to show.
    ax : matplotlib Axes, default None
        None draws into a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError, TypeError
        `shape` does not have as many pixels as there are inputs, or no square has so many.
    """
    W = figures.first_layer_weights(net)
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
    """The confusion matrix: how often each true class is predicted as each class.

    The counts are shaded by their share of the true class. A count of 0 is left blank.

    Parameters
    ----------
    net : Network, or a fitted estimator
        A classifier with one label for each row.
    X : array (n, d0)
    y : array (n,) of labels
    ax : matplotlib Axes, default None
        None draws into a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError, TypeError
        The model is not such a classifier, or `X` and `y` do not fit it.
    """
    counts, classes = figures.confusion_counts(net, X, y)
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
    """The sizes of activations and gradients in each layer, which show dead units and vanishing or exploding gradients.

    Of the absolute values that are not zero, a thin line spans the middle 90 %, a thick one the middle half, and a
    marker is the median. A dotted line joins the medians of the layers. Gradients are those of the loss by the weights,
    without penalties and dropout. A hidden layer with zeros has a bar beside it: black for its dead units, which are
    zero in every row, and grey for all other zeros.

    Parameters
    ----------
    net : Network
    X : array (n, d0)
    y : array (n,) or (n, K)
        As in `fit`.
    ax : matplotlib Axes, default None
        None draws into a new figure. The bars stand to the right of `ax`; layout="constrained" of its figure makes room
        for them.
    rows : int >= 1, default 1000
        The most rows to compute with, evenly spaced.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError, TypeError
        `X` or `y` does not fit the network.
    """
    if not isinstance(net, Network):
        checks.reject("net", "be a dlx.Network", type(net).__name__, "Train one with dlx.fit.", TypeError)
    rows = checks.integer("rows", rows, low=1, remedy="Use 1000, for example.")
    shown = figures.layer_figures(net, X, y, rows)
    ax = _axes(ax, height=max(3.0, 1.3 + 0.45 * len(shown)))
    numbers = np.arange(1, len(shown) + 1)
    for colour, marker, name, shift, all_quantiles in (
        (BLUE, "o", "activations", -0.15, [layer.activations for layer in shown]),
        (VERMILION, "D", "gradients of weights", 0.15, [layer.gradients for layer in shown]),
    ):
        heights = numbers + shift
        for height, (q05, q25, _, q75, q95) in zip(heights, all_quantiles, strict=True):
            ax.plot([q05, q95], [height, height], color=colour, linewidth=1, solid_capstyle="butt")
            ax.plot([q25, q75], [height, height], color=colour, linewidth=5, alpha=0.5, solid_capstyle="butt")
        medians = [quantiles[2] for quantiles in all_quantiles]
        ax.plot(medians, heights, color=colour, marker=marker, markersize=5, linewidth=0.8, linestyle=":", label=name)
    for number, layer in zip(numbers[:-1], shown[:-1], strict=True):
        if layer.zeros > 0:
            _zeros(ax, number, layer)
    names = [f"{l}  {_short_label(layer.name)}" for l, layer in enumerate(shown, start=1)]
    ax.set_yticks(numbers, names, parse_math=False)
    ax.set_ylim(len(shown) + 0.5, 0.5)
    ax.set_xscale("log")
    if all(np.isnan([layer.activations, layer.gradients]).all() for layer in shown):
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
    """The learning-rate range test: `dlx.find_learning_rate`, drawn by `rate_search`.

    Parameters
    ----------
    X : array (n, d0)
    y : array (n,) or (n, K)
    layer_dims : sequence of int
        X, y and layer_dims are as in `dlx.fit`.
    ax : matplotlib Axes, default None
        None draws into a new figure.
    lowest : float > 0, default 1e-6
        The first rate.
    highest : float > lowest, default 10
        The last rate.
    **fit_arguments
        As in `dlx.find_learning_rate`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError, TypeError
        As in `dlx.find_learning_rate`.
    """
    _matplotlib()  # an absent matplotlib is an error before the search
    search = find_learning_rate(X, y, layer_dims, lowest=lowest, highest=highest, **fit_arguments)
    return rate_search(search, ax)


def rate_search(found: RateSearch, ax: Axes = None) -> Axes:
    """The loss by learning rate, with marks where it falls most steeply and where it diverges.

    Parameters
    ----------
    found : RateSearch
        The result of `dlx.find_learning_rate`.
    ax : matplotlib Axes, default None
        None draws into a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    TypeError
        `found` is not a RateSearch.
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
    """The module matplotlib.pyplot, imported when it is first needed."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as reason:
        if str(reason.name).partition(".")[0] != "matplotlib":
            raise
        raise ImportError("dlx.plot needs matplotlib; run: pip install 'dlx-nn[plot]'") from reason
    return plt


def _axes(ax: Axes, height: float = 4.0) -> Axes:
    """`ax`, or the Axes of a new figure 600 pixels wide, without the lines above and to the right."""
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
    """The colour of text, which a user may have set to white on black."""
    return _matplotlib().rcParams["text.color"]


def _legend(ax: Axes, drawn: Sequence[Any] | None = None) -> None:
    """Put a legend above the plot, of the artists in `drawn`, or of all that have a label."""
    style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "borderaxespad": 0.2, "fontsize": "small"}
    if drawn is None:
        ax.legend(ncols=4, **style)
        return
    names = [_short_label(artist.get_label()) for artist in drawn]
    columns = max(1, min(4, WIDE // (4 + max(map(len, names)))))
    legend = ax.legend(drawn, ["."] * len(drawn), ncols=columns, **style)  # it would leave out names that begin with _
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # a $ in a user's label does not begin a formula
        text.set_text(name)


def _short_label(name: Any) -> str:
    """The name, shortened so that it leaves room for the plot."""
    return progress_bar.shortened(str(name), LONGEST)


def _mark(ax: Axes, x: float, text: str, right: bool = False, colour: str = GREY) -> None:
    """Draw a vertical line at `x` with a text at its top: on its left if the line stands on the `right`."""
    ax.axvline(x, color=colour, linewidth=1, linestyle=":")
    offset, side = ((-4, -2), "right") if right else ((4, -2), "left")
    style: dict[str, Any] = {"ha": side, "va": "top", "fontsize": "small"}
    style["bbox"] = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "alpha": 0.9, "pad": 1.0}
    ax.annotate(text, (x, 1), xycoords=ax.get_xaxis_transform(), xytext=offset, textcoords="offset points", **style)


def _zeros(ax: Axes, number: int, layer: figures.LayerFigures) -> None:
    """Draw a bar beside the layer with this number: the shares of dead units, of other zeros and of the rest."""
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    inches = ax.figure.dpi_scale_trans + ScaledTranslation(1, 0, ax.transAxes)  # from the right edge of the Axes
    beside, left, width = blended_transform_factory(inches, ax.transData), 0.12, 0.75
    dead, ink = layer.dead / layer.units, _ink()
    for start, end, colour in ((0, dead, ink), (dead, layer.zeros, "0.6"), (layer.zeros, 1, "0.9")):
        corner, size = (left + width * start, number - 0.4), (width * max(end - start, 0), 0.18)
        bar = ax.add_patch(Rectangle(corner, *size, transform=beside, facecolor=colour))
        bar.set_clip_box(None)  # the bar lies outside of the Axes, and the layout makes room for it
    share = f"{layer.zeros:.0%}" if not 0.995 < layer.zeros < 1 else "over 99%"
    style = {"transform": beside, "va": "top", "fontsize": "small"}
    ax.text(left, number - 0.16, f"{share} zeros", color=GREY, **style)
    if dead:
        ax.text(left, number + 0.1, f"{layer.dead} of {layer.units} dead", fontweight="bold", **style)


def _regresses(net: Any) -> bool:
    """Whether the model predicts real targets."""
    if isinstance(net, Network):
        return net.loss.link.answers == "number"
    return hasattr(net, "predict") and not hasattr(net, "predict_proba")


def _size(points: Any) -> float:
    """The size of markers: the more points, the smaller."""
    return float(np.clip(8000 / len(points), 4, 25))


def _colours(count: int) -> list[Any]:
    """The colours of so many classes."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return list(_matplotlib().get_cmap("viridis")(np.linspace(0, 1, count)))


def _regions(ax: Axes, first: Any, second: Any, P: Any) -> None:
    """Draw each point of the grid in the colour of its class, nearly white if the class is no surer than chance."""
    from matplotlib.colors import to_rgb

    K = P.shape[-1]
    colours = np.asarray([to_rgb(colour) for colour in _colours(K)])
    sure = (P.max(axis=-1, keepdims=True) - 1 / K) / max(1 - 1 / K, 1 / K)
    strength = 0.1 + 0.5 * np.round(sure * SHADES) / SHADES
    picture = 1 - strength * (1 - colours[P.argmax(axis=-1)])
    extent = (first[0], first[-1], second[0], second[-1])
    ax.imshow(picture, extent=extent, origin="lower", aspect="auto", interpolation="nearest")
    for k in range(K if K > 2 else K - 1):
        ahead = P[..., k] - np.delete(P, k, axis=-1).max(axis=-1)
        if ahead.min() < 0 < ahead.max():
            ax.contour(first, second, ahead, levels=[0.0], colors="black", linewidths=0.8)


def _contour(ax: Axes, first: Any, second: Any, predictions: Any, points: Any, values: Any) -> None:
    """Draw predictions as a filled contour, and targets as points, in one scale of colours."""
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    low, high = (float(f([f(predictions), f(values)])) for f in (np.min, np.max))
    levels = MaxNLocator(12).tick_values(low, high if high > low else low + 1)
    scale = Normalize(levels[0], levels[-1])
    filled = ax.contourf(first, second, predictions, levels=levels, cmap="viridis", norm=scale)
    ax.figure.colorbar(filled, ax=ax, label="prediction; points: target")
    style = {"s": _size(points), "edgecolors": "white", "linewidths": 0.5}
    ax.scatter(points[:, 0], points[:, 1], c=values, cmap="viridis", norm=scale, **style)
