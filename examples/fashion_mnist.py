"""Fashion-MNIST: 60,000 images of clothes to learn from, 10,000 to be judged by.

    python examples/fashion_mnist.py                     # NumPy; 20 epochs of some 1.5 s on two free cores
    python examples/fashion_mnist.py --backend cupy      # the same code on a CUDA GPU
    python examples/fashion_mnist.py --tune              # how the settings were chosen: the test images are not read

784-512-256-10 learns from the 60,000 and reads the test images once. The four files are looked for in
$FASHION_MNIST_DIR, in the folder of Debian's package dataset-fashion-mnist and in ~/.cache/fashion-mnist, where they
are otherwise downloaded to (30 MB, from the address that the data's authors give), and verified by SHA-256. How many
threads BLAS has changes the last digits of every sum, and so the result: 0.8995 with two, 0.9007 with one. How the
settings were chosen, without the test images, is in fashion_mnist.md.
"""

import argparse
import gzip
import hashlib
import os
import sys
import urllib.request
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import dlx

ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CACHE = Path.home() / ".cache" / "fashion-mnist"
SHA256 = {  # of the files unpacked: Debian packs the same bytes anew
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
CHOSEN = {"hidden": (512, 256), "batch_size": 256, "dropout": 0.25, "smoothing": 0.1, "rate": 2e-3}
ALTERNATIVES = (  # what is unlike CHOSEN, and nothing first
    {},
    {"hidden": (512,)},
    {"hidden": (256, 128), "batch_size": 128, "rate": 1e-3},
    {"smoothing": 0.0},
    {"dropout": 0.0},
    {"batch_size": 128, "rate": 1e-3},
)


def main():
    parser = argparse.ArgumentParser(description="Train on Fashion-MNIST.")
    parser.add_argument("--backend", default="numpy", help='where to compute: "numpy", "cupy", "torch:cuda" ...')
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tune", action="store_true", help="compare settings on a sixth of the training images")
    parser.add_argument("--address", metavar="URL", help="download from there, whatever this machine has")
    parser.add_argument("--picture", default="fashion_mnist.png", metavar="PATH", help="default: %(default)s, here")
    args = parser.parse_args()

    images, labels = read("train-images-idx3-ubyte", args.address), read("train-labels-idx1-ubyte", args.address)
    mean, spread = images.mean(), images.std()

    def prepared(images):
        """Images as rows, standardised by the mean and spread of all training pixels."""
        return ((images.reshape(len(images), -1) - mean) / spread).astype(np.float32)

    if args.tune:
        print("validation accuracy  loss    seconds  settings")
        for other in ALTERNATIVES:
            history = train(prepared(images), labels, args, CHOSEN | other, validation=1 / 6).history
            accuracy, loss = history["validation_score"][-1], history["validation_loss"][-1]
            print(f"{accuracy:19.4f}  {loss:.4f}  {sum(history['seconds']):7.1f}  {other or CHOSEN}", flush=True)
        return

    net = train(prepared(images), labels, args, CHOSEN, verbose=2)
    print(net.summary())
    print(f"training took {sum(net.history['seconds']):.1f} s on {net.backend.selector}")
    images, labels = read("t10k-images-idx3-ubyte", args.address), read("t10k-labels-idx1-ubyte", args.address)
    P = net.predict_proba(prepared(images))
    guess = P.argmax(axis=1)
    print(f"accuracy on {len(labels)} test images: {np.mean(guess == labels):.4f}")
    print("(the data's benchmark page lists 0.8833 for a perceptron 256-128-100)")
    draw(images, labels, guess, P, args.picture)
    print(f"picture: {args.picture}")


def train(X, y, args, setting, **more):
    return dlx.fit(
        X,
        y,
        layer_dims=(X.shape[1], *setting["hidden"], 10),
        loss=dlx.losses.cross_entropy(label_smoothing=setting["smoothing"]),
        dropout=setting["dropout"],
        learning_rate=dlx.schedules.cosine(setting["rate"]),
        batch_size=setting["batch_size"],
        epochs=args.epochs,
        backend=args.backend,
        rng=0,
        **more,
    )


def read(name, address):
    """The array in one of the four files: downloaded if there is an address, otherwise from where it is found."""
    own = None if address else os.environ.get("FASHION_MNIST_DIR")
    folder = Path(own) if own else DEBIAN if DEBIAN.is_dir() and not address else CACHE
    path = folder / f"{name}.gz"
    if folder == CACHE and not path.exists():
        download(f"{address or ADDRESS}/{path.name}", path, SHA256[name])
    content = gzip.decompress(path.read_bytes())
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        note = f"{path} is not the published file"
        print(f"note: {note}, nor will the accuracy be comparable") if own else sys.exit(f"{note}: remove it")
    axes = content[3]  # three bytes that say "unsigned bytes", the number of axes, the length of each, the array
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(content, ">u4", axes, offset=4))


def download(url, path, sha256):
    print(f"downloading {url} to {path}", flush=True)
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            packed = answer.read()
        found = hashlib.sha256(gzip.decompress(packed)).hexdigest()
    except (OSError, EOFError, zlib.error) as reason:
        sys.exit(f"{url} cannot be had: {reason}. Put the four files into a folder and name it in $FASHION_MNIST_DIR.")
    if found != sha256:
        sys.exit(f"{url} is not the published file: its SHA-256 is {found}, not {sha256}. It was not kept.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)


def draw(images, truth, guess, P, path):
    """The first ten mistakes in the order of the test set; below them what was taken for what, and how often."""
    top, bottom = plt.figure(figsize=(6, 7), dpi=100, layout="constrained").subfigures(2, 1, height_ratios=(2, 3))
    top.suptitle("the first mistakes: what it is, and the guess with its probability")
    panels = top.subplots(2, 5).ravel()
    for panel in panels:
        panel.set_axis_off()
    for i, panel in zip(np.flatnonzero(guess != truth), panels, strict=False):
        panel.imshow(images[i], cmap="gray_r", interpolation="nearest")
        panel.set_title(f"{CLOTHES[truth[i]]}\n{CLOTHES[guess[i]]} {P[i].max():.0%}", fontsize=9)

    count = np.zeros((10, 10), dtype=int)
    np.add.at(count, (truth, guess), 1)
    grid = bottom.subplots()
    mistakes = np.where(np.eye(10), 0, count)  # without the diagonal, which is ten times larger
    grid.imshow(mistakes, cmap="Reds", vmax=1.7 * mistakes.max())  # not so dark that the numbers cannot be read
    for is_, as_ in np.argwhere(count):
        grid.text(as_, is_, count[is_, as_], ha="center", va="center", fontsize=8)
    grid.set(xticks=range(10), yticks=range(10), yticklabels=CLOTHES, xlabel="was taken for", ylabel="what it is")
    grid.set_xticklabels(CLOTHES, rotation=45, ha="right")
    plt.savefig(path)


if __name__ == "__main__":
    main()
