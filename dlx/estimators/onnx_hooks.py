"""Hooks by which skl2onnx converts a pipeline that contains one of dlx's estimators.

    skl2onnx.to_onnx(make_pipeline(StandardScaler(), dlx.MLPClassifier()).fit(X, y), X[:1])

The nodes are those of `dlx.interchange.onnx_model`. They compute in double precision if an input is double, and in
single precision otherwise. The outputs have the names and shapes that skl2onnx gives to those of scikit-learn's own
estimators, by its options ``zipmap``, ``nocl`` and ``raw_scores``.

skl2onnx asks an estimator for its hooks within pipelines, column transformers, feature unions and searches. For the
members of ensembles (voting, stacking, bagging, calibration) it looks in a table of its own: `register` enters the
classes there, once in a process.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from dlx import checks, losses
from dlx.estimators import conversion
from dlx.interchange import onnx_model

OPTION_DEFAULTS = {"zipmap": True, "nocl": False, "raw_scores": False}
OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False], "raw_scores": [True, False]}
ML = "ai.onnx.ml"


class OnnxHooks:
    """The three methods that skl2onnx looks for in an estimator; each returns the function that skl2onnx then calls."""

    def onnx_parser(self) -> Callable[..., list[Any]] | None:
        """The function that names the outputs of a classifier; None where skl2onnx's own names will do."""
        register(type(self))
        return (
            functools.partial(_outputs, self)
            if isinstance(self, ClassifierMixin) and _is_registered(type(self))
            else None
        )

    def onnx_shape_calculator(self) -> Callable[..., None]:
        """The function that gives the outputs their types and shapes."""
        return shapes

    def onnx_converter(self) -> Callable[..., None]:
        """The function that adds the nodes."""
        return convert


def register(*kinds: type) -> None:
    """Enter classes of dlx's estimators into skl2onnx's table, where it looks up the members of ensembles.

    A class that is already in the table keeps its entry.

    Parameters
    ----------
    *kinds : class
        `dlx.MLPClassifier`, `dlx.MLPRegressor` or subclasses of them.

    Examples
    --------
    >>> import dlx
    >>> from dlx import onnx_hooks
    >>> onnx_hooks.register(dlx.MLPClassifier, dlx.MLPRegressor)
    """
    for kind in kinds:
        if kind not in _alias_table():
            extras = {"parser": _parse, "options": OPTIONS} if issubclass(kind, ClassifierMixin) else {}
            library = importlib.import_module("skl2onnx")
            library.update_registered_converter(kind, _alias(kind), shapes, convert, **extras)


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Declare the operator of a classifier that is in the table, with the outputs that its hook would name."""
    operator = scope.declare_local_operator(_alias_table()[type(model)], model)
    operator.inputs = inputs
    for output in _outputs(model, scope, inputs):
        operator.outputs.append(output)
    return operator.outputs


def _outputs(est: Any, scope: Any, inputs: Any) -> list[Any]:
    """The output variables of a classifier: the label, and probabilities as a tensor, as maps or as columns."""
    check_is_fitted(est, "coefs_")
    types, declare, options = _types(), scope.declare_local_variable, _options(est, scope)
    labels, number = _class_labels(est, options), _float_type(inputs)
    label = _label_type(labels)
    if options["zipmap"] is False:
        return [declare("label", label()), declare("probabilities", number())]
    if options["zipmap"] == "columns":
        letter = "s" if onnx_model.are_texts(labels) else "i"
        columns = [declare(f"{letter}{key}", number()) for key in _keys(labels)]
        return [declare("output_label", label()), *columns]
    maps = types.SequenceType(
        types.DictionaryType(label([None]), types.FloatTensorType([]))
    )  # skl2onnx's maps hold no doubles
    return [declare("output_label", label()), declare("output_probability", maps)]


def shapes(operator: Any) -> None:
    """Set the types and shapes of the outputs of an operator, which are classes of skl2onnx."""
    est, outputs, number = operator.raw_operator, operator.outputs, _float_type(operator.inputs)
    check_is_fitted(est, "coefs_")
    n, K = operator.inputs[0].get_first_dimension(), est.n_outputs_
    if not isinstance(est, ClassifierMixin):
        outputs[0].set_type(number([n, K]))
        return
    labels = _class_labels(est, _options(est, operator.scope_inst))
    outputs[0].set_type(_label_type(labels)([n, K] if est._multilabel else [n]))
    if len(outputs) > 2:
        for output in outputs[1:]:
            output.set_type(number([n]))
    elif not _holds_maps(outputs[1]):
        outputs[1].set_type(number([n, len(labels)]))


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of an operator to skl2onnx's container."""
    est, outputs = operator.raw_operator, [variable.full_name for variable in operator.outputs]
    onnx, opset = onnx_model.library(), container.target_opset_any_domain("")
    if opset < onnx_model.OLDEST:
        checks.reject("target_opset", f"be at least {onnx_model.OLDEST}", opset, "Leave it out for skl2onnx's default.")
    options = _options(est, container)  # not of the scope: stacking passes options to the container only
    dtype = "float64" if _float_type(operator.inputs) is _types().DoubleTensorType else "float32"
    parts = _parts(est, options)
    onnx_model.require_own("to_onnx", parts.hidden, parts.loss)
    graph, _ = onnx_model.computed(parts, onnx, dtype, opset, inline=True)
    names = {"X": _features(scope, operator, container, dtype)}
    if isinstance(est, ClassifierMixin):
        plain = len(outputs) == 2 and not _holds_maps(operator.outputs[1])
        names |= {"label": outputs[0]} | ({"probabilities": outputs[1]} if plain else {})
    else:
        plain = True
        names |= {"prediction": outputs[0]}
    for array in graph.arrays:
        names[array.name] = scope.get_unique_variable_name(array.name)
        content = array if array.raw_data else list(array.string_data)
        container.add_initializer(names[array.name], array.data_type, list(array.dims), content)
    for node in graph.nodes:
        (output,) = node.output
        names.setdefault(output, scope.get_unique_variable_name(output))
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        _add(scope, container, node.op_type, [names[name] for name in node.input], names[output], **attributes)
    if not plain:
        _split(scope, container, names["probabilities"], outputs[1:], _class_labels(est, options), dtype)


def _split(scope: Any, container: Any, P: str, outputs: list[str], labels: Any, dtype: str) -> None:
    """Add the nodes that turn probabilities into a sequence of maps, or into one output for each class."""
    if len(outputs) == 1:
        if dtype == "float64":
            P = _add(scope, container, "Cast", [P], to=onnx_model.library().TensorProto.FLOAT)
        key = "classlabels_strings" if onnx_model.are_texts(labels) else "classlabels_int64s"
        _add(scope, container, "ZipMap", [P], outputs[0], op_domain=ML, **{key: _keys(labels)})
        return
    for k, output in enumerate(outputs):
        place = scope.get_unique_variable_name("place")
        container.add_initializer(place, onnx_model.library().TensorProto.INT64, [], [k])
        _add(scope, container, "Gather", [P, place], output, axis=1)


def _features(scope: Any, operator: Any, container: Any, dtype: str) -> str:
    """The name of X in the working dtype; if there are several inputs, they are its columns."""
    number, to = _float_type(operator.inputs), onnx_model.library().helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    parts = [
        part.full_name if isinstance(part.type, number) else _add(scope, container, "Cast", [part.full_name], to=to)
        for part in operator.inputs
    ]
    return parts[0] if len(parts) == 1 else _add(scope, container, "Concat", parts, axis=1)


def _add(scope: Any, container: Any, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
    """Add a node to skl2onnx's container, and return the name of its output."""
    output = output or scope.get_unique_variable_name(kind)
    container.add_node(kind, inputs, [output], name=scope.get_unique_operator_name(kind), **attributes)
    return output


def _parts(est: Any, options: dict[str, Any]) -> onnx_model.Parts:
    """The parts of the estimator's ONNX model, by the options of skl2onnx."""
    parts = conversion.onnx_parts(est)._replace(column=True, raw=options["raw_scores"])
    if parts.classes is None:
        return parts
    if parts.raw and len(parts.classes) == 2 and not parts.one_label:  # one score, as `decision_function` has it
        pairs = conversion.one_column(list(parts.pairs))
        parts = parts._replace(pairs=pairs, loss=losses.binary_cross_entropy(), one_label=True)
    return parts._replace(classes=_class_labels(est, options))


def _class_labels(est: Any, options: dict[str, Any]) -> Any:
    """The labels of the classes, or their numbers if the option "nocl" asks for no labels."""
    return np.arange(len(est.classes_)) if options["nocl"] else np.asarray(est.classes_)


def _keys(labels: Any) -> list[Any]:
    """The labels as Python's strings or integers."""
    return [str(label) if onnx_model.are_texts(labels) else int(label) for label in labels]


def _options(est: Any, holder: Any) -> dict[str, Any]:
    """The options for this estimator that a scope or a container of skl2onnx holds, with their defaults."""
    return {**OPTION_DEFAULTS, **(holder.get_options(est, fail=False) or {})}


def _float_type(inputs: Any) -> Any:
    """skl2onnx's type of what is computed: double if an input is, else single."""
    double = _types().DoubleTensorType
    return double if any(isinstance(variable.type, double) for variable in inputs) else _types().FloatTensorType


def _label_type(labels: Any) -> Any:
    """skl2onnx's type of labels."""
    return _types().StringTensorType if onnx_model.are_texts(labels) else _types().Int64TensorType


def _holds_maps(variable: Any) -> bool:
    """Whether an output is a sequence of maps."""
    return isinstance(variable.type, _types().SequenceType)


def _is_registered(kind: type) -> bool:
    """Whether the entry of the class in skl2onnx's table is the one that `register` makes."""
    return bool(_alias_table()[kind] == _alias(kind))


def _alias(kind: type) -> str:
    """The name of the class in skl2onnx's table."""
    return f"dlx.{kind.__qualname__}"


def _alias_table() -> Any:
    """skl2onnx's table of classes and their names."""
    return importlib.import_module("skl2onnx._supported_operators").sklearn_operator_name_map


def _types() -> Any:
    """The module with skl2onnx's types of variables."""
    return importlib.import_module("skl2onnx.common.data_types")
