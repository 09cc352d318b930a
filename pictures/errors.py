"""How large the errors of one denoised picture are, by a calibration that the card of its model holds."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from icgn.functionals.noise import White
from icgn.pictures.result import Restored
from icgn.regularizers import ModelError, read_card
from icgn.regularizers.pretrained import DEFAULT_MODELS
from icgn.uncertainty import ErrorModel

# Levels that differ by less than this are one.
_SAME = 0.02


def error_model(name: str | Path | None, channels: int) -> ErrorModel:
    """The calibration of a model, by default of that for pictures of so many channels.

    Parameters
    ----------
    name : str or path, optional
        of a shipped model, or of a file with a card.
    channels : int
        1 or 3.

    Raises
    ------
    ValueError
        for a model without a card, or without a calibration in it.
    """
    model = name or DEFAULT_MODELS[channels]
    try:
        card = read_card(model)
    except ModelError as error:
        raise ValueError(f"model: got {str(model)!r}, expected one whose errors are calibrated") from error
    return ErrorModel.of_card(card)


def error_map(restored: Restored, before: Tensor, model: ErrorModel, *, blocks: int = 1) -> Tensor:
    """Half widths of the intervals of the pixels of a denoised picture, or of blocks, in intensities, (C, H, W).

    Parameters
    ----------
    restored : Restored
        of denoising.
    before : Tensor
        the noisy pixels (C, H, W).
    model : ErrorModel
        of the regularizer that was used.
    blocks : int
        side of a block.

    Raises
    ------
    ValueError
        for what the calibration is not for: noise that is not white, a level that is not that of the noise, another
        weight than 1, a picture of another size, and as :meth:`icgn.uncertainty.ErrorModel.half_widths`.
    """
    noise, sigma = restored.noise, restored.sigma
    if noise.noise is not None and (not isinstance(noise.noise, White) or noise.noise.is_map):
        raise ValueError(
            f"noise: got noise that is {noise.noise.text()}, expected white noise: errors are calibrated for it"
        )
    if abs(noise.to_remove - sigma) > _SAME * sigma:
        raise ValueError(f"sigma: got {sigma:g}, expected the level of the noise, {noise.to_remove:g}")
    if bool((restored.solution.weight - 1).abs().max() > _SAME):
        raise ValueError(
            f"weight: got {restored.solution.weight.tolist()}, expected 1, for which errors are calibrated"
        )
    after = restored.picture.pixels
    return model.half_widths(after[None], before.to(after)[None], sigma, blocks=blocks, range=restored.range)[0]
