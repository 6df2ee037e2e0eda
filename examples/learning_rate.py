"""The learning-rate finder: one short training in which the rate rises, instead of many.

    python examples/learning_rate.py                     # NumPy; some two seconds
    python examples/learning_rate.py --backend torch     # the same search, computed by PyTorch

`dlx.find_learning_rate` trains for 300 updates while the rate rises from 1e-6 to 10, and looks where the loss falls
most steeply (Smith 2017, arXiv:1506.01186). Below it, so that nobody has to believe it, whole trainings at the rate
that was found, and at rates from a hundred times less to a hundred times more. Much less is slow, much more learns
little. What is found is a start and no optimum: ten times as much does better here.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import dlx

FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)
STYLES = (":", "--", "-", "-.", (0, (5, 1, 1, 1, 1, 1)))  # colours alone do not tell lines apart in grey


def main():
    parser = argparse.ArgumentParser(description="Find a learning rate, and train with others beside it.")
    parser.add_argument("--backend", default="numpy", help='where to compute: "numpy", "cupy", "torch:cuda" ...')
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--picture", default="learning_rate.png", metavar="PATH", help="default: %(default)s, here")
    args = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    job = {"layer_dims": (64, 128, 10), "batch_size": 64, "backend": args.backend, "rng": 0}
    found = dlx.find_learning_rate(X_train, y_train, **job)
    print(f"the loss falls most steeply at {found.suggestion:.2g} and stays above its start from {found.diverges:.2g}")

    losses = {}
    print(f"\n    rate  loss after {args.epochs} epochs  accuracy on {len(y_test)} held-out images")
    for rate in (factor * found.suggestion for factor in FACTORS):
        net = dlx.fit(X_train, y_train, **job, learning_rate=rate, epochs=args.epochs)
        losses[rate] = net.history["loss"]
        print(f"{rate:8.2g}  {losses[rate][-1]:20.2g}  {net.score(X_test, y_test):.4f}")
    draw(found, losses, args.picture)
    print(f"picture: {args.picture}")


def draw(found, losses, path):
    """What the finder saw, and below it the loss of each training by epoch."""
    above, below = plt.figure(figsize=(6, 5.4), dpi=100, layout="constrained").subplots(2, 1)
    dlx.plot.rate_search(found, above)
    for (rate, curve), colour, style in zip(losses.items(), dlx.plot.COLOURS, STYLES, strict=False):
        below.plot(
            range(1, len(curve) + 1),
            curve,
            color=colour,
            linestyle=style,
            label=f"{rate:.2g}" + (", found" if rate == found.suggestion else ""),
        )
    below.set(xlabel="epoch", ylabel="training loss", yscale="log")
    below.xaxis.get_major_locator().set_params(integer=True)
    below.spines[["top", "right"]].set_visible(False)
    below.legend(title="learning rate", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    plt.savefig(path)


if __name__ == "__main__":
    main()
