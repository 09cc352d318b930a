"""Batches of pictures as tensors: denoised, deblurred and inpainted in one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

import deepinv
import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.noise import Noise, Poisson, PoissonGaussian, White, described
from icgn.pictures.counts import Stabilized, denoise_counts, with_offset
from icgn.pictures.kernels import make_kernel, read_kernel
from icgn.pictures.levels import is_within, level_to_remove, scaled_level
from icgn.pictures.models import default_regularizer, has_local_levels
from icgn.pictures.noise import estimate_noise
from icgn.pictures.noise_words import parse_noise
from icgn.pictures.ranges import RangeOption, check_level, find_range, fixed_range, reach_at
from icgn.pictures.solving import solve_task
from icgn.pictures.tasks import Border, Deblur, Denoise, Inpaint, Task, known_part
from icgn.regularizers import LocalLevels
from icgn.regularizers.base import ConvexRegularizer, check_image
from icgn.solvers import Callback, Solution

MeasuredNoise: TypeAlias = float | Tensor | Noise | deepinv.physics.NoiseModel | str
"""What describes the noise of a measurement; words as :func:`icgn.pictures.parse_noise` takes them."""


@keyword_only
def denoise(
    y: Tensor,
    sigma: float | Tensor | None = None,
    *,
    regularizer: ConvexRegularizer | None = None,
    tol: float | None = None,
    max_iter: int = 1000,
    weight: float | Tensor | str = 1.0,
    callback: Callback | None = None,
    range: RangeOption = None,
    noise: MeasuredNoise | None = None,
) -> Solution:
    r"""Remove noise: minimize :math:`\tfrac12 |x - y|^2 + w R(x; \sigma)`, certified.

    Counts (``noise=Poisson(...)`` or ``PoissonGaussian(...)``) are stabilized by the generalized Anscombe transform, so
    that their noise is white; the objective is that of the stabilized counts, and the picture is its minimizer brought
    back by the exact unbiased inverse. ``rms_distance`` is that of the picture, in the unit of y; the gap is that of
    the objective.

    Parameters
    ----------
    y : Tensor
        noisy pictures (B, C, H, W), floating point, in any unit.
    sigma : float or Tensor, optional
        the level to remove, the standard deviation of the noise if it is white, in the unit of y, one or one per
        picture; 0 returns y. Default that of `noise`.
    regularizer : ConvexRegularizer, optional
        default the shipped ``conditional-gray`` for one channel or three equal ones, ``conditional-color`` for other
        three, on the device of y.
    tol : float, optional
        RMS distance to the exact minimizer that the certificate must prove, as a part of the range; default a 250th of
        the level to remove, which is less than 0.005 dB, in the unit of y (:func:`icgn.solve`).
    max_iter : int
        iterations allowed per picture.
    weight : float, Tensor or str
        factor w of the regularizer, 1 as trained; ``"sure"`` and ``"discrepancy"`` find it for each picture without the
        clean one (:mod:`icgn.solvers.weight`). The certificate is of the problem with that weight.
    callback : callable, optional
        as for :func:`icgn.solve`.
    range : (float, float) or "auto", optional
        the intensities, in the unit of y, that are 0 and 1 to the regularizer, the same for all pictures of the batch:
        :class:`icgn.ScaledRegularizer`. ``"auto"`` finds them by :func:`icgn.pictures.intensity_range`. By default
        pictures that lie in [0, 1] apart from their noise, and fill a quarter of it or have noise of 2/255 or more, are
        taken as they are, and so are all where the regularizer is made for another unit; for others the range is found.
    noise : Noise, float, Tensor, deepinv.physics.NoiseModel or str, optional
        a description of the noise (:mod:`icgn.functionals.noise`), or what :class:`icgn.Problem` takes for one: levels
        of white noise, or a model of deepinv. Or the words of the command line, every number in the unit of y:
        ``"white:LEVEL"``, ``"correlated:LEVEL"``, ``"poisson"``, ``"poisson:GAIN"``, ``"poisson-gaussian:GAIN,READ"``
        (:func:`icgn.pictures.parse_noise`); ``"auto"`` finds it by :func:`icgn.estimate_noise`.
        The saturations of R follow the levels of pixels (``White`` with a map (B, 1, H, W)) where they can, see
        :class:`icgn.regularizers.LocalLevels`; other maps weight the data term. Default white noise of the level sigma.

    Returns
    -------
    Solution
        ``x`` and its distance are in the unit of y; ``x`` is not clipped.

    Raises
    ------
    TypeError
        if y is not a floating-point tensor, or the noise is none.
    ValueError
        for a wrong shape or channel count, pictures smaller than a filter, a range that is none, a level that is far
        too small for the range that was found (as 25/255 for pictures in 0..255), a batch without any finite picture,
        a negative or non-finite sigma or weight, neither sigma nor noise, negative counts, or pictures of a batch whose
        noise is found to be of different kinds.

    Examples
    --------
    >>> import icgn
    >>> from icgn.datasets import add_noise, bundled
    >>> clean = bundled(gray=True).find("camera").image[None, :, 100:132, 200:232]
    >>> solution = icgn.denoise(add_noise(clean, 0.1, seed=0), 0.1, tol=1e-3)
    >>> solution.status[0].name, bool(solution.certificate.rms_distance[0] <= 1e-3)
    ('CONVERGED', True)
    """
    options = {"tol": tol, "max_iter": max_iter, "callback": callback}
    if noise is None:
        if sigma is None:
            raise ValueError("sigma: got none, expected the level of the noise, or noise='auto' to estimate it")
        return _solved(Denoise(), y, None, sigma, regularizer, weight, range, options)
    check_image(y, "y")
    found = _described(noise, y)
    regularizer = default_regularizer(y) if regularizer is None else regularizer
    if isinstance(found, Poisson | PoissonGaussian) and sigma is None:
        even = partial(_even, regularizer, weight, range, options)
        solution = denoise_counts(y, found, even, lambda solved: solved)[1]
        # An offset that was found is no part of the question: x is in the numbers of y.
        return with_offset(solution, found) if _is_found(noise) else solution
    level = level_to_remove(found, y) if sigma is None else sigma
    local = found.level if isinstance(found, White) and found.is_map else None
    if sigma is None and has_local_levels(found, regularizer):
        (regularizer, level), local = LocalLevels.of(regularizer, torch.as_tensor(found.level).to(y)), None
    return _solved(Denoise(), y, local, level, regularizer, weight, range, options)


def _even(
    regularizer: ConvexRegularizer,
    weight: float | Tensor | str,
    given: RangeOption,
    options: Mapping[str, Any],
    counts: Stabilized,
) -> Solution:
    """Denoise stabilized counts."""
    limits = counts.limits(given)
    return _solved(Denoise(), counts.z, None, counts.sigma, regularizer, weight, limits, options)


def _levels(y: Tensor, noise: MeasuredNoise) -> float | Tensor:
    """Levels of noise that is white in the data term: one, one per picture, or a map; y is NaN where it is missing."""
    if isinstance(noise, float | int | Tensor):
        return noise
    check_image(y, "y")
    found = _described(noise, y)
    if isinstance(found, White):
        return found.level
    return found.root_mean_square(y).to(y)


def _described(noise: MeasuredNoise, y: Tensor) -> Noise:
    """The noise of y, NaN where it is missing."""
    if not isinstance(noise, str):
        return described(noise)
    told = parse_noise(noise).of(y)
    return _common_noise(y) if told is None else told


def _is_found(noise: MeasuredNoise) -> bool:
    """Whether the noise is estimated from the pictures."""
    return isinstance(noise, str) and parse_noise(noise).kind == "auto"


def _common_noise(y: Tensor) -> Noise:
    """The noise of the pictures of a batch: of one kind, that of white and correlated noise with a level for each."""
    found = [estimate_noise(picture).noise for picture in y]
    if len(found) == 1:
        return found[0]
    if all(isinstance(f, White) for f in found):
        return White(torch.cat([f.root_mean_square(p[None]) for f, p in zip(found, y, strict=True)]))
    raise ValueError("noise: got a batch of pictures with different kinds of noise, expected one picture, or sigma")


def deblur(
    y: Tensor,
    kernel: Tensor | str,
    noise: MeasuredNoise,
    *,
    border: Border = "valid",
    sigma: float | Tensor | None = None,
    regularizer: ConvexRegularizer | None = None,
    tol: float | None = None,
    gap_tol: float = 1e-2,
    max_iter: int = 1000,
    weight: float | Tensor | str = 1.0,
    callback: Callback | None = None,
    range: RangeOption = None,
) -> Solution:
    r"""Remove a known blur: minimize :math:`\sigma^2 |k * x - y|^2 / (2\,\text{noise}^2) + w R(x; \sigma)`, certified.

    Intensities are bounded by [0, 1], or, in another range, by bounds that are widened until they do not press.

    Parameters
    ----------
    y : Tensor
        blurred pictures (B, C, H, W), floating point, in any unit.
    kernel : Tensor or str
        k, the picture (h, w) of a point of light, blurred = k * picture (convolution, not correlation), its centre the
        pixel (h // 2, w // 2); it is scaled to sum 1. Or words as for :func:`icgn.pictures.read_kernel`:
        ``"gaussian:1.5"``, ``"motion:9,30"``, a file.
    noise : float, Tensor, Noise, deepinv.physics.NoiseModel or str
        standard deviation of the noise, in the unit of y, positive, one or one per picture; a map of it, which weights
        the data term; or a description, words or ``"auto"``, as for :func:`denoise`, of which the root mean square is
        taken; noise that is found counts as at least the least trained level over 7.5.
    border : {"valid", "circular"}
        what lies beyond the frame: with ``"valid"``, as of photographs, nothing is assumed, and the margin that was
        blurred into the frame is estimated too, and cut off; with ``"circular"`` the picture goes on periodically.
    sigma : float or Tensor, optional
        level that the regularizer is asked to remove, in the unit of y; default 7.5 times the noise, within the trained
        range.
    regularizer : ConvexRegularizer, optional
        default as for :func:`denoise`.
    tol : float, optional
        RMS distance to the exact minimizer to be proved where the blur has an inverse, as a part of the range; default
        a 250th of sigma.
    gap_tol : float
        relative gap of the objective to be proved elsewhere.
    max_iter : int
        iterations allowed per picture.
    weight : float, Tensor or str
        factor w of the regularizer, or the rule that finds it, as for :func:`denoise`.
    callback : callable, optional
        as for :func:`icgn.solve`.
    range : (float, float) or "auto", optional
        the intensities that are 0 and 1 to the regularizer, as for :func:`denoise`.

    Returns
    -------
    Solution
        ``x`` has the size of y. The gap is that of the problem with the margin; the RMS distance is that within the
        frame.

    Raises
    ------
    TypeError
        if y is not a floating-point tensor.
    ValueError
        as :func:`denoise`; for a kernel that is larger than the pictures or has no positive sum, or for levels that are
        not positive.

    Examples
    --------
    >>> import icgn, torch
    >>> y = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    >>> model = icgn.load_pretrained("ridge-gray-small")
    >>> solution = icgn.deblur(y, "gaussian:1", noise=0.02, regularizer=model)
    >>> tuple(solution.x.shape), bool(solution.certificate.relative_gap[0] <= 1e-2)
    ((1, 1, 24, 24), True)
    """
    kernel = read_kernel(kernel) if isinstance(kernel, str) else make_kernel(kernel)
    options = {"tol": tol, "gap_tol": gap_tol, "max_iter": max_iter, "callback": callback}
    levels, found = _levels(y, noise), _is_found(noise)
    return _solved(Deblur(kernel, border=border), y, levels, sigma, regularizer, weight, range, options, found=found)


def inpaint(
    y: Tensor,
    mask: Tensor,
    *,
    noise: MeasuredNoise = 1 / 255,
    sigma: float | Tensor | None = None,
    regularizer: ConvexRegularizer | None = None,
    tol: float | None = None,
    gap_tol: float = 1e-2,
    max_iter: int = 1000,
    weight: float | Tensor | str = 1.0,
    callback: Callback | None = None,
    range: RangeOption = None,
) -> Solution:
    r"""Fill in missing pixels: minimize :math:`\sigma^2 |m (x - y)|^2 / (2\,\text{noise}^2) + w R(x; \sigma)`.

    Intensities are bounded by [0, 1], or, in another range, by bounds that are widened until they do not press. The
    known pixels are denoised too.

    Parameters
    ----------
    y : Tensor
        pictures (B, C, H, W), floating point, in any unit; what they hold at missing pixels does
        not matter, NaN included.
    mask : Tensor
        m, True or 1 where the pictures are known: (H, W), (1, H, W), or (B, 1, H, W) for a mask of each.
    noise : float, Tensor, Noise, deepinv.physics.NoiseModel or str
        the noise of the known pixels, as for :func:`deblur`; default that of a clean 8-bit photograph.
    sigma : float or Tensor, optional
        level that the regularizer is asked to remove, in the unit of y; default 6 times the noise, within the trained
        range.
    regularizer, tol, gap_tol, max_iter, weight, callback, range
        as for :func:`deblur`; a distance is proved where no pixel is missing.

    Returns
    -------
    Solution
        ``x`` holds the filled pictures.

    Raises
    ------
    TypeError
        if y is not a floating-point tensor, or the mask no tensor.
    ValueError
        as :func:`denoise`; for a mask of another shape, with values other than 0 and 1, or without any known pixel, or
        for levels that are not positive.

    Examples
    --------
    >>> import icgn, torch
    >>> y = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    >>> mask = torch.ones(24, 24, dtype=torch.bool)
    >>> mask[8:12, 8:12] = False
    >>> solution = icgn.inpaint(y, mask, noise=0.02, regularizer=icgn.load_pretrained("ridge-gray-small"))
    >>> tuple(solution.x.shape), bool(solution.certificate.relative_gap[0] <= 1e-2)
    ((1, 1, 24, 24), True)
    """
    options = {"tol": tol, "gap_tol": gap_tol, "max_iter": max_iter, "callback": callback}
    task = Inpaint(mask)
    levels = _levels(y, noise) if isinstance(noise, float | int | Tensor) else _levels(known_part(task, y), noise)
    return _solved(task, y, levels, sigma, regularizer, weight, range, options, found=_is_found(noise))


def _solved(
    task: Task,
    y: Tensor,
    noise: float | Tensor | None,
    sigma: float | Tensor | None,
    regularizer: ConvexRegularizer | None,
    weight: float | Tensor | str,
    given: RangeOption,
    options: Mapping[str, Any],
    *,
    found: bool = False,
) -> Solution:
    """Solve a task; `found`: the noise was estimated, and counts as at least the least one that suits the model."""
    check_image(y, "y")
    if y.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"y: got {y.dtype}, expected torch.float32 or torch.float64")
    regularizer = default_regularizer(y) if regularizer is None else regularizer
    pose, given = task.pose(y), fixed_range(regularizer, given)
    _check_not_empty(sigma=sigma, noise=noise)
    levels = sigma if noise is None else noise
    assert levels is not None
    if isinstance(levels, Tensor) and levels.ndim > 1:
        levels = White(levels).root_mean_square(y).to(y)
    limits = find_range(task, y, pose, levels, given)
    reach = reach_at(regularizer, limits)
    if found and reach is not None:
        noise = levels = torch.as_tensor(levels, dtype=y.dtype).clamp_min(reach[0] / task.smoothing)
    level = scaled_level(levels, reach, task.smoothing) if sigma is None else sigma
    check_level(level if sigma is not None or noise is None else task.smoothing * levels, reach, limits, given)
    if sigma is None and noise is not None and not is_within(task.smoothing * levels, reach):
        assert reach
        warnings.warn(
            f"sigma: {task.smoothing:g} times the noise, the default, is outside the trained range, {reach[0]:.4g} to"
            f" {reach[1]:.4g}, and taken at its end; give sigma to decide",
            stacklevel=3,
        )
    solved = solve_task(task, y, pose, limits, regularizer, level, noise, weight, **options)
    if solved.doubt:
        warnings.warn(solved.doubt, stacklevel=4)
    return solved.solution


def _check_not_empty(**levels: float | Tensor | None) -> None:
    for name, level in levels.items():
        if isinstance(level, Tensor) and not level.numel():
            raise ValueError(f"{name}: got a tensor of shape {tuple(level.shape)}, expected one level or more")
