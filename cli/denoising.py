"""``icgn denoise`` and ``icgn demo``."""

from __future__ import annotations

from pathlib import Path

import typer

from icgn.cli.batch import Request, read_pair, restore_all, restored
from icgn.cli.levels import check_level, denoising_level, parse_strength, say_strength
from icgn.cli.models import ModelFor, check_channels, find_device, find_models
from icgn.cli.outcome import Outcome, Restored, figure, row
from icgn.cli.screen import console, naming, refuse, say
from icgn.cli.tables import print_table
from icgn.datasets import Job, Picture, Sample, add_noise, bundled, prepare_folders, seed_of, write_picture
from icgn.pictures.denoise import denoise_picture

DEMO_PICTURES = {"camera": True, "coffee": False}
"""Bundled photographs of the demo, and whether each is gray."""
DEMO_SIGMA = 25.0
"""Noise level of the demo in gray levels."""


def denoise_files(request: Request, sigma: float | None, strength: str = "1") -> None:
    """Remove noise from picture files; `sigma` in gray levels, measured or estimated where it is None.

    `strength` is that of :func:`icgn.cli.levels.parse_strength`.

    Raises
    ------
    typer.Exit
        as :func:`icgn.cli.batch.restore_all`.
    """

    def prepare(models: ModelFor, _: object) -> _Denoise:
        check_level("--sigma", sigma, zero=True)
        return _Denoise(models, sigma, request.tol, parse_strength(strength))

    restore_all(request, prepare, "denoising", "noisy")


def denoised(noisy: Picture, sigma: float, models: ModelFor, tol: float, weight: float | str = 1.0) -> Restored:
    """Denoise the pixels of a picture; alpha, profile, Exif and depth stay as they are.

    Parameters
    ----------
    noisy : Picture
        what to restore; its pixels need not be in [0, 1].
    sigma : float
        noise level in intensities.
    models : callable
        gives the regularizer for a number of channels.
    tol : float
        RMS distance to the minimizer, in intensities.
    weight : float or str
        strength of the regularizer, or the rule that finds it.

    Raises
    ------
    ValueError
        if the model takes three channels and the picture is gray, or the picture is smaller than its filters.
    """
    regularizer = models(len(noisy.pixels))
    check_channels(regularizer, len(noisy.pixels))
    result = denoise_picture(noisy.pixels, sigma, regularizer, tol=tol, weight=weight)
    say_strength(weight, result.solution.weight)
    stats = result.solution.stats
    return restored(noisy, result, sigma, int(stats.iterations.max()), stats.seconds)


def demonstrate(output: Path) -> None:
    """Denoise the pictures of the demo into a folder and print what was proved.

    Raises
    ------
    typer.Exit
        2 if models or folder are missing, 1 if a picture failed.
    """
    try:
        models = find_models(None, find_device(None))
        prepare_folders([output / "any.png"])
    except (ValueError, OSError) as error:
        refuse(str(error))
    outcomes = []
    for name, gray in DEMO_PICTURES.items():
        try:
            outcomes.append(_demonstrate(bundled(gray).find(name), models, output))
        except (ValueError, OSError, RuntimeError) as error:
            say("error", naming(Path(name), str(error)))
    if outcomes:
        print_table([row(o) for o in outcomes], measured=True)
        worst = 255 * max(o.restored.rms_distance for o in outcomes)
        console().print(
            f"Each restored picture is proved to lie within {worst:.3g} gray levels (RMS, before rounding to 8 bits) of"
            " the one minimizer of its convex objective.",
            soft_wrap=True,
        )
        console().print(f"Pictures are in {output}", soft_wrap=True, markup=False)
    if len(outcomes) < len(DEMO_PICTURES):
        raise typer.Exit(1)


class _Denoise:
    """The work of ``icgn denoise`` on one file."""

    def __init__(self, models: ModelFor, sigma: float | None, tol: float, weight: float | str) -> None:
        self.models, self.sigma, self.tol, self.weight = models, sigma, tol, weight

    def __call__(self, job: Job) -> Outcome:
        noisy, clean = read_pair(job)
        reach = self.models(len(noisy.pixels)).sigma_range
        known = None if clean is None else clean.pixels
        level = denoising_level(job.source, noisy.pixels, known, self.sigma, reach)
        return Outcome(job.source.name, denoised(noisy, level, self.models, self.tol, self.weight), noisy, clean)


def _demonstrate(sample: Sample, models: ModelFor, folder: Path) -> Outcome:
    """Add noise to a photograph, remove it, and write both and the comparison."""
    clean = Picture(sample.image)
    noisy = Picture(add_noise(sample.image, DEMO_SIGMA / 255, seed_of(sample.name)))
    outcome = Outcome(sample.name, denoised(noisy, DEMO_SIGMA / 255, models, 1e-4), noisy, clean)
    write_picture(folder / f"{sample.name}-noisy.png", noisy)
    write_picture(folder / f"{sample.name}-restored.png", outcome.restored.picture)
    write_picture(folder / f"{sample.name}-compare.png", figure(outcome))
    return outcome
