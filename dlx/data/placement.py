"""Where to compute, and how exactly: the common backend of all arrays that a user passes, and its precision."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

from dlx.backend import HOST, Backend, backend_of, get_backend, known_backends, library_of
from dlx.checks import reject
from dlx.host import way_to_host


def common_backend(
    backend: str | types.ModuleType | Backend | None, arrays: Mapping[str, Any], of_network: bool = False
) -> Backend:
    """The one backend for all arrays in `arrays`, a dict by argument name; None is ignored.

    With ``backend=None`` it is that of the first array that has a library. A named backend takes its own arrays, and
    arrays of the host. Any other mixture raises, and the error says how to mend it. `of_network` tells whether
    `backend` is that of a network, which could be moved.
    """
    libraries = {name: library_of(x) for name, x in arrays.items() if library_of(x) is not None}
    leader = "backend" if backend is not None or not libraries else next(iter(libraries))
    chosen = get_backend(backend) if leader == "backend" else backend_of(arrays[leader])
    for name, library in libraries.items():
        if library == HOST and leader == "backend":
            continue
        place = backend_of(arrays[name]).selector
        if library != chosen.name:
            guest = place if chosen.name == HOST else chosen.selector
            remedy = f"Pass backend={guest!r}, which takes NumPy arrays too."
            foreign = leader if leader != "backend" and chosen.name not in known_backends() else name
            if leader != foreign and library in known_backends():
                if of_network:
                    remedy = f"Pass NumPy arrays, or move the network: net.to({place!r})."
                elif HOST not in (library, chosen.name):
                    remedy += f" Make `{name}` one with {way_to_host(arrays[name], name)}."
            else:
                remedy = f"Make `{foreign}` a NumPy array with {way_to_host(arrays[foreign], foreign)}."
            rule = f"be of the same library as `{leader}`, {chosen.name}"
            reject(name, rule, f"an array of {library}", remedy, TypeError)
        if chosen.device is not None and place != chosen.selector:
            remedy = f"Move it with dlx.get_backend({chosen.selector!r}).asarray({name})."
            reject(name, f"lie on the same device as `{leader}`, {chosen.selector}", place, remedy)
    return chosen


def in_precision(backend: Backend, tf32: Any, dtype: str) -> Backend:
    """The backend with float32 products in TF32 or not, as the argument `tf32` asks. None leaves it as it is."""
    if tf32 is None:
        return backend
    chosen = backend.with_tf32(tf32)
    if chosen.tf32 and dtype != "float32":
        reject("tf32", f"be False in {dtype}", tf32, "It is for float32 products: pass dtype='float32' with it.")
    return chosen


def preferring_tf32(backend: Backend, tf32: bool) -> Backend:
    """The backend with TF32 or not where it has the choice, else as it is."""
    return backend.with_tf32(tf32) if backend.takes_tf32 else backend
