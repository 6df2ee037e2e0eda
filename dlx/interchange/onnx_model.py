"""A network as an ONNX model, built node by node.

The graph has a Gemm and an activation for each layer, and then the link of the loss. onnxruntime has some activations
in float32 only. A float64 graph has their formula written out: as a function in the file, or node by node for readers
of older opsets, which may not know functions.
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
from dlx.host import HostArray
from dlx.version import __version__

Pairs = Sequence[tuple[HostArray, HostArray]]
Answers = dict[str, tuple[int | None, list[Any]]]  # outputs by name: the type, or None for the graph's; and the shape
OPSET, OLDEST = 20, 13  # the first opset with Gelu; and the first whose Softmax, Squeeze and Relu are those of today
# onnxruntime before 1.18 merges a Gemm and the activation after it into one operator, which it does not have for
# doubles. A Max with this number between the two prevents that. It changes no value of relu, sigmoid and tanh.
FLOOR = -1000.0
SINCE = {"gelu": 20, "mish": 18}  # the opset that brought the operator
MOST_BYTES = 2**31 - 2**20  # protobuf writes less than 2 GiB; one MiB is for everything but the parameters

OPERATORS: Mapping[str, Callable[..., tuple[str, dict[str, Any]]]] = {  # from settings to an operator and attributes
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
LINKS: Mapping[str, tuple[str, dict[str, Any]]] = {  # by the name of the link: the operator and its attributes
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
# These functions are for float64, where onnxruntime has no kernels for these operators, and a Gelu with constants in
# single precision; and for opsets before `SINCE`. silu is for float32 too, as onnxruntime's σ is off by 1e-7, and z
# multiplies this error.
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
    """The parts of a model, on the host.

    pairs : sequence of (W, b)
        W (d_in, d_out) and b (d_out,) or (1, d_out).
    hidden : sequence of Activation
    loss : Loss
    classes : array (K,) or None
        The labels that the class numbers stand for.
    one_label : bool
        Whether the model has one output, which is yes or no.
    yes : str
        The operator that compares a score with 0 to decide for yes.
    inputs, outputs : pair (mean, scale) of arrays (1, d), or None
        The standardisation of inputs and of targets.
    raw : bool
        Whether the model gives scores in place of probabilities.
    column : bool
        Whether the prediction of one output is (n, 1), and not (n,).
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
    """The nodes of a graph in the order of computation, with the arrays and functions that they need.

    With `inline`, formulas are written out node by node, and the graph has no functions.
    """

    def __init__(self, onnx: Any, dtype: str, opset: int, inline: bool) -> None:
        self.onnx, self.dtype, self.opset, self.inline = onnx, dtype, opset, inline
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.functions: dict[str, Any] = {}

    def add_array(self, name: str, value: Any, dtype: Any = None) -> str:
        """Add an array, by default in the dtype of the graph, and return its name."""
        self.arrays.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype or self.dtype), name))
        return name

    def add_node(self, kind: str, *inputs: str, output: str = "", **settings: Any) -> str:
        """Add a node and return the name of its output."""
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name=name, **settings))
        return name

    def add_call(self, name: str, *inputs: str) -> str:
        """Add a call of one of `FUNCTIONS`, or with `inline` its own nodes, and return the name of the output."""
        text = FUNCTIONS[name].replace("TYPE", {"float32": "float", "float64": "double"}[self.dtype])
        text = f'<domain: "dlx", opset_import: ["": {self.opset}]> {name} {text}'
        function = self.onnx.parser.parse_function(text)
        if not self.inline:
            self.functions[name] = function
            return self.add_node(name, *inputs, domain="dlx")
        names: dict[str, str] = dict(zip(function.input, inputs, strict=True))
        for node in function.node:
            settings = {field.name: self.onnx.helper.get_attribute_value(field) for field in node.attribute}
            names[node.output[0]] = self.add_node(node.op_type, *(names[source] for source in node.input), **settings)
        return names[function.output[0]]


def write(path: Target, parts: Parts, opset: int | None = None) -> None:
    """Write the model to a stream or a file. An existing file is replaced when the whole new one is on the disk."""
    streams.require_target(path, "net.onnx")
    require_own("to_onnx", parts.hidden, parts.loss)
    size = sum(array.nbytes for pair in parts.pairs for array in pair)
    if size >= MOST_BYTES:
        rule, remedy = "be asked of a network of less than 2 GiB", "Make it float32, or use save, which has no limit."
        checks.reject("to_onnx", rule, f"{size:,} bytes of parameters", remedy)
    streams.put(path, model(parts, opset).SerializeToString())


def model(parts: Parts, opset: int | None = None) -> Any:
    """The model as an onnx.ModelProto."""
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
        ir_version=onnx.helper.find_min_ir_version_for([standard]),  # the runtimes of this opset can read it
        functions=list(graph.functions.values()),
        producer_name="dlx",
        producer_version=__version__,
    )


def computed(parts: Parts, onnx: Any, dtype: str, opset: int, inline: bool) -> tuple[Graph, Answers]:
    """The graph from "X" to the answers, computing in `dtype` whatever the dtype of the parameters."""
    graph = Graph(onnx, dtype, opset, inline)
    add_answers = {"class": _add_class, "yes or no": _add_yes_or_no, "number": _add_number}[parts.loss.link.answers]
    return graph, add_answers(graph, parts, _add_layers(graph, parts))


def library() -> Any:
    """The library onnx, with those of its modules that are used here."""
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
    """Check that the installed onnx knows `opset`, and return it."""
    version = checks.integer("opset", opset, low=OLDEST, remedy=f"Leave it out for opset {OPSET}.")
    newest = onnx.defs.onnx_opset_version()
    if version > newest:
        remedy = f"Upgrade onnx, or leave it out for opset {OPSET}."
        checks.reject("opset", f"be at most {newest}, the newest that the installed onnx knows", version, remedy)
    return version


def _add_layers(graph: Graph, parts: Parts) -> str:
    """Add the nodes of all layers, and return the name of the scores."""
    A = "X"
    if parts.inputs is not None:
        mean, scale = parts.inputs
        centred = graph.add_node("Sub", A, graph.add_array("mean", mean))
        A = graph.add_node("Div", centred, graph.add_array("scale", scale))
    for l, (W, b) in enumerate(parts.pairs, start=1):
        weights, biases = graph.add_array(f"W{l}", W), graph.add_array(f"b{l}", b.reshape(-1))
        Z = graph.add_node("Gemm", A, weights, biases, output=f"Z{l}")
        A = Z if l == len(parts.pairs) else _add_activation(graph, Z, parts.hidden[l - 1], l)
    return A


def _add_activation(graph: Graph, Z: str, activation: activations.Activation, l: int) -> str:
    """Add the activation of layer l, and return the name of its output."""
    name, settings = activation.name, activation.settings
    if name == "identity":
        return Z
    older = graph.opset < SINCE.get(name, OLDEST)
    if name in FUNCTIONS and (graph.dtype == "float64" or older or name not in OPERATORS):
        return graph.add_call(name, Z, *(graph.add_array(f"{name}_{key}{l}", value) for key, value in settings.items()))
    if graph.dtype == "float64":
        Z = graph.add_node("Max", Z, graph.add_array(f"floor{l}", FLOOR))
    kind, attributes = OPERATORS[name](**settings)
    return graph.add_node(kind, Z, **attributes)


def _add_class(graph: Graph, parts: Parts, Z: str) -> Answers:
    """Add the label of the largest score, and the probability of each class."""
    K = parts.pairs[-1][0].shape[1]
    labels, kind = _onnx_labels(graph, parts.classes, K)
    are_numbers = labels.dtype.kind == "i" and np.array_equal(labels, np.arange(K))
    place = graph.add_node("ArgMax", Z, output="label" if are_numbers else "", axis=1, keepdims=0)
    if not are_numbers:
        graph.add_node("Gather", graph.add_array("classes", labels, labels.dtype), place, output="label")
    _add_probabilities(graph, parts, Z)
    return {"label": (kind, ["n"]), "probabilities": (None, ["n", K])}


def _add_yes_or_no(graph: Graph, parts: Parts, Z: str) -> Answers:
    """Add 0 or 1 and the probability of yes for each output; for one label its name, and both probabilities."""
    K, int64 = parts.pairs[-1][0].shape[1], graph.onnx.TensorProto.INT64
    is_yes = graph.add_node(parts.yes, Z, graph.add_array("threshold", 0.0))
    if not parts.one_label:
        graph.add_node("Cast", is_yes, output="label", to=int64)
        _add_probabilities(graph, parts, Z)
        return {"label": (int64, ["n", K]), "probabilities": (None, ["n", K])}
    labels, kind = _onnx_labels(graph, parts.classes, 2)
    no, yes = (graph.add_array(name, label, labels.dtype) for name, label in zip(("no", "yes"), labels, strict=True))
    column = graph.add_node("Where", is_yes, yes, no)
    graph.add_node("Squeeze", column, graph.add_array("axis", [1], np.int64), output="label")
    both = graph.add_node("Concat", graph.add_node("Neg", Z), Z, axis=1)  # 1 - σ(z) = σ(-z)
    _add_probabilities(graph, parts, both)
    return {"label": (kind, ["n"]), "probabilities": (None, ["n", 2])}


def _add_probabilities(graph: Graph, parts: Parts, Z: str) -> None:
    """Add the prediction of the loss's link, or the scores if the parts ask for them."""
    operator, attributes = LINKS["identity" if parts.raw else parts.loss.link.name]
    graph.add_node(operator, Z, output="probabilities", **attributes)


def _add_number(graph: Graph, parts: Parts, Z: str) -> Answers:
    """Add the prediction of real targets, (n, K), or (n,) for one output unless the parts ask for a column."""
    K = parts.pairs[-1][0].shape[1]
    link = parts.loss.link.name
    P = Z if link == "identity" else graph.add_node(LINKS[link][0], Z)
    if parts.outputs is not None:
        mean, scale = parts.outputs
        mean_name = graph.add_array("target_mean", mean)
        scaled = graph.add_node("Mul", graph.add_array("target_scale", scale), P)
        P = graph.add_node("Add", mean_name, scaled)
    flat = K == 1 and not parts.column
    if flat:
        graph.add_node("Squeeze", P, graph.add_array("axis", [1], np.int64))
    graph.nodes[-1].output[:] = ["prediction"]
    return {"prediction": (None, ["n"] if flat else ["n", K])}


def _onnx_labels(graph: Graph, classes: HostArray | None, K: int) -> tuple[HostArray, int]:
    """The labels of the class numbers, and their type in ONNX: string, or int64 for integers and booleans."""
    labels = np.arange(K) if classes is None else classes
    if are_texts(labels):
        texts = labels.astype(object)
        for text in texts:
            if any("\ud800" <= character <= "\udfff" for character in text):
                checks.reject("classes", "be Unicode text for to_onnx", repr(text), "Rename the labels.")
        return texts, int(graph.onnx.TensorProto.STRING)
    if labels.max() > np.iinfo(np.int64).max:
        checks.reject("classes", "fit int64 for to_onnx", labels.max(), "Number the labels anew.")
    return labels.astype(np.int64), int(graph.onnx.TensorProto.INT64)


def are_texts(labels: HostArray) -> bool:
    """Whether these labels become strings in ONNX."""
    return labels.dtype.kind in "UOT"


def _description(parts: Parts) -> str:
    """A description of the network in JSON, for the graph.

    `onnx.compose.merge_models` keeps the descriptions of both graphs. It refuses models whose properties differ.
    """
    facts = {
        "activation": [schema.described(activation) for activation in parts.hidden],
        "loss": schema.described(parts.loss),
        "classes": None if parts.classes is None else parts.classes.tolist(),
    }
    return json.dumps(facts)


def require_own(name: str, hidden: Sequence[activations.Activation], loss: losses.Loss | None = None) -> None:
    """Raise if an activation or the loss is a user's own, which no other library has."""
    own = all(map(activations.is_own, hidden)) and (loss is None or losses.is_own(loss))
    if not own:
        rule = f"be asked of a network with dlx's own activations{'' if loss is None else ' and loss'}"
        remedy = "Their formulas alone are known elsewhere: build the rest there from net.params."
        checks.reject(name, rule, "functions of your own", remedy)
