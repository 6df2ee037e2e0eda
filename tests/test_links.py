"""The link of a loss beside SciPy, PyTorch and scikit-learn: prediction, its logarithm, the answer, the way back."""

import copy
import pickle
import re

import numpy as np
import pytest
import scipy.special
import sklearn.neural_network

import dlx
import oracles
from dlx import activations, losses
from dlx.interchange import onnx_model

PREDICT = {
    "identity": np.array,
    "exp": np.exp,
    "logistic": scipy.special.expit,
    "softmax": lambda Z: scipy.special.softmax(Z, axis=-1),
}
LOG_PREDICT = {
    "identity": np.log,
    "exp": np.array,
    "logistic": scipy.special.log_expit,
    "softmax": lambda Z: scipy.special.log_softmax(Z, axis=-1),
}
DECIDE = {  # with scores of 0 as a yes, and as a no
    "identity": (np.array, np.array),
    "exp": (np.exp, np.exp),
    "logistic": (lambda Z: (scipy.special.expit(Z) >= 0.5) * 1, lambda Z: (scipy.special.expit(Z) > 0.5) * 1),
    "softmax": (lambda Z: np.argmax(Z, axis=-1), lambda Z: np.argmax(Z, axis=-1)),
}
LINK_OF = {
    "squared_error": losses.IDENTITY,
    "absolute_error": losses.IDENTITY,
    "huber": losses.IDENTITY,
    "quantile": losses.IDENTITY,
    "poisson": losses.EXP,
    "binary_cross_entropy": losses.LOGISTIC,
    "cross_entropy": losses.SOFTMAX,
}
LINKS = {link.name: link for link in LINK_OF.values()}
every_link = pytest.mark.parametrize("name", LINKS)
every_lead = pytest.mark.parametrize("lead", [(), (3,)], ids=["n x K", "3 x n x K"])


def scores(rng, lead=(), K=4):
    """Off 0, but for one row of ties."""
    Z = 3.0 * rng.standard_normal((*lead, 7, K))
    Z[..., 0, :] = 0.0
    return Z


@every_lead
@every_link
def test_predictions_and_answers_are_those_of_scipy(name, lead, be, rng):
    link, Z = LINKS[name], scores(rng, lead)
    oracles.assert_close(be.to_host(link.predict(be.xp, be.asarray(Z))), PREDICT[name](Z), 1e-14)
    for tie, decide in zip((True, False), DECIDE[name], strict=True):
        answers, expected = be.to_host(link.decide(be.xp, be.asarray(Z), tie)), decide(Z)
        assert (answers.shape, answers.dtype.kind) == (expected.shape, expected.dtype.kind)
        oracles.assert_close(answers, expected, 1e-14)


@every_lead
@every_link
def test_logarithms_are_those_of_scipy(name, lead, be, rng):
    Z = np.exp(scores(rng, lead)) if name == "identity" else scores(rng, lead)
    oracles.assert_close(be.to_host(LINKS[name].log_predict(be.xp, be.asarray(Z))), LOG_PREDICT[name](Z), 1e-14)


@pytest.mark.parametrize("name", ["exp", "logistic", "softmax"])
def test_logarithms_are_finite_where_predictions_underflow(name, be):
    link, Z = LINKS[name], np.array([[0.0, -1000.0], [-300.0, 80.0]])
    found = be.to_host(link.log_predict(be.xp, be.asarray(Z, "float32")))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, LOG_PREDICT[name](Z), rtol=1e-6)
    assert be.to_host(link.predict(be.xp, be.asarray(Z, "float32")))[0, 1] == 0.0


@every_link
def test_inverse_is_the_way_back(name, be, rng):
    """From scores to predictions and back; softmax forgets what is common to all scores of a row."""
    link, Z = LINKS[name], scores(rng)
    P = link.predict(be.xp, be.asarray(Z))
    back = be.to_host(link.inverse(be.xp, P))
    if name == "softmax":
        oracles.assert_close(back, scipy.special.log_softmax(Z, axis=-1), 1e-12)
    else:
        oracles.assert_close(back, Z, 1e-12)
    oracles.assert_close(be.to_host(link.predict(be.xp, link.inverse(be.xp, P))), be.to_host(P), 1e-14)


def test_the_inverse_of_the_logistic_function_is_scipys_logit():
    P = np.array([[1e-300, 1e-6, 0.3, 0.5, 1.0 - 1e-6]])
    np.testing.assert_allclose(losses.LOGISTIC.inverse(np, P), scipy.special.logit(P), rtol=1e-14, atol=1e-16)


@every_link
def test_predictions_lie_in_the_range(name, rng):
    """Between its bounds, to which extreme scores come close."""
    low, high = LINKS[name].range
    with np.errstate(over="ignore"):
        P = LINKS[name].predict(np, np.concatenate([scores(rng), [[1e9, -1e9, 0.0, 0.0]]]))
    assert low <= P.min()
    assert P.max() <= high
    assert (P.min(), P.max()) == (max(low, -1e9), high if name != "identity" else 1e9)


def of_torch(name, Z):
    import torch

    Z = torch.asarray(Z)
    return {
        "identity": (Z, Z.log()),
        "exp": (Z.exp(), Z),
        "logistic": (torch.sigmoid(Z), torch.nn.functional.logsigmoid(Z)),
        "softmax": (torch.softmax(Z, -1), torch.log_softmax(Z, -1)),
    }[name]


@oracles.by_library(oracles.installed({"torch": of_torch}))
@every_link
def test_predictions_and_logarithms_are_those_of_torch(name, library, rng):
    Z = np.abs(scores(rng)) + 0.1
    for function, expected in zip((LINKS[name].predict, LINKS[name].log_predict), of_torch(name, Z), strict=True):
        oracles.assert_close(function(np, Z), expected.numpy(), 1e-14)


# -- whose they are --


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_a_loss_predicts_by_its_link(loss, rng):
    made, Z = losses.get(loss), scores(rng)
    assert made.link == LINK_OF[loss]
    np.testing.assert_array_equal(made.bind(np, np.asarray).predict(Z), made.link.predict(np, Z))


def test_names_are_those_of_scikit_learn():
    X = np.arange(12.0)[:, None]
    several, one = (sklearn.neural_network.MLPClassifier((), max_iter=1) for _ in range(2))
    regressors = [sklearn.neural_network.MLPRegressor(loss, (), max_iter=1) for loss in ("squared_error", "poisson")]
    fits = [(regressors[0], X[:, 0]), (regressors[1], X[:, 0]), (one, X[:, 0] > 5), (several, X[:, 0] % 3)]
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        assert [est.fit(X, y).out_activation_ for est, y in fits] == list(LINKS)


def test_every_link_has_an_operator_of_onnx():
    assert set(onnx_model.LINKS) == set(LINKS)


@pytest.mark.parametrize("own", [(np.minimum, np.maximum), (np.minimum, np.maximum, np.exp)], ids=["pair", "triple"])
def test_the_link_of_a_users_own_is_what_it_predicts(own):
    link, Z = losses.get(own).link, np.array([[1.0, 2.0]])
    expected = np.exp(Z) if len(own) == 3 else Z
    assert (link.name, link.answers) == ("identity", "number")
    for found in (link.predict(np, Z), link.decide(np, Z), np.exp(link.log_predict(np, Z))):
        np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_the_link_of_a_loss_through_an_activation_is_of_its_outputs():
    loss = losses.through(activations.tanh(), losses.cross_entropy())
    Z = np.array([[1.0, 3.0, -2.0]])
    np.testing.assert_allclose(loss.link.predict(np, Z), scipy.special.softmax(np.tanh(Z), axis=1), rtol=1e-15)
    np.testing.assert_allclose(loss.link.log_predict(np, Z), scipy.special.log_softmax(np.tanh(Z), axis=1), rtol=1e-15)
    assert loss.link.decide(np, Z).tolist() == [1]


@every_link
def test_links_can_be_copied(name):
    assert copy.deepcopy(LINKS[name]) == LINKS[name]


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_a_loss_keeps_its_link_through_a_pickle_and_is_not_dlxs_own_with_another(loss):
    made = losses.get(loss)
    assert pickle.loads(pickle.dumps(made)).link == made.link
    assert losses.is_own(made)
    assert not losses.is_own(made._replace(link=losses.EXP if made.link != losses.EXP else losses.IDENTITY))


def test_formulas_of_ones_own_under_a_name_of_dlx_are_asked():
    """A loss whose `bind` was replaced predicts by what that gives."""
    own = losses.Formulas(*losses.squared_error().bind(np, np.asarray)[:2], lambda Z: Z + 100.0)
    loss = losses.squared_error()._replace(bind=lambda xp, array: own)
    X = np.linspace(0, 1, 20)[:, None]
    net = dlx.fit(X, X[:, 0], (1, 1), loss=loss, epochs=1, rng=0)
    assert (net.predict(X) > 90).all()


@pytest.mark.parametrize("link", [None, "softmax", lambda Z: Z], ids=["None", "text", "function"])
def test_a_loss_without_a_link_is_refused_at_the_door(link):
    odd = losses.binary_cross_entropy()._replace(link=link)
    shown = {"softmax": "'softmax'", None: "None"}.get(link, "function")
    text = f"`loss` must have a link of dlx.losses; got {shown}. For example link=dlx.losses.SOFTMAX for classes."
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises(TypeError, match=re.escape(text)):
        dlx.fit(np.zeros((4, 2)), [0, 1, 0, 1], (2, 1), loss=odd, rng=rng)
    with pytest.raises(TypeError, match=re.escape(text)):
        dlx.Network([(np.eye(2), np.zeros(2))], loss=odd)
    assert rng.bit_generator.state == before
