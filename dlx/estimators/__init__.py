"""`MLPClassifier` and `MLPRegressor`, which have the interface of scikit-learn.

Files: mlp (the classes), base, hyperparameters, inputs, watch, stopping, callbacks, pickles, conversion, onnx_hooks.
They may import all rooms below `dlx.plot`, and scikit-learn.
"""

from dlx.estimators.mlp import MLPClassifier, MLPRegressor, from_sklearn

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]
