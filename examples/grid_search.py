"""A pipeline and a grid search: width, depth, dropout and learning rate, in scikit-learn's manner.

    python examples/grid_search.py                        # NumPy, two processes; some ten seconds
    python examples/grid_search.py --backend torch        # the same search, computed by PyTorch

`dlx.MLPClassifier` stands behind a StandardScaler in a pipeline, and GridSearchCV tries it with 16 settings on the
handwritten digits, each by cross-validation in three folds, in two processes. The errors are standard deviations over
the folds. The learning rate decides most: at 0.01 the other settings differ by little more than the folds do, while at
0.001 15 epochs are not enough for the narrow networks. What differs from scikit-learn's own estimators is in
scikit_learn.md.
"""

import argparse
import os
import time
import warnings

import matplotlib.pyplot as plt
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
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--picture", default="grid_search.png", metavar="PATH", help="default: %(default)s, here")
    args = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    mlp = dlx.MLPClassifier(
        learning_rate="cosine",  # from its first rate to 0 in all of max_iter, so that every fit ends in peace
        max_iter=args.epochs,
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
    draw(search.cv_results_, args.picture)
    print(f"picture: {args.picture}")


def plain(params):
    """The parameters without the name of the pipeline's step."""
    return {name.removeprefix("mlpclassifier__"): value for name, value in params.items()}


def print_table(results):
    print("accuracy   error  settings")
    columns = ("rank_test_score", "mean_test_score", "std_test_score", "params")
    rows = zip(*(results[name] for name in columns), strict=True)
    for _, mean, std, params in sorted(rows, key=lambda row: row[0]):
        print(f"  {mean:.4f}  {std:.4f}  {plain(params)}")


def draw(results, path):
    """The accuracy of every setting and its deviation over the folds: a row for each network, a sign for each rate."""
    rows = {}
    for params, mean, std in zip(
        *(results[name] for name in ("params", "mean_test_score", "std_test_score")), strict=True
    ):
        width, layers, dropout, rate = (
            plain(params)[name] for name in ("width", "n_layers", "dropout", "learning_rate_init")
        )
        rows.setdefault(f"{layers} x {width}, dropout {dropout}", {})[rate] = mean, std
    names = sorted(rows, key=lambda name: max(rows[name].values()))
    ax = plt.figure(figsize=(6, 4), dpi=100, layout="constrained").subplots()
    for rate, colour, marker in zip((0.001, 0.01), dlx.plot.COLOURS, "os", strict=False):
        means, deviations = zip(*(rows[name][rate] for name in names), strict=True)
        style = {"color": colour, "fmt": marker, "elinewidth": 1, "label": f"learning rate {rate}"}
        ax.errorbar(means, range(len(names)), xerr=deviations, **style)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="accuracy by cross-validation ± standard deviation")
    ax.grid(axis="y", linewidth=0.4)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    plt.savefig(path)


if __name__ == "__main__":
    main()
