"""Rows that go to the backend batch by batch."""

from __future__ import annotations

from collections.abc import Callable

from dlx.backend import HOST, Array, Backend, Staging, library_of
from dlx.data.features import Rows, compressed, dtype_name, stored_dtype, takable, taken
from dlx.host import HostArray


def streams(samples: Rows, backend: Backend) -> bool:
    """Whether X goes to the backend batch by batch: it lies on the host, or is sparse."""
    return compressed(samples.X) or library_of(samples.X) == HOST != backend.name


def some_rows(
    samples: Rows, rows: HostArray, backend: Backend, dtype: str | None = None, stage: Staging | None = None
) -> Rows:
    """A copy of these rows on the backend. Rows from the host get a dtype for computing in `dtype`, if it is named.

    `stage` is the backend's `staging`, which brings one batch after another.
    """
    return begun(samples, rows, backend, dtype, stage)()


def begun(
    samples: Rows,
    rows: HostArray,
    backend: Backend,
    dtype: str | None,
    stage: Staging | None,
    placed: Array | None = None,
) -> Callable[[], Rows]:
    """`some_rows`, begun: the library may gather them now, and the result brings them to the device.

    `placed` are the numbers of the rows on the device, if they lie there already.
    """
    X, Y, w, classes = samples

    def rows_of(array: Array) -> Array:
        return backend.take(array, rows) if placed is None else backend.xp.take(array, placed, axis=0)

    def with_inputs(brought: Array) -> Rows:
        return Rows(brought, rows_of(Y), None if w is None else rows_of(w), classes)

    if stage is None or library_of(X) != HOST or X.dtype.hasobject:

        def gathered() -> Rows:
            part = takable(taken(X, rows, backend), backend, dtype)
            on_backend = backend.asarray(part) if library_of(part) == HOST != backend.name else part
            return with_inputs(on_backend)

        return gathered

    def fill(out: HostArray, part: slice) -> None:
        if out.dtype == X.dtype:
            X.take(rows[part], axis=0, out=out[part], mode="clip")  # with another mode, NumPy copies once more
        else:
            out[part] = X.take(rows[part], axis=0)

    stored = dtype_name(X) if dtype is None else stored_dtype(dtype_name(X), backend, dtype)
    bring = stage(fill, (len(rows), X.shape[1]), stored)
    return lambda: with_inputs(bring())
