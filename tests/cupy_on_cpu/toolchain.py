"""Compile what is emulated: the runtime and driver, libcuda, cuBLAS. The kernels that CuPy writes are in kernels.py."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).parent
HEADERS, RUNTIME = HERE / "headers", HERE / "runtime"
LIBRARY = ("devices", "blocks", "captures", "queues", "graphs", "runtime", "driver")  # of the CUDA runtime and driver

# Kernels may not assume more than a GPU gives: integers wrap around, CuPy's headers read bits through casts. No
# fused multiply-add is asked for: x86-64 has none without -march. Fortified longjmp refuses to change stacks.
COMMON = ["-std=c++17", "-fPIC", "-shared", "-fwrapv", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"]


class Failed(RuntimeError):
    """The emulation cannot be built, or cannot run a kernel."""


def run(command: Iterable[object]) -> str:
    """What a command prints; `Failed`, with what it complained of, where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{words[0]} failed:\n{' '.join(words)}\n{done.stderr[:4000]}")
    return done.stdout


@functools.cache
def cache(part: str) -> Path:
    """The folder of the "libraries" or the "kernels": another one for each compiler and each state of their sources.

    There are some hundred kernels, so they have as few sources as can be: they need the runtime's interface only.
    """
    chosen = os.environ.get("DLX_CUPY_ON_CPU_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(chosen) if chosen else Path(user) / "dlx" / "cupy_on_cpu"
    libraries = [*RUNTIME.iterdir(), HERE / "toolchain.py", HERE / "hooks.py"]
    sources = {"libraries": libraries, "kernels": [HERE / "kernels.py"]}[part]
    words = [run(["g++", "--version"]), *COMMON, *([sysconfig.get_config_var("SOABI")] if part == "libraries" else [])]
    digest = hashlib.sha256("\0".join(words).encode())
    for path in sorted([*HEADERS.rglob("*.h"), *sources]):
        digest.update(path.read_bytes())
    folder = root / f"{part}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def once(target: Path, make: Callable[[Path], object]) -> Path:
    """`target`, made where it is missing; another process that makes it at the same time does no harm."""
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            make(made)
            made.replace(target)
    return target


def python_headers() -> str:
    """The folder of Python.h."""
    include = sysconfig.get_paths()["include"]
    if not (Path(include) / "Python.h").exists():
        raise Failed(f"Python.h is not in {include}. Install Python's development files (python3-dev).")
    return include


# The libraries ---------------------------------------------------------------------------------------------------


def runtime_library() -> Path:
    """The CUDA runtime and driver."""

    def build(target: Path) -> None:
        sources = [RUNTIME / f"{name}.cpp" for name in LIBRARY]
        run(["g++", *COMMON, "-O2", f"-I{HEADERS}", f"-I{python_headers()}", *sources, "-o", target])

    return once(cache("libraries") / "libcupy_on_cpu.so", build)


def small_library(name: str, *sources: Path) -> Path:
    """One that is found under the name `name`: by CuPy, by ctypes, by NVIDIA's cuda.pathfinder."""

    def build(target: Path) -> None:
        run(["g++", *COMMON, "-O2", f"-Wl,-soname,{name}", *sources, "-o", target])

    return once(cache("libraries") / name, build)


def cublas_library(extension: Path) -> Path:
    """libcublas.so.12 for CuPy's `extension` module: our functions, and a stub for every other one it names."""

    def build(target: Path) -> None:
        folder = target.parent
        ours = folder / "cublas.o"
        run(["g++", *COMMON, "-c", "-O3", f"-I{HEADERS}", f"-I{python_headers()}", RUNTIME / "cublas.cpp", "-o", ours])
        stubs = sorted(symbols(extension, "--undefined-only") - symbols(ours, "--defined-only"))
        # What is missing says so: CuPy's exception does not tell which function it was.
        lines = [f'extern "C" int {stub}() {{ return missing("{stub}"); }}' for stub in stubs]
        text = [
            "#include <cstdio>",
            'static int missing(const char* name) { return fprintf(stderr, "cupy_on_cpu: no %s\\n", name), 15; }',
        ]
        (folder / "stubs.cpp").write_text("\n".join([*text, *lines, ""]))
        # CuPy's extension asks for these symbols in the version that NVIDIA's library gives them.
        (folder / "version").write_text("libcublas.so.12 { global: *; };\n")
        link = ["-Wl,-soname,libcublas.so.12", f"-Wl,--version-script={folder / 'version'}"]
        run(["g++", *COMMON, *link, ours, folder / "stubs.cpp", "-o", target])

    return once(cache("libraries") / "libcublas.so.12", build)


def symbols(path: Path, which: str) -> set[str]:
    """The names of cuBLAS functions that an object file defines or wants."""
    dynamic = ["-D"] if ".so" in path.suffixes else []
    names = (line.split()[-1].split("@")[0] for line in run(["nm", *dynamic, which, path]).splitlines() if line)
    return {name for name in names if name.startswith("cublas")}
