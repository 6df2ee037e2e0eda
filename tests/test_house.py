"""The house rules of DESIGN section 3, read from the syntax trees: who may import whom, and who may know a name."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (  # a file imports only from its own room and those above it
    {"display", "version", "checks", "nearest", "backend", "nesting", "interrupts", "files", "streams"}
    | {"labels", "columns", "host", "placement"},
    {"saving"},
    {"activations", "losses", "initializers", "schedules", "metrics", "sparse"},
    {"data", "targets", "dropout", "parameters", "gaps"},
    {"network"},
    {"optimizers", "quasi_newton", "scoring", "storage"},
    {"descriptions", "views"},
    {"contents"},
    {"steps", "divergence", "epochs", "training", "stopping"},
    {"arguments", "evidence", "diagnosis", "ranges"},
    {"memory"},
    {"export"},
    {"model"},
    {"identity", "progress", "inspection", "attempts"},
    {"checkpoints"},
    {"fitting", "article", "selftest", "sequential"},
    {"estimator_callbacks", "estimator_data", "estimator_settings", "estimator_pickles", "conversion"},
    {"onnx_hooks"},
    {"estimator_watch"},
    {"estimator_base"},
    {"estimators"},
    {"learning_rates", "plot_data", "plot_layout"},
    {"plot"},
    {"__init__", "__main__"},
)
FLOOR = {name: floor for floor, room in enumerate(ROOMS) for name in room}
HOST_WORK = ["backend", "initializers", "data", "targets", "saving", "training", "arguments", "model", "article"]
HOST_WORK += [
    "selftest",
    "fitting",
    "scoring",
    "steps",
    "divergence",
    "epochs",
    "descriptions",
    "contents",
    "checkpoints",
    "identity",
    "progress",
    "inspection",
    "export",
    "evidence",
    "diagnosis",
    "sparse",
    "parameters",
    "gaps",
    "nesting",
    "labels",
    "columns",
    "host",
    "ranges",
]
WITH_SKLEARN = ["estimator_base", "estimator_data", "estimator_settings", "estimator_callbacks", "estimator_watch"]
WITH_SKLEARN += ["estimators", "conversion", "onnx_hooks"]  # none of them is imported before its names are asked for
HOST_WORK += ["estimator_watch"]
HOST_WORK += ["estimator_base", "estimator_data", "estimator_settings", "estimator_pickles", "estimators", "conversion"]
GUESTS = {name: {"numpy"} for name in HOST_WORK}  # what may be imported beside the standard library and dlx
GUESTS |= {"learning_rates": {"numpy"}, "plot_data": {"numpy"}, "plot": {"numpy", "matplotlib"}}
GUESTS["backend"] |= {"array_api_compat"}
GUESTS["display"] = {"tqdm"}  # when a bar is asked for
GUESTS["export"] |= {"onnx"}
GUESTS["onnx_hooks"] = {"numpy", "skl2onnx"}  # the latter when it asks
for name in WITH_SKLEARN:
    GUESTS[name] = GUESTS.get(name, set()) | {"sklearn"}
LIBRARIES = {"_strict": {"array_api_strict"}, "_numpy": {"threadpoolctl", "numba"}, "_torch_modules": {"torch"}}
# otherwise _torch: torch and so on
LIBRARY = re.compile(r"(numpy|cupy|torch|jax|dask|strict|array_api_strict|dpnp|sparse|ndonnx)(:.*)?")
MOST_LINES = 300

FILES = sorted([*ROOT.glob("dlx/*.py"), *ROOT.glob("backends/*.py")])
NAMES = {*FLOOR, "backends", *(path.stem for path in FILES)}


def imports(tree):
    """Every module that is imported: by a statement anywhere, or by its name as a string."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                yield from (f"dlx.backends.{node.module or ''}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def rooms(tree):
    """The files of dlx/ that are imported."""
    for module in imports(tree):
        match module.split("."):
            case ["dlx", name, *_]:
                yield name if name in NAMES else "__init__"
            case ["dlx"]:
                yield "__init__"


def asks_for_a_library(node):
    """Whether the code branches on which library it runs on."""
    match node:
        case ast.Compare():
            inner = (constant for side in [node.left, *node.comparators] for constant in ast.walk(side))
            return any(isinstance(c, ast.Constant) and LIBRARY.fullmatch(str(c.value)) for c in inner)
        case ast.MatchValue(value=ast.Constant(value=value)):
            return bool(LIBRARY.fullmatch(str(value)))
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.startswith("is_") and bool(LIBRARY.fullmatch(name[3:].partition("_")[0]))
    return False


def docstring_lines(tree):
    """How many lines are docstrings, whose equations and sources may take the room they need."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [node.body[0] for node in ast.walk(tree) if isinstance(node, owners) and ast.get_docstring(node)]
    return sum(text.end_lineno - text.lineno + 1 for text in texts)


def violations(folder, name, source):
    """The rules that the file `folder`/`name`.py breaks, in words."""
    tree, found = ast.parse(source), []
    foreign = {module.partition(".")[0] for module in imports(tree)} - sys.stdlib_module_names - {"dlx"}
    if (lines := source.count("\n") - docstring_lines(tree)) > MOST_LINES:
        found.append(f"{lines} lines")
    if folder == "backends":
        foreign -= {"numpy"} | LIBRARIES.get(name, {name.removeprefix("_")})
        found += [f"imports dlx.{room}" for room in rooms(tree) if room not in ("backend", "backends")]
    else:
        foreign -= GUESTS.get(name, set())
        here = FLOOR.get(name, -1)
        found += [f"imports dlx.{room}" for room in rooms(tree) if FLOOR.get(room, len(ROOMS)) > here]
        found += [f"asks for a library: line {n.lineno}" for n in ast.walk(tree) if asks_for_a_library(n)]
        found += [] if name in FLOOR else ["has no room: give it one in ROOMS"]
    return found + [f"imports {module}" for module in sorted(foreign)]


def cycle(graph):
    """Names that import each other in a ring, [] if there are none."""
    left = {name: set(needs) - {name} for name, needs in graph.items()}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        left = {name: needs for name, needs in left.items() if name not in free}
    return sorted(left)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_keeps_the_house_rules(path):
    assert violations(path.parent.name, path.stem, path.read_text("utf-8")) == []


def test_no_two_files_import_each_other():
    graph = {path.stem: set(rooms(ast.parse(path.read_text("utf-8")))) for path in ROOT.glob("dlx/*.py")}
    assert cycle(graph) == []
    assert {"dropout", "losses"} <= graph["network"]  # the graph is not empty


@pytest.mark.parametrize(
    ("folder", "name", "source", "expected"),
    [
        ("dlx", "losses", "from dlx import network", ["imports dlx.network"]),
        ("dlx", "losses", "def f():\n    from dlx.model import Network", ["imports dlx.model"]),
        ("dlx", "losses", "import dlx.network as n", ["imports dlx.network"]),
        ("dlx", "losses", "import dlx", ["imports dlx.__init__"]),
        ("dlx", "losses", "from dlx import fit", ["imports dlx.__init__"]),
        ("dlx", "losses", "from dlx import activations", []),
        ("dlx", "losses", "import numpy as np", ["imports numpy"]),
        ("dlx", "data", "import numpy as np", []),
        ("dlx", "data", "if True:\n    import torch", ["imports torch"]),
        ("dlx", "data", "from jax import numpy", ["imports jax"]),
        ("dlx", "data", "m = importlib.import_module('cupy')", ["imports cupy"]),
        ("dlx", "data", "from array_api_compat import device", ["imports array_api_compat"]),
        ("dlx", "backend", "from array_api_compat import device", []),
        ("dlx", "model", "import dlx.backends._numpy", ["imports dlx.backends"]),
        ("dlx", "model", "from dlx.backends import _numpy", ["imports dlx.backends"]),
        ("dlx", "model", "from backends import _numpy", ["imports backends"]),
        ("dlx", "model", "if backend == 'cupy': pass", ["asks for a library: line 1"]),
        ("dlx", "model", "x = 1\ny = be.name in ('numpy', 'torch')", ["asks for a library: line 2"]),
        ("dlx", "model", "match be.selector:\n    case 'torch:cpu': pass", ["asks for a library: line 2"]),
        ("dlx", "model", "x = compat.is_torch_array(y)", ["asks for a library: line 1"]),
        ("dlx", "model", "x = backend is None or kind == 'classes'", []),
        ("dlx", "model", "x = 1\n" * 301, ["301 lines"]),
        ("dlx", "model", "x = 1\n" * 300, []),
        ("dlx", "model", '"""One\n\ntwo."""\n' + "x = 1\n" * 300, []),
        ("dlx", "attic", "x = 1", ["has no room: give it one in ROOMS"]),
        ("backends", "_torch", "import torch\nimport numpy\nfrom dlx.backend import Backend\nfrom . import a", []),
        ("backends", "_torch", "import jax", ["imports jax"]),
        ("backends", "_torch", "from dlx import checks", ["imports dlx.checks"]),
        ("backends", "_strict", "import array_api_strict", []),
    ],
)
def test_a_planted_violation_is_found(folder, name, source, expected):
    assert violations(folder, name, source) == expected


def test_a_planted_ring_is_found():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == ["a", "b", "c"]


def test_importing_dlx_imports_no_array_library_but_numpy():
    code = (
        "import json, sys, dlx; first = list(sys.modules); be = dlx.get_backend('numpy');"
        "print(json.dumps([first, list(sys.modules)]))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, then = ({name.partition(".")[0] for name in names} for names in json.loads(run.stdout))
    others = {"cupy", "torch", "jax", "array_api_strict", "dask", "scipy", "sklearn", "pandas", "matplotlib"}
    others |= {"onnx"}
    assert "numpy" in first
    assert not first & others
    assert not then & others
    assert "backends" not in then  # importable by accident from the repository's root, where this ran
    assert importlib.util.find_spec("dlx.backends._numpy")
