"""The one door for rows: the X, y and weights that a user passes become checked samples, then rows on the backend.

`for_training` and `for_network` check them, each in one call, and `Samples` brings them to the backend. No other module
combines the checks of features, targets and weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dlx.backend import Array, Backend
from dlx.data import features, targets
from dlx.data.features import Rows
from dlx.data.placement import common_backend
from dlx.host import HostArray
from dlx.losses import Loss

Split = tuple[HostArray | None, HostArray | None]  # row numbers: to train on (None: all), and held out (None: none)


class Samples(NamedTuple):
    """Checked samples: `X` (n, d0) where it lies, and targets and weights on the host.

    `weights` is the product of all weights: (n, 1), or (n, K) with one for each target, or None. Errors call the
    targets `name`.
    """

    X: Array
    target: targets.Targets
    weights: HostArray | None
    name: str = "y"

    def split(self, share: float, rng: np.random.Generator) -> Split:
        """Row numbers to train on and to validate on, drawn at random. Labels keep their proportions."""
        return targets.split(self.target, share, rng)

    def of_mean_one(self, split: Split = (None, None)) -> Samples:
        """These samples with weights of mean 1 over the rows to train on, and over the rows held out."""
        return self._replace(weights=targets.to_mean_one(self.weights, *split, self.target.present))

    def on_backend(self, backend: Backend, dtype: str) -> Rows:
        """`X` as it is, with targets and weights on the backend."""
        return targets.place(self.target, self.weights, self.X, backend, dtype, self.name)

    def where_they_lie(self, backend: Backend) -> Rows:
        """`X`, targets and weights where they lie, as rows from which `features.batch` brings some to the backend."""
        return Rows(self.X, self.target.Y, self.weights, targets.class_numbers(self.target, backend))


def of_rows(
    X: Array,
    y: HostArray,
    loss: Loss,
    outputs: int,
    backend: Backend,
    *,
    known: HostArray | None = None,
    labels: HostArray | None = None,
    missing: str | None = "raise",
    sample_weight: Any = None,
    class_weight: Any = None,
    name: str = "y",
) -> Samples:
    """Samples of checked rows `X` with targets `y` on the host, which are checked here.

    `known` are the labels of earlier data, which `y` must share. `class_weight` refers to labels by the names in
    `labels`, or by those in `y` if that is None. `missing` is as in `fit`; it is None for callers without such an
    argument, who need all targets.
    """
    target = targets.check(y, loss, outputs, X.shape[0], known, name, missing)
    named = target if labels is None else target._replace(classes=labels)
    return Samples(X, target, targets.weights(sample_weight, class_weight, named, backend), name)


def for_training(
    X: Any,
    y: Any,
    loss: Loss,
    dims: tuple[int, ...],
    backend: Backend,
    dtype: str,
    *,
    stays: bool = False,
    dense: bool = False,
    names: list[str] | None = None,
    suffix: str = "",
    **how: Any,
) -> Samples:
    """Samples to train or to validate on. `X` is brought to the backend, unless it `stays` where it lies.

    `dense` makes sparse rows dense if the backend does not multiply them, for optimizers that take all rows at once.
    `names` are the names of the columns. Errors call the arrays X and y with the `suffix`. `how` is as in `of_rows`.
    """
    checked = features.unplaced if stays else features.features
    X = checked(X, backend, dtype, dims[0], f"X{suffix}", names)
    X = features.dense(X, backend) if dense else X
    y = targets.on_host(y, backend, f"y{suffix}")
    return of_rows(X, y, loss, dims[-1], backend, name=f"y{suffix}", **how)


def for_network(net: Any, X: Any, y: Any, sample_weight: Any = None, suffix: str = "") -> Samples:
    """Samples for a trained network, checked against its columns, its labels and its rule for missing targets."""
    X = inputs_of(net, X, f"X{suffix}")
    y = targets.on_host(y, net.backend, f"y{suffix}")
    how = {"known": targets.known_classes(net), "missing": net.missing, "sample_weight": sample_weight}
    samples = of_rows(X, y, net.loss, net.layer_dims[-1], net.backend, name=f"y{suffix}", **how)
    targets.require_fit(samples.target, net.dtype, samples.name)
    return samples


def inputs_of(net: Any, X: Any, name: str = "X") -> Array:
    """Rows for a trained network, checked, where they lie."""
    features.require_names(X, net.feature_names, name)
    common_backend(net.backend, {name: X}, of_network=True)
    return features.unplaced(X, net.backend, net.dtype, net.layer_dims[0], name)
