"""Compile the kernels that CuPy writes: g++ to run them, NVRTC to judge them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from .toolchain import COMMON, HEADERS, Failed, cache, once

ARCHITECTURES = ("80", "90")  # what NVRTC must accept a kernel for: A100 and H100


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
        folder = cache("kernels")
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
    found = re.findall(r'extern\s+"C"\s+(?:__launch_bounds__\(\d+\)\s+)?__global__\s+void\s+(\w+)', source)
    entries = [
        f'extern "C" __attribute__((visibility("default"))) const cupy_on_cpu::Kernel cupy_on_cpu_kernel_{name} ='
        f" cupy_on_cpu::Entry<&{expression}>::describe({waits});"
        for expression, name in [*names.items(), *zip(found, found, strict=True)]
    ]
    return "\n".join([source, *entries, ""])
