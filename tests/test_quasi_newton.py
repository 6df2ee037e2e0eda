"""L-BFGS beside torch's, SciPy's and the dense formula; the Wolfe conditions; what a line search must survive."""

import functools
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize

import dlx
import oracles
from dlx import activations, losses, network, quasi_newton
from dlx.training import flat

NUMPY = dlx.get_backend("numpy")


def of_network(be, hidden, dims, loss, l2, spread=0.0, seed=0, dtype="float64"):
    """f and its gradient over a vector of all parameters, and a start: 60 rows of a small network."""
    rng = np.random.default_rng(seed)
    net = network.bind(be, dtype, hidden, loss, l2=l2)
    X = rng.standard_normal((60, dims[0])) * np.logspace(0.0, spread, dims[0])
    Y = np.sin(2.0 * X @ rng.standard_normal((dims[0], dims[-1])))
    if loss.targets == "classes":
        Y = np.eye(dims[-1])[np.argmax(Y + rng.standard_normal(Y.shape), axis=1)]
    shapes = [shape for each in itertools.pairwise(dims) for shape in (each, (1, each[1]))]
    start = [be.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    params = tuple(network.Layer(*start[i : i + 2]) for i in range(0, len(start), 2))
    X, Y = be.asarray(X, dtype), be.asarray(Y, dtype)

    def evaluate(x):
        loss, gradients = network.loss_and_gradients(net, flat.unravel(be.xp, x, params), X, Y, None, None)
        return float(loss), flat.ravel(be.xp, gradients)

    return evaluate, flat.ravel(be.xp, params)


def softmax_regression(be=NUMPY, **settings):
    return of_network(be, [], (5, 4), losses.cross_entropy(), 1e-3, spread=-1.0, **settings)


def tanh_network(be=NUMPY, **settings):
    return of_network(be, [activations.tanh()], (3, 5, 2), losses.squared_error(), 1e-2, **settings)


def rosenbrock(x):
    a, b = 1.0 - x[0], x[1] - x[0] ** 2
    return float(100.0 * b * b + a * a), np.array([-400.0 * x[0] * b - 2.0 * a, 200.0 * b])


def styblinski_tang(x):
    return float(np.sum(x**4 - 16.0 * x**2 + 5.0 * x) / 2.0), (4.0 * x**3 - 32.0 * x + 5.0) / 2.0


def waves(x):
    f = np.sum(x * x / 20.0 + np.cos(3.0 * x) + np.sin(2.2 * x))
    return float(f), x / 10.0 - 3.0 * np.sin(3.0 * x) + 2.2 * np.cos(2.2 * x)


def ill_conditioned(x):
    scales = 10.0 ** np.arange(-3.0, 3.0)
    return float(0.5 * np.sum(scales * x * x)), scales * x


def walk(evaluate, x, steps, be=NUMPY, **settings):
    """The minimizer after every iteration, as (x, f, gradient, length), the start first."""
    minimizer = quasi_newton.Minimizer(be.xp, dlx.lbfgs(**{"tolerance": 0.0, **settings}), evaluate, x)
    found = [(minimizer.x, minimizer.f, minimizer.gradient, 0.0)]
    for _ in range(steps):
        if minimizer.advance():
            break
        found.append((minimizer.x, minimizer.f, minimizer.gradient, minimizer.length))
    return [SimpleNamespace(x=x, f=f, g=g, t=t) for x, f, g, t in found]


def walk_torch(evaluate, start, steps, history):
    import torch

    x = torch.tensor(start)
    settings = {"tolerance_grad": 0.0, "tolerance_change": 0.0, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([x], max_iter=1, max_eval=25, history_size=history, **settings)

    def closure():
        f, gradient = evaluate(x.numpy().copy())
        x.grad = torch.tensor(gradient)
        return torch.tensor(f, dtype=torch.float64)

    for _ in range(steps):
        optimizer.step(closure)
        yield x.numpy().copy()


@oracles.by_library(oracles.installed({"torch": walk_torch}))
@pytest.mark.parametrize("history", [3, 10])
@pytest.mark.parametrize(("problem", "seed"), [(softmax_regression, 2), (tanh_network, 1)])
def test_fifty_iterations_are_those_of_torch(problem, seed, history, library):
    """Rounding differences grow up to tenfold in ten iterations: other seeds reach 1e-9."""
    evaluate, start = problem(seed=seed)
    found = walk(evaluate, start, 50, history=history)
    assert len(found) == 51
    for ours, theirs in zip(found[1:], walk_torch(evaluate, start, 50, history), strict=True):
        oracles.assert_close(ours.x, theirs, 1e-10)
    assert all((b.x - a.x) @ (b.g - a.g) > 1e-10 for a, b in itertools.pairwise(found))  # or torch drops the pair


PROBLEMS = {
    "softmax regression": softmax_regression,
    "tanh network": tanh_network,
    "rosenbrock": lambda: (rosenbrock, np.array([-1.2, 1.0])),
    "ill-conditioned": lambda: (ill_conditioned, np.ones(6)),
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_the_minimum_is_that_of_scipy(problem):
    evaluate, start = problem()
    found = walk(evaluate, start, 2000, tolerance=1e-7)
    assert np.max(np.abs(found[-1].g)) <= 1e-7
    options = {"maxiter": 10000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9}
    expected = scipy.optimize.minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options)
    assert found[-1].f == pytest.approx(expected.fun, abs=1e-6)


@pytest.mark.parametrize("history", [1, 3, 30])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_direction_is_that_of_the_dense_formula(problem, history):
    """H by the update (6.17) of Nocedal and Wright over the last pairs, from H₀ = (sᵀy / yᵀy) I of the last one."""
    found = walk(*problem(), 20, history=history)
    one = np.eye(found[0].x.size)
    for k in range(1, len(found) - 1):
        pairs = [(b.x - a.x, b.g - a.g) for a, b in itertools.pairwise(found[: k + 1])][-history:]
        s, y = pairs[-1]
        H = (s @ y) / (y @ y) * one
        for s, y in pairs:
            V = one - np.outer(y, s) / (s @ y)
            H = V.T @ H @ V + np.outer(s, s) / (s @ y)
        d = (found[k + 1].x - found[k].x) / found[k + 1].t
        np.testing.assert_allclose(d, -H @ found[k].g, rtol=0, atol=1e-6 * np.max(np.abs(d)))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(("function", "size", "wide"), [(rosenbrock, 2, 3), (styblinski_tang, 3, 5), (waves, 4, 10)])
def test_every_step_meets_the_strong_wolfe_conditions(function, size, wide, seed):
    rng = np.random.default_rng(seed)
    found = walk(function, rng.uniform(-wide, wide, size), 100, history=1 + seed % 10, tolerance=1e-5)
    assert len(found) > 2
    assert np.max(np.abs(found[-1].g)) <= 1e-5
    for before, after in itertools.pairwise(found):
        s, noise = after.x - before.x, 1e-13 * abs(before.f)
        assert after.f <= before.f + 1e-4 * (before.g @ s) + noise
        assert abs(after.g @ s) <= 0.9 * abs(before.g @ s) * (1 + 1e-12)


@pytest.mark.parametrize("problem", [softmax_regression, tanh_network])
def test_networks_too(problem):
    for seed in range(5):
        found = walk(*problem(seed=seed), 60, tolerance=1e-6)
        for before, after in itertools.pairwise(found):
            s = after.x - before.x
            assert after.f <= before.f + 1e-4 * (before.g @ s)
            assert abs(after.g @ s) <= 0.9 * abs(before.g @ s)
        assert len(found) > 20


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_units_of_f_do_not_matter(scale):
    def scaled(x):
        f, gradient = rosenbrock(x)
        return scale * f, scale * gradient

    found = walk(scaled, np.array([-1.2, 1.0]), 60, tolerance=1e-8 * scale)
    np.testing.assert_allclose(found[-1].x, 1.0, rtol=1e-6)
    assert len(found) < 55


def test_a_step_lowers_f_by_a_share_of_what_its_slope_promises():
    """The first trial, 1, is lower and flat enough; but 5e-5 lower only, where the slope promises 1."""

    def cubic(x):
        return float(np.sum(-x + 1.49985 * x**2 - 0.4999 * x**3)), -1.0 + 2.9997 * x - 1.4997 * x**2

    found = walk(cubic, np.zeros(1), 1)
    assert -1e-4 < cubic(np.ones(1))[0] < 0.0
    assert abs(cubic(np.ones(1))[1]) < 0.9
    assert found[1].f < -0.1


def test_a_step_grows_while_f_falls_ever_more_steeply():
    def quartic(x):
        return float(np.sum(-x - 0.5 * x**2 - 0.3 * x**3 + 0.02 * x**4)), -1.0 - x - 0.9 * x**2 + 0.08 * x**3

    found = walk(quartic, np.zeros(1), 1)
    assert abs(found[1].g[0]) <= 0.9
    assert found[1].x[0] > 10.0


@pytest.mark.parametrize("problem", [softmax_regression, tanh_network])
def test_twenty_iterations_are_the_same_on_every_library(problem, be):
    found, expected = walk(*problem(be), 20, be=be)[-1], walk(*problem(), 20)[-1]
    oracles.assert_close(be.to_host(found.x), expected.x, 1e-8)
    assert found.f == pytest.approx(expected.f, rel=1e-8)


def test_float32_stays_float32(be):
    found = walk(*tanh_network(be, dtype="float32"), 10, be=be)
    assert all(each.x.dtype == each.g.dtype == be.dtype("float32") for each in found)
    assert found[-1].f == pytest.approx(walk(*tanh_network(), 10)[-1].f, rel=1e-3)


def valley(x, edge=math.inf, beyond=math.inf):
    """Σ sqrt(1 + (x - 1)²), which is nearly linear far away; no gradient, and the value `beyond`, past `edge`."""
    root = np.sqrt(1.0 + (x - 1.0) ** 2)
    if np.any(np.abs(x) > edge):
        return beyond, np.full_like(x, math.nan)
    return float(np.sum(root)), (x - 1.0) / root


def barrier(x):  # no number for x <= 0
    return float(np.sum(1.0 / x - 2.0 * np.log(1.0 / x))), -1.0 / x**2 + 2.0 / x


def exponential(x):  # inf from x = 710 on, and slopes whose squares are inf from 355 on
    return float(np.sum(np.exp(x) - 3.0 * x)), np.exp(x) - 3.0


@pytest.mark.parametrize(
    ("function", "start", "minimum"),
    [
        (functools.partial(valley, edge=6.0), -5.0, 1.0),
        (functools.partial(valley, edge=6.0, beyond=math.nan), -5.0, 1.0),
        (functools.partial(valley, edge=6.0, beyond=-math.inf), -5.0, 1.0),
        (functools.partial(valley, edge=6.0, beyond=-1e9), -5.0, 1.0),  # low, but without a gradient
        (barrier, 9.0, 0.5),
        (exponential, -300.0, math.log(3.0)),
    ],
)
def test_inf_and_nan_are_stepped_back_from(function, start, minimum):
    trials = []

    def evaluate(x):
        f, gradient = function(x)
        trials.extend([f, *(gradient * gradient)])
        return f, gradient

    with NUMPY.scope():
        found = walk(evaluate, np.array([start, start - 0.5]), 200, tolerance=1e-6)
    np.testing.assert_allclose(found[-1].x, minimum, rtol=1e-5)
    assert all(after.f < before.f for before, after in itertools.pairwise(found))
    assert not all(map(math.isfinite, trials))  # the search did try a bad one


def test_at_the_minimum_it_is_done_at_once():
    calls = []
    x = np.array([1.0, 1.0])
    minimizer = quasi_newton.Minimizer(np, dlx.lbfgs(tolerance=0), lambda x: calls.append(1) or rosenbrock(x), x)
    assert minimizer.advance() is True
    assert minimizer.advance() is True
    assert len(calls) == 1
    assert minimizer.x is x
    assert minimizer.f == 0.0


def test_where_nothing_is_lower_it_is_done():
    start = np.zeros(3)
    minimizer = quasi_newton.Minimizer(np, dlx.lbfgs(), lambda x: (float(np.sum(np.abs(x))), np.ones_like(x)), start)
    assert minimizer.advance() is True
    np.testing.assert_array_equal(minimizer.x, start)


@pytest.mark.parametrize("most", [1, 2, 25])
def test_a_search_evaluates_at_most_so_often(most):
    calls, counts, start = [], [], np.array([-1.2, 1.0])
    settings = dlx.lbfgs(max_search=most)
    minimizer = quasi_newton.Minimizer(np, settings, lambda x: calls.append(1) or rosenbrock(x), start)
    for _ in range(20):
        calls.clear()
        minimizer.advance()
        counts.append(len(calls))
    assert max(counts) <= most
    assert minimizer.f <= {1: 24.2, 2: 5.0, 25: 0.5}[most]


def test_the_start_is_not_written():
    evaluate, start = tanh_network()
    copy = start.copy()
    start.flags.writeable = False
    assert walk(evaluate, start, 5)[-1].f < evaluate(copy)[0]
    np.testing.assert_array_equal(start, copy)


@pytest.mark.parametrize(
    ("name", "value"), [("history", 0), ("history", 2.0), ("max_search", -1), ("tolerance", -1e-9), ("tolerance", None)]
)
def test_settings_reject(name, value):
    rule = "be a number >= 0" if name == "tolerance" else "be an integer >= 1"
    error = ValueError if value in (0, -1, -1e-9) else TypeError
    with pytest.raises(error, match=rf"^`{name}` must {rule}; got {value}\. Use .*, for example\.$"):
        dlx.lbfgs(**{name: value})
