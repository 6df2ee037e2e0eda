"""``python -m dlx inspect``: what a file holds, and what is wrong with one that is not whole."""

import numpy as np
import pytest

import dlx
from dlx import __main__ as command
from dlx.files import container, inspection, schema

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3))
Y = np.array(["no", "yes"])[np.arange(40) % 2]


def inspected(capsys, *paths):
    status = command.main(["inspect", *map(str, paths)])
    return status, *capsys.readouterr()


def test_a_network(tmp_path, capsys):
    hidden = [dlx.activations.elu(0.5), "tanh"]
    net = dlx.Network(
        [(np.ones((3, 4)), np.ones(4)), (np.ones((4, 4)), np.ones(4)), (np.ones((4, 2)), np.ones(2))],
        activation=hidden,
        loss="cross_entropy",
        classes=["no", "\x1b[31myes"],
        feature_names=["a", "b", "c"],
        history={"loss": [3.0, 1.5, 2.0]},
        dtype="float32",
    )
    path = tmp_path / "net.safetensors"
    net.save(path)
    status, out, err = inspected(capsys, path)
    assert (status, err) == (0, "")
    assert (
        out.replace(str(path), "PATH")
        == f"""\
file      PATH, {path.stat().st_size:,} bytes
verified  format 1, checksum, names, dtypes, shapes, and that all is finite
made by   "dlx {dlx.__version__}"
network   3 -> 4 -> 4 -> 2: 46 parameters, float32
hidden    elu(alpha=0.5), tanh
loss      cross_entropy(label_smoothing=0.0)
classes   2: "no", "\\u001b[31myes"
features  3: "a", "b", "c"
history   "loss": 3 epochs, the last 2, the lowest 1.5
"""
    )


def test_a_checkpoint_and_a_regression(tmp_path, capsys):
    how = {"epochs": 3, "batch_size": 16, "rng": 0, "patience": 2, "checkpoint": tmp_path}
    dlx.fit(X, Y, (3, 2), **how, checkpoint_every=2)
    _, out, _ = inspected(capsys, max(tmp_path.glob("checkpoint-*")))
    assert "hidden    no hidden layer\n" in out
    assert "training  update 9: 3 epochs; 2 optimizer slots, the weights of epoch 3, the\n          best\n" in out
    dlx.fit(X, X[:, 0], (3, 1), optimizer="lbfgs", epochs=1, rng=0, checkpoint=tmp_path, resume="ignore")
    _, out, _ = inspected(capsys, max(tmp_path.glob("checkpoint-*")))
    assert "1 epochs; L-BFGS's memory\n" in out
    assert "classes" not in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("file"))


def test_a_score_has_a_highest_and_a_loss_a_lowest(tmp_path, capsys):
    """It said "lowest" of a score, of which the highest is the best."""
    net = dlx.Network([(np.eye(2), np.zeros(2))], loss=dlx.losses.quantile([0.05, 0.5]))
    net.history = {
        "loss": [2.0, 0.5, 1.0],
        "validation_loss": [3.0, 2.5, 2.75],
        "validation_score": [0.25, 0.75, 0.5],
        "my_score": [0.1, 0.2],
        "learning_rate": [0.01, 0.001, 0.005],
        "norm": [],
    }
    net.save(tmp_path / "net")
    _, out, _ = inspected(capsys, tmp_path / "net")
    lines = out.splitlines()
    assert "loss      quantile(q=[0.05, 0.5])" in lines
    assert [line.removeprefix("history   ") for line in lines if line.startswith("history")] == [
        '"learning_rate": 3 epochs, the last 0.005, from 0.001 to 0.01',
        '"loss": 3 epochs, the last 1, the lowest 0.5',
        '"my_score": 2 epochs, the last 0.2, the highest 0.2',
        '"norm": 0 epochs',
        '"validation_loss": 3 epochs, the last 2.75, the lowest 2.5',
        '"validation_score": 3 epochs, the last 0.5, the highest 0.75',
    ]


def test_the_scores_of_a_checkpoint(tmp_path, capsys):
    dlx.fit(X, Y, (3, 2), epochs=3, rng=0, validation=0.3, checkpoint=tmp_path, loss=dlx.losses.cross_entropy(0.1))
    _, out, _ = inspected(capsys, max(tmp_path.glob("checkpoint-*")))
    assert "loss      cross_entropy(label_smoothing=0.1)\n" in out
    said = dict(line.split(": ", 1) for line in out.splitlines() if line.startswith("history"))
    assert ", the highest " in said['history   "validation_score"']
    assert ", the lowest " in said['history   "validation_loss"']


def test_within_an_epoch_with_functions_of_ones_own(tmp_path, capsys):
    def once(net):
        raise RuntimeError

    how = {"activation": [(np.tanh, lambda z, a: 1 - a * a)], "epochs": 3, "batch_size": 16, "rng": 0}
    with pytest.raises(RuntimeError):
        dlx.fit(X, Y, (3, 4, 2), **how, checkpoint=tmp_path, checkpoint_every=2, callbacks=once)
    _, out, _ = inspected(capsys, max(tmp_path.glob("checkpoint-*")))
    assert "hidden    functions of your own\n" in out
    assert "training  update 2: 0 epochs, 2 batches of the next; 2 optimizer slots\n" in out


def test_what_is_wrong_goes_to_stderr_and_the_others_are_read(tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    dlx.Network([(np.eye(2), np.zeros(2))]).save(path)
    (tmp_path / "half").write_bytes(path.read_bytes()[:-9])
    status, out, err = inspected(capsys, tmp_path / "half", path, tmp_path / "nothing")
    assert status == 1
    assert "network   2 -> 2: 6 parameters, float64\n" in out
    assert "`path` must be a file that dlx saved, and whole; got" in err
    assert "No such file" in err
    assert "Traceback" not in err


def test_every_text_is_plain_ascii(tmp_path):
    path = tmp_path / "ü\x1b[31m.safetensors"
    names = ["ü", "\x1b[31m"]
    dlx.Network([(np.eye(2), np.zeros(2))], loss="cross_entropy", classes=names, feature_names=names).save(path)
    text = inspection.inspect_file(path)
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert r"\xfc\x1b[31m.safetensors" in text


def test_a_count_that_is_none_is_refused(tmp_path):
    dlx.fit(X, Y, (3, 2), epochs=1, rng=0, checkpoint=tmp_path)
    path = max(tmp_path.glob("checkpoint-*"))
    description, arrays = container.read(path, schema.layout)
    training = description["training"] | {"epoch": "\x1b[31m"}
    container.write(path, description | {"training": training}, arrays)
    with pytest.raises(dlx.FileError, match="must be a file that dlx saved, and whole"):
        inspection.inspect_file(path)


def test_a_folder_without_files_of_dlx(tmp_path, capsys):
    status, out, err = inspected(capsys, tmp_path)
    assert (status, out) == (1, "")
    assert err == f"`path` must hold files of dlx; got {tmp_path}, a folder without any. Name another.\n"
