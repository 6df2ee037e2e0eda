"""How every rejection of `fit` is tested: before any work, by the right exception, in the one form of text."""

import re

import numpy as np
import pytest

import dlx
from dlx.training import loop

X = np.arange(24.0).reshape(6, 4) / 10.0
Y = np.array([0, 1, 2, 0, 1, 2])
REAL = X[:, :1]


def real(y=REAL, dims=(4, 1), **settings):
    """Arguments for a real target."""
    return {"y": y, "layer_dims": dims, "loss": "squared_error", **settings}


def _reached(*arguments, **named):
    raise AssertionError("the training began")


def title(case):
    """A test's name from its expected text."""
    return re.sub(r"\W+", "-", case[2])[:60]


def assert_rejected(arguments, kind, text):
    """`fit` of X, Y and (4, 3), but for these arguments, raises `kind`, which says `text`, and trains nothing."""
    X_, y, dims, settings = (lambda X=X, y=Y, layer_dims=(4, 3), **rest: (X, y, layer_dims, rest))(**arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", _reached)
        with pytest.raises((ValueError, TypeError), match=re.escape(text)) as caught:
            dlx.fit(X_, y, dims, **settings)
    assert type(caught.value) is kind
    assert re.fullmatch(r"`[^`]+` must .+; got .+\. \S.*[.)\]]", str(caught.value), re.S)
