"""Callbacks of scikit-learn, if its version has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["CallbackSupport", "Hooks", "with_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
    from sklearn.callback import with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupport:  # type: ignore[no-redef]
        """An empty class: there are no callbacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method itself."""
        return method


class Hooks:
    """Tells the callbacks of an estimator when a training and its epochs begin and end, if this training `is_told`."""

    def __init__(self, est: Any, X: Any, y: Any, epochs: int, is_told: bool) -> None:
        self.data, self.epochs = {"estimator": est, "X": X, "y": y}, epochs
        begin = getattr(est, "_init_callback_context", None) if is_told and hasattr(est, "_skl_callbacks") else None
        self.of_fit: Any = None if begin is None else begin(max_subtasks=epochs)
        self.of_epoch: Any = None
        if self.of_fit is not None:
            self.of_fit.call_on_fit_task_begin(**self.data)
            self.begin_epoch()

    def begin_epoch(self) -> None:
        """Tell the callbacks that an epoch begins."""
        self.of_epoch = self.of_fit.subcontext(task_name="epoch")
        self.of_epoch.call_on_fit_task_begin(**self.data)

    def end_epoch(self, attributes: Callable[[], dict[str, Any]], last: bool) -> bool:
        """Tell the callbacks that an epoch has ended, with these fitted attributes; True if one asks to stop."""
        if self.of_fit is None:
            return False
        stop = bool(self.of_epoch.call_on_fit_task_end(**self.data, reconstruction_attributes=attributes))
        if not (stop or last):
            self.begin_epoch()
        return stop

    def end_fit(self, attributes: Callable[[], dict[str, Any]]) -> None:
        """Tell the callbacks that the training has ended, with these fitted attributes."""
        if self.of_fit is not None:
            self.of_fit.call_on_fit_task_end(**self.data, reconstruction_attributes=attributes)
