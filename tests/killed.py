"""Trainings that are killed: what `test_kill.py` starts in a process of its own, which forks one child after another.

    python killed.py BACKEND KILLS FOLDER SEED

The parent computes nothing, so that no library's threads are lost in a fork. It prints what it saw as JSON.
"""

import contextlib
import hashlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import dlx
from dlx.files import checkpoints, container, schema

ROWS, BATCH, EPOCHS = 300, 16, 20
FITS = {"layer_dims": (12, 24, 3), "batch_size": BATCH, "epochs": EPOCHS, "dropout": 0.25, "validation": 0.2}
FITS |= {"patience": 50, "activation": "tanh", "rng": 7}
LONGEST = {"numpy": 0.08, "torch": 0.6, "jax": 8.0}  # seconds before a kill, on an idle machine


def fit(backend, folder, every=1):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((ROWS, 12)).astype("float32")
    return dlx.fit(X, np.arange(ROWS) % 3, **FITS, backend=backend, checkpoint=folder, checkpoint_every=every)


def digest(arrays):
    """Of weights and slots, by their names."""
    found = hashlib.sha256()
    for name in sorted(name for name in arrays if name.startswith(("W", "b", "slots"))):
        found.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()


def child(work, *command):
    """The number of a process that does the work: forked, or for JAX, which has threads by then, one of its own."""
    if command and "jax" in sys.modules:
        return subprocess.Popen([sys.executable, __file__, *map(str, command)]).pid
    number = os.fork()
    if number == 0:
        status = 1
        with contextlib.suppress(BaseException):
            work()
            status = 0
        os._exit(status)
    return number


def reference(backend, folder):
    """A whole training, whose every state is written down."""
    states, save = {}, checkpoints.Checkpoints.save

    def noted(self, progress):
        save(self, progress)
        states[progress.updates] = digest(container.read(newest(folder)[0], schema.layout)[1])

    checkpoints.Checkpoints.save = noted
    states["final"] = weights(fit(backend, folder))
    (folder.parent / "states.json").write_text(json.dumps(states))


def last(backend, folder):
    """The training to its end."""
    (folder.parent / "last").write_text(weights(fit(backend, folder)))


def weights(net):
    return digest({f"W{k}": net.backend.to_host(x) for k, x in enumerate(x for layer in net.params for x in layer)})


def newest(folder):
    return sorted(folder.glob("checkpoint-*"), reverse=True)


def main(backend, kills, folder, seed):
    folder, kills, moment = Path(folder), int(kills), random.Random(seed)
    if backend != "numpy":
        importlib.import_module(backend)
    command = child(lambda: reference(backend, folder / "reference"), "reference", backend, folder / "reference")
    assert os.waitpid(command, 0)[1] == 0
    states = json.loads((folder / "states.json").read_text())
    run, seen = folder / "run", {"kills": 0, "finished": 0, "within an epoch": 0, "steps": set(), "bad": []}
    longest, reached = LONGEST[backend], []
    while seen["kills"] < kills:
        number = child(lambda: fit(backend, run), "fit", backend, run)
        time.sleep(moment.uniform(0, longest))
        os.kill(number, signal.SIGKILL)
        if os.waitpid(number, 0)[1] != signal.SIGKILL:  # it had ended before
            seen["finished"] += 1
            for path in run.iterdir():
                path.unlink()
            continue
        seen["kills"] += 1
        paths = newest(run)
        # on a busy machine a training may not get as far as to save: the next one lives longer
        longest = 1.2 * longest if paths == reached else LONGEST[backend]
        reached = paths
        for path in paths:
            try:
                description, arrays = container.read(path, schema.layout)
            except dlx.FileError as reason:
                seen["bad"].append(str(reason))
                continue
            training = description["training"]
            if digest(arrays) != states[str(training["updates"])]:
                seen["bad"].append(f"update {training['updates']} is not what it was")
            if path == paths[0]:
                seen["steps"].add(training["updates"])
                seen["within an epoch"] += training["position"] > 0

    assert os.waitpid(child(lambda: last(backend, run), "last", backend, run), 0)[1] == 0
    seen["the last resume gives the same bits"] = (folder / "last").read_text() == states["final"]
    seen["left over"] = sorted(path.name for path in run.iterdir() if time.time() - path.stat().st_mtime > 120)
    print(json.dumps(seen | {"steps": len(seen["steps"])}))


if __name__ == "__main__":
    if sys.argv[1] in ("reference", "fit", "last"):
        globals()[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    else:
        main(*sys.argv[1:])
