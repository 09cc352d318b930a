import hashlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from icgn import datasets
from icgn.datasets import Picture, read_picture, write_picture


@pytest.fixture(scope="module")
def data_root():
    """The folder that holds BSDS500, from the environment or beside the repository."""
    root = Path(os.environ.get("ICGN_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
    if not (root / "BSDS500").is_dir():
        pytest.skip(f"no BSDS500 in {root}; set ICGN_DATA to the folder that holds it")
    return root


def save(file, shape=(12, 10, 3), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(file)
    return pixels


def fake_bsds(root, layout="BSDS500/images", names=("a", "b", "c")):
    for split in ("train", "val", "test"):
        (root / layout / split).mkdir(parents=True)
        for seed, name in enumerate(names):
            save(root / layout / split / f"{name}.jpg", seed=seed)
    return root


# Collections


@pytest.mark.parametrize("gray", [False, True])
def test_bundled_photographs_load_without_download(gray, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    photographs = datasets.bundled(gray=gray)
    assert len(photographs) == (9 if gray else 5) and len(set(photographs.names)) == len(photographs)
    for sample in photographs:
        assert sample.image.shape[0] == (1 if gray else 3) and min(sample.image.shape[1:]) >= 256
        assert sample.image.dtype is torch.float32 and 0 <= sample.image.min() < sample.image.max() <= 1


def test_find_and_slices():
    photographs = datasets.bundled(gray=True)
    assert photographs.find("camera").image.shape == (1, 512, 512)
    assert photographs[-1].name == photographs.names[-1]
    assert photographs[1:3].names == photographs.names[1:3]
    assert torch.equal(photographs[2:][0].image, photographs[2].image)
    assert "astronaut" in repr(photographs)
    with pytest.raises(KeyError, match="nobody"):
        photographs.find("nobody")
    with pytest.raises(IndexError):
        photographs[99]


def test_gray_is_that_of_pillow(tmp_path):
    pixels = save(tmp_path / "a.png", (64, 64, 3))
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal((datasets.folder(tmp_path, gray=True)[0].image[0] * 255).round().numpy(), expected)
    deep = read_picture(tmp_path / "a.png")
    deep = Picture(deep.pixels, bits=16)
    assert (datasets.to_gray(deep)[0] * 255 - torch.from_numpy(expected.astype(np.float32))).abs().max() <= 0.5001


def test_folder_is_sorted_and_lazy(tmp_path):
    for name in ("c.png", "a.JPG", "b.tif"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "inner.png").mkdir()
    found = datasets.folder(tmp_path)
    assert found.names == ("a", "b", "c") and found.skipped == ()
    save(tmp_path / "c.png", (7, 7, 3))
    assert found[2].image.shape == (3, 7, 7)


def test_folder_makes_channels_alike_and_names_unique(tmp_path):
    save(tmp_path / "a.png", (8, 8))
    save(tmp_path / "a.tif")
    write_picture(tmp_path / "b.png", Picture(torch.zeros(3, 8, 8), alpha=torch.zeros(1, 8, 8)))
    colour, gray = datasets.folder(tmp_path), datasets.folder(tmp_path, gray=True)
    assert colour.names == ("a.png", "a.tif", "b")
    assert [len(s.image) for s in colour] == [3, 3, 3] and [len(s.image) for s in gray] == [1, 1, 1]
    assert torch.equal(colour[0].image[2:], gray[0].image)


def test_folder_leaves_out_corrupt_files_by_name(tmp_path):
    save(tmp_path / "good.png", (64, 64, 3))
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-500])
    with pytest.warns(UserWarning) as caught:
        found = datasets.folder(tmp_path)
    assert found.names == ("good",) and found.skipped == ("cut.png", "empty.png", "text.jpg")
    for name in found.skipped:
        assert any(str(tmp_path / name) in str(w.message) for w in caught)


def test_folders_without_pictures_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no picture"):
        datasets.folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a folder"):
        datasets.folder(tmp_path / "none")
    (tmp_path / "a.png").touch()
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match=r"none of its 1 pictures.*a\.png"):
        datasets.folder(tmp_path)


@pytest.mark.parametrize("layout", ["BSDS500/images", "BSR/BSDS500/data/images", "BSDS500-master/BSDS500/data/images"])
def test_every_published_layout_is_found(tmp_path, layout):
    fake_bsds(tmp_path, layout)
    with pytest.warns(UserWarning, match="3 photographs in val, expected 100"):
        assert datasets.bsds500(tmp_path, split="val").names == ("a", "b", "c")


@pytest.mark.parametrize("layout", ["BSDS500/images", "BSDS500/data/images"])
@pytest.mark.parametrize("at", ["", "BSDS500"])
def test_bsds500_itself_is_a_root_too_and_the_list_may_lie_in_it_or_beside_it(tmp_path, layout, at):
    fake_bsds(tmp_path, layout)
    (tmp_path / at / "BSD68.txt").write_text("\n".join(map(str, range(68))))
    for root in (tmp_path, tmp_path / "BSDS500"):
        with pytest.warns(UserWarning, match="3 photographs in val, expected 100"):
            assert datasets.bsds500(root, split="val").names == ("a", "b", "c")
        with pytest.raises(FileNotFoundError, match="68 of 68 photographs are missing"):
            datasets.bsd68(root)


def test_wrong_roots_say_what_was_expected_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"BSDS500/images/\{train,val,test\}"):
        datasets.bsds500(tmp_path)
    with pytest.raises(ValueError, match="got 'all', expected one of train, val, test, val-rest"):
        datasets.bsds500(tmp_path, split="all")
    fake_bsds(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"BSD68\.txt"):
        datasets.bsd68(tmp_path)
    (tmp_path / "BSD68.txt").write_text("a b c")
    with pytest.raises(ValueError, match="got 3 names"):
        datasets.bsd68(tmp_path)
    (tmp_path / "BSD68.txt").write_text("\n".join(map(str, range(68))))
    with pytest.raises(FileNotFoundError, match="68 of 68 photographs are missing"):
        datasets.bsd68(tmp_path)


def test_bsds500_splits(data_root):
    splits = {s: datasets.bsds500(data_root, split=s).names for s in ("train", "val", "test", "val-rest")}
    assert [len(splits[s]) for s in ("train", "val", "test", "val-rest")] == [200, 100, 200, 32]
    bsd68 = datasets.bsd68(data_root)
    assert len(bsd68) == 68 and set(bsd68.names) | set(splits["val-rest"]) == set(splits["val"])
    assert not set(bsd68.names) & set(splits["val-rest"])
    assert not set(splits["val"]) & (set(splits["train"]) | set(splits["test"]))
    assert sorted(bsd68[0].image.shape) == [1, 321, 481]
    with Image.open(data_root / "BSDS500/images/val" / f"{bsd68.names[0]}.jpg") as file:
        assert np.array_equal((bsd68[0].image[0] * 255).round().numpy(), np.asarray(file.convert("L")))


def test_download_verifies_and_unpacks(tmp_path):
    source = fake_bsds(tmp_path / "source", "BSDS500-master/BSDS500/data/images")
    archive = shutil.make_archive(str(tmp_path / "master"), "zip", source)
    pooch = pytest.importorskip("pooch")
    url, good = Path(archive).as_uri(), "sha256:" + pooch.file_hash(archive)
    root = tmp_path / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooch.core, "choose_downloader", lambda *a, **k: lambda u, out, p: shutil.copy(archive, out))
        with pytest.raises(ValueError, match="hash"):
            datasets.download_bsds500(root, url=url, known_hash="sha256:" + "0" * 64)
        assert not (root / "BSDS500-master").exists()
        with pytest.warns(UserWarning, match="expected 200"):
            assert datasets.download_bsds500(root, url=url, known_hash=good).names == ("a", "b", "c")


def test_download_without_pooch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match=r"icgn\[data\]"):
        datasets.download_bsds500(tmp_path)


# Figures


def test_comparison_holds_its_panels():
    a, b = torch.rand(3, 40, 90), torch.rand(1, 30, 20)
    sheet = datasets.comparison([("a", a), ("a label wider than its picture", b)]).pixels
    assert sheet.shape[0] == 3
    assert any(torch.allclose(sheet[:, r : r + 40, 8:98], a, atol=0.51 / 255) for r in range(sheet.shape[1] - 39))
    assert datasets.comparison([("b", b)]).pixels.shape[0] == 1
    with pytest.raises(ValueError, match="panels"):
        datasets.comparison([])


def test_difference_is_centred_and_its_gain_fits():
    a, b = 0.5 + 0.02 * torch.randn(1, 50, 50), torch.full((1, 50, 50), 0.5)
    assert torch.equal(datasets.difference(b, b, 4), torch.full_like(b, 0.5))
    assert datasets.visible_gain(a, b) == 8 and datasets.visible_gain(b, b) == 1


# Noise and measures


def test_noise_depends_on_seed_and_shape_only():
    image = torch.rand(3, 20, 30)
    noise = datasets.add_noise(image, 0.1, 7) - image
    torch.rand(5)
    assert torch.allclose(datasets.add_noise(image.double(), 0.1, 7) - image.double(), noise.double(), atol=1e-6)
    assert torch.allclose(datasets.add_noise(torch.zeros(3, 20, 30), 0.1, 7), noise, atol=1e-6)
    strided = image.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert torch.equal(datasets.add_noise(strided, 0.1, 7), datasets.add_noise(image, 0.1, 7))
    assert not torch.allclose(datasets.add_noise(image, 0.1, 8) - image, noise)
    assert torch.equal(datasets.add_noise(image, 0, 7), image)


def test_noise_on_the_device_is_that_of_the_cpu(device):
    image = torch.rand(1, 9, 9)
    assert torch.allclose(
        datasets.add_noise(image.to(device), 0.1, 1).cpu(), datasets.add_noise(image, 0.1, 1), atol=1e-6
    )


def test_noise_has_its_deviation_and_is_white():
    noise = datasets.add_noise(torch.zeros(1, 300, 300), 0.2, 3)[0]
    assert abs(noise.std() - 0.2) < 0.004 and abs(noise.mean()) < 0.004
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.001
    assert abs(datasets.measure_sigma(noise[None], torch.zeros(1, 300, 300)) - 0.2) < 0.004
    assert abs(datasets.estimate_sigma(noise[None]) - 0.2) < 0.01


@pytest.mark.parametrize("quality", [85, 95])
def test_the_noise_that_jpeg_takes_out_of_the_colours_is_found_in_the_luma(tmp_path, quality):
    clean = torch.linspace(0.3, 0.7, 200).expand(3, 200, 200) * torch.tensor([1.0, 0.9, 0.8])[:, None, None]
    noisy = datasets.add_noise(clean, 20 / 255, 3)
    levels = (noisy.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(tmp_path / "a.jpg", quality=quality)
    stored = datasets.read_picture(tmp_path / "a.jpg").pixels
    assert 255 * datasets.estimate_sigma(stored) < 15
    assert abs(255 * datasets.estimate_sigma(datasets.scaled_luma(stored)) - 20) < 2


def test_the_scaled_luma_keeps_the_deviation_of_white_noise_and_is_gray_itself():
    noise = datasets.add_noise(torch.zeros(3, 200, 200), 0.1, 4)
    luma = datasets.scaled_luma(noise)
    assert luma.shape == (1, 200, 200) and abs(float(luma.std()) - 0.1) < 0.001
    assert torch.allclose(datasets.scaled_luma(torch.ones(3, 2, 2)), torch.tensor(1 / 0.66856), atol=1e-4)
    assert torch.equal(datasets.scaled_luma(noise[:1]), noise[:1])
    for wrong in (noise[None], noise[:2]):
        with pytest.raises(ValueError, match=r"expected one picture \(1, H, W\) or \(3, H, W\)"):
            datasets.scaled_luma(wrong)


def test_the_estimate_is_that_of_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    image = datasets.add_noise(torch.rand(3, 31, 40, generator=torch.Generator().manual_seed(0)).round(), 0.1, 5)
    expected = restoration.estimate_sigma(image.double().numpy(), channel_axis=0, average_sigmas=True)
    assert datasets.estimate_sigma(image) == pytest.approx(expected, rel=1e-12)


def test_estimate_without_detail():
    assert datasets.estimate_sigma(torch.zeros(3, 20, 20)) == 0
    half = torch.cat([datasets.add_noise(torch.zeros(1, 200, 200), 0.2, 3), torch.zeros(1, 200, 200)])
    assert abs(datasets.estimate_sigma(half) - 0.2) < 0.01
    assert np.isfinite(datasets.estimate_sigma(torch.rand(1, 2, 2)))
    with pytest.raises(ValueError, match="NaN"):
        datasets.estimate_sigma(torch.full((1, 9, 9), torch.nan))
    with pytest.raises(ValueError, match=r"image: got shape \(1, 1, 9, 9\), expected one picture \(C, H, W\)"):
        datasets.estimate_sigma(torch.rand(1, 1, 9, 9))
    with pytest.raises(TypeError, match="image: got ndarray"):
        datasets.estimate_sigma(np.zeros((1, 9, 9)))


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_noise_refuses_senseless_levels(sigma):
    with pytest.raises(ValueError, match="sigma: got"):
        datasets.add_noise(torch.zeros(1, 4, 4), sigma, 0)
    with pytest.raises(TypeError, match="uint8"):
        datasets.add_noise(torch.zeros(1, 4, 4, dtype=torch.uint8), 0.1, 0)


def test_seeds_depend_on_name_and_seed_only():
    # A value fixed by the definition: nothing of this process or machine enters.
    expected = int(hashlib.sha256(b"5:camera").hexdigest()[:16], 16) // 2
    assert datasets.seed_of("camera", seed=5) == expected < 2**63
    assert len({datasets.seed_of(n, seed=s) for n in "abc" for s in range(3)}) == 9


def test_quality_against_its_definition():
    clean, image = torch.full((1, 10, 10), 0.5), torch.full((1, 10, 10), 0.6)
    assert datasets.quality(image, clean).psnr == pytest.approx(20, abs=1e-4)
    assert datasets.quality(clean, clean).psnr == np.inf and datasets.quality(clean, clean).ssim == pytest.approx(1)
    assert np.isnan(datasets.quality(clean[:, :3], clean[:, :3]).ssim)
    with pytest.raises(ValueError, match="shape"):
        datasets.quality(clean, clean[:, :3])
    with pytest.raises(ValueError, match="shape"):
        datasets.measure_sigma(clean, clean[:, :3])
