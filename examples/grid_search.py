"""A search over width, depth, dropout and learning rate, in scikit-learn's manner, on handwritten digits.

    python examples/grid_search.py                        # NumPy, two processes; some ten seconds
    python examples/grid_search.py --backend torch        # the same search, computed by PyTorch

The images, 8 by 8 pixels, come with scikit-learn: nothing is downloaded.
"""

import argparse
import os
import time
import warnings

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dlx

GRID = {
    "mlpclassifier__width": [32, 128],
    "mlpclassifier__n_layers": [1, 2],
    "mlpclassifier__dropout": [0.0, 0.2],
    "mlpclassifier__learning_rate_init": [0.001, 0.01],
}


def main():
    parser = argparse.ArgumentParser(description="Search the settings of a classifier of handwritten digits.")
    parser.add_argument("--backend", default="numpy", help='where to compute: "numpy", "cupy", "torch:cuda" ...')
    parser.add_argument("--jobs", type=int, default=2, help="processes; default: %(default)s")
    args = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    mlp = dlx.MLPClassifier(
        learning_rate="cosine",  # from its first rate to 0 in all of max_iter, so that every fit ends in peace
        max_iter=15,
        batch_size=64,
        dtype="float32",
        backend=args.backend,
        random_state=0,
    )
    warnings.simplefilter("ignore", ConvergenceWarning)  # here; PYTHONWARNINGS speaks to the other processes
    os.environ["PYTHONWARNINGS"] = "ignore"
    start = time.perf_counter()
    search = GridSearchCV(make_pipeline(StandardScaler(), mlp), GRID, cv=3, n_jobs=args.jobs)
    search.fit(X_train, y_train)
    seconds = time.perf_counter() - start

    print_table(search.cv_results_)
    print(f"{len(search.cv_results_['params'])} settings, {search.n_splits_} folds: {seconds:.1f} s on {args.backend}")
    print(f"best: {plain(search.best_params_)}")
    print(f"accuracy on {len(y_test)} held-out images: {search.score(X_test, y_test):.4f}")


def plain(params):
    """The parameters without the name of the pipeline's step."""
    return {name.removeprefix("mlpclassifier__"): value for name, value in params.items()}


def print_table(results):
    print("accuracy   error  settings")
    columns = ("rank_test_score", "mean_test_score", "std_test_score", "params")
    rows = zip(*(results[name] for name in columns), strict=True)
    for _, mean, std, params in sorted(rows, key=lambda row: row[0]):
        print(f"  {mean:.4f}  {std:.4f}  {plain(params)}")


if __name__ == "__main__":
    main()
