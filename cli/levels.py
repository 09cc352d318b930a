"""Numbers given on the command line, in gray levels, and noise levels found for a picture, in intensities."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from icgn.cli.screen import say
from icgn.datasets import estimate_sigma, is_jpeg, measure_sigma, scaled_luma

Reach = tuple[float, float] | None
"""Trained range of a model, in intensities."""


def check_level(option: str, value: float | None, zero: bool) -> None:
    """Raise ``ValueError`` naming the option unless a level is None or in 0 to 255, 0 included where allowed."""
    if value is not None and not (0 <= value <= 255 and (zero or value > 0)):
        bounds = "from 0 to 255" if zero else "above 0, up to 255"
        raise ValueError(f"{option}: got {value:g}, expected a number {bounds}: gray levels of an 8-bit picture")


def check_tolerance(option: str, value: float, unit: str) -> None:
    """Raise ``ValueError`` naming the option unless a tolerance is positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{option}: got {value:g}, expected a positive number, e.g. {unit}")


def parse_strength(text: str) -> float | str:
    """The factor of the regularizer that ``--strength`` gives, or the rule that finds it.

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
            f"--strength: got {text!r}, expected a finite number >= 0 (1 is the trained strength), or"
            " discrepancy or sure, which find it from the noise level"
        )
    return weight


def say_strength(asked: float | str, found: Tensor) -> None:
    """Say which strengths (B,) a rule has found, if it was a rule that was asked for."""
    if isinstance(asked, str):
        strengths = ", ".join(f"{w:.3g}" for w in found.tolist())
        say("note", f"strength {strengths}, found by {asked}" + " (one per channel)" * (len(found) > 1))


def denoising_level(source: Path, noisy: Tensor, clean: Tensor | None, given: float | None, reach: Reach) -> float:
    """Noise level of a picture to denoise: as given (gray levels), measured against the clean one, or estimated.

    Parameters
    ----------
    source : Path
        named in messages.
    noisy, clean : Tensor
        (C, H, W), intensities.
    given : float, optional
        in gray levels.
    reach : (float, float), optional
        trained range, in intensities, to which a level that was not given is clamped.
    """
    if given is not None:
        _tell_if_outside(source, given, reach)
        return given / 255
    if clean is None:
        return estimated_level(source, noisy, reach)
    level = measure_sigma(noise_part(source, noisy), noise_part(source, clean))
    return _clamped(source, _told(source, level, "measured against the reference"), reach)


def estimated_level(source: Path, picture: Tensor, reach: Reach) -> float:
    """Noise level of a picture (C, H, W), estimated and clamped to the trained range, in intensities."""
    level = _told(source, estimate_sigma(noise_part(source, picture)), "estimated")
    if is_jpeg(source):
        say("note", f"{source}: JPEG compression leaves noise that is not white; if some is left, give a higher level")
    return _clamped(source, level, reach)


def noise_part(source: str | Path, picture: Tensor) -> Tensor:
    """What the noise of a picture (C, H, W) is to be measured in, by the name of its file: of a JPEG the luma."""
    return scaled_luma(picture) if is_jpeg(source) else picture


def regularizer_level(source: Path, noise: float, given: float | None, reach: Reach, smoothing: float = 1.0) -> float:
    """Sigma of the regularizer, in intensities.

    As given (gray levels), or the noise times `smoothing`, clamped to the trained range.
    """
    if given is None:
        low, high = reach or (0.0, math.inf)
        # That a multiple of the noise ends at the range is no news; that the noise is outside is.
        return _clamped(source, noise, reach) if smoothing == 1 else min(max(smoothing * noise, low), high)
    _tell_if_outside(source, given, reach)
    return given / 255


def _told(source: Path, level: float, how: str) -> float:
    say("note", f"{source}: noise of sigma {255 * level:.2f} gray levels, {how}")
    return level


def _tell_if_outside(source: Path, given: float, reach: Reach) -> None:
    if reach and given > 0 and not reach[0] <= given / 255 * (1 + 1e-6) <= reach[1] * (1 + 2e-6):
        hint = f"; did you mean {given * 255:g}?" if given < 1 else ""
        say("warning", f"{source}: sigma {given:g} is outside the trained range {_range(reach)}{hint}")


def _clamped(source: Path, level: float, reach: Reach) -> float:
    # A level that was given in gray levels may miss the end of the range by rounding alone.
    if reach and not reach[0] * (1 - 1e-6) <= level <= reach[1] * (1 + 1e-6):
        level = min(max(level, reach[0]), reach[1])
        say("warning", f"{source}: clamped to {255 * level:g}, the trained range being {_range(reach)}")
    return level


def _range(reach: tuple[float, float]) -> str:
    return f"{255 * reach[0]:g} to {255 * reach[1]:g}"
