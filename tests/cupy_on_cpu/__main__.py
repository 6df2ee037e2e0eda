"""`python tests/cupy_on_cpu [pytest arguments]`: the tests, with CuPy on the emulated runtime among the backends."""

import os
import sys
from pathlib import Path

tests = Path(__file__).resolve().parents[1]
arguments = sys.argv[1:]
if not any(Path(argument.split("::")[0]).exists() for argument in arguments):
    arguments.append(str(tests))
os.environ["DLX_CUPY_ON_CPU"] = "1"
# A fresh interpreter: this one has our folder on its path, where pytest must find the package instead.
os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])
