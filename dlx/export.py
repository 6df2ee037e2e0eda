"""What takes a network out of dlx: an ONNX model, built node by node, and PyTorch's modules.

An ONNX graph is one Gemm a layer and its activation, then the link of the loss. Where onnxruntime has an activation in
float32 alone, a float64 graph calls a function of the same formula that travels in the file.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import activations, checks, descriptions, files, losses
from dlx.version import __version__

HostArray = np.ndarray[Any, Any]
Pairs = Sequence[tuple[HostArray, HostArray]]
OPSET, IR_VERSION = 20, 9  # the first with Gelu, and the first that may hold it
MOST_BYTES = 2**31 - 2**20  # protobuf writes less than 2 GiB; a MiB is for all that is not a parameter
TORCH_MODULES = "dlx.backends._torch_modules"  # by name, as every file of backends/

OPERATORS: Mapping[str, Callable[..., tuple[str, dict[str, Any]]]] = {  # of settings: the operator and its attributes
    "relu": lambda: ("Relu", {}),
    "leaky_relu": lambda slope: ("LeakyRelu", {"alpha": slope}),
    "elu": lambda alpha: ("Elu", {"alpha": alpha}),
    "selu": lambda: ("Selu", {"gamma": activations.SELU_SCALE, "alpha": activations.SELU_ALPHA}),
    "gelu": lambda: ("Gelu", {"approximate": "tanh"}),
    "mish": lambda: ("Mish", {}),
    "softplus": lambda: ("Softplus", {}),
    "sigmoid": lambda: ("Sigmoid", {}),
    "tanh": lambda: ("Tanh", {}),
}


def _doubles(**values: float) -> str:
    """Constants in ONNX's own syntax."""
    return " ".join(f"{name} = Constant <value = double {{{value!r}}}> ()" for name, value in values.items())


ELU = f"""{_doubles(zero=0.0, one=1.0)}
    low = Min (z, zero)  e = Exp (low)  less = Sub (e, one)  left = Mul (alpha, less)
    right = Relu (z)  a = Add (right, left)"""
SOFTPLUS = f"""{_doubles(one=1.0)}
    size = Abs (z)  far = Neg (size)  e = Exp (far)  more = Add (one, e)  rest = Log (more)
    right = Relu (z)  p = Add (right, rest)"""
# For float64, where onnxruntime has no kernel of these operators, and a Gelu with constants in single precision. silu
# is a function in float32 too: onnxruntime's own σ is off by 1e-7 there, and z multiplies that.
FUNCTIONS = {
    "leaky_relu": "(z, slope) => (a) { left = Mul (slope, z)  a = Max (z, left) }",
    "elu": f"(z, alpha) => (a) {{ {ELU} }}",
    "selu": f"""(z) => (b) {{ {_doubles(scale=activations.SELU_SCALE, alpha=activations.SELU_ALPHA)} {ELU}
        b = Mul (scale, a) }}""",
    "softplus": f"(z) => (p) {{ {SOFTPLUS} }}",
    "silu": f"""(z) => (a) {{ {_doubles(double=1.0)} one = CastLike (double, z)
        far = Neg (z)  e = Exp (far)  sum = Add (one, e)  a = Div (z, sum) }}""",
    "mish": f"(z) => (a) {{ {SOFTPLUS}  t = Tanh (p)  a = Mul (z, t) }}",
    "gelu": f"""(z) => (a) {{ {_doubles(c=math.sqrt(2 / math.pi), k=0.044715, one=1.0, half=0.5)}
        square = Mul (z, z)  cube = Mul (square, z)  bend = Mul (k, cube)  bent = Add (z, bend)  u = Mul (c, bent)
        t = Tanh (u)  more = Add (one, t)  gate = Mul (half, more)  a = Mul (z, gate) }}""",
}


class Parts(NamedTuple):
    """What a model is made of, on the host.

    `pairs` of W (d_in, d_out) and b (d_out,) or (1, d_out); `one_label`, whether the one output is yes or no. A score
    is yes where the operator `yes` says so of it and 0. `inputs` and `outputs`: the (mean, scale), (1, d) each, of what
    was standardised.
    """

    pairs: Pairs
    hidden: Sequence[activations.Activation]
    loss: losses.Loss
    classes: HostArray | None
    one_label: bool
    yes: str = "GreaterOrEqual"
    inputs: tuple[HostArray, HostArray] | None = None
    outputs: tuple[HostArray, HostArray] | None = None


class Graph:
    """Nodes in the order of computation, and the arrays and functions that they need."""

    def __init__(self, onnx: Any, dtype: str) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.functions: dict[str, Any] = {}

    def hold(self, name: str, value: Any, dtype: Any = None) -> str:
        """An array of the file, by default in the working dtype."""
        self.arrays.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype or self.dtype), name))
        return name

    def op(self, kind: str, *inputs: str, output: str = "", **settings: Any) -> str:
        """A node, and what its output is called."""
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name=name, **settings))
        return name

    def call(self, name: str, *inputs: str) -> str:
        """A node that calls one of `FUNCTIONS`."""
        text = f'<domain: "dlx", opset_import: ["": {OPSET}]> {name} {FUNCTIONS[name]}'
        self.functions[name] = self.onnx.parser.parse_function(text)
        return self.op(name, *inputs, domain="dlx")


def to_onnx(path: str | os.PathLike[str], parts: Parts) -> None:
    """Write the model to `path`, replacing what is there only when all of it is on the disk."""
    files.require_path(path, "net.onnx")
    _require_own("to_onnx", parts.hidden, parts.loss)
    size = sum(each.nbytes for pair in parts.pairs for each in pair)
    if size >= MOST_BYTES:
        rule, remedy = "be asked of a network of less than 2 GiB", "Make it float32, or use save, which has no limit."
        checks.reject("to_onnx", rule, f"{size:,} bytes of parameters", remedy)
    files.replace(path, model(parts).SerializeToString())


def model(parts: Parts) -> Any:
    """The onnx.ModelProto."""
    try:
        onnx = importlib.import_module("onnx")
    except ModuleNotFoundError as reason:
        if reason.name != "onnx":
            raise
        raise ImportError("to_onnx needs onnx; run: pip install 'dlx-nn[onnx]'") from reason
    for part in ("helper", "numpy_helper", "parser"):
        importlib.import_module(f"onnx.{part}")
    dtype = parts.pairs[0][0].dtype
    graph = Graph(onnx, dtype.name)
    Z = _scores(graph, parts)
    answers = {"classes": _one_of_several, "binary": _yes_or_no}.get(parts.loss.targets, _numbers)(graph, parts, Z)
    number = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    value = onnx.helper.make_tensor_value_info
    inputs = [value("X", number, ["n", parts.pairs[0][0].shape[0]])]
    outputs = [value(name, kind or number, shape) for name, (kind, shape) in answers.items()]
    domains = [onnx.helper.make_opsetid("", OPSET)]
    domains += [onnx.helper.make_opsetid("dlx", 1)] if graph.functions else []
    found = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "dlx", inputs, outputs, graph.arrays),
        opset_imports=domains,
        ir_version=IR_VERSION,
        functions=list(graph.functions.values()),
        producer_name="dlx",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(found, _properties(parts))
    return found


def _scores(graph: Graph, parts: Parts) -> str:
    """The last layer's Z."""
    A = "X"
    if parts.inputs is not None:
        mean, scale = parts.inputs
        A = graph.op("Div", graph.op("Sub", A, graph.hold("mean", mean)), graph.hold("scale", scale))
    for l, (W, b) in enumerate(parts.pairs, start=1):
        Z = graph.op("Gemm", A, graph.hold(f"W{l}", W), graph.hold(f"b{l}", b.reshape(-1)), output=f"Z{l}")
        A = Z if l == len(parts.pairs) else _activated(graph, Z, parts.hidden[l - 1], l)
    return A


def _activated(graph: Graph, Z: str, activation: activations.Activation, l: int) -> str:
    """The activation of layer l."""
    name, settings = activation.name, activation.settings
    if name == "identity":
        return Z
    if name in FUNCTIONS and (graph.dtype == "float64" or name == "silu"):
        return graph.call(name, Z, *(graph.hold(f"{key}{l}", value) for key, value in settings.items()))
    kind, attributes = OPERATORS[name](**settings)
    return graph.op(kind, Z, **attributes)


Answers = dict[str, tuple[int | None, list[Any]]]  # by name: the type, or None for the working dtype, and the shape


def _one_of_several(graph: Graph, parts: Parts, Z: str) -> Answers:
    """The label of the largest score, and softmax."""
    K = parts.pairs[-1][0].shape[1]
    labels, kind = _labels(graph, parts.classes, K)
    numbered = labels.dtype.kind == "i" and np.array_equal(labels, np.arange(K))
    place = graph.op("ArgMax", Z, output="label" if numbered else "", axis=1, keepdims=0)
    if not numbered:
        graph.op("Gather", graph.hold("classes", labels, labels.dtype), place, output="label")
    graph.op("Softmax", Z, output="probabilities", axis=1)
    return {"label": (kind, ["n"]), "probabilities": (None, ["n", K])}


def _yes_or_no(graph: Graph, parts: Parts, Z: str) -> Answers:
    """For each output whether it is yes, and σ; of one label its name, and the probabilities of no and of yes."""
    K, int64 = parts.pairs[-1][0].shape[1], graph.onnx.TensorProto.INT64
    yes = graph.op(parts.yes, Z, graph.hold("threshold", 0.0))
    if not parts.one_label:
        graph.op("Cast", yes, output="label", to=int64)
        graph.op("Sigmoid", Z, output="probabilities")
        return {"label": (int64, ["n", K]), "probabilities": (None, ["n", K])}
    labels, kind = _labels(graph, parts.classes, 2)
    no, sure = (graph.hold(name, label, labels.dtype) for name, label in zip(("no", "yes"), labels, strict=True))
    graph.op("Squeeze", graph.op("Where", yes, sure, no), graph.hold("axis", [1], np.int64), output="label")
    both = graph.op("Concat", graph.op("Neg", Z), Z, axis=1)  # 1 - σ(z) = σ(-z)
    graph.op("Sigmoid", both, output="probabilities")
    return {"label": (kind, ["n"]), "probabilities": (None, ["n", 2])}


def _numbers(graph: Graph, parts: Parts, Z: str) -> Answers:
    """The prediction, as `predict` has it: (n,) for one output."""
    K = parts.pairs[-1][0].shape[1]
    P = graph.op("Exp", Z) if parts.loss.targets == "counts" else Z
    if parts.outputs is not None:
        mean, scale = parts.outputs
        P = graph.op("Add", graph.hold("target_mean", mean), graph.op("Mul", graph.hold("target_scale", scale), P))
    if K == 1:
        graph.op("Squeeze", P, graph.hold("axis", [1], np.int64))
    graph.nodes[-1].output[:] = ["prediction"]
    return {"prediction": (None, ["n"] if K == 1 else ["n", K])}


def _labels(graph: Graph, classes: HostArray | None, K: int) -> tuple[HostArray, int]:
    """What the class numbers stand for, and its type in ONNX: string, or int64 for integers and booleans."""
    found = np.arange(K) if classes is None else classes
    if found.dtype.kind in "UOT":
        texts = found.astype(object)
        for text in texts:
            if any("\ud800" <= each <= "\udfff" for each in text):
                checks.reject("classes", "be Unicode text for to_onnx", repr(text), "Rename the labels.")
        return texts, int(graph.onnx.TensorProto.STRING)
    if found.max() > np.iinfo(np.int64).max:
        checks.reject("classes", "fit int64 for to_onnx", found.max(), "Number the labels anew.")
    return found.astype(np.int64), int(graph.onnx.TensorProto.INT64)


def _properties(parts: Parts) -> dict[str, str]:
    """What the file says of the network, in JSON."""
    facts = {
        "activation": [descriptions.described(each) for each in parts.hidden],
        "loss": descriptions.described(parts.loss),
        "classes": None if parts.classes is None else parts.classes.tolist(),
    }
    return {name: json.dumps(fact) for name, fact in facts.items()}


def to_torch(pairs: Pairs, hidden: Sequence[activations.Activation]) -> Any:
    """The torch.nn.Sequential of these layers; see `dlx.Network.to_torch`."""
    _require_own("to_torch", hidden)
    steps = [(each.name, dict(each.settings)) for each in hidden]
    return importlib.import_module(TORCH_MODULES).sequential(pairs, steps)


def _require_own(name: str, hidden: Sequence[activations.Activation], loss: losses.Loss | None = None) -> None:
    own = all(map(activations.is_own, hidden)) and (loss is None or losses.is_own(loss))
    if not own:
        rule = f"be asked of a network with dlx's own activations{'' if loss is None else ' and loss'}"
        remedy = "Their formulas alone are known elsewhere: build the rest there from net.params."
        checks.reject(name, rule, "functions of your own", remedy)
