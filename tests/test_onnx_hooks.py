"""skl2onnx's conversion of pipelines that hold dlx's estimators: onnxruntime gives what the pipeline gives."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

import dlx
import oracles
from dlx import activations
from dlx.estimators import onnx_hooks
from dlx.interchange import onnx_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")
checker = pytest.importorskip("onnx.checker")
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:skl2onnx"),
]

RNG = np.random.default_rng(5)
X = RNG.standard_normal((80, 3)) * [1.0, 2.0, 0.5] + [0.0, 1.0, -1.0]
SETTINGS = {"hidden_layer_sizes": (6, 5), "max_iter": 4, "random_state": 0}
PLACES = np.digitize(X[:, 0], [-0.4, 0.4])
LABELS = {
    "words": np.array(["ann", "bob", "ünï"])[PLACES],
    "two words": np.where(X[:, 0] > 0, "yes", "no"),
    "numbers": PLACES * 10 - 3,
    "two numbers": np.where(X[:, 0] > 0, 7, -1),
    "far numbers": PLACES + 2**40,
    "booleans": X[:, 0] > 0,
    "several labels a row": (X.mean(axis=0) < X).astype(int),
}
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}
NEWEST = skl2onnx.__max_supported_opset__


def classifier(**settings):
    return dlx.MLPClassifier(**{**SETTINGS, **settings})


def regressor(**settings):
    return dlx.MLPRegressor(**{**SETTINGS, **settings})


def run(model, given):
    """The outputs by name, from onnxruntime on the CPU; the model is valid, and without functions."""
    checker.check_model(model, full_check=True)
    assert not model.functions
    assert {each.domain for each in model.opset_import} <= {"", "ai.onnx.ml"}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = given if isinstance(given, dict) else {"X": given}
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feeds), strict=True))


def converted(est, rows, target_opset=None, **options):
    last = est.steps[-1][1] if hasattr(est, "steps") else est
    return skl2onnx.to_onnx(est, rows[:1], options={id(last): options} if options else None, target_opset=target_opset)


def assert_same(est, rows, tolerance, **how):
    """Labels and probabilities as tensors."""
    model = converted(est, rows, zipmap=False, **how)
    found = run(model, rows)
    assert list(found) == ["label", "probabilities"]
    np.testing.assert_array_equal(found["label"], est.predict(rows))
    assert found["probabilities"].dtype == rows.dtype
    oracles.assert_close(found["probabilities"], est.predict_proba(rows), tolerance)
    return model


# -- one estimator, behind a scaler --


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("labels", LABELS)
def test_labels_of_every_kind(labels, dtype):
    """As skl2onnx gives them by default, and with tensors: the issue's own line is the first."""
    y, rows = LABELS[labels], X.astype(dtype)
    est = make_pipeline(StandardScaler(), classifier()).fit(rows, y)
    found = run(skl2onnx.to_onnx(est, rows[:1]), rows)
    assert list(found) == ["output_label", "output_probability"]
    np.testing.assert_array_equal(found["output_label"], est.predict(rows))
    assert found["output_label"].dtype == (object if y.dtype.kind == "U" else np.int64)
    assert set(found["output_probability"][0]) == set(est.classes_.tolist())
    table = np.array([[each[label] for label in est.classes_.tolist()] for each in found["output_probability"]])
    oracles.assert_close(table, est.predict_proba(rows), TOLERANCE["float32"])  # a map holds floats alone
    assert_same(est, rows, TOLERANCE[dtype])


@pytest.mark.parametrize("opset", [onnx_model.OLDEST, 15, 17, 18, 20, NEWEST])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_activation_at_old_and_new_opsets(dtype, opset):
    rows = X.astype(dtype)
    for name, make in activations.ACTIVATIONS.items():
        est = make_pipeline(StandardScaler(), classifier(activation=make(), max_iter=1)).fit(rows, PLACES)
        model = assert_same(est, rows, TOLERANCE[dtype], target_opset=opset)
        assert max(each.version for each in model.opset_import if not each.domain) <= opset, name


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("loss", ["squared_error", "poisson", "huber", "absolute_error"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regressor_gives_columns_as_scikit_learns_do(outputs, loss, dtype):
    rows = X.astype(dtype)
    y = np.abs(X[:, :outputs]) if outputs > 1 else np.abs(X[:, 0])
    for settings in ({}, {"standardize": True}):
        est = make_pipeline(StandardScaler(), regressor(loss=loss, activation="silu", **settings)).fit(rows, y)
        found = run(skl2onnx.to_onnx(est, rows[:1]), rows)
        assert list(found) == ["variable"]
        assert found["variable"].shape == (len(rows), outputs)
        assert found["variable"].dtype == dtype
        oracles.assert_close(found["variable"], est.predict(rows).reshape(len(rows), -1), TOLERANCE[dtype])


@pytest.mark.parametrize("labels", ["two words", "numbers", "several labels a row"])
def test_options_of_skl2onnx(labels):
    est = make_pipeline(StandardScaler(), classifier(standardize=True)).fit(X, LABELS[labels])
    found = run(converted(est, X, zipmap="columns"), X)
    letter = "s" if labels == "two words" else "i"
    columns = [f"{letter}{each}" for each in est.classes_.tolist()]
    assert set(found) == {"output_label", *columns}
    oracles.assert_close(np.stack([found[each] for each in columns], axis=1), est.predict_proba(X), 1e-13)
    np.testing.assert_array_equal(found["output_label"], est.predict(X))
    found = run(converted(est, X, zipmap=False, nocl=True), X)
    place = est.predict(X) if labels.startswith("several") else np.searchsorted(est.classes_, est.predict(X))
    np.testing.assert_array_equal(found["label"], place)
    with pytest.raises(NameError, match="zipmp"):
        converted(est, X, zipmp=False)


@pytest.mark.parametrize("loss", ["log_loss", "cross_entropy"])
def test_raw_scores_are_those_of_decision_function(loss):
    est = classifier(loss=loss).fit(X, LABELS["two words"])
    z = est.decision_function(X)
    found = run(converted(est, X, zipmap=False, raw_scores=True), X)
    oracles.assert_close(found["probabilities"], np.stack([-z, z], axis=1), 1e-13)
    np.testing.assert_array_equal(found["label"], est.predict(X))
    est = classifier().fit(X, PLACES)
    found = run(converted(est, X, zipmap=False, raw_scores=True), X)
    oracles.assert_close(found["probabilities"], est.decision_function(X), 1e-13)


def test_two_scores_for_two_classes():
    assert_same(classifier(loss="cross_entropy").fit(X, LABELS["booleans"]), X, 1e-13)


def test_whole_numbers_and_named_columns():
    numbers = np.round(X * 10).astype(np.int64)
    est = classifier(standardize=True).fit(numbers, PLACES)
    np.testing.assert_array_equal(
        run(skl2onnx.to_onnx(est, numbers[:1]), numbers)["output_label"], est.predict(numbers)
    )
    frame = pd.DataFrame({"age": X[:, 0], "pay": X[:, 1], "sex": np.where(X[:, 2] > -1, "f", "m")})
    columns = make_column_transformer((StandardScaler(), ["age", "pay"]), (OneHotEncoder(), ["sex"]))
    est = make_pipeline(columns, classifier(activation="mish")).fit(frame, LABELS["words"])
    found = run(converted(est, frame, zipmap=False), {name: frame[[name]].to_numpy() for name in frame})
    np.testing.assert_array_equal(found["label"], est.predict(frame))
    oracles.assert_close(
        found["probabilities"], est.predict_proba(frame), 2e-6
    )  # texts are encoded in single precision
    pair = frame[["age", "pay"]]
    est = classifier().fit(pair, PLACES)
    found = run(converted(est, pair, zipmap=False), {name: pair[[name]].to_numpy() for name in pair})
    oracles.assert_close(found["probabilities"], est.predict_proba(pair), 1e-13)


def test_subclasses_and_scikit_learns_own_by_way_of_dlx():
    class Own(dlx.MLPClassifier):
        pass

    assert_same(make_pipeline(StandardScaler(), Own(**SETTINGS)).fit(X, PLACES), X, 1e-13)
    theirs = TheirRegressor("poisson", (5,), max_iter=4, random_state=0).fit(X, np.abs(X))  # three, through exp
    found = run(skl2onnx.to_onnx(dlx.from_sklearn(theirs), X[:1]), X)
    oracles.assert_close(found["variable"], theirs.predict(X), 1e-13)


def test_an_opset_for_each_domain():
    est = make_pipeline(StandardScaler(), classifier(activation="gelu")).fit(X.astype("float32"), PLACES)
    model = skl2onnx.to_onnx(est, X[:1].astype("float32"), target_opset={"": 17, "ai.onnx.ml": 2})
    found = run(model, X.astype("float32"))
    np.testing.assert_array_equal(found["output_label"], est.predict(X.astype("float32")))


def test_a_scaler_of_skl2onnx_is_merged_with_a_network_of_the_same_opset(tmp_path):
    compose, rows = pytest.importorskip("onnx.compose"), X.astype("float32")
    scaler = StandardScaler().fit(rows)
    est = classifier(activation="gelu").fit(scaler.transform(rows), PLACES)
    before = skl2onnx.to_onnx(scaler, rows[:1], target_opset=15)
    est.to_onnx(tmp_path / "net.onnx", opset=15)
    model = compose.merge_models(before, onnx.load(tmp_path / "net.onnx"), [("variable", "X")], prefix2="net/")
    found = run(model, rows)
    oracles.assert_close(found["net/probabilities"], est.predict_proba(scaler.transform(rows)), 2e-6)


# -- searches and ensembles --


def test_searches_and_unions_ask_the_estimator():
    grid = {"alpha": [1e-4, 1e-2]}
    for est in (
        GridSearchCV(classifier(), grid, cv=2),
        GridSearchCV(make_pipeline(StandardScaler(), classifier()), {"mlpclassifier__alpha": [1e-4]}, cv=2),
        make_pipeline(StandardScaler(), GridSearchCV(classifier(), grid, cv=2)),
        make_pipeline(make_union(StandardScaler(), MinMaxScaler()), classifier()),
    ):
        assert_same(est.fit(X, PLACES), X, 1e-13)
    est = GridSearchCV(regressor(), grid, cv=2).fit(X, X[:, 0])
    oracles.assert_close(run(skl2onnx.to_onnx(est, X[:1]), X)["variable"][:, 0], est.predict(X), 1e-13)


@pytest.mark.parametrize("labels", ["numbers", "two words"])
def test_ensembles_once_registered(labels):
    onnx_hooks.register(dlx.MLPClassifier, dlx.MLPRegressor)
    rows, both = X.astype("float32"), [("a", classifier()), ("b", LogisticRegression())]
    for est in (
        VotingClassifier(both, voting="soft", flatten_transform=False),
        BaggingClassifier(classifier(), n_estimators=2, random_state=0),
        CalibratedClassifierCV(classifier(), cv=2),
        StackingClassifier(both, final_estimator=classifier(), cv=2),
    ):
        est.fit(rows, LABELS[labels])
        found = run(converted(est, rows, zipmap=False), rows)
        np.testing.assert_array_equal(found["label"], est.predict(rows))
        oracles.assert_close(found["probabilities"], est.predict_proba(rows), 2e-6)


def test_ensembles_of_regressors_once_registered():
    onnx_hooks.register(dlx.MLPClassifier, dlx.MLPRegressor)
    both = [("a", regressor()), ("b", Ridge())]
    for est in (VotingRegressor(both), BaggingRegressor(regressor(), n_estimators=2), StackingRegressor(both, cv=2)):
        est.fit(X, X[:, 1])
        oracles.assert_close(run(skl2onnx.to_onnx(est, X[:1]), X)["variable"][:, 0], est.predict(X), 1e-12)


# -- what is refused, and what is left alone --


def test_rejections():
    for unfitted in (classifier(), regressor()):
        with pytest.raises(NotFittedError):
            skl2onnx.to_onnx(unfitted, X[:1])
    own = (lambda z: z * 1.0, lambda z, a: z * 0.0 + 1.0)
    est = regressor(activation=own).fit(X, X[:, 0])
    with pytest.raises(
        ValueError, match=r"^`to_onnx` must be asked of a network with dlx's own activations and loss; "
    ):
        skl2onnx.to_onnx(est, X[:1])
    est = classifier().fit(X, np.full(len(X), "one"))
    text = "`classes_` must hold at least two labels for to_onnx; got ['one']. Train it on two."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        skl2onnx.to_onnx(est, X[:1])
    est = classifier().fit(X, PLACES)
    text = "`target_opset` must be at least 13; got 12. Leave it out for skl2onnx's default."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        skl2onnx.to_onnx(est, X[:1], target_opset=12)


def test_a_users_own_entry_in_the_table_stands():
    class Own(dlx.MLPClassifier):
        pass

    options = {"zipmap": [True, False, "columns"], "nocl": [True, False]}
    skl2onnx.update_registered_converter(Own, "Theirs", onnx_hooks.shapes, onnx_hooks.convert, options=options)
    est = Own(**SETTINGS).fit(X, PLACES)
    assert list(run(skl2onnx.to_onnx(est, X[:1].astype("float32")), X.astype("float32"))) == [
        "output_label",
        "output_probability",
    ]
    assert_same(est, X, 1e-13)


def test_nothing_of_skl2onnx_is_imported_before_it_asks():
    code = (
        "import sys, dlx, numpy as np; dlx.MLPClassifier((2,), max_iter=300).fit(np.eye(4), [0, 1, 0, 1]);"
        "print('skl2onnx' in sys.modules, 'onnx' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_the_module_that_a_user_types():
    module = importlib.import_module("dlx.onnx_hooks")
    assert module.register is onnx_hooks.register
    assert dlx.onnx_hooks is module
