"""Schedules beside those of torch, optax and scikit-learn, step by step; their purity; what they reject."""

import copy
import math
import pickle
import random

import numpy as np
import pytest
import sklearn.base
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer

import dlx
import oracles
from dlx import schedules

STEPS = 200
LOSSES = [3.0, 2.0, 1.9999, 1.99985, 1.5, 1.5, math.nan, 1.6, 1.6, math.inf, 1.4, *[1.4] * 12, 1.0, *[1.1] * 9]


def by_step(schedule, steps=STEPS):
    return [schedule(step, steps, []) for step in range(steps)]


def by_epoch(schedule, losses):
    return [schedule(0, 0, losses[:epochs]) for epochs in range(len(losses) + 1)]


# -- torch --


def torch_rates(name, rate, settings, steps=STEPS, losses=None):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **settings)
    found = [optimizer.param_groups[0]["lr"]]
    for at in range(steps - 1) if losses is None else losses:
        optimizer.step()
        schedule.step() if losses is None else schedule.step(at)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def one_cycle(pct_start=0.3, start=25.0, end=1e4, steps=STEPS):
    more = {"anneal_strategy": "cos", "three_phase": False, "cycle_momentum": False, "total_steps": steps}
    return {"max_lr": 0.3, "pct_start": pct_start, "div_factor": start, "final_div_factor": end, **more}


BY_STEP = {  # ours; torch's name, settings and number of steps
    "constant": (schedules.constant(0.3), "ConstantLR", {"factor": 1.0}, STEPS),
    "step_decay": (schedules.step_decay(0.3, 0.5, 30), "StepLR", {"gamma": 0.5, "step_size": 30}, STEPS),
    "step_decay, every step": (schedules.step_decay(0.3, 0.9, 1), "StepLR", {"gamma": 0.9, "step_size": 1}, STEPS),
    "exponential": (schedules.exponential(0.3, 0.5, 30), "ExponentialLR", {"gamma": 0.5 ** (1 / 30)}, STEPS),
    "cosine": (schedules.cosine(0.3), "CosineAnnealingLR", {"T_max": STEPS}, STEPS),
    "cosine to a floor": (schedules.cosine(0.3, 0.02), "CosineAnnealingLR", {"T_max": STEPS, "eta_min": 0.02}, STEPS),
    "one_cycle": (schedules.one_cycle(0.3), "OneCycleLR", one_cycle(), STEPS),
    "one_cycle, late": (schedules.one_cycle(0.3, 0.5, 10, 100), "OneCycleLR", one_cycle(0.5, 10, 100), STEPS),
    "one_cycle, down only": (schedules.one_cycle(0.3, 0.0), "OneCycleLR", one_cycle(0.0), STEPS),
    "one_cycle, up only": (schedules.one_cycle(0.3, 1.0), "OneCycleLR", one_cycle(1.0), STEPS),
    "one_cycle of 7": (schedules.one_cycle(0.3, 0.4), "OneCycleLR", one_cycle(0.4, steps=7), 7),
}
PLATEAUS = {
    "default": (schedules.reduce_on_plateau(0.3), {}),
    "patience 0": (schedules.reduce_on_plateau(0.3, patience=0), {"patience": 0}),
    "patience 2": (schedules.reduce_on_plateau(0.3, 0.5, 2), {"factor": 0.5, "patience": 2}),
    "floor": (schedules.reduce_on_plateau(0.3, 0.5, 1, 0.02), {"factor": 0.5, "patience": 1, "min_lr": 0.02}),
    "improvement": (
        schedules.reduce_on_plateau(0.3, 0.5, 1, 0.0, 0.05),
        {"factor": 0.5, "patience": 1, "threshold": 0.05},
    ),
}
library = oracles.by_library(oracles.installed({"torch": "torch"}))


@library
@pytest.mark.parametrize(("schedule", "name", "settings", "steps"), BY_STEP.values(), ids=BY_STEP)
def test_by_step_it_is_torchs(schedule, name, settings, steps, library):
    expected = torch_rates(name, 0.3, settings, steps)
    # torch multiplies from step to step; near 0 that leaves an error relative to the start
    np.testing.assert_allclose(by_step(schedule, steps), expected, rtol=1e-12, atol=1e-14)


@library
@pytest.mark.parametrize(("schedule", "settings"), PLATEAUS.values(), ids=PLATEAUS)
def test_on_a_plateau_it_is_torchs(schedule, settings, library):
    expected = torch_rates("ReduceLROnPlateau", 0.3, {"eps": 0.0, **settings}, losses=LOSSES)
    assert len(set(expected)) > 1
    np.testing.assert_allclose(by_epoch(schedule, LOSSES), expected, rtol=1e-12)


# -- optax, scikit-learn, by hand --


@oracles.by_library(oracles.installed({"optax": "optax"}))
@pytest.mark.parametrize(("warmup", "floor"), [(0.0, 0.0), (0.05, 0.0), (0.3, 0.02), (0.5, 0.3)])
def test_warmup_cosine_is_optaxs(warmup, floor, library):
    import optax

    theirs = optax.warmup_cosine_decay_schedule(floor, 0.3, round(warmup * STEPS), STEPS, floor)
    found = by_step(schedules.warmup_cosine(0.3, warmup, floor))
    np.testing.assert_allclose(found, [float(theirs(step)) for step in range(STEPS)], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_inverse_scaling_is_that_of_scikit_learn(power):
    theirs = SGDOptimizer([np.zeros(1)], 0.3, "invscaling", power_t=power)
    expected = []
    for step in range(STEPS):
        theirs.iteration_ends(step)
        expected.append(theirs.learning_rate)
    np.testing.assert_allclose(by_step(schedules.inverse_scaling(0.3, power)), expected, rtol=1e-12)


def test_a_warm_up_may_fill_the_whole_fit():
    assert by_step(schedules.warmup_cosine(1.0, warmup=1.0), 4) == [0.0, 0.25, 0.5, 0.75]


def test_after_the_end_the_rate_stays():
    for schedule in (schedules.cosine(0.3, 0.1), schedules.warmup_cosine(0.3, 0.2, 0.1)):
        assert schedule(25, 20, []) == schedule(20, 20, []) == pytest.approx(0.1, rel=1e-12)
    assert schedules.one_cycle(0.3)(25, 20, []) == schedules.one_cycle(0.3)(19, 20, [])


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_improvement_is_relative_to_the_size_of_the_best(sign):
    """At -1 an improvement by 5 % is -1.05; -0.96 is none, though above -1 (1 - 0.05) it would be by torch's rule."""
    schedule = schedules.reduce_on_plateau(1.0, factor=0.5, patience=0, improvement=0.05)
    worse, same, better = (sign * x for x in ((0.96, 1.04, 1.06) if sign < 0 else (1.04, 0.96, 0.94)))
    assert by_epoch(schedule, [sign, worse])[-1] == 0.5
    assert by_epoch(schedule, [sign, same])[-1] == 0.5
    assert by_epoch(schedule, [sign, better])[-1] == 1.0


# -- purity, numbers, names --

ALL = {name: row[0] for name, row in BY_STEP.items()} | {name: row[0] for name, row in PLATEAUS.items()}
ALL["inverse_scaling"], ALL["warmup_cosine"] = schedules.inverse_scaling(0.3), schedules.warmup_cosine(0.3, 0.2, 0.01)


@pytest.mark.parametrize("schedule", ALL.values(), ids=ALL)
def test_calls_in_any_order_give_the_same(schedule):
    calls = [(step, STEPS, LOSSES[: step // 6]) for step in range(STEPS)]
    expected = [schedule(*call) for call in calls]
    order = random.Random(5).sample(range(STEPS), STEPS)
    assert {k: schedule(*calls[k]) for k in order} == dict(enumerate(expected))
    assert all(type(rate) is float and rate >= 0.0 for rate in expected)


def test_a_plateau_sees_losses_that_are_changed_in_place():
    schedule, losses = schedules.reduce_on_plateau(1.0, factor=0.5, patience=0), [1.0, 0.5]
    assert schedule(0, 0, losses) == 1.0
    losses[1] = 2.0
    assert schedule(0, 0, losses) == 0.5


def test_get():
    assert schedules.get(0.25)(3, 9, []) == 0.25
    assert schedules.get(np.float32(0.25))(3, 9, []) == 0.25
    own = lambda step, steps, losses: 1.0 / (step + 1)  # noqa: E731
    assert schedules.get(own) is own
    assert dlx.schedules is schedules


POSITIVE, SHARE = "be a number > 0", "be a number >= 0 and <= 1"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: schedules.get(0),
            ValueError,
            r"`learning_rate` must be a number > 0; got 0\. Use 1e-3, or a schedule",
        ),
        (lambda: schedules.get("fast"), TypeError, r"`learning_rate` must be a number > 0; got 'fast'\. Use 1e-3"),
        (lambda: schedules.get(math.nan), ValueError, r"`learning_rate` must be a number > 0; got nan\."),
        (lambda: schedules.constant(-1.0), ValueError, rf"`rate` must {POSITIVE}; got -1\.0\. Use 1e-3"),
        (lambda: schedules.constant(True), TypeError, rf"`rate` must {POSITIVE}; got True\."),
        (lambda: schedules.step_decay(0), ValueError, rf"`rate` must {POSITIVE}; got 0\."),
        (
            lambda: schedules.step_decay(1, 1.5),
            ValueError,
            r"`factor` must be a number > 0 and <= 1; got 1\.5\. Use 0\.5",
        ),
        (
            lambda: schedules.step_decay(1, 0.5, 0),
            ValueError,
            r"`every` must be an integer >= 1; got 0\. It counts upd",
        ),
        (lambda: schedules.exponential(1, 0), ValueError, r"`factor` must be a number > 0 and <= 1; got 0\."),
        (lambda: schedules.exponential(1, 0.5, 1.5), TypeError, r"`every` must be an integer >= 1; got 1\.5\."),
        (
            lambda: schedules.inverse_scaling(1, -0.5),
            ValueError,
            r"`power` must be a number >= 0; got -0\.5\. Use 0\.5",
        ),
        (
            lambda: schedules.cosine(0.1, 0.2),
            ValueError,
            r"`floor` must be a number >= 0 and <= 0\.1; got 0\.2\. It is w",
        ),
        (lambda: schedules.warmup_cosine(1, 1.1), ValueError, rf"`warmup` must {SHARE}; got 1\.1\. It is a share of"),
        (lambda: schedules.one_cycle(1, -0.1), ValueError, rf"`warmup` must {SHARE}; got -0\.1\."),
        (
            lambda: schedules.one_cycle(1, start=0.5),
            ValueError,
            r"`start` must be a number >= 1; got 0\.5\. The first rate",
        ),
        (lambda: schedules.one_cycle(1, end=0), ValueError, r"`end` must be a number >= 1; got 0\. The last rate is"),
        (lambda: schedules.reduce_on_plateau(1, 2), ValueError, r"`factor` must be a number > 0 and <= 1; got 2\."),
        (
            lambda: schedules.reduce_on_plateau(1, patience=-1),
            ValueError,
            r"`patience` must be an integer >= 0; got -1\.",
        ),
        (
            lambda: schedules.reduce_on_plateau(1, floor=2),
            ValueError,
            r"`floor` must be a number >= 0 and <= 1; got 2\.",
        ),
        (
            lambda: schedules.reduce_on_plateau(1, improvement=1),
            ValueError,
            r"`improvement` must .* < 1; got 1\. Use 1e-4",
        ),
    ],
)
def test_settings_reject(make, error, text):
    with pytest.raises(error, match=f"^{text}"):
        make()


EACH = [
    schedules.constant(0.1),
    schedules.step_decay(0.1, 0.5, 7),
    schedules.exponential(0.1, 0.5, 7),
    schedules.inverse_scaling(0.1, 0.7),
    schedules.cosine(0.1, 0.01),
    schedules.warmup_cosine(0.1, 0.2, 0.01),
    schedules.one_cycle(0.1, 0.2, np.float32(10.0), 100),
    schedules.reduce_on_plateau(0.1, 0.5, 2),
]


@pytest.mark.parametrize("schedule", EACH, ids=repr)
def test_a_schedule_is_copied_and_pickled_and_shows_how_it_is_made(schedule):
    made = eval(repr(schedule), vars(schedules))
    for same in (made, copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert by_step(same) == by_step(schedule)
        assert by_epoch(same, LOSSES) == by_epoch(schedule, LOSSES)
    optimizer = pickle.loads(pickle.dumps(dlx.adam(schedule)))
    assert by_step(optimizer.learning_rate) == by_step(schedule)


def test_an_estimator_with_a_schedule_is_cloned_and_pickled():
    est = sklearn.base.clone(dlx.MLPRegressor((4,), learning_rate=schedules.cosine(0.01), max_iter=200, random_state=0))
    X = np.random.default_rng(0).normal(size=(60, 3))
    est.fit(X, X[:, 0])
    same = pickle.loads(pickle.dumps(est)).fit(X, X[:, 0])
    np.testing.assert_array_equal(same.predict(X), est.predict(X))
