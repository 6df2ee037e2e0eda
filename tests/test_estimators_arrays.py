"""The estimators among others: arrays of every library, data frames, searches, pipelines, pickles, callbacks."""

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
import sklearn
import sklearn.neural_network as theirs
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_multilabel_classification
from sklearn.ensemble import BaggingClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils import estimator_checks

import dlx
from conftest import EVERYWHERE, SELECTORS
from dlx import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
X = scale(X)
X_REAL, Y_REAL = load_diabetes(return_X_y=True)
X_REAL, Y_REAL = scale(X_REAL), scale(Y_REAL)
PLAIN = {"hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0, "learning_rate_init": 0.02}
ELSEWHERE = [selector for selector in SELECTORS if selector != "numpy"]
CHECKED = ["numpy", "array_api_strict", "torch"]


def array_api_checks(estimator):
    """scikit-learn's own checks of arrays, of the libraries that are here."""
    for check in estimator_checks._yield_array_api_checks(estimator):
        given = check.keywords
        places = [given.get("array_namespace"), *(each.xp for each in given.values() if hasattr(each, "xp"))]
        devices = [given.get("device_name"), *(each.device for each in given.values() if hasattr(each, "xp"))]
        known = all(place in (None, *CHECKED) for place in places)
        if known and not any(str(device) in ("cuda", "xpu", "mps") for device in devices):
            yield pytest.param(
                estimator, check, id=f"{type(estimator).__name__}-{check.func.__name__}-{places}-{devices}"
            )


@pytest.mark.parametrize(
    ("estimator", "check"), [*array_api_checks(MLPClassifier(max_iter=5)), *array_api_checks(MLPRegressor(max_iter=5))]
)
def test_scikit_learn_s_checks_of_arrays(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
def test_the_tag_is_true_where_everything_follows_x(make):
    assert sklearn.utils.get_tags(make()).array_api_support
    assert not sklearn.utils.get_tags(make(backend="numpy")).array_api_support
    assert sklearn.utils.get_tags(make()).input_tags.sparse


@pytest.mark.parametrize("selector", ELSEWHERE)
@pytest.mark.parametrize(
    "settings", [{}, {"solver": "sgd"}, {"solver": "lbfgs"}, {"early_stopping": True}, {"dropout": 0.1}], ids=str
)
def test_numpy_in_and_numpy_out_with_the_same_numbers(selector, settings):
    here = MLPClassifier(**PLAIN, **settings).fit(X, Y)
    there = MLPClassifier(**PLAIN, **settings, backend=selector).fit(X, Y)
    for est in (there, pickle.loads(pickle.dumps(there)), clone(there).fit(X, Y)):
        assert {type(each) for each in (est.predict(X), est.predict_proba(X), *est.coefs_, *est.intercepts_)} == {
            np.ndarray
        }
        np.testing.assert_allclose(est.predict_proba(X), here.predict_proba(X), rtol=1e-6, atol=1e-9)
    real = MLPRegressor(**PLAIN, **settings, backend=selector, standardize=True).fit(X_REAL, 100 + Y_REAL)
    alike = MLPRegressor(**PLAIN, **settings, standardize=True).fit(X_REAL, 100 + Y_REAL)
    np.testing.assert_allclose(real.predict(X_REAL), alike.predict(X_REAL), rtol=1e-6)


@pytest.mark.parametrize("selector", ELSEWHERE)
def test_arrays_stay_where_they_are_under_dispatch(selector):
    be = dlx.get_backend(selector)
    with sklearn.config_context(array_api_dispatch=True):
        for est, y in ((MLPClassifier(**PLAIN), Y), (MLPRegressor(**PLAIN, standardize=True), Y.astype(float))):
            alone = clone(est).fit(X, y)
            est.fit(be.asarray(X), be.asarray(y))
            found = [est.predict(be.asarray(X)), *est.coefs_, *est.intercepts_]
            assert {dlx.backend.backend_of(each).selector for each in found} == {be.selector}
            np.testing.assert_allclose(be.to_host(found[0]), alone.predict(X), rtol=1e-6)
            again = pickle.loads(pickle.dumps(est))
            np.testing.assert_array_equal(be.to_host(again.predict(be.asarray(X))), be.to_host(found[0]))
            with pytest.raises(ValueError, match="must use the same namespace"):
                est.predict(X)


@pytest.mark.parametrize("selector", EVERYWHERE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_what_is_asked_for(selector, dtype):
    be = dlx.get_backend(selector)
    other = {"float32": "float64", "float64": "float32"}[dtype]
    with sklearn.config_context(array_api_dispatch=True):
        reg = MLPRegressor((3,), dtype=dtype, max_iter=2).fit(be.asarray(X, other), be.asarray(Y))
        assert {str(each.dtype).rpartition(".")[2] for each in [*reg.coefs_, reg.predict(be.asarray(X, other))]} == {
            dtype
        }
    reg = MLPRegressor((3,), dtype=dtype, max_iter=2, backend=selector).fit(X.astype(other), Y)
    assert reg.predict(X.astype(other)).dtype.name == dtype


@pytest.mark.parametrize("selector", EVERYWHERE)
def test_partial_fit_and_warm_start_go_on_on_every_library(selector):
    plain = {**PLAIN, "batch_size": 50, "tol": 0.0, "backend": selector}
    whole = MLPClassifier(**plain | {"max_iter": 4}).fit(X, Y)
    parts, warm = MLPClassifier(**plain), MLPClassifier(**plain | {"max_iter": 4, "shuffle": False, "warm_start": True})
    for _ in range(4):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X, Y, classes=[0, 1, 2])))
    np.testing.assert_allclose(parts.coefs_[0], whole.coefs_[0], rtol=1e-9)
    warm.fit(X, Y).fit(X, Y)
    once = MLPClassifier(**plain | {"max_iter": 8, "shuffle": False}).fit(X, Y)
    np.testing.assert_allclose(warm.coefs_[0], once.coefs_[0], rtol=1e-9)


@pytest.mark.parametrize("library", ["pandas", "polars", "list"])
def test_frames_and_lists(library):
    names = ["a", "b", "c", "d"]
    columns = dict(zip(names, X.T, strict=True))
    frame = X.tolist() if library == "list" else __import__(library).DataFrame(columns)
    clf = MLPClassifier(**PLAIN, early_stopping=True, scoring="accuracy").fit(frame, Y.tolist())
    np.testing.assert_array_equal(clf.predict(frame), clf.predict(frame))
    if library != "list":
        assert clf.feature_names_in_.tolist() == names
        with pytest.raises(ValueError, match="feature names"):
            clf.predict(frame[["b", "a", "c", "d"]])


def test_the_names_say_what_to_install(tmp_path):
    """Without scikit-learn, `import dlx` works and the estimators' names raise."""
    (tmp_path / "sklearn.py").write_text("raise ModuleNotFoundError(\"No module named 'sklearn'\", name='sklearn')")
    code = "import dlx\ntry:\n    dlx.MLPClassifier\nexcept ImportError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'dlx-nn[sklearn]'" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'MLPTransformer'"):
        dlx.MLPTransformer  # noqa: B018


def test_a_search_over_width_depth_dropout_rate_and_backend_in_a_pipeline():
    pipe = make_pipeline(StandardScaler(), MLPClassifier(max_iter=30, random_state=0))
    grid = {
        "mlpclassifier__width": [4, 16],
        "mlpclassifier__n_layers": [1, 2],
        "mlpclassifier__dropout": [0.0, 0.2],
        "mlpclassifier__learning_rate_init": [0.001, 0.03],
        "mlpclassifier__backend": ["numpy", None],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = GridSearchCV(pipe, grid, cv=2, n_jobs=2, error_score="raise").fit(X, Y)
    assert found.best_score_ > 0.9
    assert found.best_params_["mlpclassifier__learning_rate_init"] == 0.03


def test_meta_estimators_take_them():
    clf = MLPClassifier(**PLAIN | {"max_iter": 60})
    assert (cross_val_predict(clf, X, Y, cv=3) == Y).mean() > 0.9
    assert cross_val_predict(clf, X, Y, cv=3, method="predict_proba").shape == (150, 3)
    for meta in (
        CalibratedClassifierCV(clf, cv=2),
        BaggingClassifier(clf, n_estimators=3, random_state=0),
        StackingClassifier([("mlp", clf)], LogisticRegression(), cv=2),
    ):
        assert meta.fit(X, Y).score(X, Y) > 0.9


def test_copies_of_every_kind_predict_the_same(tmp_path):
    own = (lambda z: z * (z > 0), lambda z, a: 1.0 * (z > 0))
    for settings in (
        {},
        {"activation": dlx.activations.elu(0.5), "loss": dlx.losses.cross_entropy(0.1), "solver": dlx.adamw(0.01)},
        {"standardize": True, "early_stopping": True},
        {"activation": own},
    ):
        clf = MLPClassifier(**PLAIN, **settings).fit(X, Y)
        copies = [copy.deepcopy(clf), copy.copy(clf)]
        if settings.get("activation") is not own:  # a pickle holds no lambda
            joblib.dump(clf, tmp_path / "clf.joblib")
            copies += [pickle.loads(pickle.dumps(clf)), joblib.load(tmp_path / "clf.joblib")]
        for each in copies:
            np.testing.assert_array_equal(each.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("given", ["arrays", "backend"])
def test_a_pickle_of_torch_loads_where_torch_is_not(given, tmp_path):
    torch = pytest.importorskip("torch") if "torch" not in SELECTORS else __import__("torch")
    if given == "arrays":
        with sklearn.config_context(array_api_dispatch=True):
            clf = MLPClassifier(**PLAIN).fit(torch.asarray(X), torch.asarray(Y))
            expected = clf.predict_proba(torch.asarray(X)).numpy()
    else:
        clf = MLPClassifier(**PLAIN, backend="torch").fit(X, Y)
        expected = clf.predict_proba(X)
    (tmp_path / "clf.pkl").write_bytes(pickle.dumps(clf))
    np.save(tmp_path / "X.npy", X)
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    code = (
        "import pickle, warnings, numpy as np\nwith warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n    clf = pickle.load(open('clf.pkl', 'rb'))\n"
        "assert any('on numpy, not on torch' in str(each.message) for each in seen)\n"
        "np.save('P.npy', clf.predict_proba(np.load('X.npy')))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "P.npy"), expected, rtol=1e-9)


@pytest.mark.parametrize(("change", "got"), [("requires_grad_", "requires grad"), ("bfloat16", "BFloat16")])
def test_a_tensor_that_numpy_does_not_take(change, got):
    torch = pytest.importorskip("torch")
    tensor = getattr(torch.asarray(X.copy()), change)()
    with pytest.raises(TypeError, match=f"`X` must be an array that NumPy can take; got one of torch: .*{got}"):
        MLPClassifier(**PLAIN).fit(tensor, Y)
    with sklearn.config_context(array_api_dispatch=True):
        clf = MLPClassifier(**PLAIN).fit(tensor, Y)
        plain = MLPClassifier(**PLAIN).fit(tensor.detach().float() if change == "bfloat16" else tensor.detach(), Y)
        np.testing.assert_allclose(clf.coefs_[0].numpy(), plain.coefs_[0].numpy(), rtol=1e-5)


def test_complex_tensors_are_refused():
    torch = pytest.importorskip("torch")
    with (
        sklearn.config_context(array_api_dispatch=True),
        pytest.raises(TypeError, match="`X` must hold real numbers; got dtype complex128"),
    ):
        MLPClassifier(**PLAIN).fit(torch.asarray(X) + 0j, Y)


@pytest.mark.parametrize("go_on", ["partial_fit", "fit"])
def test_a_training_goes_on_with_arrays_of_its_library(go_on):
    torch = pytest.importorskip("torch")
    with sklearn.config_context(array_api_dispatch=True):
        reg = MLPRegressor(**PLAIN, warm_start=True)
        getattr(reg, go_on)(torch.asarray(X_REAL), Y_REAL)
        with pytest.raises(TypeError, match=r"`X` must be of torch, as before, .* got an array of numpy"):
            getattr(reg, go_on)(X_REAL, Y_REAL)


# -- from scikit-learn's and back --

X_SEVERAL, Y_SEVERAL = make_multilabel_classification(100, random_state=0)
X_TWO, Y_TWO = load_breast_cancer(return_X_y=True)
X_TWO = scale(X_TWO)
CASES = [
    ("MLPClassifier", {}, X, np.array(["x", "y", "z"])[Y]),
    ("MLPClassifier", {"activation": "tanh", "solver": "lbfgs"}, X_TWO, Y_TWO),
    ("MLPClassifier", {"hidden_layer_sizes": (5, 4), "activation": "logistic"}, X_SEVERAL, Y_SEVERAL),
    ("MLPRegressor", {"activation": "identity"}, X_REAL, Y_REAL),
    ("MLPRegressor", {"loss": "poisson"}, X_REAL, np.exp(Y_REAL)),
    ("MLPRegressor", {"solver": "sgd"}, X_REAL, np.stack([Y_REAL, Y_REAL**2], axis=1)),
]


@pytest.mark.parametrize(("name", "settings", "data", "y"), CASES)
def test_from_scikit_learn_and_back_predicts_the_same(name, settings, data, y):
    mlp = getattr(theirs, name)(**PLAIN | settings).fit(data, y)
    ours = dlx.from_sklearn(mlp)
    back = ours.to_sklearn()
    for method in ("predict", "predict_proba", "predict_log_proba"):
        if hasattr(mlp, method):
            for each in (ours, back):
                found, expected = getattr(each, method)(data), getattr(mlp, method)(data)
                if expected.dtype.kind == "f":
                    rtol = 1e-5 if "log" in method else 1e-9  # a logarithm of p near 0 or 1 has no more digits
                    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)
                else:
                    np.testing.assert_array_equal(found, expected)
    assert ours.get_params().items() >= mlp.get_params().items()
    assert ours.loss_curve_ == getattr(mlp, "loss_curve_", [])
    if mlp.solver != "lbfgs":
        ours.partial_fit(data, y)
        back.partial_fit(data, y)
    else:
        ours.set_params(warm_start=True, max_iter=1).fit(data, y)
    assert ours.score(data, y) > 0


@pytest.mark.parametrize(
    "settings", [{"standardize": True}, {"loss": dlx.losses.cross_entropy(0.1)}, {"solver": "rmsprop"}], ids=str
)
@pytest.mark.parametrize("labels", [Y, (Y == 0)], ids=["three", "two"])
def test_to_scikit_learn_with_what_it_has_not(settings, labels):
    clf = MLPClassifier(**PLAIN, **settings).fit(5 * X + 3, labels)
    np.testing.assert_allclose(
        clf.to_sklearn().predict_proba(5 * X + 3), clf.predict_proba(5 * X + 3), rtol=1e-6, atol=1e-9
    )
    if "standardize" in settings:
        reg = MLPRegressor(**PLAIN, **settings).fit(5 * X_REAL + 3, 100 * Y_REAL)
        np.testing.assert_allclose(
            reg.to_sklearn().predict(5 * X_REAL + 3), reg.predict(5 * X_REAL + 3), rtol=1e-6, atol=1e-6
        )


def test_what_cannot_be_scikit_learn_s_is_said():
    with pytest.raises(ValueError, match="activation"):
        MLPClassifier(**PLAIN, activation="gelu").fit(X, Y).to_sklearn()
    with pytest.raises(ValueError, match="loss"):
        MLPRegressor(**PLAIN, loss="huber").fit(X, Y).to_sklearn()
    with pytest.raises(TypeError, match="mlp"):
        dlx.from_sklearn(LogisticRegression())
    with pytest.raises(sklearn.exceptions.NotFittedError):
        dlx.from_sklearn(theirs.MLPClassifier())


# -- callbacks and metadata --


def test_the_scoring_monitor_of_scikit_learn():
    callback = pytest.importorskip("sklearn.callback")
    monitor = callback.ScoringMonitor(scoring="accuracy")
    clf = MLPClassifier(**PLAIN | {"max_iter": 5}).set_callbacks(monitor).fit(X, Y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == 5
    assert rows[-1]["accuracy"] == clf.score(X, Y)


def test_the_progress_bar_of_scikit_learn(capsys):
    """It draws with rich; where that is missing, scikit-learn says so."""
    callback = pytest.importorskip("sklearn.callback")
    if importlib.util.find_spec("rich") is None:
        with pytest.raises(ImportError, match="rich"):
            callback.ProgressBar()
        return
    clf = MLPClassifier(**PLAIN | {"max_iter": 3}).set_callbacks(callback.ProgressBar()).fit(X, Y)
    assert clf.n_iter_ == 3
    assert "MLPClassifier" in capsys.readouterr().out


def test_a_callback_stops_the_training():
    pytest.importorskip("sklearn.callback")

    class Third:
        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            self.done = True

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            return context.task_id == 2

    stop = Third()
    assert MLPClassifier(**PLAIN).set_callbacks(stop).fit(X, Y).n_iter_ == 3
    assert stop.done


def test_sample_weights_and_validation_data_are_routed():
    with sklearn.config_context(enable_metadata_routing=True):
        clf = MLPClassifier(**PLAIN).set_fit_request(sample_weight=True, X_val=True, y_val=True)
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        pipe = make_pipeline(scaler, clf, transform_input=["X_val"])
        pipe.fit(X, Y, sample_weight=np.arange(1.0, 151.0), X_val=X[::3], y_val=Y[::3])
    assert len(pipe[-1].validation_scores_) == 20


@pytest.mark.parametrize("offset", [1e2, 1e3, 1e4, 1e5])
def test_float32_columns_far_from_0_are_given_back_without_loss(offset):
    far = (np.random.default_rng(0).standard_normal((300, 3)) + offset).astype("float32")
    clf = MLPClassifier(standardize=True, max_iter=60, random_state=0).fit(far, (far[:, 0] > offset).astype(int))
    np.testing.assert_allclose(clf.to_sklearn().predict_proba(far), clf.predict_proba(far), rtol=0, atol=1e-6)


@pytest.mark.parametrize("labels", [[3, 2**40], np.array([3, 2**40], np.uint64), np.array([3, 7], np.uint16)], ids=str)
def test_labels_are_the_same_on_every_library(labels, be):
    X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    y = np.asarray(labels)[(X[:, 0] > 0).astype(int)]
    with sklearn.config_context(array_api_dispatch=True):
        est = MLPClassifier((4,), max_iter=300, tol=1.0, random_state=0).fit(be.asarray(X), y)
        found, scores = est.predict(be.asarray(X)), be.to_host(est.decision_function(be.asarray(X)))
    found = found if isinstance(found, np.ndarray) else be.to_host(found)
    assert found.tolist() == np.asarray(labels)[(scores > 0).astype(int)].tolist()
