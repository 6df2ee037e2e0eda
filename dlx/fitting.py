"""`fit`: from arrays to a trained network. `prepare` does all that comes before the first update, `run` the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, Never

import numpy as np

from dlx import checks, initializers, losses, nearest, network, scoring
from dlx.backend import Array
from dlx.data import features, gaps, parameters, samples, targets
from dlx.data.features import HostArray
from dlx.data.placement import common_backend
from dlx.files import attempts, checkpoints
from dlx.model import Network
from dlx.network import Params
from dlx.report import evidence
from dlx.training import arguments, divergence, loop, progress_bar, ranges, state, steps
from dlx.training.plan import Plan, training_scope
from dlx.warm_start import begun_from, known_labels, require_same_classes

Asked = SimpleNamespace  # the arguments of `fit`, by their names
Held = tuple[features.Rows, HostArray | None]  # rows to validate on, and the numbers of those of them (all, if None)


class Job(NamedTuple):
    """A training that is ready for its first update: the `net` goes on from its own parameters, or from `resumed`.

    `held` are the rows to validate on. `saver` saves the training while it runs.
    """

    net: Network
    task: steps.Task
    settings: steps.Settings
    rng: np.random.Generator
    held: Held | None
    listeners: Mapping[str, Sequence[arguments.Listener]]
    verbose: int
    saver: checkpoints.Checkpoints | None
    resumed: state.TrainingState | None


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
    asked = Asked(**locals())
    nearest.refuse(unknown, "fit", fit)
    with prepare(asked) as job:
        return run(job)


@contextlib.contextmanager
def prepare(asked: Asked) -> Iterator[Job]:
    """The job that the arguments of `fit` ask for, all of them checked.

    An argument that is refused leaves no trace. What the job holds on to, such as the folder of its checkpoints, is let
    go of in the end.
    """
    listeners, verbose = arguments.listeners(asked.callbacks), arguments.verbosity(asked.verbose)
    rng = arguments.generator(asked.rng)
    X_val, y_val, share = arguments.validation_source(asked.validation)
    names = features.names_of(asked.X)
    features.require_names(X_val, names, "X_val")
    plan, settings, init, X, y = _plan(asked, X_val, y_val)
    backend, dtype, loss = plan.backend, plan.dtype, plan.loss
    with attempts.unmoved(rng) as attempt, training_scope(X, plan, settings):
        stays = arguments.streaming(asked.stream, X, settings.optimizer)
        place = (loss, plan.dims, backend, dtype)
        how: dict[str, Any] = {"stays": stays, "missing": plan.missing}
        given = samples.for_training(
            *(X, y, *place),
            **how,
            dense=settings.optimizer.full_batch,
            names=names,
            known=known_labels(asked.init, y),
            sample_weight=asked.sample_weight,
            class_weight=asked.class_weight,
        )
        require_same_classes(asked.init, given.target.classes)
        if network.weighs_targets(given.weights):
            remedy = "Multiply the terms by weights in"
            gaps.require_terms(loss, plan.dims[-1], "sample_weight", "be (n,) with", remedy)
        with checkpoints.keeping(asked.checkpoint, asked.checkpoint_every, asked.resume, attempt) as saver:
            if saver is not None:
                validation = share if X_val is None else _as_arrays(X_val, y_val, plan)
                identity = _identity(plan, init, X, given, names, validation)
                saver.agree(identity, settings, X.shape[0], backend, rng, asked.rng is not None)
            split: samples.Split = (None, None) if share is None else given.split(share, rng)
            gaps.require_in_each_column(given.target.present, split[0])
            given = given.of_mean_one(split)
            task = plan.task(given.on_backend(backend, dtype), split[0])
            held: Held | None = None if split[1] is None else (task.rows, split[1])
            if X_val is not None:
                own = samples.for_training(X_val, y_val, *place, **how, known=given.target.classes, suffix="_val")
                held = own.on_backend(backend, dtype), None
            arguments.try_own_functions(plan.hidden, loss, backend, backend.dtype(dtype), plan.dims[-1])
            pairs = _first_weights(asked.init, init, plan, rng)
            net = _network(plan, pairs, given.target.classes, names)
            net.facts = evidence.facts(plan, pairs, X, given, split, settings.patience is not None)
            resumed = None
            if saver is not None:
                batches = -(-task.size // settings.batch_size)
                resumed = saver.resumed(net, settings, batches, loop.figures(task, settings, held is not None))
            attempt.begun = True
            yield Job(net, task, settings, rng, held, listeners, verbose, saver, resumed)


def run(job: Job) -> Network:
    """The network of the job, trained."""
    net, task, settings, resumed, listeners = job.net, job.task, job.settings, job.resumed, job.listeners
    params, done = (net.params, 0) if resumed is None else (resumed.params, resumed.epoch)
    measures = loop.measures(task, settings, job.held is not None)

    def validate(params: Params) -> dict[str, float]:
        if job.held is None:
            return {"training_loss": divergence.loss_after(task, params, task.chosen)} if measures else {}
        rows, numbers = job.held
        return scoring.validation_figures(task.backend, task.net, net.loss, params, rows, rows.weights, numbers=numbers)

    def report(params: Params, history: loop.History) -> bool:
        net.params, net.history = params, history
        show(history)
        return any([_is_true(listen(net)) for listen in listeners["on_epoch_end"]])

    for listen in listeners["on_start"]:
        listen(net)
    with progress_bar.progress(job.verbose, settings.epochs, task.size, done, losses.label(net.loss)) as show:
        net.params, net.history = loop.train(
            task, settings, params, job.rng, validate, report, resumed, saver=job.saver
        )
    for listen in listeners["on_end"]:
        listen(net)
    return net


def _plan(asked: Asked, X_val: Any, y_val: Any) -> tuple[Plan, steps.Settings, Any, Array, HostArray]:
    """What is to be trained, how, and from which weights; X where it lies, and y on the host: their kinds decide."""
    dims = arguments.widths(asked.layer_dims)
    hidden = parameters.hidden_activations(asked.activation, len(dims) - 2)
    settings = arguments.settings(
        *(asked.optimizer, asked.learning_rate, asked.batch_size, asked.epochs, asked.shuffle, asked.patience),
        *(asked.clip_norm, asked.clip_value),
    )
    l2 = checks.number("l2", asked.l2, low=0, remedy="Use 1e-4, or 0 for none.")
    l1 = checks.number("l1", asked.l1, low=0, remedy="Use 1e-4, or 0 for none.")
    dropout = arguments.dropout_rates(asked.dropout, len(hidden), settings.optimizer)
    init = arguments.initializer(begun_from(asked.init, hidden, asked.X), dims)
    arrays = {"X": asked.X, "y": asked.y, "sample_weight": asked.sample_weight, "X_val": X_val, "y_val": y_val}
    arrays |= parameters.named(init if isinstance(init, list) else [], "init")
    backend = common_backend(asked.backend, arrays)
    X = features.real_rows(asked.X, backend, dims[0])
    dtype = features.working_dtype(asked.dtype, X)
    backend.dtype(dtype)
    with backend.scope():
        y = targets.on_host(asked.y, backend)
    loss = arguments.loss_for(asked.loss, y if asked.missing == "raise" else gaps.whole_rows(y), dims[-1])
    settings = ranges.in_dtype(dtype, settings, hidden, loss, l2=l2, l1=l1)
    missing = gaps.missing_rule(asked.missing, loss, dims[-1])
    backend = backend.expecting(steps.work(X.shape[0], dims, settings))
    return Plan(backend, dtype, dims, hidden, loss, dropout, l2, l1, missing), settings, init, X, y


def _as_arrays(X_val: Any, y_val: Any, plan: Plan) -> tuple[Any, Any]:
    """The user's own validation rows as arrays."""
    X_val = X_val if features.compressed(X_val) else features.as_array(X_val, "X_val")
    return X_val, targets.on_host(y_val, plan.backend, "y_val")


def _identity(
    plan: Plan, init: Any, X: Array, given: samples.Samples, names: list[str] | None, validation: Any
) -> dict[str, Any]:
    """What tells this training from another beside its settings, by the names of the arguments of `fit`."""
    return {
        "layer_dims": plan.dims,
        "activation": plan.hidden,
        "loss": plan.loss,
        "l2": plan.l2,
        "l1": plan.l1,
        "dropout": plan.dropout,
        "init": tuple(init) if isinstance(init, list) else init,
        "dtype": plan.dtype,
        "X": X,
        "y": (gaps.with_nan(given.target.Y, given.target.present), given.target.classes),
        "sample_weight": given.weights,
        "missing": None if plan.missing == "raise" else plan.missing,  # as in a file that is older than it
        "feature_names": None if names is None else tuple(names),
        "validation": validation,
    }


def _first_weights(asked: Any, init: Any, plan: Plan, rng: np.random.Generator) -> list[tuple[Any, Any]]:
    """The pairs (W, b) that `init` holds, or draws; those that were `asked` for, and not named, are checked."""
    pairs = init
    if not isinstance(init, list):
        pairs = initializers.draw(init, rng, plan.dims, [each.init for each in plan.hidden])
    if not isinstance(asked, str):
        parameters.require_real(pairs, plan.backend, plan.dtype, "init")
    return pairs  # type: ignore[no-any-return]


def _network(
    plan: Plan, pairs: Sequence[tuple[Any, Any]], classes: HostArray | None, names: list[str] | None
) -> Network:
    """The network with which the training begins."""
    parts: dict[str, Any] = {"activation": list(plan.hidden), "loss": plan.loss, "classes": classes}
    parts |= {"feature_names": names, "missing": plan.missing, "backend": plan.backend, "dtype": plan.dtype}
    return Network(pairs, **parts)


def _is_true(result: Any) -> bool:
    """A callback may return anything; True stops."""
    return isinstance(result, bool | np.bool_) and bool(result)
