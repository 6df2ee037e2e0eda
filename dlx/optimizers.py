"""Optimizers: arithmetic only. Stopping, printing and validating are the training's.

gradient_descent (alias "sgd"), momentum, nesterov, rmsprop, adagrad, adam, adamw, nadam, lion; "lbfgs" is
`dlx.lbfgs`. The first argument of each is its learning rate; every other setting is named.

Each is two functions. ``coefficients(t, rate)`` turns the update's number t = 1, 2, ... and the learning rate into
Python floats on the host, in double precision, so that no array library computes 1 - b2^t in float32. ``bind(xp)``
gives the elementwise formula ``update(w, g, *slots, *coefficients) -> (w, *slots)`` for one parameter array, its
gradient and its slots, arrays of the same shape that start at zero. It may consume its arguments: augmented
assignment writes in place where the library allows it and rebinds where not. A user's own is an `Optimizer` too;
there it is said what its functions are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from dlx import checks, quasi_newton, schedules
from dlx.backend import Array, Backend, Namespace
from dlx.network import Layer, Params
from dlx.quasi_newton import Parts

Rate = float | schedules.Schedule | None
Update = Callable[..., tuple[Array, ...]]
State = tuple[tuple[tuple[Array, ...], ...], ...]  # for each layer the slots of W and those of b


class Optimizer(NamedTuple):
    """A first-order optimizer.

    `learning_rate` is a number, a schedule, or None for fit's own; `slots` counts the arrays of state for each
    parameter; `weight_decay` is decoupled: W becomes W (1 - rate · weight_decay) before the update, biases are free.
    ``coefficients(t, rate)`` is called on the host before each epoch, for each of its updates. Its properties are those
    that `dlx.LBFGS` has too: a training asks for these, and not which of the two it has.

    The update of a user's own gets the coefficients as numbers. On CUDA devices, and everywhere on JAX, a step is
    recorded or compiled once and then repeated: there the update is called only a few times, and the coefficients are
    arrays of shape () in the dtype of w. On NumPy with numba it is so where the recording knows all that the update
    does. So it must depend on its arguments alone, and not on global state, random numbers or the number of calls; what
    changes with t belongs to the coefficients. On CuPy and PyTorch, an update that waits for the device, as float(rate)
    does, or copies from or to the host makes the training slower, after a warning. JAX refuses one that waits.
    """

    name: str
    settings: Mapping[str, float]
    learning_rate: Rate
    weight_decay: float
    slots: int
    coefficients: Callable[[int, float], tuple[float, ...]]
    bind: Callable[[Namespace], Update]

    def __repr__(self) -> str:
        given = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        decay = {"weight_decay": self.weight_decay} if self.weight_decay else {}
        return checks.called(self.name, {**given, **self.settings, **decay})

    @property
    def description(self) -> dict[str, Any]:
        """Its name and its settings, by which a checkpoint tells it from others; the rate is fit's."""
        return {"name": self.name, "weight_decay": self.weight_decay, **self.settings}

    @property
    def constants(self) -> Mapping[str, float]:
        """The settings that meet arrays, so that the working dtype must hold them."""
        return {"weight_decay": self.weight_decay, **self.settings}

    @property
    def takes_rate(self) -> Literal[True]:
        """Whether it takes a learning rate."""
        return True

    @property
    def full_batch(self) -> Literal[False]:
        """Whether an epoch is one iteration over all rows at once, and not one update for each batch."""
        return False

    @property
    def loss_after_epoch(self) -> bool:
        """Whether the loss of an epoch is that of the weights which the epoch leaves."""
        return False

    @property
    def vectors(self) -> int:
        """How many vectors, as long as all parameters together, it holds between two epochs."""
        return self.slots

    def parts(self, state: State) -> Parts:
        """The state for a file."""
        return Parts(slots=by_slot(state, self.slots))

    def state_of(self, parts: Parts, layers: int, updates: int) -> State:
        """The state from a file, after so many updates; ValueError where the parts cannot be its own."""
        if (len(parts.slots), parts.numbers) != (self.slots, None):
            raise ValueError(f"{len(parts.slots)} slots instead of {self.slots}")
        return by_layer(parts.slots, layers)

    def __reduce__(self) -> tuple[Any, ...]:
        """One of dlx's own is pickled by its name: its formula is a function that no pickle can hold."""
        given = {**self.settings, "learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        return (_named, (self.name, given)) if is_own(self) else (Optimizer, tuple(self))


def _decay(weight_decay: float) -> float:
    return checks.number("weight_decay", weight_decay, low=0, remedy="Use 1e-2, or 0 for none.")


def _beta(name: str, value: float) -> float:
    return checks.number(name, value, low=0, high=1, below=True, remedy="Use 0.9, for example.")


def _eps(value: float) -> float:
    return checks.number("eps", value, low=0, above=True, remedy="Use 1e-8, for example.")


def _weights(beta: float, t: int) -> float:
    """1 + β + ... + β^{t-1} = (1 - β^t) / (1 - β): what the weights of a sum s ← β s + g add up to."""
    return (1.0 - beta**t) / (1.0 - beta)


def _only_rate(t: int, rate: float) -> tuple[float, ...]:
    return (rate,)


def gradient_descent(learning_rate: Rate = None, *, weight_decay: float = 0.0) -> Optimizer:
    """Gradient descent; stochastic, if batches are smaller than the data (alias "sgd").

    w ← w - η g

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    weight_decay : float >= 0, default 0.0
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Source: Robbins and Monro 1951. The same as torch.optim.SGD and optax.sgd.

    Examples
    --------
    >>> import dlx
    >>> dlx.gradient_descent(0.1)
    gradient_descent(learning_rate=0.1)
    """

    def bind(xp: Namespace) -> Update:
        def update(w: Array, g: Array, rate: float) -> tuple[Array, ...]:
            w -= rate * g
            return (w,)

        return update

    return Optimizer("gradient_descent", {}, learning_rate, _decay(weight_decay), 0, _only_rate, bind)


def momentum(learning_rate: Rate = None, *, beta: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Gradient descent with momentum.

    m ← β m + g,  w ← w - η m

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    beta : float in [0, 1), default 0.9
        β, the share of the sum m that is kept in each update: 0 is gradient descent.
    weight_decay : float >= 0, default 0.0
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Source: Polyak 1964. The form of torch.optim.SGD and optax.sgd; scikit-learn keeps -η m instead, which is the
    same while η is constant.

    Examples
    --------
    >>> import dlx
    >>> dlx.momentum(beta=0.95)
    momentum(beta=0.95)
    """
    beta = _beta("beta", beta)

    def bind(xp: Namespace) -> Update:
        def update(w: Array, g: Array, m: Array, rate: float) -> tuple[Array, ...]:
            m *= beta
            m += g
            w -= rate * m
            return w, m

        return update

    return Optimizer("momentum", {"beta": beta}, learning_rate, _decay(weight_decay), 1, _only_rate, bind)


def nesterov(learning_rate: Rate = None, *, beta: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Nesterov's accelerated gradient, as a correction of momentum.

    m ← β m + g,  w ← w - η (g + β m)

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    beta : float in [0, 1), default 0.9
        β, the share of the sum m that is kept in each update: 0 is gradient descent.
    weight_decay : float >= 0, default 0.0
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Source: Nesterov 1983, in the form of Sutskever et al. 2013; the same as torch.optim.SGD and optax.sgd with
    nesterov=True.

    Examples
    --------
    >>> import dlx
    >>> dlx.nesterov(beta=0.95)
    nesterov(beta=0.95)
    """
    beta = _beta("beta", beta)

    def bind(xp: Namespace) -> Update:
        def update(w: Array, g: Array, m: Array, rate: float) -> tuple[Array, ...]:
            m *= beta
            m += g
            w -= rate * (g + beta * m)
            return w, m

        return update

    return Optimizer("nesterov", {"beta": beta}, learning_rate, _decay(weight_decay), 1, _only_rate, bind)


def rmsprop(
    learning_rate: Rate = None, *, beta: float = 0.9, eps: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    """RMSProp: each weight's step is divided by the running root mean square of its gradient.

    v ← β v + (1 - β) g²,  w ← w - η g / (√v + ε)

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    beta : float in [0, 1), default 0.9
        β, of the running mean v of g²: the nearer to 1, the more updates it averages.
    eps : float > 0, default 1e-8
        ε, which bounds the step where the gradient has been almost zero so far.
    weight_decay : float >= 0, default 0.0
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Source: Tieleman and Hinton 2012, Coursera lecture 6.5. The same as torch.optim.RMSprop with alpha=β; optax by
    default puts ε under the root.

    Examples
    --------
    >>> import dlx
    >>> dlx.rmsprop(beta=0.99)
    rmsprop(beta=0.99, eps=1e-08)
    """
    beta, eps = _beta("beta", beta), _eps(eps)
    new = 1.0 - beta

    def bind(xp: Namespace) -> Update:
        def update(w: Array, g: Array, v: Array, rate: float) -> tuple[Array, ...]:
            v *= beta
            v += new * (g * g)
            w -= rate * g / (xp.sqrt(v) + eps)
            return w, v

        return update

    return Optimizer("rmsprop", {"beta": beta, "eps": eps}, learning_rate, _decay(weight_decay), 1, _only_rate, bind)


def adagrad(learning_rate: Rate = None, *, eps: float = 1e-10, weight_decay: float = 0.0) -> Optimizer:
    """AdaGrad: each weight's step is divided by the root of the sum of its squared gradients.

    v ← v + g²,  w ← w - η g / (√v + ε)

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    eps : float > 0, default 1e-10
        ε, which bounds the step where the gradient has been almost zero so far.
    weight_decay : float >= 0, default 0.0
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Source: Duchi, Hazan and Singer 2011, JMLR 12. The same as torch.optim.Adagrad; optax starts v at 0.1.

    Examples
    --------
    >>> import dlx
    >>> dlx.adagrad(0.1)
    adagrad(learning_rate=0.1, eps=1e-10)
    """
    eps = _eps(eps)

    def bind(xp: Namespace) -> Update:
        def update(w: Array, g: Array, v: Array, rate: float) -> tuple[Array, ...]:
            v += g * g
            w -= rate * g / (xp.sqrt(v) + eps)
            return w, v

        return update

    return Optimizer("adagrad", {"eps": eps}, learning_rate, _decay(weight_decay), 1, _only_rate, bind)


def adam(
    learning_rate: Rate = None, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    """Adam: a step along the mean of the gradient, divided by the root of the mean of its square.

    m ← b1 m + (1 - b1) g,  v ← b2 v + (1 - b2) g²
    w ← w - η m̂ / (√v̂ + ε),  m̂ = m / (1 - b1^t),  v̂ = v / (1 - b2^t)

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    b1 : float in [0, 1), default 0.9
        Of the running mean m of the gradient: the nearer to 1, the more updates it averages.
    b2 : float in [0, 1), default 0.999
        The same of the running mean v of its square.
    eps : float > 0, default 1e-8
        ε, which bounds the step where the gradient has been almost zero so far.
    weight_decay : float >= 0, default 0.0
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Numerics
    --------
    The slots hold m / (1 - b1) and v / (1 - b2), so that m ← b1 m + g and v ← b2 v + g². Those factors and the
    corrections are folded into two numbers, η r/s and ε r, with s = (1 - b1^t)/(1 - b1) and
    r = √((1 - b2^t)/(1 - b2)): the same in exact arithmetic, and three passes less.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1. Without weight_decay the same as optax.adam and as
    torch.optim.Adam, whose own weight_decay is an L2 penalty.

    Examples
    --------
    >>> import dlx
    >>> dlx.adam(1e-2).coefficients(1, 1e-2)  # the first step is η g / (|g| + ε)
    (0.01, 1e-08)
    """
    return _adam("adam", learning_rate, b1, b2, eps, weight_decay)


def adamw(
    learning_rate: Rate = None, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01
) -> Optimizer:
    """Adam with decoupled weight decay, which is on by default.

    W ← W (1 - η weight_decay), then the update of `adam`

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    b1 : float in [0, 1), default 0.9
        Of the running mean m of the gradient: the nearer to 1, the more updates it averages.
    b2 : float in [0, 1), default 0.999
        The same of the running mean v of its square.
    eps : float > 0, default 1e-8
        ε, which bounds the step where the gradient has been almost zero so far.
    weight_decay : float >= 0, default 0.01
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2. The same as torch.optim.AdamW and optax.adamw for
    weights; both decay biases too unless told otherwise.

    Examples
    --------
    >>> import dlx
    >>> dlx.adamw(weight_decay=0.1)
    adamw(b1=0.9, b2=0.999, eps=1e-08, weight_decay=0.1)
    """
    return _adam("adamw", learning_rate, b1, b2, eps, weight_decay)


def nadam(
    learning_rate: Rate = None, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    """Adam with Nesterov's look-ahead.

    w ← w - η m̂ / (√v̂ + ε),  m̂ = b1 m / (1 - b1^{t+1}) + (1 - b1) g / (1 - b1^t),  with m and v̂ as in `adam`

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    b1 : float in [0, 1), default 0.9
        Of the running mean m of the gradient: the nearer to 1, the more updates it averages.
    b2 : float in [0, 1), default 0.999
        The same of the running mean v of its square.
    eps : float > 0, default 1e-8
        ε, which bounds the step where the gradient has been almost zero so far.
    weight_decay : float >= 0, default 0.0
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Source: Dozat 2016, with constant b1. The same as optax.nadam; torch.optim.NAdam and Keras warm b1 up by the factor
    1 - 0.96^{t/250}/2, which the paper offers as an option.

    Examples
    --------
    >>> import dlx
    >>> dlx.nadam(1e-3)
    nadam(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08)
    """
    return _adam("nadam", learning_rate, b1, b2, eps, weight_decay, looks_ahead=True)


def _adam(
    name: str, learning_rate: Rate, b1: float, b2: float, eps: float, weight_decay: float, looks_ahead: bool = False
) -> Optimizer:
    """Adam, or NAdam where it `looks_ahead`; the two differ in m̂."""
    b1, b2, eps = _beta("b1", b1), _beta("b2", b2), _eps(eps)

    def coefficients(t: int, rate: float) -> tuple[float, ...]:
        r = math.sqrt(_weights(b2, t))
        ahead = (rate * r * b1 / _weights(b1, t + 1),) if looks_ahead else ()
        return rate * r / _weights(b1, t), eps * r, *ahead

    def bind(xp: Namespace) -> Update:
        def update(
            w: Array, g: Array, m: Array, v: Array, now: float, eps_t: float, ahead: float = 0.0
        ) -> tuple[Array, ...]:
            m *= b1
            m += g
            v *= b2
            v += g * g
            step = ahead * m + now * g if looks_ahead else now * m
            w -= step / (xp.sqrt(v) + eps_t)
            return w, m, v

        return update

    settings = {"b1": b1, "b2": b2, "eps": eps}
    return Optimizer(name, settings, learning_rate, _decay(weight_decay), 2, coefficients, bind)


def lion(learning_rate: Rate = None, *, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 0.0) -> Optimizer:
    """Lion: every weight moves by ±η, the sign of an interpolated momentum.

    w ← w - η sign(b1 m + (1 - b1) g),  m ← b2 m + (1 - b2) g

    Its steps are all of size η: use a third to a tenth of Adam's.

    Parameters
    ----------
    learning_rate : float > 0 or schedule, default None
        η. None takes the learning rate of `fit`.
    b1 : float in [0, 1), default 0.9
        The weight of m, beside the newest gradient, in the sign.
    b2 : float in [0, 1), default 0.99
        Of the running mean m of the gradient: the nearer to 1, the more updates it averages.
    weight_decay : float >= 0, default 0.0
        In each update, W first becomes W (1 - η weight_decay); biases do not decay.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        A setting is out of range or not a number.

    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2. The same as optax.lion.

    Examples
    --------
    >>> import dlx
    >>> dlx.lion(1e-4)
    lion(learning_rate=0.0001, b1=0.9, b2=0.99)
    """
    b1, b2 = _beta("b1", b1), _beta("b2", b2)
    new1, new2 = 1.0 - b1, 1.0 - b2

    def bind(xp: Namespace) -> Update:
        def update(w: Array, g: Array, m: Array, rate: float) -> tuple[Array, ...]:
            c = b1 * m + new1 * g
            w -= rate * (xp.astype(c > 0, c.dtype) - xp.astype(c < 0, c.dtype))
            m *= b2
            m += new2 * g
            return w, m

        return update

    return Optimizer("lion", {"b1": b1, "b2": b2}, learning_rate, _decay(weight_decay), 1, _only_rate, bind)


def is_own(optimizer: Optimizer) -> bool:
    """Whether its formula is the one of dlx's that it is named after."""
    return checks.is_made_by(OPTIMIZERS, optimizer, beside=("learning_rate", "weight_decay", "coefficients"))


def bind(optimizer: Optimizer, backend: Backend) -> Update:
    """The update on one backend, fused where it is one of dlx's own and the library can."""
    update = optimizer.bind(backend.xp)
    fused: Update = backend.fuse(update, optimizer.name) if is_own(optimizer) else update
    return fused


def start(home: Namespace | Backend, optimizer: Optimizer, params: Params) -> State:
    """The state before the first update: zeros."""

    return tuple(tuple(tuple(home.zeros_like(w) for _ in range(optimizer.slots)) for w in layer) for layer in params)


def by_slot(state: State, slots: int) -> tuple[Params, ...]:
    """The state as so many sets of arrays that have the shapes of the parameters: one set for each slot."""
    return tuple(tuple(Layer(W[k], b[k]) for W, b in state) for k in range(slots))


def by_layer(sets: Sequence[Params], layers: int) -> State:
    """The state of a network of so many layers from the sets that `by_slot` makes of it."""
    return tuple((tuple(each[l].W for each in sets), tuple(each[l].b for each in sets)) for l in range(layers))


def step(
    update: Update,
    params: Params,
    gradients: Params,
    state: State,
    coefficients: tuple[float, ...],
    shrink: float | None,
) -> tuple[Params, State]:
    """One update of every parameter, weights first multiplied by `shrink`, if any. Consumes `params` and `state`."""
    new_params, new_state = [], []
    for (W, b), slopes, slots in zip(params, gradients, state, strict=True):
        if shrink is not None:
            W *= shrink
        updated = [update(w, g, *s, *coefficients) for w, g, s in zip((W, b), slopes, slots, strict=True)]
        new_params.append(Layer(*(w for w, *_ in updated)))
        new_state.append(tuple(tuple(slots) for _, *slots in updated))
    return tuple(new_params), tuple(new_state)


def clip_by_value(xp: Namespace, gradients: Params, limit: float) -> Params:
    """g ← min(max(g, -limit), limit) for every element."""
    return tuple(Layer(*(xp.minimum(xp.maximum(g, -limit), limit) for g in layer)) for layer in gradients)


def clip_by_norm(xp: Namespace, gradients: Params, limit: float) -> Params:
    """g ← g · limit / max(‖g‖, limit), with ‖g‖ the Euclidean norm over all parameters of one model.

    Source: Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063. The same as optax.clip_by_global_norm.
    """
    axes = (-2, -1) if gradients[0].W.ndim > 1 else -1  # all weights of a network may come as one vector
    squares = [xp.sum(g * g, axis=axes, keepdims=True) for layer in gradients for g in layer]
    factor = limit / xp.maximum(xp.sqrt(sum(squares[1:], start=squares[0])), limit)
    return tuple(Layer(dW * factor, db * factor) for dW, db in gradients)


AnyOptimizer = Optimizer | quasi_newton.LBFGS  # the two share the properties that a training asks for
OPTIMIZERS: Mapping[str, Callable[..., AnyOptimizer]] = {
    **{make.__name__: make for make in (gradient_descent, momentum, nesterov, rmsprop, adagrad)},
    **{make.__name__: make for make in (adam, adamw, nadam, lion)},
    "sgd": gradient_descent,
    "lbfgs": quasi_newton.lbfgs,
}


def get(optimizer: Any) -> AnyOptimizer:
    """An optimizer from its name or from itself."""
    if isinstance(optimizer, AnyOptimizer):
        return optimizer
    return OPTIMIZERS[checks.choice("optimizer", optimizer, OPTIMIZERS, "Or pass an object: dlx.adam(1e-3).")]()


def _named(name: str, settings: Mapping[str, Any]) -> Any:
    """The optimizer of that name and those settings."""
    return OPTIMIZERS[name](**settings)
