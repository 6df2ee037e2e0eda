"""What is to be trained, and where: a network before its rows are placed, and the memory that its training needs."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

from dlx import network
from dlx.activations import Activation
from dlx.backend import Backend, get_backend
from dlx.data.features import Rows
from dlx.host import HostArray
from dlx.losses import Loss
from dlx.training import memory
from dlx.training.steps import Settings, Task


class Plan(NamedTuple):
    """A network to be trained: widths (d0, ..., K), the formulas of its layers, penalties, and where it computes.

    `missing` is what nan in the targets means, as in `fit`. `stays` says whether the trained weights stay on the
    backend.
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
        """What its formulas depend on besides the backend; None if a user's own functions are among them."""
        return network.kind(self.dtype, self.hidden, self.loss, self.dropout, self.l2, self.l1)

    def formulas(self, backend: Backend) -> network.Formulas:
        """The formulas of the network on a backend."""
        rates = {"l2": self.l2, "l1": self.l1}
        return network.bind(backend, self.dtype, self.hidden, self.loss, dropout=self.dropout, **rates)

    def formulas_on_host(self) -> network.Formulas | None:
        """The formulas on NumPy; None if a user's own functions are among them, which may need another library."""
        return None if self.key is None else self.formulas(get_backend("numpy"))

    def task(self, rows: Rows, chosen: HostArray | None) -> Task:
        """The task of training this network on the rows with the numbers in `chosen`, on all rows if that is None."""
        return Task(self.backend, self.formulas(self.backend), self.dtype, rows, chosen, self.key, self.formulas)


@contextlib.contextmanager
def training_scope(
    backend: Backend, dtype: str, X: Any, dims: tuple[int, ...], settings: Settings, n: int | None = None
) -> Iterator[None]:
    """Compute on the backend. If memory runs out, an error says what a training on n rows of X (None: all) needs."""
    size = 8 if dtype == "float64" else 4
    batch_size = min(settings.batch_size, X.shape[0] if n is None else n)
    expected = memory.needs(X, dims, settings.batch_size, settings.optimizer, size, backend)
    with backend.scope(), memory.out_of_memory_explained(backend, batch_size, expected):
        yield
