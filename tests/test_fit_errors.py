"""Bad input to `fit` raises before any work, with a text that names the argument, the rule and what was given."""

import numpy as np
import pytest
import scipy.sparse

from dlx import losses
from rejection import REAL, X, Y, assert_rejected, real, title

P = np.eye(3)[Y]


def put(x, place, value):
    """A copy with one other element."""
    x = np.array(x, dtype=np.result_type(x, np.asarray(value)) if isinstance(value, complex) else None)
    x[place] = value
    return x


# (arguments, exception, start of its text); others are X, Y and (4, 3)
FEATURES = [
    ({"X": X[:, 0]}, ValueError, "`X` must have shape (n, 4): rows are samples; got (6,). One sample is X[None, :]"),
    ({"X": X[None]}, ValueError, "`X` must have shape (n, 4): rows are samples; got (1, 6, 4). Flatten it"),
    ({"X": 3.0}, ValueError, "`X` must have shape (n, 4)"),
    ({"X": X[:, :3]}, ValueError, "`X` must have shape (n, 4) to match the first layer; got (6, 3)."),
    ({"X": X[:0], "y": Y[:0]}, ValueError, "`X` must have at least one row; got shape (0, 4)."),
    ({"X": [[1.0, 2.0], [3.0]]}, ValueError, "`X` must be an array, or rows of one length"),
    ({"X": put(X, (2, 1), np.nan)}, ValueError, "`X` must be finite in float64; got nan at row 2, column 1."),
    ({"X": put(X, (5, 3), -np.inf)}, ValueError, "`X` must be finite in float64; got -inf at row 5, column 3."),
    ({"X": put(X, (1, 0), 1e200), "dtype": "float32"}, ValueError, "`X` must be finite in float32; got inf at row 1, "),
    ({"X": X + 0j}, TypeError, "`X` must hold real numbers; got dtype complex128."),
    ({"X": X.astype(str)}, TypeError, "`X` must hold real numbers; got dtype <U"),
    ({"X": X.astype(object)}, TypeError, "`X` must hold real numbers; got dtype object."),
    ({"X": X.astype("datetime64[s]")}, TypeError, "`X` must hold real numbers; got dtype datetime64[s]."),
    ({"X": None}, TypeError, "`X` must be an array, a data frame, a SciPy matrix or a list of rows; got None."),
    ({"X": scipy.sparse.csr_array(X * 1j)}, TypeError, "`X` must hold real numbers; got dtype complex128."),
    ({"X": np.ma.array(X, mask=X > 1)}, TypeError, "`X` must not be masked"),
]
TARGETS = [
    ({"y": Y[:5]}, ValueError, "`y` must have 6 rows, one for each row of X; got shape (5,)."),
    ({"y": 1}, ValueError, "`y` must have 6 rows, one for each row of X; got shape ()."),
    ({"y": Y[:0]}, ValueError, "`y` must have 6 rows"),
    ({"y": Y[:, None, None]}, ValueError, "`y` must have shape (6,) or (6, 3); got (6, 1, 1)."),
    (
        {"y": put(Y + 1, 0, 7)},
        ValueError,
        "`y` must be labels 0..2, or 3 others, to match the last layer; got 4 distinct ones (1, 2, 3, 7). Change "
        "layer_dims[-1] to 4; for real targets pass loss='squared_error'.",
    ),
    ({"y": Y % 2 - 1}, ValueError, "`y` must be labels 0..2, or 3 others, to match the last layer; got 2 dist"),
    ({"y": Y / 2, "loss": "cross_entropy"}, ValueError, "`y` must hold integer or string labels for this loss; got 0."),
    (
        {"y": Y.astype(float)},
        ValueError,
        "`y` must have 3 columns to match the last layer; got float64 of shape (6,). Change layer_dims[-1] or y; if",
    ),
    ({"y": Y[:, None]}, ValueError, "`loss` must be named where `y` has two dimensions of integers; got 'auto'."),
    ({"y": Y[:, None], "loss": "cross_entropy"}, ValueError, "`y` must hold one label a row, or rows of 3"),
    ({"y": np.array(list("abcabd"))}, ValueError, "`y` must hold 3 distinct labels to match the last layer; got 4"),
    ({"y": np.array(list("aaaaab"))}, ValueError, "`y` must hold 3 distinct labels to match the last layer; got 2"),
    ({"y": Y > 0}, ValueError, "`y` must hold 3 distinct labels to match the last layer; got 2 distinct ones (F"),
    (
        {"y": np.array(list("abcabc")), **real(dims=(4, 1))} | {"y": np.array(list("abcabc"))},
        TypeError,
        "`y` must hold real",
    ),
    ({"y": np.array(["a", None, "b"] * 2)}, ValueError, "`y` must have no missing labels; got None at row 1. Fill or"),
    ({"y": Y.astype("S1"), "loss": "cross_entropy"}, TypeError, "`y` must hold strings, not bytes; got b'0' at row 0."),
    (
        {"y": put(P, (4, 0), 0.5), "loss": "cross_entropy"},
        ValueError,
        "`y` must hold rows of probabilities, >= 0 and with sum 1; got row 4",
    ),
    ({"y": put(put(P, (1, 0), -0.5), (1, 1), 1.5), "loss": "cross_entropy"}, ValueError, "`y` must hold rows of prob"),
    ({"y": P[:, :2], "loss": "cross_entropy"}, ValueError, "`y` must hold one label a row, or rows of 3 probabilities"),
    ({"y": P, "layer_dims": (4, 1), "loss": "cross_entropy"}, ValueError, "`layer_dims` must end in at least 2"),
    ({"y": Y, "layer_dims": (4, 1)}, ValueError, "`y` must be labels 0..1, or 2 others, to match the last layer; got "),
    (real(loss="binary_cross_entropy"), ValueError, "`y` must lie in [0, 1] for binary_cross_entropy; got 1.2."),
    (real(-REAL - 1, loss="poisson"), ValueError, "`y` must be >= 0 for poisson; got -1.0."),
    (real(put(REAL, (3, 0), np.nan)), ValueError, "`y` must be finite; got nan at row 3, column 0."),
    (real(put(REAL, (3, 0), 1e300), dtype="float32"), ValueError, "`y` must be finite in float32; got inf at row 3"),
    (real(REAL + 1j), TypeError, "`y` must hold real numbers for this loss; got dtype complex128."),
    (
        real(np.hstack([REAL, REAL])),
        ValueError,
        "`y` must have 1 columns to match the last layer; got float64 of shape (6, 2).",
    ),
    (real(np.ma.array(REAL, mask=REAL > 1)), TypeError, "`y` must not be masked"),
    (
        real([["1"], ["2"], ["3.5"], ["4"], ["5"], ["6"]]),
        TypeError,
        "`y` must hold real numbers for this loss; got dtype <U3. Convert it: numpy.asarray(y, float).",
    ),
    (real(scipy.sparse.csr_array(REAL)), TypeError, "`y` must be dense; got csr_array."),
    (real([[1], [1, 2], [3], [4], [5], [6]]), ValueError, "`y` must be an array, or rows of one length"),
    (
        real(dims=(4, 2), loss=losses.quantile([0.1, 0.5, 0.9])),
        ValueError,
        "`layer_dims` must end in 3, one output for",
    ),
    (real(dims=(4, 2), loss="quantile"), ValueError, "`y` must have 2 columns to match the last layer"),
]
WEIGHTS = [
    ({"sample_weight": np.ones(5)}, ValueError, "`sample_weight` must be 6 numbers, one for each row of X; got shape"),
    ({"sample_weight": np.ones((6, 1))}, ValueError, "`sample_weight` must be 6 numbers"),
    (
        {"sample_weight": put(np.ones(6), 1, -1)},
        ValueError,
        "`sample_weight` must be finite, >= 0 and not all 0; got -1",
    ),
    ({"sample_weight": np.zeros(6)}, ValueError, "`sample_weight` must be finite, >= 0 and not all 0; got 0 to 0."),
    ({"sample_weight": put(np.ones(6), 1, np.nan)}, ValueError, "`sample_weight` must be finite"),
    ({"sample_weight": ["a"] * 6}, TypeError, "`sample_weight` must hold real numbers; got dtype <U1."),
    ({"sample_weight": 2.0}, ValueError, "`sample_weight` must be 6 numbers"),
    (
        {"class_weight": "even"},
        ValueError,
        "`class_weight` must be 'balanced' or a dict of label to weight; got 'even'",
    ),
    ({"class_weight": [1, 2, 3]}, TypeError, "`class_weight` must be 'balanced' or a dict"),
    ({"class_weight": {5: 1.0}}, ValueError, "`class_weight` must name labels of y; got 5. They are [0, 1, 2]."),
    ({"class_weight": {"a": 1.0}}, ValueError, "`class_weight` must name labels of y; got 'a'."),
    ({"class_weight": {1: -1.0}}, ValueError, "`class_weight[1]` must be a number >= 0; got -1.0."),
    ({"class_weight": {1: "2"}}, TypeError, "`class_weight[1]` must be a number >= 0; got '2'."),
    ({"class_weight": {0: 0, 1: 0, 2: 0}}, ValueError, "`class_weight` must leave some row a weight above 0"),
    (real(class_weight="balanced"), ValueError, "`class_weight` must come with one label a row"),
    ({"y": P, "loss": "cross_entropy", "class_weight": {0: 2}}, ValueError, "`class_weight` must come with one label"),
]
VALIDATION = [
    *[
        ({"validation": v}, ValueError, "`validation` must be a number > 0 and < 1; got")
        for v in (0, 1, -0.5, 2.0, np.nan)
    ],
    *[({"validation": v}, TypeError, "`validation` must be a number > 0 and < 1; got") for v in (True, "0.1", X)],
    *[
        ({"validation": v}, TypeError, "`validation` must be a share of the rows or two arrays")
        for v in ((X,), (X, Y, Y))
    ],
    *[
        ({"validation": v}, TypeError, "`validation` must be a share of the rows or two")
        for v in ((None, Y), (X, None))
    ],
    ({"validation": 0.05}, ValueError, "`validation` must leave rows on both sides of 6; got 0.05."),
    ({"X": X[:1], "y": Y[:1], "validation": 0.9}, ValueError, "`validation` must leave rows on both sides of 1"),
    ({"validation": (X[:, :3], Y)}, ValueError, "`X_val` must have shape (n, 4) to match the first layer"),
    ({"validation": (X[:0], Y[:0])}, ValueError, "`X_val` must have at least one row"),
    ({"validation": (put(X, 0, np.nan), Y)}, ValueError, "`X_val` must be finite in float64; got nan at row 0"),
    ({"validation": (X.astype(str), Y)}, TypeError, "`X_val` must hold real numbers"),
    ({"validation": (X, Y[:5])}, ValueError, "`y_val` must have 6 rows"),
    ({"validation": (X, Y + 3)}, ValueError, "`y_val` must hold labels of the training data; got 3."),
    ({"validation": (X, Y.astype(str))}, TypeError, "`y_val` must hold numbers, as the training data do; got dtype <U"),
    ({"y": Y.astype(str), "validation": (X, Y)}, TypeError, "`y_val` must hold strings, as the training data do"),
    (
        {"y": Y.astype(str), "validation": (X, ["7"] * 6)},
        ValueError,
        "`y_val` must hold labels of the training data; got '7'",
    ),
    (real(validation=(X, np.full(6, np.nan))), ValueError, "`y_val` must be finite; got nan at row 0"),
    (real(dtype="float32", validation=(X, REAL + 1e99)), ValueError, "`y_val` must be finite in float32"),
    (
        {"validation": 0.5, "sample_weight": [1, 0, 0, 0, 0, 0]},
        ValueError,
        "`validation` must leave weight on the rows to",
    ),
]
CASES = [*FEATURES, *TARGETS, *WEIGHTS, *VALIDATION]


@pytest.mark.parametrize("case", CASES, ids=title)
def test_bad_data(case):
    assert_rejected(*case)


def test_good_input_reaches_the_training():
    with pytest.raises(AssertionError, match="the training began"):
        assert_rejected({}, ValueError, "`")
