"""The article's point: what a chain of single neurons cannot do, and a wide network can.

    python examples/article.py                       # NumPy; some five seconds
    python examples/article.py --backend cupy        # the same on a CUDA GPU

`dlx.L_layer_model` is the article's function: columns are samples, and training starts at weights of 0.01 randn. A
chain of neurons looks at its input through the first one, at one number w·x. Whatever it does with that number
afterwards, and however long it is, it can only cut the plane along parallel lines: enough for two classes on either
side of a line, never enough for two arms of a spiral. The wide network has 64 such numbers to combine.
"""

import argparse
import os
import time

import matplotlib.pyplot as plt
import numpy as np

import dlx

CHAIN = (2, 1, 1, 1)
WIDE = (2, 64, 32, 1)
FORMULAS = {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0), "none": lambda z: z}


def main():
    parser = argparse.ArgumentParser(description="A chain of neurons and a wide network, on a line and on a spiral.")
    parser.add_argument("--backend", default="numpy", help='where to compute: "numpy", "cupy", "torch:cuda" ...')
    parser.add_argument("--iterations", type=int, default=10000)
    parser.add_argument("--picture", default="article.png", metavar="PATH", help="default: %(default)s, here")
    args = parser.parse_args()
    # Like the article this computes in float64, which JAX must be told before it is first imported, by dlx below.
    os.environ.setdefault("JAX_ENABLE_X64", "1")

    rng = np.random.default_rng(0)
    line, spiral = line_data(rng), spiral_data(rng)
    # The chain takes tanh: from the article's start ReLU neurons in single file are dead, since the second weight is
    # negative and its neuron gives 0 for every input. The wide network has others to turn to.
    # Both start at weights of 0.01 randn. Layers multiply them, so that at first next to nothing comes through: the
    # cost stays where it is for hundreds of iterations until it falls.
    tanh, relu = ("tanh", "tanh", "none"), ("relu", "relu", "none")
    runs = [
        ("line", line, CHAIN, tanh, 0.1),
        ("spiral", spiral, CHAIN, tanh, 0.1),
        ("spiral", spiral, WIDE, relu, 0.03),
    ]
    panels = plt.figure(figsize=(6, 3.9), dpi=100, layout="constrained").subplots(2, 3, height_ratios=(2, 1))
    print("network    data    first cost  last cost   right  seconds")
    for (data, (X, Y), layer_dims, activation, rate), plane, curve in zip(runs, *panels, strict=True):
        start = time.perf_counter()
        params, costs = dlx.L_layer_model(
            X, Y, layer_dims, rate, args.iterations, activation=activation, backend=args.backend
        )
        seconds = time.perf_counter() - start
        params = {key: dlx.get_backend(args.backend).to_host(value) for key, value in params.items()}
        right = np.mean(np.sign(output(params, X, activation)) == Y)
        name = "-".join(map(str, layer_dims))
        print(f"{name:9}  {data:6}  {costs[0]:10.4f}  {costs[-1]:9.4f}  {right:6.1%}  {seconds:7.1f}")

        sides = np.linspace(-1.1, 1.1, 201)
        grid = np.stack(np.meshgrid(sides, sides)).reshape(2, -1)
        plane.contourf(sides, sides, output(params, grid, activation).reshape(201, 201) > 0, 1, cmap="RdBu", alpha=0.4)
        plane.scatter(*X, c=Y[0], s=3, cmap="RdBu")
        plane.set(aspect="equal", xticks=[], yticks=[])
        plane.set_title(f"{name}: {right:.1%} right", fontsize=10)
        curve.plot(costs)
        curve.set(ylim=(0, 1.1), xlabel="iteration", xticks=(0, args.iterations))
    panels[1, 0].set_ylabel("cost")
    plt.savefig(args.picture)
    print(f"picture: {args.picture}")


def line_data(rng, m=400):
    """Points of a square (2, m), and +1 above a line, -1 below it, (1, m)."""
    X = rng.uniform(-1, 1, (2, m))
    return X, np.where(X[1:] > 0.6 * X[:1] - 0.1, 1.0, -1.0)


def spiral_data(rng, m=400):
    """Points (2, m) of two arms of one turn and a quarter, and +1 on one arm, -1 on the other, (1, m)."""
    arm = np.where(np.arange(m) % 2 == 0, 1.0, -1.0)
    radius = np.sqrt(rng.uniform(0.02, 1, m))
    angle = 2.5 * np.pi * radius
    return arm * radius * np.stack([np.cos(angle), np.sin(angle)]) + rng.normal(0, 0.015, (2, m)), arm[None, :]


def output(params, X, activation):
    """The network's output, as the article writes it: A = f(W A + b), layer by layer."""
    A = X
    for l, name in enumerate(activation, start=1):
        A = FORMULAS[name](params[f"W{l}"] @ A + params[f"b{l}"])
    return A


if __name__ == "__main__":
    main()
