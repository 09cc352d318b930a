"""Old spellings that keep working for one release, each with a warning that names the new one."""

from icgn.compat.arguments import dropped, keyword_only, once_positional
from icgn.compat.names import moved

__all__ = ["dropped", "keyword_only", "moved", "once_positional"]
