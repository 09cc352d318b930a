"""One picture: its levels found, its channels arranged, restored and certified."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from icgn.datasets import Picture
from icgn.pictures.levels import NoiseLevel, Note, estimated_level, model_level
from icgn.pictures.models import as_batch, default_regularizer
from icgn.pictures.result import Restored
from icgn.pictures.solving import solve_task
from icgn.pictures.tasks import Denoise, Task
from icgn.regularizers.base import ConvexRegularizer
from icgn.solvers import Callback


def restore_picture(
    picture: Picture | Tensor,
    *,
    task: Task | None = None,
    noise: float | NoiseLevel | None = None,
    sigma: float | None = None,
    regularizer: ConvexRegularizer | None = None,
    tol: float = 1e-4,
    gap_tol: float = 1e-2,
    max_iter: int = 1000,
    weight: float | str = 1.0,
    callback: Callback | None = None,
) -> Restored:
    r"""Restore one picture: minimize :math:`\sigma^2 |A x - y|^2 / (2\,\text{noise}^2) + w R(x; \sigma)`, certified.

    A gray regularizer takes the channels of a colour picture one by one.

    Parameters
    ----------
    picture : Picture or Tensor
        y: a picture, or the pixels (C, H, W) of one, floating point, intensities in [0, 1] plus noise; for
        :class:`~icgn.pictures.Measured` a measurement (C, ...) of any shape.
    task : Task, optional
        what happened to it; default :class:`~icgn.pictures.Denoise`.
    noise : float or NoiseLevel, optional
        standard deviation of the noise, in intensities; default sigma for denoising, else estimated from the picture
        and clamped to the trained range.
    sigma : float, optional
        level that the regularizer is asked to remove, in intensities; default the noise times ``task.smoothing``,
        clamped to the trained range.
    regularizer : ConvexRegularizer, optional
        R; default the shipped conditional model for gray or for colour.
    tol : float
        RMS distance to the exact minimizer to be proved where the objective is strongly convex, in intensities.
    gap_tol : float
        relative gap of the objective to be proved elsewhere.
    max_iter : int
        iterations allowed per channel.
    weight : float or str
        factor w of the regularizer, or the rule that finds it (``"sure"``, ``"discrepancy"``).
    callback : callable, optional
        as for :func:`icgn.solve`.

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
    if regularizer is None:
        # Three channels are a colour picture; any other number is measured of a gray one.
        regularizer = default_regularizer(pixels[None] if len(pixels) == 3 else pixels[None, :1])
    level = _noise(read, pixels, task, sigma if noise is None and isinstance(task, Denoise) else noise, regularizer)
    asked, said = model_level(level, sigma, regularizer.sigma_range, task.smoothing)
    y = as_batch(pixels, regularizer)
    # Equal levels cancel, also where both are 0.
    own = None if level.value == asked else level.value
    options = {"tol": tol, "gap_tol": gap_tol, "max_iter": max_iter, "callback": callback}
    solution, pose = solve_task(task, y, regularizer, asked, own, weight, **options)
    notes = [*level.notes, *said]
    if isinstance(weight, str):
        found = ", ".join(f"{w:.3g}" for w in solution.weight.tolist())
        notes.append(Note("weight", f"weight {found}, found by {weight}" + " (one per channel)" * (len(y) > 1)))
    image = solution.x.flatten(0, 1).detach().float().cpu()
    kept = Picture(image, bits=16) if read is None else read
    if kept.alpha is not None and kept.alpha.shape[1:] != image.shape[1:]:
        kept = replace(kept, alpha=None)
        notes.append(Note("alpha", "transparency is left out, the restored picture having another size", warning=True))
    before = pixels if task.shows_intensities or read is not None else None
    if pose.before is not None:
        before = pose.before.flatten(0, 1).float().cpu()
    return Restored(replace(kept, pixels=image), before, solution, level, asked, tuple(notes))


def _noise(
    read: Picture | None, pixels: Tensor, task: Task, noise: float | NoiseLevel | None, regularizer: ConvexRegularizer
) -> NoiseLevel:
    if isinstance(noise, NoiseLevel):
        return noise
    if noise is not None:
        return NoiseLevel(noise)
    if read is None and not task.shows_intensities:
        raise ValueError("noise: got none, expected the noise level: it can be estimated for pictures only")
    return estimated_level(Picture(pixels) if read is None else read, reach=regularizer.sigma_range)
