"""Quantile regression: a median and a band that holds nine tenths, from one network.

    python examples/quantiles.py                     # NumPy; some two seconds
    python examples/quantiles.py --backend cupy      # the same on a CUDA GPU

Least squares learns a mean and says nothing of how far off it may be. With `dlx.losses.quantile([0.05, 0.5, 0.95])` a
network has one output for each quantile and learns all three from the same target: its loss is smallest where a share q
of the targets lies below output q. The noise here grows from left to right, and the band with it. It was fitted to
2,000 points; how many of 20,000 others lie in it is counted for each unit of the axis, since a band may hold 90 % of
all and be too wide here and too narrow there. The true quantiles are known, as the data are made: they are dotted.
Nothing in the loss keeps one quantile from crossing another; here they do not.
"""

import argparse
from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np

import dlx

QUANTILES = (0.05, 0.5, 0.95)


def main():
    parser = argparse.ArgumentParser(description="Fit three quantiles of noisy data.")
    parser.add_argument("--backend", default="numpy", help='where to compute: "numpy", "cupy", "torch:cuda" ...')
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--picture", default="quantiles.png", metavar="PATH", help="default: %(default)s, here")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    (x, y), (x_test, y_test) = noisy_sine(rng, 2000), noisy_sine(rng, 20000)
    net = dlx.fit(
        x,
        y,
        layer_dims=(1, 32, 32, len(QUANTILES)),
        activation="silu",
        loss=dlx.losses.quantile(QUANTILES),
        learning_rate=dlx.schedules.cosine(1e-2),
        batch_size=100,
        epochs=args.epochs,
        backend=args.backend,
        rng=0,
    )
    print(net.summary())
    print_shares(x_test[:, 0], y_test, net.predict(x_test))
    draw(x, y, net, args.picture)
    print(f"picture: {args.picture}")


def middle(x):
    return np.sin(2 * x)


def spread(x):
    """The standard deviation of the noise."""
    return 0.1 + 0.15 * (x + 3) / 2


def noisy_sine(rng, n):
    x = rng.uniform(-3, 3, n).astype(np.float32)
    return x[:, None], (middle(x) + spread(x) * rng.standard_normal(n)).astype(np.float32)


def print_shares(x, y, lines):
    """The share of other points below each of the three lines, and between the outer two."""
    print("\n         x   below 5%  below 50%  below 95%  in the band")
    for low, high in [(start, start + 1) for start in range(-3, 3)] + [(-3, 3)]:
        here = (low <= x) & (x <= high)
        shares = (y[here, None] < lines[here]).mean(axis=0)
        print(f"{low:3} to {high:3}", *(f"{share:10.1%}" for share in shares), f"{shares[2] - shares[0]:12.1%}")
    print(f"places where lines cross: {np.sum(np.diff(lines, axis=1) < 0)} of {len(x)}")


def draw(x, y, net, path):
    """The points, the band with its median, and the true quantiles."""
    grid = np.linspace(-3, 3, 301, dtype=np.float32)
    low, median, high = net.predict(grid[:, None]).T
    ax = plt.figure(figsize=(6, 4), dpi=100, layout="constrained").subplots()
    ax.scatter(x, y, s=3, color="0.5", linewidths=0, label="data")
    ax.fill_between(grid, low, high, color=dlx.plot.BLUE, alpha=0.25, linewidth=0, label="5% to 95%")
    ax.plot(grid, median, color=dlx.plot.BLUE, linewidth=2, label="median")
    for q in QUANTILES:
        true = middle(grid) + spread(grid) * NormalDist().inv_cdf(q)
        ax.plot(grid, true, color="black", linestyle=":", linewidth=1, label="true quantiles" if q == 0.5 else None)
    ax.set(xlabel="x", ylabel="y", xlim=(-3, 3))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", ncols=2, frameon=False)
    plt.savefig(path)


if __name__ == "__main__":
    main()
