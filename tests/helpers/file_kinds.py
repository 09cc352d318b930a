"""Files as other programs write them, with the way to read their samples and what must survive in them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import imageio.v3 as imageio
import netpbmfile
import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
H, W = 13, 18


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    ``make(path)`` writes it, ``load(path)`` reads its samples by the other program, ``kept(path)`` what must survive;
    `inside` is the place in the file, `pages` their expected number.
    """

    name: str
    program: str
    suffix: str
    make: Callable[[Path], None]
    load: Callable[[Path], Any]
    kept: Callable[[Path], Any] = lambda path: None
    keeps: str = ""
    pages: int = 1
    inside: str = ""
    package: str = ""


def data(shape, dtype, seed=0):
    """Random samples that use the whole type; for floats numbers of both signs."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return (100 * rng.standard_normal(shape)).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) > 0.5
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


# Pillow, imagecodecs, imageio, netpbmfile


def exif():
    block = Image.Exif()
    block[271] = "Zeiss"
    return block.tobytes()


def pillow(array, **options):
    return lambda path: Image.fromarray(array).save(path, **options)


def seen(path):
    with Image.open(path) as image:
        shown = image.convert("RGB") if image.mode == "P" else image
        return np.asarray(shown)


def profile(path):
    with Image.open(path) as image:
        dpi = tuple(round(d) for d in image.info.get("dpi", ()))
        return image.info.get("icc_profile"), dpi, dict(image.getexif())


def lossy(path):
    return np.asarray(seen(path)) // 255  # its samples change a little: compared apart


def linear_png(path):
    known = PngImagePlugin.PngInfo()
    known.add(b"gAMA", (100000).to_bytes(4, "big"))
    known.add(b"cHRM", b"".join(v.to_bytes(4, "big") for v in (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)))
    known.add_text("Description", "pixel size 0.1 um")
    known.add_itxt("Title", "Löwe")
    Image.fromarray(data((H, W), "uint8")).save(path, pnginfo=known)


def png_words(path):
    with Image.open(path) as image:
        image.load()
        return {k: v for k, v in image.info.items() if k in ("gamma", "chromaticity", "Description", "Title")}


def palette(path):
    Image.fromarray(data((H, W, 3), "uint8") // 128 * 128).quantize(8, dither=Image.Dither.NONE).save(path)


def pages_by_pillow(path):
    first, *rest = [Image.fromarray(p) for p in data((4, H, W), "uint8")]
    first.save(path, save_all=True, append_images=rest, compression="tiff_lzw", dpi=(300, 300))


def plain_pgm(path):
    levels = data((H, W), "uint16") % 1001
    lines = "\n".join(" ".join(map(str, row)) for row in levels)
    path.write_text(f"P2\n# a comment\n{W} {H}\n1000\n{lines}\n")


# TIFF


def tiff(array, **options):
    return lambda path: tifffile.imwrite(path, array, **options)


def tags(*names):
    """The values of tags of every page."""

    def find(path):
        with tifffile.TiffFile(path) as file:
            found = [[p.aspage().tags.valueof(n) for n in names] for p in file.pages]
            return [str(f) for f in found], file.byteorder, file.is_bigtiff

    return find


def series(path):
    with tifffile.TiffFile(path) as file:
        first = file.series[0]
        ome = json.dumps(tifffile.xml2dict(file.ome_metadata), sort_keys=True) if file.is_ome else None
        return first.axes, first.shape, str(file.imagej_metadata), ome, tags("XResolution", "ResolutionUnit")(path)


def described_pages(path):
    with tifffile.TiffWriter(path) as file:
        for index, page in enumerate(data((3, H, W), "uint16")):
            file.write(page, description=f"exposure {index}", datetime=f"2024:01:02 03:04:0{index}", metadata=None)


IMAGEJ = {"axes": "TZCYX", "unit": "um", "spacing": 0.5, "Labels": list("abcdefghijkl"), "Info": "scope=1"}
OME = {"axes": "TZCYX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.4}
GEO = [
    (33550, "d", 3, (0.5, 0.5, 0.0), True),
    (33922, "d", 6, (0, 0, 0, 4e5, 5e6, 0), True),
    (34735, "H", 4, (1, 1, 0, 0), True),
    (42113, "s", 0, "-9999", True),
]

# Science


def arrays(path):
    np.savez(path, stack=data((3, H, W), "uint16"), wavelengths=np.arange(3.0))


def in_zip(path):
    with np.load(path) as found:
        return found["stack"]


def the_rest(path):
    with np.load(path) as found:
        return sorted(found.files), found["wavelengths"].tolist()


def fits(array, *, scaled=False, second=False, compressed=False, checksum=False, blank=None):
    def make(path):
        from astropy.io import fits as io_fits

        header = io_fits.Header({"OBJECT": "M31", "EXPTIME": 12.5, "CTYPE1": "RA---TAN"})
        if compressed:
            parts = [io_fits.PrimaryHDU(), io_fits.CompImageHDU(array, header, compression_type="RICE_1")]
        elif second:
            table = io_fits.BinTableHDU.from_columns([io_fits.Column("a", "E", array=np.arange(3.0))])
            parts = [io_fits.PrimaryHDU(), io_fits.ImageHDU(array, header, name="SCI"), table]
        else:
            parts = [io_fits.PrimaryHDU(array, header)]
        if scaled:
            parts[0].scale("int16", bscale=0.25, bzero=7)
        if blank is not None:
            parts[0].header["BLANK"] = blank
        io_fits.HDUList(parts).writeto(path, checksum=checksum)

    return make


def fits_data(path):
    from astropy.io import fits as io_fits

    with io_fits.open(path) as found:
        first = next(h for h in found if h.is_image and h.data is not None)
        return np.array(first.data)


def fits_header(path):
    from astropy.io import fits as io_fits

    with io_fits.open(path, checksum=True) as found:
        shown = [h.header.get(k) for h in found for k in ("OBJECT", "EXPTIME", "CTYPE1", "BITPIX", "EXTNAME", "NAXIS2")]
        return len(found), shown, [h.data["a"].tolist() for h in found if type(h).__name__ == "BinTableHDU"]


def nifti(shape, dtype, slope=None, pair=False):
    def make(path):
        import nibabel

        affine = np.diag([0.9, 0.9, 2.5, 1.0])
        affine[:3, 3] = 4, 5, 6
        array = data(shape, dtype) if slope is None else data(shape, "int16").astype(float) * slope + 3
        image = nibabel.Nifti1Image(array, affine)
        image.set_data_dtype(dtype)
        image.header["descrip"] = b"made by a scanner"
        image.header.set_xyzt_units("mm", "sec")
        if slope is not None:
            image.header.set_slope_inter(slope, 3)
        nibabel.save(image, path)

    return make


def nifti_data(path):
    import nibabel

    return np.asanyarray(nibabel.load(path).dataobj)


def nifti_header(path):
    import nibabel

    image = nibabel.load(path)
    return str(image.header), image.affine.tolist(), image.dataobj.slope, image.dataobj.inter


def dicom(shape, dtype, bits, *, slope=1, intercept=-1024, rle=False, padding=None):
    def make(path):
        import pydicom
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

        array = data(shape, dtype)
        array = array >> (8 * array.itemsize - bits)
        array[:3] = array[:3] if padding is None else padding
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        found = Dataset()
        found.file_meta = meta
        found.SOPClassUID, found.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        found.PatientName, found.PatientID, found.Modality = "Doe^Jane", "17", "CT"
        if padding is not None:
            found.add_new("PixelPaddingValue", "SS", padding)
        found.WindowCenter, found.WindowWidth = 40, 400
        found.PixelSpacing, found.SliceThickness = [0.7, 0.7], 2.5
        found.RescaleSlope, found.RescaleIntercept = slope, intercept
        colour = len(shape) > 2 and shape[-1] == 3
        found.SamplesPerPixel = 3 if colour else 1
        found.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        if colour:
            found.PlanarConfiguration = 0
        elif len(shape) == 3:
            found.NumberOfFrames = shape[0]
        found.Rows, found.Columns = H, W
        found.BitsAllocated, found.BitsStored, found.HighBit = 8 * array.itemsize, bits, bits - 1
        found.PixelRepresentation = int(np.dtype(dtype).kind == "i")
        found.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
        found["PixelData"].VR = "OB" if array.itemsize == 1 else "OW"
        if rle:
            found.compress(RLELossless)
        pydicom.dcmwrite(path, found, enforce_file_format=True)

    return make


def dicom_data(path):
    import pydicom

    return pydicom.dcmread(path).pixel_array


def dicom_header(path):
    import pydicom

    found = pydicom.dcmread(path)
    changed = {"SOPInstanceUID", "ImageType", "PixelData"}
    return {e.keyword: str(e.value) for e in found if e.keyword not in changed}


def hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        array = data((4, H, W), "uint16")
        stack = file.create_dataset("scan/raw", data=array, chunks=(1, H, W), compression="gzip")
        stack.attrs["element_size_um"] = [2.0, 0.3, 0.3]
        file["scan/angles"] = np.arange(4.0)
        file["scan/dark"] = data((H, W), "uint16")


def netcdf(path):
    """The same, some places being marked as netCDF does."""
    import h5py

    hdf5(path)
    with h5py.File(path, "r+") as file:
        raw = file["scan/raw"]
        raw[:, :3] = 65535
        raw.attrs["_FillValue"] = np.array([65535], np.uint16)


def hdf5_data(path):
    import h5py

    with h5py.File(path) as file:
        return file["scan/raw"][...]


def hdf5_rest(path):
    import h5py

    with h5py.File(path) as file:
        raw = file["scan/raw"]
        return dict(raw.attrs)["element_size_um"].tolist(), raw.chunks, raw.compression, file["scan/dark"][0].tolist()


def zarr_folder(version):
    def make(path):
        import zarr

        group = zarr.open_group(str(path), mode="w", zarr_format=version)
        array = group.create_array("raw/0", shape=(4, H, W), dtype="float32", chunks=(2, 8, 8))
        array[...] = data((4, H, W), "float32")
        array.attrs["unit"] = "counts"

    return make


def zarr_data(path):
    import zarr

    return zarr.open_group(str(path), mode="r")["raw/0"][...]


def zarr_rest(path):
    import zarr

    array = zarr.open_group(str(path), mode="r")["raw/0"]
    return dict(array.attrs), array.chunks, array.metadata.zarr_format


def order(path):
    array = np.load(path, mmap_mode="r")
    return array.dtype.str, bool(array.flags.f_contiguous)


ICC = {"icc_profile": SRGB, "dpi": (300, 300), "exif": exif()}
READ, TAGS = tifffile.imread, tags("ImageDescription", "Software", "XResolution", "ResolutionUnit", "Compression")

KINDS = (
    Kind("PNG, gray, 8 bit", "Pillow", ".png", pillow(data((H, W), "uint8")), seen),
    Kind("PNG, gray, 16 bit", "Pillow", ".png", pillow(data((H, W), "uint16")), seen),
    Kind("PNG, gray with opacity", "Pillow", ".png", pillow(data((H, W, 2), "uint8")), seen),
    Kind("PNG, RGB, profile, Exif", "Pillow", ".png", pillow(data((H, W, 3), "uint8"), **ICC), seen, profile,
         "profile, Exif, density"),
    Kind("PNG, RGB with opacity", "Pillow", ".png", pillow(data((H, W, 4), "uint8")), seen),
    Kind("PNG, palette", "Pillow", ".png", palette, seen),
    Kind("PNG, linear", "Pillow", ".png", linear_png, seen, png_words, "gamma, chromaticities, text"),
    Kind("PNG, RGB, 16 bit", "imagecodecs", ".png",
         lambda path: path.write_bytes(imagecodecs.png_encode(data((H, W, 3), "uint16"))),
         lambda path: imagecodecs.png_decode(path.read_bytes())),
    Kind("PNG, RGB with opacity, 16 bit", "imagecodecs", ".png",
         lambda path: path.write_bytes(imagecodecs.png_encode(data((H, W, 4), "uint16"))),
         lambda path: imagecodecs.png_decode(path.read_bytes())),
    Kind("PNG, gray, 16 bit", "imageio", ".png", lambda path: imageio.imwrite(path, data((H, W), "uint16")),
         imageio.imread),
    Kind("JPEG, RGB", "Pillow", ".jpg", pillow(np.full((H, W, 3), 90, "uint8"), quality=95, **ICC), lossy, profile,
         "profile, Exif, density; samples within 2 levels"),
    Kind("WebP, RGB, lossless", "Pillow", ".webp", pillow(data((H, W, 3), "uint8"), lossless=True, icc_profile=SRGB,
         exif=exif()), seen, profile, "profile, Exif"),
    Kind("WebP, RGB with opacity", "Pillow", ".webp", pillow(data((H, W, 4), "uint8"), lossless=True,
         exact=True), seen),
    Kind("BMP, gray", "Pillow", ".bmp", pillow(data((H, W), "uint8")), seen),
    Kind("BMP, RGB", "Pillow", ".bmp", pillow(data((H, W, 3), "uint8"), dpi=(300, 300)), seen, profile, "density"),
    Kind("PBM", "Pillow", ".pbm", pillow(data((H, W), "bool")), seen),
    Kind("PGM, 8 bit", "Pillow", ".pgm", pillow(data((H, W), "uint8")), seen),
    Kind("PPM, 8 bit", "Pillow", ".ppm", pillow(data((H, W, 3), "uint8")), seen),
    Kind("PGM, text, maximum 1000", "by hand", ".pgm", plain_pgm, netpbmfile.imread,
         lambda path: netpbmfile.NetpbmFile(path).maxval, "maximum"),
    Kind("PPM, 16 bit", "netpbmfile", ".ppm", lambda path: netpbmfile.imwrite(path, data((H, W, 3), "uint16")),
         netpbmfile.imread, lambda path: netpbmfile.NetpbmFile(path).maxval, "maximum"),
    Kind("TIFF, 4 pages, LZW", "Pillow", ".tif", pages_by_pillow, READ, TAGS, "density, compression", 4),
    Kind("TIFF, stack", "imageio", ".tif", lambda path: imageio.imwrite(path, data((5, H, W), "uint16")), READ, TAGS,
         "description", 5),
    Kind("ImageJ hyperstack, T 2, Z 2, C 3", "tifffile", ".tif", tiff(data((2, 2, 3, H, W), "uint16"), imagej=True,
         resolution=(10, 10), metadata=IMAGEJ), READ, series, "axes, voxel size, labels, notes", 12),
    Kind("ImageJ, one directory, 6 slices", "tifffile", ".tif", tiff(data((6, H, W), "uint16"), imagej=True,
         truncate=True, metadata={"axes": "ZYX"}), READ, series, "axes", 6),
    Kind("ImageJ, RGB stack", "tifffile", ".tif", tiff(data((3, H, W, 3), "uint8"), imagej=True), READ, series,
         "axes", 3),
    Kind("TIFF, one directory, 6 slices", "tifffile", ".tif", tiff(data((6, H, W), "float32"), truncate=True,
         photometric="minisblack"), READ, series, "axes", 6),
    Kind("OME-TIFF, T 2, Z 2, C 3", "tifffile", ".ome.tif", tiff(data((2, 2, 3, H, W), "uint16"), ome=True,
         metadata=OME), READ, series, "axes, OME-XML, voxel size", 12),
    Kind("OME-TIFF, RGB", "tifffile", ".ome.tif", tiff(data((2, H, W, 3), "uint8"), ome=True, photometric="rgb",
         metadata={"axes": "ZYXS"}), READ, series, "axes, OME-XML", 2),
    Kind("BigTIFF", "tifffile", ".tif", tiff(data((3, H, W), "uint16"), bigtiff=True, photometric="minisblack"), READ,
         TAGS, "BigTIFF, description", 3),
    Kind("TIFF, big-endian, tiled, LZW", "tifffile", ".tif", tiff(data((40, 50), "uint16"), byteorder=">",
         tile=(16, 16),
         compression="lzw", predictor=True), READ, tags("TileWidth", "Compression", "Predictor"), "tiles, compression"),
    Kind("TIFF, pages with their own description", "tifffile", ".tif", described_pages, READ,
         tags("ImageDescription", "DateTime"), "description and date of every page", 3),
    Kind("TIFF, 100000 pixels per cm", "tifffile", ".tif", tiff(data((H, W), "uint16"), resolution=(1e5, 1e5),
         resolutionunit="CENTIMETER", metadata=None), READ, TAGS, "resolution and its unit"),
    Kind("GeoTIFF, pixels without data", "tifffile", ".tif",
         tiff(np.where(data((H, W), "bool"), np.float32(-9999), data((H, W), "float32")), extratags=GEO,
         metadata=None), READ, tags("33550", "42113"), "tags, pixels without data"),
    Kind("GeoTIFF", "tifffile", ".tif", tiff(data((H, W), "int16"), extratags=GEO, metadata=None), READ,
         tags(33550, 33922, 34735, 42113), "place on the map, no-data value"),
    *(Kind(f"TIFF, {t}", "tifffile", ".tif", tiff(data((2, H, W), t), photometric="minisblack"), READ, TAGS, "", 2)
      for t in ("int8", "int16", "uint32", "int32", "float16", "float32", "float64")),
    Kind("TIFF, float32, Zstandard", "tifffile", ".tif", tiff(data((3, H, W), "float32"), compression="zstd",
         predictor=True, photometric="minisblack"), READ, TAGS, "compression", 3),
    Kind("TIFF, 12 bit, packed", "tifffile", ".tif", tiff(data((H, W), "uint16") >> 4, bitspersample=12), READ,
         tags("BitsPerSample"), "12 bits"),
    Kind("TIFF, RGB and infrared", "tifffile", ".tif", tiff(data((H, W, 4), "uint16"), photometric="rgb",
         extrasamples=["unspecified"]), READ, tags("ExtraSamples"), "four channels, no opacity"),
    Kind("TIFF, two channels", "tifffile", ".tif", tiff(data((H, W, 2), "uint16"), photometric="minisblack",
         planarconfig="contig"), READ, tags("ExtraSamples"), "two channels, no opacity"),
    Kind("TIFF, five bands", "tifffile", ".tif", tiff(data((H, W, 5), "float32"), photometric="minisblack",
         planarconfig="contig"), READ, tags("ExtraSamples"), "five channels"),
    Kind("TIFF, RGB with opacity", "tifffile", ".tif", tiff(data((H, W, 4), "uint8"), photometric="rgb",
         extrasamples=["unassalpha"], iccprofile=SRGB), READ, tags("ExtraSamples", 34675), "opacity, profile"),
    Kind("TIFF, RGB plane by plane", "tifffile", ".tif", tiff(data((3, H, W), "uint16"), photometric="rgb",
         planarconfig="separate"), READ, tags("PlanarConfiguration", "ImageDescription"), "planes"),
    Kind("NumPy array, float64, 3 pages", "NumPy", ".npy", lambda path: np.save(path, data((3, H, W), "float64")),
         np.load, order, "", 3),
    Kind("NumPy array, RGB", "NumPy", ".npy", lambda path: np.save(path, data((H, W, 3), "float32")), np.load, order),
    Kind("NumPy array, big-endian, by columns", "NumPy", ".npy",
         lambda path: np.save(path, np.asfortranarray(data((3, H, W), "uint16").astype(">u2"))), np.load, order,
         "byte order, layout", 3),
    Kind("NumPy array, truth values", "NumPy", ".npy", lambda path: np.save(path, data((H, W), "bool")),
         np.load, order),
    Kind("NumPy archive", "NumPy", ".npz", arrays, in_zip, the_rest, "the other arrays", 3, ":stack"),
    Kind("FITS, float32, blank pixels", "astropy", ".fits", lambda path: fits(np.where(data((H, W), "bool"),
         np.nan, data(
         (H, W), "float32")))(path), fits_data, fits_header, "header, pixels without data", package="astropy"),
    Kind("FITS, int16, blank pixels", "astropy", ".fits", fits(data((H, W), "int16") >> 13 << 13, blank=0), fits_data,
         fits_header, "header, pixels without data", package="astropy"),
    Kind("FITS, cube of unsigned integers", "astropy", ".fits", fits(data((4, H, W), "uint16"), checksum=True),
         fits_data,
         fits_header, "header, checksum", 4, package="astropy"),
    Kind("FITS, scaled integers", "astropy", ".fits", fits(data((H, W), "int8") * 0.25 + 7, scaled=True), fits_data,
         fits_header, "header, scale", package="astropy"),
    Kind("FITS, image among others", "astropy", ".fits", fits(data((H, W), "int32"), second=True), fits_data,
         fits_header,
         "header, table", inside=":SCI", package="astropy"),
    Kind("FITS, in gzip", "astropy", ".fits.gz", fits(data((3, H, W), "float64")), fits_data, fits_header, "header", 3,
         package="astropy"),
    Kind("FITS, Rice compression", "astropy", ".fits", fits(data((H, W), "int16"), compressed=True), fits_data,
         package="astropy"),
    Kind("NIfTI, int16", "nibabel", ".nii", nifti((W, H, 4), "int16"), nifti_data, nifti_header,
         "header, place in space", 4, package="nibabel"),
    Kind("NIfTI, scaled integers", "nibabel", ".nii", nifti((W, H, 4), "int16", 0.5), nifti_data, nifti_header,
         "header, scale", 4, package="nibabel"),
    Kind("NIfTI, float32, T 2, Z 3, in gzip", "nibabel", ".nii.gz", nifti((W, H, 3, 2), "float32"), nifti_data,
         nifti_header, "header", 6, package="nibabel"),
    Kind("DICOM, CT, 12 in 16 bit", "pydicom", ".dcm", dicom((H, W), "uint16", 12), dicom_data, dicom_header,
         "attributes, window, scale", package="pydicom"),
    Kind("DICOM, pixels beyond the circle", "pydicom", ".dcm", dicom((H, W), "int16", 16, padding=0), dicom_data,
         dicom_header, "attributes, pixels without data", package="pydicom"),
    Kind("DICOM, signed, 3 frames", "pydicom", ".dcm", dicom((3, H, W), "int16", 16, slope=0.5, intercept=2),
         dicom_data,
         dicom_header, "attributes, scale", 3, package="pydicom"),
    Kind("DICOM, RGB", "pydicom", ".dcm", dicom((H, W, 3), "uint8", 8, intercept=0), dicom_data, dicom_header,
         "attributes", package="pydicom"),
    Kind("DICOM, RLE compression", "pydicom", ".dcm", dicom((H, W), "uint16", 16, rle=True), dicom_data,
         dicom_header, "attributes", package="pydicom"),
    Kind("HDF5, places without data", "h5py", ".h5", netcdf, hdf5_data, hdf5_rest,
         "attributes, chunks, other data sets, pixels without data", 4, ":/scan/raw", "h5py"),
    Kind("HDF5", "h5py", ".h5", hdf5, hdf5_data, hdf5_rest, "attributes, chunks, other data sets", 4, ":/scan/raw",
         "h5py"),
    Kind("Zarr 2", "zarr", ".zarr", zarr_folder(2), zarr_data, zarr_rest, "attributes, chunks", 4, ":/raw/0", "zarr"),
    Kind("Zarr 3", "zarr", ".zarr", zarr_folder(3), zarr_data, zarr_rest, "attributes, chunks", 4, "/raw/0", "zarr"),
)  # fmt: skip
