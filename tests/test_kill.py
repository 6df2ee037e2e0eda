"""SIGKILL at random moments of trainings that save after every update: nothing is lost, and nothing is another."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork are of POSIX systems")
KILLS = {"numpy": 200, "torch": 25, "jax": 8}


@pytest.mark.parametrize("backend", KILLS)
def test_every_kill_leaves_a_saved_step_and_the_last_resume_gives_the_same_bits(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, Path(__file__).with_name("killed.py"), backend, str(KILLS[backend]), tmp_path, "0"]
    environment = {name: value for name, value in os.environ.items() if name != "DLX_CUPY_ON_CPU"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout.splitlines()[-1])
    assert seen["bad"] == []
    assert seen["the last resume gives the same bits"]
    assert seen["kills"] == KILLS[backend]
    assert seen["within an epoch"] > 0  # of their last checkpoints
    assert seen["steps"] > 1  # they were different ones
    assert seen["left over"] == []
