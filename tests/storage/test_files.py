"""Files written at once or not at all, and folders that one run at a time writes to."""

import os
from pathlib import Path

import pytest

from icgn.storage import locked, remove_drafts, write_files
from icgn.training import Processes

DRAFT = ".{}.0123456789ab.part"


def test_files_are_written_together_or_not_at_all(tmp_path, monkeypatch):
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "link"
    old.write_bytes(b"before")
    link.symlink_to(old)
    honest = Path.replace

    def replace(self, target):
        if target.name == "last":
            raise OSError("full")
        return honest(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="full"):
            write_files({link: b"after", new: b"after", tmp_path / "last": b"after"})
    assert old.read_bytes() == b"before" and sorted(p.name for p in tmp_path.iterdir()) == ["link", "old"]
    write_files({link: b"after", new: b"after"})
    assert link.is_symlink() and old.read_bytes() == new.read_bytes() == b"after"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_files({new: b"again", tmp_path / "folder": b"x"})
    assert new.read_bytes() == b"after"


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "one"
    path.write_bytes(b"before")

    def full(number):
        raise OSError("full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_files({path: b"after"})
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_permissions_stay(tmp_path):
    path = tmp_path / "script"
    path.write_bytes(b"before")
    path.chmod(0o640)
    write_files({path: b"after"})
    assert path.read_bytes() == b"after" and path.stat().st_mode & 0o777 == 0o640


def test_names_as_long_as_a_file_system_allows(tmp_path):
    path = tmp_path / ("ä" * 120 + ".json")
    write_files({path: b"x"})
    assert path.read_bytes() == b"x"


def test_drafts_of_some_files_or_of_a_whole_folder_are_removed(tmp_path):
    mine, other, foreign = tmp_path / DRAFT.format("a"), tmp_path / DRAFT.format("b"), tmp_path / "c.part"
    for file in (mine, other, foreign):
        file.touch()
    remove_drafts([tmp_path / "a"])
    assert set(tmp_path.iterdir()) == {other, foreign}
    with locked(tmp_path, Processes(device="cpu")):
        assert set(tmp_path.iterdir()) == {tmp_path / ".lock", foreign}
