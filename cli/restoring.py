"""``icgn denoise``, ``deblur``, ``inpaint``, ``restore`` and ``demo``: which files are read for each picture."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import typer
from torch import Tensor

from icgn.cli.batch import restore_all
from icgn.cli.masking import Masks
from icgn.cli.measuring import load_factory, plan_measurements, read_measurement
from icgn.cli.options import as_option, find_device
from icgn.cli.outcome import figure, row
from icgn.cli.request import Request, Source
from icgn.cli.screen import console, naming, refuse, say
from icgn.cli.tables import print_table
from icgn.cli.units import is_tensor
from icgn.datasets import (
    Picture,
    Sample,
    Stack,
    add_noise,
    bundled,
    prepare_folders,
    read_picture,
    seed_of,
    write_picture,
)
from icgn.pictures import (
    Deblur,
    Denoise,
    Inpaint,
    Measured,
    NoiseWords,
    Restored,
    Task,
    load_kernel,
    parse_noise,
    restore_picture,
)
from icgn.pictures.masks import MaskPages
from icgn.pictures.models import ModelFor, regularizers_by_channels
from icgn.pictures.stacks import PageTask
from icgn.pictures.tasks import Border

DEFAULT_NOISE = 1.0
"""Noise of the known pixels of a picture to inpaint, in gray levels: that of a clean 8-bit photograph."""
DEMO_PICTURES = {"camera": True, "coffee": False}
"""Bundled photographs of the demo, and whether each is gray."""
DEMO_SIGMA = 25.0
"""Noise level of the demo in gray levels."""


def denoise_files(request: Request, noise: str | None = None) -> None:
    """Remove noise from picture files; it is measured or estimated where neither sigma nor noise is given.

    Parameters
    ----------
    request : Request
        what to do.
    noise : str, optional
        the noise in words, as for :func:`icgn.pictures.parse_noise`.
    """
    restore_all(replace(request, noise=_words(noise)), partial(_same, Denoise()), "denoising", "noisy")


def deblur_files(request: Request, kernel: str, border: Border, noise: str | None = None) -> None:
    """Deblur picture files; the noise is estimated where it is None.

    Parameters
    ----------
    request : Request
        what to do.
    kernel : str
        as for :func:`icgn.pictures.read_kernel`.
    border : {"valid", "circular"}
        as for :class:`icgn.pictures.Deblur`.
    noise : str, optional
        the noise in words, as for :func:`icgn.pictures.parse_noise`.
    """

    def read() -> list[Path]:
        return [Path(kernel)] if Path(kernel).is_file() else []

    request = replace(request, noise=_words(noise))
    restore_all(request, partial(_blurred, kernel, border), "deblurring", "blurred", read)


def inpaint_files(
    request: Request, mask: Path, *, noise: str | None = None, invert: bool = False, yes: bool = False
) -> None:
    """Fill in missing pixels of picture files.

    Parameters
    ----------
    request : Request
        what to do; the noise is :data:`DEFAULT_NOISE` where it is None.
    mask : Path
        mask of all pictures, or folder of masks under the names of the pictures (the suffix may differ).
    noise : str, optional
        the noise in words, as for :func:`icgn.pictures.parse_noise`.
    invert : bool
        whether the masks are light where a picture is to be filled in.
    yes : bool
        whether masks that hide nothing, or most of a picture, are meant so.
    """
    request, masks = replace(request, noise=_words(noise)), Masks(mask, invert=invert, sure=yes)
    with masks:
        restore_all(request, partial(_hidden, masks), "inpainting", "masked", masks.files)


def restore_files(request: Request, physics: str, noise: str | None = None) -> None:
    """Restore pictures from their measurements.

    Parameters
    ----------
    request : Request
        what to do; the inputs are pictures or tensors. The noise of a picture is estimated where it is None, that of
        a tensor must be given.
    physics : str
        ``FILE.py:factory``; the file is executed.
    noise : str, optional
        the noise in words, as for :func:`icgn.pictures.parse_noise`.
    """
    request = replace(request, noise=_words(noise))
    prepare = partial(_measurements, physics, request.noise)
    restore_all(request, prepare, "restoring", "measured", jobs=lambda: plan_measurements(request))


def demonstrate(output: Path) -> None:
    """Denoise the pictures of the demo into a folder and print what was proved.

    Raises
    ------
    typer.Exit
        2 if models or folder are missing, 1 if a picture failed.
    """
    try:
        models = regularizers_by_channels(name=None, device=find_device(None))
        prepare_folders([output / "any.png"])
    except (ValueError, OSError) as error:
        refuse(str(error))
    done: dict[str, tuple[Restored, Picture]] = {}
    for name, gray in DEMO_PICTURES.items():
        try:
            done[name] = _demonstrate(bundled(gray=gray).find(name), models, output)
        except (ValueError, OSError, RuntimeError) as error:
            say("error", naming(Path(name), str(error)))
    if done:
        print_table([row(name, *pair) for name, pair in done.items()], measured=True)
        worst = 255 * max(restored.rms_distance for restored, _ in done.values())
        console().print(
            f"Each restored picture is proved to lie within {worst:.3g} gray levels (RMS, before rounding to 8 bits) of"
            " the one minimizer of its convex objective.",
            soft_wrap=True,
        )
        console().print(f"Pictures are in {output}", soft_wrap=True, markup=False)
    if len(done) < len(DEMO_PICTURES):
        raise typer.Exit(1)


def _demonstrate(sample: Sample, models: ModelFor, folder: Path) -> tuple[Restored, Picture]:
    """Add noise to a photograph, remove it, and write both and the comparison; returns the result and the original."""
    clean = Picture(sample.image)
    noisy = Picture(add_noise(sample.image, DEMO_SIGMA / 255, seed_of(sample.name)))
    restored = restore_picture(noisy, sigma=DEMO_SIGMA / 255, regularizer=models(len(sample.image)))
    write_picture(folder / f"{sample.name}-noisy.png", noisy)
    write_picture(folder / f"{sample.name}-restored.png", restored.picture)
    write_picture(folder / f"{sample.name}-compare.png", figure(restored, clean, "noisy"))
    return restored, clean


def _words(noise: str | None) -> NoiseWords | None:
    try:
        return None if noise is None else parse_noise(noise)
    except ValueError as error:
        refuse(as_option(str(error)))


def _blurred(kernel: str, border: Border) -> Source:
    """Pictures blurred by one kernel."""
    found = load_kernel(kernel)
    if found.words:
        say("note", f"--kernel {kernel}: {found.words}")
    for words in found.warnings:
        say("warning", f"--kernel {kernel}: {words}")
    return _same(Deblur(found.values, border=border), f"{found.values.tolist()} {border}")


def _hidden(masks: Masks) -> Source:
    """Pictures with missing pixels."""
    masks.ask()
    return Source(
        lambda job: _masked(masks, job.source),
        lambda job, stack: _masked_pages(masks, job.source, stack),
        usual_noise=DEFAULT_NOISE / 255,
        key=f"{masks.place} {masks.place.stat().st_mtime_ns} {masks.invert}",
    )


def _measurements(physics: str, noise: NoiseWords | None) -> Source:
    """Pictures and tensors that a physics has measured."""
    task = Measured(load_factory(physics), name=f"physics {physics}")
    return Source(lambda job: (_measured(job.source, noise), task))


def _same(task: Task, key: str = "") -> Source:
    """Pictures that were measured in the same way, and so all pages of a stack."""
    return Source(lambda job: (read_picture(job.source), task), lambda job, stack: lambda page: task, key=key)


def _masked(masks: Masks, source: Path) -> tuple[Picture, Task]:
    found = masks.of(source)
    if len(found) > 1:
        raise ValueError(f"mask {found.path}: has {len(found)} pages, expected one")
    mask = found.page(0)
    picture = read_picture(source, missing=~mask.known)
    _, height, width = picture.pixels.shape
    _check_size(found, source, (height, width))
    masks.check_shown(found.path, mask, picture.pixels)
    return picture, Inpaint(mask.known, words=found.words)


def _masked_pages(masks: Masks, source: Path, stack: Stack) -> PageTask:
    """The tasks of the pages of a stack, which have one mask, one each, or one for each place along some axes."""
    found = masks.of(source)
    number = found.number_of(stack.container)
    _check_size(found, source, (stack.container.height, stack.container.width))
    most = next(i for i in range(len(stack)) if number(i) == found.most)
    masks.check_shown(found.path, found.page(found.most), stack.page(most).values)
    return lambda page: Inpaint(found.page(number(page)).known, words=found.words)


def _check_size(mask: MaskPages, source: Path, size: tuple[int, int]) -> None:
    if mask.size != size:
        sizes = [" x ".join(map(str, s)) for s in (mask.size, size)]
        raise ValueError(f"mask {mask.path}: got {sizes[0]} pixels, expected {sizes[1]} (height x width) as {source}")


def _measured(source: Path, noise: NoiseWords | None) -> Picture | Tensor:
    if not is_tensor(source):
        return read_picture(source)
    if noise is None or noise.kind == "auto":
        given = "none" if noise is None else "auto"
        raise ValueError(
            f"--noise: got {given} for {source}, expected the noise level: it can be estimated for pictures only"
        )
    return read_measurement(source)
