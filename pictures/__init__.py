"""One picture in, one certified picture out."""

from icgn.pictures.denoise import denoise

__all__ = ["denoise"]
