"""Options as they are typed, checked: levels in gray levels, tolerances, the weight, models and devices by name."""

from __future__ import annotations

import math
import re

import torch

from icgn.regularizers import ConvexRegularizer

# Arguments of the library that options give, at the beginning of its messages; some options have shorter names.
_ARGUMENT = re.compile(r"^(kernel|mask|physics|noise|sigma|weight|border|maps|angles|unattenuated)\b")
_SHORT = {"unattenuated": "flat"}


def as_option(message: str) -> str:
    """A message of the library about an argument as one about the option of that name."""
    return _ARGUMENT.sub(lambda found: f"--{_SHORT.get(found[1], found[1])}", message)


def check_level(option: str, value: float | None, zero: bool) -> float | None:
    """A level in gray levels as intensity.

    Raises
    ------
    ValueError
        naming the option, unless the level is None or in 0 to 255, 0 included where allowed.
    """
    if value is None:
        return None
    if not (0 <= value <= 255 and (zero or value > 0)):
        bounds = "from 0 to 255" if zero else "above 0, up to 255"
        raise ValueError(f"{option}: got {value:g}, expected a number {bounds}: gray levels of an 8-bit picture")
    return value / 255


def check_tolerance(option: str, value: float, unit: str) -> float:
    """The tolerance; ``ValueError`` naming the option unless it is positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{option}: got {value:g}, expected a positive number, e.g. {unit}")
    return value


def parse_weight(text: str) -> float | str:
    """The factor of the regularizer that ``--weight`` gives, or the rule that finds it.

    Raises
    ------
    ValueError
        for anything but a finite number >= 0, ``discrepancy`` or ``sure``.
    """
    if text in ("discrepancy", "sure"):
        return text
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ValueError(
            f"--weight: got {text!r}, expected a finite number >= 0 (1 is the trained weight), or"
            " discrepancy or sure, which find it from the noise level"
        )
    return weight


def check_channels(regularizer: ConvexRegularizer, channels: int) -> None:
    """Raise ``ValueError`` if a picture of so many channels cannot be restored: gray, by a model for colour."""
    if regularizer.channels not in (None, 1, channels):
        raise ValueError(
            f"gray picture, but the model takes {regularizer.channels} channels; use --model conditional-gray"
        )


def find_device(name: str | None) -> torch.device:
    """The device of that name; without a name CUDA where there is one, else the CPU.

    Raises
    ------
    ValueError
        naming ``--device``, for one that torch does not have here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Certificates and counters are float64, which Apple's mps does not have.
        torch.zeros(1, dtype=torch.float64, device=device)
    # Torch reports a device that it lacks by RuntimeError, AssertionError or NotImplementedError.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device: got {name!r}, expected one that torch has here, e.g. cpu ({reason})") from error
    return device
