"""What a training returns or saves has been judged: the loss that its last update left is finite, and bounded."""

import numpy as np
import pytest

import dlx
from dlx.training import divergence

RNG = np.random.default_rng(1)
X = RNG.standard_normal((200, 3))
Y = X[:, 0]
X32 = X.astype("float32")
LAST = {"layer_dims": (3, 8, 8, 1), "optimizer": "sgd", "learning_rate": 1e30, "epochs": 1, "rng": 0}
MODES = {
    "one batch, validation": {"batch_size": None, "validation": 0.2},
    "one batch": {"batch_size": None},
    "a stream": {"batch_size": None, "stream": True},
    "a validation of one's own": {"batch_size": 200, "validation": (X, Y)},
    "penalties": {"batch_size": None, "l2": 1e-3},
    "dropout": {"batch_size": None, "dropout": 0.1},
    "patience, validation": {"batch_size": None, "validation": 0.2, "patience": 3},
    "patience, dropout": {"batch_size": None, "dropout": 0.1, "patience": 3},
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_the_last_update_is_judged(mode, be, tmp_path):
    """At a rate of 1e30 one update left a network that predicts nan, `validation_loss` [nan], and a checkpoint."""
    with pytest.raises(
        dlx.DivergenceError, match=r"must stay finite.*after the last batch of epoch 1. Lower"
    ) as caught:
        dlx.fit(X32, Y, **LAST | mode, backend=be, checkpoint=tmp_path)
    assert caught.value.after_all
    assert not list(tmp_path.glob("checkpoint-*"))


def test_an_explosion_that_is_finite_is_judged(be):
    """1e4 times the loss at the start, in numbers that float64 holds."""
    how = LAST | {"batch_size": None, "learning_rate": 1e3, "layer_dims": (3, 1)}
    with pytest.raises(
        dlx.DivergenceError, match=r"`loss` must stay finite and bounded; got \d\S* after the last batch"
    ):
        dlx.fit(X, Y, **how, backend=be)


def test_patience_returns_what_was_good_before():
    """The weights before the only update are known to be good."""
    net = dlx.fit(X32, Y, **LAST | {"batch_size": None, "patience": 3})
    assert np.mean((net.predict(X32) - Y) ** 2) == pytest.approx(net.history["loss"][0], rel=1e-5)


def test_a_checkpoint_of_the_best_is_read_after_the_last_update_diverged(tmp_path):
    """The last state is not saved where it is not finite; the one before is, and goes on to the same."""
    how = LAST | {"batch_size": None, "patience": 9, "epochs": 4}
    how["learning_rate"] = lambda step, steps, losses: 1e-2 if step < 3 else 3e38
    how["layer_dims"] = (3, 8, 8, 8, 1)
    net = dlx.fit(X32, Y, **how, checkpoint=tmp_path)
    again = dlx.fit(X32, Y, **how, checkpoint=tmp_path)
    assert again.history["loss"] == net.history["loss"] == dlx.fit(X32, Y, **how).history["loss"]
    assert all(np.isfinite(layer.W).all() for layer in again.params)


def test_the_state_before_is_kept(tmp_path):
    """The last of three epochs diverges by its last update: the checkpoint of the second is named, and good."""
    how = LAST | {"batch_size": 200, "epochs": 3}
    how["learning_rate"] = lambda step, steps, losses: 1e-3 if step < 2 else 1e30
    with pytest.raises(dlx.DivergenceError, match=r"The state before is in .*checkpoint-00000002\.safetensors"):
        dlx.fit(X32, Y, **how, checkpoint=tmp_path)
    newest = max(tmp_path.glob("checkpoint-*"))
    assert newest.name == "checkpoint-00000002.safetensors"
    assert np.isfinite(dlx.load(newest).predict(X32)).all()


def test_a_state_within_an_epoch_is_judged_before_it_is_saved(tmp_path):
    """The tenth of 13 batches explodes: what it leaves is not saved."""
    how = LAST | {"batch_size": 16, "layer_dims": (3, 1)}
    how["learning_rate"] = lambda step, steps, losses: 1e-3 if step != 9 else 1e30
    with pytest.raises(dlx.DivergenceError, match="The state before"):
        dlx.fit(X32, Y, **how, checkpoint=tmp_path, checkpoint_every=1)
    for path in tmp_path.glob("checkpoint-*"):
        assert np.isfinite(dlx.load(path).predict(X32)).all()


def test_all_rows_are_looked_at_where_some_give_a_bad_loss(monkeypatch):
    """The sample only says whether it is worth while: one row of 40 that is far off is no divergence."""
    y = Y.copy()
    y[0] = 1e9  # whose loss is above the limit of the sample's few rows alone
    how = LAST | {"learning_rate": 1e-3, "batch_size": None, "layer_dims": (3, 1), "loss": "absolute_error"}
    looked, real = [], divergence.loss_after
    monkeypatch.setattr(divergence, "JUDGED", 8)
    monkeypatch.setattr(divergence, "loss_after", lambda *rest: looked.append(rest[2]) or real(*rest))
    dlx.fit(X, y, **how)
    assert [None if each is None else len(each) for each in looked] in ([8], [8, None])


def test_few_rows_are_looked_at(monkeypatch):
    looked, real = [], divergence.loss_after
    monkeypatch.setattr(divergence, "loss_after", lambda *rest: looked.append(rest[2]) or real(*rest))
    many = RNG.standard_normal((9000, 2)).astype("float32")
    dlx.fit(many, many[:, 0], (2, 1), epochs=1, rng=0)
    dlx.fit(many, many[:, 0], (2, 1), epochs=1, rng=0, validation=0.4)
    assert [len(each) for each in looked] == [4096, 4096]
    assert max(np.diff(looked[0])) <= 3  # evenly spaced


def test_fewer_of_wide_rows_are_looked_at(monkeypatch):
    """A sparse table of 2^18 columns is dense where it is looked at."""
    looked, real = [], divergence.loss_after
    monkeypatch.setattr(divergence, "LOOKED_AT", 3 * 70)
    monkeypatch.setattr(divergence, "loss_after", lambda *rest: looked.append(rest[2]) or real(*rest))
    dlx.fit(X, Y, (3, 1), epochs=1, rng=0)
    assert [len(each) for each in looked] == [70]


@pytest.mark.parametrize("name", ["l2", "l1"])
def test_a_penalty_that_float32_does_not_hold(name):
    """It was infinite, and the remedy was to lower learning_rate."""
    with pytest.raises(ValueError, match=rf"`{name}` must fit float32, whose numbers are .*; got 1e\+39. Use one"):
        dlx.fit(X32, Y, (3, 1), **{name: 1e39})


def test_the_article_s_training_is_judged():
    """One iteration at 1e30 left weights whose cost is infinite."""
    with pytest.raises(dlx.DivergenceError, match=r"`cost` must stay finite; got (inf|nan) after the last iteration"):
        dlx.L_layer_model(X32.T, X32[:, :1].T, (3, 8, 1), learning_rate=1e30, num_iterations=1)


ESTIMATOR = {"hidden_layer_sizes": (8, 8), "solver": "sgd", "learning_rate_init": 1e30, "momentum": 0}
ESTIMATOR["random_state"] = 0


class TestEstimators:
    """By the same judge."""

    @pytest.fixture(autouse=True)
    def _sklearn(self):
        pytest.importorskip("sklearn")

    @pytest.mark.parametrize("standardize", [False, True])
    def test_partial_fit(self, standardize):
        reg = dlx.MLPRegressor(**ESTIMATOR, standardize=standardize, batch_size=200)
        with pytest.raises(ValueError, match=r"training diverged.*after the last batch of epoch 1"):
            reg.partial_fit(X32, Y)
        assert not hasattr(reg, "coefs_")

    def test_partial_fit_that_goes_on_stays_what_it_was(self):
        clf = dlx.MLPClassifier(**ESTIMATOR | {"learning_rate_init": 1e-3}, batch_size=200)
        clf.partial_fit(X32, Y > 0, classes=[False, True])
        before = [each.copy() for each in clf.coefs_]
        clf.learning_rate_init, clf.solver = 1e30, dlx.gradient_descent(1e30)
        with pytest.raises(ValueError, match="training diverged"):
            clf.partial_fit(X32, Y > 0)
        for a, b in zip(clf.coefs_, before, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_fit(self):
        with pytest.raises(ValueError, match="training diverged"):
            dlx.MLPRegressor(**ESTIMATOR, batch_size=200, max_iter=1).fit(X32, Y)

    def test_early_stopping_keeps_the_best_and_no_epoch_is_counted_twice(self):
        rate = lambda step, steps, losses: 1e-3 if step < 3 else 1e30  # noqa: E731
        how = ESTIMATOR | {"learning_rate": rate, "learning_rate_init": 1e-3, "max_iter": 4, "batch_size": 160}
        reg = dlx.MLPRegressor(**how, early_stopping=True, validation_fraction=0.2)
        with pytest.warns(UserWarning, match="training diverged; the best weights before are kept"):
            reg.fit(X32, Y)
        assert reg.n_iter_ == len(reg.loss_curve_) == 4
        assert np.isfinite(reg.predict(X32)).all()

    @pytest.mark.parametrize("scale", [1e39, -1e39, 1e300, 1e-50])
    def test_targets_that_float32_does_not_hold(self, scale):
        """Standardised they trained, and X[:, 0] * 1e39 predicted inf; of 1e-50, zeros."""
        reg = dlx.MLPRegressor((8,), standardize=True, dtype="float32", max_iter=2)
        text = r"`y` must fit in float32; got values up to .*\. Scale them, or pass dtype='float64'"
        with pytest.raises(ValueError, match=text):
            reg.fit(X, Y * scale)
        assert not hasattr(reg, "coefs_")

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("scale", [1e39, 1e37, 1e-30])
    def test_targets_that_float64_or_float32_holds(self, scale):
        dtype = "float64" if scale == 1e39 else "float32"
        reg = dlx.MLPRegressor((8,), standardize=True, dtype=dtype, max_iter=200, random_state=0).fit(X, Y * scale)
        assert reg.score(X, Y * scale) > 0.5


@pytest.mark.parametrize("early_stopping", [True, "loss"])
def test_the_best_weights_of_early_stopping_are_judged(early_stopping):
    """ "The best weights before are kept" was said of those that had exploded: R² -1e9.

    scikit-learn's own tests demand that early stopping raises nothing.
    """
    how = {"solver": "sgd", "learning_rate_init": 0.1, "random_state": 0, "batch_size": 180}
    est = dlx.MLPRegressor((16, 16), early_stopping=early_stopping, **how)
    with pytest.warns(match="training diverged; the weights that it began with are kept"):
        est.fit(X32 * 300, Y * 300)
    assert np.abs(est.coefs_[0]).max() < 1
    assert est.score(X32 * 300, Y * 300) > -10


def test_targets_that_are_all_zero_explode_no_good_network():
    """The limit was 1e4 times 0, or times a loss of 1e-12: one update of Adam raised."""
    net = dlx.Network([(np.ones((2, 1)), np.zeros((1, 1)))], loss="squared_error", backend="numpy")
    found = dlx.fit(np.array([[1.0, -1 + 1e-6]]), np.zeros(1), (2, 1), init=net, epochs=1, rng=0)
    assert found.history["loss"][0] < 1e-11
