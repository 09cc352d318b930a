"""Results on their way into files: nothing is clipped without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from icgn.cli.references import rebased
from icgn.datasets import Container, Picture, PictureError, create_stack, depth, open_stack, write_picture
from icgn.datasets.formats import named
from icgn.pictures import Restored
from icgn.pictures.ranges import Range

# Part of the pixels that may lie outside [0, 1] and be limited to it: overshoot of a few.
_FEW = 0.01
# A result that is narrower than so many levels of 16 bits would lose its shades.
_FAINT = 255 / 65535


def marked(target: Path) -> Path:
    """The name of a result that is not converged: ``r.png`` becomes ``r.not-converged.png``."""
    kind = named(target)
    name = target.name
    suffix = next((s for s in (kind.suffixes if kind else ()) if name.lower().endswith(s)), target.suffix)
    at = len(name) - len(suffix)
    return target.with_name(f"{name[:at]}.not-converged{name[at:]}")


def write_result(target: Path, restored: Restored) -> tuple[str, ...]:
    """Write a restored picture; returns what is to be said about it.

    Floats outside [0, 1] go into kinds of file that hold them. In one that holds levels only, those of a file are
    stretched to the levels, which is said; a measurement, whose unit is unknown, is refused.

    Raises
    ------
    PictureError
        if it cannot be written, with what to do.
    """
    picture = restored.picture
    said: tuple[str, ...] = ()
    kind = named(target)
    floats = kind is not None and any(t.startswith("float") for t in kind.dtypes)
    if picture.container is None and restored.range != (0, 1):
        low, high = float(picture.pixels.min()), float(picture.pixels.max())
        if floats:
            return write_picture(target, _in_floats(picture))
        if _outside(picture) > _FEW or high - low < _FAINT:
            holds = "this kind of file" if kind is None else kind.kind
            raise PictureError(
                f"{target}: not written: the result is in the unit of the measurement, from {low:.4g} to {high:.4g},"
                f" and {holds} holds 0 to 1 in coarse levels; write .tif or .npy, which hold it"
            )
    untyped = picture.container is not None and picture.container.range is None and picture.range == (0, 1)
    if untyped and not floats and _outside(picture) > _FEW:
        picture = rebased(picture, (float(picture.pixels.min()), float(picture.pixels.max())))
    notes = write_picture(target, picture)
    if picture.container is None and kind is not None and picture.bits > depth(target):
        said = (f"written with {depth(target)} bits, all that this format holds",)
    return (*said, *notes)


def write_values(target: Path, values: Tensor, limits: Range) -> tuple[str, ...]:
    """Write numbers (H, W): as they are where the kind of file holds floats, else as levels from black to white.

    Parameters
    ----------
    target : Path
        the file.
    values : Tensor
        in their own unit.
    limits : (float, float)
        the numbers that are black and white in a file that holds levels only.

    Returns
    -------
    tuple of str
        what is to be said about it.
    """
    kind = named(target)
    if kind is not None and any(t.startswith("float") for t in kind.dtypes):
        return write_picture(target, _in_floats(Picture(values[None].float(), bits=16)))
    low, high = limits
    levels = (values[None].float() - low) / (high - low or 1.0)
    bits = min(16, depth(target))
    notes = write_picture(target, Picture(levels, bits=16 if bits > 8 else 8))
    return (f"black is {low:.4g} and white {high:.4g}; .tif, .npy and .nii hold the numbers as they are", *notes)


def write_copy(target: Path, source: Path, range: Range) -> tuple[str, ...]:
    """Write the numbers of a file as they are, where nothing has changed: exactly, also those of floats."""
    with open_stack(source) as stack, create_stack(target, stack, range=range) as writer:
        page = stack.page(0)
        if writer.done == 0:
            writer.write(page.values, page.alpha)
        return writer.finish()


def _outside(picture: Picture) -> float:
    return float(((picture.pixels < 0) | (picture.pixels > 1)).double().mean())


def _in_floats(picture: Picture) -> Picture:
    """The picture as numbers in its own unit: float32."""
    channels, height, width = picture.pixels.shape
    samples = channels + (picture.alpha is not None)
    shape, axes = ((height, width, samples), "YXS") if samples > 1 else ((height, width), "YX")
    container = Container("picture", "float32", shape, axes, 32, alpha=picture.alpha is not None)
    return replace(picture, container=container, bits=16, range=(0.0, 1.0))
