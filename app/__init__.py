"""The page of ``icgn app``: needs the extra ``app``."""

from icgn.app.server import serving

__all__ = ["serving"]
