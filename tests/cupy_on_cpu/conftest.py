"""These tests need the emulation, which must come before cupy: they exist under DLX_CUPY_ON_CPU=1 only."""

import os

if os.environ.get("DLX_CUPY_ON_CPU") == "1":
    from cupy_on_cpu import emulate

    emulate.install()
else:
    collect_ignore_glob = ["test_*.py"]
