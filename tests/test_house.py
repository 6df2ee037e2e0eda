"""The rules of the house, read from the syntax trees: who may import whom, and who may know a name."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (  # a file imports only from its own floor and those above it in this list; a folder is one room
    "version checks nearest host nesting backend",
    "activations links losses initializers schedules dropout metrics",
    "network optimizers quasi_newton",
    "data",
    "scoring training",
    "files report interchange",
    "model warm_start fitting article",
    "estimators onnx_hooks learning_rates selftest",
    "plot",
    "__init__ __main__",
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
EQUATIONS = {*FLOORS[1].split(), *FLOORS[2].split()}
GUESTS = {  # what may be imported beside the standard library and dlx; by a room that is not named here, NumPy
    **{name: set() for name in (*EQUATIONS, "version", "checks", "nearest", "__init__", "__main__")},
    "initializers": {"numpy"},
    "backend": {"numpy", "array_api_compat"},
    "training": {"numpy", "tqdm"},  # when a bar is asked for
    "interchange": {"numpy", "onnx"},
    "estimators": {"numpy", "sklearn", "skl2onnx"},  # the latter when it asks
    "plot": {"numpy", "matplotlib"},
}
LIBRARIES = {
    "_strict": {"array_api_strict"},
    "_numpy": {"threadpoolctl", "numba"},
    **{name: {"torch"} for name in ("_torch_graph", "_torch_modules", "_torch_precision", "_torch_recorder")},
    **{name: {"cupy"} for name in ("_cupy_blas", "_cupy_capture", "_cupy_graph", "_cupy_kernels", "_cupy_staging")},
}
# otherwise _torch: torch and so on
LIBRARY = re.compile(r"(numpy|cupy|torch|jax|dask|strict|array_api_strict|dpnp|sparse|ndonnx)(:.*)?")
MOST_LINES = 300  # of a file, without docstrings
MOST_IN_A_FUNCTION = 80  # lines, without its docstring
MOST_IN_FIT = 60
MOST_AT_THE_TOP = 16  # files of dlx/ that are no equations

ROWS = {  # what the one door for rows, dlx/data/samples.py, puts together, and nobody else
    "features": {"features", "unplaced"},
    "targets": {"check", "weights", "place", "to_mean_one", "split", "class_numbers", "require_fit"},
}

FILES = sorted([*ROOT.glob("dlx/**/*.py"), *ROOT.glob("backends/*.py")])
FOLDERS = sorted(path.parent for path in ROOT.glob("dlx/*/__init__.py"))


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


def files(tree):
    """The files of dlx/ that are imported, as "data/features" or "losses"; a room by its own name."""
    for module in imports(tree):
        parts = module.split(".")
        if parts[0] != "dlx":
            continue
        names = parts[1:] or ["__init__"]
        if names[0] not in FLOOR:
            yield names[0] if names[0] == "backends" else "__init__"
        elif (ROOT / "dlx" / names[0]).is_dir() and len(names) > 1:
            yield f"{names[0]}/{names[1]}" if (ROOT / "dlx" / names[0] / f"{names[1]}.py").exists() else names[0]
        else:
            yield names[0]


def room_of(file):
    """The room of "data/features" is "data"."""
    return file.partition("/")[0]


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


def makes_rows(tree):
    """The parts of rows that are used, as "targets.check"."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=file), attr=part) if part in ROWS.get(file, ()):
                yield f"{file}.{part}"
            case ast.ImportFrom(module=module) if (file := (module or "").removeprefix("dlx.data.")) in ROWS:
                yield from (f"{file}.{alias.name}" for alias in node.names if alias.name in ROWS[file])


def asks_a_kind(tree, file):
    """Questions that an optimizer or a loss answers by itself: which optimizer it is, which targets it takes."""
    knows_optimizers = file in ("optimizers", "quasi_newton", "training/arguments")
    knows_targets = file == "losses" or room_of(file) == "data"
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, kind]) if not knows_optimizers:
                names = {
                    each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in ast.walk(kind)
                }
                if names & {"LBFGS", "Optimizer", "AnyOptimizer"}:
                    yield f"asks which optimizer it is: line {node.lineno}"
            case ast.Attribute(attr="targets") if not knows_targets:
                yield f"asks which targets a loss takes: line {node.lineno}"


def docstring_lines(tree):
    """How many lines are docstrings, whose equations and sources may take the room they need."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [node.body[0] for node in ast.walk(tree) if isinstance(node, owners) and ast.get_docstring(node)]
    return sum(text.end_lineno - text.lineno + 1 for text in texts)


def functions(tree):
    """The name of every function, and how many lines it has without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            text = node.body[0] if ast.get_docstring(node) else None
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            documented = 0 if text is None else text.end_lineno - text.lineno + 1
            yield node.name, node.end_lineno - first + 1 - documented


def code_lines(source):
    """Number and text of every line but those of docstrings, imports and comments, and empty ones."""
    tree = ast.parse(source)
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    left_out = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    left_out += [node.body[0] for node in ast.walk(tree) if isinstance(node, owners) and ast.get_docstring(node)]
    numbers = {number for node in left_out for number in range(node.lineno, node.end_lineno + 1)}
    lines = ((number, line.strip()) for number, line in enumerate(source.splitlines(), 1) if number not in numbers)
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def repeated(sources, most=5):
    """Where more than `most` lines of code in a row stand twice: the places of each such run."""
    places = {}
    for name, source in sources.items():
        lines = code_lines(source)
        for k in range(len(lines) - most):
            run = tuple(line for _, line in lines[k : k + most + 1])
            places.setdefault(run, []).append((name, lines[k][0]))
    return [where for where in places.values() if len(where) > 1]


def violations(place, source):
    """The rules that the file at `place` ("dlx/data/features", "backends/_numpy") breaks, in words."""
    tree, found = ast.parse(source), []
    folder, _, file = place.partition("/")
    room = room_of(file)
    foreign = {module.partition(".")[0] for module in imports(tree)} - sys.stdlib_module_names - {"dlx"}
    if (lines := source.count("\n") - docstring_lines(tree)) > MOST_LINES:
        found.append(f"{lines} lines")
    found += [f"{name} has {lines} lines" for name, lines in functions(tree) if lines > MOST_IN_A_FUNCTION]
    if folder == "backends":
        foreign -= {"numpy"} | LIBRARIES.get(file, {file.removeprefix("_")})
        found += [f"imports dlx.{name}" for name in files(tree) if name not in ("backend", "backends")]
    else:
        foreign -= GUESTS.get(room, {"numpy"})
        here = FLOOR.get(room, -1)
        above = [name for name in files(tree) if FLOOR.get(room_of(name), len(FLOORS)) > here]
        found += [f"imports dlx.{name.replace('/', '.')}" for name in above]
        found += [f"asks for a library: line {n.lineno}" for n in ast.walk(tree) if asks_for_a_library(n)]
        found += asks_a_kind(tree, file)
        found += [f"makes rows by {part}" for part in makes_rows(tree) if file != "data/samples"]
        found += [] if room in FLOOR else ["has no room: give it one in FLOORS"]
    return found + [f"imports {module}" for module in sorted(foreign)]


def cycle(graph):
    """Names that import each other in a ring, [] if there are none."""
    left = {name: set(needs) - {name} for name, needs in graph.items()}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        left = {name: needs for name, needs in left.items() if name not in free}
    return sorted(left)


def place_of(path):
    """ "dlx/data/features"."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("path", FILES, ids=place_of)
def test_keeps_the_house_rules(path):
    assert violations(place_of(path), path.read_text("utf-8")) == []


def test_no_two_files_import_each_other():
    trees = {place_of(path).partition("/")[2]: ast.parse(path.read_text("utf-8")) for path in ROOT.glob("dlx/**/*.py")}
    graph = {name.removesuffix("/__init__"): set(files(tree)) for name, tree in trees.items()}
    assert cycle(graph) == []
    assert {"dropout", "losses"} <= graph["network"]  # the graph is not empty
    assert "data/features" in graph["data/targets"]


def test_no_two_rooms_import_each_other():
    graph = {}
    for path in ROOT.glob("dlx/**/*.py"):
        place = place_of(path).partition("/")[2]
        graph.setdefault(room_of(place), set()).update(map(room_of, files(ast.parse(path.read_text("utf-8")))))
    assert cycle(graph) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_says_who_lives_there(folder):
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
    assert "may import" in said
    assert [path.stem for path in sorted(folder.glob("[!_]*.py")) if not re.search(rf"\b{path.stem}\b", said)] == []


def test_no_six_lines_stand_twice():
    """But for the two estimators' signatures, which editors read without running them."""
    sources = {place_of(path): path.read_text("utf-8") for path in FILES}
    assert [where for where in repeated(sources) if {name for name, _ in where} != {"dlx/estimators/mlp"}] == []


def test_a_planted_repetition_is_found():
    body = "".join(f"    x{k} = {k}\n" for k in range(6))
    sources = {"a": f"def f():\n{body}", "b": f'def g():\n    """Another."""\n{body}    return x1\n'}
    assert repeated(sources) == [[("a", 2), ("b", 3)]]
    assert repeated(sources, most=6) == []


def test_fit_fits_a_screen():
    tree = ast.parse((ROOT / "dlx/fitting.py").read_text("utf-8"))
    assert dict(functions(tree))["fit"] <= MOST_IN_FIT


def test_the_top_of_the_house_is_what_a_user_types():
    assert len({path.stem for path in ROOT.glob("dlx/*.py")} - EQUATIONS) <= MOST_AT_THE_TOP


def test_every_folder_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(
        ["dlx", "dlx.backends", *(f"dlx.{folder.name}" for folder in FOLDERS)]
    )


@pytest.mark.parametrize(
    ("place", "source", "expected"),
    [
        ("dlx/losses", "from dlx import network", ["imports dlx.network"]),
        ("dlx/losses", "def f():\n    from dlx.model import Network", ["imports dlx.model"]),
        ("dlx/losses", "import dlx.network as n", ["imports dlx.network"]),
        ("dlx/losses", "import dlx", ["imports dlx.__init__"]),
        ("dlx/losses", "from dlx import fit", ["imports dlx.__init__"]),
        ("dlx/losses", "from dlx import activations", []),
        ("dlx/losses", "import numpy as np", ["imports numpy"]),
        ("dlx/data/features", "import numpy as np", []),
        ("dlx/data/features", "if True:\n    import torch", ["imports torch"]),
        ("dlx/data/features", "from jax import numpy", ["imports jax"]),
        ("dlx/data/features", "m = importlib.import_module('cupy')", ["imports cupy"]),
        ("dlx/data/features", "from array_api_compat import device", ["imports array_api_compat"]),
        ("dlx/backend", "from array_api_compat import device", []),
        ("dlx/model", "import dlx.backends._numpy", ["imports dlx.backends"]),
        ("dlx/model", "from dlx.backends import _numpy", ["imports dlx.backends"]),
        ("dlx/model", "from backends import _numpy", ["imports backends"]),
        ("dlx/model", "if backend == 'cupy': pass", ["asks for a library: line 1"]),
        ("dlx/model", "x = 1\ny = be.name in ('numpy', 'torch')", ["asks for a library: line 2"]),
        ("dlx/model", "match be.selector:\n    case 'torch:cpu': pass", ["asks for a library: line 2"]),
        ("dlx/model", "x = compat.is_torch_array(y)", ["asks for a library: line 1"]),
        ("dlx/model", "x = backend is None or kind == 'classes'", []),
        ("dlx/model", "x = 1\n" * 301, ["301 lines"]),
        ("dlx/model", "x = 1\n" * 300, []),
        ("dlx/model", '"""One\n\ntwo."""\n' + "x = 1\n" * 300, []),
        ("dlx/data/gaps", "from dlx.training import steps", ["imports dlx.training.steps"]),
        ("dlx/data/gaps", "from dlx.training.steps import Task", ["imports dlx.training.steps"]),
        ("dlx/data/gaps", "from dlx.data import features\nfrom dlx.losses import Loss", []),
        ("dlx/training/steps", "import sklearn", ["imports sklearn"]),
        ("dlx/estimators/base", "import sklearn\nfrom dlx.files import schema", []),
        ("dlx/model", "def f():\n" + "    x = 1\n" * 80, ["f has 81 lines"]),
        ("dlx/data/samples", "from dlx.data import targets\ntargets.check(y)", []),
        ("dlx/fitting", "from dlx.data import targets\nx = targets.check(y)", ["makes rows by targets.check"]),
        ("dlx/plot/figures", "from dlx.data.targets import place, on_host", ["makes rows by targets.place"]),
        ("dlx/model", "from dlx.data import features\nfeatures.unplaced(X)", ["makes rows by features.unplaced"]),
        ("dlx/fitting", "isinstance(x, quasi_newton.LBFGS)", ["asks which optimizer it is: line 1"]),
        ("dlx/training/loop", "\nisinstance(x, Optimizer | int)", ["asks which optimizer it is: line 2"]),
        ("dlx/training/arguments", "isinstance(x, quasi_newton.LBFGS)", []),
        ("dlx/model", "x = self.loss.targets", ["asks which targets a loss takes: line 1"]),
        ("dlx/data/gaps", "x = loss.targets", []),
        ("dlx/attic", "x = 1", ["has no room: give it one in FLOORS"]),
        ("backends/_torch", "import torch\nimport numpy\nfrom dlx.backend import Backend\nfrom . import a", []),
        ("backends/_torch", "import jax", ["imports jax"]),
        ("backends/_torch", "from dlx import checks", ["imports dlx.checks"]),
        ("backends/_strict", "import array_api_strict", []),
    ],
)
def test_a_planted_violation_is_found(place, source, expected):
    assert violations(place, source) == expected


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
