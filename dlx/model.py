"""A trained network: what `fit` returns and `load` reads."""

from __future__ import annotations

import operator
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
from dlx.data.placement import common_backend, in_precision, preferring_tf32
from dlx.files import container, contents, schema, streams
from dlx.files.container import FileError
from dlx.files.streams import Source, Target
from dlx.host import HostArray
from dlx.interchange import onnx_model, torch_modules
from dlx.network import Layer, Params
from dlx.report import evidence, explanation, rules, summary
from dlx.training.loop import History

AT_A_STROKE = 128  # the most rows that may be computed in one piece, without the work of making blocks


class Network:
    """A fully connected network on one backend.

    Parameters
    ----------
    params : sequence of (W, b)
        W (d_in, d_out) and b (1, d_out) or (d_out,), arrays of the backend's library or of the host. They are copied.
    activation : str, Activation, pair (f, df), or a sequence of one for each hidden layer, default "relu"
    loss : str, Loss or tuple of functions, default "squared_error"
        Its link turns scores into predictions.
    classes : array (K,) of labels, default None
        The labels that the class numbers 0..K-1 stand for.
    history : dict of lists, default None
        The history of the training. None is an empty one.
    feature_names : sequence of d0 str, default None
        The names of the columns of X. A data frame with other column names is refused.
    missing : "raise", "mask" or "keep", default "raise"
        How `score` and `report` treat nan in the targets. `fit` sets it to its own argument.
    backend : selector, default None
        None is the backend of `params`.
    dtype : "float32" or "float64", default None
        None is the dtype of `params`.
    tf32 : bool, default None
        Whether products of float32 arrays may be TF32, on CUDA devices only; see `Backend.with_tf32`. None is False,
        or what a Backend that is passed as `backend` says.

    Attributes
    ----------
    params : tuple of Layer(W, b)
        W (d_in, d_out) and b (1, d_out) of each layer, on the backend.
    history : dict of lists
        The lists have an entry for each epoch.
    layer_dims : tuple of int
        (d0, ..., K), the widths of input, hidden layers and output.
    activation : tuple of Activation
        One for each hidden layer.
    loss : Loss
    classes : NumPy array or None
    feature_names : list of str or None
    missing : str
    backend : Backend
    dtype : str
    tf32 : bool
        Whether float32 products are TF32 on CUDA devices. Elsewhere the network computes in full precision, and keeps
        this for the next file or device. `to` changes it.
    facts : Facts or None
        What only the fit knows, for `report`. It is None without a fit, and after reading a file.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, or the arguments do not fit each other.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> net = dlx.Network([(np.eye(2), np.zeros(2))], loss="squared_error")
    >>> net.predict([[1.0, 2.0]])
    array([[1., 2.]])
    """

    facts: evidence.Facts | None = None
    missing: str = "raise"
    _tf32: bool = False  # on a CUDA device, wherever the network is now

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
        tf32: bool | None = None,
    ) -> None:
        pairs = parameters.as_pairs(params, "params")
        chosen = common_backend(backend, parameters.named(pairs, "params"))
        self.dtype = features.working_dtype(dtype, pairs[0][0])
        self.backend: Backend = in_precision(chosen, tf32, self.dtype)
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
        """Set an attribute: pairs become layers, a list of labels an array, and the name of a formula that formula."""
        if name == "params" and isinstance(value, list | tuple) and all(_is_pair(layer) for layer in value):
            value = tuple(layer if isinstance(layer, Layer) else Layer(*layer) for layer in value)
        elif name == "classes" and isinstance(value, list | tuple) and {*map(type, value)} <= {str, int, bool, np.str_}:
            value = np.array(value)
        elif name == "activation" and isinstance(value, str) and value in activations.ACTIVATIONS:
            value = parameters.hidden_activations(value, len(self.layer_dims) - 2)
        elif name == "loss" and isinstance(value, str) and value in losses.LOSSES:
            value = losses.get(value)
        super().__setattr__(name, value)

    @property
    def tf32(self) -> bool:
        """Whether float32 products are TF32 on CUDA devices."""
        return self.backend.tf32 if self.backend.takes_tf32 else self._tf32

    @property
    def formulas(self) -> network.Formulas:
        """The network's formulas on its backend, bound when they are first needed."""
        parts = self.backend, self.dtype, self.activation, self.loss
        if self._bound is None or not all(map(operator.is_, self._bound[0], parts)):
            self._bound = parts, network.bind(*parts)
        return self._bound[1]

    def predict(self, X: Any) -> Array:
        """The label of each row, or for real targets its prediction.

        Parameters
        ----------
        X : array (n, d0)
            An array of the host or of the network's own library.

        Returns
        -------
        array (n,) or (n, K)
            Labels (n,). Several yes-or-no outputs give integers 0 and 1, (n, K). Predictions of real targets are (n,)
            for one output and (n, K) for several. It is a NumPy array if `X` is of the host. Otherwise it stays in the
            network's library, except for labels that this cannot hold: strings, and on JAX integers beyond 32 bits.

        Raises
        ------
        TypeError, ValueError
            `X` is of another library or another width, is empty, or is not finite.
        """
        with self.backend.scope():
            answers = self._of_rows(X, scoring.answers(self.loss), "answers")
            if self.loss.link.answers == "class":
                return self._labels_at(answers, X)
            if self.loss.link.answers == "yes or no":
                return self._labels_at(answers[:, 0], X) if self._one_label else answers
            return _one_column(answers)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class.

        Parameters
        ----------
        X : array (n, d0)
            As in `predict`.

        Returns
        -------
        array (n, K)
            One yes-or-no output gives (n, 2), no before yes. Several give the probability of yes for each, (n, K).

        Raises
        ------
        TypeError, ValueError
            As in `predict`; or the network was trained on real targets.
        """
        if self.loss.link.answers == "number":
            got = f"loss {self.loss.name}"
            checks.reject("predict_proba", "be asked of a classifier", got, "Use predict.", TypeError)
        with self.backend.scope():
            both = self._one_label
            return self._of_rows(X, scoring.probabilities(self.loss, both), ("probabilities", both, False))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy, or for real targets R², or for quantiles D².

        Accuracy is the share of rows whose labels are all predicted correctly. R² is averaged over outputs. D² is the
        share by which the predictions reduce the pinball loss of the constant quantiles of `y`: 1 is perfect, and 0 is
        as good as these constants. It is averaged over outputs, but for a list of quantiles it is 1 minus the ratio of
        the sums over all of them.

        If `missing` is "mask", which `fit` and files store, nan in `y` is left out: R² and D² are those of the targets
        that are present, and accuracy is that of the labels that are present, over rows that have any.

        Parameters
        ----------
        X : array (n, d0)
        y : array (n,) or (n, K)
        sample_weight : array (n,) or (n, K), default None
            Weights of rows or of targets. A row with several labels has the mean of those of its weights that are > 0.

        Returns
        -------
        float <= 1

        Raises
        ------
        TypeError, ValueError
            As in `predict`; or `y` does not fit.
        """
        with self.backend.scope():
            given = samples.for_network(self, X, y, sample_weight)
            predictor = scoring.Predictor(self.backend, self.formulas, self.params)
            answer = predictor.rowwise(scoring.answers(self.loss), "answers")
            answered = ((first, last, answer(rows, True)) for first, last, rows in predictor.blocks(given.X))
            return scoring.figure_of_merit(self.backend, self.loss, given.target.Y, given.weights, answered)

    def activations(self, X: Any) -> tuple[Array, ...]:
        """The output of each layer for X: A_1, ..., A_{L-1} after activation, and last the scores Z_L.

        A_l = f_l(A_{l-1} W_l + b_l),  Z_L = A_{L-1} W_L + b_L,  without dropout

        Parameters
        ----------
        X : array (n, d0)
            An array of the host or of the network's own library.

        Returns
        -------
        tuple of L arrays (n, d_l)
            They are NumPy arrays if `X` is of the host, and otherwise stay in the network's library. `predict_proba`
            and `predict` give the meaning of the scores.

        Raises
        ------
        TypeError, ValueError
            As in `predict`.

        Numerics: memory holds all outputs at once, n (d_1 + ... + d_L) numbers. A few hundred rows are enough to see
        what a network does.

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
        """The common faults of a training that the network, its history and its data show, with evidence and remedy.

        The faults are "unscaled inputs", "learning rate too high", "dead ReLUs" (for other activations "saturated
        units"), "vanishing gradients", "exploding gradients", "overfitting", "learning rate too low", "too few epochs",
        "classes missing from validation", and "plain steps" where functions of your own made it slower. Causes come
        before their consequences. In doubt a rule finds nothing, so that an empty report proves nothing.

        Some rules need the history, and some need facts that only the fit knows. A file does not hold these facts, and
        a network from parameters of your own has neither; the other rules work without them.

        Parameters
        ----------
        X : array (n, d0)
            The training data. The rules look at 4,096 rows drawn at random if there are more, and at fewer rows of very
            wide data.
        y : array (n,) or (n, K)
        validation : (X_val, y_val), default None
            The validation data, if you passed them to `fit`. A share that `fit` drew is known from the fit.

        Returns
        -------
        Report
            A tuple of `Finding(name, evidence, remedy)`. It is false if nothing was found, and prints as a text.

        Raises
        ------
        TypeError, ValueError
            As in `score`.

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

        Returns
        -------
        str

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

    def explain(self, optimizer: Any = "adam", batch_size: Any = 128) -> str:
        """How a training step of this network is computed, as a text.

        On NumPy these are its operations, as they are recorded, and the source that numba compiles where the steps are
        many and numba is installed; on CuPy its operations and CUDA kernels. Other libraries have ways of their own.

        Parameters
        ----------
        optimizer : name or Optimizer, default "adam"
        batch_size : int, default 128

        Returns
        -------
        str

        Raises
        ------
        TypeError, ValueError
            As in `dlx.fit`.

        Examples
        --------
        >>> import dlx, numpy as np
        >>> net = dlx.Network([(np.ones((3, 1)), np.zeros(1))], loss="squared_error")
        >>> print(net.explain("sgd", batch_size=8)[:49])
        The operations of one step, as they were recorded
        """
        with self.backend.scope():
            return explanation.text(self, optimizer, batch_size)

    def _repr_html_(self) -> str:
        """The summary as a table, for notebooks."""
        return summary.table(self)

    def __repr__(self) -> str:
        dims = " -> ".join(str(d) for d in self.layer_dims)
        place = f"{self.backend.selector}{' in TF32' if self.backend.tf32 else ''}"
        return f"<dlx.Network {dims}, {self.loss.name}, {self.dtype} on {place}>"

    def to(self, backend: Any, dtype: Any = None, tf32: bool | None = None) -> Network:
        """A copy of this network on another backend or in another dtype. It goes by way of the host.

        Parameters
        ----------
        backend : selector
        dtype : "float32" or "float64", default None
            None is the dtype of this network.
        tf32 : bool, default None
            Whether products of float32 arrays may be TF32, on CUDA devices only. None keeps what this network has, or
            takes what a Backend says that is passed as `backend`.

        Returns
        -------
        Network

        Raises
        ------
        ValueError, TypeError
            The selector or the dtype is wrong, or the backend cannot compute in this dtype: JAX has float64 only after
            it is switched on. Or `tf32` is True for another device than one of CUDA, or for float64.
        """
        chosen = get_backend(backend)
        if not isinstance(backend, Backend):
            chosen = preferring_tf32(chosen, self.tf32)
        copy = Network.__new__(Network)
        copy.__dict__.update(self.__dict__, _tf32=self.tf32 if tf32 is None else bool(tf32))
        copy.dtype = self.dtype if dtype is None else features.working_dtype(dtype, None)
        copy.backend = in_precision(chosen, tf32, copy.dtype)
        copy.classes = None if self.classes is None else self.classes.copy()
        copy.feature_names = None if self.feature_names is None else list(self.feature_names)
        copy.history = {name: list(values) for name, values in self.history.items()}
        with copy.backend.scope():
            copy.params = parameters.own_params(self._host_params(), copy.backend, copy.dtype)
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        """A copy on the same backend, which shares the user's own functions."""
        return self.to(self.backend)

    def save(self, path: Target) -> None:
        """Write the network to one safetensors file, which `load` reads on any backend.

        The network is checked first as `load` will check it, with attributes that you have set since. An existing file
        is replaced only when the whole new one is on the disk.

        Parameters
        ----------
        path : path of the file, or a binary stream
            A stream is a file opened in mode "wb", an `io.BytesIO`, or a member of a zip file, for example. It is
            written from its current position and stays open. If it raises an error, what it has taken stays there.

        Raises
        ------
        ValueError, TypeError
            An activation or the loss is a user's own, whose code no file can hold; an attribute does not fit the
            others; or `path` is neither a path nor a binary stream.
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

        The input is ``X`` (n, d0) in the network's dtype, with any number of rows n. A classifier has the outputs
        ``label`` (n,), strings or int64 (0 and 1 for booleans), and ``probabilities`` (n, K). One yes-or-no output has
        ``probabilities`` (n, 2), and several have ``label`` (n, K) of 0 and 1. Real targets have the output
        ``prediction``, (n,) for one output and (n, K) for several, as in `predict`.

        Parameters
        ----------
        path : path of the file, or a binary stream
            An existing file is replaced only when the whole new one is written.
        opset : int >= 13, default None
            The version of ONNX's operators, up to the newest that the installed onnx knows. None is 20. The file has
            the lowest IR version that goes with it, so that the runtimes of that time read it. An activation that
            onnxruntime cannot compute in this dtype becomes a function of the domain "dlx" in the file from 20 up.
            Below 20, and if the opset has no such operator, it is written out in ONNX's own operators.

        Raises
        ------
        ValueError, TypeError
            The activation or the loss is a user's own; the parameters fill 2 GiB, which ONNX's format cannot hold; or
            `opset` is not an integer from 13 to the newest.
        ImportError
            onnx is not installed: ``pip install 'dlx-nn[onnx]'``.
        OSError
            The disk refuses.

        Notes
        -----
        `onnx.compose.merge_models` joins models of equal opset and IR version. Its `prefix1` and `prefix2` distinguish
        names that both models have, such as ``X``. The description of the graph is JSON with activation, loss and
        classes. ``skl2onnx.to_onnx(pipeline, X[:1])`` makes one model of a scikit-learn pipeline that ends in an
        estimator of dlx; see `dlx.onnx_hooks`.

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
        onnx_model.write(path, onnx_model.Parts(own.params, own.activation, own.loss, own.classes, one_label), opset)

    def to_torch(self) -> Any:
        """The same layers as a ``torch.nn.Sequential`` on the CPU: a Linear for each, and between them the activations.

        The module gives scores, which PyTorch's own losses take. It does not apply the link of the loss: softmax,
        sigmoid or exp. The parameters are copies in the network's dtype. A Linear holds W transposed, (d_out, d_in),
        and the keys of the state_dict are "0.weight", "0.bias", "2.weight" and so on.

        Returns
        -------
        torch.nn.Sequential

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
        return torch_modules.sequential(self._host_params(), self.activation)

    def __getstate__(self) -> dict[str, Any]:
        """Arrays of the host and names, so that a pickle loads without the library. Own functions stay as they are."""
        return {
            **self.__dict__,
            "_bound": None,
            "_tf32": self.tf32,
            "params": self._host_params(),
            "backend": self.backend.__reduce__(),
            "activation": [schema.described(part) or tuple(part.bind(None)) for part in self.activation],
            "loss": schema.described(self.loss) or tuple(self.loss.bind(None, np.asarray)),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the network on the backend of its name, or on NumPy with a warning if that one cannot compute."""
        self.__dict__.update(state)
        self.activation = tuple(
            schema.activation_from(part) if isinstance(part, Mapping) else activations.get(part)
            for part in state["activation"]
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
        """Whether the network has one yes-or-no output."""
        return targets.one_label(self.loss, self.layer_dims[-1])

    def _host_params(self) -> list[tuple[HostArray, HostArray]]:
        """Copies of W and b of each layer, on the host."""
        with self.backend.scope():
            return [(np.array(self.backend.to_host(W)), np.array(self.backend.to_host(b))) for W, b in self.params]

    def _of_rows(self, X: Any, of_scores: scoring.OfScores, name: Hashable) -> Array:
        """`of_scores` of all rows, where `X` lies."""
        formulas = self.formulas
        if self._is_ready(X):
            return of_scores(formulas, network.scores(formulas, self.params, X))
        predictor = scoring.Predictor(self.backend, formulas, self.params)
        return predictor.of_rows(samples.inputs_of(self, X), of_scores, name, stays=library_of(X) == self.backend.name)

    def _is_ready(self, X: Any) -> bool:
        """Whether `X` holds a few rows that need no conversion and lie on the network's device."""
        W = self.params[0].W
        return (
            type(X) is type(W)
            and self.backend.holds(X)
            and X.dtype == W.dtype
            and X.ndim == 2
            and X.shape[1] == W.shape[0]
            and 0 < X.shape[0] <= AT_A_STROKE
            and self.backend.seems_finite(X)
        )

    def _labels_at(self, places: Array, X: Any) -> Array:
        """The labels with these class numbers, where `X` lies."""
        classes = np.arange(2) if self.classes is None and self._one_label else self.classes
        if classes is None:
            return places
        return labels.at(places, classes, self.backend, library_of(X) == self.backend.name)


def _is_pair(value: Any) -> bool:
    """Whether `value` is a list or tuple of two."""
    return isinstance(value, list | tuple) and len(value) == 2


def load(path: Source, backend: Any = "numpy", dtype: Any = None, tf32: bool | None = None) -> Network:
    """The network that `Network.save` wrote, on any backend.

    Parameters
    ----------
    path : path of the file, or a binary stream
        A stream is read from its current position to its end, without seeking, and stays open.
    backend : selector, default "numpy"
    dtype : "float32" or "float64", default None
        None is the dtype of the file.
    tf32 : bool, default None
        Whether products of float32 arrays may be TF32, on CUDA devices only. None is what the file says, or what a
        Backend says that is passed as `backend`. A network with TF32 in its file computes in full precision where
        there is no CUDA device.

    Returns
    -------
    Network

    Raises
    ------
    FileError
        The file is not a network of dlx, or not a whole one.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import dlx, numpy as np, tempfile, os
    >>> net = dlx.Network([(np.eye(2), np.zeros(2))], loss="squared_error")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.save(os.path.join(folder, "net.safetensors"))
    ...     dlx.load(os.path.join(folder, "net.safetensors"))
    <dlx.Network 2 -> 2, squared_error, float64 on numpy>
    """
    chosen = get_backend(backend, tf32)
    description, arrays = container.read(path, schema.layout)
    with container.file_errors(path):
        if None in (*description["activation"], description["loss"]):
            remedy = "Go on by dlx.fit with them, and the folder as `checkpoint`."
            got = f"{streams.display_name(path)}, of {schema.OWN}"
            raise FileError(f"`path` must be of dlx's own functions; got {got}. {remedy}")
        net = Network(**schema.arguments_of(description, arrays))
    net._tf32 = bool(description.get(schema.TF32_KEY, False) if tf32 is None else tf32)
    return net if chosen == net.backend and dtype is None and not tf32 else net.to(backend, dtype, tf32)


def from_torch(
    sequential: Any, *, loss: Any, classes: Any = None, backend: Any = None, tf32: bool | None = None
) -> Network:
    """The network that computes what a ``torch.nn.Sequential`` computes in ``eval()`` mode.

    The last Linear gives the scores, to which the loss brings its link: cross_entropy brings softmax, and
    binary_cross_entropy the sigmoid. Dropout is left out, as in prediction. A Flatten in front is left out, as dlx
    takes rows (n, d0). The weights are copied.

    Parameters
    ----------
    sequential : torch.nn.Sequential
        Linear modules, with or without bias, and activations between them. A Sequential inside it is opened.
    loss : str, Loss or tuple of functions
        The loss of its training, which PyTorch's module does not know.
    classes : array (K,) of labels, default None
        The labels that the class numbers 0..K-1 stand for.
    backend : selector, default None
        None is PyTorch, on the device of the weights.
    tf32 : bool, default None
        Whether products of float32 arrays may be TF32, on CUDA devices only; see `Backend.with_tf32`. None is False,
        or what a Backend that is passed as `backend` says.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        A module is one that dlx does not have, such as GELU in its exact form, or stands in the wrong place; it has
        hooks, which may change what it computes; or it has no weights, as on PyTorch's device "meta".
    TypeError
        `sequential` is not a Sequential, or it has hooks or a forward of its own.
    BackendNotInstalled
        PyTorch is not installed.

    Source: a PyTorch Linear computes x Wᵀ + b, and its weight is (d_out, d_in).

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
    return net.to(net.backend if backend is None else backend, tf32=tf32)


def _one_column(P: Array) -> Array:
    """Predictions (n, 1) as (n,); others as they are."""
    return P[:, 0] if P.shape[1] == 1 else P
