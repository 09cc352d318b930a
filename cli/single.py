"""One file of one picture: read, restored and written, with all that is to be said about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icgn.cli.options import check_channels
from icgn.cli.outcome import Record, figure, outcome_of
from icgn.cli.references import rebased, reference_range
from icgn.cli.request import Batch
from icgn.cli.screen import naming
from icgn.cli.units import Unit, in_words, picture_unit, told_unit, words_of, words_of_values
from icgn.cli.watching import Watch, say_expected
from icgn.cli.writing import marked, write_copy, write_result, write_values
from icgn.datasets import Job, Picture, read_picture, write_picture
from icgn.pictures import Denoise, NoiseLevel, Restored, Task, estimated_level, measured_level, restore_picture
from icgn.pictures.errors import error_map, error_model
from icgn.pictures.stacks import range_of
from icgn.pictures.tasks import known_part

# More than so many times the noise that is found should not be removed, if it is more than this part of the range.
_MUCH, _LITTLE = 2.0, 4 / 255
# Rounding is an error of 0.29, which matters from so many times that on.
_COARSE = 2.3


def restore_one(batch: Batch, job: Job) -> None:
    """Restore one picture and write it.

    Raises
    ------
    ValueError, OSError, RuntimeError, MemoryError
        if it cannot be read, restored or written.
    KeyboardInterrupt
        if Ctrl-C was pressed: what was reached is written, under another name.
    """
    measured, task = batch.source.read(job)
    pixels = measured.pixels if isinstance(measured, Picture) else measured
    unit = picture_unit(measured)
    read = _said_read(batch, job, measured, unit)
    clean = None if job.reference is None else read_reference(job, measured)
    if task.shows_intensities:  # refused before the work, as far as can be
        check_channels(batch.models(3 if len(pixels) == 3 else 1), len(pixels))
        clean = None if clean is None else _matching(clean, job, pixels)
    options = {
        **batch.settings,
        **_levels(batch, job, measured, task, unit, clean),
        "range": batch.request.limits(unit),
    }
    say_expected(job.source, measured, task, batch.models, options)
    watch = Watch(batch.interrupt, lambda part: batch.step(part, job.source.name), rare=not batch.bar.shown)
    restored = restore_picture(measured, task=task, regularizer=batch.models, callback=watch, **options)
    if clean is not None:
        clean = _matching(clean, job, restored.picture.pixels)
    if clean is not None and isinstance(measured, Picture) and measured.nodata is not None:
        batch.say("note", f"{job.source}: not compared with {job.reference}, as some of its pixels have no data")
        clean = None
    for note in restored.notes:
        batch.say("warning" if note.warning else "note", f"{job.source}: {words_of(note, unit, restored.range)}")
    if isinstance(measured, Picture) and isinstance(task, Denoise) and options["sigma"]:
        _doubt_removed(batch, job, measured, restored, unit)
    if isinstance(measured, Picture):
        _doubt_rounded(batch, job, measured, restored)
    stopped = batch.interrupt.asked and not restored.converged
    target = marked(job.target) if stopped else job.target
    if not restored.converged and not stopped:
        batch.say("warning", naming(job.source, str(restored.status)))
    if stopped:
        batch.unfinished += 1
        batch.say("warning", f"{target}: what was reached when Ctrl-C was pressed, not converged")
    for lost in _written(job, target, measured, restored):
        batch.say("note", f"{target}: {lost}")
    if batch.request.uncertainty is not None:
        _write_errors(batch, job, restored, pixels, unit)
    if batch.request.compare is not None:
        write_picture(batch.request.compare, figure(restored, clean, batch.label))
    outcome = outcome_of(restored, None if clean is None else clean.pixels)
    _, height, width = restored.picture.pixels.shape
    batch.done(job, Record(job.source, target, read, 1, (height, width), unit, outcome))
    if stopped:
        raise KeyboardInterrupt


def _write_errors(batch: Batch, job: Job, restored: Restored, before: Tensor, unit: Unit) -> None:
    """Write how large the errors of a denoised picture are, the mean over its channels, and say what it means.

    Raises
    ------
    ValueError
        naming the option, where the errors are not calibrated.
    """
    target = batch.request.uncertainty
    assert target is not None
    try:
        model = error_model(batch.request.model, len(before))
        half = unit.scale * error_map(restored, before, model).mean(0)
    except ValueError as error:
        raise ValueError(f"--uncertainty: no map is written: {error}") from error
    batch.say("note", f"{target}: how far pixels may be from the truth, {unit.name}: {model.text()}")
    for said in write_values(target, half, (0.0, float(half.max()))):
        batch.say("note", f"{target}: {said}")


def _doubt_removed(batch: Batch, job: Job, measured: Picture, restored: Restored, unit: Unit) -> None:
    """Warn where much more was removed, at a level that was given, than the noise that is found."""
    removed = float((measured.pixels - restored.picture.pixels).double().square().mean().sqrt())
    width = restored.range[1] - restored.range[0]
    if removed <= width * _LITTLE:
        return
    noise = estimated_level(measured).value
    if removed > _MUCH * noise:
        batch.say(
            "warning",
            f"{job.source}: {in_words(unit, removed)} (RMS) were removed, and noise of {in_words(unit, noise)} is"
            " found: details may be lost; without --sigma the level is estimated",
        )


def _doubt_rounded(batch: Batch, job: Job, measured: Picture, restored: Restored) -> None:
    """Warn where few counts are restored, and the file holds whole numbers only."""
    found = measured.container
    counted = any(note.topic == "counts" for note in restored.notes)
    if found is None or np.dtype(found.dtype).kind not in "ui" or not counted:
        return
    level = restored.noise.value * (measured.range[1] - measured.range[0]) / found.slope
    if 0 < level < _COARSE:
        batch.say(
            "warning",
            f"{job.source}: its noise is {level:.2g} whole numbers, and the result is rounded to whole numbers as well:"
            " write the counts as floats to see more",
        )


def _written(job: Job, target: Path, measured: Picture | Tensor, restored: Restored) -> tuple[str, ...]:
    """Write the result; returns what is to be said about it."""
    if isinstance(measured, Picture) and measured.container is not None and measured.container.range is None:
        after = restored.picture.pixels
        if measured.pixels.shape == after.shape and torch.equal(measured.pixels, after):
            return write_copy(target, job.source, measured.range)
    return write_result(target, restored)


def read_reference(job: Job, like: Picture | Tensor) -> Picture:
    """Read the clean picture of a job, as intensities of the noisy one."""
    assert job.reference is not None
    clean = read_picture(job.reference)
    if not isinstance(like, Picture) or like.container is None or clean.container is None:
        return clean
    file = reference_range(like.container, like.range, clean.container, clean.range)
    return rebased(clean, file)


def _said_read(batch: Batch, job: Job, measured: Picture | Tensor, unit: Unit) -> str:
    """Say what was read; returns it."""
    if not isinstance(measured, Picture) or measured.container is None:
        return ""
    low, high = (unit.number(float(v)) for v in (measured.pixels.min(), measured.pixels.max()))
    read = f"{measured.container.describe()}, {words_of_values(low, high)}"
    batch.say("read", f"{job.source}: {read}{told_unit(unit)}")
    return read


def _levels(
    batch: Batch, job: Job, measured: Picture | Tensor, task: Task, unit: Unit, clean: Picture | None
) -> dict[str, Any]:
    """Sigma and noise in intensities, as they are given, measured or usual."""
    request = batch.request
    level = _level_of(batch, job, measured, task, unit)
    found: dict[str, Any] = {"sigma": None if request.sigma is None else level("sigma", request.sigma), "noise": None}
    if request.noise is not None:
        read = measured if isinstance(measured, Picture) else Picture(measured)
        known = replace(read, pixels=known_part(task, read.pixels)) if task.shows_intensities else read
        found["noise"] = request.noise.describe(known, lambda value: level("noise", value))
    elif not isinstance(measured, Picture) or not task.shows_intensities:
        return found
    elif clean is not None and isinstance(task, Denoise) and found["sigma"] is None:
        found["noise"] = measured_level(measured, clean)
    elif batch.source.usual_noise and found["noise"] is None:
        low, high = range_of([known_part(task, measured.pixels)], 0.0, request.limits(unit))
        found["noise"] = NoiseLevel(batch.source.usual_noise * (high - low))
    return found


def _level_of(
    batch: Batch, job: Job, measured: Picture | Tensor, task: Task, unit: Unit
) -> Callable[[str, float], float]:
    """Gives the intensity of a level as it is typed, by the name of its option."""
    if not isinstance(measured, Picture):  # of any unit, of which a gray level is the 255th part
        return lambda name, value: value / unit.scale
    if not task.shows_intensities:
        return lambda name, value: unit.intensity(f"--{name}", value)
    return batch.level_for(job, task, unit, measured.pixels)


def _matching(clean: Picture, job: Job, like: Tensor) -> Picture:
    """The clean picture of a job; ``ValueError`` unless it has the shape of `like` (C, H, W).

    Gray that the file stores as colour serves as colour too.
    """
    if clean.as_rgb and len(like) == 3:
        clean = replace(clean, pixels=clean.pixels.expand(3, -1, -1))
    if clean.pixels.shape != like.shape:
        sizes = [" x ".join(map(str, p.shape)) for p in (clean.pixels, like)]
        raise ValueError(f"{job.reference}: got {sizes[0]} (channels, height, width), expected {sizes[1]}")
    return clean
