"""Sequences of photographs, each read when it is needed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from icgn.compat import keyword_only
from icgn.datasets.folders import list_pictures
from icgn.datasets.noise import luma
from icgn.datasets.picture import Picture, read_picture
from icgn.datasets.stack import PictureError

_INNER = ("images", "data/images")
_LAYOUTS = ("BSDS500/images", "BSDS500/data/images", "BSR/BSDS500/data/images", "BSDS500-master/BSDS500/data/images")
_COUNTS = {"train": 200, "val": 100, "test": 200}
_SPLITS = (*_COUNTS, "val-rest")
_NAMES_FILE = "BSD68.txt"
# The repository that deepinv downloads too; the checksum is the one it verifies.
_ARCHIVE = "https://github.com/BIDS/BSDS500/archive/refs/heads/master.zip"
_ARCHIVE_HASH = "md5:7bfe17302a219367694200a61ce8256c"

# Photographs that the scikit-image wheel contains: name, function of skimage.data.
_COLOUR = {"astronaut": "astronaut", "chelsea": "chelsea", "coffee": "coffee", "motorcycle": "stereo_motorcycle",
           "rocket": "rocket"}  # fmt: skip
_GRAY = {"camera": "camera", "clock": "clock", "coins": "coins", "moon": "moon"}


@dataclass(frozen=True, eq=False)
class Sample:
    """One photograph.

    Attributes
    ----------
    name : str
        unique in its collection; for files the name without folder and suffix, or with it where that is not unique.
    image : Tensor
        float32 (C, H, W), intensities in [0, 1]; C is 1 in gray collections and 3 in colour ones.
    """

    name: str
    image: Tensor


class Photographs(Sequence[Sample]):
    """A sequence of photographs, each read anew whenever it is taken, so that any number fits in memory.

    Slices are collections again. Equal indices give equal samples, in any order and process.

    Parameters
    ----------
    sources : iterable of (str, callable)
        name of each photograph, and a function that returns its pixels (C, H, W).
    skipped : iterable of str
        files that were left out because they cannot be read.
    """

    @keyword_only
    def __init__(self, sources: Iterable[tuple[str, Callable[[], Tensor]]], *, skipped: Iterable[str] = ()) -> None:
        self._sources = tuple(sources)
        self.skipped = tuple(skipped)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order; nothing is read."""
        return tuple(name for name, _ in self._sources)

    def find(self, name: str) -> Sample:
        """Read the photograph of that name.

        Raises
        ------
        KeyError
            if there is none; the message lists some that are.
        """
        if name not in self.names:
            raise KeyError(f"{name}: not among the {len(self)} photographs {', '.join(self.names[:10])}...")
        return self[self.names.index(name)]

    def __len__(self) -> int:
        return len(self._sources)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Photographs: ...
    def __getitem__(self, index: int | slice) -> Sample | Photographs:
        if isinstance(index, slice):
            return Photographs(self._sources[index], skipped=self.skipped)
        name, load = self._sources[index]
        return Sample(name, load())

    def __iter__(self) -> Iterator[Sample]:
        return (Sample(name, load()) for name, load in self._sources)

    def __repr__(self) -> str:
        return f"<{len(self)} photographs: {', '.join(self.names[:3])}{', ...' if len(self) > 3 else ''}>"


def to_gray(picture: Picture) -> Tensor:
    """Compute the luma, float32 (1, H, W) in [0, 1]; of an 8-bit picture exactly that of Pillow's ``convert("L")``.

    A 16-bit picture, which Pillow cannot convert, gets the same weights (ITU-R 601-2) without rounding.
    """
    if len(picture.pixels) == 1:
        return picture.pixels
    if picture.bits == 16:
        return luma(picture.pixels.double()).float()
    levels = (picture.pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return _tensor(np.asarray(Image.fromarray(levels.permute(1, 2, 0).numpy()).convert("L")))


@keyword_only
def bundled(*, gray: bool = False) -> Photographs:
    """Collect the photographs inside the scikit-image package: nothing is downloaded.

    Parameters
    ----------
    gray : bool
        False: the five colour photographs; True: those in gray, and four that are gray by themselves, among them
        ``camera``.
    """
    table = {**_COLOUR, **_GRAY} if gray else _COLOUR
    return Photographs((name, partial(_load_bundled, table[name], gray)) for name in sorted(table))


@keyword_only
def folder(path: str | os.PathLike[str], *, gray: bool = False) -> Photographs:
    """Collect the photographs of a folder, recognized by their content, in the order of their names.

    Every file is read once here, and each that cannot be is left out with a warning that names it, and listed in
    ``skipped``: afterwards the length is right and every index works. Transparency is ignored.

    Parameters
    ----------
    path : path
        the folder; folders inside it are not entered, and names that begin with a dot are ignored.
    gray : bool
        True: colour becomes gray by :func:`to_gray`; False: gray becomes three equal channels.

    Raises
    ------
    FileNotFoundError
        if `path` is no folder, or holds no picture that can be read.
    """
    files = list_pictures(path)
    good, skipped = [], []
    for file in files:
        try:
            read_picture(file)
            good.append(file)
        except PictureError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            skipped.append(file.name)
    if not good:
        raise FileNotFoundError(f"{path}: none of its {len(files)} pictures can be read: {', '.join(skipped[:5])}")
    return _of_files(good, gray, skipped)


@keyword_only
def bsds500(root: str | os.PathLike[str], *, split: str = "train", gray: bool = False) -> Photographs:
    """Collect photographs of the Berkeley Segmentation Dataset (BSDS500), in the order of their names.

    Parameters
    ----------
    root : path
        BSDS500 itself, the folder that holds it as ``BSDS500/images/{train,val,test}``, or one of the published
        archives unpacked:
        ``BSDS500/data/images``, ``BSR/BSDS500/data/images`` or ``BSDS500-master/BSDS500/data/images``.
    split : {"train", "val", "test", "val-rest"}
        200, 100 and 200 photographs; ``val-rest`` are the 32 of val that are not in BSD68.
    gray : bool
        True: gray by :func:`to_gray`.

    Raises
    ------
    ValueError
        for an unknown split.
    FileNotFoundError
        if the photographs, or for ``val-rest`` the list ``BSD68.txt``, are not where they are expected.
    """
    if split not in _SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(_SPLITS)}")
    base = "val" if split == "val-rest" else split
    files = list_pictures(_images_of(root) / base)
    if len(files) != _COUNTS[base]:
        warnings.warn(f"{root}: {len(files)} photographs in {base}, expected {_COUNTS[base]}", stacklevel=2)
    if split == "val-rest":
        left_out = set(_bsd68_names(root))
        files = [f for f in files if f.stem not in left_out]
    return _of_files(files, gray)


@keyword_only
def bsd68(root: str | os.PathLike[str], *, gray: bool = True) -> Photographs:
    """Collect the 68 test photographs of the denoising literature: those of BSDS500 val that ``root/BSD68.txt`` lists.

    Parameters
    ----------
    root : path
        as for :func:`bsds500`, and beside the photographs the file ``BSD68.txt``: one name without suffix per line.
    gray : bool
        True: gray by :func:`to_gray`.

    Raises
    ------
    FileNotFoundError
        if the list, the photographs, or some of them are missing.
    """
    names = _bsd68_names(root)
    place = _images_of(root) / "val"
    files = {f.stem: f for f in list_pictures(place)}
    missing = [n for n in names if n not in files]
    if missing:
        raise FileNotFoundError(f"{place}: {len(missing)} of {len(names)} photographs are missing: {missing[:5]}")
    return _of_files([files[n] for n in names], gray)


@keyword_only
def download_bsds500(
    root: str | os.PathLike[str], *, url: str = _ARCHIVE, known_hash: str | None = _ARCHIVE_HASH
) -> Photographs:
    """Download BSDS500 (about 70 MB) into `root`, verify and unpack it; returns its train split in colour.

    Parameters
    ----------
    root : path
        where it goes; afterwards it is the root for :func:`bsds500`. An archive that is there already and has the
        right checksum is not downloaded again.
    url : str
        archive; default the repository ``BIDS/BSDS500`` on GitHub. The original one,
        http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz, works too.
    known_hash : str or None
        ``"md5:..."`` or ``"sha256:..."`` of the archive; to be given with another `url`. None accepts whatever comes,
        and pooch logs its SHA-256.

    Raises
    ------
    ModuleNotFoundError
        without pooch (``pip install icgn[data]``).
    ValueError
        if the checksum differs, from pooch; nothing is unpacked.
    """
    try:
        import pooch
    except ImportError:
        raise ModuleNotFoundError("download_bsds500 needs pooch, expected: pip install 'icgn[data]'") from None
    name = url.rsplit("/", 1)[-1]
    unpack = (pooch.Unzip if name.endswith(".zip") else pooch.Untar)(extract_dir=".")
    pooch.retrieve(url, known_hash, fname=f"BSDS500-{name}", path=Path(root), processor=unpack, progressbar=False)
    return bsds500(root)


def _of_files(files: Sequence[Path], gray: bool, skipped: Iterable[str] = ()) -> Photographs:
    stems = [f.stem for f in files]
    names = [f.stem if stems.count(f.stem) == 1 else f.name for f in files]
    return Photographs(((n, partial(_load_file, f, gray)) for n, f in zip(names, files, strict=True)), skipped=skipped)


def _load_file(file: Path, gray: bool) -> Tensor:
    picture = read_picture(file)
    return to_gray(picture) if gray else picture.pixels.expand(3, -1, -1).contiguous()


def _load_bundled(function: str, gray: bool) -> Tensor:
    import skimage.data

    # The stereo pair comes with its disparity; its left view is the photograph.
    loaded: Any = getattr(skimage.data, function)()
    pixels = _tensor(loaded[0] if isinstance(loaded, tuple) else loaded)
    return to_gray(Picture(pixels)) if gray else pixels


def _tensor(levels: np.ndarray[Any, Any]) -> Tensor:
    """8-bit levels (H, W) or (H, W, 3) as intensities (C, H, W)."""
    planes = levels[None] if levels.ndim == 2 else np.moveaxis(levels, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32)) / 255


def _images_of(root: str | os.PathLike[str]) -> Path:
    for layout in (*_LAYOUTS, *_INNER):
        place = Path(root) / layout
        if place.is_dir() and (layout in _LAYOUTS or (place / "train").is_dir()):
            return place
    expected = ", ".join(f"{layout}/{{train,val,test}}" for layout in _LAYOUTS)
    raise FileNotFoundError(f"{root}: no BSDS500 here, expected one of the folders {expected} in it, or BSDS500 itself")


def _bsd68_names(root: str | os.PathLike[str]) -> list[str]:
    # The list lies beside the photographs or beside their folder, whichever of both the root is.
    places = [Path(root), Path(root) / "BSDS500", Path(root).absolute().parent]
    file = next((p / _NAMES_FILE for p in places if (p / _NAMES_FILE).is_file()), Path(root) / _NAMES_FILE)
    try:
        names = file.read_text(encoding="utf-8").split()
    except OSError as error:
        raise FileNotFoundError(f"{file}: cannot be read, expected the 68 names of BSD68, one per line") from error
    if len(names) != 68 or len(set(names)) != 68:
        raise ValueError(f"{file}: got {len(names)} names ({len(set(names))} different), expected the 68 of BSD68")
    return names
