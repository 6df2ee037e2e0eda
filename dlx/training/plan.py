"""What is to be trained, and where: the network of a training before there are rows, and the room that it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

from dlx import network
from dlx.activations import Activation
from dlx.backend import Backend, get_backend
from dlx.data.features import HostArray, Rows
from dlx.losses import Loss
from dlx.training import memory
from dlx.training.steps import Settings, Task


class Plan(NamedTuple):
    """A network to be trained: widths (d0, ..., K), the formulas of its layers, penalties, and where it computes.

    `missing` is what nan in the targets is, as in `fit`; `stays` says whether the trained weights stay on the backend.
    """

    backend: Backend
    dtype: str
    dims: tuple[int, ...]
    hidden: tuple[Activation, ...]
    loss: Loss
    dropout: tuple[float, ...] = ()
    l2: float = 0.0
    l1: float = 0.0
    missing: str = "raise"
    stays: bool = True

    @property
    def key(self) -> Hashable:
        """What its formulas depend on, beside the backend; None where a user's own code is among them."""
        return network.kind(self.dtype, self.hidden, self.loss, self.dropout, self.l2, self.l1)

    def formulas(self, backend: Backend) -> network.Formulas:
        """Its formulas on a backend."""
        how = {"l2": self.l2, "l1": self.l1}
        return network.bind(backend, self.dtype, self.hidden, self.loss, dropout=self.dropout, **how)

    def formulas_on_host(self) -> network.Formulas | None:
        """Its formulas on NumPy; None where a user's own code is among them, which may be another library's."""
        return None if self.key is None else self.formulas(get_backend("numpy"))

    def task(self, rows: Rows, chosen: HostArray | None) -> Task:
        """The task of training it on the `chosen` ones of these rows (all, if None)."""
        return Task(self.backend, self.formulas(self.backend), self.dtype, rows, chosen, self.key)


@contextlib.contextmanager
def room(X: Any, plan: Plan, settings: Settings, n: int | None = None) -> Iterator[None]:
    """The backend is entered; where memory does not hold a training on n of the rows X, an error says what needs it."""
    size = 8 if plan.dtype == "float64" else 4
    batch_size = min(settings.batch_size, X.shape[0] if n is None else n)
    expected = memory.needs(X, plan.dims, settings.batch_size, settings.optimizer, size, plan.backend)
    with plan.backend.scope(), memory.explained(plan.backend, batch_size, expected):
        yield
