"""ONNX of the estimators: onnxruntime gives what `predict`, `predict_proba` and scikit-learn's own MLPs give."""

import re

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor

import dlx
import oracles

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(11)
X = RNG.standard_normal((120, 5)) * [1.0, 20.0, 0.1, 1.0, 3.0] + [0.0, 50.0, 0.0, -2.0, 1.0]
WORDS = np.array(["ann", "bob", "ünï"])[np.digitize(X[:, 0], [-0.4, 0.4])]
SETTINGS = {"hidden_layer_sizes": (8, 6), "max_iter": 5, "random_state": 0}


def run(est, path, X):
    est.to_onnx(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) <= 3 * len(est.coefs_) + 6
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, {"X": X}), strict=True))


CLASSIFIED = {
    "words": (WORDS, {}),
    "two words": (np.where(X[:, 0] > 0, "yes", "no"), {}),
    "booleans": (X[:, 0] > 0, {}),
    "numbers": (np.digitize(X[:, 0], [-0.4, 0.4]) * 10 - 3, {}),
    "two numbers": (np.where(X[:, 0] > 0, 7, -1), {}),
    "two scores for two classes": (X[:, 0] > 0, {"loss": "cross_entropy"}),
    "several labels a row": ((X[:, :3] > X[:, :3].mean(axis=0)).astype(int), {}),
    "one column of labels": ((X[:, :1] > 0).astype(int), {}),
}


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CLASSIFIED)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_a_classifier(case, dtype, standardize, tmp_path):
    y, settings = CLASSIFIED[case]
    rows = X.astype(dtype)
    est = dlx.MLPClassifier(**SETTINGS, **settings, standardize=standardize, activation="tanh").fit(rows, y)
    found = run(est, tmp_path / "est.onnx", rows)
    np.testing.assert_array_equal(found["label"], est.predict(rows))
    oracles.assert_close(found["probabilities"], est.predict_proba(rows), 1e-6)
    assert found["label"].dtype == (object if est.classes_.dtype.kind == "U" else np.int64)
    assert found["probabilities"].dtype == dtype


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("loss", ["squared_error", "poisson", "huber"])
def test_a_regressor(loss, outputs, dtype, standardize, tmp_path):
    rows = (X if standardize else (X - X.mean(axis=0)) / X.std(axis=0)).astype(dtype)  # float32 rounds 50 by 4e-6
    Y = np.abs(X[:, :outputs]) + 1
    y = Y[:, 0] if outputs == 1 else Y
    est = dlx.MLPRegressor(**SETTINGS, loss=loss, standardize=standardize, activation="silu").fit(rows, y)
    found = run(est, tmp_path / "est.onnx", rows)
    assert list(found) == ["prediction"]
    assert found["prediction"].shape == y.shape
    oracles.assert_close(found["prediction"], est.predict(rows), 1e-6)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_scikit_learns_own_mlp_by_way_of_dlx(activation, tmp_path):
    """Poisson and three outputs included, which skl2onnx gets wrong."""
    digits, y = load_digits(return_X_y=True)
    digits = digits / 16
    theirs = TheirClassifier((20,), activation, max_iter=3, random_state=0).fit(digits, y)
    found = run(dlx.from_sklearn(theirs), tmp_path / "est.onnx", digits)
    np.testing.assert_array_equal(found["label"], theirs.predict(digits))
    oracles.assert_close(found["probabilities"], theirs.predict_proba(digits), 1e-12)
    for loss in ("squared_error", "poisson"):
        theirs = TheirRegressor(loss, (20,), activation, max_iter=3, random_state=0).fit(digits, digits[:, 2:5])
        found = run(dlx.from_sklearn(theirs), tmp_path / "est.onnx", digits)
        assert found["prediction"].shape == (len(digits), 3)
        oracles.assert_close(found["prediction"], theirs.predict(digits), 1e-12)


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_an_estimator_at_another_opset(opset, tmp_path):
    for est in (
        dlx.MLPClassifier(**SETTINGS, activation="gelu", standardize=True).fit(X, WORDS),
        dlx.MLPRegressor(**SETTINGS, activation="mish", standardize=True).fit(X, X[:, :2]),
    ):
        path = tmp_path / "est.onnx"
        est.to_onnx(path, opset=opset)
        assert [each.version for each in onnx.load(path).opset_import if each.domain == ""] == [opset]
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        expected = est.predict_proba(X) if hasattr(est, "classes_") else est.predict(X)
        oracles.assert_close(session.run(None, {"X": X})[-1], expected, 1e-12)
    with pytest.raises(ValueError, match="`opset` must be an integer >= 13; got 12"):
        est.to_onnx(tmp_path / "other.onnx", opset=12)
    assert not (tmp_path / "other.onnx").exists()


def test_a_score_of_zero_is_no_as_in_scikit_learn(tmp_path):
    est = dlx.MLPClassifier((), max_iter=1).fit(X, X[:, 0] > 0)
    est.coefs_[0][:], est.intercepts_[0][:] = 0.0, 0.0
    found = run(est, tmp_path / "est.onnx", X)
    assert found["label"].tolist() == est.predict(X).tolist() == [0] * len(X)


def test_rejections(tmp_path):
    path = tmp_path / "est.onnx"
    with pytest.raises(NotFittedError):
        dlx.MLPClassifier().to_onnx(path)
    est = dlx.MLPClassifier(**SETTINGS).fit(X, np.full(len(X), "one"))
    text = "`classes_` must hold at least two labels for to_onnx; got ['one']. Train it on two."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        est.to_onnx(path)
    own = (lambda z: z * 1.0, lambda z, a: z * 0.0 + 1.0)
    with pytest.raises(
        ValueError, match=r"^`to_onnx` must be asked of a network with dlx's own activations and loss; "
    ):
        dlx.MLPRegressor(**SETTINGS, activation=own).fit(X, X[:, 0]).to_onnx(path)
    assert not path.exists()
