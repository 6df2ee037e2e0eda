"""What a training shows where its loss has settings, and what the estimators' `verbose` shows."""

import io
import re
import sys
import types

import numpy as np
import pytest
import sklearn.neural_network

import dlx
from dlx import __main__ as command
from dlx import losses
from dlx.training import progress_bar

pytestmark = pytest.mark.filterwarnings("ignore:The training has not converged", "ignore:Stochastic Optimizer")
X = np.random.default_rng(0).standard_normal((60, 3))
REAL, LABELS = X[:, 0], (X[:, 0] > 0).astype(int)

# -- the loss by its settings --


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "named"),
    [
        (dlx.losses.quantile([0.05, 0.5, 0.95]), REAL, 3, "quantile(q=[0.05, 0.5, 0.95])"),
        (dlx.losses.quantile(0.9), REAL, 1, "quantile(q=0.9)"),
        (dlx.losses.huber(2.0), REAL, 1, "huber(width=2.0)"),
        (dlx.losses.cross_entropy(label_smoothing=0.1), LABELS, 2, "cross_entropy(label_smoothing=0.1)"),
        (dlx.losses.cross_entropy(), LABELS, 2, ""),
        ("quantile", REAL, 1, ""),
        ("auto", REAL, 1, ""),
    ],
)
def test_bars_and_lines_name_the_loss_s_settings(loss, y, outputs, named, capsys):
    """Bars said "loss 1.2651" for every list of quantiles."""
    how = {"loss": loss, "epochs": 2, "rng": 0}
    dlx.fit(X, y, (3, outputs), verbose=1, **how)
    last = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    assert last.startswith(f"{named}: 100%|" if named else "100%|")
    dlx.fit(X, y, (3, outputs), verbose=2, **how)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-2] == ([f"loss: {named}"] if named else [])
    assert [line.partition("  ")[0] for line in lines[-2:]] == ["epoch 1/2", "epoch 2/2"]


def test_many_quantiles_leave_room_for_the_bar(capsys):
    levels = np.linspace(0.05, 0.95, 19).round(2).tolist()
    dlx.fit(X, REAL, (3, 19), loss=dlx.losses.quantile(levels), verbose=1, epochs=1)
    named = capsys.readouterr().err.rstrip().rpartition("\r")[2].partition(": ")[0]
    assert (named, len(named)) == ("quantile(q=[0.05, 0.1, 0.1…, 0.9, 0.95])", 40)
    assert losses.label((lambda z, y: z, lambda z, y: z)) == ""


def test_texts_are_shortened_in_the_middle():
    assert [progress_bar.shortened("abcdefghijkl", longest) for longest in (12, 11, 7)] == [
        "abcdefghijkl",
        "abcdefg…jkl",
        "abcd…kl",
    ]


# -- the estimators' --


@pytest.mark.parametrize("make", [dlx.MLPClassifier, dlx.MLPRegressor])
@pytest.mark.parametrize("verbose", [True, 1])
def test_true_shows_a_bar(make, verbose, capsys):
    """100 epochs printed 100 lines "Iteration 1, loss = ...", where `fit` shows a bar."""
    model = make((4,), verbose=verbose, max_iter=100, n_iter_no_change=200, random_state=0).fit(X, LABELS)
    out, err = capsys.readouterr()
    last = err.rstrip().rpartition("\r")[2]
    assert out == ""
    assert re.match(r"100%\|.*\| 100/100 \[", last)
    assert f"loss {model.loss_:.4f}" in last
    assert "\n" not in err.rstrip()


def test_a_bar_shows_the_validation_and_then_why_it_ended(capsys):
    how = {"early_stopping": True, "learning_rate_init": 0.1, "loss": dlx.losses.huber(2.0), "random_state": 0}
    model = dlx.MLPRegressor((4,), verbose=True, **how).fit(X, REAL)
    out, err = capsys.readouterr()
    assert 0 < model.n_iter_ < 200
    assert out == "Validation figure did not improve by more than tol=0.000100 any longer. Stopping.\n"
    assert err.rstrip().rpartition("\r")[2].startswith("huber(width=2.0): ")
    assert f"{model.n_iter_}/200" in err
    assert "validation score" in err


def test_more_than_1_prints_scikit_learn_s_lines(capsys):
    how = {"max_iter": 3, "random_state": 0, "verbose": 2, "early_stopping": True}
    dlx.MLPRegressor((4,), **how).fit(X, REAL)
    out, err = capsys.readouterr()
    sklearn.neural_network.MLPRegressor(hidden_layer_sizes=(4,), **how).fit(X, REAL)
    assert out == capsys.readouterr().out
    assert err == ""


def test_parts_and_where_there_is_no_tqdm_print_lines(capsys, monkeypatch):
    model = dlx.MLPClassifier((4,), verbose=True, max_iter=3, random_state=0)
    model.partial_fit(X, LABELS, classes=[0, 1])
    assert re.fullmatch(r"Iteration 1, loss = \d\.\d{8}\n", capsys.readouterr().out)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    model.fit(X, LABELS)
    out, err = capsys.readouterr()
    assert [line.partition(",")[0] for line in out.splitlines()] == [f"Iteration {k}" for k in (1, 2, 3)]
    assert err == ""


@pytest.mark.parametrize("verbose", [False, 0])
def test_nothing_prints_nothing(verbose, capfd):
    dlx.MLPClassifier((4,), verbose=verbose, max_iter=3, early_stopping=True, random_state=0).fit(X, LABELS)
    assert capfd.readouterr() == ("", "")


def test_a_bar_of_a_training_that_diverges_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(dlx.DivergenceError):
        dlx.MLPRegressor((4,), solver="sgd", learning_rate_init=1e30, verbose=True).fit(X, REAL)
    assert sys.stderr.getvalue().endswith("\n")


# -- what `python -m dlx` calls usable --


def test_a_library_on_which_a_fit_fails_is_not_called_usable(capsys, monkeypatch):
    """With array-api-compat 1.12 to 1.15 every fit on torch with relu raised, and the diagnosis said usable."""

    def maximum(x1, x2):
        raise TypeError("maximum(): argument 'other' (position 2) must be Tensor, not float")

    old = types.ModuleType("numpy")
    vars(old).update(vars(np), maximum=maximum)
    monkeypatch.setattr(command, "get_backend", lambda name: dlx.Backend(old, name="numpy"))
    assert command.main([]) == 0
    said = "installed but unusable: maximum(): argument 'other' (position 2) must be Tensor, not float"
    assert f"torch: {said}" in capsys.readouterr().out.splitlines()


def test_a_warning_names_the_line_of_the_user(tmp_path):
    """However many calls of dlx, of scikit-learn and of context managers lie between."""
    X, y = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 2
    calls = {
        "not converged": lambda: dlx.MLPClassifier((2,), max_iter=2, random_state=0).fit(X, y),
        "is more than the 20 rows": lambda: dlx.MLPClassifier((2,), max_iter=2, batch_size=50, random_state=0).fit(
            X, y
        ),
        "ended by a rule": lambda: [
            dlx.fit(X, y, (2, 2), epochs=epochs, callbacks=lambda net: True, checkpoint=tmp_path, rng=0)
            for epochs in (3, 4)
        ],
    }
    for text, call in calls.items():
        with pytest.warns(UserWarning, match=text) as caught:
            call()
        assert {each.filename for each in caught} == {__file__}


def test_a_warning_bears_a_caller_without_a_name():
    """Python itself shows no warning there; the training must not be lost for it."""
    here = {"__name__": None, "dlx": dlx}
    exec("est = dlx.MLPClassifier((2,), max_iter=2, random_state=0).fit([[0.0], [1.0]] * 5, [0, 1] * 5)", here)
    assert here["est"].n_iter_ == 2
