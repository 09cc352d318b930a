"""Files of k-space: every layout gives the same samples, and what cannot be read is named."""

import coil_cases
import kspace_files
import numpy as np
import pytest
import torch

from icgn.scanners import read_coils, read_kspace

pytest.importorskip("h5py")
COILS, SIDE = 4, 32


@pytest.fixture(scope="module")
def lines():
    """K-space (C, H, W) of which every second line and the middle ones are measured."""
    kept = (torch.arange(SIDE) % 2 == 0) | ((torch.arange(SIDE) - SIDE // 2).abs() < 6)
    clean = torch.fft.fftshift(torch.fft.fft2(coil_cases.picture(SIDE) * coil_cases.maps(COILS, SIDE)), dim=(-2, -1))
    return (clean * kept).numpy().astype(np.complex64)


def same(path, lines, **options):
    found = read_kspace(path, **options)
    assert torch.equal(found.samples, torch.from_numpy(lines).to(torch.complex128))
    return found


def test_numpy(tmp_path, lines):
    np.save(tmp_path / "k.npy", lines)
    np.save(tmp_path / "slices.npy", np.stack([0 * lines + 1, lines, 0 * lines + 2]))
    np.save(tmp_path / "big.npy", lines.astype(">c8"))
    same(tmp_path / "k.npy", lines)
    same(tmp_path / "big.npy", lines)
    assert same(tmp_path / "slices.npy", lines).words == "slice 1 of 3, counted from 0"
    same(tmp_path / "k.npy", lines, slice=0)


def test_fastmri(tmp_path, lines):
    kspace_files.write_fastmri(tmp_path / "k.h5", np.stack([lines, 2 * lines]), picture=(24, 20))
    found = same(tmp_path / "k.h5", lines, slice=0)
    assert found.picture == (24, 20) and found.noise is None
    kspace_files.write_fastmri(tmp_path / "one.h5", lines[:1])
    same(tmp_path / "one.h5", lines[:1])


def test_ismrmrd(tmp_path, lines):
    noise = coil_cases.noise(COILS, 200, 1.0).numpy()
    kspace_files.write_ismrmrd(tmp_path / "k.h5", lines, noise, picture=(24, 20), reverse=(16, 18))
    found = same(tmp_path / "k.h5", lines)
    assert found.picture == (24, 20)
    assert torch.allclose(found.noise, torch.from_numpy(noise), rtol=1e-6)


def test_ismrmrd_counts_lines_from_the_middle_that_the_header_names(tmp_path, lines):
    cut = lines.copy()
    cut[:, :, :6] = 0
    kspace_files.write_ismrmrd(tmp_path / "k.h5", cut, first=6)
    same(tmp_path / "k.h5", cut)


@pytest.mark.parametrize("axes", [(3, 0, 1), (3, 1, 2), (3, 0, 2)])
def test_bart(tmp_path, lines, axes):
    kspace_files.write_cfl(tmp_path / "k", lines, axes)
    same(tmp_path / "k.cfl", lines)
    same(tmp_path / "k.hdr", lines)
    assert np.array_equal(read_coils(tmp_path / "k.cfl").numpy(), lines)


def test_bart_slices(tmp_path, lines):
    kspace_files.write_cfl(tmp_path / "k", np.stack([lines, 2 * lines]), (13, 3, 0, 1))
    same(tmp_path / "k.cfl", lines, slice=0)


def test_maps_and_noise_are_read_from_every_kind(tmp_path, lines):
    import h5py

    np.save(tmp_path / "m.npy", lines)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["maps"], file["other"] = lines, np.zeros(3)
    for name in ("m.npy", "m.h5"):
        assert np.array_equal(read_coils(tmp_path / name).numpy(), lines)


def set_index(name, value):
    def change(table, i):
        index = table["head"]["idx"]
        index[name][i] = value(int(index["kspace_encode_step_1"][i]))

    return change


def along(table, i):
    table["head"]["trajectory_dimensions"][i] = 2
    table["traj"][i] = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (along, "along a trajectory"),
        (set_index("kspace_encode_step_2", lambda line: line), "several partitions"),
        (set_index("kspace_encode_step_1", lambda line: line + 20), "has a readout at line"),
    ],
)
def test_readouts_that_are_no_cartesian_slice_are_refused(tmp_path, lines, change, words):
    kspace_files.write_ismrmrd(tmp_path / "k.h5", lines, change=change)
    with pytest.raises(ValueError, match=words):
        read_kspace(tmp_path / "k.h5")


def test_files_that_cannot_be_read_are_named(tmp_path, lines):
    import h5py

    kspace_files.write_cfl(tmp_path / "short", lines, (3, 0, 1))
    (tmp_path / "short.hdr").write_text("# Dimensions\n8 8 1 8\n")
    (tmp_path / "alone.hdr").write_text("# Dimensions\n8 8 1 8\n")
    for name in ("empty.npy", "empty.h5"):
        (tmp_path / name).write_bytes(b"")
    np.save(tmp_path / "real.npy", lines.real)
    np.save(tmp_path / "one.npy", lines)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["picture"] = np.zeros((3, 3))
    cases = {
        "missing.npy": "no such file",
        "k.mat": "got suffix '.mat', expected one of .npy",
        "short.cfl": "holds 4096 numbers, expected 512",
        "alone.hdr": "alone.cfl is missing beside it",
        "empty.npy": "the file is empty",
        "empty.h5": "the file is empty",
        "real.npy": "expected complex numbers",
        "other.h5": "has picture inside, expected 'kspace' of fastMRI",
    }
    for name, words in cases.items():
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            read_kspace(tmp_path / name)
    with pytest.raises(ValueError, match="slice: got 3, expected 0"):
        read_kspace(tmp_path / "one.npy", slice=3)
