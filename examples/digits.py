"""Handwritten digits: train on 1,437 small images, score on 360 others, look at the mistakes.

    python examples/digits.py                        # NumPy; some two seconds
    python examples/digits.py --backend cupy         # the same code on a CUDA GPU

The images, 8 by 8 pixels, come with scikit-learn: nothing is downloaded. One hidden layer of 256 relu neurons,
dropout, smoothed labels and a learning rate that falls along a cosine were chosen by cross-validation on the training
images. The picture has the loss by epoch, and the mistakes that the network was surest of: each image, and the
probabilities that it gave to the ten digits.
"""

import argparse
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import dlx


def main():
    parser = argparse.ArgumentParser(description="Train on scikit-learn's handwritten digits.")
    parser.add_argument("--backend", default="numpy", help='where to compute: "numpy", "cupy", "torch:cuda" ...')
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--picture", default="digits.png", metavar="PATH", help="default: %(default)s, here")
    args = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)  # a pixel is 0..16
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    # Cross-validation on the training images gave these settings 98.5 %.
    start = time.perf_counter()
    net = dlx.fit(
        X_train,
        y_train,
        layer_dims=(64, 256, 10),
        loss=dlx.losses.cross_entropy(label_smoothing=0.1),
        dropout=0.3,
        learning_rate=dlx.schedules.cosine(3e-3),
        batch_size=64,
        epochs=args.epochs,
        callbacks=say_every_tenth,
        backend=args.backend,
        rng=0,
    )
    seconds = time.perf_counter() - start

    guess, P = net.predict(X_test), net.predict_proba(X_test)
    print(net.summary())
    print(f"training took {seconds:.2f} s on {net.backend.selector}")
    print_table(y_test, guess)
    print(f"accuracy on {len(y_test)} held-out images: {net.score(X_test, y_test):.4f}")
    draw(net.history["loss"], X_test, y_test, guess, P, args.picture)
    print(f"picture: {args.picture}")


def say_every_tenth(net):
    losses = net.history["loss"]
    if len(losses) % 10 == 0:
        print(f"epoch {len(losses):3}  loss {losses[-1]:.4f}")


def print_table(truth, guess):
    print("digit  images  right  wrong ones were taken for")
    for digit in range(10):
        own = guess[truth == digit]
        wrong = ", ".join(str(other) for other in own[own != digit])
        print(f"{digit:5}  {len(own):6}  {np.sum(own == digit):5}  {wrong or '-'}")


def draw(losses, X, truth, guess, P, path, most=6):
    """The loss curve above; below it the surest mistakes, each with the probabilities of all ten digits."""
    wrong = np.flatnonzero(guess != truth)
    wrong = wrong[np.argsort(-P[wrong].max(axis=1))][:most]
    top, bottom = plt.figure(figsize=(6, 5), dpi=100, layout="constrained").subfigures(2, 1)

    curve = top.subplots()
    curve.plot(range(1, len(losses) + 1), losses, color=dlx.plot.BLUE)
    # Where labels are smoothed by 0.1, even the best network is left with the entropy of the smoothed label.
    smoothed = np.array([0.91] + 9 * [0.01])
    curve.axhline(-np.sum(smoothed * np.log(smoothed)), color="grey", linestyle=":", label="the least there can be")
    curve.set(xlabel="epoch", ylabel="training loss", xlim=(1, None))
    curve.legend()

    right = np.sum(guess == truth)
    caption = f"{right} of {len(truth)} held-out digits are right; the surest mistakes (truth blue, guess orange):"
    bottom.suptitle(caption, fontsize=10)
    panels = bottom.subplots(2, most, height_ratios=(3, 2))
    for image, bars in panels.T:
        image.set_axis_off()
        bars.set(ylim=(0, 1), xticks=(0, 3, 6, 9), yticks=(0, 1))
        bars.label_outer()
    panels[1, 0].set(xlabel="digit", ylabel="probability")
    for i, (image, bars) in zip(wrong, panels.T, strict=False):
        image.imshow(X[i].reshape(8, 8), cmap="gray_r")
        image.set_title(f"{truth[i]} read as {guess[i]}", fontsize=9)
        bars.bar(range(10), P[i], color="lightgrey")
        bars.bar(truth[i], P[i, truth[i]], color=dlx.plot.BLUE)
        bars.bar(guess[i], P[i, guess[i]], color=dlx.plot.VERMILION)
    for bars in panels[1, len(wrong) :]:
        bars.set_axis_off()
    plt.savefig(path)


if __name__ == "__main__":
    main()
