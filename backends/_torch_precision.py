"""PyTorch's switches for the precision of float32 products. They belong to the whole process and to all its threads.

Since 2.9 there is one for each library of products, ``fp32_precision``: "ieee" is full precision. "none" leaves it to a
more general switch, and if that is "none" too, it is full precision. The earlier switch, which 2.6 has, is one for all:
"highest" or "high". PyTorch warns of the earlier switch, and refuses to read it after the two have been set apart. So
only one of them is used.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

_LOCK = threading.Lock()


class Switch:
    """A switch that scopes set and put back.

    The user's own value is back after the last scope, in whatever order the threads leave theirs. While scopes of
    several threads are open, all of them compute as the one that was entered last says.
    """

    def __init__(
        self, read: Callable[[], str], write: Callable[[str], None], full: tuple[str, ...], tf32: tuple[str, ...]
    ) -> None:
        self.read, self.write, self.words = read, write, {False: full, True: tf32}
        self.scopes: list[bool] = []  # what each open scope asks for
        self.users, self.written = "", False  # the value outside of all scopes, and whether it is another one now

    @contextlib.contextmanager
    def at(self, tf32: bool) -> Iterator[None]:
        """The context in which the switch allows TF32 or not. It is left as it is where it says so already."""
        with _LOCK:
            now = self.read()
            if not self.scopes:
                self.users, self.written = now, False
            self.scopes.append(tf32)
            if now not in self.words[tf32]:
                self.write(self.words[tf32][0])
                self.written = True
        try:
            yield
        finally:
            with _LOCK:
                del self.scopes[len(self.scopes) - 1 - self.scopes[::-1].index(tf32)]
                if self.written:
                    self.write(self.words[self.scopes[-1]][0] if self.scopes else self.users)


def _own_switch(module: Any) -> Switch:
    """The switch of one library of products, of PyTorch 2.9 and later."""

    def read() -> str:
        return str(module.fp32_precision)

    def write(value: str) -> None:
        module.fp32_precision = "none"
        if read() != value:  # else a more general switch says so, and goes on to
            module.fp32_precision = value

    return Switch(read, write, ("ieee", "none"), ("tf32",))


def _common_switch() -> Switch:
    """The one switch of lower versions."""
    read, write = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    return Switch(read, write, ("highest",), ("high",))


if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
    ON_CUDA, ELSEWHERE = _own_switch(torch.backends.cuda.matmul), _own_switch(torch.backends.mkldnn.matmul)
else:
    ON_CUDA = ELSEWHERE = _common_switch()


def precision(device_type: str, tf32: bool) -> contextlib.AbstractContextManager[None]:
    """The context in which float32 products on devices of this type may be TF32 or not.

    On a CPU the switch pins full precision: some have products in bfloat16.
    """
    return (ON_CUDA if device_type == "cuda" else ELSEWHERE).at(tf32)
