"""The same fit on every backend at hand: one seed, several array libraries, one loss curve.

    python examples/every_backend.py                          # all that compute here; some ten seconds
    python examples/every_backend.py --backend numpy,cupy     # some of them; the first is compared with

dlx draws weights and batches on the host and takes dropout masks from a hash of integers, so that every library gets
the same start and the same order. What is left is the order in which each one adds up: the last digits of float64.
Three rings of points, batches of 64, dropout, Adam. "strict" is array-api-strict, which has what the standard says and
nothing more. Above all curves, which look like one, below how far each lies from the first.
"""

import argparse
import os

import matplotlib.pyplot as plt
import numpy as np

import dlx


def main():
    parser = argparse.ArgumentParser(description="Train the same network on every array library and compare.")
    parser.add_argument("--backend", help='with commas between: "numpy,cupy,torch:cuda"; default: all there are')
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--picture", default="every_backend.png", metavar="PATH", help="default: %(default)s, here")
    args = parser.parse_args()
    # JAX computes in float32 unless it is told otherwise before it is first imported, which dlx does when it is asked
    # for JAX, below. jax.config.update("jax_enable_x64", True) says the same from within Python.
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    selectors = args.backend.split(",") if args.backend else available()

    # Three classes: rings around the origin, with noise that makes them overlap.
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    angle = rng.uniform(0, 2 * np.pi, 600)
    X = (y + 1 + rng.normal(0, 0.3, 600))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    losses = {}
    for selector in selectors:
        net = dlx.fit(
            X,
            y,
            layer_dims=(2, 32, 32, 3),
            activation="tanh",
            dropout=0.1,
            learning_rate=5e-3,
            batch_size=64,
            epochs=args.epochs,
            backend=selector,
            dtype="float64",
            rng=0,
        )
        losses[selector] = np.array(net.history["loss"])
        print(f"{selector}: accuracy {net.score(X, y):.4f}")

    print_table(losses)
    draw(losses, args.picture)
    print(f"picture: {args.picture}")


def available():
    """All that compute here, NumPy first: the others are compared with it."""
    return sorted(dlx.available_backends(), key=lambda name: (name != "numpy", name))


def print_table(losses):
    """Losses of about ten epochs; the largest difference is that of all epochs."""
    table = np.stack(list(losses.values()))
    spread = np.ptp(table, axis=0)
    print("\nepoch", *(f"{selector:>18}" for selector in losses), "  largest difference")
    for epoch in range(0, table.shape[1], max(1, table.shape[1] // 10)):
        print(f"{epoch + 1:5}", *(f"{loss:18.15f}" for loss in table[:, epoch]), f"  {spread[epoch]:.1e}")
    print(f"largest difference in any of {table.shape[1]} epochs: {spread.max():.1e}")


def draw(losses, path):
    """All curves, which look like one, and below them how far each lies from the first."""
    (first, reference), *others = losses.items()
    epochs = np.arange(1, len(reference) + 1)
    colours = [dlx.plot.COLOURS[place % len(dlx.plot.COLOURS)] for place in range(len(losses))]
    above, below = plt.figure(figsize=(6, 4.5), dpi=100, layout="constrained").subplots(2, 1, sharex=True)
    for place, (selector, curve) in enumerate(losses.items()):
        # each line is thinner than the one beneath it, so that all can be seen where they coincide
        width = 2 + 3 * (len(losses) - 1 - place)
        above.plot(epochs, curve, color=colours[place], linewidth=width, label=selector)
    above.set(ylabel="training loss", title="one curve, drawn once for each library")
    above.legend()
    for place, (selector, curve) in enumerate(others, start=1):
        distance = np.abs(curve - reference)
        size = 3 * (len(losses) - place)
        below.plot(epochs, distance, "o", color=colours[place], markersize=size, label=selector)
    below.set_yscale("symlog", linthresh=1e-17)  # logarithmic, and with a place for 0
    below.set(xlabel="epoch", ylabel=f"distance from {first}", ylim=(-5e-18, None))
    plt.savefig(path)


if __name__ == "__main__":
    main()
