"""`find_learning_rate`: the losses are those of `fit`'s own updates, and what is read off them is what they say."""

import math

import numpy as np
import pytest
import sklearn.datasets

import dlx
from dlx import learning_rates

RNG = np.random.default_rng(8)
X = RNG.standard_normal((40, 4))
Y = X @ RNG.standard_normal((4, 1)) + 0.1
LABELS = np.array(["no", "yes"])[(Y[:, 0] > 0) * 1]


def rising(lowest, highest, updates):
    """The schedule of the search."""
    return lambda step, steps, losses: lowest * (highest / lowest) ** (step / (updates - 1))


def digits():
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    return (X / 16).astype("f4"), y


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", dlx.adamw(0.5, weight_decay=0.3)])
@pytest.mark.parametrize(
    "options", [{}, {"l2": 0.1, "l1": 0.01}, {"clip_norm": 0.1}, {"clip_value": 0.01}, {"dropout": 0.5}], ids=str
)
def test_losses_are_those_of_fit_with_that_schedule(optimizer, options, be):
    """Where an epoch is one batch, fit's history holds every update; an optimizer's own rate is not used."""
    given = {"batch_size": None, "activation": "tanh", "rng": 3, "backend": be, **options}
    found = dlx.find_learning_rate(X, Y, (4, 5, 1), lowest=1e-4, highest=0.1, updates=20, optimizer=optimizer, **given)
    given |= {"optimizer": optimizer, "learning_rate": rising(1e-4, 0.1, 20)}
    if not isinstance(optimizer, str):
        given["optimizer"] = optimizer._replace(learning_rate=given.pop("learning_rate"))
    net = dlx.fit(X, Y, (4, 5, 1), epochs=20, **given)
    np.testing.assert_allclose(found.losses, net.history["loss"], rtol=1e-12)
    np.testing.assert_allclose(found.rates, net.history["learning_rate"], rtol=1e-12)


WEIGHTS = [{}, {"sample_weight": np.arange(40.0)}, {"class_weight": {"yes": 5.0}}, {"shuffle": False}, {"stream": True}]


@pytest.mark.parametrize("options", WEIGHTS, ids=lambda each: "".join(each) or "none")
def test_batches_labels_and_weights_are_those_of_fit(options, be):
    """Four batches an epoch: fit's first epoch has the mean of the first four losses."""
    given = {"batch_size": 10, "rng": 5, "backend": be, **options}
    found = dlx.find_learning_rate(X, LABELS, (4, 6, 1), lowest=1e-3, highest=1e-2, updates=20, **given)
    net = dlx.fit(X, LABELS, (4, 6, 1), learning_rate=rising(1e-3, 1e-2, 20), epochs=1, **given)
    assert np.mean(found.losses[:4]) == pytest.approx(net.history["loss"][0], rel=1e-12)


def test_batches_are_of_one_size_and_each_pass_takes_every_row():
    """Seven rows, batches of three: a batch may end one pass and begin the next."""
    batches = learning_rates._batches(7, 3, np.random.default_rng(0))
    found = np.concatenate([next(batches) for _ in range(7)]).reshape(3, 7)
    assert {tuple(sorted(each)) for each in found.tolist()} == {(0, 1, 2, 3, 4, 5, 6)}
    assert len({tuple(each) for each in found.tolist()}) == 3


@pytest.mark.parametrize("array", [np.asarray, lambda x: x.tolist()], ids=["array", "list"])
def test_nothing_of_the_callers_is_written_and_what_plays_no_part_plays_none(array):
    given = [X.copy(), Y.copy()]
    for each in given:
        each.flags.writeable = False
    generator = np.random.default_rng(0)
    found = dlx.find_learning_rate(array(given[0]), array(given[1]), (4, 1), updates=20, rng=generator, dtype="float64")
    ignored = {"epochs": 7, "validation": 0.2, "patience": 1, "callbacks": [print], "verbose": 2}
    other = dlx.find_learning_rate(X, Y, (4, 1), updates=20, rng=np.random.default_rng(0), **ignored)
    np.testing.assert_array_equal(found.losses, other.losses)
    assert generator.integers(1 << 60) != np.random.default_rng(0).integers(1 << 60)  # it was drawn from


# -- what is read off the losses --


def judged(losses, updates=None, diverged=False):
    """What is read off losses at rates 1e-6 .. 10, smoothed as in a search of as many."""
    n = updates or len(losses)
    rates = np.geomspace(1e-6, 10.0, n)
    return learning_rates._search_result(rates, np.asarray(losses, float), learning_rates.SMOOTHING * n, diverged)


def test_smoothing_is_a_gaussian_mean():
    losses = RNG.standard_normal(50)
    k = np.arange(50)
    weights = np.exp(-0.5 * ((k[:, None] - k) / 2.5) ** 2) * (abs(k[:, None] - k) <= 10)
    expected = weights @ losses / weights.sum(axis=1)
    np.testing.assert_allclose(judged(losses).smoothed, expected, rtol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("place", [-4.0, -2.5, -1.0])
def test_the_suggestion_is_where_a_known_curve_is_steepest(place, noise):
    """A logistic step in the logarithm of the rate: steepest in its middle."""
    at = np.log10(np.geomspace(1e-6, 10.0, 300))
    losses = 2.0 - 1.5 / (1 + np.exp(-4 * (at - place))) + noise * np.random.default_rng(1).standard_normal(300)
    found = judged(losses)
    assert math.log10(found.suggestion) == pytest.approx(place, abs=0.03 if noise == 0 else 0.3)
    assert found.diverges is None


def test_the_suggestion_lies_before_the_minimum_and_divergence_after_it():
    """Down at 1e-4, up through the start at 1e-1, and down again steeply, which is not to be followed."""
    at = np.log10(np.geomspace(1e-6, 10.0, 300))
    losses = 2 - 1 / (1 + np.exp(-6 * (at + 4))) + 3 / (1 + np.exp(-6 * (at + 1)))
    found = judged(losses)
    assert math.log10(found.suggestion) == pytest.approx(-4, abs=0.05)
    crossing = np.log10(np.geomspace(1e-6, 10.0, 300)[np.flatnonzero(losses <= 2.0)[-1] + 1])
    assert math.log10(found.diverges) == pytest.approx(crossing, abs=0.25)  # smoothed over a third of a decade


def test_a_steeper_fall_after_the_minimum_is_not_suggested():
    """Down by 1 at 1e-4, up by 1.8 and, steeply, down by 1.5 again: not as deep as before."""
    at = np.log10(np.geomspace(1e-6, 10.0, 300))
    steps = [1 / (1 + np.exp(-slope * (at - place))) for slope, place in ((3, -4), (3, -2), (12, 0))]
    found = judged(2 - steps[0] + 1.8 * steps[1] - 1.5 * steps[2])
    assert math.log10(found.suggestion) == pytest.approx(-4, abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_suggests_nothing(seed):
    noise = np.random.default_rng(seed).standard_normal(300)
    found = judged(2.0 + 0.5 * noise)
    assert (found.suggestion, found.diverges) == (None, None)


def test_a_search_that_ended_early_diverged_at_its_last_rate_or_before():
    falling = np.linspace(2, 1, 200)
    rates = np.geomspace(1e-6, 10.0, 300)
    assert judged(falling, 300, diverged=True).diverges == pytest.approx(rates[199], rel=0.2)
    nothing = judged([], 300, diverged=True)
    assert (len(nothing.losses), nothing.suggestion, nothing.diverges) == (0, None, rates[0])


# -- on data --


def test_digits_are_learnt_at_the_suggested_rate():
    """Ten epochs learn what a hundredth and a hundredfold of the rate do not; Adam's usual 1e-3 lies near."""
    X, y = digits()
    found = [dlx.find_learning_rate(X, y, (64, 64, 10), rng=seed) for seed in range(3)]
    suggestions = np.log10([each.suggestion for each in found])
    assert np.ptp(suggestions) < 0.3
    assert np.all(np.abs(suggestions + 2.5) < 0.5)
    nets = [
        dlx.fit(X, y, (64, 64, 10), learning_rate=factor * found[0].suggestion, epochs=10, rng=0)
        for factor in (0.01, 1, 100)
    ]
    slow, good, wild = (net.score(X, y) for net in nets)
    assert good > 0.95
    assert slow < 0.7
    assert wild < 0.9


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rates", [(1e3, 1e9), (1e20, 1e38), (1e-3, 1e30)])
def test_divergence_ends_the_search_and_raises_nothing(rates, be):
    found = dlx.find_learning_rate(
        X, 10 * Y, (4, 8, 1), lowest=rates[0], highest=rates[1], optimizer="sgd", backend=be, rng=0, dtype="float32"
    )
    assert len(found.losses) < 300
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    assert np.isfinite(found.losses).all()
    assert found.diverges is not None


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"lowest": 0}, ValueError, "`lowest` must be a number > 0; got 0."),
        ({"lowest": 1, "highest": 0.1}, ValueError, "`highest` must be a number > 1; got 0.1."),
        ({"updates": 10}, ValueError, "`updates` must be an integer >= 20; got 10."),
        ({"learning_rate": 0.1}, ValueError, "`learning_rate` must be left out; got 0.1. It is what is searched,"),
        ({"optimizer": "lbfgs"}, ValueError, "`optimizer` must have a learning rate; got lbfgs."),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1; got 0."),
        ({"rng": -1}, ValueError, "`rng` must be None, an int >= 0"),
        ({"layer_dims": (3, 1)}, ValueError, "`X` must have shape (n, 3) to match the first layer; got (40, 4)."),
        ({"bach_size": 3}, TypeError, "bach_size"),
    ],
)
def test_wrong_arguments(arguments, kind, text):
    with pytest.raises((ValueError, TypeError)) as caught:
        dlx.find_learning_rate(**{"X": X, "y": Y, "layer_dims": (4, 1), **arguments})
    assert type(caught.value) is kind
    assert text in str(caught.value)


@pytest.mark.parametrize("lowest", [3.0, 30.0, 1e3])
def test_a_search_that_explodes_from_its_first_updates_on_suggests_nothing(lowest):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    how = {"optimizer": "gradient_descent", "loss": "squared_error", "rng": 0}
    found = dlx.find_learning_rate(X, X.sum(axis=1), (5, 32, 1), lowest=lowest, highest=1e3 * lowest, **how)
    assert found.suggestion is None
    assert found.diverges is not None
