"""The unit in which levels are typed and printed: gray levels of 255, or that of the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from icgn.datasets import Container, Picture, PictureError, open_stack
from icgn.pictures import Note
from icgn.pictures.ranges import UNIT, Range, spread

TENSORS = (".npy", ".pt", ".safetensors")
"""Suffixes of measurements that are not pictures."""

# No Gaussian noise is larger than this part of all that a picture varies: its own quantiles are six times as far apart.
_PLAUSIBLE = 1 / 3
# Levels below this part of all that a picture varies are nothing to remove: a fifth of a gray level of a stretched one.
_NOTHING = 1 / 255 / 5


@dataclass(frozen=True)
class Unit:
    """What levels of one file are given and printed in.

    Attributes
    ----------
    name : str
        in words.
    scale : float
        of an intensity: what 1 is.
    file : (float, float)
        the numbers of the file that are the intensities 0 and 1.
    other : float
        the scale of the unit that a user may have meant instead; 0 if there is none.
    """

    name: str
    scale: float
    file: Range = (0.0, 1.0)
    other: float = 0.0

    @property
    def gray(self) -> bool:
        """Whether levels are gray levels of 255."""
        return self.name == GRAY_LEVELS

    def number(self, intensity: float) -> float:
        """The number in the file that an intensity is."""
        return self.file[0] + intensity * (self.file[1] - self.file[0])

    def intensity(self, option: str, value: float) -> float:
        """The intensity of a level that an option gives; ``ValueError`` naming it for one above 255 gray levels."""
        if self.gray and value > 255:
            raise ValueError(f"{option}: got {value:g}, expected a number up to 255: gray levels of an 8-bit picture")
        return value / self.scale

    def limits(self, range: Range) -> Range:
        """The intensities of two numbers of the file."""
        low, high = ((v - self.file[0]) / (self.file[1] - self.file[0]) for v in range)
        return low, high


GRAY_LEVELS = "gray levels"
OWN = "in the unit of the file"

INTENSITIES = Unit(GRAY_LEVELS, 255.0)
"""The unit of a tensor, which is no file of pictures."""


def unit_of(container: Container | None, range: Range) -> Unit:
    """The unit of a file: gray levels where its type or its numbers say what is white, else its own.

    Parameters
    ----------
    container : Container or None
        what the file is.
    range : (float, float)
        the numbers that are the intensities 0 and 1.
    """
    if container is None:
        return INTENSITIES
    width = range[1] - range[0]
    if _typed(container):
        return Unit(GRAY_LEVELS, 255.0, range, 0.0 if width in (1.0, 255.0) else width)
    if range == UNIT:
        return Unit(GRAY_LEVELS, 255.0, range, 1.0)
    return Unit(OWN, width, range, 255 * width)


def _typed(container: Container) -> bool:
    """Whether the type of a file says what is white."""
    return container.range is not None and (container.slope, container.intercept) == (1, 0)


def words_of(note: Note, unit: Unit, range: Range) -> str:
    """A note about a picture in the unit of its file; `range` was that of the model, in intensities."""
    if note.topic == "scale":
        numbers = words_of_values(*(unit.number(v) for v in range))
        return f"{numbers} are taken as the range of the model"
    hint = ""
    # A level that would be right in intensities; it would be so only of pictures in [0, 1].
    if note.topic == "range" and unit.gray and range == UNIT:
        level, least, most = note.levels
        hint = f"; did you mean {255 * 255 * level:g}?" if level < least <= 255 * level <= most else ""
    if note.levels and unit.gray and unit.other:
        hint += f" ({_in_file(unit, note.levels)})"
    return note.text(scale=unit.scale, unit=unit.name) + hint


def told_unit(unit: Unit) -> str:
    """What a gray level is in the numbers of the file, in words, where these are others."""
    return f"; 1 gray level is {unit.other / 255:.4g} in the file" if unit.gray and unit.other else ""


def in_words(unit: Unit, level: float) -> str:
    """A level in gray levels, and where the numbers of the file are others in these too."""
    told = f"{unit.scale * level:.3g} {unit.name}"
    return f"{told} ({_in_file(unit, (level,))})" if unit.gray and unit.other else told


def _in_file(unit: Unit, levels: tuple[float, ...]) -> str:
    return ", ".join(f"{unit.other * level:.4g}" for level in levels) + " in the unit of the file"


def check_typed(option: str, value: float | None, zero: bool) -> None:
    """Raise ``ValueError`` naming the option for a level that is none in any unit; 0 is one where allowed."""
    if value is not None and not (0 <= value < math.inf and (zero or value > 0)):
        raise ValueError(f"{option}: got {value:g}, expected a number {'from 0 on' if zero else 'above 0'}")


def level_of(option: str, value: float, unit: Unit, pixels: Tensor, *, tight: bool) -> tuple[float, str]:
    """The intensity of a level as it is typed, and a warning if it cannot be meant in the unit of the file.

    A level that no noise of the picture can have, or that is nothing beside it, is taken in the other unit, if one can
    have it there.

    Parameters
    ----------
    option : str
        its name.
    value : float
        what was typed.
    unit : Unit
        of the file.
    pixels : Tensor
        the picture.
    tight : bool
        whether it is a level of noise, not one that is asked to be removed, which may be several times as large.

    Raises
    ------
    ValueError
        naming the option, for a level above 255 gray levels.
    """
    level, varies = value / unit.scale, spread(pixels)
    most, least = (_PLAUSIBLE if tight else 1.0) * varies, _NOTHING * varies
    if varies == 0 or level == 0 or least <= level <= most:
        return unit.intensity(option, value), ""
    if unit.other and least <= value / unit.other <= most:
        other = f"the unit of the file (1 gray level is {unit.other / 255:.4g})" if unit.gray else "gray levels of 255"
        return value / unit.other, (
            f"{option} {value:g} is taken in {other}: {'as gray levels' if unit.gray else 'in the unit of the file'}"
            f" it would be {level / varies:.2g} times all that the picture varies"
        )
    if level <= most:
        return unit.intensity(option, value), ""
    level = unit.intensity(option, value)
    if level > varies:
        return level, (f"{option} {value:g} is more than all that the picture varies, {in_words(unit, varies)}")
    return level, ""


def words_of_values(low: float, high: float) -> str:
    """The least and the largest number of a file in words, with digits enough to tell them apart."""
    size, apart = max(abs(low), abs(high)), high - low
    digits = 5 + (max(0, math.floor(math.log10(size / apart))) if apart > 0 else 0)
    return f"values {low:.{digits}g} to {high:.{digits}g}"


def picture_unit(measured: Picture | Tensor) -> Unit:
    """The unit of a picture, or of a tensor."""
    return unit_of(measured.container, measured.range) if isinstance(measured, Picture) else INTENSITIES


def is_tensor(path: Path) -> bool:
    """Whether the suffix of a file is that of a measurement and not of a picture."""
    return path.suffix.lower() in TENSORS


def has_own_unit(path: Path) -> bool:
    """Whether levels of a file may be in a unit of its own: its type does not say what is white."""
    if is_tensor(path):
        return True
    try:
        with open_stack(path) as stack:
            found = stack.container
    except PictureError:
        return False  # an error of its own when it is read
    return not _typed(found)


def parse_range(text: str | None) -> Range | str | None:
    """The range that ``--range`` gives, in the unit of the file: two numbers, ``"auto"`` or None.

    Raises
    ------
    ValueError
        naming the option, for anything else.
    """
    if text is None or text == "auto":
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not -1e300 < low < high < 1e300:
        raise ValueError(
            f"--range: got {text!r}, expected LOW,HIGH in the unit of the file, the lower first, e.g. 0,4095, or auto"
        )
    return low, high
