"""The rules by which an estimator's training ends, and where a training goes on."""

import math

import numpy as np
import pytest

import dlx
from conftest import EVERYWHERE
from dlx import network, schedules
from dlx.data.targets import check, place
from dlx.estimators import stopping
from dlx.training import loop, steps


def test_a_figure_that_is_nan_never_improves():
    rule = stopping.Plateau(tol=0.0, patience=1, rate=1.0)
    assert [rule.ends(figure) for figure in (math.nan, 1.0, math.nan, math.nan)] == [False, False, False, True]
    assert rule.best == 1.0


def test_an_adaptive_rate_falls_by_five_until_it_is_small():
    rule = stopping.Plateau(tol=0.1, patience=0, rate=1e-5, adaptive=True)
    ended = [rule.ends(0.0) for _ in range(4)]
    assert ended == [False, False, False, True]
    assert rule.rate == rule.schedule(0, 0, []) == pytest.approx(1e-5 / 25)


def test_the_rate_by_samples_holds_for_an_epoch():
    schedule = stopping.by_samples(1.0, 0.5, 8, 3)
    rates = [schedule(step, 9, losses) for step, losses in ((0, []), (2, []), (3, [0.1]))]
    assert rates == pytest.approx([1 / 3, 1 / 3, 12**-0.5])


def test_a_schedule_over_parts_stays_at_its_end():
    part = stopping.over(schedules.cosine(1.0, floor=0.5), 10)
    assert part(5, 6, []) == 0.75
    assert part(9, 10, []) == part(50, 51, []) == schedules.cosine(1.0, floor=0.5)(9, 10, [])


def test_a_loss_is_flat_in_units_of_its_size():
    assert not stopping.flat([1.0], 0.1)
    assert stopping.flat([100.0, 95.0], 0.1)
    assert not stopping.flat([100.0, 85.0], 0.1)
    assert not stopping.flat([-1.0, -1.2], 0.1)


@pytest.mark.parametrize("selector", EVERYWHERE)
@pytest.mark.parametrize("optimizer", [dlx.adam(), dlx.nesterov(), dlx.gradient_descent()], ids=lambda each: each.name)
def test_a_training_goes_on_where_another_ended(selector, optimizer):
    """Three epochs and three more, from parameters, slots and updates, are six."""
    be = dlx.get_backend(selector)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 4)), rng.integers(0, 3, 30)
    first = [(rng.standard_normal((4, 5)), np.zeros((1, 5))), (rng.standard_normal((5, 3)), np.zeros((1, 3)))]
    hidden, loss = (dlx.activations.tanh(),), dlx.losses.cross_entropy()
    with be.scope():
        rows = place(check(y, loss, 3, 30), None, be.asarray(X, "float64"), be, "float64")
        task = steps.Task(be, network.bind(be, "float64", hidden, loss), "float64", rows, None)

        def train(pairs, epochs, start=None):
            kept = []
            params = tuple(dlx.Layer(*(be.copy(be.asarray(each, "float64")) for each in pair)) for pair in pairs)
            settings = steps.Settings(
                optimizer, schedules.exponential(0.05, every=3), 8, epochs, False, None, None, None
            )
            params, _ = loop.train(task, settings, params, rng, lambda params: {}, lambda *_: False, start, kept.append)
            before = start.updates if start else 0
            assert [each.updates for each in kept] == [before + 4 * k for k in range(1, epochs + 1)]
            return params, kept[-1]

        whole, end = train(first, 6)
        assert [tuple(w.shape) for w in end.optimizer_state[0][0]] == [(4, 5)] * optimizer.slots
        halves, _ = train(train(first, 3)[0], 3, train(first, 3)[1])
        for a, b in zip(whole, halves, strict=True):
            np.testing.assert_allclose(be.to_host(b.W), be.to_host(a.W), rtol=1e-12)
            np.testing.assert_allclose(be.to_host(b.b), be.to_host(a.b), rtol=1e-12)


def test_half_the_squared_error_is_half_of_value_and_slope():
    whole, half = (dlx.losses.squared_error(flag).bind(np, np.asarray) for flag in (False, True))
    Z, Y = np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])
    assert half.value(Z, Y).tolist() == (whole.value(Z, Y) / 2).tolist() == [[2.5]]
    assert half.delta(Z, Y).tolist() == (whole.delta(Z, Y) / 2).tolist() == [[1.0, -2.0]]
    with pytest.raises(TypeError, match=r"`half` must be True or False; got 0\.5"):
        dlx.losses.squared_error(0.5)


@pytest.mark.parametrize("most", [1, 4, 9])
def test_lbfgs_evaluates_no_more_than_it_may(most):
    seen = []

    def evaluate(x):
        seen.append(x)
        return float(((x - 3) ** 4).sum()), 4 * (x - 3) ** 3

    minimizer = dlx.quasi_newton.Minimizer(np, dlx.lbfgs(max_evaluations=most, tolerance=0.0), evaluate, np.zeros(2))
    while not minimizer.advance():
        pass
    assert len(seen) == minimizer.evaluations == most
    with pytest.raises(ValueError, match="max_evaluations"):
        dlx.lbfgs(max_evaluations=0)
