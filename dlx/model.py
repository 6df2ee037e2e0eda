"""A trained network: what `fit` returns and `load` reads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx import activations, checks, data, losses, metrics, network, saving
from dlx.backend import (
    Array,
    Backend,
    BackendNotInstalled,
    BackendUnavailable,
    common_backend,
    get_backend,
    library_of,
)
from dlx.network import Layer, Params
from dlx.training import History

ELEMENTS_AT_ONCE = 1 << 20  # of the widest layer, while predicting


class Network:
    """A fully connected network on one backend.

    Parameters
    ----------
    params : sequence of (W, b)
        W (d_in, d_out) and b (1, d_out) or (d_out,), of any library of the backend's; used as they are.
    activation : str, Activation, pair (f, df), or a sequence of one for each hidden layer
    loss : str, Loss or tuple of functions
        Its link turns scores into predictions.
    classes : array of labels, optional
        What the class numbers 0..K-1 stand for.
    backend : selector, optional
        By default that of `params`.
    dtype : str, optional
        "float32" or "float64"; by default that of `params`.

    Attributes
    ----------
    params : tuple of Layer(W, b)
    history : dict of lists, an entry for each epoch
    layer_dims : tuple of int
    activation : tuple of Activation, one for each hidden layer
    loss : Loss
    classes : NumPy array or None
    backend : Backend
    dtype : str

    Examples
    --------
    >>> import dlx, numpy as np
    >>> net = dlx.Network([(np.eye(2), np.zeros(2))], loss="squared_error")
    >>> net.predict([[1.0, 2.0]])
    array([[1., 2.]])
    """

    def __init__(
        self,
        params: Sequence[tuple[Any, Any]],
        *,
        activation: Any = "relu",
        loss: Any = "squared_error",
        classes: Any = None,
        history: History | None = None,
        backend: Any = None,
        dtype: str | None = None,
    ) -> None:
        named = {
            f"params[{l}].{name}": each for l, pair in enumerate(params) for name, each in zip("Wb", pair, strict=True)
        }
        self.backend: Backend = common_backend(backend, named)
        self.dtype = data.working_dtype(dtype, params[0][0])
        with self.backend.scope():
            self.params: Params = own_params(params, self.backend, self.dtype)
        self.layer_dims = (self.params[0].W.shape[0], *(layer.W.shape[1] for layer in self.params))
        self.activation = hidden_activations(activation, len(self.params) - 1)
        self.loss = losses.get(loss)
        self.classes = None if classes is None else np.asarray(classes)
        self.history: History = {} if history is None else history

    @property
    def formulas(self) -> network.Formulas:
        """The network's formulas on its backend."""
        return network.bind(self.backend, self.dtype, self.activation, self.loss)

    def predict(self, X: Any) -> Array:
        """The label of each row (n,), or for real targets the prediction, (n,) for one output and (n, K) for several.

        Several yes-or-no outputs give integers 0 and 1 of shape (n, K).

        Parameters
        ----------
        X : array (n, d0)
            Of the host (then the result is a NumPy array) or of the network's own library (then it stays there).

        Raises
        ------
        TypeError, ValueError
            `X` is of another library, of another width, empty, or not finite.
        """
        with self.backend.scope():
            Z = self._scores(X)
            xp = self.backend.xp
            if self.loss.targets == "classes":
                return self._labels(xp.argmax(Z, axis=-1), X)
            if self.loss.targets == "binary":
                yes = xp.astype(Z >= 0, xp.int32)
                return self._labels(yes[:, 0], X) if self._one_label else self._out(yes, X)
            return self._out(_one_column(self.formulas.loss.predict(Z)), X)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (n, K); for one yes-or-no output (n, 2), no before yes.

        Several yes-or-no outputs give the probability of yes for each, (n, K). Raises as `predict`, and TypeError if
        the network was trained on real targets.
        """
        if self.loss.targets not in ("classes", "binary"):
            checks.reject(
                "predict_proba",
                "be asked of a classifier",
                f"loss {self.loss.name}",
                "Use predict.",
                TypeError,
            )
        with self.backend.scope():
            P = self.formulas.loss.predict(self._scores(X))
            return self._out(self.backend.xp.concat([1.0 - P, P], axis=1) if self._one_label else P, X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy (the share of rows whose labels are all right), or for real targets R² averaged over outputs.

        Raises as `predict`, and ValueError if `y` does not fit.
        """
        with self.backend.scope():
            Z = self._scores(X)
            target = data.targets(
                data.host_targets(y, self.backend), self.loss, self.layer_dims[-1], Z.shape[0], self.classes
            )
            w = data.weights(sample_weight, None, target, self.backend)
            Y = self.backend.asarray(target.Y, "int32" if target.one_hot else self.dtype)
            w = None if w is None else self.backend.asarray(w[:, 0], self.dtype)
            return figure_of_merit(self.formulas, self.loss, Z, Y, w)

    def summary(self) -> str:
        """The layers as a text of at most 80 columns: shapes, activations, parameters.

        Examples
        --------
        >>> import dlx, numpy as np
        >>> print(dlx.Network([(np.zeros((4, 3)), np.zeros(3)), (np.zeros((3, 1)), np.zeros(1))]).summary())
        layer  shape   activation  parameters
            1  4 -> 3  relu                15
            2  3 -> 1  (scores)             4
        19 parameters, 152 bytes (float64 on numpy); loss squared_error
        """
        names = [*(each.name for each in self.activation), "(scores)"]
        shapes = [f"{a} -> {b}" for a, b in zip(self.layer_dims[:-1], self.layer_dims[1:], strict=True)]
        counts = [(a + 1) * b for a, b in zip(self.layer_dims[:-1], self.layer_dims[1:], strict=True)]
        wide, long = max(5, *(len(each) for each in shapes)), max(10, *(len(each) for each in names))
        rows = [f"{'layer'}  {'shape':<{wide}}  {'activation':<{long}}  parameters"]
        for l, (shape, name, count) in enumerate(zip(shapes, names, counts, strict=True), start=1):
            rows.append(f"{l:>5}  {shape:<{wide}}  {name:<{long}}  {count:>10,}")
        size = 8 if self.dtype == "float64" else 4
        rows.append(
            f"{sum(counts):,} parameters, {sum(counts) * size:,} bytes ({self.dtype} on {self.backend.selector}); "
            f"loss {self.loss.name}"
        )
        return "\n".join(rows)

    def __repr__(self) -> str:
        dims = " -> ".join(str(d) for d in self.layer_dims)
        return f"<dlx.Network {dims}, {self.loss.name}, {self.dtype} on {self.backend.selector}>"

    def to(self, backend: Any) -> Network:
        """A copy of this network on another backend, by way of the host."""
        return self._rebuilt(get_backend(backend), self._host_params())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to one safetensors file, which `load` reads on any backend.

        Raises ValueError for a user's own activation or loss, whose code no file can hold, and OSError where the
        disk refuses.
        """
        if "custom" in (self.loss.name, *(each.name for each in self.activation)):
            checks.reject(
                "save",
                "name its activations and loss",
                "functions of your own",
                "Save net.params with numpy, and rebuild with dlx.Network(params, activation=..., loss=...).",
            )
        description = {
            "activation": [{"name": each.name, "settings": dict(each.settings)} for each in self.activation],
            "loss": {"name": self.loss.name, "settings": dict(self.loss.settings)},
            "classes": None if self.classes is None else self.classes.tolist(),
            "history": self.history,
            "dtype": self.dtype,
        }
        arrays = {
            f"{name}{l}": each
            for l, pair in enumerate(self._host_params(), start=1)
            for name, each in zip("Wb", pair, strict=True)
        }
        saving.write(path, description, arrays)

    def __getstate__(self) -> dict[str, Any]:
        """Host arrays and the backend's name, so that a pickle loads where the library is absent."""
        return {**self.__dict__, "params": self._host_params(), "backend": self.backend.selector}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """On the backend of its name, or on NumPy with a warning where that one cannot compute."""
        self.__dict__.update(state)
        try:
            self.backend = get_backend(state["backend"])
        except (BackendNotInstalled, BackendUnavailable, ValueError) as reason:
            warnings.warn(f"the network was unpickled on numpy, not on {state['backend']}: {reason}", stacklevel=2)
            self.backend = get_backend("numpy")
        with self.backend.scope():
            self.params = own_params(state["params"], self.backend, self.dtype)

    @property
    def _one_label(self) -> bool:
        return self.loss.targets == "binary" and self.layer_dims[-1] == 1

    def _rebuilt(self, backend: Backend, params: Sequence[tuple[Any, Any]]) -> Network:
        return Network(
            params,
            activation=list(self.activation),
            loss=self.loss,
            classes=self.classes,
            history={name: list(each) for name, each in self.history.items()},
            backend=backend,
            dtype=self.dtype,
        )

    def _host_params(self) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        with self.backend.scope():
            return [(np.array(self.backend.to_host(W)), np.array(self.backend.to_host(b))) for W, b in self.params]

    def _scores(self, X: Any) -> Array:
        common_backend(self.backend, {"X": X})
        checked = data.features(X, self.backend, self.dtype, self.layer_dims[0])
        return scores(self.formulas, self.params, checked, self.backend.dtype(self.dtype))

    def _labels(self, places: Array, X: Any) -> Array:
        classes = np.arange(2) if self.classes is None and self._one_label else self.classes
        if classes is None:
            return self._out(places, X)
        if classes.dtype.kind in "biu" and library_of(X) == self.backend.name:
            return self.backend.xp.take(self.backend.asarray(classes), places, axis=0)
        return classes[self.backend.to_host(places)]

    def _out(self, array: Array, X: Any) -> Array:
        return array if library_of(X) == self.backend.name else self.backend.to_host(array)


def scores(net: network.Formulas, params: Params, X: Array, dtype: Any) -> Array:
    """The scores of all rows, computed over blocks of rows, so that no layer's output is held for all of them."""
    xp = net.xp
    n, rows = X.shape[0], max(1, ELEMENTS_AT_ONCE // max(layer.W.shape[-2] for layer in params))
    blocks = [
        network.scores(net, params, xp.astype(X[first : min(first + rows, n), :], dtype, copy=False))
        for first in range(0, n, rows)
    ]
    return blocks[0] if len(blocks) == 1 else xp.concat(blocks)


def figure_of_merit(net: network.Formulas, loss: losses.Loss, Z: Array, Y: Array, w: Array | None) -> float:
    """Accuracy or R², as `Network.score` reports it; `Y` as in `data.Targets`, `w` (n,)."""
    xp = net.xp
    if loss.targets == "classes":
        truth = Y[:, 0] if Y.shape[1] == 1 else xp.argmax(Y, axis=-1)
        return metrics.accuracy(xp, xp.argmax(Z, axis=-1) == truth, w)
    if loss.targets == "binary":
        return metrics.accuracy(xp, xp.all((Z >= 0) == (Y >= 0.5), axis=-1), w)
    return metrics.r2(xp, Y, net.loss.predict(Z), w)


def hidden_activations(activation: Any, count: int) -> tuple[activations.Activation, ...]:
    """One activation for each hidden layer, from one for all of them or a sequence."""
    single = isinstance(activation, str | activations.Activation) or (
        isinstance(activation, tuple) and len(activation) == 2 and callable(activation[0])
    )
    if single:
        return (activations.get(activation),) * count
    if not isinstance(activation, Sequence):
        activations.get(activation)
    if len(activation) != count:
        checks.reject(
            "activation",
            f"be one for all hidden layers or a sequence of {count}",
            len(activation),
            "Name one a layer.",
        )
    return tuple(activations.get(each, f"activation[{l}]") for l, each in enumerate(activation))


def own_params(pairs: Sequence[tuple[Any, Any]], backend: Backend, dtype: str) -> Params:
    """The pairs (W, b) as layers in memory of their own."""
    return tuple(
        Layer(
            backend.copy(backend.asarray(W, dtype)),
            backend.copy(backend.xp.reshape(backend.asarray(b, dtype), (1, -1))),
        )
        for W, b in pairs
    )


def load(path: str | os.PathLike[str], backend: Any = "numpy") -> Network:
    """The network that `Network.save` wrote, on any backend.

    Parameters
    ----------
    path : path of the file
    backend : selector, default "numpy"

    Raises
    ------
    FileError
        The file is not a network of dlx, or not a whole one.
    OSError
        It cannot be read.

    Examples
    --------
    >>> import dlx, numpy as np, tempfile, os
    >>> net = dlx.Network([(np.eye(2), np.zeros(2))], loss="squared_error")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.save(os.path.join(folder, "net.safetensors"))
    ...     dlx.load(os.path.join(folder, "net.safetensors"))
    <dlx.Network 2 -> 2, squared_error, float64 on numpy>
    """
    description, arrays = saving.read(path)
    try:
        pairs = [(arrays[f"W{l}"], arrays[f"b{l}"]) for l in range(1, len(arrays) // 2 + 1)]
        return Network(
            pairs,
            activation=[
                activations.ACTIVATIONS[each["name"]](**each["settings"]) for each in description["activation"]
            ],
            loss=losses.LOSSES[description["loss"]["name"]](**description["loss"]["settings"]),
            classes=description["classes"],
            history=description["history"],
            backend=get_backend(backend),
            dtype=description["dtype"],
        )
    except (KeyError, TypeError, IndexError) as reason:
        raise saving.FileError(
            f"`path` must hold a whole network; got {path}, where this is missing or wrong: {reason}. Save it again."
        ) from reason


def _one_column(P: Array) -> Array:
    return P[:, 0] if P.shape[1] == 1 else P
