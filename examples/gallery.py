"""The gallery: runs every example, and writes README.md and images/ from what they say, print and draw.

    python examples/gallery.py                       # all; some 40 seconds, and as many for Fashion-MNIST
    python examples/gallery.py digits quantiles      # these, and the others stay as they are

An entry is the example's docstring, its output and its picture. Fashion-MNIST is run only where its data are.
"""

import argparse
import ast
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = (
    "digits",
    "learning_rate",
    "activations",
    "quantiles",
    "grid_search",
    "resume",
    "every_backend",
    "article",
    "fashion_mnist",
)
BEGINNING = """\
# Examples

Each is one file to be read from top to bottom. They need matplotlib and scikit-learn
(`pip install -e '.[examples]'`), take any backend (`--backend cupy`), and leave a picture in the folder they are
started from (`--picture PATH` puts it elsewhere). `python examples/gallery.py` runs them and writes this page: texts,
figures and pictures are theirs. The figures are from NumPy on an AMD EPYC with `OPENBLAS_NUM_THREADS=1` (Fashion-MNIST:
2), which is faster and steadier where other work uses the cores too: two threads of OpenBLAS wait for each other.
"""


def main():
    parser = argparse.ArgumentParser(description="Run the examples, and write README.md and images/ from them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(EXAMPLES)}")
    names = parser.parse_args().names or [name for name in EXAMPLES if name != "fashion_mnist" or has_fashion_mnist()]
    if unknown := set(names) - set(EXAMPLES):
        parser.error(f"there is no example {', '.join(sorted(unknown))}")
    readme = HERE / "README.md"
    said = recorded(readme.read_text("utf-8"))
    for name in EXAMPLES:
        print(f"{name}: {'runs' if name in names else 'stays as it is'}", flush=True)
        if name in names:
            output = run(name)
            said[name] = seal(name, output), output
    readme.write_text(page(said), "utf-8")


def has_fashion_mnist():
    from fashion_mnist import CACHE, DEBIAN

    return "FASHION_MNIST_DIR" in os.environ or DEBIAN.is_dir() or CACHE.is_dir()


def run(name):
    """What the example prints, but for where its picture is; that is put into images/ when all went well."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / f"{name}.png"
        settings = {"MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "2" if name == "fashion_mnist" else "1"}
        command = [sys.executable, HERE / f"{name}.py", "--picture", picture]
        done = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE, text=True, check=True)
        (HERE / "images" / picture.name).write_bytes(picture.read_bytes())
        return done.stdout.replace(f"picture: {picture}\n", "")


def seal(name, output):
    """A short hash of the example's code (but for the docstring), output and picture: they belong together."""
    source = (HERE / f"{name}.py").read_text("utf-8")
    code = source.replace(ast.get_docstring(ast.parse(source), clean=False), "", 1)
    picture = (HERE / "images" / f"{name}.png").read_bytes()
    return hashlib.sha256((code + output).encode() + picture).hexdigest()[:12]


def recorded(text):
    """By example the seal and the output that the page has."""
    entries = re.findall(r"^<!-- (\w+)\.py (\w+) -->\n.*?^```text\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return {name: (sealed, output) for name, sealed, output in entries}


def page(said):
    """README.md: an entry for each example, from its docstring and from what was recorded of it."""
    return "\n".join([BEGINNING, *(entry(name, *said[name]) for name in EXAMPLES if name in said)])


def entry(name, sealed, output):
    title, command, *paragraphs = docstring(name).split("\n\n")
    explanation = re.sub(r"\b\w+\.md\b", r"[\g<0>](\g<0>)", "\n\n".join(paragraphs))
    heading, _, alt = title.rstrip(".").partition(": ")
    return (
        f"## {heading}\n<!-- {name}.py {sealed} -->\n\n{alt[0].upper()}{alt[1:]}.\n\n{explanation}\n\n"
        f"```sh\n{textwrap.dedent(command)}\n```\n\n```text\n{output}```\n\n![{heading}: {alt}](images/{name}.png)\n"
    )


def docstring(name):
    return ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text("utf-8")))


if __name__ == "__main__":
    main()
