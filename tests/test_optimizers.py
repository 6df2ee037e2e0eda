"""Every optimizer beside torch's and optax's, on every library, compiled, for several models at once; clipping."""

import numpy as np
import pytest

import dlx
import oracles
from dlx import activations, losses, network, optimizers
from dlx.network import Layer

NUMPY = dlx.get_backend("numpy")
STEPS, DECAY = 50, 0.1
SHAPES = [(4, 5), (1, 5), (5, 3), (1, 3)]
PLAIN = [
    *(dlx.gradient_descent(), dlx.momentum(), dlx.momentum(beta=0.5), dlx.nesterov(), dlx.nesterov(beta=0.6)),
    *(dlx.rmsprop(), dlx.rmsprop(beta=0.7, eps=1e-3), dlx.adagrad(), dlx.adagrad(eps=1e-3)),
    *(make(**settings) for make in (dlx.adam, dlx.nadam) for settings in ({}, {"b1": 0.7, "b2": 0.9, "eps": 1e-3})),
    *(dlx.lion(), dlx.lion(b1=0.5, b2=0.8), dlx.adamw(), dlx.adamw(b1=0.7, b2=0.9, eps=1e-3, weight_decay=0.5)),
]
DECAYED = [optimizer._replace(weight_decay=DECAY) for optimizer in PLAIN if not optimizer.weight_decay][::2]
OPTIMIZERS = [*PLAIN, *DECAYED]


def title(optimizer):
    return " ".join(map(str, [optimizer.name, *optimizer.settings.values(), "decay", optimizer.weight_decay]))


every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=map(title, OPTIMIZERS))
LAST = {optimizer.name: optimizer for optimizer in OPTIMIZERS}  # all of them with decay
one_of_each = pytest.mark.parametrize("optimizer", LAST.values(), ids=LAST)

# our settings as theirs: torch.optim's names, and those of optax's directions
TORCH = {  # its NAdam warms b1 up, and it has no Lion
    "gradient_descent": ("SGD", lambda: {}),
    "momentum": ("SGD", lambda beta: {"momentum": beta}),
    "nesterov": ("SGD", lambda beta: {"momentum": beta, "nesterov": True}),
    "rmsprop": ("RMSprop", lambda beta, eps: {"alpha": beta, "eps": eps}),
    "adagrad": ("Adagrad", lambda eps: {"eps": eps}),
    "adam": ("Adam", lambda b1, b2, eps: {"betas": (b1, b2), "eps": eps}),
    "adamw": ("AdamW", lambda b1, b2, eps: {"betas": (b1, b2), "eps": eps}),
}
OPTAX = {  # its AdaGrad has ε under the root
    "gradient_descent": ("identity", lambda: {}),
    "momentum": ("trace", lambda beta: {"decay": beta}),
    "nesterov": ("trace", lambda beta: {"decay": beta, "nesterov": True}),
    "rmsprop": ("scale_by_rms", lambda beta, eps: {"decay": beta, "eps": eps, "eps_in_sqrt": False}),
    "adam": ("scale_by_adam", dict),
    "adamw": ("scale_by_adam", dict),
    "nadam": ("scale_by_adam", lambda **settings: {**settings, "nesterov": True}),
    "lion": ("scale_by_lion", dict),
}


def rate(t):
    """The learning rate of update t = 0, 1, ...; it falls, for some conventions differ only then."""
    return 0.02 / (1.0 + 0.05 * t)


def problem():
    """The start, as (W, b, W, b) in a network 4-5-3, and 50 batches (X, Y) of 8 rows."""
    rng = np.random.default_rng(7)
    start = [rng.standard_normal(shape) for shape in SHAPES]
    X, Y = rng.standard_normal((STEPS, 8, 4)), np.eye(3)[rng.integers(0, 3, (STEPS, 8))]
    return start, list(zip(X, Y, strict=True))


def pairs(arrays):
    return tuple(Layer(*arrays[i : i + 2]) for i in range(0, len(arrays), 2))


def flat(params):
    return [each for layer in params for each in layer]


def assert_same(be, params, expected, tolerance):
    for found, each in zip(flat(params), expected, strict=True):
        oracles.assert_close(be.to_host(found), each, tolerance)


def bind(be, dtype="float64"):
    return network.bind(be, dtype, [activations.tanh()], losses.cross_entropy())


def host_gradients(arrays, batch):
    found = network.loss_and_gradients(bind(NUMPY), pairs([np.asarray(each) for each in arrays]), *batch, None, None)
    return flat(found[1])


def numbers(optimizer, t):
    """What the training hands to update t = 0, 1, ..."""
    shrink = 1.0 - rate(t) * optimizer.weight_decay if optimizer.weight_decay else None
    return optimizer.coefficients(t + 1, rate(t)), shrink


def run(be, optimizer, dtype="float64", steps=STEPS, compile=lambda step: step):
    """The weights, and the state, after so many steps of dlx."""
    start, batches = problem()
    net, update = bind(be, dtype), optimizers.bind(optimizer, be)

    @compile
    def step(params, state, X, Y, coefficients, shrink):
        _, gradients = network.loss_and_gradients(net, params, X, Y, None, None)
        return optimizers.step(update, params, gradients, state, coefficients, shrink)

    params = pairs([be.copy(be.asarray(each, dtype)) for each in start])
    state = optimizers.start(be.xp, optimizer, params)
    for t, (X, Y) in enumerate(batches[:steps]):
        X, Y = be.asarray(X, dtype), be.asarray(Y, dtype)
        params, state = step(params, state, X, Y, *numbers(optimizer, t))
    return params, state


def run_torch(optimizer, peer, settings):
    import torch

    start, batches = problem()
    tensors = [torch.tensor(each) for each in start]
    by_hand = peer != "AdamW"  # the others couple their decay to the gradient
    decays = [0.0 if by_hand else optimizer.weight_decay, 0.0]
    groups = [{"params": tensors[which::2], "weight_decay": decay} for which, decay in enumerate(decays)]
    found = getattr(torch.optim, peer)(groups, lr=rate(0), **settings)
    for t, batch in enumerate(batches):
        for group in found.param_groups:
            group["lr"] = rate(t)
        for tensor, gradient in zip(tensors, host_gradients(tensors, batch), strict=True):
            tensor.grad = torch.tensor(gradient)
        for W in tensors[::2] if by_hand else []:
            W.mul_(1.0 - rate(t) * optimizer.weight_decay)
        found.step()
    return [tensor.numpy() for tensor in tensors]


def run_optax(optimizer, peer, settings):
    import jax
    import optax

    start, batches = problem()
    decay = optax.add_decayed_weights(optimizer.weight_decay, mask=[True, False, True, False])
    found = optax.chain(getattr(optax, peer)(**settings), decay, optax.scale_by_learning_rate(rate))
    arrays = [jax.numpy.asarray(each) for each in start]
    state, update = found.init(arrays), jax.jit(found.update)
    for batch in batches:
        gradients = [jax.numpy.asarray(each) for each in host_gradients(arrays, batch)]
        changes, state = update(gradients, state, arrays)
        arrays = optax.apply_updates(arrays, changes)
    return [np.asarray(each) for each in arrays]


PEERS = oracles.installed({"torch": (run_torch, TORCH), "optax": (run_optax, OPTAX)})
BESIDE = [(each, library) for library in PEERS for each in OPTIMIZERS if each.name in PEERS[library][1]]


@pytest.mark.parametrize(("optimizer", "library"), BESIDE, ids=[f"{title(each)} {library}" for each, library in BESIDE])
def test_fifty_steps_are_those_of_other_libraries(optimizer, library):
    compare, names = PEERS[library]
    peer, settings = names[optimizer.name]
    expected = compare(optimizer, peer, settings(**optimizer.settings))
    assert_same(NUMPY, run(NUMPY, optimizer)[0], expected, 1e-10)


def test_the_tables_name_every_optimizer():
    names = set(optimizers.OPTIMIZERS) - {"sgd", "lbfgs"}
    assert {each.name for each in PLAIN} == {each.name for each in OPTIMIZERS if each.weight_decay} == names
    assert all(getattr(dlx, name) is optimizers.OPTIMIZERS[name] for name in [*names, "lbfgs"])


@every_optimizer
def test_fifty_steps_are_the_same_on_every_library(optimizer, be):
    assert_same(be, run(be, optimizer)[0], flat(run(NUMPY, optimizer)[0]), 1e-12)


@one_of_each
def test_float32_stays_float32(optimizer, be):
    params, state = run(be, optimizer, "float32", steps=3)
    slots = [array for layer in state for each in layer for array in each]
    assert len(slots) == 4 * optimizer.slots
    assert all(each.dtype == be.dtype("float32") for each in [*flat(params), *slots])
    assert_same(be, params, flat(run(NUMPY, optimizer, steps=3)[0]), 1e-5)


@oracles.by_library(oracles.installed({"jax": "jax"}))
@one_of_each
def test_compiled_with_traced_numbers_it_is_the_same(optimizer, library):
    be, traces = dlx.get_backend(library), []

    def compile(step):
        return be.compile(lambda *arguments: traces.append(1) or step(*arguments))

    eager, _ = run(be, optimizer, steps=10)
    assert_same(be, run(be, optimizer, steps=10, compile=compile)[0], map(be.to_host, flat(eager)), 1e-12)
    assert len(traces) == 1  # a new rate or step number compiles nothing anew


@one_of_each
def test_three_models_at_once_equal_three_updates(optimizer, be, rng):
    xp = be.xp
    start, *gradients = ([rng.standard_normal((3, *shape)) for shape in SHAPES] for _ in range(3))

    def updated(models):
        params = pairs([be.copy(be.asarray(each[models])) for each in start])
        state = optimizers.start(xp, optimizer, params)
        for t, each in enumerate(gradients):
            clipped = optimizers.clip_by_norm(xp, pairs([be.asarray(g[models]) for g in each]), 1.0)
            clipped = optimizers.clip_by_value(xp, clipped, 0.2)
            params, state = optimizers.step(
                optimizers.bind(optimizer, be), params, clipped, state, *numbers(optimizer, t)
            )
        return params

    separate = zip(*(map(be.to_host, flat(updated(model))) for model in range(3)), strict=True)
    assert_same(be, updated(slice(None)), map(np.stack, separate), 1e-14)


@one_of_each
def test_without_a_gradient_only_the_decay_of_weights_moves(optimizer, be):
    W, b, zeros, no = (be.asarray(np.full(2 * [3], each), "float32") for each in (1.0, 1.0, 0.0, 0.0))
    params = pairs([be.copy(W), be.copy(b)])
    state = optimizers.start(be.xp, optimizer, params)
    with np.errstate(all="raise"):
        (layer,), _ = optimizers.step(
            optimizers.bind(optimizer, be), params, pairs([zeros, no]), state, *numbers(optimizer, 0)
        )
    np.testing.assert_allclose(be.to_host(layer.W), 1.0 - rate(0) * optimizer.weight_decay, rtol=1e-6)
    np.testing.assert_array_equal(be.to_host(layer.b), 1.0)


@one_of_each
def test_numpy_writes_in_place_but_never_the_gradients(optimizer):
    params, gradients = (pairs([np.ones((2, 3)), np.ones((1, 3))]) for _ in range(2))
    state = optimizers.start(np, optimizer, params)
    new, (slots,) = optimizers.step(optimizers.bind(optimizer, NUMPY), params, gradients, state, *numbers(optimizer, 0))
    assert list(map(id, flat(new))) == list(map(id, flat(params)))
    assert [list(map(id, each)) for each in slots] == [list(map(id, each)) for each in state[0]]
    assert all(np.all(each == 1.0) for each in flat(gradients))


def torch_clip(gradients, limit):
    import torch

    tensors = [torch.tensor(each, requires_grad=True) for each in gradients]
    with torch.enable_grad():
        sum(0.5 * (each * each).sum() for each in tensors).backward()  # each is its own gradient
    torch.nn.utils.clip_grad_norm_(tensors, limit)
    return [tensor.grad.numpy() for tensor in tensors]


def optax_clip(gradients, limit):
    import optax

    return optax.clip_by_global_norm(limit).update(gradients, None)[0]


CLIPS = oracles.installed({"torch": (torch_clip, 1e-5), "optax": (optax_clip, 1e-14)})  # torch adds 1e-6 to the norm


@oracles.by_library(CLIPS)
@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_is_that_of_other_libraries(limit, library, be, rng):
    gradients = [rng.standard_normal(shape) for shape in SHAPES]
    given, (clip, tolerance) = pairs([be.asarray(each) for each in gradients]), CLIPS[library]
    assert_same(be, optimizers.clip_by_norm(be.xp, given, limit), clip(gradients, limit), tolerance)
    by_value = optimizers.clip_by_value(be.xp, given, limit)
    assert_same(be, by_value, [np.clip(each, -limit, limit) for each in gradients], 1e-30)


@pytest.mark.parametrize("clip", [optimizers.clip_by_norm, optimizers.clip_by_value])
@pytest.mark.parametrize("size", [0.0, 1e-3])
def test_clipping_leaves_zero_and_small_gradients_as_they_are(size, clip, be):
    given = pairs([be.asarray(np.full(shape, size), "float32") for shape in SHAPES])
    with np.errstate(all="raise"):
        found = clip(be.xp, given, 1.0)
    assert_same(be, found, map(be.to_host, flat(given)), 1e-30)
    assert all(each.dtype == be.dtype("float32") for each in flat(found))


def test_get():
    assert optimizers.get("sgd").name == "gradient_descent"
    assert isinstance(optimizers.get("lbfgs"), dlx.LBFGS)
    assert all(optimizers.get(each) is each for each in [*OPTIMIZERS, dlx.lbfgs()])
    assert all(make(0.3).learning_rate == 0.3 for name, make in optimizers.OPTIMIZERS.items() if name != "lbfgs")
    assert dlx.adam(b1=np.float32(0.5), eps=1).settings == {"b1": 0.5, "b2": 0.999, "eps": 1.0}
    text = r"^`optimizer` must be one of 'adagrad', .*, 'sgd'; got {}\. Or pass an object: dlx\.adam\(1e-3\)\.$"
    with pytest.raises(ValueError, match=text.format("'Adam'")):
        optimizers.get("Adam")
    with pytest.raises(TypeError, match=text.format("function")):
        optimizers.get(dlx.adam)


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta", 1.0), ("b1", -0.1), ("b2", "0.9"), ("eps", 0), ("weight_decay", -1e-3), ("weight_decay", None)],
)
def test_settings_reject(name, value):
    makers = [optimizers.OPTIMIZERS[each.name] for each in PLAIN if name in (*each.settings, "weight_decay")]
    assert makers
    rule = {"eps": "> 0", "weight_decay": ">= 0"}.get(name, ">= 0 and < 1")
    error = ValueError if isinstance(value, int | float) else TypeError
    for make in makers:
        with pytest.raises(error, match=rf"^`{name}` must be a number {rule}; got {value!r}\. Use .*\.$"):
            make(**{name: value})
