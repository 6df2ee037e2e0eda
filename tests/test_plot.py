"""Every plot on the Agg canvas: the data that it shows beside the same computed here, by scikit-learn or by torch."""

import io
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import sklearn.datasets
import sklearn.metrics
import sklearn.neural_network

import dlx

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

RNG = np.random.default_rng(11)
POINTS = RNG.standard_normal((60, 2))
HALVES = np.where(POINTS[:, 0] > 0, "right", "left")
DIGITS, DIGIT = sklearn.datasets.load_digits(return_X_y=True)
DIGITS = (DIGITS / 16).astype("f4")


def pairs(dims, rng=RNG):
    return [(rng.standard_normal((a, b)), rng.standard_normal(b)) for a, b in itertools.pairwise(dims)]


def trained(**settings):
    return dlx.fit(DIGITS[:300], DIGIT[:300], (64, 16, 10), rng=0, **{"epochs": 3, **settings})


@pytest.fixture(autouse=True)
def closed():
    """What a user has set, and the figures, are as before; all that was drawn can be drawn, in under 80 KB."""
    before = dict(matplotlib.rcParams)
    yield
    figures = [plt.figure(number) for number in plt.get_fignums()]
    plt.close("all")
    for figure in figures:
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        assert picture.tell() < 80_000
    assert dict(matplotlib.rcParams) == before


def line(ax, label):
    """The data of the line of that name."""
    (found,) = [each for each in ax.lines if each.get_label() == label]
    return np.asarray(found.get_xydata(), float)


def texts(ax):
    return [each.get_text() for each in ax.texts]


def legend(ax):
    return [each.get_text() for each in ax.get_legend().get_texts()]


def bar_of(ax):
    """The colour bar that stands beside an Axes."""
    (found,) = [each for each in ax.figure.axes if each is not ax]
    return found


# -- history --


@pytest.mark.parametrize("watched", ["validation", "training"])
def test_history_shows_every_epoch_and_marks_the_best(watched):
    net = trained(epochs=12, learning_rate=0.03, **({"validation": 0.3} if watched == "validation" else {}))
    ax = dlx.plot.history(net)
    epochs = np.arange(1, 13)
    names = ["training loss", "validation loss"][: 2 if watched == "validation" else 1]
    histories = [net.history["loss"], net.history.get("validation_loss")]
    for name, values in zip(names, histories, strict=False):
        np.testing.assert_array_equal(line(ax, name), np.stack([epochs, values], axis=1))
    curve = histories[len(names) - 1]
    best = int(np.argmin(curve)) + 1
    marked = [each.get_xydata().tolist() for each in ax.lines if each.get_linestyle() == "None"]
    assert marked == [[[best, curve[best - 1]]]]
    assert texts(ax) == [f"best epoch: {best}\nloss {curve[best - 1]:.4g}"]
    assert (ax.get_xlabel(), ax.get_ylabel(), legend(ax)) == ("epoch", "loss", names)


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([11.0, 1.0], "log"), ([10.0, 1.0], "linear"), ([11.0, -1.0], "linear"), ([11.0, 0.0], "linear")],
)
def test_history_is_logarithmic_where_positive_losses_fall_far(losses, scale):
    net = dlx.Network(pairs((2, 1)), history={"loss": losses})
    assert dlx.plot.history(net).get_yscale() == scale


def test_the_best_epoch_is_that_of_validation():
    net = dlx.Network(pairs((2, 1)), history={"loss": [3.0, 2.0, 1.0], "validation_loss": [3.0, 2.5, 2.75]})
    assert texts(dlx.plot.history(net)) == ["best epoch: 2\nloss 2.5"]


def test_history_of_one_epoch_and_with_nan():
    ax = dlx.plot.history(dlx.Network(pairs((2, 1)), history={"loss": [2.0]}))
    assert ax.lines[0].get_marker() == "o"  # a line of one point is not seen
    assert {float(each).is_integer() for each in ax.get_xticks()} == {True}
    ax = dlx.plot.history(dlx.Network(pairs((2, 1)), history={"loss": [3.0, 1.0, np.nan]}))
    assert texts(ax) == ["best epoch: 2\nloss 1"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("make", [dlx.MLPClassifier, sklearn.neural_network.MLPClassifier])
def test_history_of_estimators(make):
    est = make((5,), max_iter=7, random_state=0).fit(POINTS, HALVES)
    np.testing.assert_array_equal(line(dlx.plot.history(est), "training loss")[:, 1], est.loss_curve_)
    if make is dlx.MLPClassifier:
        est = make((5,), max_iter=7, random_state=0, early_stopping=True).fit(POINTS, HALVES)
        np.testing.assert_array_equal(line(dlx.plot.history(est), "validation loss")[:, 1], est.validation_loss_curve_)


# -- boundary --


def plane(count):
    """A network of 2 inputs and that many classes, its labels, its probabilities as a formula, and labels of POINTS."""
    params = pairs((2, 6, count if count > 2 else 1), np.random.default_rng(count))
    loss = "cross_entropy" if count > 2 else "binary_cross_entropy"
    names = [f"class {k}" for k in range(count)]

    def probabilities(X):
        (W1, b1), (W2, b2) = params
        Z = np.tanh(X @ W1 + b1) @ W2 + b2
        return scipy.special.softmax(Z if count > 2 else np.hstack([np.zeros_like(Z), Z]), axis=1)

    return dlx.Network(params, activation="tanh", loss=loss, classes=names), names, probabilities


@pytest.mark.parametrize("count", [2, 3, 9])
def test_boundary_shows_the_class_by_colour_and_its_probability_by_shade(count, be):
    net, names, probabilities = plane(count)
    y = np.array(names)[np.arange(60) % count]
    ax = dlx.plot.boundary(net.to(be), be.asarray(POINTS), y)
    (image,) = ax.images
    picture, (left, right, low, high) = np.asarray(image.get_array()), image.get_extent()
    grid = np.meshgrid(np.linspace(left, right, 300), np.linspace(low, high, 300))
    P = probabilities(np.stack([each.ravel() for each in grid], axis=1)).reshape(300, 300, count)
    assert picture.shape == (300, 300, 3)
    scattered = [each for each in ax.collections if each.get_label() in names]
    colours = np.stack([each.get_facecolor()[0][:3] for each in scattered])
    assert len({tuple(each) for each in colours.tolist()}) == count
    strength = 0.1 + 0.5 * (P.max(axis=-1, keepdims=True) - 1 / count) / (1 - 1 / count)
    expected = 1 - strength * (1 - colours[P.argmax(axis=-1)])
    sure = np.diff(np.sort(P, axis=-1)[..., -2:])[..., 0] > 1e-9
    np.testing.assert_allclose(picture[sure], expected[sure], atol=0.5 / 48 + 1e-6)  # 24 shades of half the scale
    points = [np.asarray(each.get_offsets()) for each in scattered]
    for name, found in zip(names, points, strict=True):
        np.testing.assert_allclose(found, POINTS[y == name])
    assert legend(ax) == names
    lows, highs = POINTS.min(axis=0), POINTS.max(axis=0)
    room = 0.08 * (highs - lows)
    np.testing.assert_allclose([left, low, right, high], [*(lows - room), *(highs + room)])


def test_boundary_draws_the_line_where_two_classes_are_equal():
    net, names, probabilities = plane(2)
    ax = dlx.plot.boundary(net, POINTS, np.array(names)[np.arange(60) % 2])
    (found,) = ax.collections[:1]
    places = found.get_paths()[0].vertices
    assert len(places) > 50
    np.testing.assert_allclose(probabilities(places)[:, 0], 0.5, atol=0.01)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("make", [dlx.MLPClassifier, sklearn.neural_network.MLPClassifier])
def test_boundary_of_estimators_trained_on_a_data_frame(make):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(POINTS, columns=["length", "width"])
    est = make((5,), max_iter=30, random_state=0).fit(frame, HALVES)
    ax = dlx.plot.boundary(est, frame, HALVES)
    assert (ax.get_xlabel(), ax.get_ylabel(), legend(ax)) == ("length", "width", ["left", "right"])


@pytest.mark.parametrize("kind", ["network", "estimator", "counts"])
def test_boundary_of_a_regression_is_a_filled_contour(kind):
    W, b = np.array([[1.0], [2.0]]), np.array([0.5])
    y = POINTS @ [1.0, 2.0] + 1
    if kind == "estimator":
        net = dlx.MLPRegressor((), solver="lbfgs", alpha=0, random_state=0).fit(POINTS, POINTS @ [1.0, 2.0] + 0.5)
    else:
        net = dlx.Network([(W, b)], loss="poisson" if kind == "counts" else "squared_error")
    ax = dlx.plot.boundary(net, POINTS, y)
    contour, points = ax.collections
    lowest, highest = np.transpose([ax.get_xlim(), ax.get_ylim()])
    seen = 0
    for levels, path in zip(
        zip(contour.levels[:-1], contour.levels[1:], strict=True), contour.get_paths(), strict=True
    ):
        places = path.vertices[np.all((path.vertices > lowest + 1e-6) & (path.vertices < highest - 1e-6), axis=1)]
        said = places @ W + b
        said = np.exp(said) if kind == "counts" else said
        assert np.all(np.abs(said - levels).min(axis=1) < 0.01 * np.ptp(contour.levels))
        seen += len(places)
    assert seen > 100
    np.testing.assert_allclose(points.get_offsets(), POINTS)
    np.testing.assert_array_equal(points.get_array(), y)
    assert (points.norm.vmin, points.norm.vmax) == (contour.norm.vmin, contour.norm.vmax)
    assert contour.norm.vmin <= y.min() < y.max() <= contour.norm.vmax
    assert bar_of(ax).get_ylabel() == "prediction; points: target"


# -- weights --


@pytest.mark.parametrize(("shape", "inputs"), [(None, 9), ((3, 4), 12), ([4, 3], 12)])
def test_weights_are_images_of_the_units_of_largest_norm(shape, inputs, be):
    (W, b), rest = pairs((inputs, 7, 2))
    net = dlx.Network([(W, b), rest]).to(be)
    ax = dlx.plot.weights(net, shape, count=5)
    (image,) = ax.images
    picture = np.ma.filled(image.get_array(), np.nan)
    height, width = shape or (3, 3)
    assert picture.shape == (2 * height + 1, 3 * width + 2)
    units = sorted(range(7), key=lambda unit: -np.sum(W[:, unit] ** 2))[:5]
    for k, unit in enumerate(units):
        tile = picture[(k // 3) * (height + 1) :, (k % 3) * (width + 1) :][:height, :width]
        np.testing.assert_array_equal(tile, W[:, unit].reshape(height, width))
    assert np.isnan(picture).sum() == picture.size - 5 * inputs
    most = np.abs(W[:, units]).max()
    assert (image.norm.vmin, image.norm.vmax) == (-most, most)
    np.testing.assert_allclose(image.cmap(0.5)[:3], 1, atol=0.05)  # 0 is white
    assert ax.get_title() == "first layer: 5 of 7 units, those of the largest weights"
    assert bar_of(ax).get_ylabel() == "weight"


def test_weights_of_all_units_of_an_estimator():
    est = dlx.MLPRegressor((3,), solver="lbfgs", random_state=0).fit(np.eye(4), [0.0, 1.0, 2.0, 3.0])
    ax = dlx.plot.weights(est)
    assert ax.get_title() == "first layer: all 3 units"
    shown = np.ma.compressed(ax.images[0].get_array())
    np.testing.assert_array_equal(np.sort(shown), np.sort(est.coefs_[0].ravel()))


# -- confusion --


@pytest.mark.parametrize("kind", ["network", "strings", "yes or no", "estimator", "scikit-learn's"])
def test_confusion_is_scikit_learn_s(kind, be):
    y = DIGIT[:300]
    if kind == "network":
        net = trained().to(be)
    elif kind == "strings":
        y = np.array([f"digit {k}" for k in range(10)])[y]
        net = dlx.fit(DIGITS[:300], y, (64, 10), epochs=2, rng=0).to(be)
    elif kind == "yes or no":
        y = y > 4
        net = dlx.fit(DIGITS[:300], y, (64, 1), epochs=2, rng=0).to(be)
    else:
        make = dlx.MLPClassifier if kind == "estimator" else sklearn.neural_network.MLPClassifier
        net = make((9,), solver="lbfgs", max_iter=8, random_state=0)
        with pytest.warns(sklearn.exceptions.ConvergenceWarning):
            net.fit(DIGITS[:300], y)
    guess = net.predict(DIGITS[:300])
    labels = np.unique(y)
    counts = sklearn.metrics.confusion_matrix(y, guess, labels=labels)
    shares = sklearn.metrics.confusion_matrix(y, guess, labels=labels, normalize="true")
    assert np.count_nonzero(counts) > len(labels)  # there are mistakes
    ax = dlx.plot.confusion(net, be.asarray(DIGITS[:300]) if kind == "network" else DIGITS[:300], y)
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), shares, rtol=1e-12)
    written = {(round(each.get_position()[1]), round(each.get_position()[0])): each.get_text() for each in ax.texts}
    assert written == {(i, j): str(counts[i, j]) for i, j in zip(*np.nonzero(counts), strict=True)}
    for axis in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [each.get_text() for each in axis] == [str(each) for each in labels]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    right = sklearn.metrics.accuracy_score(y, guess)
    assert ax.get_title() == f"{np.trace(counts)} of 300 right: {right:.1%}"


def test_confusion_of_many_classes_leaves_numbers_out():
    net = dlx.Network([(np.eye(40), np.zeros(40))], loss="cross_entropy")
    ax = dlx.plot.confusion(net, np.eye(40), np.roll(np.arange(40), 1))
    np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), np.roll(np.eye(40), 1, axis=1))
    assert texts(ax) == []
    assert [each.get_text() for each in ax.get_yticklabels()] == [str(k) for k in range(0, 40, 2)]


# -- layers --

NETS = {
    "labels": ("cross_entropy", 3, np.arange(30) % 3),
    "real": ("squared_error", 2, RNG.standard_normal((30, 2))),
    "yes or no": ("binary_cross_entropy", 1, np.arange(30) % 2),
}
INPUTS = RNG.standard_normal((30, 4))


def by_differences(params, loss, y, l, h=1e-6):
    """The gradient by the weights of layer l, from two sides, of formulas written here."""

    def value(W):
        A = INPUTS
        for k, (V, b) in enumerate(params):
            Z = A @ (W if k == l else V) + b
            A = np.maximum(Z, 0)
        if loss == "squared_error":
            return np.sum((Z - y) ** 2) / 30
        if loss == "cross_entropy":
            return -np.mean(scipy.special.log_softmax(Z, axis=1)[np.arange(30), y])
        return -np.mean(np.where(y == 1, scipy.special.log_expit(Z[:, 0]), scipy.special.log_expit(-Z[:, 0])))

    W, found = params[l][0], np.zeros_like(params[l][0])
    for place in np.ndindex(W.shape):
        step = np.zeros_like(W)
        step[place] = h
        found[place] = (value(W + step) - value(W - step)) / (2 * h)
    return found


@pytest.mark.parametrize("kind", NETS)
def test_layers_show_quantiles_of_activations_and_gradients(kind, be):
    """Beside activations as formulas, and gradients by central differences."""
    loss, outputs, y = NETS[kind]
    params = pairs((4, 6, 5, outputs), np.random.default_rng(3))
    params[0][1][2] = -100.0  # a dead unit
    ax = dlx.plot.layers(dlx.Network(params, loss=loss).to(be), INPUTS, y)
    outs, A = [], INPUTS
    for l, (W, b) in enumerate(params):
        A = A @ W + b if l == 2 else np.maximum(A @ W + b, 0)
        outs.append(A)
    gradients = [by_differences(params, loss, y, l) for l in range(3)]
    for name, shift, values in (("activations", -0.15, outs), ("gradients of weights", 0.15, gradients)):
        shown = line(ax, name)
        np.testing.assert_allclose(shown[:, 1], np.arange(1, 4) + shift)
        for l, each in enumerate(values):
            sizes = np.abs(each[np.abs(each) > 1e-9])
            q05, q25, q50, q75, q95 = np.quantile(sizes, (0.05, 0.25, 0.5, 0.75, 0.95))
            assert shown[l, 0] == pytest.approx(q50, rel=1e-5)
            spans = [np.asarray(k.get_xydata()) for k in ax.lines if len(k.get_xydata()) == 2]
            spans = [each[:, 0] for each in spans if np.allclose(each[:, 1], l + 1 + shift)]
            np.testing.assert_allclose(spans, [[q05, q95], [q25, q75]], rtol=1e-5)
    assert ax.get_xscale() == "log"
    assert [each.get_text() for each in ax.get_yticklabels()] == ["1  relu", "2  relu", "3  (scores)"]
    assert ax.get_ylim() == (3.5, 0.5)  # the first layer above
    assert legend(ax) == ["activations", "gradients of weights"]


def test_layers_mark_dead_units_and_other_zeros():
    params = pairs((4, 6, 5, 3), np.random.default_rng(3))
    params[0][1][1:3] = -100.0
    params[1][1][:] = 100.0  # never zero
    ax = dlx.plot.layers(dlx.Network(params, loss="cross_entropy"), INPUTS, NETS["labels"][2])
    A = np.maximum(INPUTS @ params[0][0] + params[0][1], 0)
    zeros, dead = np.mean(A == 0), np.sum((A == 0).all(axis=0))
    assert dead == 2
    assert zeros > 2 / 6
    assert texts(ax) == [f"{zeros:.0%} zeros", "2 of 6 dead"]
    widths = np.array([each.get_width() for each in ax.patches])
    np.testing.assert_allclose(widths / widths.sum(), [dead / 6, zeros - dead / 6, 1 - zeros])
    assert [each.get_y() for each in ax.patches] == [0.6] * 3  # beside the first layer
    assert len({each.get_facecolor() for each in ax.patches}) == 3
    ax.figure.canvas.draw()
    drawn = np.asarray(ax.figure.canvas.buffer_rgba())[::-1]
    for each in ax.patches:
        middle = each.get_window_extent().get_points().mean(axis=0).astype(int)
        np.testing.assert_allclose(drawn[middle[1], middle[0]] / 255, each.get_facecolor(), atol=0.01)
    box = ax.patches[-1].get_window_extent()
    assert ax.get_window_extent().x1 < box.x0 < box.x1 < ax.figure.bbox.x1  # beside the Axes, on the picture


def test_layers_show_vanishing_gradients():
    """Ten sigmoid layers: each passes at most a quarter of the gradient on, times its weights."""
    params = [(0.5 * W, b) for W, b in pairs((4, *[8] * 10, 1))]
    ax = dlx.plot.layers(dlx.Network(params, activation="sigmoid"), INPUTS, INPUTS[:, 0])
    sizes = line(ax, "gradients of weights")[:, 0]
    assert sizes[-1] / sizes[0] > 1e5
    left, right = ax.get_xlim()
    assert left < sizes[0] < sizes[-1] < right
    assert texts(ax) == []


def test_layers_of_a_network_that_is_all_dead():
    W, b = np.ones((2, 3)), np.full(3, -10.0)
    ax = dlx.plot.layers(dlx.Network([(W, b), (np.ones((3, 1)), np.zeros(1))]), np.ones((5, 2)), np.ones(5))
    assert texts(ax) == ["100% zeros", "3 of 3 dead"]
    assert np.isnan(line(ax, "activations")).any()


def test_layers_take_evenly_spaced_rows():
    net = dlx.Network([(np.ones((1, 1)), np.zeros(1))])
    X = np.arange(1.0, 102.0)[:, None]
    ax = dlx.plot.layers(net, X, X[:, 0], rows=3)
    assert line(ax, "activations")[0, 0] == 51  # the median of 1, 51, 101
    assert line(dlx.plot.layers(net, X[:, [0, 0]][:, :1], X), "activations")[0, 0] == 51


# -- learning rates --


def test_learning_rates_are_those_found():
    found = dlx.find_learning_rate(DIGITS, DIGIT, (64, 16, 10), lowest=1e-5, highest=100, updates=80, rng=0)
    for ax in (
        dlx.plot.learning_rates(DIGITS, DIGIT, (64, 16, 10), None, 1e-5, 100, updates=80, rng=0),
        dlx.plot.rate_search(found),
    ):
        np.testing.assert_array_equal(line(ax, "loss of a batch"), np.stack([found.rates, found.losses], axis=1))
        np.testing.assert_array_equal(line(ax, "smoothed"), np.stack([found.rates, found.smoothed], axis=1))
        expected = [f"falls most steeply\nat {found.suggestion:.2g}", f"diverges\nfrom {found.diverges:.2g}"]
        assert texts(ax) == expected
        marks = [each.get_xdata()[0] for each in ax.lines if each.get_linestyle() == ":"]
        assert marks == [found.suggestion, found.diverges]
        (dot,) = [each.get_xydata()[0] for each in ax.lines if each.get_linestyle() == "None"]
        assert dot[0] == found.suggestion
        assert found.smoothed[found.rates == dot[0]] == dot[1]
        assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "learning rate", "loss")
        low, high = ax.get_ylim()
        assert low <= found.smoothed.min() < found.smoothed.max() < high


def test_a_search_that_diverged_at_once_is_drawn():
    found = dlx.find_learning_rate(
        POINTS, POINTS[:, 0], (2, 1), lowest=1e6, highest=1e30, optimizer="sgd", rng=0, dtype="float32"
    )
    assert texts(dlx.plot.rate_search(found))[-1].startswith("diverges")


# -- what all have in common --

NET2 = dlx.Network(pairs((2, 5, 2)), loss="cross_entropy", history={"loss": [2.0, 1.0]})
NET4 = dlx.Network(pairs((4, 5, 2)), loss="cross_entropy", history={"loss": [2.0, 1.0]})
CALLS = {
    "history": lambda ax=None: dlx.plot.history(NET4, ax=ax),
    "boundary": lambda ax=None: dlx.plot.boundary(NET2, POINTS, (POINTS[:, 0] > 0) * 1, ax=ax),
    "weights": lambda ax=None: dlx.plot.weights(NET4, ax=ax),
    "confusion": lambda ax=None: dlx.plot.confusion(NET4, INPUTS, np.arange(30) % 2, ax=ax),
    "layers": lambda ax=None: dlx.plot.layers(NET4, INPUTS, np.arange(30) % 2, ax=ax),
    "learning_rates": lambda ax=None: dlx.plot.learning_rates(INPUTS, INPUTS[:, 0], (4, 1), ax=ax, updates=20),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_takes_and_returns_an_axes(name):
    figure, (left, right) = plt.subplots(1, 2)
    assert CALLS[name](right) is right
    assert plt.gcf() is figure
    assert not left.has_data()
    own = CALLS[name]()
    assert own.figure is not figure
    assert own.figure.get_size_inches()[0] * own.figure.dpi == 600
    with pytest.raises(TypeError, match=r"`ax` must be a matplotlib Axes; got Figure\. For example"):
        CALLS[name](figure)


def test_each_is_drawn_on_a_dark_page_in_its_ink():
    with plt.style.context("dark_background"):
        ax = CALLS["history"]()
        (dot,) = [each for each in ax.lines if each.get_linestyle() == "None"]
        assert (dot.get_color(), ax.texts[0].get_color()) == ("white", "white")
        plt.close(ax.figure)


def regression():
    return dlx.Network(pairs((2, 2)))


REJECTED = [
    (lambda: dlx.plot.history(dlx.Network(pairs((2, 1)))), ValueError, "`net` must have a history; got"),
    (lambda: dlx.plot.history(dlx.MLPClassifier()), ValueError, "`net` must have a history; got"),
    (lambda: dlx.plot.boundary(NET4, INPUTS, HALVES), ValueError, "`X` must have shape (n, 2); got shape (30, 4)."),
    (lambda: dlx.plot.boundary(NET2, POINTS[:, 0], HALVES), ValueError, "`X` must have shape (n, 2); got shape (60,)."),
    (lambda: dlx.plot.boundary(NET2, POINTS[:0], HALVES), ValueError, "`X` must have shape (n, 2); got shape (0, 2)."),
    (lambda: dlx.plot.boundary(NET2, POINTS, HALVES), ValueError, "`y` must hold labels of the training data; got 'r"),
    (lambda: dlx.plot.boundary(NET2, POINTS, np.arange(5) % 2), ValueError, "`y` must have 60 rows, one for each row"),
    (lambda: dlx.plot.boundary(NET2, POINTS, np.eye(60)), ValueError, "`y` must hold one label a row, (n,); got shape"),
    (lambda: dlx.plot.boundary(regression(), POINTS, POINTS), ValueError, "`y` must hold one real target a row; got"),
    (lambda: dlx.plot.boundary(regression(), POINTS, POINTS[:, 0]), ValueError, "`y` must hold one real target a row"),
    (
        lambda: dlx.plot.boundary(NET2, POINTS * np.nan, HALVES),
        ValueError,
        "`X` must be finite to be drawn; got nan",
    ),
    (lambda: dlx.plot.boundary(NET2, HALVES[:, None] + np.array(["a", "b"]), HALVES), TypeError, "`X` must hold real"),
    (lambda: dlx.plot.boundary(regression(), POINTS, HALVES), TypeError, "`y` must hold real numbers; got dtype <U5"),
    (
        lambda: dlx.plot.boundary(regression(), POINTS, np.full(60, np.inf)),
        ValueError,
        "`y` must be finite to be drawn; got inf in row 0. Fill or drop such rows.",
    ),
    (lambda: dlx.plot.weights(dlx.Network(pairs((6, 1)))), ValueError, "`shape` must be (height, width) of 6 pixels;"),
    (lambda: dlx.plot.weights(NET4, (3, 2)), ValueError, "`shape` must be (height, width) of 4 pixels; got (3, 2)."),
    (lambda: dlx.plot.weights(NET4, "22"), ValueError, "`shape` must be (height, width) of 4 pixels; got '22'."),
    (lambda: dlx.plot.weights(NET4, (-2, -2)), ValueError, "`shape` must be an integer >= 1; got -2."),
    (lambda: dlx.plot.weights(NET4, count=0), ValueError, "`count` must be an integer >= 1; got 0."),
    (lambda: dlx.plot.weights(dlx.MLPClassifier()), TypeError, "`net` must be trained; got MLPClassifier."),
    (
        lambda: dlx.plot.confusion(regression(), POINTS, HALVES),
        TypeError,
        "`net` must be a trained classifier with one label a row; got Network of loss squared_error.",
    ),
    (
        lambda: dlx.plot.confusion(dlx.MLPClassifier(), POINTS, HALVES),
        TypeError,
        "`net` must be a trained classifier with one label a row; got MLPClassifier.",
    ),
    (lambda: dlx.plot.confusion(NET2, POINTS, [0, 1]), ValueError, "`y` must have 60 rows, one for each row of X; got"),
    (lambda: dlx.plot.confusion(NET2, INPUTS, [0] * 30), ValueError, "`X` must have shape (n, 2) to match the first"),
    (lambda: dlx.plot.layers(dlx.MLPClassifier(), POINTS, HALVES), TypeError, "`net` must be a dlx.Network; got MLPC"),
    (
        lambda: dlx.plot.layers(NET2, POINTS, HALVES[:5]),
        ValueError,
        "`y` must have 60 rows, one for each row of X; got",
    ),
    (lambda: dlx.plot.layers(NET2, POINTS, POINTS, rows=0), ValueError, "`rows` must be an integer >= 1; got 0."),
    (lambda: dlx.plot.learning_rates(POINTS, POINTS, (2, 2), lowest=-1), ValueError, "`lowest` must be a number > 0"),
    (lambda: dlx.plot.rate_search(3), TypeError, "`found` must be a RateSearch; got int."),
]


@pytest.mark.parametrize(("call", "kind", "text"), REJECTED, ids=lambda each: each if isinstance(each, str) else "")
def test_what_cannot_be_drawn_is_rejected_before_there_is_a_figure(call, kind, text):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value).startswith(text)
    assert plt.get_fignums() == []


def test_without_matplotlib_the_error_says_what_to_install():
    code = """
import sys
import dlx
assert "matplotlib" not in sys.modules
sys.modules["matplotlib"] = None
net = dlx.Network([([[1.0]], [0.0])], history={"loss": [1.0]})
for call in (lambda: dlx.plot.history(net), lambda: dlx.plot.learning_rates([[1.0]], [1.0], (1, 1))):
    try:
        call()
    except ImportError as reason:
        print(reason)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert run.returncode == 0, run.stderr
    assert run.stdout == "dlx.plot needs matplotlib; run: pip install 'dlx-nn[plot]'\n" * 2


def test_an_axes_that_is_not_straight_is_rejected():
    _, ax = plt.subplots(subplot_kw={"projection": "polar"})
    with pytest.raises(TypeError, match=r"`ax` must be an Axes of two straight axes; got a polar one\."):
        dlx.plot.history(trained(), ax)


def test_names_are_shown_as_they_are_and_long_ones_shortened():
    names = np.array(["_hidden", "$5 to $10", "a" * 40])
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(POINTS, columns=["$x_1", "_" * 30])
    y = names[np.arange(60) % 3]
    net = dlx.fit(X, y, (2, 4, 3), epochs=1, rng=0)
    shown = ["$5 to $10", "_hidden", "a" * 16 + "\N{HORIZONTAL ELLIPSIS}" + "a" * 7]
    ax = dlx.plot.boundary(net, X, y)
    assert legend(ax) == shown
    assert [ax.get_xlabel(), ax.get_ylabel()] == ["$x_1", "_" * 16 + "\N{HORIZONTAL ELLIPSIS}" + "_" * 7]
    counts = dlx.plot.confusion(net, X, y)
    for labels in (counts.get_xticklabels(), counts.get_yticklabels()):
        assert [each.get_text() for each in labels] == shown
    ax.figure.canvas.draw()
    counts.figure.canvas.draw()
    every = [*ax.get_legend().get_texts(), ax.xaxis.label, ax.yaxis.label, *counts.get_xticklabels()]
    assert not any(each.get_parse_math() for each in every)


def test_a_validation_that_is_nan_throughout_is_left_out():
    net = dlx.Network(pairs((2, 1)), history={"loss": [3.0, 1.0, 2.0], "validation_loss": [np.nan] * 3})
    ax = dlx.plot.history(net)
    assert legend(ax) == ["training loss"]
    assert texts(ax) == ["best epoch: 2\nloss 1"]


# -- all labels lie within the figure --

LONG = np.array([f"a class of some thirty letters {k:02d}" for k in range(20)])
CROWDED = dlx.fit(POINTS, LONG[np.arange(60) % 20], (2, 20), epochs=2, rng=0, validation=(POINTS, LONG[:1].repeat(60)))
WITH_LONG_NAMES = {
    "confusion": lambda ax=None: dlx.plot.confusion(CROWDED, POINTS, LONG[np.arange(60) % 20], ax=ax),
    "boundary": lambda ax=None: dlx.plot.boundary(CROWDED, POINTS, LONG[np.arange(60) % 20], ax=ax),
    "history": lambda ax=None: dlx.plot.history(CROWDED, ax=ax),
    "weights": lambda ax=None: dlx.plot.weights(CROWDED, shape=(1, 2), ax=ax),
    "layers": lambda ax=None: dlx.plot.layers(CROWDED, POINTS, LONG[np.arange(60) % 20], ax=ax),
}


def outside(ax):
    """The labels, ticks' labels and titles, of the Axes and its figure's others, that the picture cuts off."""
    ax.figure.canvas.draw()
    box, cut = ax.figure.bbox, []
    for each in ax.figure.axes:
        ticks = [tick for axis in (each.xaxis, each.yaxis) for tick in axis.get_ticklabels() if each.axison]
        low, high = sorted(each.get_ylim())
        ticks = [t for t in ticks if t.get_text() and (t.get_position()[0] or low <= t.get_position()[1] <= high)]
        legend = each.get_legend().get_texts() if each.get_legend() else []
        drawn = [each.title, *([each.xaxis.label, each.yaxis.label] if each.axison else []), *ticks, *legend]
        left, right = sorted(each.get_xlim())
        for text in drawn:
            if text in ticks and text in each.get_xticklabels() and not left <= text.get_position()[0] <= right:
                continue  # beyond the limits, where matplotlib draws none
            found = text.get_window_extent()
            if min(found.x0 - box.x0, found.y0 - box.y0, box.x1 - found.x1, box.y1 - found.y1) < -0.5:
                cut.append(text.get_text())
    return cut


@pytest.mark.parametrize("name", WITH_LONG_NAMES)
@pytest.mark.parametrize("own", [True, False], ids=["a figure of its own", "the user's Axes"])
def test_labels_are_not_cut_off(name, own):
    """With 20 classes of 30 letters, confusion's "predicted" and "true" lay 156 and 101 pixels outside the figure."""
    ax = None if own else plt.subplots()[1]
    drawn = WITH_LONG_NAMES[name](ax=ax)
    assert outside(drawn) == []
    assert drawn.get_window_extent().width > 150


def test_a_layout_of_the_user_s_own_stays():
    figure, ax = plt.subplots(layout="constrained")
    WITH_LONG_NAMES["confusion"](ax=ax)
    assert figure.get_layout_engine().__class__.__name__ == "ConstrainedLayoutEngine"
    assert outside(ax) == []
    figure, ax = plt.subplots()
    before = ax.get_position().bounds
    dlx.plot.history(CROWDED, ax=ax)
    assert ax.get_position().bounds == before  # for there is room


def test_long_names_differ_in_what_is_shown():
    for ax in (WITH_LONG_NAMES["confusion"](), WITH_LONG_NAMES["boundary"]()):
        shown = legend(ax) if ax.get_legend() else [each.get_text() for each in ax.get_yticklabels()]
        assert len(set(shown)) == len(shown) == 20
        assert max(map(len, shown)) <= 24
