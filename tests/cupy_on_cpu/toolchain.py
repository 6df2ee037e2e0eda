"""Compile the emulated libraries, and the kernels that CuPy writes: g++ to run them, NVRTC to judge them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).parent
HEADERS, RUNTIME = HERE / "headers", HERE / "runtime"

ARCHITECTURES = ("80", "90")  # what NVRTC must accept a kernel for: A100 and H100

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
def cache() -> Path:
    """Where everything compiled goes: a folder of its own for each compiler and each state of what is compiled how."""
    chosen = os.environ.get("DLX_CUPY_ON_CPU_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(chosen) if chosen else Path(user) / "dlx" / "cupy_on_cpu"
    digest = hashlib.sha256(run(["g++", "--version"]).encode())
    digest.update(sysconfig.get_config_var("SOABI").encode())
    for path in sorted([*HEADERS.rglob("*.h"), *RUNTIME.iterdir(), HERE / "toolchain.py", HERE / "hooks.py"]):
        digest.update(path.read_bytes())
    folder = root / digest.hexdigest()[:16]
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


# The two libraries ---------------------------------------------------------------------------------------------------


def runtime_library() -> Path:
    """The CUDA runtime and driver."""

    def build(target: Path) -> None:
        include = sysconfig.get_paths()["include"]
        if not (Path(include) / "Python.h").exists():
            raise Failed(f"Python.h is not in {include}. Install Python's development files (python3-dev).")
        sources = [RUNTIME / f"{name}.cpp" for name in ("devices", "blocks", "runtime", "driver")]
        run(["g++", *COMMON, "-O2", f"-I{HEADERS}", f"-I{include}", *sources, "-o", target])

    return once(cache() / "libcupy_on_cpu.so", build)


def cublas_library(extension: Path) -> Path:
    """libcublas.so.12 for CuPy's `extension` module: our functions, and a stub for every other one it names."""

    def build(target: Path) -> None:
        folder = target.parent
        ours = folder / "cublas.o"
        run(["g++", *COMMON, "-c", "-O3", f"-I{HEADERS}", RUNTIME / "cublas.cpp", "-o", ours])
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

    return once(cache() / "libcublas.so.12", build)


def symbols(path: Path, which: str) -> set[str]:
    """The names of cuBLAS functions that an object file defines or wants."""
    dynamic = ["-D"] if ".so" in path.suffixes else []
    names = (line.split()[-1].split("@")[0] for line in run(["nm", *dynamic, which, path]).splitlines() if line)
    return {name for name in names if name.startswith("cublas")}


# Kernels -------------------------------------------------------------------------------------------------------------


class Kernels:
    """Compiles what CuPy would give to NVRTC, and counts what each architecture accepted."""

    def __init__(self, nvrtc: Callable[..., tuple[bytes, object]], cupy_headers: Path, versions: str) -> None:
        self.nvrtc, self.cupy_headers, self.versions = nvrtc, cupy_headers, versions
        self.accepted: dict[str, set[str]] = {architecture: set() for architecture in ARCHITECTURES}
        self.seen: set[str] = set()  # kernels by their keys; each device loads them anew
        self.compiled = 0

    def compile(
        self,
        source: str,
        options: tuple[str, ...] = (),
        arch: str | None = None,
        filename: str = "kern.cu",
        name_expressions: Iterable[str] | None = None,
        log_stream: object = None,
        cache_in_memory: bool = False,
        jitify: object = None,
        method: str | None = None,
    ) -> tuple[bytes, dict[str, str]]:
        """In the place of cupy.cuda.compiler._compile_using_nvrtc_no_warning, whose parameters it has.

        Returns a library's path for a cubin, and the names that `name_expressions`, as "kernel<float>", have in it.
        """
        if jitify or method:
            raise Failed("Jitify and link-time optimisation are not emulated.")
        defines = [option for option in options if option.startswith("-D")]
        names = {expression: re.sub(r"\W+", "_", expression) for expression in name_expressions or ()}
        key = hashlib.sha256("\0".join([self.versions, *defines, *names, source]).encode()).hexdigest()[:32]
        folder = cache() / "kernels"
        folder.mkdir(exist_ok=True)
        library = folder / f"{key}.so"
        self.seen.add(key)
        self.compiled += not library.exists()

        # g++ works in a process of its own while NVRTC, which holds the interpreter, works in this one.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            text = Path(scratch) / "kernel.cpp"
            compiler = None if library.exists() else self.start_compiler(text, for_cpu(source, names), defines)
            try:
                for architecture in ARCHITECTURES:
                    ask = functools.partial(self.ask_nvrtc, source, options, architecture, filename, name_expressions)
                    once(folder / f"{key}.sm_{architecture}", ask)
                    self.accepted[architecture].add(key)
            finally:
                complaint = compiler.communicate()[1] if compiler else ""
            if compiler and compiler.returncode:
                kept = text.replace(folder / f"{key}.cpp")
                raise Failed(f"g++ does not compile the kernel {kept}; see headers/kernel.h:\n{complaint[:4000]}")
            if compiler:
                text.with_suffix(".so").replace(library)
        return os.fsencode(library), names

    def ask_nvrtc(self, *arguments: object) -> None:
        """Note in the last argument, a file, that NVRTC accepts a kernel; where it does not, it raises."""
        *question, verdict = arguments
        cubin, _ = self.nvrtc(*question)
        verdict.write_text(f"{len(cubin)} bytes\n")

    def start_compiler(self, path: Path, source: str, defines: list[str]) -> subprocess.Popen[str]:
        """g++ at work on a library beside `path`."""
        path.write_text(source)
        command = ["g++", *COMMON, "-O1", "-w", "-fvisibility=hidden", f"-I{HEADERS}", f"-I{self.cupy_headers}"]
        command += [*defines, "-include", "kernel.h", str(path), "-o", str(path.with_suffix(".so"))]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def for_cpu(source: str, names: dict[str, str]) -> str:
    """CUDA C++ with what g++ needs beside kernel.h: a place for dynamic shared memory, and entries for the runtime."""
    source = re.sub(
        r"extern\s+__shared__\s+(.+?)\s*\b(\w+)\s*\[\s*\]\s*;",
        r"\1* const \2 = reinterpret_cast<\1*>(cupy_on_cpu::dynamic_shared_memory);",
        source,
    )
    waits = "true" if re.search(r"__sync|__shfl", source) else "false"
    found = re.findall(r'extern\s+"C"\s+__global__\s+void\s+(\w+)', source)
    entries = [
        f'extern "C" __attribute__((visibility("default"))) const cupy_on_cpu::Kernel cupy_on_cpu_kernel_{name} ='
        f" cupy_on_cpu::Entry<&{expression}>::describe({waits});"
        for expression, name in [*names.items(), *zip(found, found, strict=True)]
    ]
    return "\n".join([source, *entries, ""])
