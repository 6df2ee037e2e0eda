"""`fit`: from arrays to a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Never

import numpy as np

from dlx import (
    arguments,
    checkpoints,
    checks,
    data,
    display,
    evidence,
    initializers,
    losses,
    memory,
    nearest,
    network,
    parameters,
    ranges,
    scoring,
    steps,
    targets,
    training,
)
from dlx.backend import Backend, common_backend, get_backend
from dlx.model import Network
from dlx.network import Params


@nearest.closed
def fit(
    X: Any,
    y: Any,
    layer_dims: Sequence[int],
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
    Z = f(... f(X W_1 + b_1) ...) W_L + b_L.

    Parameters
    ----------
    X : array (n, d0)
        Rows are samples. Integers are kept as they are and converted a batch at a time.
    y : array (n,) or (n, K)
        Labels - integers 0..K-1, booleans or strings -, rows of probabilities, several yes-or-no labels a row, or
        real numbers.
    layer_dims : sequence of int
        (d0, ..., K): the widths of input, hidden layers and output.
    activation : str, Activation, pair of functions (f, df), or a sequence of one for each hidden layer
        See `dlx.activations`. Functions of your own get arrays of the backend's library, (n, d): f(z) and df(z, a) with
        a = f(z).
    loss : str, Loss, or functions (value, delta) or (value, delta, predict)
        "auto" is cross-entropy for labels (binary for one output) and squared error for real targets. See `dlx.losses`.
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
    init : str, function, or a sequence of (W, b)
        See `dlx.initializers`; "auto" is what the activation's paper says. Arrays are copied.
    validation : float in (0, 1), or (X_val, y_val), optional
        Held-out rows whose loss and score are reported after each epoch; a share is drawn at random, labels in
        proportion.
    patience : int >= 1, optional
        Stop after so many epochs in which the validation loss (without validation, the training loss) has not
        improved, and restore the weights of the best.
    sample_weight : array (n,), optional
        Weights >= 0 of rows. Only their proportions matter: they are scaled to mean 1.
    class_weight : "balanced" or dict of label to weight, optional
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
        last checkpoint, to the same bits on the same backend and machine, even within an epoch; what has ended is
        returned. Only `epochs` may be raised, if the learning rate does not depend on it, and `backend`, `callbacks`,
        `verbose` and `checkpoint_every` changed; functions of your own are taken for the same. A generator passed as
        `rng` goes on as it would have. Ctrl-C and SIGTERM save, then end. The last two checkpoints are kept, each a
        file that `dlx.load` reads too.
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
        Trained, on the backend, with its `history`: a dict of lists with "loss" (while training: with
        penalties and dropout), "learning_rate", "seconds" and with validation "validation_loss" and "validation_score".

    Raises
    ------
    ValueError, TypeError
        An argument is wrong; raised before any work.
    BackendNotInstalled, BackendUnavailable
        The array library that was asked for is not there or cannot compute.
    DivergenceError
        The loss became non-finite or exploded; names epoch and batch.
    OutOfMemory
        Memory does not hold it; names the batch size and what needs how much.

    Warns
    -----
    UserWarning
        Ctrl-C ended the training; the weights so far are kept.

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
    names = data.names_of(X)
    verbose = arguments.verbosity(verbose)
    generator = arguments.generator(rng)
    initial = arguments.initializer(init, dims)
    X_val, y_val, share = arguments.validation_source(validation)
    data.require_names(X_val, names, "X_val")
    chosen = common_backend(
        backend,
        {
            **{"X": X, "y": y, "sample_weight": sample_weight, "X_val": X_val, "y_val": y_val},
            **parameters.named(initial if isinstance(initial, list) else [], "init"),
        },
    )
    X = data.real_rows(X, chosen, dims[0])
    stream = arguments.streaming(stream, X, settings.optimizer)
    name = data.working_dtype(dtype, X)
    compute = chosen.dtype(name)
    chosen = chosen.expecting(steps.work(X.shape[0], dims, settings))

    expected = memory.needs(X.shape, dims, settings.batch_size, settings.optimizer, 8 if name == "float64" else 4)
    explained = memory.explained(chosen, min(settings.batch_size, X.shape[0]), expected)
    with chosen.scope(), explained:
        features = data.features(X, chosen, name, dims[0], home=get_backend("numpy") if stream else chosen)
        y = targets.on_host(y, chosen)
        loss = arguments.loss_for(loss, y, dims[-1])
        settings = ranges.in_dtype(name, settings, hidden, loss, l2=l2, l1=l1)
        target = targets.check(y, loss, dims[-1], features.shape[0])
        weights = targets.weights(sample_weight, class_weight, target, chosen)
        with checkpoints.keeping(checkpoint, checkpoint_every, resume) as kept:
            if kept is not None:
                told = {"layer_dims": dims, "activation": hidden, "loss": loss, "l2": l2, "l1": l1, "dropout": rates}
                told |= {"init": tuple(initial) if isinstance(initial, list) else initial, "dtype": name, "X": X}
                told |= {"y": (target.Y, target.classes), "sample_weight": weights}
                told["feature_names"] = None if names is None else tuple(names)
                told["validation"] = share if X_val is None else _pair(X_val, y_val, chosen)
                kept.agree(told, settings, X.shape[0], chosen, generator, rng is not None)
            train_rows, held_rows = (None, None) if share is None else targets.split(target, share, generator)
            weights = targets.to_mean_one(weights, train_rows, held_rows)
            ranges.require_held_out(weights, held_rows, name)
            rows = targets.place(target, weights, features, chosen, name)
            held = _held_out(X_val, y_val, held_rows, rows, target, loss, dims, chosen, name)
            arguments.try_own_functions(hidden, loss, chosen, compute, dims[-1])
            if not isinstance(initial, list):
                initial = initializers.draw(initial, generator, dims, [each.init for each in hidden])
            parameters.require_real(initial, chosen, name, "init")
            parts = {"activation": list(hidden), "loss": loss, "classes": target.classes, "feature_names": names}
            net = Network(initial, **parts, backend=chosen, dtype=name)
            bound = partial(network.bind, dtype=name, hidden=hidden, loss=loss, dropout=rates, l2=l2, l1=l1)
            key = network.kind(name, hidden, loss, rates, l2, l1)
            task = steps.Task(chosen, bound(chosen), name, rows, train_rows, key)
            plain = None if key is None else bound(get_backend("numpy"))
            drawn, restored = (train_rows, held_rows), settings.patience is not None
            seen = evidence.facts(plain, initial, X, target, weights, drawn, restored, chosen, name)
            net.facts = seen._replace(dropout=any(rates))
            per_epoch = -(-task.size // settings.batch_size)
            resumed = None if kept is None else kept.resumed(net, settings, per_epoch, held is not None)
            _train(net, task, settings, generator, held, listeners, verbose, kept, resumed)
    return net


def _train(
    net: Network,
    task: steps.Task,
    settings: steps.Settings,
    rng: np.random.Generator,
    held: data.Rows | None,
    listeners: Mapping[str, Sequence[arguments.Listener]],
    verbose: int,
    kept: checkpoints.Checkpoints | None,
    resumed: training.Progress | None,
) -> None:
    """Give the network what the task teaches it, from its own parameters on or from where it is resumed."""
    params, start, done = (net.params, None, 0) if resumed is None else (*resumed[:2], resumed.start.epoch)
    compute = task.backend.dtype(task.dtype)

    def validate(params: Params) -> dict[str, float]:
        if held is None:
            return {}
        w = None if held.weights is None else held.weights[:, 0]
        return scoring.validation_figures(task.backend, task.net, net.loss, params, held, w, compute)

    def report(params: Params, history: training.History) -> bool:
        net.params, net.history = params, history
        show(history)
        return any([_is_true(listen(net)) for listen in listeners["on_epoch_end"]])

    for listen in listeners["on_start"]:
        listen(net)
    with display.progress(verbose, settings.epochs, task.size, done, losses.label(net.loss)) as show:
        net.params, net.history = training.train(
            task, settings, params, rng, validate, report, start, keeper=kept, resumed=resumed
        )
    for listen in listeners["on_end"]:
        listen(net)


def _pair(X_val: Any, y_val: Any, backend: Backend) -> tuple[Any, Any]:
    """The user's own validation rows as arrays."""
    return data.as_array(X_val, "X_val"), targets.on_host(y_val, backend, "y_val")


def _held_out(
    X_val: Any,
    y_val: Any,
    held_rows: data.HostArray | None,
    rows: data.Rows,
    target: targets.Targets,
    loss: losses.Loss,
    dims: Sequence[int],
    backend: Backend,
    dtype: str,
) -> data.Rows | None:
    """The validation rows on the backend: the user's own, or a share of the training data."""
    if X_val is None:
        return None if held_rows is None else data.some_rows(rows, held_rows, backend)
    features = data.features(X_val, backend, dtype, dims[0], "X_val")
    y_val = targets.on_host(y_val, backend, "y_val")
    checked = targets.check(y_val, loss, dims[-1], features.shape[0], target.classes, "y_val")
    return targets.place(checked, None, features, backend, dtype, "y_val")


def _is_true(result: Any) -> bool:
    """A callback may return anything; True stops."""
    return isinstance(result, bool | np.bool_) and bool(result)
