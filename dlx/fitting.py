"""`fit`: from arrays to a trained network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Never

import numpy as np

from dlx import checks, initializers, losses, nearest, network, scoring
from dlx.backend import Array, Backend, get_backend
from dlx.data import features, gaps, parameters, targets
from dlx.data.placement import common_backend
from dlx.files import attempts, checkpoints
from dlx.model import Network
from dlx.network import Params
from dlx.report import evidence
from dlx.training import arguments, divergence, loop, memory, progress_bar, ranges, state, steps
from dlx.warm_start import begun_from, known_labels, require_same_classes


@nearest.closed
def fit(
    X: Any,
    y: Any,
    layer_dims: Sequence[int] = (),
    *,
    activation: Any = "relu",
    loss: Any = "auto",
    optimizer: Any = "adam",
    learning_rate: Any = arguments.DEFAULT_RATE,
    batch_size: int | None = 128,
    epochs: int = 100,
    l2: float = 0.0,
    l1: float = 0.0,
    dropout: float | Sequence[float] = 0.0,
    init: Any = "auto",
    validation: Any = None,
    patience: int | None = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    missing: str = "raise",
    clip_norm: float | None = None,
    clip_value: float | None = None,
    shuffle: bool = True,
    stream: bool = False,
    callbacks: Any = (),
    checkpoint: Any = None,
    checkpoint_every: Any = "epoch",
    resume: str = "auto",
    verbose: int = 0,
    backend: Any = None,
    dtype: Any = None,
    rng: Any = None,
    **unknown: Never,
) -> Network:
    """Train a fully connected network.

    Minimises  1/n Σ_i w_i loss(Z_i, y_i) + l2/2 Σ W² + l1 Σ |W|  over weights and biases, with the scores
    Z = f(... f(X W_1 + b_1) ...) W_L + b_L. A loss that is a sum over outputs may have a weight for each target:
    1/n Σ_i Σ_k w_ik loss_k(Z_ik, y_ik).

    Parameters
    ----------
    X : array (n, d0), or a matrix or array of SciPy's
        Rows are samples, in an array, a data frame of numbers or a list of rows. Integers are kept as they are and
        converted a batch at a time. Sparse rows stay so on NumPy; elsewhere they are made dense a batch at a time, with
        L-BFGS all of them.
    y : array (n,) or (n, K)
        Labels - integers, booleans or strings, one a row -, rows of probabilities, several yes-or-no labels a row, or
        real numbers; in an array of any library, a list or a column of a data frame. Integers within 0..K-1 stay what
        they are. Other integers, and strings, are labels where there are exactly K distinct ones (two for one output);
        they are numbered in their order. Labels are told apart exactly: integers of up to 64 bits, and strings with
        any NULs at their end. Whole floats are labels where `loss` names a loss for labels. None may be missing.
    layer_dims : sequence of int
        (d0, ..., K): the widths of input, hidden layers and output.
    activation : str, Activation, pair of functions (f, df), or a sequence of one for each hidden layer
        See `dlx.activations`. Functions of your own get arrays of the backend's library, (n, d): f(z) and df(z, a) with
        a = f(z).
    loss : str, Loss, or functions (value, delta) or (value, delta, predict)
        "auto" is cross-entropy for labels (binary for one output) and squared error for real targets. One-hot rows,
        integers in two dimensions and, for one output, floats that are all 0 and 1 may be either: name the loss. See
        `dlx.losses`.
    optimizer : str or object such as ``dlx.adam(1e-3)``
        See `dlx.optimizers`; "lbfgs" takes all rows at once, and an epoch is one of its iterations.
    learning_rate : float > 0 or schedule
        See `dlx.schedules`, which count updates. An optimizer object may have one of its own instead.
    batch_size : int >= 1 or None
        None, or more than n: all rows.
    epochs : int >= 1
    l2, l1 : float >= 0
        Penalties on weights, not on biases; they do not depend on the batch size.
    dropout : float in [0, 1), or one for each hidden layer
        The share of hidden units that is dropped: 0.1 drops 10 %.
    init : str, function, Network, or a sequence of (W, b)
        See `dlx.initializers`; "auto" is what the activation's paper says. Arrays are copied, and so are the weights of
        a network, of any backend, from which the training goes on: its widths and activations must be those asked for.
    validation : float in (0, 1), or (X_val, y_val), optional
        Held-out rows whose loss and score are reported after each epoch; a share is drawn at random, labels in
        proportion.
    patience : int >= 1, optional
        Stop after so many epochs in which the watched loss has not improved, and restore the best weights. That loss is
        the validation's; without validation it is that of all training rows, with penalties and without dropout, which
        is computed after each epoch. Where an epoch is one batch without dropout, its own loss is watched: that of the
        weights before its update, which are the ones restored.
    sample_weight : array (n,) or (n, K), optional
        Weights >= 0 of rows, or of each target. Only their proportions matter: they are scaled to mean 1.
    class_weight : "balanced", or dict of label to weight, optional
        For several yes-or-no labels a row "balanced", or a dict {0: weight, 1: weight} for each of them: a sequence of
        K, or a dict of column to dict.
    missing : "raise", "mask" or "keep"
        What nan in `y` is. "raise": an error. "mask": a missing target, which weighs 0 in loss, gradient, validation
        and score; weights have mean 1 over the others. The loss is still a mean over rows, and smaller where more is
        missing. Where one label a row is missing, drop the row. "keep": for a
        loss of your own, which is given nan as it is.
    clip_norm, clip_value : float > 0, optional
        Limit on the norm of the whole gradient, on each of its elements.
    shuffle : bool
        Draw the batches anew in each epoch.
    stream : bool
        Keep `X` on the host and send it to the device a batch at a time: for data that the device cannot hold.
    callbacks : function or object, or a sequence of them
        A function is called after each epoch with the network so far; an object may have any of ``on_start(net)``,
        ``on_epoch_end(net)`` and ``on_end(net)``. True after an epoch stops the training. The network's
        arrays are those in training: copy what you keep.
    checkpoint : path of a folder, optional
        Save the training there while it runs. Called again with the same arguments and data, `fit` goes on from the
        last checkpoint, to the same bits, even within an epoch; what has ended is returned. The bits depend on the
        backend, its version, the machine, and on a CPU the threads of the library (of NumPy's, its BLAS): where these
        are others on the same backend, a warning names them. Only `epochs` may be raised, if the learning rate does
        not depend on it, and `backend`, `callbacks`, `verbose` and `checkpoint_every` changed; functions of your own
        are taken for the same. A generator passed as `rng` goes on as it would have. Ctrl-C and SIGTERM save, then end.
        The last two checkpoints are kept, each a file that `dlx.load` reads too.
    checkpoint_every : "epoch", int >= 1 or datetime.timedelta
        Save after each epoch, so many updates, or so much time; and always at the end.
    resume : "auto" or "ignore"
        "ignore" starts anew, whatever the folder holds.
    verbose : int
        1 shows a tqdm progress bar with the figures so far, rows a second and the time left; 2 prints a line an epoch.
    backend : str, module, Backend or None
        Where to compute; see `dlx.get_backend`. None follows X.
    dtype : "float32" or "float64", optional
        By default float64 for float64 data and float32 for all other.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As for `numpy.random.default_rng` (SPEC 7); a Generator is advanced.

    Returns
    -------
    Network
        Trained, on the backend, with its `history`: a dict of lists with "loss" (while training, each batch before its
        update, with penalties and dropout), "learning_rate", "seconds", with validation "validation_loss" and
        "validation_score", and where `patience` needs it "training_loss".

    Raises
    ------
    ValueError, TypeError
        An argument is wrong; raised before any work, and no trace is left: `rng` is as it came, and so are folders.
    BackendNotInstalled, BackendUnavailable
        The array library that was asked for is not there or cannot compute.
    DivergenceError
        The loss became non-finite or exploded; names epoch and batch. So where it is the last update that did it: what
        is returned or saved has a finite loss, and of validation too.
    OutOfMemory
        Memory does not hold it; names the batch size and what needs how much.

    Warns
    -----
    UserWarning
        Ctrl-C ended the training; the weights so far are kept. A checkpoint goes on with other arithmetic.

    Source: Rumelhart, Hinton and Williams 1986.

    Examples
    --------
    >>> import dlx, numpy as np
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> net = dlx.fit(X, 2 * X[:, 0] + 1, (1, 1), optimizer="lbfgs", rng=0)
    >>> net.predict([[3.0]]).round(6)
    array([7.])
    """
    nearest.refuse(unknown, "fit", fit)
    dims = arguments.widths(layer_dims)
    hidden = parameters.hidden_activations(activation, len(dims) - 2)
    settings = arguments.settings(
        optimizer, learning_rate, batch_size, epochs, shuffle, patience, clip_norm, clip_value
    )
    l2 = checks.number("l2", l2, low=0, remedy="Use 1e-4, or 0 for none.")
    l1 = checks.number("l1", l1, low=0, remedy="Use 1e-4, or 0 for none.")
    rates = arguments.dropout_rates(dropout, len(hidden), settings.optimizer)
    listeners = arguments.listeners(callbacks)
    names = features.names_of(X)
    verbose = arguments.verbosity(verbose)
    generator = arguments.generator(rng)
    initial = arguments.initializer(begun_from(init, hidden, X), dims)
    X_val, y_val, share = arguments.validation_source(validation)
    features.require_names(X_val, names, "X_val")
    chosen = common_backend(
        backend,
        {
            **{"X": X, "y": y, "sample_weight": sample_weight, "X_val": X_val, "y_val": y_val},
            **parameters.named(initial if isinstance(initial, list) else [], "init"),
        },
    )
    X = features.real_rows(X, chosen, dims[0])
    stream = arguments.streaming(stream, X, settings.optimizer)
    name = features.working_dtype(dtype, X)
    compute = chosen.dtype(name)
    chosen = chosen.expecting(steps.work(X.shape[0], dims, settings))

    expected = memory.needs(X, dims, settings.batch_size, settings.optimizer, 8 if name == "float64" else 4, chosen)
    explained = memory.explained(chosen, min(settings.batch_size, X.shape[0]), expected)
    with attempts.unmoved(generator) as attempt, chosen.scope(), explained:
        come: Callable[..., Array] = features.unplaced if stream else features.features
        placed = come(X, chosen, name, dims[0], names=names)
        if settings.optimizer.full_batch:
            placed = features.dense(placed, chosen)
        y = targets.on_host(y, chosen)
        loss = arguments.loss_for(loss, y if missing == "raise" else gaps.whole_rows(y), dims[-1])
        settings = ranges.in_dtype(name, settings, hidden, loss, l2=l2, l1=l1)
        missing = gaps.rule(missing, loss, dims[-1])
        target = targets.check(y, loss, dims[-1], placed.shape[0], known_labels(init, y), missing=missing)
        require_same_classes(init, target.classes)
        weights = targets.weights(sample_weight, class_weight, target, chosen)
        if network.weighs_targets(weights):
            gaps.require_terms(loss, dims[-1], "sample_weight", "be (n,) with", "Multiply the terms by weights in")
        with checkpoints.keeping(checkpoint, checkpoint_every, resume, attempt) as kept:
            if kept is not None:
                told = {"layer_dims": dims, "activation": hidden, "loss": loss, "l2": l2, "l1": l1, "dropout": rates}
                told |= {"init": tuple(initial) if isinstance(initial, list) else initial, "dtype": name, "X": X}
                told |= {"y": (gaps.with_nan(target.Y, target.present), target.classes), "sample_weight": weights}
                told["missing"] = None if missing == "raise" else missing  # as in a file that is older than it
                told["feature_names"] = None if names is None else tuple(names)
                told["validation"] = share if X_val is None else _pair(X_val, y_val, chosen)
                kept.agree(told, settings, X.shape[0], chosen, generator, rng is not None)
            train_rows, held_rows = (None, None) if share is None else targets.split(target, share, generator)
            gaps.require_in_each_column(target.present, train_rows)
            weights = targets.to_mean_one(weights, train_rows, held_rows, target.present)
            rows = targets.place(target, weights, placed, chosen, name)
            held = _held_out(X_val, y_val, held_rows, rows, target, loss, dims, chosen, name, missing, come)
            arguments.try_own_functions(hidden, loss, chosen, compute, dims[-1])
            if not isinstance(initial, list):
                initial = initializers.draw(initial, generator, dims, [each.init for each in hidden])
            if not isinstance(init, str):
                parameters.require_real(initial, chosen, name, "init")
            parts = {"activation": list(hidden), "loss": loss, "classes": target.classes, "feature_names": names}
            parts["missing"] = missing
            net = Network(initial, **parts, backend=chosen, dtype=name)
            bound = partial(network.bind, dtype=name, hidden=hidden, loss=loss, dropout=rates, l2=l2, l1=l1)
            key = network.kind(name, hidden, loss, rates, l2, l1)
            task = steps.Task(chosen, bound(chosen), name, rows, train_rows, key)
            plain = None if key is None else bound(get_backend("numpy"))
            drawn, restored = (train_rows, held_rows), settings.patience is not None
            seen = evidence.facts(plain, initial, X, target, weights, drawn, restored, chosen, name)
            net.facts = seen._replace(dropout=any(rates))
            per_epoch = -(-task.size // settings.batch_size)
            figures = loop.figures(task, settings, held is not None)
            resumed = None if kept is None else kept.resumed(net, settings, per_epoch, figures)
            attempt.begun = True
            _train(net, task, settings, generator, held, listeners, verbose, kept, resumed)
    return net


def _train(
    net: Network,
    task: steps.Task,
    settings: steps.Settings,
    rng: np.random.Generator,
    held: tuple[features.Rows, features.HostArray | None] | None,
    listeners: Mapping[str, Sequence[arguments.Listener]],
    verbose: int,
    kept: checkpoints.Checkpoints | None,
    resumed: state.TrainingState | None,
) -> None:
    """Give the network what the task teaches it, from its own parameters on or from where it is resumed."""
    params, done = (net.params, 0) if resumed is None else (resumed.params, resumed.epoch)
    measures = loop.measures(task, settings, held is not None)

    def validate(params: Params) -> dict[str, float]:
        if held is None:
            return {"training_loss": divergence.loss_after(task, params, task.chosen)} if measures else {}
        rows, numbers = held
        return scoring.validation_figures(task.backend, task.net, net.loss, params, rows, rows.weights, numbers=numbers)

    def report(params: Params, history: loop.History) -> bool:
        net.params, net.history = params, history
        show(history)
        return any([_is_true(listen(net)) for listen in listeners["on_epoch_end"]])

    for listen in listeners["on_start"]:
        listen(net)
    with progress_bar.progress(verbose, settings.epochs, task.size, done, losses.label(net.loss)) as show:
        net.params, net.history = loop.train(task, settings, params, rng, validate, report, resumed, saver=kept)
    for listen in listeners["on_end"]:
        listen(net)


def _pair(X_val: Any, y_val: Any, backend: Backend) -> tuple[Any, Any]:
    """The user's own validation rows as arrays."""
    X_val = X_val if features.compressed(X_val) else features.as_array(X_val, "X_val")
    return X_val, targets.on_host(y_val, backend, "y_val")


def _held_out(
    X_val: Any,
    y_val: Any,
    held_rows: features.HostArray | None,
    rows: features.Rows,
    target: targets.Targets,
    loss: losses.Loss,
    dims: Sequence[int],
    backend: Backend,
    dtype: str,
    missing: str,
    come: Callable[..., Array],
) -> tuple[features.Rows, features.HostArray | None] | None:
    """The validation rows: the user's own, or the training data and the numbers of a share of them."""
    if X_val is None:
        return None if held_rows is None else (rows, held_rows)
    placed = come(X_val, backend, dtype, dims[0], "X_val")
    y_val = targets.on_host(y_val, backend, "y_val")
    checked = targets.check(y_val, loss, dims[-1], placed.shape[0], target.classes, "y_val", missing)
    mask = targets.weights(None, None, checked, backend)
    return targets.place(checked, mask, placed, backend, dtype, "y_val"), None


def _is_true(result: Any) -> bool:
    """A callback may return anything; True stops."""
    return isinstance(result, bool | np.bool_) and bool(result)
