"""The Python snippets of the README and the guide run, and what they are said to print is what they print."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README, GUIDE = ROOT / "README.md", sorted(ROOT.glob("examples/guide/[0-9]*.md"))
PROSE = [README, *sorted(ROOT.glob("examples/**/*.md")), ROOT / "tests/benchmarks/README.md"]
SNIPPETS = [
    (page.name, snippet, output)
    for page in (README, *GUIDE)
    for snippet, output in re.findall(r"^```python\n(.*?)^```\n+(?:```text\n(.*?)^```)?", page.read_text(), re.M | re.S)
]
NEEDS = {
    "pandas": "pandas",
    "dlx.plot": "matplotlib",
    "torch": "torch",
    "jax": "jax",
    "sklearn": "sklearn",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
}


def runnable(snippet):
    return all(importlib.util.find_spec(module) for word, module in NEEDS.items() if word in snippet)


def test_every_page_has_snippets_with_output():
    with_output = {page for page, _, output in SNIPPETS if output}
    assert with_output == {"README.md", *(page.name for page in GUIDE)}
    assert [page.name[0] for page in GUIDE] == list("12345678")


def test_the_readme_is_short_and_its_commands_stand_first():
    text = README.read_text()
    assert len(text.split()) <= 1600
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S)
    assert [block.count("\n") for block in blocks] == [1, 1]  # each one command on one line


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [README, *GUIDE], ids=lambda page: page.name)
def test_lines_of_prose_are_short(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    assert [line for line in prose.splitlines() if len(line) > 100 and not line.startswith("|")] == []


@pytest.mark.parametrize(
    ("page", "snippet", "output"), [each for each in SNIPPETS if each[2] and runnable(each[1])], ids=lambda x: x[:20]
)
def test_snippet_prints_what_its_page_says(page, snippet, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet, page, "exec"), {})
    assert printed.getvalue().strip() == output.strip()


def test_what_the_table_says_of_scikit_learn():
    """Its other columns are from the peers' source and issues, which the README names."""
    neural_network = pytest.importorskip("sklearn.neural_network")
    for kind in (neural_network.MLPClassifier, neural_network.MLPRegressor):
        settings = kind().get_params()
        assert not {"dropout", "class_weight", "backend", "device"} & set(settings)
        with pytest.raises(ValueError, match="'activation' parameter"):
            kind(activation=["relu", "tanh"]).fit([[0.0], [1.0]], [0, 1])
        assert not []
    with pytest.raises(ValueError, match="'loss' parameter"):
        neural_network.MLPRegressor(loss=lambda Z, Y: (Z - Y) ** 2).fit([[0.0], [1.0]], [0, 1])
