"""Unknown argument names, and the known name that a user of another library probably means by each."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from dlx import checks

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
SYNONYMS = tuple(  # names in other libraries; where a function has several names of a line, its first one is meant
    tuple(line.split())
    for line in (
        "learning_rate_init learning_rate lr lr_rate rate step_size stepsize eta eta0 base_lr max_lr lr_init",
        "layer_dims hidden_layer_sizes layer_sizes hidden_sizes hidden_dims hidden_units hidden layers dims sizes",
        "epochs max_iter num_iterations epoch n_epochs nb_epoch num_epochs max_epochs n_iter n_iterations iterations",
        "l2 alpha weight_decay l2_reg reg_lambda lambda_ lam regularization kernel_regularizer penalty reg",
        "optimizer solver optim algorithm",
        "rng random_state seed random_seed manual_seed key generator",
        "validation early_stopping_data validation_split validation_data validation_fraction eval_set val val_split",
        "patience n_iter_no_change early_stopping early_stop early_stopping_rounds",
        "backend device accelerator library xp",
        "activation hidden_activation activation_function nonlinearity act act_fn",
        "loss criterion objective loss_function loss_fn cost cost_function",
        "batch_size batch bs minibatch minibatch_size mini_batch_size chunk_size",
        "clip_norm clipnorm global_clipnorm max_grad_norm gradient_clip gradient_clip_val grad_clip max_norm",
        "clip_value clipvalue grad_clip_value",
        "init initializer kernel_initializer weight_init weights_init init_params initial_params params",
        "verbose print_cost progress progress_bar show_progress disp quiet silent verbosity print_every",
        "callbacks callback hooks listeners on_epoch_end on_epoch",
        "dtype precision float_type",
        "sample_weight sample_weights weights weight w",
        "class_weight class_weights pos_weight scale_pos_weight",
        "checkpoint checkpoint_dir checkpoint_path checkpoints ckpt save_dir save_path",
        "dropout dropout_rate drop_rate p_drop keep_prob",
        "X x_train inputs data features",
        "y y_train targets labels target",
        "b1 beta_1 beta1",
        "b2 beta_2 beta2",
        "eps epsilon",
    )
)
NOTES = {  # by (unknown name, known name): how the two differ in meaning
    ("alpha", "l2"): " scikit-learn's alpha, divided by the number of rows, is l2.",
    ("weight_decay", "l2"): " Weight decay apart from the gradient is optimizer=dlx.adamw(weight_decay=0.01).",
    ("weight_decay", "alpha"): " Weight decay apart from the gradient is solver=dlx.adamw(weight_decay=0.01).",
    ("validation_split", "validation"): " 0.1 holds out a tenth of the rows.",
    ("validation_data", "validation"): " It takes (X_val, y_val).",
    ("eval_set", "validation"): " It takes (X_val, y_val).",
    ("early_stopping", "patience"): " patience=10, for example, with validation=0.1.",
    ("device", "backend"): " It names library and device: 'torch:cuda', for example.",
    ("hidden_layer_sizes", "layer_dims"): " It holds the inputs' and the outputs' widths too.",
    ("validation_data", "validation_fraction"): " Rows of your own go to the method fit, as X_val and y_val.",
    ("patience", "n_iter_no_change"): " It counts with early_stopping=True.",
    ("keep_prob", "dropout"): " It is the share that is dropped, 1 - keep_prob.",
}
OF_OPTIMIZERS = {"momentum": "momentum(beta=0.9)", "nesterov": "nesterov(beta=0.9)", "nesterovs_momentum": "nesterov()"}
OF_OPTIMIZERS |= dict.fromkeys(("betas", "beta_1", "beta_2", "b1", "b2", "beta1", "beta2"), "adam(b1=0.9, b2=0.999)")
OF_OPTIMIZERS |= dict.fromkeys(("eps", "epsilon"), "adam(eps=1e-8)")


def closed(function: Decorated) -> Decorated:
    """Hide ``**unknown`` from the signature of a function that only takes it to explain unknown names.

    The default of `layer_dims` is hidden too: it only serves callers who pass the widths by another name.
    """
    signature, empty = inspect.signature(function), inspect.Parameter.empty
    shown = [
        parameter for parameter in signature.parameters.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    shown = [parameter.replace(default=empty) if parameter.name == "layer_dims" else parameter for parameter in shown]
    vars(function)["__signature__"] = signature.replace(parameters=shown)
    return function


def refuse(unknown: Mapping[str, object], function: str, *takes: Callable[..., Any]) -> None:
    """Raise if a name in `unknown` is no argument of `function`, which has the arguments of all of `takes`."""
    known = [name for taker in takes for name in inspect.signature(taker).parameters if name != "self"]
    for name, value in unknown.items():
        if name in known:
            continue
        meant, remedy = meant_by(name, known), f"Its arguments are those that help(dlx.{function}) lists."
        if meant is not None:
            remedy = f"Did you mean {meant}?{NOTES.get((name, meant), '')}"
        if name in OF_OPTIMIZERS and "optimizer" in known:
            remedy = f"It is a setting of the optimizer: optimizer=dlx.{OF_OPTIMIZERS[name]}, for example."
        checks.reject(name, f"be an argument of {function}", f"{name}={checks.shown(value)}", remedy, TypeError)


def meant_by(name: str, known: Iterable[str]) -> str | None:
    """The `known` name that means the same as `name` or is spelt like it; None if there is none."""
    own = {argument: argument for argument in known if argument != "self"}
    spelt = {argument.lower(): argument for argument in own}
    for line in SYNONYMS:
        meant = [synonym for synonym in line if synonym in own]
        spelt |= {synonym.lower(): meant[0] for synonym in line if meant and synonym.lower() not in spelt}
    near = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.75)
    return spelt[near[0]] if near else None


def hook(name: str) -> str:
    """The event of `fit` that is nearest to the event that another library calls `name`."""
    if any(part in name for part in ("epoch", "batch", "step", "valid", "iter", "improve")):
        return "on_epoch_end"
    return "on_start" if any(part in name for part in ("begin", "start", "init", "setup")) else "on_end"
