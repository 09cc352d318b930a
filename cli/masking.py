"""The masks of ``icgn inpaint``: one for all pictures or one for each, and asked about where they look inverted."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from icgn.cli.asking import agreed, somebody_there
from icgn.cli.screen import say
from icgn.datasets import survey
from icgn.pictures.masks import MOST, NEARLY_ALL, Mask, load_mask

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
        self._one: Mask | None = None

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
            self._one = self._load(self.place)
        if self.sure:
            return
        if not somebody_there():
            if self._one is not None:
                self._doubted(self.place, self._one)
            return
        masks = {f: self._load(f) for f in self.files()} if self._one is None else {self.place: self._one}
        doubts = [f"mask {f}: {m.doubt} ({m.words})" for f, m in masks.items() if m.doubt]
        if doubts and not agreed("\n".join([*doubts, "Go on?"])):
            raise ValueError(f"{doubts[0]}; {_WAY_OUT}")
        self.sure = True

    def of(self, source: Path) -> tuple[Path, Mask]:
        """The mask of a picture, and its file.

        Raises
        ------
        ValueError
            if there is none, or it cannot be used.
        """
        if self._one is not None:
            return self.place, self._one
        file = self._find(source)
        mask = self._load(file)
        if not self.sure:
            self._doubted(file, mask)
        return file, mask

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

    def _load(self, file: Path) -> Mask:
        return load_mask(file, invert=self.invert)

    def _doubted(self, file: Path, mask: Mask) -> None:
        """Refuse a mask that hides nearly all of the picture, and warn of others that may be inverted."""
        if mask.hidden >= NEARLY_ALL:
            raise ValueError(f"mask {file}: {mask.doubt} ({mask.words}); {_WAY_OUT}")
        if mask.doubt:
            say("warning", f"--mask {file}: {mask.doubt}; {_WAY_OUT}")
