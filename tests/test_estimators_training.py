"""The estimators' numbers: scikit-learn's own where it is right, and what is right where it is not."""

import warnings

import numpy as np
import pytest
import sklearn.neural_network as theirs
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.datasets import load_diabetes, load_digits, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

import dlx
from dlx import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X_DIGITS, Y_DIGITS = (part[:400] for part in load_digits(return_X_y=True))
X_DIGITS = X_DIGITS / 16.0
X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = scale(X_IRIS)
X_REAL, Y_REAL = load_diabetes(return_X_y=True)
X_REAL, Y_REAL = scale(X_REAL), scale(Y_REAL)
TWO = Y_DIGITS > 4
SEVERAL = np.stack([Y_DIGITS > 4, Y_DIGITS % 2 == 0, Y_DIGITS < 3], axis=1).astype(int)
REALS = np.stack([Y_REAL, -Y_REAL, X_REAL[:, 0]], axis=1)
SOLVERS = [
    {"solver": "adam"},
    {"solver": "adam", "beta_1": 0.5, "beta_2": 0.9, "learning_rate_init": 0.01},
    {"solver": "sgd"},
    {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.05},
    {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.1},
    {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.1, "learning_rate": "invscaling", "power_t": 0.25},
]


def both(make, X, y, **settings):
    """scikit-learn's and dlx's estimator, fitted alike; alpha counts only where all rows are one batch."""
    settings = {"hidden_layer_sizes": (12, 7), "max_iter": 12, "random_state": 3, **settings}
    ours = {MLPClassifier: theirs.MLPClassifier, MLPRegressor: theirs.MLPRegressor}
    return ours[make](**settings).fit(X, y), make(**settings).fit(X, y)


def assert_alike(a, b, X, rtol=1e-6):
    for x, y in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_allclose(y, x, rtol=rtol, atol=rtol)
    assert (a.n_iter_, a.t_, a.n_layers_, a.n_outputs_, a.out_activation_) == (
        (b.n_iter_, b.t_, b.n_layers_, b.n_outputs_, b.out_activation_)
    )
    np.testing.assert_array_equal(a.predict(X), b.predict(X)) if is_classifier(a) else None


@pytest.mark.parametrize("settings", SOLVERS, ids=str)
@pytest.mark.parametrize("batches", [{"batch_size": 64, "alpha": 0.0}, {"batch_size": 400, "alpha": 0.1}], ids=str)
def test_the_same_random_state_is_the_same_classifier(settings, batches):
    """First weights, order of the batches, steps: all as in scikit-learn, shuffled or not."""
    for shuffle in (False, True):
        a, b = both(MLPClassifier, X_DIGITS, Y_DIGITS, **settings, **batches, shuffle=shuffle)
        assert_alike(a, b, X_DIGITS)
        np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-7)


@pytest.mark.parametrize("y", [TWO, SEVERAL], ids=["two labels", "several labels"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_every_activation_and_link_is_scikit_learn_s(y, activation):
    a, b = both(MLPClassifier, X_DIGITS, y, activation=activation, batch_size=64, alpha=0.0)
    assert_alike(a, b, X_DIGITS)
    np.testing.assert_allclose(a.predict_proba(X_DIGITS), b.predict_proba(X_DIGITS), rtol=1e-6)
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-7)


@pytest.mark.parametrize("settings", SOLVERS[:4], ids=str)
@pytest.mark.parametrize("y", [Y_REAL, REALS], ids=["one target", "three targets"])
def test_the_same_random_state_is_the_same_regressor(settings, y):
    settings = {**settings, "learning_rate_init": 0.01}
    a, b = both(MLPRegressor, X_REAL, y, **settings, batch_size=100, alpha=0.0)
    assert_alike(a, b, X_REAL)
    np.testing.assert_allclose(a.predict(X_REAL), b.predict(X_REAL), rtol=1e-5, atol=1e-7)


def test_sample_weights_are_scikit_learn_s_where_all_rows_are_one_batch():
    w = np.random.default_rng(0).uniform(0.1, 2.0, len(X_IRIS))
    a, b = (
        theirs.MLPClassifier(random_state=0, max_iter=20, alpha=1.0),
        MLPClassifier(random_state=0, max_iter=20, alpha=1.0),
    )
    assert_alike(a.fit(X_IRIS, Y_IRIS, w), b.fit(X_IRIS, Y_IRIS, w), X_IRIS)


@pytest.mark.parametrize(
    ("make", "X", "y"), [(MLPClassifier, X_DIGITS, TWO), (MLPRegressor, X_REAL, Y_REAL)], ids=["classes", "reals"]
)
def test_early_stopping_holds_out_the_same_rows_and_stops_as_early(make, X, y):
    a, b = both(make, X, y, early_stopping=True, max_iter=200, alpha=0.0, learning_rate_init=0.02, n_iter_no_change=5)
    assert a.n_iter_ == b.n_iter_ < 200
    np.testing.assert_allclose(a.validation_scores_, b.validation_scores_, rtol=1e-4)
    assert a.best_validation_score_ == pytest.approx(b.best_validation_score_, rel=1e-4)
    assert a.best_loss_ is b.best_loss_ is None
    assert b.score(X, y) == pytest.approx(a.score(X, y), rel=1e-3)


def test_tol_stops_in_the_same_epoch():
    a, b = both(MLPClassifier, X_IRIS, Y_IRIS, tol=0.01, max_iter=500, alpha=0.0, n_iter_no_change=4)
    assert a.n_iter_ == b.n_iter_ < 500
    assert a.best_loss_ == pytest.approx(b.best_loss_)


def test_an_adaptive_rate_is_divided_by_five_in_the_same_epochs():
    """Without momentum, which scikit-learn keeps as a velocity: see the page of differences."""
    settings = {"solver": "sgd", "learning_rate": "adaptive", "momentum": 0.0, "learning_rate_init": 0.5, "alpha": 0.0}
    a, b = both(MLPClassifier, X_IRIS, Y_IRIS, **settings, tol=0.01, max_iter=500, n_iter_no_change=2)
    assert a.n_iter_ == b.n_iter_ < 500
    assert b._optimizer.learning_rate == pytest.approx(a._optimizer.learning_rate)
    assert_alike(a, b, X_IRIS)


# -- where scikit-learn slips --


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
def test_lbfgs_keeps_float32(make):
    est = make((6,), solver="lbfgs", max_iter=10, random_state=0).fit(X_IRIS.astype(np.float32), Y_IRIS)
    assert {each.dtype.name for each in est.coefs_ + est.intercepts_} == {"float32"}


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
def test_lbfgs_has_no_partial_fit(make):
    assert not hasattr(make(solver="lbfgs"), "partial_fit")
    assert not hasattr(make(solver=dlx.lbfgs()), "partial_fit")
    assert hasattr(make(), "partial_fit")


def test_lbfgs_reaches_what_scikit_learn_s_does():
    a, b = both(MLPRegressor, X_REAL, Y_REAL, solver="lbfgs", hidden_layer_sizes=(), max_iter=1000, tol=1e-8, alpha=1.0)
    np.testing.assert_allclose(b.coefs_[0], a.coefs_[0], rtol=1e-3, atol=1e-4)
    assert b.loss_ == pytest.approx(a.loss_, rel=1e-6)


def test_the_loss_of_several_targets_is_that_of_the_gradient():
    """scikit-learn 8349: it reports the mean over outputs and descends along the sum."""
    a, b = both(MLPRegressor, X_REAL, REALS, alpha=0.0, batch_size=442)
    np.testing.assert_allclose(b.loss_curve_, 3 * np.asarray(a.loss_curve_), rtol=1e-7)


def test_the_log_loss_is_not_clipped():
    """A score of 1000 against the label costs 1000, and no more than 36.04 in scikit-learn."""
    X, y = np.array([[-1000.0], [1000.0]]), np.array([1, 0])
    one = [(np.ones((1, 1)), np.zeros(1))]
    clf = MLPClassifier((), init=one, max_iter=1, solver="sgd", learning_rate_init=1e-9, alpha=0.0, tol=0.0).fit(X, y)
    assert clf.loss_ == pytest.approx(1000.0)


def test_log_probabilities_are_never_minus_infinity():
    one = [(np.array([[1.0, 0.0, -1.0]]), np.zeros(3))]
    clf = MLPClassifier((), init=one, max_iter=1, learning_rate_init=1e-12, alpha=0.0).fit(
        [[0.0], [1.0], [2.0]], [0, 1, 2]
    )
    np.testing.assert_allclose(clf.predict_log_proba([[2000.0]]), [[0.0, -2000.0, -4000.0]], rtol=1e-9)
    assert clf.predict_proba([[2000.0]]).tolist() == [[1.0, 0.0, 0.0]]
    two = MLPClassifier((), init=[(np.ones((1, 1)), np.zeros(1))], max_iter=1, learning_rate_init=1e-12, alpha=0.0)
    two.fit([[0.0], [1.0]], ["no", "yes"])
    np.testing.assert_allclose(two.predict_log_proba([[-2000.0], [2000.0]]), [[0, -2000.0], [-2000.0, 0]], rtol=1e-9)


def test_several_classes_are_split_in_their_proportions():
    """scikit-learn says so and does it for two classes alone."""
    X = np.random.default_rng(0).standard_normal((100, 2))
    y = np.repeat([0, 1, 2], [80, 10, 10])
    seen = []
    MLPClassifier(
        (2,), early_stopping=True, max_iter=1, scoring=lambda est, X, y: seen.append(np.bincount(y)) or 0.0
    ).fit(X, y)
    assert [each.tolist() for each in seen] == [[8, 1, 1]]
    MLPClassifier((2,), early_stopping=True, max_iter=1).fit(X, np.repeat([0, 1, 2], [50, 49, 1]))  # as it is there


def test_one_label_has_a_probability_of_one():
    """scikit-learn gives two columns for one class."""
    clf = MLPClassifier((2,), max_iter=2).fit(X_IRIS[:10], np.full(10, "only"))
    assert clf.predict_proba(X_IRIS).tolist() == [[1.0]] * 150
    assert set(clf.predict(X_IRIS)) == {"only"}


@pytest.mark.parametrize("tried", [{"random_state": 0}, {"random_state": np.random.RandomState(0)}])
def test_one_random_state_is_one_model(tried):
    states = [tried["random_state"], 0] if tried["random_state"] != 0 else [0, 0]
    a, b = (MLPClassifier((4,), max_iter=3, random_state=state).fit(X_IRIS, Y_IRIS) for state in states)
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])


# -- what scikit-learn has not --


def test_standardized_targets_and_inputs_learn_what_the_defaults_do_not():
    """R2 of scikit-learn's defaults on diabetes is negative; 0.4 and more is to be had."""
    X, y = load_diabetes(return_X_y=True)
    plain = MLPRegressor(random_state=0).fit(X[:300], y[:300]).score(X[300:], y[300:])
    standard = MLPRegressor(random_state=0, standardize=True, early_stopping=True).fit(X[:300], y[:300])
    assert plain < 0 < 0.4 < standard.score(X[300:], y[300:])
    units = MLPRegressor(random_state=0, standardize=True, early_stopping=True).fit(
        1e3 * X[:300] + 7, 1e-3 * y[:300] - 5
    )
    np.testing.assert_allclose(units.predict(1e3 * X + 7), 1e-3 * standard.predict(X) - 5, rtol=1e-4)


def test_validation_data_of_the_users_are_watched_and_not_trained_on():
    plain = {"hidden_layer_sizes": (6,), "max_iter": 8, "random_state": 0}
    clf = MLPClassifier(**plain).fit(X_IRIS[::2], Y_IRIS[::2], X_val=X_IRIS[1::2], y_val=Y_IRIS[1::2])
    alone = MLPClassifier(**plain).fit(X_IRIS[::2], Y_IRIS[::2])
    np.testing.assert_array_equal(clf.coefs_[0], alone.coefs_[0])
    assert alone.validation_scores_ is alone.validation_loss_curve_ is None
    assert len(clf.validation_scores_) == len(clf.validation_loss_curve_) == 8
    assert clf.validation_scores_[-1] == clf.score(X_IRIS[1::2], Y_IRIS[1::2])
    P = clf.predict_proba(X_IRIS[1::2])
    assert clf.validation_loss_curve_[-1] == pytest.approx(-np.log(P[np.arange(75), Y_IRIS[1::2]]).mean())


@pytest.mark.parametrize("monitor", ["score", "loss"])
def test_early_stopping_on_either_restores_the_best(monitor):
    clf = MLPClassifier((40,), early_stopping=monitor, learning_rate_init=0.05, n_iter_no_change=5, random_state=0)
    clf.fit(X_DIGITS[:150], Y_DIGITS[:150], X_val=X_DIGITS[150:], y_val=Y_DIGITS[150:])
    P = clf.predict_proba(X_DIGITS[150:])
    loss = -np.log(P[np.arange(250), Y_DIGITS[150:]]).mean()
    if monitor == "loss":
        assert loss == pytest.approx(min(clf.validation_loss_curve_))
    else:
        assert clf.score(X_DIGITS[150:], Y_DIGITS[150:]) == max(clf.validation_scores_) == clf.best_validation_score_
    assert clf.n_iter_ < 200


def test_any_scorer_is_watched_epoch_by_epoch():
    clf = MLPClassifier((6,), scoring="neg_log_loss", early_stopping=True, max_iter=6, random_state=0).fit(
        X_IRIS, Y_IRIS
    )
    np.testing.assert_allclose(clf.validation_scores_, -np.asarray(clf.validation_loss_curve_), rtol=1e-6)


def test_class_weights_weigh_as_sample_weights_do():
    y = (Y_IRIS == 0).astype(int)
    by_class = MLPClassifier((4,), max_iter=5, random_state=0, class_weight={0: 1.0, 1: 3.0}).fit(X_IRIS, y)
    by_row = MLPClassifier((4,), max_iter=5, random_state=0).fit(X_IRIS, y, sample_weight=1.0 + 2.0 * y)
    np.testing.assert_allclose(by_class.coefs_[0], by_row.coefs_[0], rtol=1e-12)
    balanced = MLPClassifier((4,), max_iter=5, random_state=0, class_weight="balanced").fit(X_IRIS, y)
    by_share = MLPClassifier((4,), max_iter=5, random_state=0).fit(X_IRIS, y, sample_weight=np.where(y == 1, 1.5, 0.75))
    np.testing.assert_allclose(balanced.coefs_[0], by_share.coefs_[0], rtol=1e-12)
    with pytest.raises(ValueError, match="class_weight"):
        MLPClassifier(class_weight="balanced").partial_fit(X_IRIS, y, classes=[0, 1])


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": ("gelu", "mish")},
        {"activation": "silu", "init": "he_normal"},
        {"activation": dlx.activations.leaky_relu(0.2), "dropout": (0.2, 0.0)},
        {"solver": "nadam", "learning_rate": "cosine"},
        {"solver": dlx.adamw(0.01)},
        {"solver": "lion", "learning_rate": dlx.schedules.one_cycle(3e-2)},
        {"solver": "rmsprop", "learning_rate": "adaptive"},
        {"loss": dlx.losses.cross_entropy(label_smoothing=0.1), "dropout": 0.1},
        {"hidden_layer_sizes": (100,), "n_layers": 2, "width": 9},
    ],
    ids=str,
)
def test_whatever_dlx_has_can_be_asked_for(settings):
    settings = {
        "hidden_layer_sizes": (16, 8),
        "max_iter": 60,
        "learning_rate_init": 0.03,
        "random_state": 0,
        **settings,
    }
    assert MLPClassifier(**settings).fit(X_IRIS, Y_IRIS).score(X_IRIS, Y_IRIS) > 0.9
    parts = MLPClassifier(**settings)
    for _ in range(3):
        parts.partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    assert len(parts.loss_curve_) == 3


@pytest.mark.parametrize("loss", ["absolute_error", "huber", dlx.losses.quantile([0.1, 0.5, 0.9])], ids=str)
def test_every_loss_can_be_asked_for(loss):
    reg = MLPRegressor((16,), loss=loss, max_iter=300, random_state=0, learning_rate_init=0.01).fit(X_REAL, Y_REAL)
    P = reg.predict(X_REAL)
    median = P if P.ndim == 1 else P[:, 1]
    assert np.corrcoef(median, Y_REAL)[0, 1] > 0.6
    if P.ndim == 2:
        assert np.mean(P[:, 0] < Y_REAL) == pytest.approx(0.9, abs=0.07)


def test_width_and_depth_take_the_place_of_the_tuple():
    assert [W.shape[1] for W in MLPClassifier(n_layers=3, width=5, max_iter=1).fit(X_IRIS, Y_IRIS).coefs_] == [
        5,
        5,
        5,
        3,
    ]
    assert len(MLPClassifier(n_layers=0, max_iter=1).fit(X_IRIS, Y_IRIS).coefs_) == 1
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        MLPClassifier((7,), width=5).fit(X_IRIS, Y_IRIS)


# -- what is wrong is said --


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"solver": "adamm"}, "solver"),
        ({"learning_rate": "cosinus"}, "learning_rate"),
        ({"activation": "reluu"}, "activation"),
        ({"loss": "squared_error"}, "loss"),
        ({"dropout": 1.5}, "dropout"),
        ({"early_stopping": "accuracy"}, "early_stopping"),
        ({"hidden_layer_sizes": (5, 0)}, "hidden_layer_sizes"),
        ({"n_layers": -1}, "n_layers"),
        ({"momentum": 1.0}, "momentum"),
        ({"dropout": 0.1, "solver": "lbfgs"}, "dropout"),
        ({"init": [(np.zeros((9, 3)), np.zeros(3))], "hidden_layer_sizes": ()}, "init"),
    ],
)
def test_a_wrong_parameter_is_named_before_any_work(settings, text, monkeypatch):
    monkeypatch.setattr("dlx.training.loop.train", lambda *rest: pytest.fail("the training began"))
    with pytest.raises((ValueError, TypeError), match=text):
        MLPClassifier(**settings).fit(X_IRIS, Y_IRIS)


def test_reaching_max_iter_warns():
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        MLPClassifier((2,), max_iter=2).fit(X_IRIS, Y_IRIS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPClassifier((2,), tol=1e9, n_iter_no_change=2).fit(X_IRIS, Y_IRIS)


def test_sparse_rows_are_what_dense_ones_are():
    X, y = make_multilabel_classification(200, random_state=0)
    for kind in (sparse.csr_array, sparse.csc_matrix):
        for settings in ({}, {"solver": "lbfgs"}, {"early_stopping": True}, {"batch_size": 32}):
            plain = {"hidden_layer_sizes": (6,), "max_iter": 5, "random_state": 0, **settings}
            dense, thin = MLPClassifier(**plain).fit(X, y), MLPClassifier(**plain).fit(kind(X), y)
            np.testing.assert_allclose(thin.coefs_[0], dense.coefs_[0], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(thin.predict_proba(kind(X)), dense.predict_proba(X), rtol=1e-9)
    thin = MLPClassifier((6,), standardize=True, max_iter=5, random_state=0).fit(sparse.csr_array(X), y)
    scaled = MLPClassifier((6,), max_iter=5, random_state=0).fit(X / np.sqrt((X**2).mean(axis=0)), y)
    np.testing.assert_allclose(thin.coefs_[0], scaled.coefs_[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("before", "after"), [("sgd", "rmsprop"), ("rmsprop", "adagrad"), ("lion", "sgd")])
def test_another_solver_starts_with_slots_of_its_own(before, after):
    X = np.random.default_rng(0).standard_normal((40, 3))
    y = X @ [1.0, -2.0, 0.5]
    both = dlx.MLPRegressor((4,), solver=before, random_state=0).partial_fit(X, y)
    weights = [(W.copy(), b.copy()) for W, b in zip(both.coefs_, both.intercepts_, strict=True)]
    both.set_params(solver=after).partial_fit(X, y)
    anew = dlx.MLPRegressor((4,), solver=after, random_state=0, init=weights).partial_fit(X, y)
    for a, b in zip(both.coefs_, anew.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_numbers_of_a_grid_do_not_change_the_dtype():
    X = np.random.default_rng(0).standard_normal((40, 3)).astype("float32")
    est = dlx.MLPClassifier((4,), alpha=np.float64(1e-3), max_iter=2, backend="strict", random_state=0)
    with pytest.warns(UserWarning, match="not converged"):
        est.fit(X, np.arange(40) % 2)
    assert est.coefs_[0].dtype == np.float32


def test_ctrl_c_before_the_first_epoch_ends_leaves_the_first_weights():
    X = np.random.default_rng(0).standard_normal((30, 3))

    class Rate:
        calls = 0

        def __call__(self, step, steps, losses):
            self.calls += 1
            if self.calls == 2:  # the first call tries it
                raise KeyboardInterrupt
            return 0.01

    est = dlx.MLPClassifier((4,), learning_rate=Rate(), random_state=0, batch_size=10)
    with pytest.warns(UserWarning, match="interrupted after 0 epochs"):
        est.fit(X, np.arange(30) % 3)
    assert est.n_iter_ == 0
    assert np.isnan(est.loss_)
    assert est.predict(X).shape == (30,)


def test_partial_fit_makes_no_callback_wait():
    callback = pytest.importorskip("sklearn.callback").ScoringMonitor(scoring="accuracy")
    X = np.random.default_rng(0).standard_normal((30, 3))
    est = dlx.MLPClassifier((4,), max_iter=3, random_state=0).set_callbacks(callback)
    for _ in range(2):
        est.partial_fit(X, np.arange(30) % 2, classes=[0, 1])
    assert est.t_ == 60


def test_a_schedule_is_not_asked_beyond_the_last_update():
    X = np.random.default_rng(0).standard_normal((30, 3))
    rates = [0.01, 0.02]
    est = dlx.MLPClassifier((4,), learning_rate=lambda step, steps, losses: rates[step], max_iter=2, random_state=0)
    with pytest.warns(UserWarning, match="not converged"):
        est.fit(X, np.arange(30) % 3)
    assert est.n_iter_ == 2


def test_scikit_learn_s_trains_on_after_early_stopping():
    X = np.random.default_rng(0).standard_normal((40, 3))
    est = dlx.MLPClassifier((4,), early_stopping=True, max_iter=3, random_state=0)
    with pytest.warns(UserWarning, match="not converged"):
        est.fit(X, np.arange(40) % 2)
    theirs = est.to_sklearn().set_params(warm_start=True)
    with pytest.warns(UserWarning, match="converge"):
        theirs.fit(X, np.arange(40) % 2)
    assert len(theirs.loss_curve_) == 6
