"""examples/README.md is what examples/gallery.py writes: of the examples as they are, without running them."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
README = (EXAMPLES / "README.md").read_text("utf-8")
spec = importlib.util.spec_from_file_location("gallery", EXAMPLES / "gallery.py")
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


def test_the_page_is_what_the_command_writes_from_the_docstrings():
    assert gallery.page(gallery.recorded(README)) == README  # else: python examples/gallery.py


def test_every_example_has_an_entry():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"gallery"}
    assert sorted(gallery.EXAMPLES) == sorted(gallery.recorded(README)) == sorted(scripts)


@pytest.mark.parametrize("name", gallery.EXAMPLES)
def test_an_entry_is_of_the_example_as_it_is(name):
    sealed, output = gallery.recorded(README)[name]
    assert sealed == gallery.seal(name, output)  # else: python examples/gallery.py NAME
    assert output.count("\n") >= 3
    title, command, *explanation = gallery.docstring(name).split("\n\n")
    assert re.fullmatch(r"[^:\n]+: [^\n]+\.", title)
    assert command.startswith(f"    python examples/{name}.py  ")
    assert 1 <= sum(paragraph.count("\n") + 1 for paragraph in explanation) <= 10


@pytest.mark.parametrize("name", gallery.EXAMPLES)
def test_its_picture_is_small(name):
    content = (EXAMPLES / "images" / f"{name}.png").read_bytes()
    assert len(content) < 80_000
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(content[16:20]) == 600  # pixels across


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert {"scikit_learn.md", "fashion_mnist.md"} < set(links)
    assert [link for link in links if not (EXAMPLES / link).is_file()] == []


def test_code_output_and_picture_are_sealed_and_the_docstring_is_not(copied):
    path, picture = gallery.HERE / "digits.py", gallery.HERE / "images" / "digits.png"
    before = gallery.seal("digits", "1\n")
    path.write_text(path.read_text("utf-8").replace("Handwritten", "Handmade"), "utf-8")
    assert gallery.seal("digits", "1\n") == before
    seals = {before, gallery.seal("digits", "2\n")}
    path.write_text(path.read_text("utf-8") + "print(1)\n", "utf-8")
    seals.add(gallery.seal("digits", "1\n"))
    picture.write_bytes(picture.read_bytes() + b"1")
    seals.add(gallery.seal("digits", "1\n"))
    assert len(seals) == 4


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the examples, whose docstrings are all that is left: each prints its name and where it draws."""
    monkeypatch.setattr(gallery, "HERE", tmp_path / "examples")
    shutil.copytree(EXAMPLES, gallery.HERE)
    for name in gallery.EXAMPLES:
        code = (
            f"import sys\nprint('by {name}')\nopen(sys.argv[2], 'wb').write(b'drawn')\nprint('picture:', sys.argv[2])\n"
        )
        (gallery.HERE / f"{name}.py").write_text(f'"""{gallery.docstring(name)}\n"""\n\n{code}', "utf-8")


def written(monkeypatch, *options):
    """What is recorded in the page that the command writes."""
    monkeypatch.setattr(sys, "argv", ["gallery.py", *options])
    gallery.main()
    return gallery.recorded((gallery.HERE / "README.md").read_text("utf-8"))


def test_the_command_runs_what_is_named_and_keeps_the_rest(copied, monkeypatch):
    found, before = written(monkeypatch, "digits", "article"), gallery.recorded(README)
    assert found.keys() == before.keys()
    for name in gallery.EXAMPLES:
        picture = (gallery.HERE / "images" / f"{name}.png").read_bytes()
        if name in ("digits", "article"):
            assert found[name] == (gallery.seal(name, f"by {name}\n"), f"by {name}\n")
            assert picture == b"drawn"
        else:
            assert found[name] == before[name]
            assert picture == (EXAMPLES / "images" / f"{name}.png").read_bytes()


@pytest.mark.parametrize("there", [True, False])
def test_fashion_mnist_is_run_only_where_its_data_are(copied, monkeypatch, there):
    monkeypatch.setattr(gallery, "has_fashion_mnist", lambda: there)
    run = [name for name, (_, output) in written(monkeypatch).items() if output == f"by {name}\n"]
    assert run == [name for name in gallery.EXAMPLES if there or name != "fashion_mnist"]


def test_a_name_that_is_none_of_them_is_refused(copied, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        written(monkeypatch, "digits", "digit")
    assert "there is no example digit\n" in capsys.readouterr().err
    assert (gallery.HERE / "README.md").read_text("utf-8") == README
