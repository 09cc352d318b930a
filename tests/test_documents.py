"""The code in README, CONTRIBUTING and the pages of the documentation runs, and so does every demo, shortened."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = [
    pytest.param(text, id=f"{path}-{i}")
    for path in ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
    for i, text in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), flags=re.DOTALL))
]


def run(arguments: list[str], cwd: Path) -> str:
    environment = {"OMP_NUM_THREADS": "2", **os.environ}
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, env=environment, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", BLOCKS)
def test_code_in_documents_runs(code, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(code)
    run([sys.executable, str(script)], tmp_path)


@pytest.mark.parametrize(
    "module",
    [
        "icgn.datasets.noise",
        "icgn.regularizers.checks",
        "icgn.regularizers.latent",
        "icgn.regularizers.ridge",
        "icgn.solvers.solve",
    ],
)
def test_examples_in_docstrings(module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted and not results.failed


def test_every_module_with_examples_is_tested():
    (marks,) = test_examples_in_docstrings.pytestmark
    folders = ("app", "commands", "datasets", "regularizers", "solvers", "training", "transport")
    files = (p for folder in folders for p in (ROOT / folder).glob("*.py"))
    found = {f"icgn.{p.parent.name}.{p.stem}" for p in files if "    >>> " in p.read_text()}
    assert found == set(marks.args[1])


@pytest.mark.parametrize("demo", sorted(p.name for p in (ROOT / "demos").glob("*.py")))
def test_demos_run(demo, tmp_path):
    assert run([sys.executable, str(ROOT / "demos" / demo), str(tmp_path), "--quick"], tmp_path)
    assert list(tmp_path.glob("*.png"))


def test_commands_in_readme_exist():
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^    icgn (\w+)", readme, flags=re.MULTILINE))
    helped = run([sys.executable, "-m", "icgn.cli", "--help"], ROOT.parent)
    assert named and all(re.search(rf"\b{name}\b", helped) for name in named)


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
