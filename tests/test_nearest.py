"""Arguments and hooks that dlx does not have, but other libraries do: refused, with the name that it has."""

import inspect
import pydoc

import numpy as np
import pytest

import dlx
from dlx import nearest
from dlx.training import loop

X = np.random.default_rng(0).standard_normal((30, 3))
Y = X[:, 0]


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("lr", "Did you mean learning_rate?"),
        ("step_size", "Did you mean learning_rate?"),
        ("learningrate", "Did you mean learning_rate?"),
        ("hidden_layer_sizes", "Did you mean layer_dims? It holds the inputs' and the outputs' widths too."),
        ("max_iter", "Did you mean epochs?"),
        ("Epochs", "Did you mean epochs?"),
        ("alpha", "Did you mean l2? scikit-learn's alpha, divided by the number of rows, is l2."),
        ("weight_decay", "Did you mean l2? Weight decay apart from the gradient is optimizer=dlx.adamw(weight_decay=0"),
        ("solver", "Did you mean optimizer?"),
        ("optimiser", "Did you mean optimizer?"),
        ("random_state", "Did you mean rng?"),
        ("validation_split", "Did you mean validation? 0.1 holds out a tenth of the rows."),
        ("validation_data", "Did you mean validation? It takes (X_val, y_val)."),
        ("early_stopping", "Did you mean patience? patience=10, for example, with validation=0.1."),
        ("device", "Did you mean backend? It names library and device: 'torch:cuda', for example."),
        ("class_weights", "Did you mean class_weight?"),
        ("dropout_rate", "Did you mean dropout?"),
        ("momentum", "It is a setting of the optimizer: optimizer=dlx.momentum(beta=0.9), for example."),
        ("betas", "It is a setting of the optimizer: optimizer=dlx.adam(b1=0.9, b2=0.999), for example."),
        ("qwerty", "Its arguments are those that help(dlx.fit) lists."),
    ],
)
def test_an_unknown_argument_of_fit_is_refused_with_the_nearest_known(given, remedy, monkeypatch):
    """`fit(..., lr=0.01)` said: fit() got an unexpected keyword argument 'lr'."""
    monkeypatch.setattr(loop, "train", None)
    with pytest.raises(TypeError) as caught:
        dlx.fit(X, Y, (3, 1), **{given: 0.01})
    assert str(caught.value).startswith(f"`{given}` must be an argument of fit; got {given}=0.01. {remedy}")


def test_so_do_the_other_functions():
    for call, text in (
        (
            lambda: dlx.find_learning_rate(X, Y, (3, 1), optim="sgd"),
            "`optim` must be an argument of find_learning_rate",
        ),
        (lambda: dlx.find_learning_rate(X, Y, (3, 1), lr=0.1), "`lr` must be left out; got 0.1. It is what is searche"),
        (lambda: dlx.find_learning_rate(X, Y, (3, 1), max_lr=1), "`max_lr` must be left out; got 1. It is what is sea"),
        (lambda: dlx.L_layer_model(X.T, Y[None], (3, 1), epochs=3), "Did you mean num_iterations?"),
        (lambda: dlx.L_layer_model(X.T, Y[None], (3, 1), lr=3), "`lr` must be an argument of L_layer_model; got lr=3."),
        (lambda: dlx.MLPClassifier(lr=0.1), "MLPClassifier; got lr=0.1. Did you mean learning_rate_init?"),
        (lambda: dlx.MLPRegressor(epochs=5), "MLPRegressor; got epochs=5. Did you mean max_iter?"),
        (
            lambda: dlx.MLPRegressor(seed=5),
            "`seed` must be an argument of MLPRegressor; got seed=5. Did you mean rando",
        ),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert text in str(caught.value)


def test_a_search_takes_what_fit_takes_and_its_own():
    found = dlx.find_learning_rate(X, Y, (3, 1), lowest=1e-3, highest=1e-1, updates=20, batch_size=10, epochs=3, rng=0)
    assert len(found.rates) == 20


@pytest.mark.parametrize("function", [dlx.fit, dlx.L_layer_model, dlx.MLPClassifier, dlx.MLPRegressor])
def test_signature_and_help_show_no_more_than_before(function):
    kinds = {each.kind for each in inspect.signature(function).parameters.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    assert "unknown" not in pydoc.render_doc(function)


def test_every_synonym_stands_in_one_line_and_every_note_for_a_pair_that_comes_up():
    words = [word for line in nearest.SYNONYMS for word in line]
    assert len(words) == len(set(words))
    functions = (dlx.fit, dlx.MLPClassifier, dlx.L_layer_model)
    for given, meant in nearest.NOTES:
        assert meant in [nearest.meant_by(given, inspect.signature(each).parameters) for each in functions]


def listener(*hooks):
    return type("Logger", (), {name: lambda self, *told: None for name in hooks})()


@pytest.mark.parametrize(
    ("hooks", "named", "meant"),
    [
        (["on_batch_end"], "on_batch_end", "on_epoch_end"),
        (["on_epoch_end", "on_batch_begin"], "on_batch_begin", "on_epoch_end"),
        (["on_start", "on_epoch_start"], "on_epoch_start", "on_epoch_end"),
        (["on_train_begin"], "on_train_begin", "on_start"),
        (["on_train_end"], "on_train_end", "on_end"),
        (["on_epochs_end"], "on_epochs_end", "on_epoch_end"),
        (["on_fit_start", "__call__"], "on_fit_start", "on_start"),
    ],
)
def test_an_unknown_hook_is_refused_with_the_nearest_known(hooks, named, meant, monkeypatch):
    """A method on_batch_end beside on_epoch_end was never called, and nobody said so."""
    monkeypatch.setattr(loop, "train", None)
    with pytest.raises(TypeError) as caught:
        dlx.fit(X, Y, (3, 1), callbacks=[listener(*hooks)])
    wanted = f"`callbacks` must have no hooks but on_start, on_epoch_end, on_end; got Logger.{named}. Did you mean "
    assert str(caught.value) == f"{wanted}{meant}?"


def test_what_is_no_method_is_no_hook():
    logger = listener("on_end")
    logger.on_gpu = True
    assert len(dlx.fit(X, Y, (3, 1), callbacks=logger, epochs=2).history["loss"]) == 2


@pytest.mark.parametrize(
    ("kind", "first", "text"),
    [
        (
            dlx.MLPRegressor,
            "squared_error",
            "got 'squared_error'. Here layer sizes come first: pass loss='squared_error'",
        ),
        (dlx.MLPRegressor, "poisson", "got 'poisson'. Here layer sizes come first: pass loss='poisson' by name."),
        (dlx.MLPRegressor, dlx.losses.huber(2.0), "layer sizes come first: pass loss=huber(width=2.0) by name."),
        (dlx.MLPClassifier, "log_loss", "Here layer sizes come first: pass loss='log_loss' by name."),
        (dlx.MLPClassifier, "logistic", "Here layer sizes come first: pass activation='logistic' by name."),
        (dlx.MLPClassifier, "adam", "Here layer sizes come first: pass solver='adam' by name."),
    ],
)
def test_a_loss_in_the_place_of_layer_sizes_is_refused_with_the_words_that_mend_it(kind, first, text):
    """scikit-learn 1.9 has MLPRegressor("poisson", (50,)); here layer sizes come first, as before."""
    model = kind(first, (50,))
    for fit in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"^`hidden_layer_sizes` must hold widths of layers; got ") as caught:
            fit(X, Y > 0)
        assert text in str(caught.value)
    assert not hasattr(model, "coefs_")
