"""The whole network: its gradients beside three outsiders', several models at once, inputs left alone, no waiting."""

import functools
import types
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import test_dropout

import dlx
import oracles
from dlx import activations, losses, network, optimizers
from dlx.network import Layer
from dlx.training import flat as storage

NUMPY = dlx.get_backend("numpy")
N = 7
KEYS = [11, -(2**31), 2**31 - 1, -7]
EVERYTHING = {"l1": 0.03, "l2": 0.2, "dropped": 0.3, "weighted": True}
EXTRAS = {"plain": {}, **{name: {name: value} for name, value in EVERYTHING.items()}, "all": EVERYTHING}
HALF_SQUARE = activations.get((lambda z: 0.5 * z * z, lambda z, a: 1.0 * z))  # a user's own


class Case(NamedTuple):
    """A network and what it is trained with."""

    dims: tuple[int, ...]
    activation: activations.Activation = activations.tanh()
    loss: losses.Loss = losses.squared_error()
    l1: float = 0.0
    l2: float = 0.0
    dropped: float = 0.0
    weighted: bool = False

    def bind(self, be, dtype="float64"):
        depth = len(self.dims) - 2
        rates = tuple(self.dropped * (l + 1) / depth for l in range(depth))
        return network.bind(be, dtype, [self.activation] * depth, self.loss, dropout=rates, l2=self.l2, l1=self.l1)

    @property
    def keys(self):
        return KEYS[: len(self.dims) - 2] if self.dropped else None

    def sample(self, lead=(), seed=3):
        """Parameters (W, b, W, b ...) with so many leading axes, X, Y, weights: host arrays that nobody may write."""
        rng, K = np.random.default_rng(seed), self.dims[-1]
        params = [
            rng.standard_normal((*lead, rows, d_out)) for d_in, d_out in pairwise(self.dims) for rows in (d_in, 1)
        ]
        Y = {
            "real": 2.0 * rng.standard_normal((N, K)),
            "counts": 1.0 * rng.poisson(2.0, (N, K)),
            "binary": 1.0 * rng.integers(0, 2, (N, K)),
            "classes": np.eye(K)[rng.integers(0, K, N)],
        }[self.loss.targets]
        X, weights = rng.standard_normal((N, self.dims[0])), rng.uniform(0.2, 2.0, (N, 1))
        for each in (*params, X, Y, weights):
            each.flags.writeable = False
        return params, X, Y, weights if self.weighted else None


DIMS = [(3, 2), (3, 1), (1, 1), (3, 4, 2), (3, 1, 2), (3, 4, 1), (4, 5, 3, 2), (2, 3, 1, 3, 2), (1, 1, 1, 1, 1)]
ACTIVATIONS = {
    **{name: activations.get(name) for name in activations.ACTIVATIONS if name not in ("none", "logistic")},
    **{"leaky_relu(0.2)": activations.leaky_relu(0.2), "elu(0.7)": activations.elu(0.7), "custom": HALF_SQUARE},
}
LOSSES = {
    **{name: losses.get(name) for name in losses.LOSSES},
    **{"huber(0.5)": losses.huber(0.5), "cross_entropy(0.1)": losses.cross_entropy(0.1)},
    "quantile, one q per output": losses.quantile([0.1, 0.5, 0.9]),
    "through sigmoid": losses.through(activations.sigmoid(), losses.squared_error()),
}
CASES = {
    **{f"{dims}, all": Case(dims, **EVERYTHING) for dims in DIMS},
    **{name: Case((3, 4, 4, 3), activation=each, **EVERYTHING) for name, each in ACTIVATIONS.items()},
    **{name: Case((3, 4, 3), loss=each, **EVERYTHING) for name, each in LOSSES.items()},
}
MANY = {**CASES, **{f"{dims}, {name}": Case(dims, **extra) for dims in DIMS for name, extra in EXTRAS.items()}}


def over(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases)


def pairs(arrays):
    return tuple(Layer(*arrays[i : i + 2]) for i in range(0, len(arrays), 2))


def flat(params):
    return [each for layer in params for each in layer]


def assert_same(be, arrays, expected, tolerance):
    for found, each in zip(arrays, expected, strict=True):
        oracles.assert_close(be.to_host(found), each, tolerance)


def put(be, host, dtype="float64"):
    """What `sample` returns, on a backend."""
    params, *rest = host
    X, Y, weights = (None if each is None else be.asarray(each, dtype) for each in rest)
    return pairs([be.asarray(each, dtype) for each in params]), X, Y, weights


def gradients_of(case):
    """Loss and gradients on NumPy."""
    loss, gradients = network.loss_and_gradients(case.bind(NUMPY), *put(NUMPY, case.sample()), case.keys)
    return loss, flat(gradients)


def objective(net, params, X, Y, weights, keys):
    """The loss by dlx's own forward pass, for those who differentiate it."""
    Z = network.forward(net, params, X, keys).Zs[-1]
    return network.mean_loss(net.xp, net.loss.value(Z, Y), weights) + network.penalty(net, params)


OTHERS = {name: getattr(np, name) for name in ("arange", "int32", "expand_dims", "astype")}
COMPLEX = dlx.Backend(types.SimpleNamespace(**vars(oracles.COMPLEX), **OTHERS), name="complex")
COMPLEX.asarray = lambda x, dtype=None: np.asarray(x)
COMPLEX.dtype = lambda name: np.dtype(complex)


@over(MANY)
def test_gradients_by_complex_step(case):
    params, *rest = case.sample()
    net = case.bind(COMPLEX)
    loss, found = gradients_of(case)
    assert loss == pytest.approx(float(np.real(objective(net, pairs(params), *rest, case.keys))), rel=1e-13)
    for which, (param, gradient) in enumerate(zip(params, found, strict=True)):

        def moved(copies, which=which):  # many models at once, one entry moved in each
            all_of = [np.broadcast_to(each, (len(copies), *each.shape)).astype(complex) for each in params]
            return objective(net, pairs([*all_of[:which], copies, *all_of[which + 1 :]]), *rest, case.keys)

        oracles.assert_close(gradient, oracles.complex_gradient(moved, param), 1e-12)


@oracles.by_library(oracles.AUTODIFF)
@over(CASES)
def test_gradients_by_automatic_differentiation(case, library):
    be = dlx.get_backend(library)
    params, *rest = put(be, case.sample())

    def of_vector(xp, array):
        net = case.bind(be)
        return be.compile(lambda x: objective(net, storage.unravel(xp, x, params), *rest, case.keys))

    value, gradient = oracles.AUTODIFF[library](of_vector, np.concatenate([each.ravel() for each in case.sample()[0]]))
    loss, found = gradients_of(case)
    oracles.assert_close(loss, value, 1e-12)
    oracles.assert_close(np.concatenate([each.ravel() for each in found]), gradient, 1e-12)


def torch_network(case):
    """Loss and gradients of torch.nn's own network, with masks from plain integers."""
    import torch
    from torch.nn import functional as F

    host, X, Y, weights = case.sample()
    linears, A, penalty = [], torch.tensor(X), 0.0
    for l, (W, b) in enumerate(pairs(host)):
        linear = torch.nn.Linear(*W.shape, dtype=torch.float64)
        linear.load_state_dict({"weight": torch.tensor(W.T), "bias": torch.tensor(b[0])})
        linears.append(linear)
        penalty = penalty + 0.5 * case.l2 * linear.weight.square().sum() + case.l1 * linear.weight.abs().sum()
        A = linear(A)
        if l < len(case.dims) - 2:
            A = oracles.ACTIVATIONS["torch"][case.activation.name](F, A, **case.activation.settings)
            if case.keys:
                rate = case.bind(NUMPY).dropout[l]
                A = A * torch.tensor(test_dropout.reference(case.keys[l], *A.shape, rate))
    values = oracles.TORCH_LOSSES["torch"][case.loss.name](F, A, torch.tensor(Y), **case.loss.settings).sum(1)
    loss = (values if weights is None else values * torch.tensor(weights[:, 0])).mean() + penalty
    loss.backward()
    gradients = [(linear.weight.grad.T.numpy(), linear.bias.grad.numpy()[None]) for linear in linears]
    return loss.detach().numpy(), flat(gradients)


KNOWN, KNOWN_LOSSES = (table.get("torch", {}) for table in (oracles.ACTIVATIONS, oracles.TORCH_LOSSES))
TORCH = {name: case for name, case in MANY.items() if case.activation.name in KNOWN and case.loss.name in KNOWN_LOSSES}


@oracles.by_library(oracles.installed({"torch": "torch"}))
@over(TORCH)
def test_gradients_are_those_of_torchs_own_network(case, library):
    (loss, found), (value, expected) = gradients_of(case), torch_network(case)
    assert_same(NUMPY, [loss, *found], [value, *expected], 1e-12)


@pytest.mark.parametrize("name", ["plain", "all"])
def test_three_models_at_once_equal_three_runs(name, be):
    case = Case((4, 5, 3, 2), **EXTRAS[name])
    optimizer, gradients_at = dlx.adam(), be.compile(functools.partial(network.loss_and_gradients, case.bind(be)))
    update = be.compile(functools.partial(optimizers.step, optimizers.bind(optimizer, be)))
    host, *rest = case.sample(lead=(3,))

    def trained(models, X):
        params, X, Y, weights = put(be, ([each[models] for each in host], X, *rest[1:]))
        params = pairs([be.copy(each) for each in flat(params)])
        state, losses = optimizers.start(be.xp, optimizer, params), []
        for t in range(3):
            loss, gradients = gradients_at(params, X, Y, weights, case.keys)
            params, state = update(params, gradients, state, optimizer.coefficients(t + 1, 0.1), 0.99)
            losses.append(be.to_host(loss))
        scores = be.to_host(network.scores(case.bind(be), params, X))
        return [*map(be.to_host, flat(params)), np.stack(losses, axis=-1), scores]

    several = np.stack([rest[0], rest[0] + 1.0, -rest[0]])
    for X, rows in ((rest[0], [rest[0]] * 3), (several, several)):  # the same rows for all, or to each its own
        separate = zip(*(trained(model, rows[model]) for model in range(3)), strict=True)
        assert_same(NUMPY, trained(slice(None), X), map(np.stack, separate), 1e-13)


@over({name: CASES[name] for name in [*ACTIVATIONS, *LOSSES]})
def test_on_every_library_no_input_is_written_and_float32_stays(case, be):
    host = case.sample()
    params, X, Y, weights = put(be, host)  # which may share the memory of the host arrays
    loss, gradients = network.loss_and_gradients(case.bind(be), params, X, Y, weights, case.keys)
    network.scores(case.bind(be), params, X)
    for found, each in zip([*flat(params), X, Y, weights], [*case.sample()[0], *case.sample()[1:]], strict=True):
        np.testing.assert_array_equal(be.to_host(found), each)
    value, expected = gradients_of(case)
    assert_same(be, [loss, *flat(gradients)], [value, *expected], 1e-12)
    loss, gradients = network.loss_and_gradients(case.bind(be, "float32"), *put(be, host, "float32"), case.keys)
    assert all(each.dtype == be.dtype("float32") for each in [loss, *flat(gradients)])
    assert_same(be, [loss], [value], 1e-5)


def test_scores_are_those_of_forward_without_dropout(be):
    case = Case((4, 5, 3, 2), **EVERYTHING)
    params, X, *_ = put(be, case.sample())
    found, trace = network.scores(case.bind(be), params, X), network.forward(case.bind(be), params, X)
    assert trace.As[0] is X
    assert trace.masks == [None, None]
    np.testing.assert_array_equal(be.to_host(found), be.to_host(trace.Zs[-1]))
    assert not np.allclose(be.to_host(found), be.to_host(network.forward(case.bind(be), params, X, KEYS).Zs[-1]))


def test_rows_twice_change_neither_loss_nor_gradients(be):
    case = Case((3, 4, 2), l1=0.5, l2=3.0, weighted=True)  # a penalty by batch would halve
    params, *rest = case.sample()
    twice = put(be, (params, *(np.concatenate([each, each]) for each in rest)))
    loss, gradients = network.loss_and_gradients(case.bind(be), *twice, None)
    value, expected = gradients_of(case)
    assert_same(be, [loss, *flat(gradients)], [value, *expected], 1e-13)


def step_once(be, case, optimizer, wrap=lambda step: step):
    """The parameters and the loss of a whole step, with everything that the training puts into one."""
    net, update = case.bind(be, "float32"), optimizers.bind(optimizer, be)

    def step(params, state, X, Y, weights, keys, coefficients, shrink):
        loss, gradients = network.loss_and_gradients(net, params, X, Y, weights, keys)
        clipped = optimizers.clip_by_norm(be.xp, optimizers.clip_by_value(be.xp, gradients, 0.5), 1.0)
        params, state = optimizers.step(update, params, clipped, state, coefficients, shrink)
        return [*flat(params), loss]

    params, *rest = put(be, case.sample(), "float32")
    params = pairs([be.copy(each) for each in flat(params)])
    state = optimizers.start(be.xp, optimizer, params)
    return wrap(step)(params, state, *rest, case.keys, optimizer.coefficients(1, 0.1), 0.99)


def on_meta(case, optimizer):
    """On PyTorch's "meta" device tensors have no values: float(), bool() and copies to the host raise."""
    be = dlx.get_backend("torch:meta")
    with pytest.raises(RuntimeError, match="meta"):
        float(be.asarray(np.ones(1)))
    found = step_once(be, case, optimizer)
    assert {each.device.type for each in found} == {"meta"}
    return be, found


def traced(case, optimizer):
    """JAX traces with shapes only, and numbers are unknown too: the learning rate, dropout's keys."""
    import jax

    be = dlx.get_backend("jax")
    return be, step_once(be, case, optimizer, lambda step: functools.partial(jax.eval_shape, step))


BLIND = oracles.installed({"torch": on_meta, "jax": traced})
STEPS = {name: (case, dlx.adam()) for name, case in CASES.items() if name in {**ACTIVATIONS, **LOSSES}}
STEPS |= {name: (CASES["tanh"], optimizers.get(name)) for name in optimizers.OPTIMIZERS if name != "lbfgs"}


@oracles.by_library(BLIND)
@pytest.mark.parametrize(("case", "optimizer"), STEPS.values(), ids=STEPS)
def test_a_step_reads_no_value(case, optimizer, library):
    be, found = BLIND[library](case, optimizer)
    assert [tuple(each.shape) for each in found] == [each.shape for each in case.sample()[0]] + [()]
    assert all(each.dtype == be.dtype("float32") for each in found)


@pytest.mark.parametrize("name", ["tanh", "cross_entropy"])
def test_a_compiled_step_is_the_same(name, be):
    found = step_once(be, CASES[name], dlx.adam(), be.compile)
    assert_same(be, found, step_once(NUMPY, CASES[name], dlx.adam()), 1e-5)
