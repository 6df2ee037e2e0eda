"""A tour of activations: what each of them is, and what a network makes of two spirals with it.

    python examples/activations.py                     # NumPy; some five seconds
    python examples/activations.py --backend jax       # the same, computed by JAX

Above each plane the function and, dashed, its derivative, as dlx computes them; in the plane what the same small
network says with it, from one seed and after as many updates as all others: the paler, the less sure. Without an
activation (identity) all layers together are one linear map, which cuts the plane along one line. relu and leaky_relu
cut it along straight edges, the others along curves. sigmoid is the slowest here: its derivative is at most 1/4, and
every layer multiplies it in. One problem, one seed and one learning rate are no ranking.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import dlx

NAMES = ("identity", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus", "sigmoid", "tanh")


def main():
    parser = argparse.ArgumentParser(description="Train one network with each activation, and draw them.")
    parser.add_argument("--backend", default="numpy", help='where to compute: "numpy", "cupy", "torch:cuda" ...')
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--picture", default="activations.png", metavar="PATH", help="default: %(default)s, here")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    (X, y), (X_test, y_test) = spirals(rng, 400), spirals(rng, 2000)
    figure = plt.figure(figsize=(6, 6.8), dpi=100, layout="constrained")
    cells = figure.subfigures(-(-(len(NAMES) + 1) // 4), 4).ravel()  # one is left over for the legend
    print("activation  first loss  last loss  right of 2000 other points")
    for name, cell in zip(NAMES, cells, strict=False):
        net = dlx.fit(
            X,
            y,
            layer_dims=(2, 16, 16, 2),
            activation=name,
            learning_rate=dlx.schedules.cosine(1e-2),
            batch_size=32,
            epochs=args.epochs,
            backend=args.backend,
            rng=0,
        )
        losses = net.history["loss"]
        print(f"{name:10}  {losses[0]:10.4f}  {losses[-1]:9.4f}  {net.score(X_test, y_test):6.1%}")
        formula, plane = cell.subplots(2, 1, height_ratios=(1, 2))
        cell.suptitle(name, fontsize=10)
        draw_formula(name, formula)
        dlx.plot.boundary(net, X, y, plane).get_legend().remove()
        plane.set(xticks=[], yticks=[], xlabel="", ylabel="", aspect="equal")
        for points in plane.collections[-2:]:
            points.set(sizes=[2], linewidths=0, antialiased=False)
    explain(cells[len(NAMES)])
    figure.canvas.draw()
    picture = Image.fromarray(np.array(figure.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(256).save(args.picture, optimize=True)  # a third of the bytes
    print(f"picture: {args.picture}")


def spirals(rng, n):
    """Points (n, 2) of two arms of a turn and a quarter, and the number of their arm."""
    arm = np.arange(n) % 2
    radius = np.sqrt(rng.uniform(0.02, 1, n))
    angle = 2.5 * np.pi * radius + np.pi * arm
    X = 2 * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, 0.06, (n, 2))
    return X.astype(np.float32), arm


def draw_formula(name, ax):
    """f and f' by dlx's own formulas."""
    f, df = dlx.activations.get(name).bind(np)
    z = np.linspace(-4, 4, 401)
    ax.plot(z, f(z), color=dlx.plot.BLUE, linewidth=2)
    ax.plot(z, df(z, f(z)), color=dlx.plot.VERMILION, linestyle="--", linewidth=1.2)
    ax.set(xlim=(-4, 4), ylim=(-2, 3), xticks=(-4, 0, 4), yticks=(-1, 0, 1, 2))
    ax.tick_params(labelsize=7, length=2)
    ax.grid(linewidth=0.3)
    ax.spines[["top", "right"]].set_visible(False)


def explain(cell):
    """The legend, in the place that is left over."""
    ax = cell.subplots()
    ax.set_axis_off()
    ax.plot([], [], color=dlx.plot.BLUE, linewidth=2, label="f(z)")
    ax.plot([], [], color=dlx.plot.VERMILION, linestyle="--", label="f'(z)")
    for arm in range(2):
        ax.plot([], [], "o", color=dlx.plot.COLOURS[arm], label=f"arm {arm}")
    ax.legend(loc="center", frameon=False)


if __name__ == "__main__":
    main()
