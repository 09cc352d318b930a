"""One picture: its levels found, its channels arranged, restored and certified."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icgn.datasets import Picture
from icgn.functionals.noise import Noise, Poisson, PoissonGaussian, White
from icgn.pictures.counts import Stabilized, denoise_counts, with_offset
from icgn.pictures.defects import Cleared, clear
from icgn.pictures.levels import NoiseLevel, Note, described_level, estimated_level, fitted_level, model_level
from icgn.pictures.masks import percent
from icgn.pictures.models import ModelFor, as_batch, default_regularizer, has_local_levels
from icgn.pictures.noise_words import parse_noise
from icgn.pictures.ranges import UNIT, Range, RangeOption, check_level, find_range, fixed_range, reach_at
from icgn.pictures.result import Restored
from icgn.pictures.solving import Solved, solve_task
from icgn.pictures.tasks import Denoise, Inpaint, Task, known_part, with_data
from icgn.regularizers import LocalLevels
from icgn.regularizers.base import ConvexRegularizer, check_image
from icgn.solvers import Callback

# Part of the pixels on a bound that is worth a word, and that the measurement should explain.
_SAID, _MANY = 1e-2, 3e-2
# A residual of so many times the noise is not explained by it: right operators leave 1.1 times at most.
_MISFIT = 1.5
# Part of the pixels from which dead ones are left to the regularizer; fewer are the median of those around them.
_FEW = 1e-3


def restore_picture(
    picture: Picture | Tensor,
    *,
    task: Task | None = None,
    noise: float | NoiseLevel | Noise | str | None = None,
    sigma: float | None = None,
    regularizer: ConvexRegularizer | ModelFor | None = None,
    tol: float | None = None,
    gap_tol: float = 1e-2,
    max_iter: int = 1000,
    weight: float | str = 1.0,
    callback: Callback | None = None,
    range: RangeOption = None,
) -> Restored:
    r"""Restore one picture: minimize :math:`\sigma^2 |A x - y|^2 / (2\,\text{noise}^2) + w R(x; \sigma)`, certified.

    A gray regularizer takes the channels of a colour picture one by one.

    Parameters
    ----------
    picture : Picture or Tensor
        y: a picture, or the pixels (C, H, W) of one, floating point, in any unit; for
        :class:`~icgn.pictures.Measured` a measurement (C, ...) of any shape.
    task : Task, optional
        what happened to it; default :class:`~icgn.pictures.Denoise`.
    noise : float, NoiseLevel, Noise or str, optional
        standard deviation of the noise, in intensities, or a description (:mod:`icgn.functionals.noise`), or words
        (:func:`icgn.pictures.parse_noise`), levels in intensities, counts in values of the file, of a tensor in its
        own; default, as ``"auto"``, sigma for denoising, else estimated from the picture (:func:`icgn.estimate_noise`);
        the level to remove is at most the largest trained one, and the noise of other tasks is at least the least
        trained level over ``task.smoothing``.
        Denoising removes more than the level of correlated noise, and stabilizes counts, as :func:`icgn.denoise` does;
        their offset stays in the picture. For other tasks a map of levels weights the data term, and other noise is
        taken for white of its root mean square, which is said of counts.
    sigma : float, optional
        level that the regularizer is asked to remove, in intensities; default the noise times ``task.smoothing``,
        clamped to the trained range; in denoising a level below it is kept.
    regularizer : ConvexRegularizer or callable, optional
        R, or a function that gives it for the number of channels, as :func:`regularizers_by_channels`
        returns; default the shipped model for them.
    tol : float, optional
        RMS distance to the exact minimizer to be proved where the objective is strongly convex, as a part of the range;
        default a 250th of the level that the regularizer is asked to remove.
    gap_tol : float
        relative gap of the objective to be proved elsewhere.
    max_iter : int
        iterations allowed per channel.
    weight : float or str
        factor w of the regularizer, or the rule that finds it (``"sure"``, ``"discrepancy"``).
    callback : callable, optional
        as for :func:`icgn.solve`.
    range : (float, float) or "auto", optional
        the intensities that are 0 and 1 to the regularizer, in the unit of the restored picture, as for
        :func:`icgn.denoise`; for a measurement they are found from a rough least-squares image, which is taken as it is
        if it lies between -1/4 and 5/4.

    Returns
    -------
    Restored
        the picture, with what is proved of it; nothing is printed.

    Raises
    ------
    TypeError, ValueError
        as :func:`icgn.denoise`, :func:`icgn.deblur` and :func:`icgn.inpaint`; if the noise is not given and cannot be
        estimated, `picture` being a measurement; or if the result is neither a gray nor a colour picture.

    Examples
    --------
    >>> import icgn
    >>> from icgn.datasets import Picture, add_noise, bundled
    >>> clean = bundled(gray=True).find("camera").image[:, 100:132, 200:232]
    >>> restored = icgn.pictures.restore_picture(Picture(add_noise(clean, 0.1, seed=0)), tol=1e-3)
    >>> restored.noise.found, restored.status.name, restored.rms_distance <= 1e-3
    ('estimated', 'CONVERGED', True)
    """
    task = Denoise() if task is None else task
    read = picture if isinstance(picture, Picture) else None
    pixels = picture.pixels if isinstance(picture, Picture) else picture
    task = with_data(task, read)
    options: dict[str, Any] = {"tol": tol, "gap_tol": gap_tol, "max_iter": max_iter, "callback": callback}
    if isinstance(noise, str):
        noise = _told(noise, read, known_part(task, pixels) if task.shows_intensities else pixels)
    if isinstance(task, Denoise) and noise is None and sigma is None:
        cleared = clear(Picture(pixels, bits=16) if read is None else read)
        if cleared.notes:
            return _restore_cleared(cleared, pixels, regularizer, weight=weight, range=range, **options)
    level = _noise(read, pixels, task, sigma if noise is None and isinstance(task, Denoise) else noise)
    regularizer = _regularizer(regularizer, pixels)
    if isinstance(task, Denoise) and sigma is None and isinstance(level.noise, Poisson | PoissonGaussian):
        kept = Picture(pixels, bits=16) if read is None else read
        return _restore_counts(kept, level, level.noise, regularizer, range, weight=weight, **options)
    if isinstance(task, Denoise) and sigma is None and has_local_levels(level.noise, regularizer):
        levels = torch.as_tensor(level.noise.level).to(pixels)
        regularizer, level = LocalLevels.of(regularizer, levels)[0], replace(level, noise=None)
    both = noise is not None and sigma is not None
    return _restore(read, pixels, task, level, sigma, regularizer, range, weight, both=both, options=options)


def _restore(
    read: Picture | None,
    pixels: Tensor,
    task: Task,
    level: NoiseLevel,
    sigma: float | None,
    regularizer: ConvexRegularizer,
    given: RangeOption,
    weight: float | str,
    *,
    both: bool,
    options: dict[str, Any],
) -> Restored:
    """Restore a picture of which the noise is known; `both`: noise and sigma were given."""
    y = as_batch(pixels, regularizer)
    if task.shows_intensities:
        check_image(y, "y")
    pose, given = task.pose(y), fixed_range(regularizer, given)
    limits = find_range(task, y, pose, level.value, given)
    reach = reach_at(regularizer, limits)
    if level.found == "given" or sigma is not None:
        check_level(task.smoothing * level.value if sigma is None else sigma, reach, limits, given)
    if level.found != "given":
        level = fitted_level(level, reach, task.smoothing)
    asked, said = model_level(level, sigma, reach, task.smoothing)
    own = own_noise(task, level, asked, both=both)
    solved = solve_task(task, y, pose, limits, regularizer, asked, own, weight, **options)
    image = solved.solution.x.flatten(0, 1).detach().float().cpu()
    picture, left = _like(read, image)
    before = pixels if task.shows_intensities or read is not None else None
    if pose.before is not None:
        before = pose.before.flatten(0, 1).float().cpu()
    notes = [*task.notes(pose), *_nodata_notes(read), *_range_notes(limits, given), *level.notes, *said]
    notes += [*bound_notes(solved), *misfit_notes(task, solved), *_count_notes(level)]
    notes += [*_weight_notes(weight, solved), *left]
    return Restored(picture, before, solved.solution, level, asked, tuple(notes), limits)


def _like(read: Picture | None, image: Tensor) -> tuple[Picture, list[Note]]:
    """The restored pixels as a picture like the one that was read, and what is lost of it."""
    if read is None:
        return Picture(image, bits=16), []
    if read.alpha is None or read.alpha.shape[1:] == image.shape[1:]:
        return replace(read, pixels=image), []
    lost = Note("alpha", "transparency is left out, the restored picture having another size", warning=True)
    return replace(read, pixels=image, alpha=None), [lost]


def _count_notes(level: NoiseLevel) -> list[Note]:
    if not isinstance(level.noise, Poisson | PoissonGaussian):
        return []
    # Levels of pixels from a first solution, and the likelihood, gained nothing in the mean (docs/decisions.md).
    even = "counts, {:.4g} {unit} each, whose noise is taken for even, of its root mean square {:.4g} {unit}"
    return [Note("counts", even, (level.noise.gain, level.value))]


def _weight_notes(weight: float | str, solved: Solved) -> list[Note]:
    if not isinstance(weight, str):
        return []
    ended = solved.solution.weight.tolist()
    found = ", ".join(f"{w:.3g}" for w in ended)
    words = f"weight {found}, found by {weight}" + " (one per channel)" * (len(ended) > 1)
    return [Note("weight", words)] + [Note("weight", solved.doubt, warning=True)] * bool(solved.doubt)


def _regularizer(given: ConvexRegularizer | ModelFor | None, pixels: Tensor) -> ConvexRegularizer:
    if isinstance(given, ConvexRegularizer):
        return given
    # Three channels are a colour picture; any other number is measured of a gray one.
    if given is not None:
        return given(3 if len(pixels) == 3 else 1)
    return default_regularizer(pixels[None] if len(pixels) == 3 else pixels[None, :1])


def own_noise(task: Task, level: NoiseLevel, asked: float, *, both: bool) -> float | Tensor | None:
    """The noise of the data term, None where it is the level that is asked for: both cancel, also where both are 0.

    Denoising has one level, that which is removed, unless both are given, or the noise is that of each pixel.
    """
    if isinstance(level.noise, White) and level.noise.is_map:
        return torch.as_tensor(level.noise.level)
    return None if level.value == asked or (isinstance(task, Denoise) and not both) else level.value


def _restore_counts(
    picture: Picture,
    level: NoiseLevel,
    noise: Poisson | PoissonGaussian,
    regularizer: ConvexRegularizer,
    given: RangeOption,
    **options: Any,
) -> Restored:
    """Denoise a picture of counts where their noise is even, and bring it back."""

    def denoise(counts: Stabilized) -> Restored:
        stable, limits = replace(picture, pixels=counts.z[0]), counts.limits(given)
        return restore_picture(stable, noise=counts.sigma, regularizer=regularizer, range=limits, **options)

    even, solution = denoise_counts(picture.pixels[None], noise, denoise, lambda restored: restored.solution)
    solution = with_offset(solution, noise)
    image = solution.x.flatten(0, 1).detach().float().cpu()
    words = "counts, {:.4g} {unit} each, denoised where their noise is even: the objective is that of stabilized counts"
    said = Note("counts", words, (noise.gain,))
    return replace(
        even,
        picture=replace(picture, pixels=image),
        before=picture.pixels,
        solution=solution,
        noise=level,
        sigma=level.value,
        notes=(*level.notes, said, *even.notes),
        range=UNIT,
    )


def _restore_cleared(
    cleared: Cleared, before: Tensor, regularizer: ConvexRegularizer | ModelFor | None, **options: Any
) -> Restored:
    """Denoise a picture without stripes, dead pixels being missing; few ones, and those of counts, are medians."""
    level = estimated_level(cleared.picture)
    few = cleared.known is None or float((~cleared.known).float().mean()) < _FEW
    if cleared.known is None or few or isinstance(level.noise, Poisson | PoissonGaussian):
        restored = restore_picture(cleared.picture, noise=level, regularizer=regularizer, **options)
    else:
        task, level = Inpaint(cleared.known), replace(level, value=level.to_remove, removal=None)
        restored = restore_picture(
            cleared.picture, task=task, noise=level, sigma=level.value, regularizer=regularizer, **options
        )
    # How many pixels are filled in is said among what was found, and nobody has given a mask.
    notes = (*cleared.notes, *(note for note in restored.notes if note.topic != "mask"))
    return replace(restored, before=before, notes=notes)


def _range_notes(limits: Range, given: RangeOption) -> list[Note]:
    if limits == UNIT or given not in (None, "auto"):
        return []
    return [Note("scale", "intensities from {:.4g} to {:.4g} {unit} taken as the range of the model", limits)]


def _nodata_notes(read: Picture | None) -> list[Note]:
    """What is to be said of pixels without data."""
    if read is None or read.nodata is None:
        return []
    share = percent(float(read.nodata.double().mean()))
    said = f"{share} of the pixels have no data, and stay so; the model sees the others continued there"
    return [Note("nodata", said)]


def misfit_notes(task: Task, solved: Solved) -> list[Note]:
    """What is to be said of pictures that do not explain their measurement; noise alone makes a misfit of 1."""
    if isinstance(task, Denoise) or not solved.misfit > _MISFIT:
        return []
    what = {"Deblur": "the kernel", "Inpaint": "the mask"}.get(type(task).__name__, "the operator")
    text = (
        f"what the result would be measured as differs from the measurement by {solved.misfit:.2g} times its noise:"
        f" {what} is another one, or the noise is larger than assumed"
    )
    return [Note("misfit", text, warning=True)]


def bound_notes(solved: Solved) -> list[Note]:
    """What is to be said of pixels that lie on a bound of the intensities."""
    if solved.clipped < _SAID:
        return []
    template = f"{solved.clipped:.1%} of the pixels lie on a bound of the intensities"
    return [Note("bounds", template, warning=solved.unexplained > _MANY)]


def _told(words: str, read: Picture | None, pixels: Tensor) -> Noise | None:
    """The noise that words say, NaN where pixels are missing; None if it is to be estimated."""
    told = parse_noise(words)
    return told.of(pixels) if read is None else told.describe(replace(read, pixels=pixels), float)


def _noise(read: Picture | None, pixels: Tensor, task: Task, noise: float | NoiseLevel | Noise | None) -> NoiseLevel:
    if isinstance(noise, NoiseLevel):
        return noise
    pixels = known_part(task, pixels) if task.shows_intensities else pixels
    if isinstance(noise, Noise):
        return described_level(noise, pixels)
    if noise is not None:
        return NoiseLevel(noise)
    if read is None and not task.shows_intensities:
        raise ValueError("noise: got none, expected the noise level: it can be estimated for pictures only")
    return estimated_level(Picture(pixels) if read is None else replace(read, pixels=pixels))
