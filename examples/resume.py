"""Resume after a kill: a training that is killed by SIGKILL and goes on to the same bits.

    python examples/resume.py                     # NumPy; some ten seconds
    python examples/resume.py --backend torch     # the same on PyTorch

A process of its own trains with `checkpoint=`, which saves after each epoch. When there are 12 epochs on the disk it is
killed with SIGKILL (kill -9), which no program can catch, at whatever point of the next one it is. The same call in
this process then finds the folder and goes on, and a third training is never disturbed. Weights, momentum, the order of
batches, dropout masks and history are all restored: the two loss curves are one, and every weight has the same bits.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import dlx


def main():
    parser = argparse.ArgumentParser(description="Kill a training, resume it, and compare it with an undisturbed one.")
    parser.add_argument("--backend", default="numpy", help='where to compute: "numpy", "cupy", "torch:cuda" ...')
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--kill-after", type=int, default=12, metavar="EPOCHS", help="default: %(default)s")
    parser.add_argument("--picture", default="resume.png", metavar="PATH", help="default: %(default)s, here")
    parser.add_argument("--checkpoint", metavar="FOLDER", help="only train, with checkpoints there: what is killed")
    args = parser.parse_args()
    if args.checkpoint:
        train(args, args.checkpoint)
        return

    with tempfile.TemporaryDirectory() as folder:
        saved = killed(args, Path(folder))
        print(f"killed by SIGKILL with {saved} of {args.epochs} epochs on the disk")
        trained = []
        net = train(args, folder, lambda net: trained.append(len(net.history["loss"])))
    resumed = net.history["loss"]
    print(f"resumed: epochs {trained[0]} to {trained[-1]}, the last loss {resumed[-1]:.6f}")
    other = train(args)
    undisturbed = other.history["loss"]
    print(f"undisturbed: epochs 1 to {len(undisturbed)}, the last loss {undisturbed[-1]:.6f}")

    print(f"epochs with another loss: {np.sum(np.not_equal(resumed, undisturbed))} of {len(undisturbed)}")
    print(f"weights and biases with another bit: {np.sum(bits(net) != bits(other))} of {len(bits(net))}")
    draw(resumed, undisturbed, saved, args.picture)
    print(f"picture: {args.picture}")


def train(args, folder=None, callbacks=()):
    X, y = load_digits(return_X_y=True)
    return dlx.fit(
        (X / 16).astype(np.float32),
        y,
        layer_dims=(64, 512, 256, 10),
        dropout=0.3,
        batch_size=32,
        epochs=args.epochs,
        checkpoint=folder,
        callbacks=callbacks,
        backend=args.backend,
        rng=0,
    )


def killed(args, folder):
    """Start a process that trains, kill it, and say how many epochs it has left on the disk."""
    options = ["--backend", args.backend, "--epochs", str(args.epochs), "--checkpoint", str(folder)]
    child = subprocess.Popen([sys.executable, __file__, *options])
    while child.poll() is None and not (folder / f"checkpoint-{args.kill_after:08}.safetensors").exists():
        time.sleep(0.001)
    child.kill()
    if child.wait() != -signal.SIGKILL:
        sys.exit(f"the training ended by itself, with status {child.returncode}: there was nothing to kill")
    return max(len(dlx.load(path).history["loss"]) for path in folder.glob("checkpoint-*.safetensors"))


def bits(net):
    """Every weight and bias of float32 as the integer that its bits spell."""
    arrays = [net.backend.to_host(each) for layer in net.params for each in layer]
    return np.concatenate([each.ravel() for each in arrays]).view(np.uint32)


def draw(resumed, undisturbed, saved, path):
    """The undisturbed curve, broad and pale; upon it the one that was killed, and the one that went on."""
    epochs = np.arange(1, len(resumed) + 1)
    ax = plt.figure(figsize=(6, 4), dpi=100, layout="constrained").subplots()
    ax.plot(epochs, undisturbed, color="0.8", linewidth=9, solid_capstyle="round", label="never disturbed")
    before, after = slice(None, saved), slice(saved, None)
    ax.plot(epochs[before], resumed[before], "o-", color=dlx.plot.BLUE, markersize=4, label="before the kill")
    ax.plot(epochs[after], resumed[after], "s-", color=dlx.plot.VERMILION, markersize=4, label="resumed")
    ax.axvline(saved + 0.5, color="black", linestyle=":", linewidth=1)
    ax.text(saved + 0.7, max(resumed), f"kill -9\nin epoch {saved + 1}", va="top")
    ax.set(xlabel="epoch", ylabel="training loss", yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    plt.savefig(path)


if __name__ == "__main__":
    main()
