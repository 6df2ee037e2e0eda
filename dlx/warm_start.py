"""A training that goes on from a network: it takes the weights, and must keep the activations and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx import activations, checks
from dlx.data import features, labels
from dlx.host import HostArray
from dlx.model import Network


def begun_from(init: Any, activation: Sequence[activations.Activation], X: Any = None) -> Any:
    """The arrays of a `Network` on the host, checked to be one to go on from; any other `init` as it is."""
    if not isinstance(init, Network):
        if hasattr(init, "coefs_") and hasattr(init, "intercepts_"):
            remedy = "Pass list(zip(est.coefs_, est.intercepts_)), or call fit of a warm_start=True estimator again."
            got = f"a fitted {type(init).__name__}"
            checks.reject("init", "be a network, a function or arrays", got, remedy, TypeError)
        return init
    of_network, own = ([formula[:2] for formula in hidden] for hidden in (init.activation, activation))
    if of_network != own and len(of_network) == len(own):
        names, network_names = ([formula.name for formula in hidden] for hidden in (activation, init.activation))
        remedy = "Pass activation=net.activation, or init=net.params to give its weights other activations."
        checks.reject("activation", f"be that of the network to go on from, {network_names}", names, remedy)
    features.require_names(X, init.feature_names)
    return init._host_params()


def known_labels(init: Any, y: HostArray) -> HostArray | None:
    """The labels of the network to go on from if `y` holds no others, else None. `y` may lack some."""
    known = init.classes if isinstance(init, Network) else None
    return None if known is None or not labels.are_labels(y) or (labels.places(y, known) < 0).any() else known


def require_same_classes(init: Any, classes: HostArray | None) -> None:
    """Raise if the training goes on from a network whose outputs stand for other labels."""
    known = init.classes if isinstance(init, Network) else None
    if known is not None and (classes is None or not np.array_equal(known, classes)):
        rule, got = "hold the labels of the network to go on from", f"{None if classes is None else classes.tolist()}"
        remedy = f"They were {known.tolist()}. Pass init=net.params to give its outputs another meaning."
        checks.reject("y", rule, got, remedy)
