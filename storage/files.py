"""Files written at once or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write_files(contents: dict[Path, bytes]) -> None:
    """Write files under other names first, and rename them once all are on the disk; on failure all are as before.

    A symbolic link stays one. Only a kill between two renames can leave some files new and others old.

    Raises
    ------
    OSError
        if one cannot be written.
    """
    targets = {Path(os.path.realpath(path)): content for path, content in contents.items()}
    before = {path: path.read_bytes() for path in targets if path.exists()}
    try:
        for path, content in targets.items():
            with _part(path).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in targets:
            _part(path).replace(path)
    except BaseException:
        _restore(targets, before)
        raise
    finally:
        for path in targets:
            _part(path).unlink(missing_ok=True)


def _restore(targets: Iterable[Path], before: dict[Path, bytes]) -> None:
    for path in targets:
        if path not in before:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != before[path]:
            _part(path).write_bytes(before[path])
            _part(path).replace(path)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
