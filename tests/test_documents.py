"""The code in README, CONTRIBUTING and the pages of the documentation runs, and so does every demo, shortened."""

from __future__ import annotations

import argparse
import ast
import doctest
import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
import typer

from icgn import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "RESULTS.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(text, id=f"{path}-{i}")
    for path in PAGES
    for i, text in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), flags=re.DOTALL))
]


@pytest.fixture
def run_file(tmp_path, monkeypatch):
    """Run a file as `python FILE ARGUMENTS` does, in this process, which has torch and deepinv loaded already."""

    def run(file: Path, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(file), *arguments])
        monkeypatch.syspath_prepend(str(file.parent))
        with torch.random.fork_rng(devices=[]):
            runpy.run_path(str(file), run_name="__main__")

    monkeypatch.chdir(tmp_path)
    yield run
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("code", BLOCKS)
def test_code_in_documents_runs(code, tmp_path, run_file):
    """Whole photographs are cut to pieces that take seconds."""
    (tmp_path / "block.py").write_text(re.sub(r"\.image(?=\s)", ".image[:, 100:196, 180:276]", code))
    run_file(tmp_path / "block.py")


@pytest.mark.parametrize(
    "module",
    [
        "icgn.compat.arguments",
        "icgn.datasets.camera",
        "icgn.datasets.noise",
        "icgn.pictures.noise",
        "icgn.pictures.noise_words",
        "icgn.pictures.picture",
        "icgn.pictures.tensors",
        "icgn.regularizers.checks",
        "icgn.regularizers.latent",
        "icgn.regularizers.ridge",
        "icgn.regularizers.volume",
        "icgn.solvers.solve",
        "icgn.uncertainty.intervals",
        "icgn.uncertainty.langevin",
        "icgn.uncertainty.region",
        "icgn.uncertainty.sampling",
    ],
)
def test_examples_in_docstrings(module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted and not results.failed


def test_every_module_with_examples_is_tested():
    (marks,) = test_examples_in_docstrings.pytestmark
    folders = [p.parent for p in ROOT.glob("*/__init__.py") if p.parent.name != "tests"]
    files = [p.relative_to(ROOT) for folder in folders for p in folder.rglob("*.py") if "    >>> " in p.read_text()]
    found = {".".join(("icgn", *file.with_suffix("").parts)) for file in files}
    assert found == set(marks.args[1])


@pytest.mark.slow
@pytest.mark.parametrize("demo", sorted(p.name for p in (ROOT / "demos").glob("*.py")))
def test_demos_run(demo, tmp_path, run_file, capsys):
    run_file(ROOT / "demos" / demo, str(tmp_path), "--quick")
    assert capsys.readouterr().out and list(tmp_path.glob("*.png"))


def command_lines(text: str) -> list[str]:
    """The command lines of a page, `icgn ...` and `python ...`: of its blocks of code, and those within sentences."""
    blocks = re.findall(r"^(?:    |\$ )?((?:icgn|python) [^\n]*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    inline = re.findall(r"`((?:icgn|python) [^`]*)`", text)
    return [line for line in dict.fromkeys([*blocks, *inline]) if re.match(r"icgn [a-z]|python (-m icgn |\w+/)", line)]


class ParsedError(Exception):
    """The arguments of a script were understood; it ends here."""


@pytest.fixture
def parse(run_file, monkeypatch):
    """Let the command or the script of a command line parse its words, without running it."""

    def command(name: str, made: Any, words: list[str]) -> None:
        context = made.make_context(name, list(words))
        if hasattr(made, "resolve_command"):
            chosen, inner, rest = made.resolve_command(context, words)
            if rest:  # otherwise a sentence names the command
                inner.make_context(chosen, rest, parent=context)

    def run(function: Any) -> None:
        app = typer.Typer()
        app.command()(function)
        command("script", typer.main.get_command(app), sys.argv[1:])
        raise ParsedError

    def parse_args(self: argparse.ArgumentParser, *arguments: Any) -> None:
        self.allow_abbrev = False
        real(self, *arguments)
        raise ParsedError

    def line(text: str) -> None:
        program, *words = shlex.split(text, comments=True)
        if program == "icgn" or words[:2] == ["-m", "icgn"]:
            command("icgn", typer.main.get_command(cli.app), words if program == "icgn" else words[2:])
            return
        with pytest.raises(ParsedError):
            run_file(ROOT / words[0], *words[1:])

    real = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(typer, "run", run)
    return line


@pytest.mark.parametrize("path", PAGES)
def test_command_lines_in_documents_are_understood(path, parse):
    for line in command_lines((ROOT / path).read_text()):
        try:
            parse(line)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{path}: {line}") from error


def test_wrong_command_lines_are_found(parse):
    page = """
        text of a list, not a command
    icgn denoise in.png -o out.png --sigma 25
    icgn denoize in.png -o out.png
    icgn denoise in.png -o out.png --sigme 25
    icgn deblur in.png -o out.png --kernel gaussian:1 --border circulr
    icgn deblur in.png -o out.png --kernel gaussian:1 --gap much
    python benchmarks/seconds.py --thread 2
    python benchmarks/growth.py --size 128
    python benchmarks/secondz.py
    python -m icgn inform
It is made by `icgn train --recipy x`, or by `python demos/denoise.py out --quik`; `icgn` is not a command line.

```console
icgn demo --out out
```
"""
    right, *wrong = command_lines(page)
    parse(right)
    said = [
        "denoize",
        "--sigme",
        "circulr",
        "number",
        "--thread",
        "2",
        "No such",
        "inform",
        "--out",
        "--recipy",
        "2",
    ]
    assert len(wrong) == len(said)
    for line, words in zip(wrong, said, strict=True):
        with pytest.raises((Exception, SystemExit)) as caught:
            parse(line)
        assert words in str(caught.value), line
        assert not isinstance(caught.value, ParsedError)


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "docs/start.md", "docs/extend.md"])
def test_make_targets_in_documents_exist(path):
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^(?:    )?make ([a-z-]+)", (ROOT / path).read_text(), flags=re.MULTILINE)
    assert named and all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in named)


def test_the_gallery_orders_every_demo():
    source = ast.parse((ROOT / "docs" / "_ext" / "gallery.py").read_text())
    values = {n.targets[0].id: n.value for n in source.body if isinstance(n, ast.Assign)}
    assert set(ast.literal_eval(values["DEMOS"])) == {p.stem for p in (ROOT / "demos").glob("*.py")}


def test_every_recipe_demo_and_benchmark_named_in_the_documentation_exists():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {path for p in pages for path in re.findall(r"\b(?:recipes|demos|benchmarks)/\w[\w-]*\.\w+", p.read_text())}
    assert named and not [path for path in named if not (ROOT / path).is_file()]


def test_the_page_of_the_command_line_describes_every_command():
    page = (ROOT / "docs" / "command-line.md").read_text()
    names = typer.main.get_command(cli.app).commands
    assert not [name for name in names if not re.search(rf"^icgn {name}\b", page, flags=re.MULTILINE)]


@pytest.mark.parametrize("path", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_options_that_pages_mention_exist(path):
    commands = typer.main.get_command(cli.app).commands.values()
    known = {option for command in commands for p in command.params for option in (*p.opts, *p.secondary_opts)}
    named = set(re.findall(r"`(--[a-z-]+)", (ROOT / path).read_text()))
    assert not named - known - {"--help"}


@pytest.mark.parametrize("path", PAGES)
def test_links_between_pages_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / path).read_text())
    # The gallery is made by Sphinx; a link may leave out the suffix; what has neither "." nor "/" is a formula.
    local = [t for t in targets if re.search(r"[./]", t) and not re.match(r"\w+://|gallery/", t)]
    found = ((ROOT / path).parent / (t if Path(t).suffix else f"{t}.rst") for t in local)
    assert not [target for target in found if not target.exists()]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
