"""skl2onnx's hooks: what it asks dlx's estimators for where it makes ONNX of a pipeline that holds one.

    skl2onnx.to_onnx(make_pipeline(StandardScaler(), dlx.MLPClassifier()).fit(X, y), X[:1])

The nodes are those of `dlx.interchange.onnx_model`, in double precision where the input is, else in single. Outputs
have the names and shapes that skl2onnx gives those of scikit-learn's own estimators, by its options ``zipmap``,
``nocl`` and ``raw_scores``.

Pipelines, column transformers, feature unions and searches ask the estimators themselves. Ensembles (voting, stacking,
bagging, calibration) look up their members in a table of skl2onnx's: `register` enters them, once in a process.
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

DEFAULTS = {"zipmap": True, "nocl": False, "raw_scores": False}
OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False], "raw_scores": [True, False]}
ML = "ai.onnx.ml"


class OnnxHooks:
    """The three methods by which skl2onnx asks an estimator; each gives the function that answers."""

    def onnx_parser(self) -> Callable[..., list[Any]] | None:
        """What names the outputs, which are not the default's for a classifier."""
        register(type(self))
        return functools.partial(_outputs, self) if isinstance(self, ClassifierMixin) and _is_ours(type(self)) else None

    def onnx_shape_calculator(self) -> Callable[..., None]:
        """What gives the outputs their types and shapes."""
        return shapes

    def onnx_converter(self) -> Callable[..., None]:
        """What adds the nodes."""
        return convert


def register(*kinds: type) -> None:
    """Enter classes of dlx's estimators into skl2onnx's table, where ensembles look up their members.

    One that is there already stays as it is.

    Examples
    --------
    >>> import dlx
    >>> from dlx import onnx_hooks
    >>> onnx_hooks.register(dlx.MLPClassifier, dlx.MLPRegressor)
    """
    for kind in kinds:
        if kind not in _table():
            how = {"parser": _parsed, "options": OPTIONS} if issubclass(kind, ClassifierMixin) else {}
            importlib.import_module("skl2onnx").update_registered_converter(kind, _alias(kind), shapes, convert, **how)


def _parsed(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """A classifier in the table of skl2onnx, as its hook would have it."""
    operator = scope.declare_local_operator(_table()[type(model)], model)
    operator.inputs = inputs
    for each in _outputs(model, scope, inputs):
        operator.outputs.append(each)
    return operator.outputs


def _outputs(est: Any, scope: Any, inputs: Any) -> list[Any]:
    """The variables of a classifier: label and probabilities, the latter as a tensor, as maps or as columns."""
    check_is_fitted(est, "coefs_")
    types, declare, options = _types(), scope.declare_local_variable, _options(est, scope)
    labels, number = _labels(est, options), _number(inputs)
    label = _label_type(labels)
    if options["zipmap"] is False:
        return [declare("label", label()), declare("probabilities", number())]
    if options["zipmap"] == "columns":
        letter = "s" if onnx_model.are_texts(labels) else "i"
        columns = [declare(f"{letter}{each}", number()) for each in _keys(labels)]
        return [declare("output_label", label()), *columns]
    maps = types.SequenceType(types.DictionaryType(label([None]), types.FloatTensorType([])))  # it knows no doubles
    return [declare("output_label", label()), declare("output_probability", maps)]


def shapes(operator: Any) -> None:
    """The types and shapes of an operator's outputs, by skl2onnx's classes."""
    est, outputs, number = operator.raw_operator, operator.outputs, _number(operator.inputs)
    check_is_fitted(est, "coefs_")
    n, K = operator.inputs[0].get_first_dimension(), est.n_outputs_
    if not isinstance(est, ClassifierMixin):
        outputs[0].set_type(number([n, K]))
        return
    labels = _labels(est, _options(est, operator.scope_inst))
    outputs[0].set_type(_label_type(labels)([n, K] if est._multilabel else [n]))
    if len(outputs) > 2:
        for each in outputs[1:]:
            each.set_type(number([n]))
    elif not _holds_maps(outputs[1]):
        outputs[1].set_type(number([n, len(labels)]))


def convert(scope: Any, operator: Any, container: Any) -> None:
    """The nodes of an operator."""
    est, outputs = operator.raw_operator, [each.full_name for each in operator.outputs]
    onnx, opset = onnx_model.library(), container.target_opset_any_domain("")
    if opset < onnx_model.OLDEST:
        checks.reject("target_opset", f"be at least {onnx_model.OLDEST}", opset, "Leave it out for skl2onnx's default.")
    options = _options(est, container)  # of which stacking tells the container alone
    dtype = "float64" if _number(operator.inputs) is _types().DoubleTensorType else "float32"
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
    for each in graph.arrays:
        names[each.name] = scope.get_unique_variable_name(each.name)
        content = each if each.raw_data else list(each.string_data)
        container.add_initializer(names[each.name], each.data_type, list(each.dims), content)
    for node in graph.nodes:
        (output,) = node.output
        names.setdefault(output, scope.get_unique_variable_name(output))
        settings = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        _add(scope, container, node.op_type, [names[each] for each in node.input], names[output], **settings)
    if not plain:
        _split(scope, container, names["probabilities"], outputs[1:], _labels(est, options), dtype)


def _split(scope: Any, container: Any, P: str, outputs: list[str], labels: Any, dtype: str) -> None:
    """The probabilities as a sequence of maps, or as one output a class."""
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
    """The name of X, in the working dtype; several inputs are its columns."""
    number, to = _number(operator.inputs), onnx_model.library().helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    parts = [
        each.full_name if isinstance(each.type, number) else _add(scope, container, "Cast", [each.full_name], to=to)
        for each in operator.inputs
    ]
    return parts[0] if len(parts) == 1 else _add(scope, container, "Concat", parts, axis=1)


def _add(scope: Any, container: Any, kind: str, inputs: list[str], output: str = "", **settings: Any) -> str:
    """A node in skl2onnx's container, and what its output is called."""
    output = output or scope.get_unique_variable_name(kind)
    container.add_node(kind, inputs, [output], name=scope.get_unique_operator_name(kind), **settings)
    return output


def _parts(est: Any, options: dict[str, Any]) -> onnx_model.Parts:
    found = conversion.parts(est)._replace(column=True, raw=options["raw_scores"])
    if found.classes is None:
        return found
    if found.raw and len(found.classes) == 2 and not found.one_label:  # one score, as `decision_function` has it
        pairs = conversion.one_column(list(found.pairs))
        found = found._replace(pairs=pairs, loss=losses.binary_cross_entropy(), one_label=True)
    return found._replace(classes=_labels(est, options))


def _labels(est: Any, options: dict[str, Any]) -> Any:
    """What class numbers stand for: themselves where no class labels are asked for."""
    return np.arange(len(est.classes_)) if options["nocl"] else np.asarray(est.classes_)


def _keys(labels: Any) -> list[Any]:
    return [str(each) if onnx_model.are_texts(labels) else int(each) for each in labels]


def _options(est: Any, holder: Any) -> dict[str, Any]:
    return {**DEFAULTS, **(holder.get_options(est, fail=False) or {})}


def _number(inputs: Any) -> Any:
    """skl2onnx's type of what is computed: double where an input is."""
    double = _types().DoubleTensorType
    return double if any(isinstance(each.type, double) for each in inputs) else _types().FloatTensorType


def _label_type(labels: Any) -> Any:
    return _types().StringTensorType if onnx_model.are_texts(labels) else _types().Int64TensorType


def _holds_maps(variable: Any) -> bool:
    return isinstance(variable.type, _types().SequenceType)


def _is_ours(kind: type) -> bool:
    return bool(_table()[kind] == _alias(kind))


def _alias(kind: type) -> str:
    return f"dlx.{kind.__qualname__}"


def _table() -> Any:
    return importlib.import_module("skl2onnx._supported_operators").sklearn_operator_name_map


def _types() -> Any:
    return importlib.import_module("skl2onnx.common.data_types")
