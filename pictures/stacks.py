"""Stacks restored page by page: one noise level and one range for all pages of a channel, one page in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icgn.datasets import Page, Picture, Stack
from icgn.functionals.noise import Noise
from icgn.pictures.levels import (
    NoiseLevel,
    Note,
    clamped_level,
    described_level,
    estimated_level,
    measured_level,
)
from icgn.pictures.models import ModelFor
from icgn.pictures.picture import restore_picture
from icgn.pictures.ranges import Range, RangeOption, check_level, find_range, fixed_range, reach_at, spread
from icgn.pictures.result import Restored
from icgn.pictures.tasks import Denoise, Inpaint, Task

SAMPLE = 8
"""Pages, spread over a stack, from which its noise and its range are found."""
# Pixels that these pages have at most, all together.
_SAMPLED = 32_000_000

PageTask = Callable[[int], Task]
"""What happened to a page, by its number."""

CleanPage = Callable[[int], Page]
"""The clean page of that number, in the unit of the stack."""

Place = tuple[int, int]
"""A channel: the place of a page along the axis of channels, and the number of a picture within the page."""


@dataclass(frozen=True)
class Basis:
    """What is the same for all pages of one channel.

    Attributes
    ----------
    noise : NoiseLevel or None
        of the pages; None for denoising at a level that is given.
    range : (float, float)
        the intensities that are 0 and 1 to the model.
    notes : tuple of Note
        what is to be said about the noise, once.
    """

    noise: NoiseLevel | None
    range: Range
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, eq=False)
class PagedTask:
    """A stack and how each of its pages is to be restored.

    Parameters
    ----------
    stack : Stack
        the open file.
    file : (float, float)
        the numbers of the file that are the intensities 0 and 1.
    task : callable
        the task of each page.
    models : callable
        the regularizer for so many channels.
    noise, sigma, range
        as for :func:`icgn.pictures.restore_picture`, for all pages.
    usual_noise : float
        the noise where none is given, as a part of the range; 0 to estimate it.
    """

    stack: Stack
    file: Range
    task: PageTask
    models: ModelFor
    _: KW_ONLY
    noise: float | Noise | None = None
    sigma: float | None = None
    range: RangeOption = None
    usual_noise: float = 0.0

    @property
    def channels(self) -> int:
        """How many places the axis of channels has along which pages are counted."""
        found = self.stack.container
        return dict(zip(found.page_axes, found.page_shape, strict=True)).get("C", 1)

    def channel(self, index: int) -> int:
        """The place of a page along that axis."""
        return self.stack.container.place(index).get("C", 0)

    def sampled(self, channel: int) -> list[int]:
        """The pages of one channel from which its noise and range are found, spread evenly."""
        found, pages = self.stack.container, self._pages(channel)
        number = max(1, min(SAMPLE, len(pages), _SAMPLED // (found.height * found.width * found.samples)))
        return [pages[int((k + 0.5) * len(pages) / number)] for k in range(number)]

    def _pages(self, channel: int) -> list[int]:
        return [i for i in range(len(self.stack)) if self.channel(i) == channel]

    def bases(self, clean: CleanPage | None = None) -> dict[Place, Basis]:
        """Find the noise and the range of every channel; clean pages give the noise where no level is given.

        Raises
        ------
        PictureError, ValueError
            for damaged pages, or a level that is in another unit than the pages.
        """
        found: dict[Place, Basis] = {}
        for channel in range(self.channels):
            pages = self.sampled(channel)
            shown = [page_pictures(self.stack.page(i), self.file) for i in pages]
            known = None if clean is None else [page_pictures(clean(i), self.file) for i in pages]
            for part in range(len(shown[0])):
                beside = None if known is None else [p[part] for p in known]
                found[channel, part] = self._basis(pages, [p[part] for p in shown], beside)
        return found

    def restore(
        self, index: int, page: Page, bases: dict[Place, Basis], **options: Any
    ) -> Iterator[tuple[Picture, Restored]]:
        """Restore one page; gives its pictures with their results.

        Parameters
        ----------
        index : int
            number of the page.
        page : Page
            as the stack gives it.
        bases : dict
            of :meth:`bases`.
        **options
            of :func:`icgn.pictures.restore_picture`.
        """
        for part, picture in enumerate(page_pictures(page, self.file)):
            basis = bases[self.channel(index), part]
            yield (
                picture,
                restore_picture(
                    picture,
                    task=self.task(index),
                    regularizer=self.models,
                    noise=basis.noise,
                    sigma=self.sigma,
                    range=basis.range,
                    **options,
                ),
            )

    def _basis(self, pages: Sequence[int], pictures: Sequence[Picture], clean: Sequence[Picture] | None) -> Basis:
        task = self.task(pages[0])
        regularizer = self.models(max(len(p.pixels) for p in pictures))
        shown = [known_part(self.task(i), p) for i, p in zip(pages, pictures, strict=True)]
        given = fixed_range(regularizer, self.range)
        if self.noise is None and self.usual_noise:
            low, high = range_of(shown, 0.0, given)
            level = NoiseLevel(self.usual_noise * (high - low))
        else:
            level = self._level(task, pages, pictures, clean)
        limits = range_of(shown, level.value, given)
        reach = reach_at(regularizer, limits)
        if level.found == "given" or self.sigma is not None:
            check_level(task.smoothing * level.value if self.sigma is None else self.sigma, reach, limits, given)
        if level.found == "given":
            return Basis(None if self.noise is None and not self.usual_noise else level, limits)
        level = clamped_level(level, reach)
        return Basis(replace(level, notes=()), limits, level.notes)

    def _level(
        self, task: Task, pages: Sequence[int], pictures: Sequence[Picture], clean: Sequence[Picture] | None
    ) -> NoiseLevel:
        """The noise of some pages: the one that is given, or the median of what is found in each."""
        given = self.sigma if self.noise is None and isinstance(task, Denoise) else self.noise
        if isinstance(given, Noise):
            return described_level(given, pictures[0].pixels)
        if given is not None:
            return NoiseLevel(given)
        # Pages without a picture have no noise to find.
        at = [k for k, p in enumerate(pictures) if spread(p.pixels) > 0] or range(len(pictures))
        if clean is not None and isinstance(task, Denoise):
            levels = [measured_level(pictures[k], clean[k]) for k in at]
        else:
            levels = [estimated_level(pictures[k]) for k in at]
        median = sorted(levels, key=lambda level: level.value)[(len(levels) - 1) // 2]
        whole = len(self._pages(self.channel(pages[0])))
        if whole == 1:
            return median
        note = Note("pages", f"taken for all pages: the median of {len(levels)} of {whole}")
        return replace(median, notes=(*median.notes, note))


def known_part(task: Task, picture: Picture) -> Tensor:
    """The pixels of a picture, NaN where they are missing."""
    if not isinstance(task, Inpaint):
        return picture.pixels
    return torch.where(task.known.reshape(1, *picture.pixels.shape[1:]), picture.pixels, torch.nan)


def range_of(shown: Sequence[Tensor], noise: float, given: RangeOption) -> Range:
    """The range of the pixels of several noisy pictures together, NaN where they are missing."""
    pixels = torch.cat([p.flatten() for p in shown])[None, None, None]
    return find_range(Denoise(), pixels, Denoise().pose(pixels), noise, given)


def page_pictures(page: Page, file: Range) -> list[Picture]:
    """A page as pictures: one, gray or colour, or where it has another number of channels one for each.

    Parameters
    ----------
    page : Page
        of a stack.
    file : (float, float)
        the numbers that become the intensities 0 and 1.
    """
    pixels = page.values if file == (0, 1) else (page.values.double() - file[0]) / (file[1] - file[0])
    pixels = pixels.float()
    if len(pixels) == 3 and bool((pixels[1:] == pixels[:1]).all()):
        return [Picture(pixels[:1], as_rgb=True, range=file)]
    parts = [pixels] if len(pixels) in (1, 3) else list(pixels[:, None])
    return [Picture(p, range=file) for p in parts]


def joined_values(pictures: Sequence[Picture], page: Page, file: Range) -> Tensor:
    """The numbers (C, H, W), in the unit of the file, of the restored pictures of a page."""
    pixels = torch.cat([p.pixels.expand(3, -1, -1) if p.as_rgb else p.pixels for p in pictures])
    before = torch.cat([p.pixels.expand(3, -1, -1) if p.as_rgb else p.pixels for p in page_pictures(page, file)])
    if torch.equal(pixels, before):
        return page.values  # exactly, whatever the division above has rounded
    return pixels if file == (0, 1) else file[0] + pixels.double() * (file[1] - file[0])
