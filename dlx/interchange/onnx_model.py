"""A network as an ONNX model, built node by node.

The graph is one Gemm a layer and its activation, then the link of the loss. Where onnxruntime has an activation in
float32 alone, a float64 graph has the same formula written out: as a function that travels in the file, or node by node
where the reader may know no functions.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx import activations, checks, losses
from dlx.files import schema, streams
from dlx.files.streams import Target
from dlx.version import __version__

HostArray = np.ndarray[Any, Any]
Pairs = Sequence[tuple[HostArray, HostArray]]
Answers = dict[str, tuple[int | None, list[Any]]]  # by name: the type, or None for the working dtype, and the shape
OPSET, OLDEST = 20, 13  # the first with Gelu; and the first whose Softmax, Squeeze and Relu are today's
# Where relu, sigmoid and tanh of doubles are at their limits. onnxruntime before 1.18 makes one operator of a Gemm and
# the activation behind it, but has none for doubles; so a Max with this, which changes no value, comes between them.
FLOOR = -1000.0
SINCE = {"gelu": 20, "mish": 18}  # the opset that brought the operator
MOST_BYTES = 2**31 - 2**20  # protobuf writes less than 2 GiB; a MiB is for all that is not a parameter

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
LINKS: Mapping[str, tuple[str, dict[str, Any]]] = {  # of a loss, by its name: the operator and its attributes
    "identity": ("Identity", {}),
    "exp": ("Exp", {}),
    "logistic": ("Sigmoid", {}),
    "softmax": ("Softmax", {"axis": 1}),
}


def _constants(**values: float) -> str:
    """Constants in ONNX's own syntax; TYPE becomes the working dtype."""
    return " ".join(f"{name} = Constant <value = TYPE {{{value!r}}}> ()" for name, value in values.items())


ELU = f"""{_constants(zero=0.0, one=1.0)}
    low = Min (z, zero)  e = Exp (low)  less = Sub (e, one)  left = Mul (alpha, less)
    right = Relu (z)  a = Add (right, left)"""
SOFTPLUS = f"""{_constants(one=1.0)}
    size = Abs (z)  far = Neg (size)  e = Exp (far)  more = Add (one, e)  rest = Log (more)
    right = Relu (z)  p = Add (right, rest)"""
# For float64, where onnxruntime has no kernel of these operators, and a Gelu with constants in single precision; and
# for opsets before `SINCE`. silu is here in float32 too: onnxruntime's own σ is off by 1e-7, and z multiplies that.
FUNCTIONS = {
    "leaky_relu": "(z, slope) => (a) { left = Mul (slope, z)  a = Max (z, left) }",
    "elu": f"(z, alpha) => (a) {{ {ELU} }}",
    "selu": f"""(z) => (b) {{ {_constants(scale=activations.SELU_SCALE, alpha=activations.SELU_ALPHA)} {ELU}
        b = Mul (scale, a) }}""",
    "softplus": f"(z) => (p) {{ {SOFTPLUS} }}",
    "silu": f"""(z) => (a) {{ {_constants(one=1.0)}
        far = Neg (z)  e = Exp (far)  sum = Add (one, e)  a = Div (z, sum) }}""",
    "mish": f"(z) => (a) {{ {SOFTPLUS}  t = Tanh (p)  a = Mul (z, t) }}",
    "gelu": f"""(z) => (a) {{ {_constants(c=math.sqrt(2 / math.pi), k=0.044715, one=1.0, half=0.5)}
        square = Mul (z, z)  cube = Mul (square, z)  bend = Mul (k, cube)  bent = Add (z, bend)  u = Mul (c, bent)
        t = Tanh (u)  more = Add (one, t)  gate = Mul (half, more)  a = Mul (z, gate) }}""",
}


class Parts(NamedTuple):
    """What a model is made of, on the host.

    `pairs` of W (d_in, d_out) and b (d_out,) or (1, d_out); `one_label`, whether the one output is yes or no. A score
    is yes where the operator `yes` says so of it and 0. `inputs` and `outputs`: the (mean, scale), (1, d) each, of what
    was standardised. `raw`: scores in place of probabilities; `column`: one prediction a row is (n, 1), not (n,).
    """

    pairs: Pairs
    hidden: Sequence[activations.Activation]
    loss: losses.Loss
    classes: HostArray | None
    one_label: bool
    yes: str = "GreaterOrEqual"
    inputs: tuple[HostArray, HostArray] | None = None
    outputs: tuple[HostArray, HostArray] | None = None
    raw: bool = False
    column: bool = False


class Graph:
    """Nodes in the order of computation, and the arrays and functions that they need."""

    def __init__(self, onnx: Any, dtype: str, opset: int, inline: bool) -> None:
        self.onnx, self.dtype, self.opset, self.inline = onnx, dtype, opset, inline
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
        """One of `FUNCTIONS`: a node that calls it, or its own nodes where the graph is to be without functions."""
        text = FUNCTIONS[name].replace("TYPE", {"float32": "float", "float64": "double"}[self.dtype])
        text = f'<domain: "dlx", opset_import: ["": {self.opset}]> {name} {text}'
        function = self.onnx.parser.parse_function(text)
        if not self.inline:
            self.functions[name] = function
            return self.op(name, *inputs, domain="dlx")
        names: dict[str, str] = dict(zip(function.input, inputs, strict=True))
        for node in function.node:
            settings = {each.name: self.onnx.helper.get_attribute_value(each) for each in node.attribute}
            names[node.output[0]] = self.op(node.op_type, *(names[each] for each in node.input), **settings)
        return names[function.output[0]]


def to_onnx(path: Target, parts: Parts, opset: int | None = None) -> None:
    """Write the model to a stream, or to a file that is replaced when all of the new one is on the disk."""
    streams.require_target(path, "net.onnx")
    require_own("to_onnx", parts.hidden, parts.loss)
    size = sum(each.nbytes for pair in parts.pairs for each in pair)
    if size >= MOST_BYTES:
        rule, remedy = "be asked of a network of less than 2 GiB", "Make it float32, or use save, which has no limit."
        checks.reject("to_onnx", rule, f"{size:,} bytes of parameters", remedy)
    streams.put(path, model(parts, opset).SerializeToString())


def model(parts: Parts, opset: int | None = None) -> Any:
    """The onnx.ModelProto."""
    onnx = library()
    opset = OPSET if opset is None else _known_opset(onnx, opset)
    dtype = parts.pairs[0][0].dtype
    graph, answers = computed(parts, onnx, dtype.name, opset, inline=opset < OPSET)
    number = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    value = onnx.helper.make_tensor_value_info
    inputs = [value("X", number, ["n", parts.pairs[0][0].shape[0]])]
    outputs = [value(name, kind or number, shape) for name, (kind, shape) in answers.items()]
    standard = onnx.helper.make_opsetid("", opset)
    return onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "dlx", inputs, outputs, graph.arrays, _description(parts)),
        opset_imports=[standard, *([onnx.helper.make_opsetid("dlx", 1)] if graph.functions else [])],
        ir_version=onnx.helper.find_min_ir_version_for([standard]),  # which the runtimes of that opset can read
        functions=list(graph.functions.values()),
        producer_name="dlx",
        producer_version=__version__,
    )


def computed(parts: Parts, onnx: Any, dtype: str, opset: int, inline: bool) -> tuple[Graph, Answers]:
    """The graph from "X" to the answers, in that dtype whatever the parameters'."""
    graph = Graph(onnx, dtype, opset, inline)
    answer = {"class": _one_of_several, "yes or no": _yes_or_no, "number": _numbers}[parts.loss.link.answers]
    return graph, answer(graph, parts, _scores(graph, parts))


def library() -> Any:
    """onnx, with the modules that are needed of it."""
    try:
        onnx = importlib.import_module("onnx")
    except ModuleNotFoundError as reason:
        if reason.name != "onnx":
            raise
        raise ImportError("to_onnx needs onnx; run: pip install 'dlx-nn[onnx]'") from reason
    for part in ("defs", "helper", "numpy_helper", "parser"):
        importlib.import_module(f"onnx.{part}")
    return onnx


def _known_opset(onnx: Any, opset: int) -> int:
    found = checks.integer("opset", opset, low=OLDEST, remedy=f"Leave it out for opset {OPSET}.")
    newest = onnx.defs.onnx_opset_version()
    if found > newest:
        remedy = f"Upgrade onnx, or leave it out for opset {OPSET}."
        checks.reject("opset", f"be at most {newest}, the newest that the installed onnx knows", found, remedy)
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
    older = graph.opset < SINCE.get(name, OLDEST)
    if name in FUNCTIONS and (graph.dtype == "float64" or older or name not in OPERATORS):
        return graph.call(name, Z, *(graph.hold(f"{key}{l}", value) for key, value in settings.items()))
    if graph.dtype == "float64":
        Z = graph.op("Max", Z, graph.hold(f"floor{l}", FLOOR))
    kind, attributes = OPERATORS[name](**settings)
    return graph.op(kind, Z, **attributes)


def _one_of_several(graph: Graph, parts: Parts, Z: str) -> Answers:
    """The label of the largest score, and softmax."""
    K = parts.pairs[-1][0].shape[1]
    labels, kind = _labels(graph, parts.classes, K)
    numbered = labels.dtype.kind == "i" and np.array_equal(labels, np.arange(K))
    place = graph.op("ArgMax", Z, output="label" if numbered else "", axis=1, keepdims=0)
    if not numbered:
        graph.op("Gather", graph.hold("classes", labels, labels.dtype), place, output="label")
    _probabilities(graph, parts, Z)
    return {"label": (kind, ["n"]), "probabilities": (None, ["n", K])}


def _yes_or_no(graph: Graph, parts: Parts, Z: str) -> Answers:
    """For each output whether it is yes, and σ; of one label its name, and the probabilities of no and of yes."""
    K, int64 = parts.pairs[-1][0].shape[1], graph.onnx.TensorProto.INT64
    yes = graph.op(parts.yes, Z, graph.hold("threshold", 0.0))
    if not parts.one_label:
        graph.op("Cast", yes, output="label", to=int64)
        _probabilities(graph, parts, Z)
        return {"label": (int64, ["n", K]), "probabilities": (None, ["n", K])}
    labels, kind = _labels(graph, parts.classes, 2)
    no, sure = (graph.hold(name, label, labels.dtype) for name, label in zip(("no", "yes"), labels, strict=True))
    graph.op("Squeeze", graph.op("Where", yes, sure, no), graph.hold("axis", [1], np.int64), output="label")
    both = graph.op("Concat", graph.op("Neg", Z), Z, axis=1)  # 1 - σ(z) = σ(-z)
    _probabilities(graph, parts, both)
    return {"label": (kind, ["n"]), "probabilities": (None, ["n", 2])}


def _probabilities(graph: Graph, parts: Parts, Z: str) -> None:
    """What the loss's link predicts, or the scores themselves where these are asked for."""
    operator, attributes = LINKS["identity" if parts.raw else parts.loss.link.name]
    graph.op(operator, Z, output="probabilities", **attributes)


def _numbers(graph: Graph, parts: Parts, Z: str) -> Answers:
    """The prediction, as `predict` has it: (n,) for one output, unless a column is asked for."""
    K = parts.pairs[-1][0].shape[1]
    link = parts.loss.link.name
    P = Z if link == "identity" else graph.op(LINKS[link][0], Z)
    if parts.outputs is not None:
        mean, scale = parts.outputs
        P = graph.op("Add", graph.hold("target_mean", mean), graph.op("Mul", graph.hold("target_scale", scale), P))
    flat = K == 1 and not parts.column
    if flat:
        graph.op("Squeeze", P, graph.hold("axis", [1], np.int64))
    graph.nodes[-1].output[:] = ["prediction"]
    return {"prediction": (None, ["n"] if flat else ["n", K])}


def _labels(graph: Graph, classes: HostArray | None, K: int) -> tuple[HostArray, int]:
    """What the class numbers stand for, and its type in ONNX: string, or int64 for integers and booleans."""
    found = np.arange(K) if classes is None else classes
    if are_texts(found):
        texts = found.astype(object)
        for text in texts:
            if any("\ud800" <= each <= "\udfff" for each in text):
                checks.reject("classes", "be Unicode text for to_onnx", repr(text), "Rename the labels.")
        return texts, int(graph.onnx.TensorProto.STRING)
    if found.max() > np.iinfo(np.int64).max:
        checks.reject("classes", "fit int64 for to_onnx", found.max(), "Number the labels anew.")
    return found.astype(np.int64), int(graph.onnx.TensorProto.INT64)


def are_texts(labels: HostArray) -> bool:
    """Whether these labels become strings in ONNX."""
    return labels.dtype.kind in "UOT"


def _description(parts: Parts) -> str:
    """What the file says of the network, in JSON: the graph's description, of which `merge_models` keeps both.

    Properties of the model would not do: it refuses models that say different things there.
    """
    facts = {
        "activation": [schema.described(each) for each in parts.hidden],
        "loss": schema.described(parts.loss),
        "classes": None if parts.classes is None else parts.classes.tolist(),
    }
    return json.dumps(facts)


def require_own(name: str, hidden: Sequence[activations.Activation], loss: losses.Loss | None = None) -> None:
    """Raise where a formula is known to nobody else."""
    own = all(map(activations.is_own, hidden)) and (loss is None or losses.is_own(loss))
    if not own:
        rule = f"be asked of a network with dlx's own activations{'' if loss is None else ' and loss'}"
        remedy = "Their formulas alone are known elsewhere: build the rest there from net.params."
        checks.reject(name, rule, "functions of your own", remedy)
