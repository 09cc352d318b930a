"""Files: written at once or not at all, and folders that one run at a time writes to."""

from icgn.storage.files import remove_drafts, write_files
from icgn.storage.locks import locked
from icgn.storage.versions import environment, versions

__all__ = ["environment", "locked", "remove_drafts", "versions", "write_files"]
