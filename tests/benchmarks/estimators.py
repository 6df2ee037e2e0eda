"""The estimators beside scikit-learn's, with defaults: scores by cross-validation, and the time of a fit.

    python tests/benchmarks/estimators.py [--seeds 5] [--output FOLDER]

Five sets of scikit-learn's, inputs standardised, 5 folds: the mean score over seeds and its standard error. Then
seconds of one fit of all rows, the median of interleaved repeats, on the same sets and on work items A and C for three
epochs.
Writes estimators.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

from host import facts  # first, for it prepares the environment of NumPy

import numpy as np
import sklearn.neural_network as theirs
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dlx

SETS = ("digits", "breast_cancer", "wine", "iris", "diabetes")
ITEMS = {"A": ((784, 256, 10), 128, 60000), "C": ((20, 64, 64, 2), 32, 40000)}
REPEATS = 5


def pair(name: str) -> dict[str, object]:
    """Both estimators for a set."""
    kind = "MLPRegressor" if name == "diabetes" else "MLPClassifier"
    return {"scikit-learn": getattr(theirs, kind)(), "dlx": getattr(dlx, kind)()}


def scores(name: str, seeds: int) -> dict[str, list[float]]:
    """The mean score over folds, for each seed."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    found: dict[str, list[float]] = {}
    for label, est in pair(name).items():
        for seed in range(seeds):
            folds = (KFold if name == "diabetes" else StratifiedKFold)(5, shuffle=True, random_state=seed)
            model = make_pipeline(StandardScaler(), clone(est).set_params(random_state=seed))
            found.setdefault(label, []).append(float(cross_val_score(model, X, y, cv=folds).mean()))
    return found


def seconds(estimators: dict[str, object], X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Of one fit, the median of interleaved repeats."""
    taken: dict[str, list[float]] = {label: [] for label in estimators}
    for _ in range(REPEATS):
        for label, est in estimators.items():
            fresh = clone(est)
            start = time.perf_counter()
            fresh.fit(X, y)
            taken[label].append(time.perf_counter() - start)
    return {label: statistics.median(each) for label, each in taken.items()}


def fits() -> dict[str, dict[str, float]]:
    """The time of a fit on every set and work item."""
    found = {}
    for name in SETS:
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        estimators = {label: est.set_params(random_state=0) for label, est in pair(name).items()}
        found[name] = seconds(estimators, StandardScaler().fit_transform(X), y)
    for name, (dims, batch_size, n) in ITEMS.items():
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((n, dims[0])).astype("float32"), rng.integers(0, dims[-1], n)
        settings = {"hidden_layer_sizes": dims[1:-1], "batch_size": batch_size, "max_iter": 3, "random_state": 0}
        estimators = {label: est.set_params(**settings) for label, est in pair("digits").items()}
        found[name] = seconds(estimators, X, y)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("."))
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    found = {name: scores(name, args.seeds) for name in SETS}
    print("set              scikit-learn             dlx            difference")
    for name, each in found.items():
        shown = {label: (np.mean(s), np.std(s, ddof=1) / np.sqrt(len(s))) for label, s in each.items()}
        (a, a_error), (b, b_error) = shown["scikit-learn"], shown["dlx"]
        print(f"{name:<14}  {a:8.4f} ± {a_error:.4f}  {b:8.4f} ± {b_error:.4f}  {b - a:+.4f}")
    times = fits()
    print("fit             scikit-learn      dlx    share")
    for name, each in times.items():
        a, b = each["scikit-learn"], each["dlx"]
        print(f"{name:<14}  {a:10.3f} s  {b:7.3f} s  {b / a:.2f}")
    totals = [sum(each[label] for each in times.values()) for label in ("scikit-learn", "dlx")]
    print(f"{'total':<14}  {totals[0]:10.3f} s  {totals[1]:7.3f} s  {totals[1] / totals[0]:.2f}")
    text = json.dumps({"host": facts(), "scores": found, "seconds": times}, indent=1)
    (args.output / "estimators.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
