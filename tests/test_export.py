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
from dlx import activations, losses, network
from dlx.interchange import onnx_model

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
    assert json.loads(model.graph.doc_string) == {
        "activation": [{"name": "elu", "settings": {"alpha": 1.0}}] * 2,
        "loss": {"name": "cross_entropy", "settings": {"label_smoothing": 0.1}},
        "classes": ["a", "b", "c"],
    }
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().graph_description == model.graph.doc_string
    assert [each.name for each in model.graph.input] == ["X"]
    assert {each.domain: each.version for each in model.opset_import} == {"": 20}


def test_the_bytes_are_reproducible(tmp_path):
    net = network_of("mish", "cross_entropy", dtype="float64")
    for name in ("a", "b"):
        net.to_onnx(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# -- opsets --

OPSETS = range(onnx_model.OLDEST, onnx.defs.onnx_opset_version() + 1)


def at_opset(net, opset, path):
    net.to_onnx(path, opset=opset)
    return onnx.load(path)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_activation_and_loss_at_every_opset(dtype, opset, tmp_path):
    """The reports: a model of a domain of its own (onnxruntime 20559), an opset beyond the runtime (onnxjs 89)."""
    X = rows(50, dtype)
    for activation, loss in EACH:
        net = network_of(activation, loss, dtype=dtype)
        model = at_opset(net, opset, tmp_path / "net.onnx")
        checker.check_model(model, full_check=True)
        standard = onnx.helper.make_opsetid("", opset)
        assert model.ir_version == onnx.helper.find_min_ir_version_for([standard])
        domains = {each.domain: each.version for each in model.opset_import}
        assert domains.pop("") == opset
        if opset < 20:
            assert not model.functions
            assert not domains
            assert not {node.domain for node in model.graph.node} - {""}
        assert_same(run(model, X), net, X)


@pytest.mark.parametrize("opset", [13, 14, 17, 18, 19, 22, OPSETS[-1]])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_standards_own_evaluator_agrees_at_other_opsets(dtype, opset, tmp_path):
    X = rows(7, dtype)
    for activation in ACTIVATIONS:
        net = network_of(activation, dtype=dtype)
        (found,) = reference.ReferenceEvaluator(at_opset(net, opset, tmp_path / "net.onnx")).run(None, {"X": X})
        oracles.assert_close(found, net.predict(X), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_far_out_nothing_overflows_where_the_formula_is_written_out(dtype, tmp_path):
    z = np.concatenate([np.linspace(-1000, 1000, 401), np.linspace(-40, 40, 401), [1e30, -1e30]])[:, None].astype(dtype)
    one = np.ones((1, 1)), np.zeros(1)
    for activation in ACTIVATIONS:
        net = dlx.Network([one, one], activation=activation, dtype=dtype)
        found = run(at_opset(net, 13, tmp_path / "net.onnx"), z)["prediction"]
        assert np.isfinite(found).all()
        error = (found - net.predict(z)) / np.maximum(1, np.abs(z[:, 0]))
        oracles.assert_close(error, np.zeros(len(z)), TOLERANCE[dtype])


@pytest.mark.parametrize("opset", [13, 20, 22])
def test_no_gemm_of_doubles_is_alone_before_its_activation(opset, tmp_path):
    """onnxruntime 1.15 to 1.17 fuse these and then load nothing: "Failed to find kernel for FusedGemm" (pull 19612)."""
    for activation in ACTIVATIONS:
        model = at_opset(network_of(activation, dtype="float64"), opset, tmp_path / "net.onnx")
        for gemm in (node for node in model.graph.node if node.op_type == "Gemm"):
            readers = [node.op_type for node in model.graph.node if gemm.output[0] in node.input]
            fused = {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Softplus"}
            assert len(readers) != 1 or not fused & {*readers}


def test_each_opset_has_the_ir_version_of_its_time(tmp_path):
    """onnx's own table of releases: opset 13 came with IR 7, 15 with 8, 19 with 9, 21 with 10."""
    expected = {13: 7, 14: 7, 15: 8, 16: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}
    found = {opset: at_opset(network_of(), opset, tmp_path / "net.onnx").ir_version for opset in expected}
    assert found == expected


def test_no_opset_is_opset_20(tmp_path):
    for dtype in TOLERANCE:
        net = network_of("gelu", "cross_entropy", dtype=dtype)
        assert exported(net, tmp_path / "a") == at_opset(net, 20, tmp_path / "b")


def test_labels_at_the_oldest_opset(tmp_path):
    X = rows(50)
    for classes, outputs in LABELS:
        net = network_of("tanh", "cross_entropy", outputs, classes=classes)
        assert_same(run(at_opset(net, 13, tmp_path / "net.onnx"), X), net, X)
    net = network_of("tanh", "binary_cross_entropy", 1, classes=["no", "yes"])
    assert_same(run(at_opset(net, np.int64(13), tmp_path / "net.onnx"), X), net, X)


def scaler(opset, ir_version, mean, scale):
    """A model that somebody else made, of "raw" to "scaled"."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Sub", ["raw", "m"], ["c"]), helper.make_node("Div", ["c", "s"], ["scaled"])]
    arrays = [onnx.numpy_helper.from_array(each.astype("f4"), name) for name, each in (("m", mean), ("s", scale))]
    values = [helper.make_tensor_value_info(name, number, ["n", 4]) for name in ("raw", "scaled")]
    graph = helper.make_graph(nodes, "scaler", values[:1], values[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_models_of_equal_opset_are_merged(opset, tmp_path):
    """Behind somebody else's preprocessing, and one network behind another, whose names are told apart by a prefix.

    The latter was refused with "different values for the same model metadata property".
    """
    compose = pytest.importorskip("onnx.compose")
    X, mean, scale = rows(7), np.arange(4.0), np.arange(1.0, 5.0)
    first, last = network_of("silu", outputs=4), network_of("mish", "cross_entropy", classes=["a", "b", "c"])
    a, b = at_opset(first, opset, tmp_path / "a"), at_opset(last, opset, tmp_path / "b")
    before = scaler(opset, b.ir_version, mean, scale)
    merged = compose.merge_models(before, b, io_map=[("scaled", "X")])
    checker.check_model(merged, full_check=True)
    scaled = (X - mean.astype("f4")) / scale.astype("f4")
    session = onnxruntime.InferenceSession(merged.SerializeToString(), providers=["CPUExecutionProvider"])
    oracles.assert_close(session.run(["probabilities"], {"raw": X})[0], last.predict_proba(scaled), 1e-6)
    both = compose.merge_models(a, b, io_map=[("prediction", "X")], prefix1="first/", prefix2="last/")
    checker.check_model(both, full_check=True)
    session = onnxruntime.InferenceSession(both.SerializeToString(), providers=["CPUExecutionProvider"])
    label, P = session.run(["last/label", "last/probabilities"], {"first/X": X})
    oracles.assert_close(P, last.predict_proba(first.predict(X)), 1e-6)
    assert label.tolist() == last.predict(first.predict(X)).tolist()
    facts = [json.loads(line) for line in both.graph.doc_string.splitlines() if line.startswith("{")]
    assert [each["activation"][0]["name"] for each in facts] == ["silu", "mish"]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_two_networks_of_one_input_side_by_side(dtype, tmp_path):
    compose = pytest.importorskip("onnx.compose")
    X = rows(7, dtype)
    nets = network_of("gelu", dtype=dtype), network_of("gelu", "binary_cross_entropy", 1, dtype=dtype)
    a, b = (at_opset(net, 20, tmp_path / "net") for net in nets)
    both = compose.merge_models(a, b, io_map=[], prefix1="a/", prefix2="b/")
    session = onnxruntime.InferenceSession(both.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["a/prediction", "b/probabilities"], {"a/X": X, "b/X": X})
    oracles.assert_close(found[0], nets[0].predict(X), TOLERANCE[dtype])
    oracles.assert_close(found[1], nets[1].predict_proba(X), TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("opset", "error", "text"),
    [
        (12, ValueError, "`opset` must be an integer >= 13; got 12. Leave it out for opset 20."),
        (0, ValueError, "`opset` must be an integer >= 13; got 0. Leave it out for opset 20."),
        (True, TypeError, "`opset` must be an integer >= 13; got True. Leave it out for opset 20."),
        (17.0, TypeError, "`opset` must be an integer >= 13; got 17.0. Leave it out for opset 20."),
        ("17", TypeError, "`opset` must be an integer >= 13; got '17'. Leave it out for opset 20."),
        (
            OPSETS[-1] + 1,
            ValueError,
            f"`opset` must be at most {OPSETS[-1]}, the newest that the installed onnx knows; got {OPSETS[-1] + 1}. "
            "Upgrade onnx, or leave it out for opset 20.",
        ),
    ],
)
def test_an_opset_that_is_none(opset, error, text, tmp_path):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        network_of().to_onnx(tmp_path / "net.onnx", opset=opset)
    assert list(tmp_path.iterdir()) == []


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
    assert onnx_model.MOST_BYTES < 2**31
    monkeypatch.setattr(onnx_model, "MOST_BYTES", 100)
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
