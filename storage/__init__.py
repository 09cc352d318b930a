"""Files: written at once or not at all, and folders that one run at a time writes to."""

from icgn.storage.files import write_files
from icgn.storage.locks import locked

__all__ = ["locked", "write_files"]
