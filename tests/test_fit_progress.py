"""What happens between epochs: validation, patience, callbacks, what is printed, Ctrl-C."""

import re
import sys
import warnings

import numpy as np
import pytest

import dlx
from dlx import network
from dlx.data import features
from dlx.training import divergence, epochs, loop, steps

N, DIMS = 40, (3, 8, 2)
X = np.random.default_rng(1).standard_normal((N, 3))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.9).astype(int)
REAL = X[:, 0] * X[:, 1]
TEST = np.random.default_rng(2).standard_normal((15, 3))
Y_TEST = (TEST[:, 0] > 0).astype(int)


def fit(y=Y, dims=DIMS, X=X, **settings):
    return dlx.fit(X, y, dims, **{"epochs": 6, "batch_size": 10, "learning_rate": 0.03, "rng": 3, **settings})


def vector(net):
    return np.concatenate([net.backend.to_host(each).ravel() for layer in net.params for each in layer])


class Recorder:
    """A listener that writes down events, and copies the weights of every epoch."""

    def __init__(self):
        self.events, self.weights = [], []

    def on_start(self, net):
        self.events.append("start")
        assert net.history == {}
        assert net.predict(X).shape == (N,)

    def on_epoch_end(self, net):
        self.events.append(len(net.history["loss"]))
        self.weights.append(vector(net).copy())

    def on_end(self, net):
        self.events.append("end")


# -- validation --


@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_a_share_is_what_the_two_parts_by_hand_are(backend, monkeypatch):
    """The rows that are drawn, used as (X_val, y_val), give the same validation; the others the same training."""
    seen, train = [], loop.train
    monkeypatch.setattr(
        loop, "train", lambda task, *rest, **more: (seen.append(task.chosen), train(task, *rest, **more))[1]
    )
    plain = {"batch_size": None, "init": "zeros", "backend": backend, "epochs": 3}
    drawn = fit(validation=0.25, **plain)
    chosen = seen[0]
    held = np.setdiff1d(np.arange(N), chosen)
    assert len(held) == 10
    assert abs(Y[held].mean() - Y.mean()) <= 0.5 / 10 + 0.5 / N
    parts = fit(Y[chosen], X=X[chosen], validation=(X[held], Y[held]), **plain)
    for name in ("loss", "validation_loss", "validation_score"):
        np.testing.assert_allclose(drawn.history[name], parts.history[name], rtol=1e-12)
    np.testing.assert_allclose(vector(drawn), vector(parts), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("y", "y_val", "outputs", "loss"),
    [
        (Y, Y_TEST, 2, "auto"),
        (Y, Y_TEST > 0, 2, "auto"),
        (Y > 0, Y_TEST, 2, "auto"),
        (np.array(["a", "b"])[Y], np.array(["a", "b"])[Y_TEST], 2, "auto"),
        (Y, np.eye(2)[Y_TEST], 2, "auto"),
        (np.eye(2)[Y], Y_TEST, 2, "cross_entropy"),
        (Y, Y_TEST, 1, "auto"),
        (Y, Y_TEST.astype(float), 1, "auto"),
        (Y.astype(float), Y_TEST, 1, "binary_cross_entropy"),
    ],
)
def test_labels_or_probabilities_validate_alike(y, y_val, outputs, loss):
    net = fit(y, (3, outputs), epochs=2, validation=(TEST, y_val), loss=loss)
    P = net.predict_proba(TEST)
    assert net.history["validation_loss"][-1] == pytest.approx(-np.log(P[np.arange(15), Y_TEST]).mean(), rel=1e-6)
    assert net.history["validation_score"][-1] == pytest.approx(np.mean(P.argmax(axis=1) == Y_TEST), rel=1e-6)


def test_the_validation_loss_has_no_penalty_and_no_dropout():
    net = fit(REAL, (3, 8, 1), validation=(TEST, TEST[:, 0]), l2=1.0, dropout=0.5)
    error = TEST[:, 0] - net.predict(TEST)
    assert net.history["validation_loss"][-1] == pytest.approx(np.mean(error**2), rel=1e-12)
    r2 = 1 - np.sum(error**2) / np.sum((TEST[:, 0] - TEST[:, 0].mean()) ** 2)
    assert net.history["validation_score"][-1] == pytest.approx(r2, rel=1e-12)


def test_held_out_rows_keep_their_weights(monkeypatch):
    seen, train = [], loop.train
    monkeypatch.setattr(
        loop, "train", lambda task, *rest, **more: (seen.append(task.chosen), train(task, *rest, **more))[1]
    )
    w = np.random.default_rng(0).uniform(0.0, 2.0, N)
    net = fit(REAL, (3, 8, 1), validation=0.5, sample_weight=w)
    held = np.setdiff1d(np.arange(N), seen[0])
    error = np.average((REAL[held] - net.predict(X[held])) ** 2, weights=w[held])
    assert net.history["validation_loss"][-1] == pytest.approx(error, rel=1e-12)
    assert net.history["validation_score"][-1] == pytest.approx(net.score(X[held], REAL[held], w[held]), rel=1e-12)


# -- patience --


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("validation", [None, (TEST, Y_TEST)], ids=["training", "validation"])
def test_patience_ends_and_restores_the_best(optimizer, validation):
    seen = Recorder()
    how = {"optimizer": optimizer, "learning_rate": 1.0, "validation": validation, "callbacks": seen}
    net = fit(patience=2, epochs=60, **how)
    own = "training_loss" if optimizer == "adam" else "loss"  # L-BFGS's is that of the weights it leaves
    watched = net.history[own if validation is None else "validation_loss"]
    best = int(np.argmin(watched))
    np.testing.assert_array_equal(vector(net), seen.weights[best])
    stopped_early = len(watched) == best + 3
    assert stopped_early or (optimizer == "lbfgs" and validation is None)
    assert len(watched) < 60
    if stopped_early:
        assert np.abs(vector(net) - seen.weights[-1]).max() > 0


def test_without_patience_the_last_weights_are_kept():
    seen = Recorder()
    net = fit(learning_rate=0.3, epochs=12, validation=(TEST, Y_TEST), callbacks=seen)
    assert int(np.argmin(net.history["validation_loss"])) < 11
    np.testing.assert_array_equal(vector(net), seen.weights[-1])


def test_any_loss_is_better_than_nan():
    """A validation loss that starts as nan must not win (scikit-learn 29504)."""
    task_losses = iter([np.nan, 3.0, 2.0, np.nan, 2.5, 2.5])
    rows = features.Rows(np.zeros((2, 1)), np.zeros((2, 1)), None, None)
    task = steps.Task(dlx.get_backend("numpy"), None, "float64", rows, None)
    each = [epochs.Epoch((network.Layer(np.full((1, 1), k), np.zeros((1, 1))),), 1.0, 0.1) for k in range(6)]
    settings = steps.Settings(dlx.adam(), None, 1, 6, True, 3, None, None)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(epochs, "by_batch", lambda *rest: iter(each))
        patch.setattr(divergence, "require_good", lambda *rest: None)
        params, history = loop.train(
            task, settings, (), None, lambda params: {"validation_loss": next(task_losses)}, lambda *rest: False
        )
    assert params[0].W == 2.0
    assert len(history["loss"]) == 6


# -- callbacks and what is printed --


def test_listeners_hear_start_epochs_and_end_in_order():
    first, second, calls = Recorder(), Recorder(), []
    fit(epochs=3, callbacks=[first, second, lambda net: calls.append(net.history["loss"][-1])])
    assert first.events == second.events == ["start", 1, 2, 3, "end"]
    assert len(calls) == 3


@pytest.mark.parametrize("stop", [True, np.bool_(True)])
def test_a_true_result_stops_after_all_were_heard(stop):
    seen = Recorder()
    net = fit(callbacks=[lambda net: stop if len(net.history["loss"]) == 2 else None, seen])
    assert seen.events == ["start", 1, 2, "end"]
    assert len(net.history["loss"]) == 2
    np.testing.assert_array_equal(vector(net), seen.weights[1])


def test_an_object_stops_too_and_may_have_one_method():
    class Stop:
        def on_epoch_end(self, net):
            return True

    assert len(fit(callbacks=Stop()).history["loss"]) == 1


def test_listening_changes_nothing():
    np.testing.assert_array_equal(vector(fit(callbacks=Recorder(), verbose=2)), vector(fit()))


@pytest.mark.parametrize("validation", [None, 0.25])
def test_verbose_prints_one_line_an_epoch(validation, capsys):
    net = fit(epochs=11, verbose=2, validation=validation)
    out, err = capsys.readouterr()
    more = r"  validation loss -?\d+\.\d{4}  validation score -?\d+\.\d{4}" if validation else ""
    lines = out.splitlines()
    assert len(lines) == 11
    for epoch, (line, loss) in enumerate(zip(lines, net.history["loss"], strict=True), start=1):
        assert re.fullmatch(rf"epoch {epoch:>2}/11  loss {loss:.4f}{more}  \d+\.\d\d s", line)
    assert err == ""


@pytest.mark.parametrize("validation", [None, 0.25])
def test_verbose_1_shows_a_bar(validation, capsys, monkeypatch):
    net = fit(epochs=7, verbose=1, validation=validation)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.rstrip().rpartition("\r")[2]
    assert re.match(r"100%\|.*\| 7/7 \[\d\d:\d\d<00:00, ", last)
    said = ["loss", *(["validation_loss", "validation_score"] if validation else [])]
    assert ", ".join(f"{name.replace('_', ' ')} {net.history[name][-1]:.4f}" for name in said) in last
    (speed,) = re.findall(r"([\d,]+) rows/s", last)
    rows = len(X) * 3 // 4 if validation else len(X)
    assert int(speed.replace(",", "")) == pytest.approx(rows / net.history["seconds"][-1], rel=1e-3, abs=1)
    assert np.array_equal(vector(net), vector(fit(epochs=7, validation=validation)))


def test_the_bar_counts_the_epochs_before_a_resume(tmp_path, capsys):
    fit(epochs=3, checkpoint=tmp_path)
    fit(epochs=5, checkpoint=tmp_path, verbose=1)
    shown = re.findall(r"(\d)/5 ", capsys.readouterr().err)
    assert (shown[0], shown[-1]) == ("3", "5")


def test_without_tqdm_the_bar_is_refused_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"verbose=1 needs tqdm; run: pip install 'dlx-nn\[progress\]', or pass verb"):
        fit(verbose=True)
    fit(verbose=2, epochs=1)


def test_verbose_0_prints_nothing(capfd):
    fit(validation=0.25, patience=1)
    assert capfd.readouterr() == ("", "")


# -- Ctrl-C --


def interrupt_after(calls, monkeypatch):
    """The step after so many raises KeyboardInterrupt, as Ctrl-C does wherever it strikes."""
    count, gradients = [0], network.loss_and_gradients

    def interrupted(*rest):
        if count[0] == calls:
            raise KeyboardInterrupt
        count[0] += 1
        return gradients(*rest)

    monkeypatch.setattr(network, "loss_and_gradients", interrupted)


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 6])
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_ctrl_c_inside_a_step_keeps_the_updates_so_far(steps, optimizer, monkeypatch):
    """Four steps an epoch; a part of an epoch is one too."""
    seen = Recorder()
    interrupt_after(steps, monkeypatch)
    epochs = -(-steps // 4) if optimizer == "adam" else None
    with pytest.warns(UserWarning, match=r"interrupted after \d epochs; the weights so far are kept\.") as caught:
        net = fit(optimizer=optimizer, callbacks=seen)
    assert caught[0].filename == __file__
    assert seen.events[-1] == "end"
    assert net.predict(X).shape == (N,)
    assert len(net.history.get("loss", [])) == len(seen.weights)
    if optimizer == "adam":
        assert f"after {epochs} epochs" in str(caught[0].message)
        assert len(seen.weights) == epochs
    if seen.weights:
        np.testing.assert_array_equal(vector(net), seen.weights[-1])


@pytest.mark.parametrize("patience", [None, 5])
def test_ctrl_c_from_a_callback(patience, be):  # patience keeps the best on every library
    def strike(net):
        if len(net.history["loss"]) == 3:
            raise KeyboardInterrupt
        assert "validation_loss" in net.history

    seen = Recorder()
    with pytest.warns(UserWarning, match="after 3 epochs"):
        net = fit(callbacks=[seen, strike], patience=patience, backend=be, validation=(TEST, Y_TEST))
    assert seen.events == ["start", 1, 2, 3, "end"]
    best = 2 if patience is None else int(np.argmin(net.history["validation_loss"]))
    np.testing.assert_array_equal(vector(net), seen.weights[best])
    assert np.asarray(net.predict(X)).shape == (N,)


def test_a_bar_where_there_is_no_console(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(fit(epochs=2, verbose=1).history["loss"]) == 2
