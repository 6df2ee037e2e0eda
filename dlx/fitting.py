"""`fit`: from arrays to a trained network. `prepare` does all work before the first update, `run` does the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, Never

import numpy as np

from dlx import checks, initializers, losses, nearest, network, scoring
from dlx.backend import Array
from dlx.data import features, gaps, parameters, samples, targets
from dlx.data.placement import common_backend, in_precision
from dlx.files import attempts, checkpoints
from dlx.host import HostArray
from dlx.model import Network
from dlx.network import Params
from dlx.report import evidence
from dlx.training import arguments, divergence, loop, progress_bar, ranges, state, steps
from dlx.training.plan import Plan, training_scope
from dlx.warm_start import begun_from, known_labels, require_same_classes

Asked = SimpleNamespace  # the arguments of `fit` by their names
ValidationRows = tuple[features.Rows, HostArray | None]  # rows, and the numbers of those to validate on (None: all)


class Job(NamedTuple):
    """A training that is ready for its first update.

    It begins with the parameters of `net`, or goes on from the state `resumed`. `saver` saves it while it runs.
    """

    net: Network
    task: steps.Task
    settings: steps.Settings
    rng: np.random.Generator
    validation_rows: ValidationRows | None
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
    tf32: Any = None,
    rng: Any = None,
    **unknown: Never,
) -> Network:
    """Train a fully connected network on rows `X` and their targets `y`.

    Minimises  1/n Σ_i w_i loss(Z_i, y_i) + l2/2 Σ W² + l1 Σ |W|  over weights W and biases b, with the scores
    Z = f(... f(X W_1 + b_1) ...) W_L + b_L. A loss that is a sum over outputs may have a weight for each target:
    1/n Σ_i Σ_k w_ik loss_k(Z_ik, y_ik).

    Parameters
    ----------
    X : array (n, d0), data frame, list of rows, or matrix or array of SciPy's
        The inputs. Each row is a sample, each column holds numbers. Integers stay integers in memory; each batch is
        converted when it is needed. Sparse rows stay sparse on NumPy. On other libraries each batch is made dense, and
        for L-BFGS all rows are made dense at once.
    y : array (n,) or (n, K), list, or column of a data frame
        The targets, in an array of any library: one label for each row (integers, booleans or strings), rows of
        probabilities, several yes-or-no labels for each row, or real numbers.
        Integers within 0..K-1 are taken as class numbers. Other integers, and strings, are labels if there are exactly
        K distinct ones, or two for a network with one output; they are numbered in sorted order. Labels are compared
        exactly: integers of up to 64 bits, and strings with any NULs at their end. Whole floats are labels if `loss`
        names a loss for labels. For targets that are nan see `missing`.
    layer_dims : sequence of int >= 1
        The widths of all layers, (d0, ..., K): input, hidden layers and output. (d0, K) is a linear model.
    activation : str, Activation, pair of functions (f, df), or a sequence of one for each hidden layer, default "relu"
        The function after each hidden layer; see `dlx.activations`. Functions of your own get arrays (n, d) of the
        backend's library: f(z), and its derivative df(z, a) with a = f(z). They must depend on their arrays alone, as
        on a GPU or on JAX they are called only a few times, and what they did is repeated; see `dlx.activations.get`.
    loss : str, Loss, or functions (value, delta) or (value, delta, predict), default "auto"
        What is minimised; see `dlx.losses`. "auto" is cross-entropy for labels (binary for one output) and squared
        error for real targets. Name the loss where targets may be either: one-hot rows, integers in two dimensions
        and, for one output, floats that are all 0 or 1. Functions of your own must depend on their arrays alone, like
        those of an activation.
    optimizer : str or object such as ``dlx.adam(1e-3)``, default "adam"
        How the parameters are updated; see `dlx.optimizers`. "lbfgs" uses all rows at once, and an epoch is one of its
        iterations. For one of your own see `dlx.optimizers.Optimizer`.
    learning_rate : float > 0 or schedule, default 1e-3
        The factor of each update's step, or a schedule that changes it from update to update; see `dlx.schedules`.
        Leave it out if the optimizer object has a rate of its own. L-BFGS needs none.
    batch_size : int >= 1 or None, default 128
        The number of rows for each update. None, or more than n, takes all rows.
    epochs : int >= 1, default 100
        The number of passes over all rows.
    l2, l1 : float >= 0, default 0
        The rates of the penalties in the equation above. They apply to weights, not to biases, and do not depend on
        the batch size.
    dropout : float in [0, 1), or a sequence of one for each hidden layer, default 0
        The share of hidden units that is dropped at random in each update: 0.1 drops 10 %. Not for L-BFGS.
    init : str, function, Network, or a sequence of (W, b), default "auto"
        The first weights; see `dlx.initializers`. "auto" follows the paper of each activation. Arrays are copied. From
        a network, of any backend, the training goes on; its widths and activations must be those asked for.
    validation : float in (0, 1), or (X_val, y_val), optional
        The rows whose loss and score are computed after each epoch: a share of the rows, which is drawn at random with
        labels in their proportions and not trained on, or arrays of your own.
    patience : int >= 1, optional
        Stop after this many epochs without an improvement of the watched loss, and restore the best weights. The
        validation loss is watched if there is one. Otherwise it is the loss of all training rows, with penalties and
        without dropout, which is computed after each epoch. If an epoch is one batch without dropout, its own loss is
        watched. That is the loss of the weights before the update, and these weights are restored.
    sample_weight : array (n,) or (n, K), optional
        Weights >= 0 of rows, or of each target. Only their proportions matter: they are scaled to mean 1.
    class_weight : "balanced", or dict of label to weight, optional
        Weights >= 0 of labels, which multiply those of rows. A label that the dict does not name weighs 1. "balanced"
        gives each label a weight in inverse proportion to its number of rows. For several yes-or-no labels a row, use
        "balanced", or a dict {0: weight, 1: weight} for each of them: a sequence of K, or a dict of column to dict.
    missing : "raise", "mask" or "keep", default "raise"
        What nan in `y` means. "raise": an error. "mask": this target is missing; it weighs 0 in loss, gradient,
        validation and score, and weights have mean 1 over the others. The loss stays a mean over rows, so that it is
        smaller where more targets are missing. If a row with one label lacks it, drop the row instead. "keep": the
        loss, which must be of your own, is given nan as it is.
    clip_norm, clip_value : float > 0, optional
        The largest norm of the whole gradient, and the largest magnitude of each of its elements. Larger gradients are
        reduced to these limits. Not for L-BFGS.
    shuffle : bool, default True
        Whether the rows are put in a new random order for each epoch, so that batches differ.
    stream : bool, default False
        Whether `X` stays on the host and is sent to the device batch by batch, for data that do not fit on the device.
        On CuPy the next batch is gathered and copied while the device computes.
    callbacks : function or object, or a sequence of them, default ()
        A function is called after each epoch with the network so far. An object may have any of ``on_start(net)``,
        ``on_epoch_end(net)`` and ``on_end(net)``. The training stops when one of them returns True after an epoch. The
        arrays of this network are those in training: copy what you keep.
    checkpoint : path of a folder, optional
        Where the training is saved while it runs. Call `fit` again with the same arguments and data, and it goes on
        from the last checkpoint, even within an epoch, to the same bits; a training that has ended is returned as it
        is. The bits depend on the backend, its version, the machine and, on a CPU, the threads of the library (for
        NumPy, of its BLAS); a warning names what has changed, if the backend is the same.
        Only these arguments may change: `epochs` may be raised if the learning rate does not depend on it, and
        `backend`, `tf32`, `callbacks`, `verbose` and `checkpoint_every` are free. Functions of your own cannot be
        compared; they are assumed to be the same. A generator passed as `rng` goes on as it would have. Ctrl-C and
        SIGTERM save before they end the training. The last two checkpoints are kept, and `dlx.load` reads each of them
        as a network.
    checkpoint_every : "epoch", int >= 1 or datetime.timedelta, default "epoch"
        How often to save: after each epoch, after this many updates, or after this much time. The end is always saved.
    resume : "auto" or "ignore", default "auto"
        "auto" goes on from the checkpoint in the folder, if there is one. "ignore" starts anew.
    verbose : int, default 0
        0 shows nothing. 1 shows a progress bar, which needs tqdm, with the latest figures, rows per second and the
        time left. 2 prints a line for each epoch.
    backend : str, module, Backend or None, default None
        Where to compute, such as "cupy" or "torch:cuda"; see `dlx.get_backend`. None computes where X lies.
    dtype : "float32" or "float64", optional
        The dtype of parameters and computation. By default float64 for float64 data and float32 for all other data.
    tf32 : bool, default None
        Whether products of float32 arrays may be TF32, which is faster and has three correct digits in place of six.
        Only for CUDA devices, and on all libraries alike; see `Backend.with_tf32`. None is what a Backend that is
        passed as `backend` says, else False. The libraries' own settings have no effect.
    rng : None, int, SeedSequence, BitGenerator or Generator, default None
        The source of all random numbers, as for `numpy.random.default_rng` (SPEC 7). The same int gives the same
        network. A Generator is advanced.

    Returns
    -------
    Network
        The trained network on the backend. Its `history` is a dict of lists with an entry for each epoch: "loss" (the
        mean over batches, each before its update, with penalties and dropout), "learning_rate", "seconds", with
        `validation` also "validation_loss" and "validation_score", and "training_loss" if `patience` needs it.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong. Raised before any work, and without a trace: `rng` and folders are left as they were.
    BackendNotInstalled, BackendUnavailable
        The array library that was asked for is not installed or cannot compute.
    DivergenceError
        The loss became non-finite or exploded; the error names epoch and batch. It is also raised if the last update
        did so: whatever is returned or saved has a finite loss, and a finite validation loss.
    OutOfMemory
        The memory does not suffice; the error names the batch size and how much memory each part needs.

    Warns
    -----
    UserWarning
        Ctrl-C ended the training, and the weights so far are returned. Or a checkpoint goes on, but the bits may
        differ from those of a training that was not interrupted. Or the steps of a training on a CUDA device cannot be
        recorded and repeated because of a function of your own, so that it is slower.

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
    with contextlib.ExitStack() as resources:
        return run(prepare(X, y, asked, resources))


def prepare(X: Any, y: Any, asked: Asked, resources: contextlib.ExitStack) -> Job:
    """Check the arguments of `fit`, and return the job that they ask for.

    An argument that is refused leaves no trace. `resources` takes what the job needs until it has run, such as the
    backend's scope and the folder of its checkpoints.
    """
    listeners, verbose = arguments.listeners(asked.callbacks), arguments.verbosity(asked.verbose)
    rng = arguments.generator(asked.rng)
    X_val, y_val, share = arguments.validation_source(asked.validation)
    names = features.names_of(X)
    features.require_names(X_val, names, "X_val")
    attempt = resources.enter_context(attempts.unmoved(rng))
    plan, settings, init, X, y = _plan(X, y, X_val, y_val, asked, resources)
    backend, dtype, loss = plan.backend, plan.dtype, plan.loss
    stays = arguments.streaming(asked.stream, X, settings.optimizer)
    place = (loss, plan.dims, backend, dtype)
    how: dict[str, Any] = {"stays": stays, "missing": plan.missing}
    training = samples.for_training(
        *(X, y, *place),
        **how,
        dense=settings.optimizer.full_batch,
        names=names,
        known=known_labels(asked.init, y),
        sample_weight=asked.sample_weight,
        class_weight=asked.class_weight,
    )
    require_same_classes(asked.init, training.target.classes)
    if network.weighs_targets(training.weights):
        remedy = "Multiply the terms by weights in"
        gaps.require_terms(loss, plan.dims[-1], "sample_weight", "be (n,) with", remedy)
    folder = checkpoints.in_folder(asked.checkpoint, asked.checkpoint_every, asked.resume, attempt)
    saver = resources.enter_context(folder)
    if saver is not None:
        validation = share if X_val is None else _as_arrays(X_val, y_val, plan)
        identity = _identity(plan, init, X, training, names, validation)
        saver.require_same_training(identity, settings, X.shape[0], backend, rng, asked.rng is not None)
    split: samples.Split = (None, None) if share is None else training.split(share, rng)
    gaps.require_in_each_column(training.target.present, split[0])
    training = training.of_mean_one(split)
    task = plan.task(training.on_backend(backend, dtype), split[0])
    validation_rows: ValidationRows | None = None if split[1] is None else (task.rows, split[1])
    if X_val is not None:
        how |= {"known": training.target.classes, "suffix": "_val"}
        validation_rows = samples.for_training(X_val, y_val, *place, **how).on_backend(backend, dtype), None
    arguments.try_own_functions(plan.hidden, loss, backend, backend.dtype(dtype), plan.dims[-1])
    pairs = _starting_pairs(asked.init, init, plan, rng)
    net = _network(plan, pairs, training.target.classes, names)
    net.facts = evidence.facts(plan, pairs, X, training, split, settings.patience is not None)
    resumed = None
    if saver is not None:
        batches = -(-task.size // settings.batch_size)
        figures = loop.figures(task, settings, validation_rows is not None)
        resumed = saver.resumed(net, settings, batches, figures)
    attempt.begun = True
    return Job(net, task, settings, rng, validation_rows, listeners, verbose, saver, resumed)


def run(job: Job) -> Network:
    """Train the network of the job, and return it."""
    net, task, settings, resumed, listeners = job.net, job.task, job.settings, job.resumed, job.listeners
    params, epochs_done = (net.params, 0) if resumed is None else (resumed.params, resumed.epoch)
    measures = loop.measures(task, settings, job.validation_rows is not None)

    def validate(params: Params) -> dict[str, float]:
        if job.validation_rows is None:
            return {"training_loss": divergence.loss_after(task, params, task.chosen)} if measures else {}
        rows, numbers = job.validation_rows
        return scoring.validation_figures(task.backend, task.net, net.loss, params, rows, rows.weights, numbers=numbers)

    def report(params: Params, history: loop.History) -> bool:
        net.params, net.history = params, history
        show(history)
        stops = [_is_true(listener(net)) for listener in listeners["on_epoch_end"]]  # a list, so that all are called
        return any(stops)

    def told(path: tuple[str, bool] | None) -> None:
        assert net.facts is not None
        if path != net.facts.path:
            net.facts = net.facts._replace(path=path)

    for listener in listeners["on_start"]:
        listener(net)
    with progress_bar.progress(job.verbose, settings.epochs, task.size, epochs_done, losses.label(net.loss)) as show:
        net.params, net.history = loop.train(
            task, settings, params, job.rng, validate, report, resumed, saver=job.saver, told=told
        )
    for listener in listeners["on_end"]:
        listener(net)
    return net


def _plan(
    X: Any, y: Any, X_val: Any, y_val: Any, asked: Asked, resources: contextlib.ExitStack
) -> tuple[Plan, steps.Settings, Any, Array, HostArray]:
    """What to train, how, and from which weights; then X where it lies, and y on the host."""
    dims = arguments.widths(asked.layer_dims)
    hidden = parameters.hidden_activations(asked.activation, len(dims) - 2)
    settings = arguments.settings(
        *(asked.optimizer, asked.learning_rate, asked.batch_size, asked.epochs, asked.shuffle, asked.patience),
        *(asked.clip_norm, asked.clip_value),
    )
    l2 = checks.number("l2", asked.l2, low=0, remedy="Use 1e-4, or 0 for none.")
    l1 = checks.number("l1", asked.l1, low=0, remedy="Use 1e-4, or 0 for none.")
    dropout = arguments.dropout_rates(asked.dropout, len(hidden), settings.optimizer)
    init = arguments.initializer(begun_from(asked.init, hidden, X), dims)
    arrays = {"X": X, "y": y, "sample_weight": asked.sample_weight, "X_val": X_val, "y_val": y_val}
    arrays |= parameters.named(init if isinstance(init, list) else [], "init")
    backend = common_backend(asked.backend, arrays)
    X = features.real_rows(X, backend, dims[0])
    dtype = features.working_dtype(asked.dtype, X)
    backend.dtype(dtype)
    backend = in_precision(backend, asked.tf32, dtype)
    n = X.shape[0]
    backend = backend.expecting(steps.work(n, dims, settings), steps.updates(n, settings))
    resources.enter_context(training_scope(backend, dtype, X, dims, settings))
    y = targets.on_host(y, backend)
    loss = arguments.loss_for(asked.loss, y if asked.missing == "raise" else gaps.whole_rows(y), dims[-1])
    settings = ranges.in_dtype(dtype, settings, hidden, loss, l2=l2, l1=l1)
    missing = gaps.missing_rule(asked.missing, loss, dims[-1])
    return Plan(backend, dtype, dims, hidden, loss, dropout, l2, l1, missing), settings, init, X, y


def _as_arrays(X_val: Any, y_val: Any, plan: Plan) -> tuple[Any, Any]:
    """The user's own validation rows as arrays."""
    X_val = X_val if features.compressed(X_val) else features.as_array(X_val, "X_val")
    return X_val, targets.on_host(y_val, plan.backend, "y_val")


def _identity(
    plan: Plan, init: Any, X: Array, training: samples.Samples, names: list[str] | None, validation: Any
) -> dict[str, Any]:
    """What else than its settings tells this training from another, by the names of the arguments of `fit`."""
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
        "y": (gaps.with_nan(training.target.Y, training.target.present), training.target.classes),
        "sample_weight": training.weights,
        "missing": None if plan.missing == "raise" else plan.missing,  # as in files that are older than this argument
        "feature_names": None if names is None else tuple(names),
        "validation": validation,
    }


def _starting_pairs(asked_init: Any, init: Any, plan: Plan, rng: np.random.Generator) -> parameters.Pairs:
    """The pairs (W, b) that `init` holds or draws. They are checked, unless the user named one of dlx's own draws."""
    pairs: parameters.Pairs = init
    if not isinstance(init, list):
        pairs = initializers.draw(init, rng, plan.dims, [activation.init for activation in plan.hidden])
    if not isinstance(asked_init, str):
        parameters.require_real(pairs, plan.backend, plan.dtype, "init")
    return pairs


def _network(
    plan: Plan, pairs: Sequence[tuple[Any, Any]], classes: HostArray | None, names: list[str] | None
) -> Network:
    """The network before its first update."""
    parts: dict[str, Any] = {"activation": list(plan.hidden), "loss": plan.loss, "classes": classes}
    parts |= {"feature_names": names, "missing": plan.missing, "backend": plan.backend, "dtype": plan.dtype}
    return Network(pairs, **parts)


def _is_true(result: Any) -> bool:
    """Whether a callback returned True, which stops the training; it may return anything else."""
    return isinstance(result, bool | np.bool_) and bool(result)
