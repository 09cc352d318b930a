"""Masks: which pixels of a picture are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icgn.datasets import Container, Page, Picture, Stack, luma, open_stack

MOST, NEARLY_ALL = 0.5, 0.9
"""Parts of a picture: masks that hide more than the first, or the second at least, may be inverted by mistake."""

# Pixels within this part of all values from the least or the largest are dark or light; a picture has so many others.
_EDGES, _BETWEEN = 0.1, 0.1


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask as it was read.

    Attributes
    ----------
    known : Tensor
        bool (1, H, W), True where the picture is known.
    rule : str
        in words, which of its values are those of missing pixels.
    """

    known: Tensor
    rule: str

    @property
    def hidden(self) -> float:
        """The part of the pixels that is missing."""
        return 1 - float(self.known.double().mean())

    @property
    def words(self) -> str:
        """How many pixels are filled in, and which."""
        count, total = self.known.numel() - int(self.known.sum()), self.known.numel()
        return f"{count} of {total} pixels ({percent(count / total)}) are filled in: {self.rule}"

    @property
    def doubt(self) -> str:
        """What makes one ask whether the mask is meant so, in words; empty if nothing does."""
        return _doubt(self.hidden, "the picture")


def _doubt(hidden: float, which: str) -> str:
    if hidden == 0:
        return "hides no pixel: there is nothing to fill in"
    return f"hides {percent(hidden)} of {which}" if hidden > MOST else ""


def percent(share: float) -> str:
    """A part as a percentage that is 0 or 100 only if the part is 0 or 1."""
    shown = f"{100 * share:.1f}"
    if shown in ("0.0", "100.0") and 0 < share < 1:
        return "less than 0.1 %" if share < 0.5 else "more than 99.9 %"
    return f"{shown.removesuffix('.0')} %"


class MaskPages:
    """A file of masks: one for all pages of a stack, or a page for each, read one by one; made by :func:`open_mask`.

    Parameters
    ----------
    path : Path
        the file.
    stack : Stack
        the pages of the file, open.
    invert : bool
        whether masks are light where a picture is to be filled in.

    Attributes
    ----------
    path : Path
        the file.
    hidden : float
        the part of the pixels that is missing, of the page that lacks the most.
    words : str
        how many pixels are filled in, of all pages together, and which.
    doubt : str
        what makes one ask whether the mask is meant so; empty if nothing does.
    """

    def __init__(self, path: Path, stack: Stack, invert: bool) -> None:
        self.path, self._stack = path, stack
        seen = _Seen()
        for index in range(len(stack)):
            seen = seen.with_page(stack.page(index))
        shown = seen.shows_picture and not all(_is_two_toned(stack.page(i), seen) for i in range(len(stack)))
        self._rule = _rule_of(seen, invert, opacity=shown)
        # Many stacks have a mask or two.
        self.page = lru_cache(maxsize=2)(self._page)
        missing = [int((~self.page(index).known).sum()) for index in range(len(stack))]
        self.most = max(range(len(stack)), key=missing.__getitem__)
        size = stack.container.height * stack.container.width
        self.hidden, total = missing[self.most] / size, size * len(stack)
        of_pages = "" if len(stack) == 1 else f" of {len(stack)} pages"
        share = percent(sum(missing) / total)
        self.words = f"{sum(missing)} of {total} pixels{of_pages} ({share}) are filled in: {self._rule.words}"
        which = "the picture" if len(stack) == 1 else f"page {self.most + 1}"
        self.doubt = _doubt(self.hidden, which)

    def __len__(self) -> int:
        return len(self._stack)

    def _page(self, index: int) -> Mask:
        page = self._stack.page(index)
        try:
            return self._rule.mask(page.values, page.alpha)
        except ValueError as error:
            which = "" if len(self) == 1 else f"page {index + 1} "
            raise ValueError(which + str(error).removeprefix("mask: ")) from error

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self._stack.container.height, self._stack.container.width

    def number_of(self, stack: Container) -> Callable[[int], int]:
        """The number of the mask of each page of a stack, by the number of that.

        There is one for all pages, one for each, or one for each place along some axes of the stack: those that the
        file of masks names, else the only ones of so many places.

        Raises
        ------
        ValueError
            for another number of pages, or where several axes of the stack have so many places.
        """
        if len(self) in (1, stack.pages):
            return lambda index: index if len(self) > 1 else 0
        axes = self._axes(stack)
        sizes = [_long_axes(stack)[a] for a in axes]
        return lambda index: int(np.ravel_multi_index([stack.place(index)[a] for a in axes], sizes))

    def _axes(self, stack: Container) -> tuple[str, ...]:
        """The axes of a stack along which there is a mask for each place."""
        long, own = _long_axes(stack), _long_axes(self._stack.container)
        some = (c for k in range(1, len(long)) for c in combinations(long, k))
        fitting = [c for c in some if prod(long[a] for a in c) == len(self)]
        chosen = [c for c in fitting if {a: long[a] for a in c} == own] or fitting
        if len(chosen) == 1:
            return chosen[0]
        along = ", ".join(f"{a} {n}" for a, n in long.items())
        several = f", or one for each place along axes of it ({along}), not several of which may fit" * (len(long) > 1)
        raise ValueError(
            f"mask {self.path}: has {len(self)} pages, expected one, or {stack.pages} as {stack.path}{several}"
        )

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


def _long_axes(container: Container) -> dict[str, int]:
    """The axes along which a file has several pages, and their number."""
    axes = zip(container.page_axes, container.page_shape, strict=True)
    return {a: n for a, n in axes if n > 1}


def open_mask(path: str | Path, *, invert: bool = False) -> MaskPages:
    """Open a file of masks, of one page or several, of any kind that :func:`icgn.datasets.open_stack` reads.

    The picture is known where the mask is light, and missing where it is dark: False and True, 0 and 1, 0 and 255. The
    threshold is half of the largest value; if there are negative ones, the middle between the least and the largest.
    It is the same for all pages. Colour becomes gray first. Pixels that are mostly transparent are missing; where the
    others are all equal, or show a picture (a tenth of them are neither dark nor light), it is the opacity alone that
    counts.

    Parameters
    ----------
    path : str or Path
        the file.
    invert : bool
        whether light pixels are the missing ones, as in OpenCV, scikit-image and painting programs.

    Raises
    ------
    ValueError
        if the file cannot be read, has values that are not finite, or a page of which no pixel is known.
    """
    return _opened(path, invert, single=False)


def load_mask(path: str | Path, *, invert: bool = False) -> Mask:
    """Read a mask from a file of one page; :func:`open_mask` says what its values mean.

    Parameters
    ----------
    path, invert
        as for :func:`open_mask`.

    Raises
    ------
    ValueError
        as :func:`open_mask`, or if the file has several pages.
    """
    found = _opened(path, invert, single=True)
    try:
        return found.page(0)
    finally:
        found.close()


def _opened(path: str | Path, invert: bool, *, single: bool) -> MaskPages:
    try:
        stack = open_stack(path)
        try:
            if single and len(stack) != 1:
                raise ValueError(f"has {len(stack)} pages, expected one for one picture")
            return MaskPages(Path(path), stack, invert)
        except BaseException:
            stack.close()
            raise
    except ValueError as error:
        reason = str(error).removeprefix("mask: ").removeprefix(f"{path}: ")
        raise ValueError(f"mask {path}: {reason}") from error


def read_mask(path: str | Path, *, invert: bool = False) -> Tensor:
    """Read a mask from a picture file: bool (1, H, W), True where the picture is known.

    Parameters
    ----------
    path : str or Path
        the file; :func:`open_mask` says what its values mean.
    invert : bool
        whether light pixels are the missing ones.

    Raises
    ------
    ValueError
        if the file cannot be read, or says that no pixel is known.
    """
    return load_mask(path, invert=invert).known


def known_pixels(mask: Picture) -> Tensor:
    """The known pixels that the picture of a mask shows: bool (1, H, W); :func:`open_mask` says which they are.

    Raises
    ------
    ValueError
        if no pixel is known.
    """
    page = Page(mask.pixels, mask.alpha)
    seen = _Seen().with_page(page)
    rule = _rule_of(seen, invert=False, opacity=seen.shows_picture and not _is_two_toned(page, seen))
    return rule.mask(mask.pixels, mask.alpha).known


@dataclass(frozen=True)
class _Seen:
    """What the pages of a mask hold, of their opaque pixels: the least and largest value, up to three of them."""

    low: float = math.inf
    high: float = -math.inf
    some: tuple[float, ...] = ()
    opaque: bool = True

    @property
    def shows_picture(self) -> bool:
        """Whether some pixels are transparent and the others have more than two values, as in a picture cut out."""
        return not self.opaque and len(self.some) > 2

    def with_page(self, page: Page) -> _Seen:
        """What a page and those before it hold."""
        opaque = _opaque(page.values, page.alpha)
        shown = _gray(page.values)[opaque]
        bad = int((~torch.isfinite(shown)).sum())
        if bad:
            raise ValueError(f"mask: got {bad} NaN or infinite values, expected finite ones")
        some = self.some if len(self.some) > 2 else {*self.some, *shown.unique()[:3].tolist()}
        ends = (float(shown.min()), float(shown.max())) if len(shown) else (self.low, self.high)
        whole = self.opaque and bool(opaque.all())
        return _Seen(min(self.low, ends[0]), max(self.high, ends[1]), tuple(some)[:3], whole)


@dataclass(frozen=True)
class _Rule:
    """Which pixels are missing: the transparent ones alone, or also those whose value is not above the middle."""

    words: str
    middle: float | None
    invert: bool

    def mask(self, values: Tensor, alpha: Tensor | None) -> Mask:
        """The mask of a page; ``ValueError`` if it hides every pixel."""
        opaque = _opaque(values, alpha)
        light = opaque if self.middle is None else (_gray(values) > self.middle) & opaque
        found = Mask(~light if self.invert else light, self.words)
        if not bool(found.known.any()):
            way = "do not invert it" if self.invert else "inverted, it fills where it is light"
            hint = way if self.invert else f"{way} (--invert of the command line)"
            raise ValueError(f"mask: hides every pixel: {self.words}; expected pixels that are known; {hint}")
        return found


def _is_two_toned(page: Page, seen: _Seen) -> bool:
    """Whether nearly all opaque pixels of a page are as dark or as light as any, as those of a mask are."""
    shown = _gray(page.values)[_opaque(page.values, page.alpha)]
    near = _EDGES * (seen.high - seen.low)
    between = (shown > seen.low + near) & (shown < seen.high - near)
    return len(shown) == 0 or float(between.double().mean()) < _BETWEEN


def _rule_of(seen: _Seen, invert: bool, opacity: bool) -> _Rule:
    low, high = seen.low, seen.high
    if opacity or (not seen.opaque and len(seen.some) < 2):
        return _Rule("the opaque ones" if invert else "the transparent ones", None, invert)
    bound = min(low, 0.0)
    # Noise of compression around white is no second value, and neither is a single one.
    middle = (bound + high) / 2 if high > bound else 0.0
    if low == high:
        return _Rule(f"all are {low:g}", middle, invert)
    two = low <= middle and len(seen.some) == 2
    if invert:
        words = f"those of {high:g}, not of {low:g}" if two else f"those above {middle:g}"
        return _Rule(words + ("" if seen.opaque else " that are opaque"), middle, invert)
    words = (
        f"those of {low:g}, not of {high:g}" if two else f"those up to {middle:g}, half way from {bound:g} to {high:g}"
    )
    return _Rule(words + ("" if seen.opaque else ", and the transparent ones"), middle, invert)


def _opaque(values: Tensor, alpha: Tensor | None) -> Tensor:
    return torch.ones_like(values[:1], dtype=torch.bool) if alpha is None else alpha >= 0.5


def _gray(values: Tensor) -> Tensor:
    """The luma of colour, the mean of other channels; (1, H, W) in float64."""
    values = values.double()
    if len(values) == 3 and bool((values != values[:1]).any()):
        return luma(values)
    return values[:1] if len(values) == 3 else values.mean(0, keepdim=True)
