"""Attacks that once got through."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import dlx
from dlx import optimizers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
REAL = X @ [1.0, 2.0, 3.0]


def test_r2_of_many_float32_rows_is_right(be):
    truth = (1e3 + RNG.normal(size=(200_000, 2))).astype("float32")
    guess = truth + 0.5 * RNG.normal(size=truth.shape).astype("float32")
    net = dlx.Network([(np.eye(2, dtype="f4"), np.zeros(2, "f4"))], loss="squared_error", backend=be)
    exact = 1 - ((truth - guess.astype(float)) ** 2).mean(0) / truth.astype(float).var(0)
    assert net.score(guess, truth) == pytest.approx(exact.mean(), abs=1e-4)


def test_bias_gradients_of_many_float32_rows_do_not_drift():
    ones = np.ones((2_000_000, 1), np.float32)
    target = np.full((len(ones), 2), 1000.0, np.float32)
    how = {"batch_size": None, "epochs": 1, "optimizer": "sgd", "learning_rate": 0.25, "init": "zeros"}
    net = dlx.fit(ones, target, (1, 2), **how)
    np.testing.assert_allclose(net.params[0].b, 500.0, rtol=1e-4)  # two terms: W has moved by the same


def test_lbfgs_on_numbers_whose_square_overflows_says_so():
    milliseconds = (1.7e12 + np.arange(40) * 8.64e7).astype("int64")[:, None]
    with pytest.raises(dlx.DivergenceError, match=r"`loss` must have a finite slope; got none in epoch 1: the squared"):
        dlx.fit(milliseconds, REAL, (1, 1), optimizer="lbfgs", epochs=5, rng=0)


def test_threads_may_save_to_one_path(tmp_path):
    net, path, problems = dlx.Network([(np.eye(3), np.zeros(3))]), tmp_path / "net.safetensors", []
    net.save(path)

    def save():
        try:
            for _ in range(20):
                net.save(path)
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=save) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert dlx.load(path).layer_dims == (3, 3)
    assert problems == []
    assert os.listdir(tmp_path) == ["net.safetensors"]


def test_class_weights_near_the_largest_float_train():
    how = {"epochs": 30, "learning_rate": 0.1, "rng": 0}
    huge = dlx.fit(X, Y, (3, 2), class_weight={0: 1e308, 1: 1e308}, **how)
    np.testing.assert_allclose(huge.params[0].W, dlx.fit(X, Y, (3, 2), **how).params[0].W, rtol=1e-12)


def test_history_that_no_file_can_hold_is_refused_when_saving(tmp_path):
    net = dlx.Network([(np.eye(3), np.zeros(3))], history={"loss": [1, np.float32(2)]})
    net.save(tmp_path / "a")
    assert dlx.load(tmp_path / "a").history == {"loss": [1.0, 2.0]}
    net.history["note"] = "text"
    with pytest.raises(ValueError, match=r"^`history` must be a dict of lists of numbers to be saved; got a text, 't'"):
        net.save(tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]


def test_labels_of_two_kinds_are_refused():
    with pytest.raises(ValueError, match=r"^`y` must have no missing labels; got nan at row 2\. Fill or drop"):
        dlx.fit(X, ["a", "b", float("nan"), "a"] * 10, (3, 3))
    with pytest.raises(TypeError, match=r"^`y` must hold labels of one kind; got 3 at row 2 among strings\. Make"):
        dlx.fit(X, ["a", "b", 3, "a"] * 10, (3, 3))


def test_a_network_of_strings_takes_no_numbers():
    net = dlx.fit(X, np.where(Y, "aa", "zz"), (3, 1), epochs=1)
    with pytest.raises(TypeError, match=r"^`y` must hold strings, as the training data do; got dtype float64"):
        net.score(X, Y.astype(float))


def test_the_article_checks_its_last_update_and_its_targets():
    with pytest.raises(dlx.DivergenceError, match=r"^`params` must stay finite; got a weight that is not finite after"):
        dlx.L_layer_model(X.T, REAL[None], (3, 1), learning_rate=1e308, num_iterations=1)
    with pytest.raises(
        ValueError, match=r"^`activation` must end in 'none' for cost binary_cross_entropy; got 'sigmoid'"
    ):
        dlx.L_layer_model(X.T, Y[None], (3, 1), activation="sigmoid", cost="binary_cross_entropy")
    with pytest.raises(ValueError, match=r"^`Y` must lie in \[0, 1\] for binary_cross_entropy"):
        dlx.L_layer_model(X.T, 5 * REAL[None], (3, 1), cost="binary_cross_entropy")
    with pytest.raises(ValueError, match=r"^`loss` must return value of shape"):
        dlx.L_layer_model(X.T, REAL[None], (3, 1), cost=(lambda Z, Y: Z[0, 0], lambda Z, Y: Z))


def test_ctrl_c_waits_for_the_end_of_an_update(monkeypatch):
    """Both layers have made the same number of updates, whenever it comes."""
    apply, calls = optimizers.step, []

    def pressed_within(update, *rest):
        def interrupted(*arguments):
            calls.append(len(calls))
            if len(calls) == 7:  # the third array of the second update
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            return update(*arguments)

        return apply(interrupted, *rest)

    monkeypatch.setattr(optimizers, "step", pressed_within)
    with pytest.warns(UserWarning, match="interrupted after 1 epochs"):
        net = dlx.fit(X, Y, (3, 4, 2), batch_size=4, epochs=5, rng=0, backend="strict")
    assert len(calls) == 8
    assert net.score(X, Y) >= 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_own_losses_of_another_dtype_are_refused():
    def value(Z, Y):
        return np.sum((Z - Y) ** 2, axis=1, keepdims=True).astype("float64")

    with pytest.raises(ValueError, match="in the dtype of the scores"):
        dlx.fit(X.astype("float32"), REAL, (3, 1), loss=(value, lambda Z, Y: 2 * (Z - Y)))


def test_a_callback_may_return_anything():
    net = dlx.fit(X, Y, (3, 2), epochs=3, callbacks=[lambda net: np.zeros(3), lambda net: "text"])
    assert len(net.history["loss"]) == 3
    with pytest.raises(TypeError, match=r"^`callbacks` must take one argument, the network; got "):
        dlx.fit(X, Y, (3, 2), callbacks=lambda epoch, logs: None)


def test_a_rate_is_given_once():
    with pytest.raises(ValueError, match=r"^`learning_rate` must be given once; got 0\.5 beside the optimizer's own\."):
        dlx.fit(X, Y, (3, 2), optimizer=dlx.adam(1e-2), learning_rate=0.5)


def test_the_score_is_the_exact_share():
    net = dlx.fit(X, Y, (3, 2), epochs=2, rng=0, dtype="float32")
    assert net.score(X, Y) == np.mean(net.predict(X) == Y)


def test_a_network_changes_dtype_on_its_way(tmp_path, be):
    net = dlx.fit(X, Y, (3, 2), epochs=2, rng=0)
    net.save(tmp_path / "net")
    for other in (net.to(be, "float32"), dlx.load(tmp_path / "net", backend=be, dtype="float32")):
        assert other.dtype == "float32"
        np.testing.assert_allclose(other.predict_proba(X), net.predict_proba(X), atol=1e-6)
    assert net.dtype == "float64"


@pytest.mark.parametrize("dtype", ["float16", 3, np.nan])
def test_a_network_goes_to_no_other_dtype(tmp_path, dtype):
    net = dlx.Network([(np.eye(3), np.zeros(3))])
    net.save(tmp_path / "net")
    for change in (lambda: net.to("numpy", dtype), lambda: dlx.load(tmp_path / "net", dtype=dtype)):
        with pytest.raises(
            ValueError, match=rf"^`dtype` must be one of 'float32', 'float64'; got '{dtype}'\. These are"
        ):
            change()
