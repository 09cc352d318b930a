"""Which picture goes to which file: decided, and refused, before any work is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from icgn.compat import keyword_only
from icgn.datasets.folders import list_pictures, listing_of
from icgn.datasets.formats import FORMATS, Format, identify, named, split_inner
from icgn.datasets.picture import FILE_SUFFIXES, SUFFIXES
from icgn.storage.files import remove_drafts


@keyword_only
@dataclass(frozen=True)
class Job:
    """One picture to restore.

    Parameters
    ----------
    source : Path
        the file that is read.
    target : Path
        the file that the result is written to.
    reference : Path or None
        the clean picture to compare with.
    """

    source: Path
    target: Path
    _: KW_ONLY
    reference: Path | None = None


@keyword_only
def plan(
    inputs: Sequence[Path],
    output: Path,
    *,
    reference: Path | None = None,
    figure: Path | None = None,
    suffixes: Sequence[str] = SUFFIXES,
    recursive: bool = False,
) -> list[Job]:
    """Match inputs with outputs and references; nothing is read or written.

    A file goes to the file `output`; several files, or a folder, go into the folder `output` under their own names,
    and so does a file if `output` is a folder or has no suffix. A folder stands for the pictures directly in it, or,
    with `recursive`, for all below it, whose folders are made again in the output. What has none of the suffixes is
    written under that of its content, and as PNG if that is none of them either: a measurement.

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
    suffixes : sequence of str
        of the kinds of file that are taken from folders and keep their names: :data:`SUFFIXES`, those of photographs,
        or :data:`FILE_SUFFIXES`, all.
    recursive : bool
        whether folders inside folders are entered.

    Raises
    ------
    ValueError
        if two pictures would be written to the same file, if an input or a reference would be overwritten, if several
        pictures have one output file, reference or figure, if the output is no kind of picture, or for ``-``, a pipe.
    FileNotFoundError
        for a folder without pictures.
    """
    for place in (*inputs, output):
        if str(place) == "-" and not place.exists():
            raise ValueError("-: pictures are neither read from a pipe nor written to one, expected the name of a file")
    found = [(f, root) for i in inputs for f, root in _found(i, suffixes, recursive)]
    sources = [f for f, _ in found]
    several = len(sources) > 1 or any(_is_plain_folder(i) for i in inputs)
    if figure is not None:
        if len(sources) > 1:
            raise ValueError(f"--compare {figure}: got {len(sources)} pictures, expected one")
        _check_suffix("--compare", figure)
    into_folder = _is_folder(output, several)
    if not into_folder:
        _check_suffix("--output", output)
    targets = [output / _written_name(s, root, suffixes) if into_folder else output for s, root in found]
    references = [_reference(reference, s, len(sources)) for s in sources]
    read = [*sources, *(r for r in references if r is not None)]
    written = targets if figure is None else [*targets, figure]
    _check_nothing_lost(read, written)
    _check_distinct(sources, targets)
    if figure is not None and _place(figure) in {_place(t) for t in targets}:
        raise ValueError(f"--compare {figure}: the same file as the output, expected another")
    return [Job(s, t, reference=r) for s, t, r in zip(sources, targets, references, strict=True)]


def prepare_folders(files: Iterable[Path]) -> None:
    """Make the folders that files will be written to, try each, and remove what a killed run left half written there.

    Raises
    ------
    OSError
        naming the folder that cannot be made or written.
    """
    files = [split_inner(f)[0] for f in files]
    for place in sorted({f.parent for f in files}):
        try:
            place.mkdir(parents=True, exist_ok=True)
            # Only an attempt is reliable: permissions say nothing of read-only file systems, quotas and root.
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise OSError(f"{place}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    remove_drafts(files)


def _found(place: Path, suffixes: Sequence[str], recursive: bool) -> list[tuple[Path, Path]]:
    """The pictures that an input stands for, each with the folder that its name in the output begins from."""
    if not _is_plain_folder(place):
        return [(place, place.parent)]
    return [(f, place) for f in list_pictures(place, recursive=recursive, kinds=_kinds(suffixes))]


def left_out(
    inputs: Sequence[Path], *, suffixes: Sequence[str] = FILE_SUFFIXES, recursive: bool = False
) -> dict[Path, str]:
    """Say, for each folder of the inputs of :func:`plan` that has some, which files in it are no pictures, by kind.

    Parameters
    ----------
    inputs : sequence of Path
        files and folders.
    suffixes : sequence of str
        of the kinds of file that are taken.
    recursive : bool
        whether folders inside folders are entered.
    """
    kinds = _kinds(suffixes)
    folders = [i for i in inputs if _is_plain_folder(i)]
    said = {f: listing_of(f, recursive=recursive, kinds=kinds).summary() for f in folders}
    return {folder: words for folder, words in said.items() if words}


def _kinds(suffixes: Sequence[str]) -> tuple[Format, ...]:
    return tuple(f for f in FORMATS if set(f.suffixes) <= set(suffixes))


def _is_plain_folder(place: Path) -> bool:
    """Whether a path is a folder of files; a folder of Zarr is one file of pictures."""
    return place.is_dir() and identify(place) is None


def _is_folder(output: Path, several: bool) -> bool:
    if several and output.is_file():
        raise ValueError(f"--output {output}: is a file, expected a folder for several pictures")
    if several and not output.exists() and named(output) is not None:
        raise ValueError(f"--output {output}: named like a file, expected a folder for several pictures")
    kind = named(output)
    if kind is not None and (kind.kind == "Zarr" or split_inner(output)[1]):
        return several  # a folder that is one file, or a place inside a file
    return several or output.is_dir() or (not output.suffix and not output.exists())


def _written_name(source: Path, root: Path, suffixes: Sequence[str]) -> Path:
    source = split_inner(source)[0]
    folder = source.parent.relative_to(root) if source.is_relative_to(root) else Path()
    if source.name.lower().endswith(tuple(suffixes)):
        return folder / source.name
    try:
        kind = identify(source)
    except OSError:
        kind = None
    own = kind is not None and kind.suffixes[0] in suffixes
    return folder / f"{source.stem}{kind.suffixes[0] if kind is not None and own else '.png'}"


def _check_suffix(argument: str, path: Path) -> None:
    kind = named(path)
    if kind is None:
        raise ValueError(f"{argument} {path}: got suffix {path.suffix!r}, expected one of {', '.join(FILE_SUFFIXES)}")
    if path.is_dir() and kind.kind != "Zarr":
        raise ValueError(f"{argument} {path}: is a folder, expected a file")


def _reference(reference: Path | None, source: Path, number: int) -> Path | None:
    if reference is None:
        return None
    if not reference.is_dir():
        if number > 1:
            raise ValueError(f"--reference {reference}: got one file for {number} pictures, expected a folder")
        return reference
    same_stem = [f for f in list_pictures(reference, kinds=FORMATS) if f.stem == source.stem]
    same_name = [f for f in same_stem if f.name == source.name]
    # A reference that is missing is an error of that one picture.
    return (same_name or (same_stem if len(same_stem) == 1 else []) or [reference / source.name])[0]


def _check_distinct(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        # Without case: on many file systems A.png and a.png are the same file.
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
    return Path(os.path.realpath(split_inner(path)[0]))
