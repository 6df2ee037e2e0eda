"""scikit-learn's callbacks, where its version has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["CallbackSupport", "Hooks", "with_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
    from sklearn.callback import with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupport:  # type: ignore[no-redef]
        """No callbacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """The method itself."""
        return method


class Hooks:
    """What callbacks hear of one training, if it is `heard`: its start, each epoch's start and end, and its end."""

    def __init__(self, est: Any, X: Any, y: Any, epochs: int, heard: bool) -> None:
        self.est, self.given, self.epochs = est, {"X": X, "y": y}, epochs
        begin = getattr(est, "_init_callback_context", None) if heard and hasattr(est, "_skl_callbacks") else None
        self.whole: Any = None if begin is None else begin(max_subtasks=epochs)
        self.part: Any = None
        if self.whole is not None:
            self.whole.call_on_fit_task_begin(estimator=est, **self.given)
            self.open()

    def open(self) -> None:
        """An epoch begins."""
        self.part = self.whole.subcontext(task_name="epoch")
        self.part.call_on_fit_task_begin(estimator=self.est, **self.given)

    def epoch(self, fitted: Callable[[], dict[str, Any]], last: bool) -> bool:
        """An epoch has ended, with these attributes; True if a callback wants to stop."""
        if self.whole is None:
            return False
        stop = bool(self.part.call_on_fit_task_end(estimator=self.est, **self.given, reconstruction_attributes=fitted))
        if not (stop or last):
            self.open()
        return stop

    def close(self, fitted: Callable[[], dict[str, Any]]) -> None:
        """The training has ended."""
        if self.whole is not None:
            self.whole.call_on_fit_task_end(estimator=self.est, **self.given, reconstruction_attributes=fitted)
