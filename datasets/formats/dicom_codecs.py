"""JPEG-LS, lossless and 12-bit JPEG in DICOM files by imagecodecs: a plug-in for the decoders of pydicom."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

_NAME = "imagecodecs"
_CODECS: dict[str, Any] = {
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEGLossless: imagecodecs.jpegsof3_decode,
    uid.JPEGLosslessSV1: imagecodecs.jpegsof3_decode,
    uid.JPEGExtended12Bit: imagecodecs.jpeg8_decode,
}
# pydicom asks for what is missing where is_available is False, which it never is.
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {}


def is_available(syntax: str) -> bool:
    """Whether a transfer syntax is decoded here; the name is pydicom's."""
    return syntax in _CODECS


def decode_frame(source: bytes, runner: Any) -> bytearray:
    """The samples of one frame, those of a pixel together, as pydicom asks of its plug-ins."""
    syntax = runner.transfer_syntax
    if syntax == uid.JPEGExtended12Bit and runner.samples_per_pixel > 1:
        raise ValueError("colour in 12-bit JPEG, expected gray")
    samples = np.ascontiguousarray(_CODECS[syntax](source))
    runner.set_option("bits_allocated", 8 * samples.itemsize)
    if samples.ndim == 3:
        runner.set_option("planar_configuration", 0)
    return bytearray(samples.tobytes())


def add_decoders() -> None:
    """Give pydicom the decoders, once; its own come first."""
    for syntax in _CODECS:
        decoder = get_decoder(uid.UID(syntax))
        if _NAME not in decoder.available_plugins:
            decoder.add_plugin(_NAME, (__name__, decode_frame.__name__))
