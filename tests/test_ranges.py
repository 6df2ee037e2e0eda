"""Numbers that the working dtype does not hold are refused by their own names; they ended in "Lower learning_rate"."""

import numpy as np
import pytest

import dlx
from dlx.training import loop

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 3))
Y = (X[:, 0] > 0).astype(int)
SINGLE = "must fit float32, whose numbers are 1.2e-38 to 3.4e+38; got"
TINY = 5e-324


def scaled(schedule_of):
    """A user's own schedule, whose rates become too large in the second epoch."""
    return lambda step, steps, losses: schedule_of(step)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("clip_norm", {"clip_norm": 1e39}),
        ("clip_norm", {"clip_norm": 1e-39}),
        ("clip_value", {"clip_value": 1e39}),
        ("clip_value", {"clip_value": 1e-300}),
        ("l2", {"l2": 1e39}),
        ("l1", {"l1": 1e39}),
        ("learning_rate", {"learning_rate": 1e39}),
        ("learning_rate", {"optimizer": dlx.nesterov(1e39)}),
        ("learning_rate", {"learning_rate": dlx.schedules.exponential(1e39, 0.5)}),
        ("eps", {"optimizer": dlx.adam(eps=1e-300)}),
        ("eps", {"optimizer": dlx.nadam(eps=1e-39)}),
        ("eps", {"optimizer": dlx.rmsprop(eps=1e-300)}),
        ("eps", {"optimizer": dlx.adagrad(eps=1e39)}),
        ("weight_decay", {"optimizer": dlx.adamw(weight_decay=1e39)}),
        ("width", {"loss": dlx.losses.huber(1e39)}),
        ("width", {"loss": dlx.losses.huber(1e-300)}),
        ("q", {"loss": dlx.losses.quantile([1e-300])}),
        ("alpha", {"activation": dlx.activations.elu(1e39)}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_fit_names_the_number_before_any_work(name, given, stream, monkeypatch, tmp_path):
    """float32 clip_norm=1e39 or eps=1e-300 ended in: `loss` must stay finite ... Lower learning_rate."""
    seed, folder = np.random.default_rng(7), tmp_path / "kept"
    monkeypatch.setattr(loop, "train", None)
    with pytest.raises(ValueError, match=rf"^`{name}` must fit float32") as caught:
        dlx.fit(X.astype("f4"), X[:, 0], (3, 8, 1), rng=seed, stream=stream, checkpoint=folder, **given)
    assert SINGLE in str(caught.value)
    assert str(caught.value).endswith("Use one of these, or pass dtype='float64'.")
    assert not folder.exists()
    assert seed.random() == np.random.default_rng(7).random()


def test_the_remedy_is_one(be):
    for given in ({"clip_norm": 1e39}, {"optimizer": dlx.adam(eps=1e-300)}, {"loss": dlx.losses.huber(1e39)}):
        net = dlx.fit(X.astype("f4"), X[:, 0], (3, 4, 1), dtype="float64", epochs=2, rng=0, backend=be, **given)
        assert np.isfinite(net.history["loss"]).all()


def test_zero_and_what_may_vanish_pass():
    plain = dlx.fit(X.astype("f4"), X[:, 0], (3, 4, 1), epochs=2, rng=0)
    for given in ({"l2": 1e-300}, {"l1": 0.0}, {"optimizer": dlx.adamw(weight_decay=1e-300)}):
        net = dlx.fit(X.astype("f4"), X[:, 0], (3, 4, 1), epochs=2, rng=0, **given)
        np.testing.assert_array_equal(net.params[0].W, plain.params[0].W)
    still = dlx.fit(X.astype("f4"), X[:, 0], (3, 4, 1), epochs=2, rng=0, learning_rate=1e-300, batch_size=None)
    assert still.history["loss"][0] == still.history["loss"][1]


def test_rates_are_judged_as_they_come():
    rates = dlx.schedules.step_decay(1e-3, every=1, factor=0.5)
    with pytest.raises(ValueError, match=r"^`learning_rate` must fit float32, .*got 1e\+39"):
        dlx.fit(X.astype("f4"), X[:, 0], (3, 1), epochs=3, learning_rate=scaled(lambda step: 1e39 if step > 1 else 0))
    net = dlx.fit(X.astype("f4"), X[:, 0], (3, 1), epochs=2, batch_size=None, learning_rate=rates, rng=0)
    assert net.history["learning_rate"] == [1e-3, 5e-4]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: dlx.MLPRegressor((4,), epsilon=1e-300), f"`epsilon` {SINGLE} 1e-300."),
        (lambda: dlx.MLPRegressor((4,), solver=dlx.adam(eps=1e-300)), f"`epsilon` {SINGLE} 1e-300."),
        (lambda: dlx.MLPRegressor((4,), learning_rate_init=1e39), f"`learning_rate_init` {SINGLE} 1e+39."),
        (
            lambda: dlx.MLPRegressor((4,), alpha=1e300),
            "`alpha` must fit float32, divided by the sum of the rows' weigh",
        ),
        (lambda: dlx.MLPRegressor((4,), loss=dlx.losses.huber(1e-300)), f"`width` {SINGLE} 1e-300."),
    ],
)
def test_estimators_call_it_by_scikit_learn_s_name(make, text):
    model = make()
    with pytest.raises(ValueError, match=r"^`") as caught:
        model.fit(X.astype("f4"), X[:, 0])
    assert text in str(caught.value)
    assert not hasattr(model, "coefs_")


# -- weights --


@pytest.mark.filterwarnings("ignore:The training has not converged")
@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("weights", [np.full(200, TINY), np.where(np.arange(200) < 3, TINY, 0.0)])
def test_weights_by_whose_sum_alpha_cannot_be_divided(weights, kind):
    """Weights of 5e-324 made alpha / Σ w infinite, which ended in "Lower learning_rate"."""
    for model in (dlx.MLPClassifier((4,)), dlx.MLPRegressor((4,))):
        with pytest.raises(
            ValueError, match=r"^`sample_weight` must have a sum that alpha can be divided by; got .*e-32"
        ):
            model.fit(X.astype(kind), Y, weights)
    free = dlx.MLPRegressor((4,), alpha=0.0, max_iter=2, tol=0.0, random_state=0)
    found = [free.fit(X.astype(kind), Y, w).coefs_[0] for w in (weights, weights / TINY)]
    np.testing.assert_array_equal(*found)


def test_weights_of_classes_alike():
    tiny = dlx.MLPClassifier((4,), class_weight={0: TINY, 1: TINY})
    with pytest.raises(
        ValueError, match=r"^`sample_weight` must have a sum that alpha can .*class weights included\. Sc"
    ):
        tiny.fit(X, Y)
    with pytest.raises(
        ValueError, match=r"^`class_weight` must be finite when multiplied by sample_weight; got a produ"
    ):
        dlx.MLPClassifier((4,), class_weight={0: 1e308}).fit(X, Y, np.full(200, 10.0))


@pytest.mark.filterwarnings("ignore:The training has not converged")
def test_weights_of_1e308_are_trained_on_as_their_proportions_say():
    """So large a sum leaves nothing of alpha / Σ w; the class of weight 1 has no say beside one of 1e308."""
    found = dlx.MLPClassifier((4,), class_weight={0: 1e308}, max_iter=2, random_state=0).fit(X, Y)
    expected = dlx.MLPClassifier((4,), class_weight={1: 0.0}, alpha=0.0, max_iter=2, random_state=0).fit(X, Y)
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-12)
    net = dlx.fit(X, Y, (3, 2), class_weight={0: 1e308}, epochs=2, rng=0)
    other = dlx.fit(X, Y, (3, 2), class_weight={1: 0.0}, epochs=2, rng=0)
    np.testing.assert_allclose(net.history["loss"], other.history["loss"], rtol=1e-12)


@pytest.mark.parametrize("large", [1e60, 1e-60])
def test_weights_of_the_rows_held_out_may_be_of_another_order(large, monkeypatch):
    """Those have a mean of their own: the figures are those without weights."""
    seen, train = [], loop.train
    monkeypatch.setattr(loop, "train", lambda task, *rest, **more: (seen.append(task), train(task, *rest, **more))[1])
    how = {"validation": 0.2, "rng": 0, "epochs": 1}
    plain = dlx.fit(X.astype("f4"), X[:, 0], (3, 1), **how)
    w = np.full(200, large)
    w[seen[0].chosen] = 1.0
    net = dlx.fit(X.astype("f4"), X[:, 0], (3, 1), **how, sample_weight=w)
    assert net.history["validation_loss"] == pytest.approx(plain.history["validation_loss"], rel=1e-6)


def test_the_article_s_function_too():
    with pytest.raises(ValueError, match=r"^`learning_rate` must fit float32"):
        dlx.L_layer_model(X.T.astype("f4"), X[:, :1].T, (3, 1), learning_rate=1e39, dtype="float32")
    with pytest.raises(ValueError, match=r"^`width` must fit float32"):
        dlx.L_layer_model(X.T, X[:, :1].T, (3, 1), cost=dlx.losses.huber(1e-40), dtype="float32")
