"""What every method holds beside data and result: a bounded number of blocks, however many rows there are.

NumPy's own account is read where NumPy computes, and elsewhere the process's resident anonymous memory: mapped pages
of a file do not count.
"""

import subprocess
import sys

import numpy as np
import pytest

import dlx
from allocation import peak
from dlx.plot import figures

MB = 1e6
ROWS, WIDE = 400_000, 64  # 102 MB of float32
BLOCKS = 12 * MB


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """X, mapped from a file, and y."""
    path = tmp_path_factory.mktemp("table") / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", "f4", (ROWS, WIDE))
    X[:] = np.random.default_rng(0).standard_normal((ROWS, WIDE), dtype="f4")
    X.flush()
    return np.load(path, mmap_mode="r"), np.arange(ROWS) % 2


METHODS = {  # what is asked, and how much of it is the result, or one number or two a row
    "predict": (lambda net, X, y: net.predict(X), 16 * ROWS),
    "predict_proba": (lambda net, X, y: net.predict_proba(X), 8 * ROWS),
    "score": (lambda net, X, y: net.score(X, y), 32 * ROWS),
    "report": (lambda net, X, y: net.report(X, y, (X, y)), 32 * ROWS),
    "activations": (lambda net, X, y: net.activations(X), 4 * 10 * ROWS),
    "layers": (lambda net, X, y: figures.layer_figures(net, X, y, 500), 32 * ROWS),
    "fit": (lambda net, X, y: dlx.fit(X, y, (WIDE, 8, 2), epochs=1, batch_size=4096), 64 * ROWS),
    "validation": (
        lambda net, X, y: dlx.fit(X, y, (WIDE, 8, 2), epochs=1, batch_size=4096, validation=0.5),
        80 * ROWS,
    ),
    "find_learning_rate": (
        lambda net, X, y: dlx.find_learning_rate(X, y, (WIDE, 8, 2), updates=20),
        64 * ROWS,
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("ask", "result"), METHODS.values(), ids=METHODS)
def test_a_method_of_a_network_holds_blocks_on_numpy(ask, result, dtype, table):
    """The report: predict of 50,000 rows and 3,000 classes held the score matrix twice."""
    X, y = table
    net = dlx.Network([(np.ones((WIDE, 8)), np.zeros(8)), (np.ones((8, 2)), np.zeros(2))], loss="cross_entropy")
    net = net.to("numpy", dtype)
    numbers = 2 * result if dtype == "float64" else result
    assert peak(lambda: ask(net, X, y)) < numbers + BLOCKS + (10 * MB if ask is METHODS["report"][0] else 0)


def test_a_thousand_classes_are_a_few_rows_a_block():
    """Predict of 200,000 rows held 1.5 GB for 16 MB of X; validation 842 MB where 31 serve."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30_000, 20), dtype="f4"), np.arange(30_000) % 1000
    net = dlx.Network([(rng.standard_normal((20, 1000)), np.zeros(1000))], loss="cross_entropy", dtype="float32")
    assert peak(lambda: net.predict(X)) < 30 * MB
    assert peak(lambda: net.score(X, y)) < 30 * MB
    assert peak(lambda: dlx.fit(X, y, (20, 1000), epochs=1, validation=0.9)) < 60 * MB


def test_a_million_classes_are_bounded_before_the_first_update():
    """`evidence.facts` took 2.9 GB."""
    X, y = np.zeros((300, 2), "f4"), np.arange(300)
    how = {"epochs": 1, "batch_size": 2, "optimizer": "gradient_descent"}
    stop = [lambda net: True]
    weights = 4 * 3 * 10**6
    found = peak(lambda: dlx.fit(X[:2], y[:2], (2, 10**6), **how, callbacks=stop))
    assert found < 20 * weights + 300 * MB


@pytest.mark.parametrize("standardize", [False, True])
def test_an_estimator_holds_no_more_than_the_standardised_copy(standardize, table):
    """`standardize=True` on a memmap of 2 GB took 5.9 GB."""
    X, y = table
    model = dlx.MLPRegressor((4,), max_iter=1, random_state=0, standardize=standardize, batch_size=4096, tol=0)
    with pytest.warns(UserWarning, match="has not converged"):
        held = peak(lambda: model.fit(X, y.astype("f4")))
    assert held < standardize * X.nbytes + 64 * ROWS + BLOCKS
    assert peak(lambda: model.predict(X)) < 16 * ROWS + BLOCKS


MEASURED = """
import sys, threading, time
import numpy as np
import dlx

def anonymous():
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

X = np.load(sys.argv[1], mmap_mode="r")
y = np.arange(len(X)) % 2
net = dlx.Network([(np.ones((64, 8), "f4"), np.zeros(8)), (np.ones((8, 2)), np.zeros(2))], loss="cross_entropy",
                  backend=sys.argv[2], dtype="float32")
asked = [net.predict, net.predict_proba, lambda X: net.score(X, y[: len(X)]), lambda X: net.report(X, y[: len(X)])]
for ask in asked:
    ask(X[:70_000])  # what is compiled once
before = highest = anonymous()
running = True

def watch():
    global highest
    while running:
        highest = max(highest, anonymous())
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
for ask in asked:
    ask(X)
running = False
thread.join()
print(highest - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory apart")
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_rows_of_the_host_are_never_brought_over_as_a_whole(library, table):
    """The report: `net.score` after `stream=True` on JAX, 4.1 GB for 2 GB of data."""
    pytest.importorskip(library)
    command = [sys.executable, "-c", MEASURED, table[0].filename, library]
    found = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found < 60 * MB < table[0].nbytes
