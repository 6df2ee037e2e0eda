"""The estimators' face: what scikit-learn asks of every estimator, and what its own two look like."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from dlx import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks([MLPClassifier(backend="numpy"), MLPRegressor(backend="numpy")])
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)
