"""Old spellings that keep working for one release, each with a warning that names the new one."""

from icgn.compat.arguments import keyword_only, once_positional
from icgn.compat.names import moved

__all__ = ["keyword_only", "moved", "once_positional"]
