"""The code in README and CONTRIBUTING runs, and so does every demo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = [
    pytest.param(text, id=f"{path}-{i}")
    for path in ("README.md", "CONTRIBUTING.md")
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


@pytest.mark.parametrize("demo", sorted(p.name for p in (ROOT / "demos").glob("*.py")))
def test_demos_run(demo, tmp_path):
    assert run([sys.executable, str(ROOT / "demos" / demo), str(tmp_path)], tmp_path)


def test_commands_in_readme_exist():
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^    icgn (\w+)", readme, flags=re.MULTILINE))
    helped = run([sys.executable, "-m", "icgn.cli", "--help"], ROOT.parent)
    assert named and all(re.search(rf"\b{name}\b", helped) for name in named)


def test_make_targets_in_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
