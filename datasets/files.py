"""Which picture goes to which file: decided, and refused, before any work is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from icgn.datasets.collections import list_pictures
from icgn.datasets.picture import SUFFIXES
from icgn.storage.files import remove_drafts


@dataclass(frozen=True)
class Job:
    """One picture to restore: where it is, where the result goes, and the clean picture to compare with, if any."""

    source: Path
    target: Path
    reference: Path | None = None


def plan(inputs: Sequence[Path], output: Path, reference: Path | None = None, figure: Path | None = None) -> list[Job]:
    """Match inputs with outputs and references; nothing is read or written.

    A file goes to the file `output`; several files, or a folder, go into the folder `output` under their own names,
    and so does a file if `output` is a folder or has no suffix. A folder stands for the pictures directly in it. What
    is no picture by its suffix, a measurement, is written as PNG.

    Parameters
    ----------
    inputs : sequence of Path
        files and folders; a missing file is no error here, but one of its own when it is read.
    output : Path
        file or folder.
    reference : Path, optional
        clean picture of a single input, or folder of clean pictures with the names of the inputs (the suffix may
        differ).
    figure : Path, optional
        a further file that will be written; only with a single input.

    Raises
    ------
    ValueError
        if two pictures would be written to the same file, if an input or a reference would be overwritten, if several
        pictures have one output file, reference or figure, or if the output is no kind of picture.
    FileNotFoundError
        for a folder without pictures.
    """
    sources = [f for i in inputs for f in (list_pictures(i) if i.is_dir() else [i])]
    several = len(sources) > 1 or any(i.is_dir() for i in inputs)
    if figure is not None:
        if len(sources) > 1:
            raise ValueError(f"--compare {figure}: got {len(sources)} pictures, expected one")
        _check_suffix("--compare", figure)
    into_folder = _is_folder(output, several)
    if not into_folder:
        _check_suffix("--output", output)
    targets = [output / _written_name(s) if into_folder else output for s in sources]
    references = [_reference(reference, s, len(sources)) for s in sources]
    read = [*sources, *(r for r in references if r is not None)]
    written = targets if figure is None else [*targets, figure]
    _check_nothing_lost(read, written)
    _check_distinct(sources, targets)
    if figure is not None and _place(figure) in {_place(t) for t in targets}:
        raise ValueError(f"--compare {figure}: the same file as the output, expected another")
    return [Job(*job) for job in zip(sources, targets, references, strict=True)]


def prepare_folders(files: Iterable[Path]) -> None:
    """Make the folders that files will be written to, try each, and remove what a killed run left half written there.

    Raises
    ------
    OSError
        naming the folder that cannot be made or written.
    """
    files = list(files)
    for place in sorted({f.parent for f in files}):
        try:
            place.mkdir(parents=True, exist_ok=True)
            # Permissions do not tell: read-only file systems, quotas and root differ.
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise OSError(f"{place}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    remove_drafts(files)


def _is_folder(output: Path, several: bool) -> bool:
    if several and output.is_file():
        raise ValueError(f"--output {output}: is a file, expected a folder for several pictures")
    if several and not output.exists() and output.suffix.lower() in SUFFIXES:
        raise ValueError(f"--output {output}: named like a file, expected a folder for several pictures")
    return several or output.is_dir() or (not output.suffix and not output.exists())


def _written_name(source: Path) -> str:
    return source.name if source.suffix.lower() in SUFFIXES else f"{source.stem}.png"


def _check_suffix(argument: str, path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{argument} {path}: got suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise ValueError(f"{argument} {path}: is a folder, expected a file")


def _reference(reference: Path | None, source: Path, number: int) -> Path | None:
    if reference is None:
        return None
    if not reference.is_dir():
        if number > 1:
            raise ValueError(f"--reference {reference}: got one file for {number} pictures, expected a folder")
        return reference
    same_stem = [f for f in list_pictures(reference) if f.stem == source.stem]
    same_name = [f for f in same_stem if f.name == source.name]
    # A reference that is missing is an error of that one picture.
    return (same_name or (same_stem if len(same_stem) == 1 else []) or [reference / source.name])[0]


def _check_distinct(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        # Folded: many file systems do not tell A.png from a.png.
        key = Path(str(_place(target)).casefold())
        if key in seen:
            raise ValueError(f"{seen[key]} and {source} would both be written to {target}, expected different names")
        seen[key] = source


def _check_nothing_lost(read: Sequence[Path], written: Sequence[Path]) -> None:
    places = {_place(r) for r in read}
    for target in written:
        if _place(target) in places or (target.exists() and any(r.exists() and r.samefile(target) for r in read)):
            raise ValueError(f"{target}: would overwrite a picture that is read, expected another file or folder")


def _place(path: Path) -> Path:
    # Path.resolve raises RuntimeError for a link that leads to itself; as a picture it is one that cannot be read.
    return Path(os.path.realpath(path))
