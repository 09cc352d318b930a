import ast
import importlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from import_graph import cycles, grouped, import_graph, imported, module_name

import icgn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(icgn.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARTS = sorted(p.parent.name for p in ROOT.glob("*/__init__.py") if p.parent.name != "tests")
# What each part may import of the others; pages and scripts may import anything.
ALLOWED = {
    "compat": set(),
    "storage": set(),
    "datasets": {"storage"},
    "functionals": set(),
    "solvers": {"functionals"},
    "regularizers": {"functionals", "solvers", "storage", "compat"},
    "training": {"functionals", "solvers", "regularizers", "datasets", "storage", "compat"},
    "transport": {"functionals", "solvers", "regularizers", "storage"},
    "pictures": {"functionals", "solvers", "regularizers", "datasets", "compat", "uncertainty"},
    "scanners": {"functionals", "solvers", "regularizers"},
    "uncertainty": {"functionals", "solvers", "regularizers", "storage"},
    "evaluation": {
        "functionals",
        "solvers",
        "regularizers",
        "datasets",
        "storage",
        "training",
        "pictures",
        "compat",
        "uncertainty",
    },
    "app": {"solvers", "regularizers", "datasets", "pictures", "uncertainty"},
    "cli": {
        "solvers",
        "regularizers",
        "datasets",
        "storage",
        "pictures",
        "scanners",
        "training",
        "evaluation",
        "uncertainty",
    },
}
SCRIPTS = ("demos", "benchmarks", "tests")
TEXT = {".py", ".toml", ".md", ".cff", ".yaml", ".yml", ".json", ".in", ".txt", ".cfg", ".rst"}


def python(code, folder):
    """Run code in a fresh interpreter that starts in a folder; returns what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def sources(part):
    return sorted((ROOT / part).rglob("*.py")) if (ROOT / part).is_dir() else [ROOT / f"{part}.py"]


def modules_imported(file):
    """Every module that a file imports, inside functions too; relative ones begin with a dot."""
    return {f"icgn.{name}" if module == "icgn" and name else module for module, name in imported(file)}


def test_the_package_list_is_that_of_the_folders():
    found = [p.parent for part in PARTS for p in (ROOT / part).rglob("__init__.py")]
    names = {".".join(("icgn", *folder.relative_to(ROOT).parts)) for folder in found}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {"icgn", *names}


def test_versions_agree():
    assert PROJECT["project"]["version"] == icgn.__version__
    assert f"version: {icgn.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_importing_icgn_imports_nothing_heavy(tmp_path):
    place, *loaded = python("import icgn, sys; print(icgn.__file__, *sys.modules, sep='\\n')", tmp_path).splitlines()
    assert Path(place).parent == ROOT
    heavy = {"torch", "deepinv", "numpy", "skimage", "PIL", *(f"icgn.{part}" for part in PARTS)}
    assert not heavy & set(loaded)


def test_help_of_the_command_does_not_wait_for_torch(tmp_path):
    invoke = "typer.testing.CliRunner().invoke(icgn.cli.app, '--help')"
    code = f"import sys, icgn.cli, typer.testing; print({invoke}.output); assert 'torch' not in sys.modules"
    shown = python(code, tmp_path)
    assert all(command in shown for command in ("denoise", "deblur", "inpaint", "restore", "train", "demo", "info"))


@pytest.mark.parametrize("name", icgn.__all__)
def test_every_public_name_exists(name):
    assert getattr(icgn, name) is not None
    assert name in dir(icgn)


def test_names_that_do_not_exist():
    with pytest.raises(AttributeError, match="module 'icgn' has no attribute 'denoize'"):
        icgn.denoize  # noqa: B018


@pytest.mark.parametrize("part", PARTS)
def test_the_names_of_a_part_exist_and_are_sorted(part):
    module = importlib.import_module(f"icgn.{part}")
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("part", PARTS)
def test_imports_are_absolute_and_point_one_way(part):
    for file in sources(part):
        for module in modules_imported(file):
            assert not module.startswith("."), f"{file}: relative import {module}"
            assert module not in PARTS, f"{file}: {module}, expected icgn.{module}"
            other = module.split(".")[1] if module.startswith("icgn.") else None
            if other in ALLOWED:
                assert other in {part, "compat", *ALLOWED[part]}, f"{file}: {part} imports {module}"
            assert other not in SCRIPTS, f"{file}: imports {module}"


def test_no_import_cycle_between_modules_nor_folders():
    """Imports inside functions and those for types only are counted too."""
    files = [file for part in PARTS for file in sources(part)]
    graph = import_graph({module_name("icgn", ROOT, file): file for file in files})
    assert len(graph) == len(files) and sum(map(len, graph.values())) > len(files)
    assert not cycles(graph)
    folders = grouped(graph, {name: name.split(".")[1] for name in graph})
    assert not cycles(folders)


def test_import_cycles_are_found(tmp_path):
    """A ring of three through a function and a block for types, two that import each other, one that is imported."""
    contents = {
        "__init__.py": "import p.a.one",
        "a/__init__.py": "",
        "a/one.py": "from p.b.two import thing",
        "b/__init__.py": "from p.b.two import thing",
        "b/two.py": "def f():\n    from p.c import three",
        "c/three.py": "if TYPE_CHECKING:\n    import p.a.one",
        "c/four.py": "from p.c import five\nfrom p.c.three import name",
        "c/five.py": "import torch, p.c.four",
    }
    for path, text in contents.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    files = sorted(tmp_path.rglob("*.py"))
    graph = import_graph({module_name("p", tmp_path, file): file for file in files})
    assert graph["p"] == {"p.a.one"} and graph["p.c.four"] == {"p.c.five", "p.c.three"}
    assert cycles(graph) == {frozenset({"p.a.one", "p.b.two", "p.c.three"}), frozenset({"p.c.four", "p.c.five"})}
    folders = grouped(graph, {name: name.split(".")[1] if name.count(".") else "" for name in graph})
    assert cycles(folders) == {frozenset("abc")}
    assert cycles({**graph, "p.c.three": set(), "p.c.five": set()}) == set()


def test_no_part_needs_the_top_of_the_package():
    """The top holds what it takes from the parts; they read its version and import each other by full names."""
    for file in (file for part in PARTS for file in sources(part)):
        assert not {name for module, name in imported(file) if module == "icgn" and name and name not in PARTS}, file
        tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        used = {n.attr for n in tree if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "icgn"}
        assert used <= {"__version__"}, file


def test_every_module_has_a_docstring():
    for part in [*PARTS, "__init__"]:
        for file in sources(part):
            assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def tracked():
    """The files of the repository, without what is built or hidden."""
    folders = [*PARTS, *SCRIPTS, "recipes", "docs"]
    inside = (p for folder in folders for p in (ROOT / folder).rglob("*"))
    return [p for p in [*ROOT.glob("*"), *inside] if p.is_file() and (p.suffix in TEXT or p.name == "Makefile")]


def test_no_file_mentions_a_place_of_the_machine_it_was_written_on():
    # Written apart, so that this file does not mention them either.
    places = ["/" + "work/", "/" + "tmp/x", "/" + "root/", "/" + "tmp/v/"]
    found = [(p, place) for p in tracked() for place in places if place in p.read_text(encoding="utf-8")]
    assert not found


@pytest.fixture(scope="module")
def wheel(made_once):
    """The wheel, built from the source distribution, without the network.

    Both are of a copy: a build leaves files behind, and old ones would go in.
    """
    ignored = shutil.ignore_patterns(".*", "build", "dist", "out", "runs", "*.egg-info", "__pycache__")
    command = [sys.executable, "-I", "-m", "build", "--no-isolation", "--outdir", "dist", "source"]

    def build(folder):
        shutil.copytree(ROOT, folder / "source", ignore=ignored)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    (built,) = (made_once("wheel", build) / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {f"icgn/{p.relative_to(ROOT).as_posix()}" for part in PARTS for p in (ROOT / part).rglob("*.py")}
    expected |= {"icgn/__init__.py", "icgn/__main__.py", "icgn/py.typed"}
    for part in ("regularizers", "pictures"):
        weights = (ROOT / part / "weights").glob("*")
        expected |= {f"icgn/{part}/weights/{p.name}" for p in weights if p.suffix in (".safetensors", ".json")}
    assert names == expected


@pytest.mark.slow
def test_the_source_distribution_holds_what_the_wheel_does_not(wheel):
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "tests/conftest.py", "tests/helpers/quadratic.py"} <= names
    assert {f"demos/{p.name}" for p in (ROOT / "demos").glob("*.py")} <= names


RESTORE = """
import socket
def refuse(*_): raise OSError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
import torch, icgn
y = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
print(icgn.__file__, icgn.denoise(y, 25 / 255).status[0].name, icgn.__version__, *icgn.available_models())
"""


@pytest.mark.slow
def test_the_wheel_restores_with_its_weights_and_without_the_network(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    file, status, version, *models = python(RESTORE, tmp_path).split()
    assert Path(file) == tmp_path / "icgn" / "__init__.py" and status == "CONVERGED"
    assert version == icgn.__version__ and models == icgn.available_models()
    (metadata,) = tmp_path.glob("icgn-*.dist-info")
    assert "icgn = icgn.cli:main" in (metadata / "entry_points.txt").read_text()
    assert "Redistribution" in (metadata / "licenses" / "LICENSE").read_text()


def test_the_shell_completes_commands():
    environment = {**os.environ, "_ICGN_COMPLETE": "complete_bash", "COMP_WORDS": "icgn de", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['icgn']; from icgn.cli import main; main()"
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert set(done.stdout.split()) == {"denoise", "deblur", "demo"}, done.stderr
