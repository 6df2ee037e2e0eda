"""What users reported as slow or hungry, beside scikit-learn and NumPy: seconds and megabytes of each case.

    python tests/benchmarks/field.py [--output FOLDER] [--only NAME ...] [--rows 60000]

Many numbers of rows on JAX, sparse texts of 2^18 columns, a mapped file that is standardised or scored, and a thousand
classes. Each case runs in a process of its own; megabytes are the peak of anonymous memory above that before the case
(mapped pages of a file do not count), sampled every millisecond. Writes field.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from host import facts  # first, for it prepares the environment of NumPy

import numpy as np

ROWS, COLUMNS = 60_000, 784


def predictions(library: str) -> Callable[[], object]:
    """predict_proba of 20, 21, ... 39 rows."""
    import dlx

    X = np.random.default_rng(0).standard_normal((300, 8))
    net = dlx.fit(X, np.arange(300) % 3, (8, 16, 3), backend=library, dtype="float32", rng=0, epochs=2)
    return lambda: [net.predict_proba(X[:k]) for k in range(20, 40)]


def splits(library: str) -> Callable[[], object]:
    """TimeSeriesSplit(10) of an estimator."""
    from sklearn.model_selection import TimeSeriesSplit, cross_val_score

    X, y = np.random.default_rng(0).standard_normal((300, 8)), np.arange(300) % 3
    return lambda: cross_val_score(estimator(library), X, y, cv=TimeSeriesSplit(10))


def grid(library: str) -> Callable[[], object]:
    """A grid of 12 settings in 3 folds."""
    from sklearn.model_selection import GridSearchCV

    X, y = np.random.default_rng(0).standard_normal((300, 8)), np.arange(300) % 3
    settings = {"alpha": [1e-4, 1e-3, 1e-2, 1e-1], "learning_rate_init": [1e-3, 3e-3, 1e-2]}
    return lambda: GridSearchCV(estimator(library), settings, cv=3).fit(X, y)


def texts(library: str, fits: bool) -> Callable[[], object]:
    """Two epochs on, or labels of, 3,000 documents of 100 words, hashed to 2^18 columns."""
    from sklearn.feature_extraction.text import HashingVectorizer

    words = np.random.default_rng(0).integers(0, 20_000, (3000, 100))
    X = HashingVectorizer(n_features=2**18).fit_transform([" ".join(f"w{k}" for k in row) for row in words])
    y = np.arange(3000) % 2
    est = estimator(library, hidden_layer_sizes=(10,), max_iter=2)
    if fits:
        return lambda: est.fit(X, y)
    est.fit(X, y)
    return lambda: est.predict(X)


def standardised(library: str, standardize: bool) -> Callable[[], object]:
    """One epoch on a mapped file, its columns standardised or not."""
    X, y = mapped()
    return lambda: estimator(library, max_iter=1, standardize=standardize, dtype="float32").fit(X, y)


def scored(library: str) -> Callable[[], object]:
    """The score of a mapped file."""
    import dlx

    X, y = mapped()
    net = dlx.fit(X[:1000], y[:1000], (COLUMNS, 32, 2), backend=library, rng=0, epochs=1)
    return lambda: net.score(X, y)


def classes(library: str) -> Callable[[], object]:
    """Labels of 50,000 rows out of 3,000 classes."""
    import dlx

    rng = np.random.default_rng(0)
    X = rng.standard_normal((50_000, 20), dtype=np.float32)
    layers = [(rng.standard_normal((a, b)), np.zeros(b)) for a, b in ((20, 64), (64, 3000))]
    net = dlx.Network(layers, loss="cross_entropy", backend=library, dtype="float32")
    return lambda: net.predict(X)


CASES: dict[str, Callable[[], Callable[[], object]]] = {
    **{f"20 predictions, {each}": lambda each=each: predictions(each) for each in ("numpy", "jax")},
    **{f"TimeSeriesSplit(10), {each}": lambda each=each: splits(each) for each in ("numpy", "jax", "scikit-learn")},
    **{f"grid of 12 x 3, {each}": lambda each=each: grid(each) for each in ("numpy", "jax", "scikit-learn")},
    **{f"texts, two epochs, {each}": lambda each=each: texts(each, True) for each in ("numpy", "scikit-learn")},
    **{f"texts, predict, {each}": lambda each=each: texts(each, False) for each in ("numpy", "scikit-learn")},
    "mapped file, an epoch, numpy": lambda: standardised("numpy", False),
    "mapped file, an epoch, standardised, numpy": lambda: standardised("numpy", True),
    **{f"mapped file, score, {each}": lambda each=each: scored(each) for each in ("numpy", "jax")},
    **{f"3,000 classes, predict, {each}": lambda each=each: classes(each) for each in ("numpy", "jax")},
}


def estimator(library: str, **how: object) -> object:
    """A classifier of dlx's on a library, or scikit-learn's."""
    import sklearn.neural_network

    import dlx

    warnings.simplefilter("ignore")
    settings = {"hidden_layer_sizes": (16,), "max_iter": 5, "random_state": 0, **how}
    if library == "scikit-learn":
        return sklearn.neural_network.MLPClassifier(**settings)
    return dlx.MLPClassifier(**settings | {"backend": library} | ({} if library == "numpy" else {"dtype": "float32"}))


def mapped() -> tuple[np.ndarray, np.ndarray]:
    """A file of float32 rows and labels of them; the file is gone with the process."""
    rows = int(os.environ["DLX_FIELD_ROWS"])
    with tempfile.NamedTemporaryFile() as file:
        for first in range(0, rows, 1000):
            np.random.default_rng(first).standard_normal((min(1000, rows - first), COLUMNS), np.float32).tofile(file)
        file.flush()
        return np.memmap(file.name, np.float32, "r", shape=(rows, COLUMNS)), np.arange(rows) % 2


@contextlib.contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Seconds, and the peak of this process's anonymous memory in megabytes above that before."""
    found, before, ended = {"MB": 0.0}, anonymous(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.001):
            found["MB"] = max(found["MB"], anonymous() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.perf_counter()
    yield found
    found["seconds"] = time.perf_counter() - started
    ended.set()
    thread.join()


def anonymous() -> float:
    """Megabytes that belong to no file."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("RssAnon"))
    return int(line.split()[1]) / 1000


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--process", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("."))
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--rows", type=int, default=ROWS)
    chosen = parser.parse_args()
    if chosen.process:
        case = CASES[chosen.process]()
        with watched() as found:
            case()
        print(json.dumps(found))
        return 0
    seen = {}
    for name in chosen.only:
        command = [sys.executable, __file__, "--process", name]
        environment = os.environ | {"DLX_FIELD_ROWS": str(chosen.rows)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        seen[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:<45} {seen[name]['seconds']:8.2f} s {seen[name]['MB']:8.0f} MB", flush=True)
    (chosen.output / "field.json").write_text(json.dumps({"facts": facts(), "cases": seen}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
