"""Files of k-space as fastMRI, ISMRMRD and BART lay them out, written by h5py and NumPy."""

from __future__ import annotations

import numpy as np

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{h}</x><y>{w}</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>{rh}</x><y>{rw}</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{center}</center>
</kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"""

_INDEX = np.dtype(
    [(f"kspace_encode_step_{i}", "<u2") for i in (1, 2)]
    + [(n, "<u2") for n in ("average", "slice", "contrast", "phase", "repetition", "set", "segment")]
    + [("user", "<u2", (8,))]
)
_HEAD = np.dtype(
    [
        ("version", "<u2"), ("flags", "<u8"), ("number_of_samples", "<u2"), ("active_channels", "<u2"),
        ("center_sample", "<u2"), ("trajectory_dimensions", "<u2"), ("idx", _INDEX),
    ]
)  # fmt: skip


def header(height, width, picture=None, center=None):
    rh, rw = picture or (height, width)
    return HEADER.format(
        h=height, w=width, rh=rh, rw=rw, last=width - 1, center=width // 2 if center is None else center
    )


def write_fastmri(path, kspace, picture=None):
    """Slices (S, C, H, W) of k-space as fastMRI stores them."""
    import h5py

    with h5py.File(path, "w") as file:
        file["kspace"] = kspace.astype(np.complex64)
        if picture is not None:
            file["ismrmrd_header"] = header(*kspace.shape[-2:], picture)


def write_ismrmrd(path, kspace, noise=None, *, first=0, reverse=(), slice=0, change=None, **about):
    """One readout for each line (C, H, W) that is not zero, the line `first` being that of step 0."""
    import h5py

    coils, height, width = kspace.shape
    readout = np.dtype([("head", _HEAD), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32))])
    lines = [w for w in range(width) if kspace[:, :, w].any()]
    scans = [] if noise is None else [noise]
    table = np.zeros(len(scans) + len(lines), readout)
    for number, samples in enumerate([*scans, *(kspace[:, :, w] for w in lines)]):
        head, noisy = table["head"][number], number < len(scans)
        line = 0 if noisy else lines[number - len(scans)]
        turned = line in reverse and not noisy
        head["flags"] = 1 << 18 if noisy else 1 << 21 if turned else 0
        samples = samples[:, ::-1] if turned else samples
        head["number_of_samples"], head["active_channels"] = samples.shape[1], coils
        head["center_sample"] = height // 2
        head["idx"]["kspace_encode_step_1"], head["idx"]["slice"] = (0 if noisy else line - first), slice
        pairs = np.ascontiguousarray(samples.astype(np.complex64)).view(np.float32)
        table["data"][number], table["traj"][number] = pairs.ravel(), np.zeros(0, np.float32)
        if change is not None and not noisy:
            change(table, number)
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("dataset/data", (len(table),), readout)
        for i, row in enumerate(table):
            stored[i] = row
        file["dataset/xml"] = np.array([header(height, width, center=width // 2 - first, **about)], dtype=object)


def write_cfl(path, array, axes):
    """An array whose axes are those numbers of BART's sixteen."""
    sizes = [1] * 16
    for axis, size in zip(axes, array.shape, strict=True):
        sizes[axis] = size
    order = np.argsort(axes)
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, sizes)) + " \n")
    array.transpose(order).astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))
