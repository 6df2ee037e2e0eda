"""A trained network: what `fit` returns and `load` reads."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from dlx import activations, checks, losses, network, scoring
from dlx.backend import (
    Array,
    Backend,
    BackendNotInstalled,
    BackendUnavailable,
    get_backend,
    library_of,
)
from dlx.data import features, gaps, labels, parameters, samples, targets
from dlx.data.placement import common_backend
from dlx.files import container, contents, schema, streams
from dlx.files.container import FileError
from dlx.files.streams import Source, Target
from dlx.interchange import onnx_model, torch_modules
from dlx.network import Layer, Params
from dlx.report import evidence, rules, summary
from dlx.training.loop import History

AT_A_STROKE = 128  # rows; more are computed block by block


class Network:
    """A fully connected network on one backend.

    Parameters
    ----------
    params : sequence of (W, b)
        W (d_in, d_out) and b (1, d_out) or (d_out,), of the backend's library or of the host; copied.
    activation : str, Activation, pair (f, df), or a sequence of one for each hidden layer
    loss : str, Loss or tuple of functions
        Its link turns scores into predictions.
    classes : array of labels, optional
        What the class numbers 0..K-1 stand for.
    feature_names : sequence of str, optional
        What the columns of X are called; a data frame whose columns are called otherwise is refused.
    missing : str, default "raise"
        What nan in the targets given to `score` and `report` is: as in `fit`, which leaves its own here.
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
    feature_names : list of str or None
    missing : str
    backend : Backend
    dtype : str
    facts : what only the fit knows, for `report`; None without one, and from a file

    Examples
    --------
    >>> import dlx, numpy as np
    >>> net = dlx.Network([(np.eye(2), np.zeros(2))], loss="squared_error")
    >>> net.predict([[1.0, 2.0]])
    array([[1., 2.]])
    """

    facts: evidence.Facts | None = None
    missing: str = "raise"

    def __init__(
        self,
        params: Sequence[tuple[Any, Any]],
        *,
        activation: Any = "relu",
        loss: Any = "squared_error",
        classes: Any = None,
        history: History | None = None,
        feature_names: Sequence[str] | None = None,
        missing: str = "raise",
        backend: Any = None,
        dtype: str | None = None,
    ) -> None:
        pairs = parameters.as_pairs(params, "params")
        self.backend: Backend = common_backend(backend, parameters.named(pairs, "params"))
        self.dtype = features.working_dtype(dtype, pairs[0][0])
        self.layer_dims = parameters.layer_dims(pairs)
        self.activation = parameters.hidden_activations(activation, len(pairs) - 1)
        self.loss = losses.get(loss)
        self.classes = targets.own_classes(classes, self.loss, self.layer_dims[-1])
        self.feature_names = features.own_names(feature_names, self.layer_dims[0])
        self.missing = gaps.missing_rule(missing, self.loss, self.layer_dims[-1])
        self.history: History = {} if history is None else history
        self._bound: tuple[tuple[Any, ...], network.Formulas] | None = None
        with self.backend.scope():
            parameters.require_real(pairs, self.backend, self.dtype, "params")
            self.params: Params = parameters.own_params(pairs, self.backend, self.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        """As everywhere; plain pairs are layers, a list of labels is an array, and a known name is what it names."""
        if name == "params" and isinstance(value, list | tuple) and all(_is_pair(each) for each in value):
            value = tuple(each if isinstance(each, Layer) else Layer(*each) for each in value)
        elif name == "classes" and isinstance(value, list | tuple) and {*map(type, value)} <= {str, int, bool, np.str_}:
            value = np.array(value)
        elif name == "activation" and isinstance(value, str) and value in activations.ACTIVATIONS:
            value = parameters.hidden_activations(value, len(self.layer_dims) - 2)
        elif name == "loss" and isinstance(value, str) and value in losses.LOSSES:
            value = losses.get(value)
        super().__setattr__(name, value)

    @property
    def formulas(self) -> network.Formulas:
        """The network's formulas on its backend, bound when they are first needed."""
        parts = self.backend, self.dtype, self.activation, self.loss
        if self._bound is None or any(a is not b for a, b in zip(self._bound[0], parts, strict=True)):
            self._bound = parts, network.bind(*parts)
        return self._bound[1]

    def predict(self, X: Any) -> Array:
        """The label of each row (n,), or for real targets the prediction, (n,) for one output and (n, K) for several.

        Several yes-or-no outputs give integers 0 and 1 of shape (n, K).

        Parameters
        ----------
        X : array (n, d0)
            Of the host (then the result is a NumPy array) or of the network's own library (then it stays there, but for
            labels that the library cannot hold: strings, and on JAX integers beyond 32 bits).

        Raises
        ------
        TypeError, ValueError
            `X` is of another library, of another width, empty, or not finite.
        """
        with self.backend.scope():
            answers = self._of_rows(X, scoring.answers(self.loss), "answers")
            if self.loss.link.answers == "class":
                return self._labels(answers, X)
            if self.loss.link.answers == "yes or no":
                return self._labels(answers[:, 0], X) if self._one_label else answers
            return _one_column(answers)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (n, K); for one yes-or-no output (n, 2), no before yes.

        Several yes-or-no outputs give the probability of yes for each, (n, K). Raises as `predict`, and TypeError if
        the network was trained on real targets.
        """
        if self.loss.link.answers == "number":
            got = f"loss {self.loss.name}"
            checks.reject("predict_proba", "be asked of a classifier", got, "Use predict.", TypeError)
        with self.backend.scope():
            both = self._one_label
            return self._of_rows(X, scoring.probabilities(self.loss, both), ("probabilities", both, False))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy (the share of rows whose labels are all right), or for real targets R² averaged over outputs.

        Of quantiles it is D², the same of the pinball loss: 1 is perfect, and 0 is the constant quantiles of `y`. It is
        averaged over outputs, but of a list of quantiles it is 1 minus the ratio of the sums over all of them.

        Where `missing` is "mask", which `fit` and files keep, nan in `y` is left out: R² and D² are those of the
        targets that are there, and accuracy asks for the labels that are there, of rows that have any.

        Parameters
        ----------
        X : array (n, d0)
        y : array (n,) or (n, K)
        sample_weight : array (n,) or (n, K), optional
            Weights of rows or of targets. A row with several labels weighs the mean of those above 0.

        Raises as `predict`, and ValueError if `y` does not fit.
        """
        with self.backend.scope():
            given = samples.for_network(self, X, y, sample_weight)
            asked = scoring.Asked(self.backend, self.formulas, self.params)
            answer = asked.rowwise(scoring.answers(self.loss), "answers")
            answered = ((first, last, answer(rows, True)) for first, last, rows in asked.blocks(given.X))
            return scoring.figure_of_merit(self.backend, self.loss, given.target.Y, given.weights, answered)

    def activations(self, X: Any) -> tuple[Array, ...]:
        """What each layer gives for X: A_1, ..., A_{L-1} after activation, and last the scores Z_L.

        A_l = f_l(A_{l-1} W_l + b_l),  Z_L = A_{L-1} W_L + b_L,  of shape (n, d_l); without dropout.

        All of them are held at once: n (d_1 + ... + d_L) numbers. Pass a few hundred rows to look
        at. `predict_proba` and `predict` say what the scores stand for.

        Parameters
        ----------
        X : array (n, d0)
            Of the host (then the results are NumPy arrays) or of the network's own library (then they stay there).

        Raises
        ------
        TypeError, ValueError
            As `predict`.

        Examples
        --------
        >>> import dlx, numpy as np
        >>> net = dlx.Network([(np.eye(2), np.zeros(2)), (np.ones((2, 1)), np.zeros(1))])
        >>> hidden, scores = net.activations([[-1.0, 2.0]])
        >>> hidden, scores
        (array([[0., 2.]]), array([[2.]]))
        """
        with self.backend.scope():
            return tuple(evidence.outputs(self, samples.inputs_of(self, X), library_of(X) == self.backend.name))

    def report(self, X: Any, y: Any, validation: Any = None) -> rules.Report:
        """What commonly goes wrong, found in this network, its history and its data, each with its evidence and remedy.

        "unscaled inputs", "learning rate too high", "dead ReLUs" (for other activations "saturated units"), "vanishing
        gradients", "exploding gradients", "overfitting", "learning rate too low" or "too few epochs", "classes missing
        from validation": causes before their consequences. Rules are silent in doubt: nothing found is no proof. They
        look at 4,096 rows drawn out of more, and at fewer of very wide data. Without the history, or what only
        the fit knows - neither a saved file nor parameters of your own have the latter -, they say what is left.

        Parameters
        ----------
        X, y : arrays (n, d0) and (n,) or (n, K)
            The training data.
        validation : (X_val, y_val), optional
            The validation data, if they were yours; a share that `fit` drew is known from the fit.

        Returns
        -------
        Report
            A tuple of `Finding(name, evidence, remedy)`, false where nothing was found, that prints as a text.

        Raises
        ------
        TypeError, ValueError
            As `score`.

        Examples
        --------
        >>> import dlx, numpy as np
        >>> X = np.linspace(0, 255, 200)[:, None]
        >>> report = dlx.fit(X, X[:, 0] / 255, (1, 1), optimizer="lbfgs", rng=0).report(X, X[:, 0] / 255)
        >>> [finding.name for finding in report]
        ['unscaled inputs']
        >>> print(report)
        unscaled inputs: column 0 lies in [0, 255], and its root mean square is 147, not near 1
            (all 200 rows).
            -> Scale columns to mean 0 and variance 1 by the training data's figures, or divide
               pixels by the largest.
        """
        with self.backend.scope():
            return rules.report(self, X, y, validation)

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
        return summary.text(self)

    def _repr_html_(self) -> str:
        """The same as a table, in a notebook."""
        return summary.table(self)

    def __repr__(self) -> str:
        dims = " -> ".join(str(d) for d in self.layer_dims)
        return f"<dlx.Network {dims}, {self.loss.name}, {self.dtype} on {self.backend.selector}>"

    def to(self, backend: Any, dtype: Any = None) -> Network:
        """A copy of this network on another backend, by way of the host; in another dtype, if one is named.

        Raises TypeError where the backend cannot compute in that dtype: JAX has float64 only where it is switched on.
        """
        found = Network.__new__(Network)
        found.__dict__.update(self.__dict__, backend=get_backend(backend))
        found.dtype = self.dtype if dtype is None else features.working_dtype(dtype, None)
        found.classes = None if self.classes is None else self.classes.copy()
        found.feature_names = None if self.feature_names is None else list(self.feature_names)
        found.history = {name: list(each) for name, each in self.history.items()}
        with found.backend.scope():
            found.params = parameters.own_params(self._host_params(), found.backend, found.dtype)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        """On the same backend; a user's own functions are shared."""
        return self.to(self.backend)

    def save(self, path: Target) -> None:
        """Write the network to one safetensors file, which `load` reads on any backend.

        What is written is checked first, as `load` will check it: attributes that were set since, too. A file that is
        there is replaced only when all of the new one is on the disk.

        Parameters
        ----------
        path : path of the file, or a binary stream
            A stream is written from where it stands, and stays open: a file opened in mode "wb", `io.BytesIO`, a
            member of a zip file. What it has taken before an error of its own stays there.

        Raises
        ------
        ValueError, TypeError
            An activation or the loss is a user's own, whose code no file can hold; an attribute does not fit the
            others; `path` is neither a path nor a binary stream.
        OSError
            The disk or the stream refuses.
        """
        streams.require_target(path, "net.safetensors")
        own = contents.of_network(self)
        history = schema.history_arrays(self.history)
        description = schema.description_of(own, history)
        arrays = schema.tensors_of(own.params) | history
        schema.require_describable(description)
        contents.require_written("save", description, arrays)
        container.write(path, description, arrays)

    def to_onnx(self, path: Target, opset: int | None = None) -> None:
        """Write the network as an ONNX model, which onnxruntime and others run without dlx.

        Its input is ``X`` (n, d0), n free, in the network's dtype. A classifier's outputs are ``label`` (n,), strings
        or int64 (0 and 1 for booleans), and ``probabilities`` (n, K), of one yes-or-no output (n, 2); of several such
        outputs ``label`` is 0 or 1, (n, K). Of real targets it is ``prediction``, shaped as `predict` shapes it: (n,)
        for one output, (n, K) for several.

        Parameters
        ----------
        path : path of the file, replaced only when all of the new one is written; or a binary stream
        opset : int >= 13, optional
            The version of ONNX's operators, up to the newest that the installed onnx knows; by default 20. The file
            has the lowest IR version that goes with it, so that the runtimes of that time read it. An activation that
            onnxruntime cannot compute in this dtype is a function in the file, of the domain "dlx", from 20 up; below,
            and where the opset has no such operator, it is written out in ONNX's own operators.

        Notes
        -----
        `onnx.compose.merge_models` joins models of equal opset and IR version; names that both have, such as ``X``,
        are told apart by its `prefix1` and `prefix2`. The graph's description is JSON of activation, loss and classes.
        A pipeline of scikit-learn that ends in one of dlx's estimators becomes one model by
        ``skl2onnx.to_onnx(pipeline, X[:1])``; see `dlx.onnx_hooks`.

        Raises
        ------
        ValueError, TypeError
            The activation or the loss is a user's own, or the parameters fill 2 GiB, which ONNX's format cannot hold;
            or `opset` is no integer from 13 to the newest.
        ImportError
            onnx is not installed: ``pip install 'dlx-nn[onnx]'``.
        OSError
            The disk refuses.

        Examples
        --------
        >>> import dlx, numpy as np, onnx, onnxruntime, os, tempfile
        >>> net = dlx.Network([(np.eye(2), np.zeros(2))], loss="cross_entropy", classes=["no", "yes"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.to_onnx(os.path.join(folder, "net.onnx"))
        ...     session = onnxruntime.InferenceSession(os.path.join(folder, "net.onnx"))
        >>> session.run(["label"], {"X": np.array([[0.0, 1.0], [3.0, 1.0]])})[0].tolist()
        ['yes', 'no']

        For a runtime of 2020:

        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.to_onnx(os.path.join(folder, "net.onnx"), opset=13)
        ...     model = onnx.load(os.path.join(folder, "net.onnx"))
        >>> model.opset_import[0].version, model.ir_version
        (13, 7)
        """
        own = contents.of_network(self)
        one_label = targets.one_label(own.loss, own.layer_dims[-1])
        onnx_model.to_onnx(path, onnx_model.Parts(own.params, own.activation, own.loss, own.classes, one_label), opset)

    def to_torch(self) -> Any:
        """The same layers as a ``torch.nn.Sequential`` on the CPU: a Linear for each, and between them the activations.

        It gives scores, as PyTorch's own losses take them: softmax, sigmoid or exp, the link of the loss, is not
        applied. Parameters are copies in the network's dtype; a Linear holds W transposed, (d_out, d_in), and the keys
        of the state_dict are "0.weight", "0.bias", "2.weight" and so on.

        Raises
        ------
        ValueError
            An activation is a user's own.
        BackendNotInstalled
            PyTorch is not installed.

        Examples
        --------
        >>> import dlx, numpy as np
        >>> dlx.Network([(np.eye(2), np.zeros(2)), (np.ones((2, 1)), [0.0])], activation="gelu").to_torch()
        Sequential(
          (0): Linear(in_features=2, out_features=2, bias=True)
          (1): GELU(approximate='tanh')
          (2): Linear(in_features=2, out_features=1, bias=True)
        )
        """
        return torch_modules.to_torch(self._host_params(), self.activation)

    def __getstate__(self) -> dict[str, Any]:
        """Host arrays and names, so that a pickle loads where the library is absent; own functions as they are."""
        return {
            **self.__dict__,
            "_bound": None,
            "params": self._host_params(),
            "backend": self.backend.__reduce__(),
            "activation": [schema.described(each) or tuple(each.bind(None)) for each in self.activation],
            "loss": schema.described(self.loss) or tuple(self.loss.bind(None, np.asarray)),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """On the backend of its name, or on NumPy with a warning where that one cannot compute."""
        self.__dict__.update(state)
        self.activation = tuple(
            schema.activation_from(each) if isinstance(each, Mapping) else activations.get(each)
            for each in state["activation"]
        )
        loss = state["loss"]
        self.loss = schema.loss_from(loss) if isinstance(loss, Mapping) else losses.get(loss)
        make, arguments = state["backend"]
        try:
            self.backend = make(*arguments)
            self.backend.dtype(self.dtype)
        except (BackendNotInstalled, BackendUnavailable, ValueError, TypeError) as reason:
            checks.warn(f"the network was unpickled on numpy, not on {arguments[0]}: {reason}")
            self.backend = get_backend("numpy")
        with self.backend.scope():
            self.params = parameters.own_params(state["params"], self.backend, self.dtype)

    @property
    def _one_label(self) -> bool:
        return targets.one_label(self.loss, self.layer_dims[-1])

    def _host_params(self) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        with self.backend.scope():
            return [(np.array(self.backend.to_host(W)), np.array(self.backend.to_host(b))) for W, b in self.params]

    def _of_rows(self, X: Any, of_scores: scoring.OfScores, name: Hashable) -> Array:
        """`of_scores` of all rows, where X lies."""
        if self._needs_no_more(X):
            return of_scores(self.formulas, network.scores(self.formulas, self.params, X))
        asked = scoring.Asked(self.backend, self.formulas, self.params)
        return asked.of_rows(samples.inputs_of(self, X), of_scores, name, stays=library_of(X) == self.backend.name)

    def _needs_no_more(self, X: Any) -> bool:
        """Whether these are a few good rows as they should be, on a library that has but one device."""
        W = self.params[0].W
        return (
            type(X) is type(W)
            and self.backend.device is None
            and X.dtype == W.dtype
            and X.ndim == 2
            and X.shape[1] == W.shape[0]
            and 0 < X.shape[0] <= AT_A_STROKE
            and self.backend.seems_finite(X)
        )

    def _labels(self, places: Array, X: Any) -> Array:
        classes = np.arange(2) if self.classes is None and self._one_label else self.classes
        if classes is None:
            return places
        return labels.at(places, classes, self.backend, library_of(X) == self.backend.name)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def load(path: Source, backend: Any = "numpy", dtype: Any = None) -> Network:
    """The network that `Network.save` wrote, on any backend.

    Parameters
    ----------
    path : path of the file, or a binary stream
        A stream is read from where it stands to its end, without seeking, and stays open.
    backend : selector, default "numpy"
    dtype : "float32" or "float64", optional
        By default that of the file.

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
    chosen = get_backend(backend)
    description, arrays = container.read(path, schema.layout)
    with container.file_errors(path):
        if None in (*description["activation"], description["loss"]):
            remedy = "Go on by dlx.fit with them, and the folder as `checkpoint`."
            got = f"{streams.display_name(path)}, of {schema.OWN}"
            raise FileError(f"`path` must be of dlx's own functions; got {got}. {remedy}")
        net = Network(**schema.arguments_of(description, arrays))
    return net if chosen == net.backend and dtype is None else net.to(chosen, dtype)


def from_torch(sequential: Any, *, loss: Any, classes: Any = None, backend: Any = None) -> Network:
    """The network that computes what a ``torch.nn.Sequential`` computes in ``eval()`` mode.

    Its last Linear gives the scores, whose link the loss owns: cross_entropy brings softmax, binary_cross_entropy the
    sigmoid. Dropout is left out, as in prediction; a Flatten in front too: dlx takes rows (n, d0). Weights are copied.

    Parameters
    ----------
    sequential : torch.nn.Sequential
        Of Linear (with or without bias) and activations between them; another Sequential inside is opened.
    loss : str, Loss or tuple of functions
        What it was trained with: PyTorch's module does not know.
    classes : array of labels, optional
        What the class numbers 0..K-1 stand for.
    backend : selector, optional
        By default PyTorch, on the device of the weights.

    Raises
    ------
    ValueError
        A module is one that dlx does not have, such as GELU in its exact form, or in a place where it has none; it has
        hooks, which may change what it computes, or no weights (PyTorch's device "meta").
    TypeError
        It is no Sequential, or one with hooks or a forward of its own.
    BackendNotInstalled
        PyTorch is not installed.

    Source: a PyTorch Linear computes x Wᵀ + b, its weight is (d_out, d_in).

    Examples
    --------
    >>> import dlx, numpy as np, torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> net = dlx.from_torch(module, loss="cross_entropy", backend="numpy")
    >>> net
    <dlx.Network 4 -> 8 -> 3, cross_entropy, float32 on numpy>
    >>> x = torch.ones(1, 4)
    >>> bool(np.allclose(net.predict_proba(x.numpy()), module(x).softmax(1).detach(), atol=1e-6))
    True
    """
    pairs, hidden = torch_modules.layers_of(sequential)
    net = Network(pairs, activation=hidden, loss=loss, classes=classes)
    return net if backend is None else net.to(backend)


def _one_column(P: Array) -> Array:
    return P[:, 0] if P.shape[1] == 1 else P
