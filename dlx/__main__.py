"""The command line: ``python -m dlx`` prints what can compute here, ``check`` tests it, ``inspect`` reads files."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import dlx
from dlx.backend import BackendNotInstalled, get_backend, known_backends
from dlx.files.container import FileError

DEPENDENCIES = ("numpy", "array-api-compat")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser("python -m dlx", description="What computes here, and with what.")
    commands = parser.add_subparsers(dest="command", title="commands")
    reading = commands.add_parser("inspect", help="what a file of dlx holds, verified")
    reading.add_argument("file", nargs="+", help="a network that was saved, a checkpoint, or a folder of them")
    checking = commands.add_parser("check", help="a few seconds of gradient and cross-backend tests")
    checking.add_argument("backend", nargs="?", help="a selector such as cupy:1; by default all that compute here")
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        print("\n".join(diagnosis()))
        return 0
    if chosen.command == "inspect":
        return max(map(_inspect, chosen.file))
    if chosen.backend is not None:
        try:
            get_backend(chosen.backend)
        except (ImportError, RuntimeError, ValueError) as reason:
            print(reason, file=sys.stderr)
            return 2
    from dlx.selftest import check

    return check(chosen.backend)


def diagnosis() -> list[str]:
    """The lines that ``python -m dlx`` prints."""
    return [
        f"dlx {dlx.__version__}, " + ", ".join(f"{name} {_version(name)}" for name in DEPENDENCIES),
        f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}, "
        f"{os.cpu_count()} CPUs",
        *(line for name in known_backends() for line in _backend(name)),
    ]


def _inspect(path: str) -> int:
    """Print the content of the file, or of each file in the folder, or its error; return the exit status."""
    from dlx.files.container import escaped
    from dlx.files.inspection import files_in, inspect_file

    status, files = 0, files_in(path)
    if not files:
        print(f"`path` must hold files of dlx; got {path}, a folder without any. Name another.", file=sys.stderr)
        return 1
    for file in files:
        try:
            print(inspect_file(file))
        except (FileError, OSError) as reason:
            print(escaped(str(reason)), file=sys.stderr)
            status = 1
    return status


def _version(distribution: str) -> str:
    """The installed version of a distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _backend(name: str) -> list[str]:
    """The lines about a backend: whether it can train here, and its description."""
    from dlx.selftest import trains

    try:
        backend = get_backend(name)
        description = backend.describe()
        trains(backend)
    except BackendNotInstalled:
        return [f"{name}: not installed"]
    except Exception as reason:  # the other lines must be printed, whatever is broken here
        return [f"{name}: installed but unusable: {' '.join(str(reason).split())}"]
    return [f"{name}: usable", *(f"    {key}: {value}" for key, value in description.items())]


if __name__ == "__main__":
    sys.exit(main())
