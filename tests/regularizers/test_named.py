"""Regularizers by what is typed: trained ones, total variation, and those of a file of one's own."""

import pytest

import icgn
from icgn.regularizers import load_regularizer

OWN = """
import icgn

class Mine(icgn.TotalVariation):
    def __init__(self):
        super().__init__(factor=0.5)

def made():
    return icgn.RidgeICGN(filters=2, size=3)

def nothing():
    return 3

def fails():
    raise KeyError("no such file")
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def test_names_give_regularizers(own):
    assert isinstance(load_regularizer("tv"), icgn.TotalVariation)
    assert load_regularizer(f"{own}:Mine").factor == 0.5
    made = load_regularizer(f"{own}:made")
    assert not made.training and not any(p.requires_grad for p in made.parameters())
    assert type(load_regularizer("ridge-gray-small")) is type(icgn.load_pretrained("ridge-gray-small"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Missing", "no function 'Missing', expected one of Mine, made, nothing, fails"),
        ("nothing", "returned int, expected a ConvexRegularizer"),
        ("fails", "failed: KeyError"),
    ],
)
def test_code_that_gives_none_says_why(own, name, message):
    with pytest.raises(ValueError, match=message) as error:
        load_regularizer(f"{own}:{name}")
    assert str(error.value).startswith(f"model {own}:{name}: ")


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"model none\.py:Mine: none\.py: no such file"):
        load_regularizer("none.py:Mine")


@pytest.mark.parametrize("model", ["tv", "own.py:Mine"])
def test_commands_take_them(own, run, monkeypatch, model):
    from icgn.datasets import Picture, bundled, write_picture

    monkeypatch.chdir(own.parent)
    write_picture("in.png", Picture(bundled(gray=True).find("camera").image[:, 100:132, 200:232]))
    result = run("denoise", "in.png", "-o", "out.png", "--sigma", 10, "--model", model, "--tol", "1e-2")
    assert result.exit_code == 0, result.output
    (own.parent / "clean").mkdir()
    write_picture("clean/a.png", Picture(bundled(gray=True).find("camera").image[:, 100:148, 200:248]))
    asked = ["--dataset", "clean", "--sigma", 15, "--tol", "1e-2"]
    result = run("evaluate", "--model", model, *asked, "-o", "results")
    assert result.exit_code == 0 and ("tv" if model == "tv" else "Mine") in result.output, result.output
    again = run("evaluate", "--model", model, "--model", "ridge-gray-small", *asked, "-o", "results")
    assert again.exit_code == 0, again.output
