"""The README's Python snippets run, and what they are said to print is what they print."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```\n+(?:```text\n(.*?)^```)?", README.read_text(), flags=re.M | re.S)
NEEDS = {
    "dlx.plot": "matplotlib",
    "torch": "torch",
    "jax": "jax",
    "sklearn": "sklearn",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
}


def runnable(snippet):
    return all(importlib.util.find_spec(module) for word, module in NEEDS.items() if word in snippet)


def test_there_are_snippets_with_output():
    assert sum(bool(output) for _, output in SNIPPETS) >= 2


@pytest.mark.parametrize(("snippet", "output"), [pair for pair in SNIPPETS if pair[1] and runnable(pair[0])])
def test_snippet_prints_what_the_readme_says(snippet, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet, "README.md", "exec"), {})
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
