"""The masks of ``icgn inpaint``: one for all pictures or one for each, and asked about where they look inverted.

A mask of several pages has one for each page of a stack.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from icgn.cli.asking import agreed, somebody_there
from icgn.cli.screen import say
from icgn.datasets import survey
from icgn.pictures.masks import MOST, NEARLY_ALL, Mask, MaskPages, open_mask

_WAY_OUT = "--invert fills where the mask is light, --yes takes it as it is"


class Masks:
    """The masks of all pictures.

    Parameters
    ----------
    place : Path
        a mask of all pictures, or a folder of masks under the names of the pictures; the suffix may differ.
    invert : bool
        whether light pixels are the missing ones.
    sure : bool
        whether masks that hide nothing, or most of a picture, are meant so.
    """

    def __init__(self, place: Path, *, invert: bool, sure: bool) -> None:
        self.place, self.invert, self.sure = place, invert, sure
        self._one: MaskPages | None = None
        self._last: MaskPages | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: files are opened there anew, and what was answered here holds."""
        return {**self.__dict__, "_one": None, "_last": None}

    def __enter__(self) -> Masks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in (self._one, self._last):
            if opened is not None:
                opened.close()

    def files(self) -> list[Path]:
        """All files of masks.

        Raises
        ------
        ValueError
            for a folder without any.
        """
        if not self.place.is_dir():
            return [self.place]
        found = survey(self.place)
        if not found.files:
            said = found.summary()
            raise ValueError(f"mask: {self.place}: no picture in this folder{said and '; '}{said}")
        return list(found.files)

    def ask(self) -> None:
        """Read the mask of all pictures; at a terminal, ask about masks that may be inverted.

        Raises
        ------
        ValueError
            if the answer is no, or the mask of all pictures cannot be used.
        """
        if not self.place.is_dir():
            self._one = open_mask(self.place, invert=self.invert)
        if self.sure:
            return
        if not somebody_there():
            if self._one is not None:
                self._doubted(self._one)
            return
        masks = (self._load(f) for f in self.files()) if self._one is None else [self._one]
        doubts = [f"mask {m.path}: {m.doubt} ({m.words})" for m in masks if m.doubt]
        if doubts and not agreed("\n".join([*doubts, "Go on?"])):
            raise ValueError(f"{doubts[0]}; {_WAY_OUT}")
        self.sure = True

    def of(self, source: Path) -> MaskPages:
        """The mask of a picture, or the masks of a stack.

        Raises
        ------
        ValueError
            if there is none, or it cannot be used.
        """
        mask = self._one
        if mask is None:
            mask = self._load(self._find(source))
            if not self.sure:
                self._doubted(mask)
        return mask

    def check_shown(self, file: Path, mask: Mask, pixels: Tensor) -> None:
        """Refuse a mask that hides most of a picture (C, H, W), and leaves one colour of it, as inverted ones do.

        Raises
        ------
        ValueError
            if it does, unless masks are meant so.
        """
        if self.sure or mask.hidden <= MOST:
            return
        shown, hidden = pixels[:, mask.known[0]], pixels[:, ~mask.known[0]]
        if bool((shown == shown[:, :1]).all()) and not bool((hidden == hidden[:, :1]).all()):
            raise ValueError(f"mask {file}: {mask.doubt}, and all that it leaves is of one colour; {_WAY_OUT}")

    def _find(self, source: Path) -> Path:
        same_stem = [f for f in self.files() if f.stem == source.stem]
        same_name = [f for f in same_stem if f.name == source.name]
        if not same_name and len(same_stem) != 1:
            found = f"{len(same_stem)} masks" if same_stem else "no mask"
            raise ValueError(f"mask {self.place}: got {found} for {source}, expected {self.place / source.name}")
        return (same_name or same_stem)[0]

    def _load(self, file: Path) -> MaskPages:
        """Open the mask of one picture among several; that of the one before is closed."""
        if self._last is not None:
            self._last.close()
        self._last = open_mask(file, invert=self.invert)
        return self._last

    def _doubted(self, mask: MaskPages) -> None:
        """Refuse a mask that hides nearly all of the picture, and warn of others that may be inverted."""
        if mask.hidden >= NEARLY_ALL:
            raise ValueError(f"mask {mask.path}: {mask.doubt} ({mask.words}); {_WAY_OUT}")
        if mask.doubt:
            say("warning", f"--mask {mask.path}: {mask.doubt}; {_WAY_OUT}")
