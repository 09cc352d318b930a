"""Recipes: files, ranges, the models they start from."""

import json
from pathlib import Path

import pytest
import tomli_w
from training_cases import MODEL, recipe

import icgn
from icgn import training
from icgn.regularizers import available_models, read_card
from icgn.training import Adversarial, Bilevel, GradientSteps, MaskLikelihood, Recipe, ScoreMatching

RECIPES = sorted((Path(icgn.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_build_the_model_of_their_name(path):
    loaded = Recipe.load(path)
    assert loaded.name == path.stem
    built = training.build(loaded).architecture
    assert {k: built[k] for k in loaded.model if k != "type"} == {k: v for k, v in loaded.model.items() if k != "type"}


def test_shipped_models_name_a_recipe_that_is_there():
    for name in available_models():
        card = read_card(name)
        path = RECIPES[0].parent / card["recipe_file"]
        assert path in RECIPES
        assert Recipe.from_dict(card["recipe"]).model == Recipe.load(path).model, name


@pytest.mark.parametrize(
    "loss",
    [
        Bilevel(tol=1e-3, cg_iter=7),
        Bilevel(derivative="jacobian-free"),
        Adversarial(penalty=3, corruption="adjoint"),
        GradientSteps(steps=4),
        ScoreMatching(),
        MaskLikelihood(contrast=0.01, max_iter=3),
    ],
    ids=repr,
)
def test_recipe_round_trip_through_toml(tmp_path, loss):
    path = tmp_path / "r.toml"
    physics = {"type": "Blur", "filter": {"function": "gaussian_blur", "sigma": [1.5, 1.5]}}
    original = recipe(loss=loss, physics=physics, sigma=(2 / 255, 30 / 255), init="x", seed=3, final=0.5, average=0.9)
    original.save(path)
    assert Recipe.load(path) == original
    assert Recipe.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    assert tomli_w.dumps(Recipe.load(path).to_dict()) == path.read_text()


def test_noise_levels_are_in_gray_levels_in_the_file(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('name = "a"\nsigma = [5, 51]\n[model]\ntype = "RidgeICGN"\n')
    assert Recipe.load(path).sigma == (5 / 255, 51 / 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchs = 3", "unknown key 'batchs'; did you mean 'batch'"),
        ("zzz = 3", "unknown key 'zzz'; expected one of name, model"),
        ("[loss]\nmaxiter = 3", r"unknown key in \[loss\] 'maxiter'; did you mean 'max_iter'"),
        ("[loss]\ntype = 'adversarail'", r"unknown type in \[loss\] 'adversarail'; did you mean 'adversarial'"),
        ("[loss]\ntype = 3", r"unknown type in \[loss\] 3; expected one of .*bilevel"),
        ("[loss]\ntype = 'adversarial'\ntol = 3", r"unknown key in \[loss\] 'tol'; expected one of penalty"),
        ("[loss]\ntype = 'adversarial'\npenalty = 0", "penalty: got 0, expected a positive number"),
        (
            "[loss]\ntype = 'adversarial'\ncorruption = 'none'",
            "corruption: got 'none', expected one of",
        ),
        ("[loss]\nderivative = 'exact'", "derivative: got 'exact', expected one of 'implicit', 'jacobian-free'"),
        ("[loss]\ntype = 'gradient-steps'\nsteps = 0", "steps: got 0, expected a whole number"),
        ("physics = 'Blur'", "physics: got 'Blur', expected a table"),
        ("average = 1", "average: got 1, expected a number from 0 to below 1"),
        ("loss = 3", "loss: got 3, expected a table"),
        ("[loss]\ntol = -1", "tol: got -1, expected a positive number"),
        ("[loss]\nmax_iter = 1.5", "max_iter: got 1.5, expected a whole number"),
        ("steps = 0", "steps: got 0, expected a whole number of at least 1"),
        ('steps = "many"', "steps: got 'many'"),
        ("batch = true", "batch: got True"),
        ("patch = 2.5", "patch: got 2.5"),
        ("sigma = [50, 1]", "sigma: got .* the lower first"),
        ("sigma = 25", "sigma: got 25"),
        ('sigma = ["a", "b"]', "sigma: got"),
        ("sigma = [nan, 3]", "sigma: got"),
        ("validation_sigma = [0]", "validation_sigma: got"),
        ("validation_sigma = []", r"validation_sigma: got \(\), expected one or more"),
        ("warmup = 2", "warmup: got 2, expected a number from 0 to 1"),
        ("final = -0.1", "final: got -0.1"),
        ("seed = -1", "seed: got -1"),
        ("[learning_rate]\nbank = -1.0", "learning_rate: got .*, expected rates >= 0"),
        ("[loss]\ntype = 'mask-likelihood'\ncontrast = 0", "contrast: got 0"),
        ("[learning_rate]\nbank = inf", "learning_rate: got .*, expected rates >= 0"),
        ("model = 3", "model: got 3"),
        ("model = {}", "model: got none"),
        ("name = '../x'", r"name: got '\.\./x'"),
        ("steps = ", "not a TOML file"),
    ],
)
def test_bad_recipes(tmp_path, text, message):
    key = text.split(" ")[0]
    base = {"name": 'name = "a"', "model": 'model = {type = "RidgeICGN"}'}
    path = tmp_path / "bad.toml"
    path.write_text("\n".join([*(line for k, line in base.items() if k != key), text]))
    with pytest.raises(ValueError, match=f"bad.toml: {message}"):
        Recipe.load(path)


def test_saving_leaves_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "r.toml"
    recipe(seed=1).save(path)
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        recipe(seed=2).save(path)
    assert Recipe.load(path).seed == 1 and [p.name for p in tmp_path.iterdir()] == ["r.toml"]


def full_disk(number):
    raise OSError(28, "No space left on device")


def test_recipes_without_a_name_or_text(tmp_path):
    with pytest.raises(ValueError, match="recipe: name: got none"):
        Recipe.from_dict({"model": MODEL})
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.toml: not a TOML file"):
        Recipe.load(path)
