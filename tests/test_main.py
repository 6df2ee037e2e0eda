"""The command line: ``python -m dlx`` and ``python -m dlx check``."""

import importlib
import os
import re
import subprocess
import sys
import types

import pytest

import dlx
from conftest import INSTALLED
from dlx import __main__ as command


def lines(capsys, *arguments):
    assert command.main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def facts(printed, name):
    """The lines of one backend: its state, then what it says of itself."""
    start = next(number for number, line in enumerate(printed) if line.startswith(f"{name}: "))
    end = next((n for n in range(start + 1, len(printed)) if not printed[n].startswith(" ")), len(printed))
    return printed[start].partition(": ")[2], dict(line.strip().split(": ", 1) for line in printed[start + 1 : end])


def test_the_diagnosis_names_the_versions_and_the_machine(capsys):
    printed = lines(capsys)
    assert re.fullmatch(rf"dlx {dlx.__version__}, numpy 2\S+, array-api-compat \S+", printed[0])
    assert re.fullmatch(r"\S+ 3\.\S+ on \S+, \d+ CPUs", printed[1])
    states = [line.partition(":")[0] for line in printed[2:] if not line.startswith(" ")]
    assert states == ["cupy", "jax", "numpy", "strict", "torch"]


def test_the_diagnosis_of_what_is_usable(capsys):
    printed = lines(capsys)
    for name in sorted({"strict" if module == "array_api_strict" else module for module in INSTALLED}):
        state, said = facts(printed, name)
        assert state == "usable"
        assert said == dlx.get_backend(name).describe()
    assert {"BLAS", "BLAS threads"} <= facts(printed, "numpy")[1].keys()


if "torch" in INSTALLED:

    def test_the_diagnosis_of_the_precision_of_torch(capsys):
        said = facts(lines(capsys), "torch")[1]
        assert said["tf32"] == "False"
        assert "threads" in said


if "jax" in INSTALLED:

    def test_the_diagnosis_of_the_precision_of_jax(capsys):
        import jax

        said = facts(lines(capsys), "jax")[1]
        assert said["tf32"] == "False"
        assert said["enable_x64"] == str(jax.config.jax_enable_x64)


def test_the_diagnosis_of_what_is_missing_or_broken(capsys, monkeypatch):
    class Broken(dlx.Backend):
        def describe(self):
            raise OSError("libacme.so:\n  no such file")

    def get_backend(name):
        if name == "cupy":
            raise dlx.BackendNotInstalled
        if name == "jax":
            raise dlx.BackendUnavailable("its own\n reason")
        return Broken(types.ModuleType("acme"))

    monkeypatch.setattr(command, "get_backend", get_backend)
    printed = lines(capsys)
    assert facts(printed, "cupy") == ("not installed", {})
    assert facts(printed, "jax") == ("installed but unusable: its own reason", {})
    assert facts(printed, "torch") == ("installed but unusable: libacme.so: no such file", {})


def test_the_version_of_what_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr(command, "DEPENDENCIES", ("no-such-distribution",))
    assert lines(capsys)[0].endswith("no-such-distribution not installed")


def test_the_threads_of_numpy(monkeypatch):
    numpy = dlx.get_backend("numpy")
    pool = {"user_api": "blas", "internal_api": "openblas", "architecture": "Zen", "num_threads": 3}
    pools = types.SimpleNamespace(threadpool_info=lambda: [pool, {"user_api": "openmp"}])
    monkeypatch.setitem(sys.modules, "threadpoolctl", pools)
    assert numpy.describe()["BLAS threads"] == "3 (openblas Zen)"
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    for variable in importlib.import_module("dlx.backends._numpy").VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert numpy.describe()["BLAS threads"] == f"as it chooses, of {os.cpu_count()} CPUs"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert numpy.describe()["BLAS threads"] == "OMP_NUM_THREADS=2"


@pytest.mark.parametrize(("arguments", "said"), [(["bogus"], "invalid choice"), (["check", "a", "b"], "unrecognized")])
def test_wrong_usage(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_a_check_of_nonsense_says_what_is_wrong():
    run = subprocess.run([sys.executable, "-m", "dlx", "check", "nonsense"], capture_output=True, text=True)
    with pytest.raises(ValueError, match="nonsense") as error:
        dlx.get_backend("nonsense")
    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"{error.value}\n")


@pytest.mark.parametrize("arguments", [["check"], ["check", "numpy"]])
def test_a_check_runs_the_self_test_and_returns_its_status(arguments, monkeypatch):
    selftest = types.ModuleType("dlx.selftest")
    selftest.check = lambda selector: {None: 5, "numpy": 7}[selector]
    monkeypatch.setitem(sys.modules, "dlx.selftest", selftest)
    assert command.main(arguments) == (7 if "numpy" in arguments else 5)
