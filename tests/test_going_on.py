"""`init=net`: a training that goes on from a network."""

import numpy as np
import pytest

import dlx

RNG = np.random.default_rng(9)
X = RNG.standard_normal((50, 4))
Y = np.array(["a", "b", "c"])[np.arange(50) % 3]
DIMS = (4, 6, 3)
HOW = {"epochs": 3, "batch_size": 16, "rng": 0}


def host(net):
    return [np.array(net.backend.to_host(each)) for layer in net.params for each in layer]


def assert_same(one, other, **close):
    for a, b in zip(host(one), host(other), strict=True):
        np.testing.assert_allclose(a, b, **(close or {"rtol": 0, "atol": 0}))


def test_it_is_the_same_as_from_its_arrays(be):
    net = dlx.fit(X, Y, DIMS, backend=be, **HOW)
    before = host(net)
    pairs = list(zip(before[::2], before[1::2], strict=True))
    assert_same(dlx.fit(X, Y, DIMS, init=net, backend=be, **HOW), dlx.fit(X, Y, DIMS, init=pairs, backend=be, **HOW))
    for a, b in zip(host(net), before, strict=True):
        np.testing.assert_array_equal(a, b)  # the network itself is not trained


def test_from_any_library_to_any_other(be):
    net = dlx.fit(X, Y, DIMS, backend="numpy", **HOW)
    there = dlx.fit(X, Y, DIMS, init=net, backend=be, **HOW)
    back = dlx.fit(X, Y, DIMS, init=net.to(be), backend="numpy", **HOW)
    assert there.backend == be
    assert_same(there, back, rtol=1e-10, atol=1e-12)


def test_its_loss_goes_on_where_it_was():
    """The first loss is that of the network, to the last digits."""
    net = dlx.fit(X, X[:, :1], (4, 6, 1), loss="squared_error", **HOW | {"epochs": 30})
    on = dlx.fit(X, X[:, :1], (4, 6, 1), loss="squared_error", init=net, **HOW | {"batch_size": None})
    assert on.history["loss"][0] == pytest.approx(np.mean((net.predict(X) - X[:, 0]) ** 2), rel=1e-12)


def test_another_dtype_and_a_file(tmp_path):
    net = dlx.fit(X, Y, DIMS, **HOW)
    net.save(tmp_path / "net")
    on = dlx.fit(X, Y, DIMS, init=dlx.load(tmp_path / "net"), dtype="float32", **HOW)
    assert on.dtype == "float32"
    assert_same(on, dlx.fit(X, Y, DIMS, init=net, **HOW), rtol=1e-3, atol=1e-4)


def test_a_checkpoint_knows_which_network_it_began_with(tmp_path):
    net, other = (dlx.fit(X, Y, DIMS, **HOW | {"rng": seed}) for seed in (1, 2))
    dlx.fit(X, Y, DIMS, init=net, **HOW, checkpoint=tmp_path)
    on = dlx.fit(X, Y, DIMS, init=net, **HOW | {"epochs": 5}, checkpoint=tmp_path)
    assert_same(on, dlx.fit(X, Y, DIMS, init=net, **HOW | {"epochs": 5}))
    with pytest.raises(ValueError, match="of one with a init that was"):
        dlx.fit(X, Y, DIMS, init=other, **HOW | {"epochs": 5}, checkpoint=tmp_path)


def test_other_widths_are_refused():
    net = dlx.fit(X, Y, DIMS, **HOW)
    with pytest.raises(ValueError, match=r"`init` must have the widths of layer_dims, \(4, 7, 3\); got \(4, 6, 3\)"):
        dlx.fit(X, Y, (4, 7, 3), init=net, **HOW)


def test_other_activations_are_refused():
    """Its weights mean nothing behind another function; a setting of it is part of it."""
    net = dlx.fit(X, Y, DIMS, activation="tanh", **HOW)
    text = (
        r"`activation` must be that of the network to go on from, \['tanh'\]; got \['relu'\]. Pass activation=net.act"
    )
    with pytest.raises(ValueError, match=text):
        dlx.fit(X, Y, DIMS, init=net, **HOW)
    on = dlx.fit(X, Y, DIMS, init=net, activation=net.activation, **HOW)
    assert on.activation[0].name == "tanh"
    dlx.fit(X, Y, DIMS, init=net.params, **HOW)
    leaky = dlx.fit(X, Y, DIMS, activation=dlx.activations.leaky_relu(0.1), **HOW)
    with pytest.raises(ValueError, match="`activation` must be that of the network"):
        dlx.fit(X, Y, DIMS, init=leaky, activation="leaky_relu", **HOW)


def test_weights_beyond_the_dtype_are_refused():
    net = dlx.Network([(np.full((4, 3), 1e39), np.zeros(3))], loss="cross_entropy")
    with pytest.raises(ValueError, match=r"`init\[0\]\.W` must be finite in float32"):
        dlx.fit(X, Y, (4, 3), init=net, dtype="float32", **HOW)


class TestEstimators:
    """They take one too, and are not taken themselves."""

    @pytest.fixture(autouse=True)
    def _sklearn(self):
        pytest.importorskip("sklearn")

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_an_estimator_goes_on_from_a_network(self):
        from sklearn.base import clone

        net = dlx.fit(X, Y, DIMS, **HOW)
        clf = dlx.MLPClassifier((6,), init=net, max_iter=1, random_state=0, learning_rate_init=1e-12)
        for each in (clf, clone(clf)):
            each.fit(X, Y)
            np.testing.assert_allclose(each.predict_proba(X), net.predict_proba(X), rtol=1e-6)
        with pytest.raises(ValueError, match="`init` must have the widths of layer_dims"):
            clone(clf).set_params(hidden_layer_sizes=(5,)).fit(X, Y)
        with pytest.raises(ValueError, match="`activation` must be that of the network"):
            clone(clf).set_params(activation="tanh").fit(X, Y)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_a_fitted_estimator_is_refused_with_its_remedy(self):
        clf = dlx.MLPClassifier((6,), max_iter=2, random_state=0).fit(X, Y)
        text = (
            r"`init` must be a network, .*; got a fitted MLPClassifier. Pass list\(zip\(est.coefs_, est.intercepts_\)\)"
        )
        with pytest.raises(TypeError, match=text):
            dlx.fit(X, Y, DIMS, init=clf, **HOW)
        dlx.fit(X, Y, DIMS, init=list(zip(clf.coefs_, clf.intercepts_, strict=True)), **HOW)


def test_columns_in_another_order_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    net = dlx.fit(frame, Y, DIMS, **HOW)
    with pytest.raises(ValueError, match=r"^`X` must have the columns of the training data, 'a' at place 0; got 'd'"):
        dlx.fit(frame[list("dcba")], Y, DIMS, init=net, **HOW)
    dlx.fit(frame, Y, DIMS, init=net, **HOW)


def test_other_labels_are_refused():
    net = dlx.fit(X, Y, DIMS, **HOW)
    with pytest.raises(ValueError, match=r"of the network to go on from; got \['b', 'c', 'd'\]\. They were \['a'"):
        dlx.fit(X, np.array(["b", "c", "d"])[np.arange(50) % 3], DIMS, init=net, **HOW)


def test_new_rows_may_lack_a_class(be):
    """Rows of "a" and "c" alone: they stand for what they stood for, and are trained as such."""
    net = dlx.fit(X, Y, DIMS, backend=be, **HOW)
    some = np.flatnonzero(Y != "b")
    on = dlx.fit(X[some], Y[some], DIMS, init=net, backend=be, **HOW)
    rows = np.eye(3)[np.searchsorted(["a", "b", "c"], Y[some])]
    by_rows = dlx.fit(X[some], rows, DIMS, init=net.params, backend=be, loss="cross_entropy", **HOW)
    assert list(on.classes) == ["a", "b", "c"]
    assert_same(on, by_rows)
