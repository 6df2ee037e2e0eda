"""D² of quantile losses beside scikit-learn's d2_pinball_score: 1 is perfect, 0 the constant quantiles."""

import numpy as np
import pytest
import sklearn.metrics

import dlx
import oracles
from dlx import losses, metrics

N = 61
RNG = np.random.default_rng(3)
X = RNG.standard_normal((N, 3))
REAL = np.stack([X[:, 0] + RNG.standard_normal(N), X[:, 1] ** 2, np.round(X[:, 2])], axis=1)
WEIGHTS = {"unweighted": None, "rows": RNG.integers(0, 4, N) * 0.3, "targets": RNG.uniform(0, 2, (N, 3))}
every_weighting = pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)


def fit(y, loss, outputs, **settings):
    how = {"epochs": 20, "learning_rate": 0.05, "batch_size": 16, "rng": 0, "loss": loss}
    return dlx.fit(X, y, (3, outputs), **{**how, **settings})


def network(loss, outputs, backend):
    """Scores that are near the targets, not equal to them."""
    W = np.diag([1.0, 0.5, 1.0])[:, :outputs] + 0.1
    return dlx.Network([(W, np.full(outputs, 0.2))], loss=loss, backend=backend)


@pytest.mark.parametrize("q", [0.05, 0.5, 0.7, 0.9])
@every_weighting
def test_one_quantile_of_several_outputs(q, weights, be):
    net = network(losses.quantile(q), 3, be)
    P = net.predict(X)
    w = [None if weights is None else np.broadcast_to(weights.reshape(N, -1), (N, 3))[:, k] for k in range(3)]
    each = [sklearn.metrics.d2_pinball_score(REAL[:, k], P[:, k], alpha=q, sample_weight=w[k]) for k in range(3)]
    assert net.score(X, REAL, weights) == pytest.approx(np.mean(each), rel=1e-12)
    if weights is None:
        assert np.mean(each) == pytest.approx(sklearn.metrics.d2_pinball_score(REAL, P, alpha=q), rel=1e-12)


@pytest.mark.parametrize("shape", [(N,), (N, 1)], ids=str)
@pytest.mark.parametrize("q", [0.1, 0.5])
def test_one_quantile_of_one_output(q, shape):
    """Of a fit of quantile(0.1), whose R² is near 0 though it is good; the median is scored so too."""
    y = REAL[:, 0].reshape(shape)
    net = fit(y, losses.quantile(q), 1, validation=(X, y))
    expected = sklearn.metrics.d2_pinball_score(REAL[:, 0], net.predict(X), alpha=q)
    assert net.score(X, y) == pytest.approx(expected, rel=1e-12)
    assert net.history["validation_score"][-1] == pytest.approx(expected, rel=1e-9)
    assert 0.1 < expected < 1.0
    assert q == 0.5 or sklearn.metrics.r2_score(y, net.predict(X)) < 0.1


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("weights", [None, WEIGHTS["rows"]], ids=["unweighted", "rows"])
def test_a_list_of_quantiles_is_the_ratio_of_the_sums_over_all_lines(weights, columns, be):
    y, loss = REAL[:, :columns], losses.quantile([0.1, 0.5, 0.9])
    net = network(loss, 3, be)
    assert net.score(X, y, weights) == pytest.approx(oracles.d2(y, net.predict(X), loss, weights), rel=1e-12)


def test_perfect_is_one_and_the_constant_quantiles_are_zero():
    for q in (0.25, [0.1, 0.5, 0.9]):
        loss, y = losses.quantile(q), REAL[:, 0]
        perfect = dlx.Network([(np.zeros((1, 3)) + 1.0, np.zeros(3))], loss=loss)
        assert perfect.score(y[:, None], np.stack([y] * 3, axis=1)) == 1.0
        levels = q if isinstance(q, list) else [q] * 3
        constant = np.quantile(y, levels, method="inverted_cdf")
        guess = dlx.Network([(np.zeros((1, 3)), constant)], loss=loss)
        assert guess.score(y[:, None], np.stack([y] * 3, axis=1)) == pytest.approx(0.0, abs=1e-14)


def test_other_losses_of_real_targets_keep_r2():
    for loss in ("squared_error", "absolute_error", "huber"):
        net = fit(REAL, loss, 3)
        assert net.score(X, REAL) == pytest.approx(sklearn.metrics.r2_score(REAL, net.predict(X)), rel=1e-9)
    own = losses.quantile(0.5)._replace(bind=lambda xp, array: losses.quantile(0.5).bind(xp, array))
    net = fit(REAL[:, 0], own, 1)  # of the name, but somebody's own
    assert net.score(X, REAL[:, 0]) == pytest.approx(sklearn.metrics.r2_score(REAL[:, 0], net.predict(X)), rel=1e-9)


@pytest.mark.filterwarnings("ignore:The training has not converged")
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("q", [0.2, 0.5, [0.1, 0.9]], ids=str)
def test_the_regressor_is_scored_so(q, standardize):
    loss, y, w = losses.quantile(q), REAL[:, 0], WEIGHTS["rows"]
    reg = dlx.MLPRegressor((4,), loss=loss, max_iter=20, random_state=0, standardize=standardize)
    reg.fit(X, y, X_val=X, y_val=y)
    P = reg.predict(X).reshape(N, -1)
    for given in (y, y[:, None], y.tolist()):
        assert reg.score(X, given) == pytest.approx(oracles.d2(y[:, None], P, loss), rel=1e-12)
    assert reg.score(X, y, w) == reg.score(X, y, w.tolist())
    assert reg.score(X, y, w) == pytest.approx(oracles.d2(y[:, None], P, loss, w), rel=1e-12)
    assert reg.validation_scores_[-1] == pytest.approx(reg.score(X, y), rel=1e-9)
    plain = dlx.MLPRegressor((4,), max_iter=20, random_state=0).fit(X, y)
    assert plain.score(X, y) == pytest.approx(sklearn.metrics.r2_score(y, plain.predict(X)), rel=1e-12)


def test_a_score_of_quantiles_leaves_gaps_out():
    there = RNG.random((N, 3)) < 0.6
    y, loss = np.where(there, REAL, np.nan), losses.quantile(0.3)
    net = fit(y, loss, 3, missing="mask", validation=(X, y))
    P = net.predict(X)
    each = [sklearn.metrics.d2_pinball_score(REAL[m, k], P[m, k], alpha=0.3) for k, m in enumerate(there.T)]
    assert net.score(X, y) == pytest.approx(np.mean(each), rel=1e-12)
    assert net.history["validation_score"][-1] == pytest.approx(np.mean(each), rel=1e-9)


@pytest.mark.parametrize("q", [0.1, 0.25, 0.5, 0.75, 1 / 3, 0.999])
@pytest.mark.parametrize("weights", [None, WEIGHTS["rows"]], ids=["unweighted", "weighted"])
def test_no_constant_has_a_lower_pinball_loss_than_the_quantile(q, weights):
    y = REAL[:, 2:]
    found = metrics.quantiles(np, y, [q], weights)
    candidates = [
        sklearn.metrics.mean_pinball_loss(y, np.full_like(y, c), alpha=q, sample_weight=weights)
        for c in (*np.unique(y), found[0, 0])
    ]
    assert candidates[-1] == min(candidates)


CONSTANT = {"predicted": (0.0, 1.0), "missed": (0.5, 0.0), "not predicted": (np.nan, 0.0)}


@pytest.mark.parametrize(("error", "expected"), CONSTANT.values(), ids=CONSTANT)
def test_d2_where_there_is_nothing_to_explain(error, expected, be):
    """As scikit-learn has it, and R²."""
    lost, constant = np.array([[error], [0.0]]), np.zeros((2, 1))
    assert metrics.d2(be.xp, be.asarray(lost), be.asarray(constant)) == expected
