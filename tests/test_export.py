"""ONNX: onnxruntime, ONNX's own evaluator and ndonnx's trace of dlx's formulas agree with `predict`."""

import itertools
import json
import math
import os
import re
import sys
from importlib.metadata import version

import numpy as np
import pytest

import dlx
import oracles
from dlx import activations, export, losses, network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ndonnx = pytest.importorskip("ndonnx")
checker, reference, shape_inference = (
    pytest.importorskip(f"onnx.{name}") for name in ("checker", "reference", "shape_inference")
)

ACTIVATIONS = [
    *(make() for name, make in activations.ACTIVATIONS.items() if name not in ("none", "logistic")),
    activations.leaky_relu(0.3),
    activations.elu(0.7),
    activations.elu(1.9),
]
LOSSES = [
    *(lambda K, make=make: make() for make in losses.LOSSES.values()),
    lambda K: losses.squared_error(half=True),
    lambda K: losses.quantile([(k + 1) / (K + 1) for k in range(K)]),
]
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: f"{a.name}{dict(a.settings) or ''}")
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f"{f(2).name}{dict(f(2).settings) or ''}")
# activations and links do not meet: where the table of both would tell no more, each is taken once
EACH = [(activation, losses.cross_entropy()) for activation in ACTIVATIONS]
EACH += [(activations.relu(), make(3)) for make in LOSSES]
each_part = pytest.mark.parametrize(("activation", "loss"), EACH, ids=lambda part: f"{part.name}{dict(part.settings)}")
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}


def pairs_of(dims):
    """Random weights that keep the scores' size, and biases."""
    rng = np.random.default_rng(3)
    return [
        (rng.standard_normal((a, b)) / math.sqrt(a), 0.1 * rng.standard_normal(b)) for a, b in itertools.pairwise(dims)
    ]


def rows(n, dtype="float32"):
    return np.random.default_rng(4).standard_normal((n, 4)).astype(dtype)


def network_of(activation="relu", loss="squared_error", outputs=3, dims=(4, 8, 6), dtype="float32", **settings):
    return dlx.Network(pairs_of((*dims, outputs)), activation=activation, loss=loss, dtype=dtype, **settings)


def exported(net, path):
    net.to_onnx(path)
    return onnx.load(path)


def run(model, X):
    """The outputs by name, from onnxruntime on the CPU."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, {"X": X}), strict=True))


def decided(net, Z):
    """Rows whose labels hang on no rounding."""
    if net.loss.targets == "classes":
        Z = np.sort(Z, axis=1)
        return np.full(len(Z), True) if Z.shape[1] == 1 else Z[:, -1] - Z[:, -2] > 1e-5
    return (np.abs(Z) > 1e-5).all(axis=1)


def assert_same(found, net, X):
    """Predictions, and of a classifier labels and probabilities, as the network has them."""
    tolerance = TOLERANCE[net.dtype]
    if net.loss.targets not in ("classes", "binary"):
        assert list(found) == ["prediction"]
        oracles.assert_close(found["prediction"], net.predict(X), tolerance)
        assert found["prediction"].dtype == net.dtype
        return
    assert list(found) == ["label", "probabilities"]
    oracles.assert_close(found["probabilities"], net.predict_proba(X), tolerance)
    assert found["probabilities"].dtype == net.dtype
    label, expected = found["label"], net.predict(X)
    assert label.shape == expected.shape
    sure = decided(net, network.scores(net.formulas, net.params, X))
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(label[sure], expected[sure])


# -- onnxruntime --


@every_activation
@every_loss
def test_onnxruntime_equals_predict_in_float32(activation, loss, tmp_path):
    for outputs in (1, 2, 5):
        net = network_of(activation, loss(outputs), outputs)
        model = exported(net, tmp_path / "net.onnx")
        checker.check_model(model, full_check=True)
        assert len(model.graph.node) <= 3 * len(net.params) + 6
        for n in (1, 7, 1000):
            X = rows(n)
            assert_same(run(model, X), net, X)


@each_part
def test_onnxruntime_equals_predict_in_float64(activation, loss, tmp_path):
    for outputs in (1, 2, 5):
        net = network_of(activation, loss, outputs, dtype="float64")
        X = rows(7, "float64")
        assert_same(run(exported(net, tmp_path / "net.onnx"), X), net, X)


@pytest.mark.parametrize("dtype", TOLERANCE)
@every_activation
def test_far_out_nothing_overflows(activation, dtype, tmp_path):
    """To the dtype's last digits of z."""
    z = np.concatenate([np.linspace(-1000, 1000, 4001), np.linspace(-40, 40, 4001), [1e30, -1e30]])[:, None]
    one = np.ones((1, 1)), np.zeros(1)
    net = dlx.Network([one, one], activation=activation, dtype=dtype)
    found = run(exported(net, tmp_path / "net.onnx"), z.astype(dtype))["prediction"]
    assert np.isfinite(found).all()
    oracles.assert_close((found - net.predict(z)) / np.maximum(1, np.abs(z[:, 0])), np.zeros(len(z)), TOLERANCE[dtype])


@every_activation
def test_one_unit_in_float32_is_right_where_it_is_small_and_where_it_is_large(activation, tmp_path):
    net = dlx.Network([(np.eye(1, dtype="f4"), np.zeros(1, "f4"))] * 2, activation=activation)
    z = np.linspace(-30, 30, 2001, dtype="f4")[:, None]
    found = run(exported(net, tmp_path / "net.onnx"), z)["prediction"]
    np.testing.assert_allclose(found, net.predict(z), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_links_do_not_overflow(loss, dtype, tmp_path):
    net = dlx.Network([(np.eye(2), np.zeros(2))], loss=loss, dtype=dtype)
    X = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 0.0]], dtype)
    found = run(exported(net, tmp_path / "net.onnx"), X)
    oracles.assert_close(found["probabilities"], net.predict_proba(X), TOLERANCE[dtype])
    np.testing.assert_array_equal(found["label"], net.predict(X))


def test_a_network_of_any_backend(be, tmp_path):
    net = network_of("gelu", "cross_entropy", backend=be)
    X = rows(7)
    assert_same(run(exported(net, tmp_path / "net.onnx"), X), net.to("numpy"), X)


def test_a_trained_network(tmp_path):
    X = rows(200)
    y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
    net = dlx.fit(X, y, (4, 16, 2), epochs=20, rng=0, backend="numpy")
    found = run(exported(net, tmp_path / "net.onnx"), X)
    assert_same(found, net, X)
    assert np.mean(found["label"] == y) == net.score(X, y)


# -- other oracles --


class _Traced(dlx.Backend):
    """ndonnx, whose dtypes() does not have the standard's default argument."""

    name = "ndonnx"

    def dtype(self, name):
        return getattr(self.xp, name)


@pytest.mark.parametrize("dtype", TOLERANCE)
@each_part
def test_the_trace_of_the_same_forward_agrees(activation, loss, dtype, tmp_path):
    """ndonnx records what dlx's own formulas do, without a line of dlx.export."""
    net = network_of(activation, loss, dtype=dtype)
    formulas = network.bind(_Traced(ndonnx), dtype, net.activation, net.loss)
    params = tuple(network.Layer(*(ndonnx.asarray(each) for each in layer)) for layer in net.params)
    x = ndonnx.argument(shape=("n", 4), dtype=getattr(ndonnx, dtype))
    traced = ndonnx.build({"X": x}, {"P": formulas.loss.predict(network.scores(formulas, params, x))})
    X = rows(7, dtype)
    found = run(exported(net, tmp_path / "net.onnx"), X)
    oracles.assert_close(found.get("prediction", found.get("probabilities")), run(traced, X)["P"], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@every_activation
def test_the_standards_own_evaluator_agrees(activation, dtype, tmp_path):
    net = network_of(activation, dtype=dtype)
    X = rows(7, dtype)
    (found,) = reference.ReferenceEvaluator(exported(net, tmp_path / "net.onnx")).run(None, {"X": X})
    oracles.assert_close(found, net.predict(X), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@each_part
def test_the_model_is_valid_and_small_and_its_shapes_are_inferred(activation, loss, dtype, tmp_path):
    for outputs in (1, 2, 5):
        for dims in ((4,), (4, 8), (4, 8, 6, 5)):
            hidden = [activation] * (len(dims) - 1)
            net = network_of(hidden, loss, outputs, dims, dtype)
            model = exported(net, tmp_path / "net.onnx")
            checker.check_model(model, full_check=True)
            assert len(model.graph.node) <= 3 * len(net.params) + 6
            declared = [shape_of(each) for each in model.graph.output]
            assert [shape_of(each) for each in model.graph.input] == [["n", 4]]
            for each in model.graph.output:
                each.type.tensor_type.ClearField("shape")
            inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
            assert [shape_of(each) for each in inferred.graph.output] == declared


def shape_of(value):
    return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]


def test_a_layer_is_a_gemm_and_its_activation(tmp_path):
    model = exported(network_of(["relu", "silu"], "cross_entropy"), tmp_path / "net.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["Gemm", "Relu", "Gemm", "silu", "Gemm", "ArgMax", "Softmax"]


def test_weights_are_held_exactly(tmp_path):
    net = network_of(dtype="float64")
    arrays = {
        each.name: onnx.numpy_helper.to_array(each) for each in exported(net, tmp_path / "net.onnx").graph.initializer
    }
    for l, (W, b) in enumerate(net.params, start=1):
        np.testing.assert_array_equal(arrays[f"W{l}"], W, strict=True)
        np.testing.assert_array_equal(arrays[f"b{l}"], b[0], strict=True)


# -- shapes, labels, words --


def test_three_outputs_are_three_columns_and_one_is_a_vector(tmp_path):
    X = rows(50)
    for outputs, shape in ((3, (50, 3)), (1, (50,))):
        model = exported(network_of(outputs=outputs), tmp_path / "net.onnx")
        assert run(model, X)["prediction"].shape == shape
        assert len(shape_of(model.graph.output[0])) == len(shape)


LABELS = [
    (None, 3),
    ([0, 1, 2], 3),
    ([2, 0, 1], 3),
    ([-5, 3, 2**40], 3),
    (np.array([7, 200, 3], np.uint8), 3),
    (np.array([0, 5, 2**63 - 1], np.uint64), 3),
    ([False, True], 2),
    (["ann", "bob", "ünï"], 3),
    (np.array(["a", "b", "c"], object), 3),
    (["", "a b", "\n"], 3),
]


@pytest.mark.parametrize(("classes", "outputs"), LABELS, ids=str)
def test_labels_of_every_kind(classes, outputs, tmp_path):
    net = network_of("tanh", "cross_entropy", outputs, (4, 20), classes=classes)
    X = rows(200)
    found = run(exported(net, tmp_path / "net.onnx"), X)
    assert_same(found, net, X)
    strings = classes is not None and np.asarray(classes).dtype.kind in "UO"
    assert found["label"].dtype == (object if strings else np.int64)
    assert len(set(found["label"].tolist())) == outputs


@pytest.mark.parametrize("classes", [None, [0, 1], [1, 0], [True, False], [-1, 7], ["no", "yes"], ["z", "a"]], ids=str)
def test_labels_of_one_yes_or_no_output(classes, tmp_path):
    """The score decides, not its probability: -1e-9 is no, though its σ is 0.5 in float32."""
    net = dlx.Network([([[1.0]], [0.0])], loss="binary_cross_entropy", classes=classes, dtype="float32")
    X = np.array([[0.0], [-1e-9], [1e-9], [-3.0], [3.0]], "float32")
    found = run(exported(net, tmp_path / "net.onnx"), X)
    assert found["label"].tolist() == net.predict(X).tolist()
    assert found["label"].dtype == (object if isinstance((classes or [0])[0], str) else np.int64)
    assert found["label"].tolist() == [np.array(classes or [0, 1]).tolist()[k] for k in (1, 0, 1, 0, 1)]
    assert found["probabilities"].shape == (5, 2)
    oracles.assert_close(found["probabilities"], net.predict_proba(X), 1e-6)


def test_several_labels_a_row(tmp_path):
    net = network_of(loss="binary_cross_entropy", outputs=3)
    X = rows(7)
    found = run(exported(net, tmp_path / "net.onnx"), X)
    assert found["label"].shape == found["probabilities"].shape == (7, 3)
    assert found["label"].dtype == np.int64
    assert_same(found, net, X)


def test_what_the_file_says_of_itself(tmp_path):
    net = network_of("elu", losses.cross_entropy(0.1), classes=["a", "b", "c"])
    model = exported(net, tmp_path / "net.onnx")
    assert (model.producer_name, model.producer_version) == ("dlx", version("dlx-nn"))
    assert {each.key: json.loads(each.value) for each in model.metadata_props} == {
        "activation": [{"name": "elu", "settings": {"alpha": 1.0}}] * 2,
        "loss": {"name": "cross_entropy", "settings": {"label_smoothing": 0.1}},
        "classes": ["a", "b", "c"],
    }
    assert [each.name for each in model.graph.input] == ["X"]
    assert {each.domain: each.version for each in model.opset_import} == {"": 20}


def test_the_bytes_are_reproducible(tmp_path):
    net = network_of("mish", "cross_entropy", dtype="float64")
    for name in ("a", "b"):
        net.to_onnx(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# -- failures --

OWN = (lambda z: z, lambda z, a: 1.0)


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (
            lambda: network_of([activations.relu(), OWN]),
            "`to_onnx` must be asked of a network with dlx's own activations and loss; got functions of your own. "
            "Their formulas alone are known elsewhere: build the rest there from net.params.",
        ),
        (
            lambda: network_of(loss=(lambda Z, Y: Z, lambda Z, Y: Z)),
            "`to_onnx` must be asked of a network with dlx's own activations and loss; got functions of your own. ",
        ),
        (
            lambda: network_of(loss=losses.through(activations.relu(), losses.squared_error())),
            "`to_onnx` must be asked of a network with dlx's own activations and loss; got functions of your own. ",
        ),
        (
            lambda: network_of(loss="cross_entropy", classes=np.array([0, 1, 2**63], np.uint64)),
            "`classes` must fit int64 for to_onnx; got 9223372036854775808. Number the labels anew.",
        ),
        (
            lambda: network_of(loss="cross_entropy", classes=np.array(["a", "b", "c\ud800"])),
            "`classes` must be Unicode text for to_onnx; got 'c\\ud800'. Rename the labels.",
        ),
    ],
    ids=["activation", "loss", "through", "uint64", "surrogate"],
)
def test_rejections(net, text, tmp_path):
    with pytest.raises(ValueError, match=re.escape(text)):
        net().to_onnx(tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 3, ["net.onnx"]])
def test_a_path_is_asked_for(path):
    text = f"`path` must be the path of a file, or a binary stream; got {path!r}. For example 'net.onnx'."
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        network_of().to_onnx(path)


def test_a_network_that_the_format_cannot_hold(tmp_path, monkeypatch):
    assert export.MOST_BYTES < 2**31
    monkeypatch.setattr(export, "MOST_BYTES", 100)
    text = (
        "`to_onnx` must be asked of a network of less than 2 GiB; got 460 bytes of parameters. "
        "Make it float32, or use save, which has no limit."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        network_of().to_onnx(tmp_path / "net.onnx")


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"^to_onnx needs onnx; run: pip install 'dlx-nn\[onnx\]'$"):
        network_of().to_onnx(tmp_path / "net.onnx")


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    network_of().to_onnx(path)
    before = path.read_bytes()

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        network_of("tanh").to_onnx(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        network_of().to_onnx(tmp_path / "nowhere" / "net.onnx")
