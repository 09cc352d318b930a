"""Clean pictures to compare with, brought to the intensities of the noisy ones."""

from __future__ import annotations

from dataclasses import replace

from icgn.datasets import Container, Picture
from icgn.pictures.ranges import Range


def reference_range(noisy: Container, noisy_range: Range, clean: Container, clean_range: Range) -> Range:
    """The numbers of a clean file that are the intensities 0 and 1 of the noisy one.

    Files whose type says what is white have their own, and so have numbers in [0, 1]; all others are numbers in the
    unit of the noisy file.
    """
    if clean_range == (0, 1) or (clean.range is not None and (noisy.range is not None or noisy_range == (0, 1))):
        return clean_range
    return noisy_range


def rebased(picture: Picture, file: Range) -> Picture:
    """The picture with other numbers of its file as the intensities 0 and 1."""
    if picture.range == file:
        return picture
    low, high = picture.range
    numbers = low + picture.pixels.double() * (high - low)
    pixels = ((numbers - file[0]) / (file[1] - file[0])).to(picture.pixels.dtype)
    return replace(picture, pixels=pixels, range=file)
