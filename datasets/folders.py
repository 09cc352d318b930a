"""What a folder holds: the files that are read, and the others, counted by kind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from icgn.datasets.formats import FORMATS, PICTURES, Format, identify, kind_in_words


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes
    ----------
    files : tuple of Path
        those of the kinds that were asked for, sorted.
    left_out : dict of str to tuple of Path
        the others by kind, in words: "a GIF", ".txt file".
    """

    files: tuple[Path, ...]
    left_out: dict[str, tuple[Path, ...]]

    def summary(self) -> str:
        """Say in one sentence what is left out; empty if nothing is."""
        if not self.left_out:
            return ""
        count = sum(map(len, self.left_out.values()))
        kinds = (f"{len(files)} x {kind} ({_some(files)})" for kind, files in self.left_out.items())
        return f"{count} {'file' if count == 1 else 'files'} left out: {', '.join(kinds)}"


def survey(path: str | os.PathLike[str], *, recursive: bool = False, kinds: Sequence[Format] = FORMATS) -> Listing:
    """List the files of a folder by their content: those that can be read, and the others by kind.

    Parameters
    ----------
    path : path
        the folder; names that begin with a dot are ignored.
    recursive : bool
        whether folders inside it are entered; links to folders are not.
    kinds : sequence of Format
        those that are wanted; default all that can be read.

    Raises
    ------
    FileNotFoundError
        if `path` is no folder.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: not a folder, expected a folder of pictures")
    files: list[Path] = []
    left_out: dict[str, list[Path]] = {}
    for file in sorted(_walk(path, recursive)):
        kind = _kind(file)
        if kind in kinds:
            files.append(file)
        else:
            name = kind_in_words(file) if kind is None else f"{kind.kind} file"
            left_out.setdefault(name, []).append(file)
    return Listing(tuple(files), {k: tuple(v) for k, v in sorted(left_out.items())})


def listing_of(path: str | os.PathLike[str], *, recursive: bool = False, kinds: Sequence[Format] = PICTURES) -> Listing:
    """The listing of :func:`survey` with the files that only say by their name that they are of these kinds.

    Reading those says what is wrong with them.
    """
    found = survey(path, recursive=recursive, kinds=kinds)
    suffixes = tuple(s for f in kinds for s in f.suffixes)
    broken = {f for files in found.left_out.values() for f in files if f.name.lower().endswith(suffixes)}
    others = {k: tuple(f for f in files if f not in broken) for k, files in found.left_out.items()}
    return Listing(tuple(sorted([*found.files, *broken])), {k: files for k, files in others.items() if files})


def list_pictures(
    path: str | os.PathLike[str], *, recursive: bool = False, kinds: Sequence[Format] = PICTURES
) -> list[Path]:
    """List the pictures of a folder, recognized by their content, sorted by name; no pixel is read.

    Files that say by their name that they are pictures are listed too: reading them says what is wrong.

    Parameters
    ----------
    path : path
        the folder; names that begin with a dot are ignored.
    recursive : bool
        whether folders inside it are entered.
    kinds : sequence of Format
        those that are wanted; default those of photographs.

    Raises
    ------
    FileNotFoundError
        if `path` is no folder or holds no such file.
    """
    found = listing_of(path, recursive=recursive, kinds=kinds)
    if not found.files:
        expected = ", ".join(f"*{s}" for f in kinds for s in f.suffixes)
        said = found.summary()
        raise FileNotFoundError(f"{path}: no picture in this folder, expected {expected}{said and '; '}{said}")
    return list(found.files)


def _kind(file: Path) -> Format | None:
    try:
        return identify(file)
    except OSError:
        return None


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        # A Zarr folder is one file of pictures.
        if entry.is_dir() and _kind(entry) is None:
            if recursive and not entry.is_symlink():
                yield from _walk(entry, recursive)
        elif entry.is_file() or entry.is_dir():  # pipes and devices would be waited for
            yield entry


def _some(files: Sequence[Path]) -> str:
    names = ", ".join(f.name for f in files[:3])
    return names if len(files) <= 3 else f"{names}, ..."
