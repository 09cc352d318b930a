"""The pictures that a model is trained and validated on."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icgn import datasets
from icgn.compat import keyword_only

# Side and greatest number of validation pictures of a folder: a validation takes seconds.
_CROP, _VALIDATE = 160, 8
# A prime, so that every column of pictures of usual widths is sampled.
_SAMPLED = 97
_BSDS500_LICENCE = (
    "BSDS500: non-commercial research and educational purposes. These are the terms on which its authors offer the"
    " photographs; see https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"
)
_OWN_LICENCE = "not recorded: pictures of whoever ran the training"


@keyword_only
@dataclass(frozen=True, eq=False)
class Pictures:
    """What a model is trained and validated on.

    Attributes
    ----------
    name, licence : str
        of the data, for the card.
    training : list of Tensor
        pictures (C, H, W): bytes where those hold them exactly, else floats in [0, 1].
    validation : list of Tensor
        pictures (C, H, W) in [0, 1].
    left_out : int
        number of pictures that could not be read or were too small.
    """

    name: str
    licence: str
    training: list[Tensor]
    validation: list[Tensor]
    _: KW_ONLY
    left_out: int = 0

    def __str__(self) -> str:
        missing = f", {self.left_out} left out" if self.left_out else ""
        return (
            f"{len(self.training)} pictures to train on, {len(self.validation)} other ones (crops) to validate on"
            + missing
        )

    def digest(self) -> str:
        """A hash by which a resumed run recognizes its pictures: of their shapes and about every hundredth number."""
        found = hashlib.sha256()
        for image in [*self.training, *self.validation]:
            found.update(repr((image.dtype, tuple(image.shape))).encode())
            found.update(image.flatten()[::_SAMPLED].contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def card(self) -> dict[str, Any]:
        """Describe the data in a model's card."""
        return {
            "name": self.name,
            "pictures": len(self.training),
            "validation_pictures": len(self.validation),
            "licence": self.licence,
        }


@keyword_only
def load_pictures(root: str | Path, channels: int, *, smallest: int = 1, crop: int | None = None) -> Pictures:
    """Read the pictures to train on: BSDS500, or a folder of photographs.

    BSDS500 is trained on by train and test, and validated on by every fourth picture of val that is not in BSD68. A
    folder is validated on by its last tenth by name, at least one picture and at most eight. Validation pictures are
    cropped to 160 x 160 pixels, or to the size given, at a place that depends on their number alone: the centre of a
    photograph has more detail than the rest, and a weight fitted there is too small. Pictures that cannot be read or
    are too small are left out with a warning that names them.

    Parameters
    ----------
    root : path
        root of BSDS500, as for :func:`icgn.datasets.bsds500`, with ``BSD68.txt``; or the folder.
    channels : int
        1 for gray, 3 for colour.
    smallest : int
        height and width that a picture must have.
    crop : int, optional
        side of the validation pictures: that of a patch for operators that know pictures of one size only.

    Raises
    ------
    ValueError
        if `channels` is neither 1 nor 3, or fewer than two pictures are left.
    FileNotFoundError
        if `root` is no folder or holds no pictures.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels: got {channels}, expected 1 for gray pictures or 3 for colour")
    missing: list[str] = []
    if _is_bsds500(root):
        name, licence = "BSDS500, train and test", _BSDS500_LICENCE
        names = ("train", "test", "val-rest")
        splits = {split: datasets.bsds500(root, split=split, gray=channels == 1) for split in names}
        training = [image for split in ("train", "test") for image in _large(splits[split], root, smallest, missing)]
        validation = _large(splits["val-rest"], root, smallest, missing)[::4]
    else:
        name, licence = f"folder {Path(root).resolve().name}", _OWN_LICENCE
        images = _large(datasets.folder(root, gray=channels == 1), root, smallest, missing)
        kept = len(images) - min(_VALIDATE, max(1, len(images) // 10))
        training, validation = images[:kept], images[kept:]
    if not training:
        raise ValueError(
            f"{root}: got {len(validation)} pictures of at least {smallest} x {smallest}, expected at least 2:"
            " one to train on, one to validate on"
        )
    crops = [_part(_floats(image), crop or _CROP, i) for i, image in enumerate(validation)]
    return Pictures(name, licence, training, crops, left_out=len(missing))


def _is_bsds500(root: str | Path) -> bool:
    try:
        datasets.bsds500(root, split="train")
    except FileNotFoundError:
        return False
    return True


def _large(pictures: datasets.Photographs, root: str | Path, smallest: int, missing: list[str]) -> list[Tensor]:
    """Read the pictures of a collection that are large enough; the names of the others are added to `missing`."""
    missing += pictures.skipped
    found = []
    for i, name in enumerate(pictures.names):
        try:
            image = pictures[i].image
        except datasets.PictureError as error:
            reason = f"{name}: {error}"
        else:
            height, width = image.shape[-2:]
            if min(height, width) >= smallest:
                found.append(_compact(image))
                continue
            reason = f"{Path(root) / name}: {height} x {width} pixels, expected at least {smallest} x {smallest}"
        missing.append(name)
        warnings.warn(f"left out: {reason}", stacklevel=3)
    return found


def _compact(image: Tensor) -> Tensor:
    """Store 8-bit pictures as bytes: photographs of a camera would fill the memory with floats."""
    levels = (image * 255).round().to(torch.uint8)
    return levels if torch.equal(_floats(levels), image) else image


def _floats(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _part(image: Tensor, most: int, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    free = [max(0, side - most) for side in image.shape[-2:]]
    top, left = (int(torch.randint(n + 1, (), generator=generator)) for n in free)
    return image[:, top : top + most, left : left + most].clone()
