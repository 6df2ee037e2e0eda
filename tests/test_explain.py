"""`Network.explain`: the operations of a training step, and the source that becomes of them."""

import itertools
import re

import numpy as np
import pytest
from test_numpy_trace import LOSSES

import dlx
from dlx import activations, optimizers

rng = np.random.default_rng(0)


def network(*dims, dtype="float32", **options):
    pairs = [(rng.standard_normal((a, b)).astype(dtype), np.zeros(b, dtype)) for a, b in itertools.pairwise(dims)]
    return dlx.Network(pairs, **options)


def test_the_list_can_be_computed():
    """Its lines are read as Python: they give the loss and the gradients that PyTorch gives."""
    torch = pytest.importorskip("torch")
    net = network(4, 8, 3, dtype="float64", loss="cross_entropy", classes=[0, 1, 2])
    lines = net.explain("sgd", batch_size=6).split("\n\n")[1].splitlines()
    X, Y, order = rng.standard_normal((9, 4)), rng.integers(0, 3, (9, 1)), np.array([3, 1, 4, 8, 2, 6])
    tensors = [torch.tensor(w, requires_grad=True) for layer in net.params for w in layer]
    W0, b0, W1, b1 = tensors
    scores = torch.relu(torch.tensor(X[order]) @ W0 + b0) @ W1 + b1
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(Y[order, 0]))
    loss.backward()
    scope = {name: getattr(np, name) for name in ("exp", "log", "maximum", "float64")}
    scope |= {
        name: lambda x, axis=None, f=f: f(x, axis=axis, keepdims=True) for name, f in (("sum", np.sum), ("max", np.max))
    }
    scope |= {"X": X, "Y": Y, "rows": order, "classes": np.arange(3)[None, :]}
    scope |= {f"own_{l}_{name}": getattr(layer, name) for l, layer in enumerate(net.params) for name in "Wb"}
    for line in lines:
        if "vector" not in line:  # the update
            named = re.sub(r"(own|slopes)\.layers\[(\d)\]\.([Wb])", r"\1_\2_\3", line)
            exec(named.replace("<-", "="), scope)
    np.testing.assert_allclose(scope["loss"].item(), loss.item(), rtol=1e-12)
    for name, tensor in zip(("0_W", "0_b", "1_W", "1_b"), tensors, strict=True):
        np.testing.assert_allclose(scope[f"slopes_{name}"], tensor.grad.numpy(), rtol=1e-9, atol=1e-12)
    assert re.search(r"^own\.vector <- own\.vector - \(coefficients\[0\] \* slopes\.vector\) ", "\n".join(lines), re.M)


def test_the_source_is_what_runs():
    text = network(4, 8, 3, loss="cross_entropy", classes=[0, 1, 2]).explain()
    source = text[text.index("def steps(") :]
    compile(source, "explained", "exec")
    assert "# call 0: matmul(t0, m1) to t1" in text
    assert "# call 7: a copy of m3.T for the next call, where that makes it faster" in text
    assert "m1 own.layers[0].W" in text
    assert len(re.findall(r"call\(calls, \d+, scratch\)", source)) == len(re.findall("^# call", text, re.M)) == 10


@pytest.mark.parametrize("activation", activations.ACTIVATIONS)
@pytest.mark.parametrize("optimizer", ["adam", "lion"])
def test_every_activation(activation, optimizer):
    assert "def steps(" in network(4, 8, 3, activation=activation).explain(optimizer)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss):
    assert "def steps(" in network(4, 3, loss=LOSSES[loss]()).explain(batch_size=2000)


@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_every_optimizer(optimizer):
    text = network(4, 8, 1).explain(optimizer)
    assert ("def steps(" in text) == (optimizer != "lbfgs")


def test_a_function_of_ones_own_that_branches():
    own = (lambda z: z if z.any() else -z, lambda z, a: 1 + 0 * z)
    text = network(4, 8, 1, activation=own).explain()
    assert text == (
        "The step cannot be recorded, and runs as it is: AttributeError: 'Recording' object has no attribute 'any'."
    )


def test_the_network_stays_as_it_is(be):
    net = network(4, 8, 1, backend=be, activation="tanh")
    before = [be.to_host(w).copy() for layer in net.params for w in layer]
    assert net.explain()
    for w, old in zip([w for layer in net.params for w in layer], before, strict=True):
        np.testing.assert_array_equal(be.to_host(w), old)


@pytest.mark.parametrize("batch_size", [0, None, 1.5])
def test_errors(batch_size):
    with pytest.raises((ValueError, TypeError), match="`batch_size` must be"):
        network(4, 1).explain(batch_size=batch_size)
