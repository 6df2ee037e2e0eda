"""PyTorch's modules: the same weights to the last bit, the same predictions, and back."""

import itertools
import re
import sys

import numpy as np
import pytest

import dlx
import oracles
from dlx import activations, losses, network

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 - after the question whether it is here

ACTIVATIONS = [
    *(make() for name, make in activations.ACTIVATIONS.items() if name not in ("none", "logistic")),
    activations.leaky_relu(0.3),
    activations.elu(0.7),
]
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: f"{a.name}{dict(a.settings) or ''}")
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}
LINKS = {
    "cross_entropy": lambda Z: Z.softmax(1),
    "binary_cross_entropy": torch.sigmoid,
    "poisson": torch.exp,
}


def network_of(activation="relu", loss="squared_error", dims=(4, 8, 6, 3), dtype="float32", **settings):
    rng = np.random.default_rng(3)
    pairs = [(rng.standard_normal((a, b)) / a**0.5, 0.1 * rng.standard_normal(b)) for a, b in itertools.pairwise(dims)]
    return dlx.Network(pairs, activation=activation, loss=loss, dtype=dtype, **settings)


def rows(dtype="float32", n=50):
    return np.random.default_rng(4).standard_normal((n, 4)).astype(dtype)


def predictions(net, X):
    """What the link gives, of the scores."""
    return net.formulas.loss.predict(network.scores(net.formulas, net.params, X))


# -- to_torch --


@pytest.mark.parametrize("dtype", TOLERANCE)
@every_activation
def test_to_torch_computes_the_same_scores(activation, dtype):
    net = network_of(activation, dtype=dtype)
    module, X = net.to_torch(), rows(dtype)
    oracles.assert_close(module(torch.from_numpy(X)).detach(), net.predict(X), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@every_activation
def test_to_torch_far_out(activation, dtype):
    one = np.ones((1, 1)), np.zeros(1)
    net = dlx.Network([one, one], activation=activation, dtype=dtype)
    z = np.concatenate([np.linspace(-1000, 1000, 2001), np.linspace(-100, 100, 2001)])[:, None].astype(dtype)
    found = net.to_torch()(torch.from_numpy(z)).detach()[:, 0].numpy()
    assert np.isfinite(found).all()
    oracles.assert_close(found, net.predict(z), TOLERANCE[dtype])


@pytest.mark.parametrize("loss", [*losses.LOSSES, losses.quantile([0.1, 0.5, 0.9])], ids=str)
def test_to_torch_gives_scores_to_which_the_link_is_applied(loss):
    net, X = network_of(loss=loss), rows()
    Z = net.to_torch()(torch.from_numpy(X))
    oracles.assert_close(LINKS.get(net.loss.name, lambda Z: Z)(Z).detach(), predictions(net, X), 1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_to_torch_holds_the_weights_exactly_and_transposed(dtype, be):
    net = network_of(dtype=dtype, backend=be)
    state = net.to_torch().state_dict()
    assert list(state) == [f"{l}.{part}" for l in (0, 2, 4) for part in ("weight", "bias")]
    for l, (W, b) in enumerate(net.params):
        np.testing.assert_array_equal(state[f"{2 * l}.weight"].numpy(), be.to_host(W).T, strict=True)
        np.testing.assert_array_equal(state[f"{2 * l}.bias"].numpy(), be.to_host(b)[0], strict=True)
    assert all(each.is_contiguous() and each.device.type == "cpu" for each in state.values())


def test_to_torch_can_be_trained_and_leaves_the_network_alone():
    net = network_of(backend="torch", loss="cross_entropy")
    before = [each.clone() for layer in net.params for each in layer]
    module = net.to_torch()
    assert all(each.requires_grad and each.grad_fn is None for each in module.parameters())
    X, y = torch.from_numpy(rows()), torch.arange(50) % 3
    optimizer, figures = torch.optim.SGD(module.parameters(), 0.1), []
    for _ in range(20):
        loss = nn.functional.cross_entropy(module(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        figures.append(loss.item())
    assert figures[-1] < figures[0]
    for a, b in zip(before, [each for layer in net.params for each in layer], strict=True):
        assert torch.equal(a, b)


def test_to_torch_draws_nothing_from_its_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    network_of().to_torch()
    assert torch.equal(torch.rand(3), expected)


def test_a_state_dict_loads_elsewhere(tmp_path):
    net = network_of("tanh")
    torch.save(net.to_torch().state_dict(), tmp_path / "net.pt")
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    module.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    oracles.assert_close(module(torch.from_numpy(rows())).detach(), net.predict(rows()), 1e-6)


# -- from_torch --


def sequential(*between, dtype=None, bias=True):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8, bias, dtype=dtype), *between, nn.Linear(8, 3, bias, dtype=dtype))


MODULES = [
    nn.Identity(),
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.2),
    nn.ELU(0.6),
    nn.SELU(),
    nn.GELU(approximate="tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Softplus(),
    nn.Softplus(threshold=100),
    nn.Sigmoid(),
    nn.Tanh(),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("between", MODULES, ids=repr)
def test_from_torch_computes_the_same(between, dtype, bias):
    module = sequential(between, dtype=dtype, bias=bias)
    net = dlx.from_torch(module, loss="squared_error", backend="numpy")
    X = rows(str(dtype)[6:])
    oracles.assert_close(net.predict(X), module(torch.from_numpy(X)).detach(), TOLERANCE[net.dtype])
    for l, linear in enumerate((module[0], module[-1])):
        np.testing.assert_array_equal(net.params[l].W, linear.weight.detach().T.numpy(), strict=True)
        b = linear.bias.detach().numpy() if bias else np.zeros(len(linear.weight), net.dtype)
        np.testing.assert_array_equal(net.params[l].b[0], b, strict=True)
    assert net.dtype == str(dtype)[6:]


def test_the_default_threshold_of_softplus_is_felt_in_float64_alone():
    z = np.linspace(19, 45, 10001)
    exact = activations.softplus().bind(np).f(z)
    assert 1e-9 < np.abs(nn.Softplus()(torch.from_numpy(z)).numpy() - exact).max() < 2.1e-9  # e^-20
    assert np.abs(nn.Softplus(threshold=40)(torch.from_numpy(z)).numpy() - exact).max() < 1e-14


@every_activation
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_there_and_back(activation, dtype):
    net = network_of(activation, "cross_entropy", dtype=dtype, classes=["a", "b", "c"])
    found = dlx.from_torch(net.to_torch(), loss="cross_entropy", classes=net.classes, backend="numpy")
    assert [each[:2] for each in found.activation] == [each[:2] for each in net.activation]
    for ours, theirs in zip(net.params, found.params, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    np.testing.assert_array_equal(found.predict_proba(rows(dtype)), net.predict_proba(rows(dtype)))
    np.testing.assert_array_equal(found.predict(rows(dtype)), net.predict(rows(dtype)))


@pytest.mark.parametrize("between", [nn.LeakyReLU(0.2), nn.ELU(0.6), nn.GELU("tanh"), nn.Identity()], ids=repr)
def test_back_and_there(between):
    module = sequential(between)
    found = dlx.from_torch(module, loss="cross_entropy").to_torch()
    assert repr(found) == repr(module)
    for name, each in module.state_dict().items():
        assert torch.equal(found.state_dict()[name], each)


def test_from_torch_follows_the_weights_or_the_selector(be):
    module = sequential(nn.ReLU())
    assert dlx.from_torch(module, loss="cross_entropy").backend == dlx.get_backend("torch:cpu")
    net = dlx.from_torch(module, loss="cross_entropy", backend=be)
    assert net.backend == be
    expected = module(torch.from_numpy(rows())).softmax(1).detach()
    oracles.assert_close(net.predict_proba(rows()), expected, 1e-6)


def test_from_torch_copies_the_weights():
    module = sequential(nn.ReLU())
    net = dlx.from_torch(module, loss="squared_error")
    before = net.predict(rows())
    with torch.no_grad():
        for each in module.parameters():
            each.zero_()
    np.testing.assert_array_equal(net.predict(rows()), before)
    assert not any(each.requires_grad for layer in net.params for each in layer)


def test_dropout_and_a_flatten_in_front_are_left_out_and_sequentials_are_opened():
    body = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8), nn.Identity(), nn.Tanh(), nn.AlphaDropout(0.2))
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), body, nn.Linear(8, 3), nn.Identity()).eval()
    net = dlx.from_torch(module, loss="squared_error", backend="numpy")
    assert [each.name for each in net.activation] == ["relu", "tanh"]
    oracles.assert_close(net.predict(rows()), module(torch.from_numpy(rows()).reshape(-1, 2, 2)).detach(), 1e-6)


def test_two_linears_in_a_row_have_the_identity_between():
    module = sequential()
    net = dlx.from_torch(module, loss="squared_error", backend="numpy")
    assert net.activation[0].name == "identity"
    oracles.assert_close(net.predict(rows()), module(torch.from_numpy(rows())).detach(), 1e-6)


def test_half_precision_is_widened():
    module = sequential(nn.ReLU(), dtype=torch.bfloat16)
    net = dlx.from_torch(module, loss="squared_error", backend="numpy")
    assert net.dtype == "float32"
    np.testing.assert_array_equal(net.params[0].W, module[0].weight.detach().float().T)


def test_a_network_that_torch_trained_goes_on_in_dlx():
    module = sequential(nn.Tanh())
    net = dlx.from_torch(module, loss="cross_entropy", backend="numpy")
    y = np.arange(50) % 3
    trained = dlx.fit(rows(), y, net.layer_dims, activation=net.activation, init=net.params, epochs=20, rng=0)
    own = nn.functional.cross_entropy(module(torch.from_numpy(rows())), torch.from_numpy(y)).item()
    assert trained.history["loss"][-1] < own


# -- rejections --


class Doubled(nn.Linear):
    def forward(self, x):
        return 2.0 * super().forward(x)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def hooked(module):
    module.register_forward_hook(lambda module, x, y: 2.0 * y)
    return module


REMEDY = (
    "dlx has Linear, ReLU, LeakyReLU, ELU, SELU, GELU(approximate='tanh'), SiLU, Mish, Softplus, Sigmoid, Tanh and "
    "Identity; Dropout is left out. Remove hooks, and keep other layers in PyTorch."
)
HAS = "must be a layer that dlx has; got"


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (lambda: sequential(nn.GELU()), f"`sequential[1]` {HAS} GELU(approximate='none'). {REMEDY}"),
        (lambda: sequential(nn.Softplus(beta=2)), f"`sequential[1]` {HAS} Softplus(beta="),
        (lambda: sequential(nn.Softplus(threshold=5)), f"`sequential[1]` {HAS} Softplus(beta="),
        (lambda: sequential(nn.LeakyReLU(1.5)), f"`sequential[1]` {HAS} LeakyReLU(negative_slope=1.5). "),
        (lambda: sequential(nn.ELU(-1.0)), f"`sequential[1]` {HAS} ELU(alpha=-1.0). "),
        (lambda: sequential(nn.BatchNorm1d(8)), f"`sequential[1]` {HAS} BatchNorm1d(8, eps=1e-05, "),
        (lambda: sequential(nn.PReLU()), f"`sequential[1]` {HAS} PReLU(num_parameters=1). "),
        (lambda: sequential(nn.Flatten()), f"`sequential[1]` {HAS} Flatten(start_dim=1, end_dim=-1). "),
        (
            lambda: sequential(Doubled(8, 8)),
            f"`sequential[1]` {HAS} Doubled(in_features=8, out_features=8, bias=True). ",
        ),
        (lambda: sequential(Residual(nn.Linear(8, 8))), f"`sequential[1]` {HAS} Residual( (0): Linear("),
        (lambda: sequential(hooked(nn.Tanh())), f"`sequential[1]` {HAS} Tanh() with hooks. {REMEDY}"),
        (lambda: sequential(hooked(nn.Sequential(nn.Tanh()))), f"`sequential[1]` {HAS} Sequential( (0): Tanh() ) wi"),
        (
            lambda: nn.Sequential(nn.Linear(4, 3, device="meta")),
            "`sequential[0]` must have weights; got a Linear on the meta device, which holds none. "
            "Give it memory by to_empty(device='cpu'), then load_state_dict.",
        ),
        (lambda: sequential(nn.Sequential(nn.Tanh(), nn.GELU())), f"`sequential[1][1]` {HAS} GELU("),
        (
            lambda: sequential(nn.ReLU(), nn.Tanh()),
            "`sequential[2]` must follow a Linear; got Tanh(). dlx has one activation a hidden layer.",
        ),
        (
            lambda: nn.Sequential(nn.Tanh(), nn.Linear(4, 3)),
            "`sequential[0]` must follow a Linear; got Tanh(). dlx has one activation a hidden layer.",
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()),
            "`sequential[1]` must not follow the last Linear; got Sigmoid(). Drop it: the link from scores to "
            "predictions is the loss's, such as the softmax of cross_entropy.",
        ),
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), f"`sequential[1]` {HAS} Softmax(dim=1). {REMEDY}"),
        (
            lambda: nn.Sequential(),
            "`sequential` must hold a Linear; got none. A single layer is Sequential(Linear(4, 3)).",
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 8), nn.Linear(4, 3)),
            "`params[1]` must have W of shape (8, d_out) and b of shape (1, d_out); got (4, 3) and (3,). ",
        ),
    ],
)
def test_from_torch_rejects(module, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        dlx.from_torch(module(), loss="squared_error")


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (lambda: nn.Linear(4, 3), "torch.nn.modules.linear.Linear"),
        (lambda: Residual(nn.Linear(4, 4)), "test_torch_modules.Residual"),
        (lambda: hooked(sequential(nn.Tanh())), "torch.nn.modules.container.Sequential"),
        (lambda: [nn.Linear(4, 3)], "builtins.list"),
        (lambda: "net.pt", "builtins.str"),
    ],
    ids=["linear", "subclass", "hooks", "list", "str"],
)
def test_from_torch_takes_nothing_but_a_sequential(given, got):
    text = (
        f"`sequential` must be a torch.nn.Sequential without hooks and with no forward of its own; got {got}. "
        "Wrap layers: torch.nn.Sequential(linear)."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        dlx.from_torch(given(), loss="squared_error")


def test_to_torch_takes_no_functions_of_ones_own():
    text = (
        "`to_torch` must be asked of a network with dlx's own activations; got functions of your own. "
        "Their formulas alone are known elsewhere: build the rest there from net.params."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        network_of((lambda z: z, lambda z, a: 1.0)).to_torch()
    network_of(loss=(lambda Z, Y: Z, lambda Z, Y: Z)).to_torch()  # a loss is no part of the module


def test_without_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "dlx.backends._torch_modules", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (network_of().to_torch, lambda: dlx.from_torch(None, loss="squared_error")):
        with pytest.raises(dlx.BackendNotInstalled, match=r"got 'torch'. Run: pip install 'dlx-nn\[torch\]'\.$"):
            call()
