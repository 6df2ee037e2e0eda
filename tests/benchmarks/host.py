"""What a benchmark ran on; imported before NumPy, for it clears what would slow NumPy's BLAS down."""

from __future__ import annotations

import os

for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # may hold OpenBLAS to an older processor's kernels
    os.environ.pop(variable, None)

import datetime
import importlib.metadata
import platform
from pathlib import Path

LIBRARIES = ("dlx-nn", "numpy", "numba", "scikit-learn", "torch", "jax", "optax", "keras", "thinc")


def facts() -> dict[str, str]:
    """Date, processor, BLAS with its kernel and threads, versions; of what is loaded when it is called."""
    import threadpoolctl

    names = [line.partition(":")[2].strip() for line in cpuinfo() if line.startswith("model name")]
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    blas = {f"{pool['internal_api']} {pool['version']} ({pool.get('architecture')})" for pool in pools}
    found = {
        "date": datetime.date.today().isoformat(),
        "processor": f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {instructions()}",
        "NumPy's BLAS": ", ".join(sorted(blas)),
        "Python": platform.python_version(),
    }
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpuinfo() -> list[str]:
    """The lines of /proc/cpuinfo, where there is one."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def instructions() -> str:
    """The widest vector instructions of the processor."""
    flags = next((line for line in cpuinfo() if line.startswith("flags")), "").split()
    return next((name for name in ("avx512f", "avx2", "avx") if name in flags), platform.machine())
