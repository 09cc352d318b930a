"""Files written at once or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# The name of a file being written: it begins with that of its target, cut to 50 characters, since 255 bytes is what
# most file systems allow and a character may take four.
_STEM = 50
_DRAFT = re.compile(r"\.(.*)\.[0-9a-f]{12}\.part", re.DOTALL)


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files under other names first, and rename them once all are on the disk; on failure all are as before.

    A symbolic link stays one, and an existing file keeps its permissions. Only a kill between two renames can leave
    some files new and others old.

    Parameters
    ----------
    contents : mapping of Path to bytes
        what each file shall hold; its folder exists.

    Raises
    ------
    OSError
        if one cannot be written.
    """
    targets = {Path(os.path.realpath(path)): content for path, content in contents.items()}
    # One file is renamed or not: nothing has to be put back.
    before = {path: path.read_bytes() for path in targets if len(targets) > 1 and path.exists()}
    drafts = {path: _draft(path) for path in targets}
    renamed: list[Path] = []
    try:
        for path, content in targets.items():
            _write(drafts[path], content, path)
        for path, draft in drafts.items():
            renamed.append(path)
            draft.replace(path)
    except BaseException:
        if len(targets) > 1:
            _put_back(renamed, before)
        raise
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Give the name of a draft to write to; it replaces `path` in one step, or is removed if anything fails.

    For files that do not fit in memory, and for folders; between the two renames of a folder the old one is found under
    the name of a draft only. A symbolic link stays one, and an existing file keeps its permissions.

    Parameters
    ----------
    path : Path
        the file or folder to be written; its folder exists.

    Yields
    ------
    Path
        where to write it.

    Raises
    ------
    OSError
        if it cannot be written.
    """
    target = Path(os.path.realpath(path))
    draft = _draft(target)
    try:
        yield draft
        if draft.is_dir():
            _replace_folder(draft, target)
            return
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    except BaseException:
        _remove(draft)
        raise


def draft_stem(path: Path) -> str:
    """The beginning of the name of a draft, taken from the name of its target.

    Parameters
    ----------
    path : Path
        the target.
    """
    return path.name[:_STEM]


def remove_drafts(paths: Iterable[Path]) -> None:
    """Remove the drafts of `paths` that killed processes left behind.

    Nothing else may be writing to them at the same time: it would fail.

    Parameters
    ----------
    paths : iterable of Path
        files that will be written, or folders in which nobody else writes: there the drafts of all files are removed.

    Raises
    ------
    OSError
        if a folder cannot be read.
    """
    targets = [Path(os.path.realpath(path)) for path in paths]
    folders = {target for target in targets if target.is_dir()}
    begun = {(target.parent, draft_stem(target)) for target in targets}
    for folder in folders | {folder for folder, _ in begun}:
        for file in folder.iterdir():
            found = _DRAFT.fullmatch(file.name)
            if found and (folder in folders or (folder, found[1]) in begun):
                with suppress(OSError):  # of another user, or gone meanwhile
                    _remove(file)


def _draft(target: Path) -> Path:
    return target.with_name(f".{draft_stem(target)}.{secrets.token_hex(6)}.part")


def _remove(draft: Path) -> None:
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


def _replace_folder(draft: Path, target: Path) -> None:
    old = _draft(target)
    if target.exists():
        target.replace(old)
    try:
        draft.replace(target)
    except BaseException:
        if old.exists():
            old.replace(target)
        raise
    _remove(old)


def _write(draft: Path, content: bytes, target: Path) -> None:
    with draft.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():
        shutil.copymode(target, draft)


def _put_back(paths: Iterable[Path], before: Mapping[Path, bytes]) -> None:
    for path in paths:
        if path not in before:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != before[path]:
            write_files({path: before[path]})
