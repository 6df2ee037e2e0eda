"""What has hurt users of scikit-learn's MLPs, skorch and Keras: each issue once more, by its number."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

import dlx
import oracles
from dlx import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = scale(X_IRIS)
X_DIGITS, Y_DIGITS = (part[:600] for part in load_digits(return_X_y=True))
X_DIGITS = X_DIGITS / 16.0
RNG = np.random.default_rng(0)
X_REAL = RNG.standard_normal((300, 4))
Y_REAL = X_REAL @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * RNG.standard_normal(300)


def same(a, b):
    """Whether two estimators have the same weights to the last bit."""
    return all(np.array_equal(x, y) for x, y in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True))


def test_6780_10477_alpha_does_not_depend_on_the_batch_size():
    """scikit-learn divides alpha by the batch's size: a small batch was a large penalty."""
    norms = [
        np.linalg.norm(
            MLPClassifier((16,), alpha=30.0, batch_size=size, max_iter=60, random_state=0, solver="sgd", momentum=0.0)
            .set_params(learning_rate_init=0.02 * size / 600)
            .fit(X_DIGITS, Y_DIGITS)
            .coefs_[0]
        )
        for size in (30, 600)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_6780_a_large_alpha_with_small_batches_still_learns():
    """alpha=10 gave accuracy 0.10 at batch 32 and 0.98 at batch 1797."""
    scores = [
        MLPClassifier(alpha=10.0, batch_size=size, max_iter=60, random_state=0)
        .fit(X_DIGITS, Y_DIGITS)
        .score(X_DIGITS, Y_DIGITS)
        for size in (32, 600)
    ]
    assert scores[0] > 0.95  # 0.10 there
    assert scores[1] > 0.85  # after 60 updates


@pytest.mark.parametrize("solver", ["adam", "sgd", "rmsprop"])
def test_6091_warm_start_keeps_the_optimizers_state(solver):
    """Two fits of five epochs are one of ten: Adam's momenta and its count of updates go on."""
    plain = {"hidden_layer_sizes": (8,), "solver": solver, "random_state": 0, "batch_size": 150, "tol": 0.0}
    twice = MLPClassifier(**plain, max_iter=5, warm_start=True).fit(X_IRIS, Y_IRIS).fit(X_IRIS, Y_IRIS)
    once = MLPClassifier(**plain, max_iter=10).fit(X_IRIS, Y_IRIS)
    assert same(twice, once)
    assert twice.loss_curve_ == once.loss_curve_
    forgetful = MLPClassifier(**plain, max_iter=5, warm_start=True).fit(X_IRIS, Y_IRIS)
    del forgetful._optimizer
    assert not same(forgetful.fit(X_IRIS, Y_IRIS), once)


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
def test_16812_18269_a_warm_fit_does_not_stop_after_one_iteration(make):
    """The count of epochs without improvement, and what they are compared with, begin anew."""
    est = make((4,), tol=0.5, max_iter=40, n_iter_no_change=3, warm_start=True, random_state=0, learning_rate_init=1e-4)
    est.fit(X_IRIS, Y_IRIS)
    first = est.n_iter_
    est.fit(X_IRIS, Y_IRIS)
    assert est.n_iter_ == first == 5
    assert len(est.loss_curve_) == 10


@pytest.mark.parametrize("batch_size", [40, 300])
def test_12582_shuffle_is_heard(batch_size):
    plain = {"hidden_layer_sizes": (4,), "batch_size": batch_size, "max_iter": 3, "random_state": 0}
    kept, again = (MLPRegressor(**plain, shuffle=False).fit(X_REAL, Y_REAL) for _ in range(2))
    drawn = MLPRegressor(**plain, shuffle=True).fit(X_REAL, Y_REAL)
    assert same(kept, again)
    assert same(kept, drawn) == (batch_size == 300)  # the order of one batch does not matter


@pytest.mark.parametrize("labels", ["one", "several"])
def test_12505_partial_fit_is_fit(labels):
    """Five calls are five epochs, batches and all, also for several labels a row."""
    X, y = make_multilabel_classification(300, random_state=0)
    y = y if labels == "several" else y[:, 0]
    plain = {"hidden_layer_sizes": (8,), "batch_size": 50, "random_state": 0, "tol": 0.0}
    whole = MLPClassifier(**plain, max_iter=5).fit(X, y)
    parts = MLPClassifier(**plain)
    for _ in range(5):
        parts.partial_fit(X, y, classes=np.arange(y.shape[1] if y.ndim == 2 else 2))
    assert same(whole, parts)
    assert whole.loss_curve_ == parts.loss_curve_
    assert whole.t_ == parts.t_ == 1500


def test_6994_partial_fit_takes_a_batch_that_misses_a_class():
    clf = MLPClassifier((4,), random_state=0)
    clf.partial_fit(X_IRIS[:50], Y_IRIS[:50], classes=[0, 1, 2])  # all of class 0
    clf.partial_fit(X_IRIS[50:100], Y_IRIS[50:100])
    assert clf.predict_proba(X_IRIS).shape == (150, 3)
    with pytest.raises(ValueError, match=r"not in `self\.classes_`"):
        clf.partial_fit(X_IRIS[:2], [0, 7])


@pytest.mark.parametrize("monitor", ["score", "loss"])
def test_29504_29773_early_stopping_survives_an_overflow(monitor):
    """It ended in "Input contains NaN": here with the best weights before, and a warning."""
    reg = MLPRegressor((50,), activation="identity", solver="sgd", learning_rate_init=1.0, batch_size=270)
    with pytest.warns(ConvergenceWarning, match="diverged"):
        reg.set_params(early_stopping=monitor, random_state=0).fit(X_REAL, Y_REAL)
    assert np.isfinite(reg.predict(X_REAL)).all()
    assert np.isnan(reg.validation_scores_[-1])
    assert np.isnan(reg.loss_curve_[-1])


def test_33760_early_stopping_takes_string_labels():
    """What the fix of 29504 broke."""
    names = np.array(["setosa", "versicolor", "virginica"], dtype=object)[Y_IRIS]
    clf = MLPClassifier((8,), early_stopping=True, max_iter=20, random_state=0).fit(X_IRIS, names)
    numbers = MLPClassifier((8,), early_stopping=True, max_iter=20, random_state=0).fit(X_IRIS, Y_IRIS)
    assert clf.validation_scores_ == numbers.validation_scores_
    assert set(clf.predict(X_IRIS)) <= set(names)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_17925_weights_that_are_not_finite_are_no_model(solver):
    reg = MLPRegressor((4,), solver=solver)
    with pytest.raises(ValueError, match="non-finite parameter weights") as caught:
        reg.fit(np.finfo(float).max * RNG.uniform(size=(10, 2)), np.arange(10.0))
    assert isinstance(caught.value, dlx.DivergenceError)
    assert not hasattr(reg, "coefs_")


def test_a_loss_that_explodes_is_no_model():
    """scikit-learn's returned with loss 2e272 and R2 -1.5e275, without a word."""
    with pytest.raises(ValueError, match="diverged"):
        MLPRegressor(solver="sgd", learning_rate_init=10).fit(X_DIGITS * 16, Y_DIGITS)


def test_a_failed_partial_fit_leaves_the_estimator_as_it_was():
    reg = MLPRegressor((4,), random_state=0).partial_fit(X_REAL, Y_REAL)
    before = copy.deepcopy(reg)
    with pytest.raises(ValueError, match="diverged"):
        reg.partial_fit(np.full_like(X_REAL, 1e308), Y_REAL)
    assert same(reg, before)


def test_5670_a_batch_of_more_than_all_rows_is_all_rows():
    with pytest.warns(UserWarning, match="batch_size=1000 is more than the 150 rows"):
        large = MLPClassifier((4,), batch_size=1000, max_iter=5, random_state=0).fit(X_IRIS, Y_IRIS)
    assert same(large, MLPClassifier((4,), batch_size=150, max_iter=5, random_state=0).fit(X_IRIS, Y_IRIS))


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"early_stopping": True}, {"batch_size": 32}])
@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_skorch_630_equal_sample_weights_do_not_change_the_numbers(make, settings, weight):
    """A power of two, so that equality is exact; alpha is weighed against their sum."""
    plain = make((4,), max_iter=8, random_state=0, alpha=0.0, **settings).fit(X_IRIS, Y_IRIS)
    weighted = clone(plain).fit(X_IRIS, Y_IRIS, sample_weight=np.full(150, weight))
    assert same(plain, weighted)


def test_keras_clone_keeps_every_parameter():
    """Keras's wrapper dropped what had been given for fit."""
    changed = {"hidden_layer_sizes": (3,), "dropout": 0.2, "loss": "huber", "n_iter_no_change": 3, "backend": "numpy"}
    cloned = clone(MLPRegressor(**changed))
    assert changed.items() <= cloned.get_params().items()
    assert clone(cloned).get_params() == cloned.get_params()


def test_ctrl_c_keeps_the_weights_so_far_with_a_warning():
    class Interrupted:
        calls = 0

        def __call__(self, est, X, y):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return 0.0

    clf = MLPClassifier((4,), max_iter=10, random_state=0, scoring=Interrupted())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        clf.fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)
    assert ["interrupted" in str(each.message) for each in seen] == [True]
    assert clf.n_iter_ == 2
    assert np.isfinite(clf.predict_proba(X_IRIS)).all()


def test_pickles_are_not_four_times_the_parameters():
    clf = MLPClassifier((400,), max_iter=3, random_state=0).fit(X_DIGITS, Y_DIGITS)
    size = sum(each.nbytes for each in clf.coefs_ + clf.intercepts_)
    assert len(pickle.dumps(clf)) <= 1.2 * size + 20_000
    early = clone(clf).set_params(early_stopping=True).fit(X_DIGITS, Y_DIGITS)
    assert len(pickle.dumps(early)) <= 1.2 * size + 20_000
    asked = clone(clf).set_params(warm_start=True).fit(X_DIGITS, Y_DIGITS)
    assert len(pickle.dumps(asked)) > 3 * size


def test_a_pickled_partial_fit_goes_on_as_if_it_had_not_been():
    plain = {"hidden_layer_sizes": (8,), "batch_size": 50, "random_state": 0}
    straight = MLPRegressor(**plain)
    for _ in range(4):
        straight.partial_fit(X_REAL, Y_REAL)
    stored = MLPRegressor(**plain).partial_fit(X_REAL, Y_REAL).partial_fit(X_REAL, Y_REAL)
    stored = pickle.loads(pickle.dumps(stored)).partial_fit(X_REAL, Y_REAL).partial_fit(X_REAL, Y_REAL)
    assert same(straight, stored)


# -- attacks that got through once --


def test_one_class_is_predicted_whatever_its_labels():
    X = np.random.default_rng(0).standard_normal((40, 3))
    for labels in (np.zeros(40, int), np.ones(40, bool), np.full(40, 7)):
        clf = dlx.MLPClassifier((4,), max_iter=3, random_state=0, early_stopping=True, n_iter_no_change=9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            clf.fit(X, labels)
        np.testing.assert_array_equal(clf.predict(X), labels)
        assert set(clf.validation_scores_) == {1.0}


def test_sparse_rows_are_standardised_like_dense_ones():
    rng = np.random.default_rng(0)
    X = 10 * rng.standard_normal((80, 3)) + 50
    y = (X[:, 0] > 50).astype(int)
    clf = dlx.MLPClassifier((4,), solver="lbfgs", standardize=True, random_state=0).fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(scipy.sparse.csr_matrix(X)), clf.predict_proba(X), rtol=1e-9)


@pytest.mark.parametrize("part", [False, True])
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(part):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), rng.integers(0, 2, 60)
    clf = dlx.MLPClassifier((4,), random_state=0)
    clf.partial_fit(X, y, classes=[0, 1])
    before, expected = dict(vars(clf)), clf.predict_proba(X)
    again = clf.partial_fit if part else clf.fit
    bad = np.column_stack([y, 1 - y]) if part else np.array(list("abc"))[np.arange(60) % 3]
    clf.set_params(class_weight=None if part else {9: 1.0})
    with pytest.raises(ValueError, match="several labels a row" if part else "`class_weight` must"):
        again(X, bad)
    clf.set_params(class_weight=None)
    assert vars(clf).keys() == before.keys()
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    clf.fit(X, y)


def test_several_labels_a_row_keep_their_number():
    X, Y = np.zeros((6, 2)), np.array([[0, 1, 1], [1, 0, 1]] * 3)
    with pytest.raises(ValueError, match="`y` must have 2 columns, one a label; got 3"):
        dlx.MLPClassifier((4,)).partial_fit(X, Y, classes=[0, 1])


def test_estimators_of_both_kinds_share_no_list():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), rng.integers(0, 2, 60)
    ours = dlx.MLPClassifier((4,), max_iter=500, n_iter_no_change=1, tol=1.0, early_stopping="loss", random_state=0)
    ours.fit(X, y)
    epochs = len(ours.loss_curve_)
    theirs = ours.to_sklearn().partial_fit(X, y)
    assert (len(ours.loss_curve_), len(theirs.loss_curve_)) == (epochs, epochs + 1)
    back = dlx.from_sklearn(theirs)
    theirs.partial_fit(X, y)
    assert len(back.loss_curve_) == epochs + 1


def test_initialisers_can_be_pickled():
    for init in (dlx.initializers.normal(0.1), dlx.initializers.constant(0.0)):
        clf = pickle.loads(pickle.dumps(dlx.MLPClassifier(init=init)))
        draw = np.random.default_rng
        np.testing.assert_array_equal(clf.init(draw(0), 2, 3), init(draw(0), 2, 3))


def test_weights_that_vanish_are_refused():
    X, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    clf = dlx.MLPClassifier((2,), class_weight={0: 1e-200, 1: 1e-200})
    with pytest.raises(ValueError, match="`sample_weight` must have a sum above 0; got 0, class weights included"):
        clf.fit(X, y, np.full(4, 1e-200))


@pytest.mark.parametrize("y", [["1.5"] * 20, np.zeros(20, "M8[s]"), np.zeros(20, "m8[s]")], ids=["str", "date", "span"])
def test_real_targets_are_numbers(y):
    with pytest.raises((TypeError, ValueError), match="`y` must hold real numbers; got dtype"):
        dlx.MLPRegressor().fit(np.zeros((20, 2)), y)


def test_sparse_targets_are_what_they_are_dense():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    how = {"hidden_layer_sizes": (4,), "max_iter": 200, "tol": 1.0, "random_state": 0}
    expected = dlx.MLPRegressor(**how).fit(X, Y).predict(X)
    np.testing.assert_array_equal(dlx.MLPRegressor(**how).fit(X, scipy.sparse.csr_matrix(Y)).predict(X), expected)


@pytest.mark.parametrize("kind", ["coo", "csr", "csc"])
def test_a_scorer_of_sparse_rows_held_back(kind):
    rng = np.random.default_rng(0)
    X = scipy.sparse.random(60, 5, 0.5, format=kind, random_state=0)
    y = rng.integers(0, 2, (60, 2))
    how = {"early_stopping": True, "scoring": "accuracy", "max_iter": 3, "tol": 0.0, "random_state": 0}
    with pytest.warns(ConvergenceWarning, match=r"not converged after 3 iterations, the maximum\. R"):
        found = dlx.MLPClassifier((4,), **how).fit(X, scipy.sparse.coo_matrix(y))
    with pytest.warns(ConvergenceWarning):
        expected = dlx.MLPClassifier((4,), **how).fit(X.tocsr(), y)
    assert found.validation_scores_ == expected.validation_scores_


def test_weights_of_validation_rows_that_are_not_there():
    with pytest.raises(
        ValueError, match=r"`sample_weight_val` must come with X_val and y_val; got it alone\. Pass all"
    ):
        dlx.MLPClassifier().fit(np.eye(4), [0, 1, 0, 1], sample_weight_val=[1.0])


@pytest.mark.parametrize("at", ["X_val", "y_val"])
def test_errors_of_validation_rows_say_so(at):
    rows = {"X_val": X_REAL, "y_val": Y_REAL, at: np.full((300, 2), 1.0)}
    with pytest.raises(ValueError, match=r"^in X_val, y_val: "):
        MLPRegressor((4,)).fit(X_REAL, Y_REAL, **rows)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_score_of_zero_counts_in_validation_as_in_predictions(outputs):
    """Every score stays 0: units that are dead, and as many a yes as a no."""
    y = np.repeat(np.arange(200)[:, None] % 2, outputs, axis=1).squeeze()
    init = [(np.zeros((4, 2)), -np.ones(2)), (np.zeros((2, outputs)), np.zeros(outputs))]
    clf = MLPClassifier((2,), init=init, max_iter=2).fit(
        X_REAL[:200], y, X_val=X_REAL[:100], y_val=np.zeros_like(y[:100])
    )
    assert clf.validation_scores_ == [1.0, 1.0] == [clf.score(X_REAL, np.zeros((300, *y.shape[1:])))] * 2


@pytest.mark.parametrize("weights", [None, np.arange(1.0, 76.0)], ids=["plain", "weighted"])
def test_class_weights_do_not_count_in_validation_scores(weights):
    clf = MLPClassifier((), class_weight={0: 1, 1: 50, 2: 1}, max_iter=3, random_state=0)
    rows = {"X_val": X_IRIS[1::2], "y_val": Y_IRIS[1::2], "sample_weight_val": weights}
    clf.fit(X_IRIS[::2], Y_IRIS[::2], **rows)
    assert clf.validation_scores_[-1] == pytest.approx(clf.score(X_IRIS[1::2], Y_IRIS[1::2], weights), rel=1e-12)
    clf.set_params(early_stopping=True).fit(X_IRIS, Y_IRIS)
    asked = clone(clf).set_params(scoring="accuracy").fit(X_IRIS, Y_IRIS)
    assert clf.validation_scores_ == pytest.approx(asked.validation_scores_, rel=1e-12)


def test_quantiles_of_one_target_are_scored_each():
    reg = MLPRegressor((), loss=dlx.losses.quantile([0.1, 0.5, 0.9]), max_iter=3, random_state=0)
    rows = {"X_val": X_REAL, "y_val": Y_REAL}
    expected = oracles.d2(Y_REAL[:, None], reg.fit(X_REAL, Y_REAL, **rows).predict(X_REAL), reg.loss)
    for y in (Y_REAL, Y_REAL.tolist(), Y_REAL[:, None], np.stack([Y_REAL] * 3, axis=1)):
        assert reg.score(X_REAL, y) == pytest.approx(expected, rel=1e-12)
    assert reg.validation_scores_[-1] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="`y` must have 1 column, or 3 as q has; got 2 columns"):
        reg.fit(X_REAL, X_REAL[:, :2])


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_sparse_columns_of_extreme_sizes_are_standardised(size):
    how = {"standardize": True, "max_iter": 3, "random_state": 0}
    plain, extreme = (
        MLPRegressor((4,), **how).fit(X, Y_REAL).predict(X)
        for X in (scipy.sparse.csr_matrix(X_REAL), scipy.sparse.csr_matrix(X_REAL * size))
    )
    np.testing.assert_allclose(extreme, plain, rtol=1e-9)


def test_hidden_layer_sizes_of_an_array_without_axes():
    assert MLPRegressor(np.array(4), max_iter=1).fit(X_REAL, Y_REAL).n_layers_ == 3
    with pytest.raises(TypeError, match=r"`hidden_layer_sizes` must be an integer >= 1; got \[4, 3\]"):
        MLPRegressor(np.array([[4, 3]])).fit(X_REAL, Y_REAL)


@pytest.mark.parametrize("backend", ["cupy", "nowhere", 3, dlx.get_backend("numpy"), np], ids=repr)
def test_a_deep_copy_has_the_parameters_that_were_given(backend):
    assert copy.deepcopy(MLPClassifier(backend=backend)).backend == backend


def test_a_deep_copy_goes_on_as_the_estimator_itself():
    """With the optimizer's momenta, which a pickle holds only where the training is to go on."""
    reg = MLPRegressor((4,), max_iter=3, random_state=0).fit(X_REAL, Y_REAL)
    other = copy.deepcopy(reg)
    for each in (reg, other):
        each.set_params(warm_start=True).fit(X_REAL, Y_REAL)
    assert same(reg, other)
    assert reg.coefs_[0] is not other.coefs_[0]


def test_a_wrong_backend_is_kept_by_a_pickle_and_refused_by_fit():
    clf = pickle.loads(pickle.dumps(MLPClassifier(backend=3)))
    with pytest.raises(TypeError, match="`backend` must be a selector"):
        clf.fit(X_IRIS, Y_IRIS)
