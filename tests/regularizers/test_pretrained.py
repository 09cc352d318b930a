import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import icgn
from icgn import datasets
from icgn.regularizers import ModelError, RidgeICGN, available_models, load_pretrained, read_card, save_model
from icgn.regularizers.registry import build_model

REPOSITORY = Path(icgn.__file__).parent
WEIGHTS = REPOSITORY / "regularizers" / "weights"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return RidgeICGN(filters=4, size=5, units=2, activation="tanh", sigma_range=(0.01, 0.1), knots=3)


@pytest.fixture
def saved(tmp_path, model):
    path = tmp_path / "small.safetensors"
    save_model(model, path, {"seed": 7})
    return path


def edit_card(path, change):
    card = path.with_suffix(".json")
    content = json.loads(card.read_text())
    change(content)
    card.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["file", "text", "folder"])
def test_round_trip(saved, model, kind):
    loaded = load_pretrained({"file": saved, "text": str(saved), "folder": saved.parent}[kind])
    assert type(loaded) is RidgeICGN and loaded.architecture == model.architecture
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(1, 1, 9, 11)
    assert torch.equal(loaded.grad(x, 0.05), model.grad(x, 0.05))
    assert read_card(saved)["seed"] == 7


def test_saving_replaces_and_leaves_nothing_else(saved, model):
    save_model(model, saved, {"seed": 8})
    assert read_card(saved)["seed"] == 8
    assert sorted(p.name for p in saved.parent.iterdir()) == ["small.json", "small.safetensors"]


def test_a_failed_write_leaves_the_old_model(saved, model, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    with torch.no_grad():
        model.log_tau += 1
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save_model(model, saved, {})
    assert saved.read_bytes() == before and read_card(saved)["seed"] == 7
    assert len(list(saved.parent.iterdir())) == 2


def test_truncated(saved):
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"small\.safetensors: the sha256 differs.*truncated or altered"):
        load_pretrained(saved)


def test_altered_byte(saved):
    content = bytearray(saved.read_bytes())
    content[-3] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ModelError, match=r"small\.safetensors: the sha256 differs"):
        load_pretrained(saved)


def test_weights_of_another_architecture(saved):
    edit_card(saved, lambda card: card["architecture"].update(filters=5))
    with pytest.raises(ModelError, match=r"small\.safetensors: the weights do not fit"):
        load_pretrained(saved)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"type": "Unheard"}, "unknown architecture 'Unheard', expected one of RidgeICGN"),
        ({"type": ["RidgeICGN"]}, "unknown architecture"),
        ({}, "unknown architecture None"),
        ("RidgeICGN", "architecture: got 'RidgeICGN', expected a table"),
        ({"type": "RidgeICGN", "depth": 3}, "arguments do not fit RidgeICGN.*depth"),
        ({"type": "RidgeICGN", "filters": "many"}, "arguments do not fit RidgeICGN"),
        ({"type": "RidgeICGN", "filters": 0}, "arguments do not fit RidgeICGN"),
        ({"type": "RidgeICGN", "size": -1}, "arguments do not fit RidgeICGN"),
    ],
)
def test_architectures_that_do_not_exist(saved, architecture, message):
    edit_card(saved, lambda card: card.update(architecture=architecture))
    with pytest.raises(ModelError, match=f"small.*{message}"):
        load_pretrained(saved)


def test_missing_card(saved):
    saved.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match=r"small\.json: cannot be read"):
        load_pretrained(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JSON card"),
        (b"{", "not a JSON card"),
        (b"\xff\xfe", "not a JSON card"),
        (b"[]", "lacks architecture, sha256"),
        (b"{}", "lacks architecture, sha256"),
        (b'{"architecture": {}}', "lacks sha256"),
    ],
)
def test_corrupt_card(saved, content, message):
    saved.with_suffix(".json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"small\.json: .*{message}"):
        load_pretrained(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(saved, model, value):
    with torch.no_grad():
        model.log_lambda[0, 0, 0] = value
    save_model(model, saved, {})
    with pytest.raises(
        ModelError, match=r"small\.safetensors: .*log_lambda of RidgeICGN has 1 values that are not finite"
    ):
        load_pretrained(saved)


def test_not_a_safetensors_file_with_the_right_hash(saved):
    import hashlib

    saved.write_bytes(b"garbage")
    edit_card(saved, lambda card: card.update(sha256=hashlib.sha256(b"garbage").hexdigest()))
    with pytest.raises(ModelError, match=r"small\.safetensors: the weights do not fit"):
        load_pretrained(saved)


class Trap:
    """Makes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dump", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_pickles_are_refused_and_do_not_run(saved, tmp_path, suffix, dump):
    flag = tmp_path / "ran"
    path = saved.with_suffix(suffix)
    dump(Trap(flag), path)
    with pytest.raises(ModelError, match=path.name):
        load_pretrained(path)
    assert not flag.exists()


def test_unknown_name_lists_the_known_ones(monkeypatch, saved):
    monkeypatch.setattr("icgn.regularizers.pretrained._WEIGHTS", saved.parent)
    assert available_models() == ["small"]
    assert isinstance(load_pretrained("small"), RidgeICGN)
    with pytest.raises(ModelError, match=r"got 'smal', expected one of small, .*did you mean small\?"):
        load_pretrained("smal")
    with pytest.raises(ModelError, match="got 'runs/mine', but there is no such file or folder"):
        load_pretrained("runs/mine")
    with pytest.raises(ModelError, match="got 'large', expected one of small, or an existing path"):
        load_pretrained("large")


def test_folders_without_a_model_or_with_two(tmp_path, saved, model):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"empty: has 0 \.safetensors files, expected exactly one"):
        load_pretrained(empty)
    save_model(model, saved.with_name("other.safetensors"), {})
    with pytest.raises(ModelError, match=r"has 2 \.safetensors files"):
        load_pretrained(saved.parent)


def test_models_that_cannot_be_saved(tmp_path, model):
    with pytest.raises(ModelError, match="SumRegularizer, expected one of RidgeICGN"):
        save_model(model + model, tmp_path / "sum.safetensors", {})
    with pytest.raises(ModelError, match=r"got 'm\.pt', expected a name ending in \.safetensors"):
        save_model(model, tmp_path / "m.pt", {})
    assert not list(tmp_path.iterdir())


def test_build_model_does_not_change_its_argument():
    architecture = {"type": "RidgeICGN", "filters": 2, "size": 3}
    assert build_model(architecture).channels == 1
    assert architecture == {"type": "RidgeICGN", "filters": 2, "size": 3}


# What ships. The parameter list is empty, and pytest skips, as long as nothing does.


@pytest.mark.parametrize("name", available_models())
def test_shipped_cards(name):
    file = WEIGHTS / f"{name}.safetensors"
    card = read_card(name)
    assert file.stat().st_size < 3e6
    assert card["name"] == name
    assert (REPOSITORY / "recipes" / card["recipe_file"]).is_file()
    for entry in ("recipe", "seed", "steps", "data", "versions", "psnr"):
        assert card[entry] is not None, entry
    assert card["data"]["licence"] and card["versions"]["icgn"]
    assert card["psnr"]
    assert load_file(file).keys() == build_model(card["architecture"]).state_dict().keys()


@pytest.mark.parametrize("name", available_models())
def test_shipped_models_denoise_with_a_certificate(name):
    model = load_pretrained(name)
    clean = datasets.bundled(gray=model.channels == 1).find("camera" if model.channels == 1 else "coffee").image
    clean = clean[None, :, 100:164, 200:264]
    y = datasets.add_noise(clean, 25 / 255, 1)
    solution = icgn.denoise(y, 25 / 255, regularizer=model)
    assert float(solution.certificate.rms_distance) <= 25 / 255 / 250
    error = [(x - clean).square().mean() for x in (solution.x, y)]
    assert error[0] < 0.3 * error[1]


def test_safetensors_files_with_extra_tensors_do_not_fit(saved):
    import hashlib

    save_file({**load_file(saved), "extra": torch.zeros(1)}, saved)
    edit_card(saved, lambda card: card.update(sha256=hashlib.sha256(saved.read_bytes()).hexdigest()))
    with pytest.raises(ModelError, match="do not fit"):
        load_pretrained(saved)


@pytest.mark.parametrize("name", icgn.available_models())
def test_a_shipped_model_vanishes_with_the_noise(name):
    shipped = icgn.load_pretrained(name)
    y = torch.rand(1, shipped.channels, 24, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(icgn.denoise(y, 0.0, regularizer=shipped).x, y)
    changes = [
        float((icgn.denoise(y, s, regularizer=shipped).x - y).square().mean().sqrt())
        for s in (1e-6, 1e-4, 1e-3, 1 / 255)
    ]
    assert changes == sorted(changes) and changes[0] < 1e-5
