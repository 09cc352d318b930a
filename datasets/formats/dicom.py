"""DICOM by pydicom: frames in the unit of the scanner; all attributes are kept, the result is marked as derived."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from icgn.datasets.formats.container import Container, Samples, check_size
from icgn.datasets.formats.contract import Format, Pages, Request

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation",
           "PhotometricInterpretation")  # fmt: skip


class DicomReader:
    """The frames of a DICOM file; the window, which says how to show them, is left alone.

    Raises
    ------
    ValueError
        for lookup tables, palettes, scales that differ from frame to frame, and transfer syntaxes that need a decoder
        which is not installed.
    """

    def __init__(self, request: Request) -> None:
        import pydicom
        from pydicom.uid import DeflatedExplicitVRLittleEndian

        from icgn.datasets.formats.dicom_codecs import add_decoders

        add_decoders()
        data = pydicom.dcmread(request.path, defer_size=4096)
        # pydicom finds single frames in a file unless all of it is compressed.
        self._source = (
            data if data.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian else request.path
        )
        if not any(name in data for name in _PIXELS):
            raise ValueError("the DICOM holds no picture (no pixel data)")
        if "PixelData" not in data:
            raise ValueError("the DICOM holds pixels as floats, expected integers; save it as NIfTI or TIFF first")
        if not all(name in data for name in _NEEDED):
            raise ValueError("the DICOM does not say what its pixels are: it is damaged, or not whole")
        check_size(int(data.Columns), int(data.Rows), request.pixel_limit)
        self._colour = str(data.PhotometricInterpretation)
        if self._colour == "PALETTE COLOR":
            raise ValueError("the DICOM has a palette, expected gray or RGB; convert it to RGB first")
        if "ModalityLUTSequence" in data:
            raise ValueError("the DICOM is scaled by a lookup table, expected slope and intercept; apply it first")
        slope, intercept = _scale(data)
        frames = int(data.get("NumberOfFrames", 1) or 1)
        samples = int(data.SamplesPerPixel)
        signed = int(data.PixelRepresentation) == 1
        bytes_each = max(1, int(data.BitsAllocated) // 8)
        dtype = f"{'i' if signed else 'u'}{bytes_each}"
        spacing = _spacing(data)
        size = (int(data.Rows), int(data.Columns), *([samples] if samples > 1 else []))
        self.container = Container(
            kind="DICOM",
            dtype=np.dtype(dtype).name,
            shape=((frames,) if frames > 1 else ()) + size,
            axes="Z" * (frames > 1) + "YX" + "S" * (samples > 1),
            bits=int(data.BitsStored),
            slope=slope,
            intercept=intercept,
            spacing=spacing,
            unit="mm" if spacing else "",
            flavour=str(data.get("Modality", "")),
            kept=("the DICOM attributes",),
            nodata=_padding(data),
            native="DICOM",
        )
        if not 1 <= self.container.bits <= 8 * bytes_each <= 32:
            raise ValueError(f"the DICOM says {data.BitsStored} of {data.BitsAllocated} bits, expected at most 32")

    def read(self, index: int) -> Samples:
        from pydicom.pixels.utils import pixel_array

        frame = np.asarray(pixel_array(self._source, index=index))
        frame = frame.astype(self.container.dtype, copy=False)
        return frame if frame.ndim == 3 else frame[..., None]

    def native(self, index: int) -> Any:
        return self.container.native

    def close(self) -> None:
        return None


def _padding(data: Any) -> tuple[float, float] | None:
    """The stored numbers of pixels beyond the picture, such as those outside the circle of a scanner."""
    value = data.get("PixelPaddingValue")
    if not isinstance(value, int) or int(data.SamplesPerPixel) != 1:
        return None
    limit = data.get("PixelPaddingRangeLimit")
    ends = (value, limit if isinstance(limit, int) else value)
    return float(min(ends)), float(max(ends))


def _scale(data: Any) -> tuple[float, float]:
    """Slope and intercept, those of the file or the same ones of all frames."""
    found = {(float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0))}
    groups = [*data.get("SharedFunctionalGroupsSequence", []), *data.get("PerFrameFunctionalGroupsSequence", [])]
    given = {
        (float(t.RescaleSlope), float(t.RescaleIntercept))
        for group in groups
        for t in group.get("PixelValueTransformationSequence", [])
    }
    found = given or found
    if len(found) > 1:
        raise ValueError("the frames of the DICOM have different scales, expected one; save each as its own file")
    return found.pop()


def _spacing(data: Any) -> dict[str, float]:
    try:
        measures = data
        for group in data.get("SharedFunctionalGroupsSequence", []):
            measures = group.get("PixelMeasuresSequence", [data])[0]
        found = {}
        if measures.get("PixelSpacing"):
            found = {"X": float(measures.PixelSpacing[1]), "Y": float(measures.PixelSpacing[0])}
        depth = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
        return found | ({"Z": float(depth)} if depth and found else {})
    except (AttributeError, IndexError, TypeError, ValueError):
        return {}


def write_dicom(path: Path, pages: Pages, container: Container) -> tuple[str, ...]:
    """Write the file that was read with new pixels, uncompressed, marked as derived, with an identifier of its own."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    if not container.path.is_file():
        raise ValueError(f"{container.path}: is gone, from which the DICOM attributes come; write .tif instead")
    data = pydicom.dcmread(container.path)
    old = data.file_meta.TransferSyntaxUID
    if not old.is_little_endian:
        raise ValueError("the DICOM is big-endian, which is retired; convert it to little-endian first, or write .tif")
    kind = np.dtype(container.dtype).newbyteorder("<")
    with tempfile.TemporaryFile(dir=path.parent) as pixels:
        if int(data.BitsAllocated) == 1:  # eight pixels a byte, across rows and frames
            every = np.concatenate([np.ravel(page) for page in pages])
            pixels.write(np.packbits(every.astype(bool), bitorder="little").tobytes())
        else:
            for page in pages:
                pixels.write(np.ascontiguousarray(page).astype(kind, copy=False).tobytes())
        if pixels.tell() % 2:
            pixels.write(b"\0")
        pixels.seek(0)
        data.PixelData = pixels
        data["PixelData"].VR = "OB" if container.dtype in ("uint8", "int8") else "OW"
        data["PixelData"].is_undefined_length = False
        if container.samples > 1:
            data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
        data.file_meta.TransferSyntaxUID = old if not old.is_compressed else ExplicitVRLittleEndian
        data.SOPInstanceUID = generate_uid()
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.ImageType = ["DERIVED", *list(data.get("ImageType", ["", "SECONDARY"]))[1:]]
        data.save_as(path, enforce_file_format=True)
    return ("the DICOM is written without compression",) if old.is_compressed else ()


DICOM = Format(
    "DICOM", (".dcm", ".dicom", ".ima"), lambda head, path: head[128:132] == b"DICM", DicomReader, write_dicom,
    ("uint16", "uint8", "int16", "int8", "uint32", "int32"),
    many=True, channels=(1, 3), keeps=frozenset({"spacing"}), scaled=True, sized=True, fresh=False, package="pydicom",
)  # fmt: skip
