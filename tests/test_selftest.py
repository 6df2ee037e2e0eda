"""``python -m dlx check``: it passes where all is well, and it can fail."""

import pytest

from conftest import EVERYWHERE, ON_EMULATED_CUPY
from dlx import activations, network, selftest


@pytest.mark.parametrize("selector", EVERYWHERE)
def test_passes(selector, capsys):
    assert selftest.check(selector) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("ok") for line in lines)
    assert selector.partition(":")[0] in lines[1]


def test_without_a_selector_checks_every_usable_backend(monkeypatch, capsys):
    monkeypatch.setattr(selftest, "available_backends", lambda: ["numpy", "strict"])
    assert selftest.check() == 0
    assert capsys.readouterr().out.count("strict") == 2


def test_covers_every_activation_and_loss():
    losses, names = zip(*selftest._pairs(), strict=True)
    assert set(names) == {make().name for make in activations.ACTIVATIONS.values()}
    assert len(set(losses)) == len(selftest.losses.LOSSES)


def test_a_wrong_gradient_is_found(monkeypatch, capsys):
    monkeypatch.setattr(network, "mean_delta", lambda delta, weights: delta * (1.001 / delta.shape[-2]))
    assert selftest.check("numpy") == 1
    assert capsys.readouterr().out.startswith("FAILED gradients")


def test_a_backend_that_differs_is_found(monkeypatch, capsys):
    copy = selftest.Backend.copy
    monkeypatch.setattr(
        selftest.Backend, "copy", lambda self, x: copy(self, x) * (1.0 if self.name == "numpy" else 1.001)
    )
    assert selftest.check("strict") == 1
    assert "FAILED training" in capsys.readouterr().out


if ON_EMULATED_CUPY:

    def test_it_asks_little_of_a_gpu():
        """A kernel costs some 0.2 s when it is first compiled, a launch 10 us: the rest of its seconds are start-up."""
        from cupy_on_cpu import emulate

        with emulate.counting() as done:
            selftest.check("cupy")
        assert len(done.kernels) <= 60
        assert done.launches <= 1_800
        assert done.syncs <= 90
