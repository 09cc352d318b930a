"""Stacks restored page by page: one kind of noise and one range for all pages of a channel, one page in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icgn.datasets import Page, Picture, Stack
from icgn.datasets.stack import filled, without
from icgn.functionals.noise import Noise, Poisson, PoissonGaussian
from icgn.pictures.levels import (
    NoiseLevel,
    Note,
    described_level,
    estimated_level,
    fitted_level,
    measured_level,
    scaled_noise,
)
from icgn.pictures.models import ModelFor
from icgn.pictures.picture import restore_picture
from icgn.pictures.ranges import Range, RangeOption, check_level, find_range, fixed_range, reach_at, spread
from icgn.pictures.result import Restored
from icgn.pictures.tasks import Denoise, Task, known_part, missing_of, with_data

SAMPLE = 8
"""Pages, spread over a stack, from which its noise and its range are found."""
# Pixels that these pages have at most, all together.
_SAMPLED = 32_000_000
# Pages whose noise differs by no more than this factor have one level: estimates scatter.
_STEADY = 1.25

PageTask = Callable[[int], Task]
"""What happened to a page, by its number."""

CleanPage = Callable[[int], Page]
"""The clean page of that number, in the unit of the stack."""

Place = tuple[int, int]
"""A channel: the place of a page along the axis of channels, and the number of a picture within the page."""


@dataclass(frozen=True)
class Changing:
    """Noise whose level changes over a stack: that of every page is found anew, its kind is that of the stack.

    Attributes
    ----------
    noise : NoiseLevel
        the median of the pages from which it was found, whatever a model was trained for.
    least, most : float
        of these pages, between which the level of every page stays.
    """

    noise: NoiseLevel
    least: float
    most: float

    def of(self, picture: Picture, clean: Picture | None = None) -> NoiseLevel:
        """The noise of one page, measured against its clean one if that is known; that of the stack if it is empty."""
        if spread(picture.pixels) == 0:
            return self.noise
        found = estimated_level(picture) if clean is None else measured_level(picture, clean)
        return scaled_noise(self.noise, min(max(found.value, self.least), self.most) / self.noise.value)


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
    changing : Changing or None
        how the level of each page is found, where one does not hold for all.
    """

    noise: NoiseLevel | None
    range: Range
    notes: tuple[Note, ...] = ()
    changing: Changing | None = None

    def noise_of(self, picture: Picture, clean: Picture | None = None) -> NoiseLevel | None:
        """The noise of a page, whose clean one may be known."""
        return self.noise if self.changing is None else self.changing.of(picture, clean)


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

    def pictures(self, index: int, page: Page | None = None) -> list[Picture]:
        """The pictures of a page: :func:`page_pictures`.

        Parameters
        ----------
        index : int
            number of the page.
        page : Page, optional
            as the stack gives it; read by default.
        """
        found = self.stack.page(index) if page is None else page
        return page_pictures(found, self.file, missing_of(self.task(index)))

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
            shown = [self.pictures(i) for i in pages]
            known = None if clean is None else [page_pictures(clean(i), self.file) for i in pages]
            for part in range(len(shown[0])):
                beside = None if known is None else [p[part] for p in known]
                found[channel, part] = self._basis(pages, [p[part] for p in shown], beside)
        return found

    def restore(
        self,
        index: int,
        page: Page,
        bases: dict[Place, Basis],
        *,
        clean: Sequence[Picture] | None = None,
        **options: Any,
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
        clean : sequence of Picture, optional
            the clean pictures of the page, against which changing noise is measured.
        **options
            of :func:`icgn.pictures.restore_picture`.
        """
        for part, picture in enumerate(self.pictures(index, page)):
            basis = bases[self.channel(index), part]
            yield (
                picture,
                restore_picture(
                    picture,
                    task=self.task(index),
                    regularizer=self.models,
                    noise=basis.noise_of(picture, None if clean is None else clean[part]),
                    sigma=self.sigma,
                    range=basis.range,
                    **options,
                ),
            )

    def _basis(self, pages: Sequence[int], pictures: Sequence[Picture], clean: Sequence[Picture] | None) -> Basis:
        task = self.task(pages[0])
        regularizer = self.models(max(len(p.pixels) for p in pictures))
        shown = [known_part(with_data(self.task(i), p), p.pixels) for i, p in zip(pages, pictures, strict=True)]
        given = fixed_range(regularizer, self.range)
        if self.noise is None and self.usual_noise:
            low, high = range_of(shown, 0.0, given)
            levels = [NoiseLevel(self.usual_noise * (high - low))]
        else:
            levels = self._levels(task, pictures, clean)
        level = levels[(len(levels) - 1) // 2]
        limits = range_of(shown, level.value, given)
        reach = reach_at(regularizer, limits)
        if level.found == "given" or self.sigma is not None:
            check_level(task.smoothing * level.value if self.sigma is None else self.sigma, reach, limits, given)
        if level.found == "given":
            return Basis(None if self.noise is None and not self.usual_noise else level, limits)
        changing = _changing(levels)
        level = fitted_level(level, reach, task.smoothing)
        notes = (*level.notes, *self._pages_note(levels, changing, len(self._pages(self.channel(pages[0])))))
        return Basis(replace(level, notes=()), limits, notes, changing)

    def _levels(self, task: Task, pictures: Sequence[Picture], clean: Sequence[Picture] | None) -> list[NoiseLevel]:
        """The noise of some pages: the one that is given, or what is found in each, in ascending order."""
        given = self.sigma if self.noise is None and isinstance(task, Denoise) else self.noise
        if isinstance(given, Noise):
            return [described_level(given, pictures[0].pixels)]
        if given is not None:
            return [NoiseLevel(given)]
        # Pages without a picture have no noise to find.
        at = [k for k, p in enumerate(pictures) if spread(p.pixels) > 0] or range(len(pictures))
        if clean is not None and isinstance(task, Denoise):
            levels = [measured_level(pictures[k], clean[k]) for k in at]
        else:
            levels = [estimated_level(pictures[k]) for k in at]
        return _ordered(levels)

    @staticmethod
    def _pages_note(levels: Sequence[NoiseLevel], changing: Changing | None, pages: int) -> tuple[Note, ...]:
        """What is said of pages whose noise was not looked for."""
        if pages == 1:
            return ()
        if changing is None:
            return (Note("pages", f"taken for all pages: the median of {len(levels)} of {pages}"),)
        some = f"{len(levels)} of {pages}"
        text = f"it changes from page to page and is followed: from {{:.4g}} to {{:.4g}} {{unit}} in {some}"
        return (Note("pages", text, (changing.least, changing.most)),)


def _ordered(levels: Sequence[NoiseLevel]) -> list[NoiseLevel]:
    """The noise of several pages, of the kind that most of them have: counts by their gain, other by its level."""
    counts = [level for level in levels if isinstance(level.noise, Poisson | PoissonGaussian)]
    if 2 * len(counts) > len(levels):
        return sorted(counts, key=lambda level: getattr(level.noise, "gain", 0.0))
    return sorted((level for level in levels if level not in counts), key=lambda level: level.value)


def _changing(levels: Sequence[NoiseLevel]) -> Changing | None:
    """How noise that was found in some pages, in ascending order, changes; None where one level holds for all.

    The noise of counts changes with the brightness, as its description says.
    """
    middle = levels[(len(levels) - 1) // 2]
    least, most = levels[0].value, levels[-1].value
    if isinstance(middle.noise, Poisson | PoissonGaussian) or not least > 0 or most <= _STEADY * least:
        return None
    return Changing(replace(middle, notes=()), least, most)


def range_of(shown: Sequence[Tensor], noise: float, given: RangeOption) -> Range:
    """The range of the pixels of several noisy pictures together, NaN where they are missing."""
    pixels = torch.cat([p.flatten() for p in shown])[None, None, None]
    return find_range(Denoise(), pixels, Denoise().pose(pixels), noise, given)


def page_pictures(page: Page, file: Range, missing: Tensor | None = None) -> list[Picture]:
    """A page as pictures: one, gray or colour, or where it has another number of channels one for each.

    A page without any data has one colour.

    Parameters
    ----------
    page : Page
        of a stack.
    file : (float, float)
        the numbers that become the intensities 0 and 1.
    missing : Tensor, optional
        bool (1, H, W), True for pixels that are to be found.
    """
    values, nodata = filled(page.values, page.nodata), without(page.nodata, missing)
    if values is None:
        values = torch.full_like(page.values, file[0])
    pixels = values if file == (0, 1) else (values.double() - file[0]) / (file[1] - file[0])
    pixels = pixels.float()
    if len(pixels) == 3 and bool((pixels[1:] == pixels[:1]).all()):
        return [Picture(pixels[:1], nodata=nodata, as_rgb=True, range=file)]
    parts = [pixels] if len(pixels) in (1, 3) else list(pixels[:, None])
    return [Picture(p, nodata=nodata, range=file) for p in parts]


def joined_values(pictures: Sequence[Picture], page: Page, file: Range) -> Tensor:
    """The numbers (C, H, W), in the unit of the file, of the restored pictures of a page; those without data stay."""
    pixels = torch.cat([p.pixels.expand(3, -1, -1) if p.as_rgb else p.pixels for p in pictures])
    before = torch.cat([p.pixels.expand(3, -1, -1) if p.as_rgb else p.pixels for p in page_pictures(page, file)])
    nodata = pictures[0].nodata
    found = page.nodata is not None and (nodata is None or not torch.equal(nodata, page.nodata))
    if torch.equal(pixels, before) and not found:
        return page.values  # exactly, whatever the division above has rounded
    values = pixels if file == (0, 1) else file[0] + pixels.double() * (file[1] - file[0])
    return values if nodata is None else torch.where(nodata, page.values.to(values.dtype), values)
