"""DICOM → uint8 grey: one rule for every data set.

    stored values → modality LUT or rescale → VOI LUT or window, if present → the picture's own range
    → turned round for MONOCHROME1 → ×255 → uint8

The turn comes after windowing and is relative to the range in use. Bits Stored is not used for scaling: 8-bit data
occur under 12- and 16-bit headers. Padding values take no part in the range and come out black. Only the elements that
make up the picture are read; none that names a patient is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pydicom.pixels
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.tag import Tag
from pydicom.uid import UID

from umif.imaging.codestream import JPEG_2000_SYNTAXES, JPEG_EXTENDED, check_frame
from umif.imaging.dicom_elements import Layout, looks_like_dicom, walk
from umif.imaging.display import display
from umif.imaging.gdcm_process import read_header
from umif.imaging.intensity import luminance, to_uint8
from umif.imaging.isolated import decode_isolated
from umif.imaging.picture import GreyImage

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydicom.dataset import Dataset

    from umif.imaging.picture import Attempt

__all__ = ["decode_dicom", "looks_like_dicom"]

_WANTED = [
    "BitsAllocated", "BitsStored", "Columns", "DoubleFloatPixelData", "FloatPixelData", "HighBit",
    "ModalityLUTSequence", "NumberOfFrames", "PhotometricInterpretation", "PixelData", "PixelPaddingRangeLimit",
    "PixelPaddingValue", "PixelRepresentation", "PlanarConfiguration", "RescaleIntercept", "RescaleSlope", "Rows",
    "SamplesPerPixel", "VOILUTFunction", "VOILUTSequence", "WindowCenter", "WindowWidth",
    "AlphaPaletteColorLookupTableDescriptor", "AlphaPaletteColorLookupTableData",
    *(
        f"{prefix}{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
]  # fmt: skip
_WANTED_TAGS = frozenset(int(Tag(keyword)) for keyword in _WANTED)
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"})
_GREYS = frozenset({"MONOCHROME1", "MONOCHROME2"})
_PALETTE = "PALETTE COLOR"
# Pillow where it can: it reports damage, where others fill in. It has no lossless JPEG and no JPEG-LS.
_PLUGINS = ("pillow", "pydicom", "gdcm", "pylibjpeg", "pyjpegls")
_COPY = "copy or download the file again"
_CONVERT = "convert it to an uncompressed transfer syntax"


def decode_dicom(data: bytes, attempt: Attempt) -> GreyImage:
    """Decode a DICOM file of one frame.

    Raises:
        ImageError: `truncated`, `malformed`, `multi_frame`, `unsupported` (the fix names the package that decodes it),
            `too_large`, `non_finite`.
    """
    layout = walk(data, _WANTED_TAGS, attempt)
    if layout.pixels is None and not layout.fragments:
        raise attempt.error("malformed", "the DICOM file holds no pixels", "reports and presentation states have none")
    if not UID(layout.syntax).is_transfer_syntax:
        raise attempt.error("unsupported", "the DICOM file's transfer syntax is not read", _CONVERT)
    # The wanted elements alone: given a whole file, the parser would build an object for each item of a sequence.
    header = read_header(layout.reduced(), layout.syntax)
    photometric = _check_header(header, attempt)
    if layout.fragments:
        samples = _decode_compressed(header, layout, attempt)
    else:
        _check_length(header, layout, photometric, attempt)
        samples = _pixels(header)
    pixels = _to_grey(samples, header, photometric, attempt)
    bits = _integer(header, "BitsStored") or _integer(header, "BitsAllocated") or 0
    return GreyImage(np.ascontiguousarray(pixels), bits, "dicom", photometric)


def _check_header(header: Dataset, attempt: Attempt) -> str:
    """Check number, size and kind before any pixel is decoded; return the photometric interpretation."""
    frames = _integer(header, "NumberOfFrames")
    if frames is not None and frames > 1:
        raise attempt.error("multi_frame", f"holds {frames} frames", "export the frame that is meant as a file")
    rows, columns = _integer(header, "Rows"), _integer(header, "Columns")
    samples, bits = _integer(header, "SamplesPerPixel") or 1, _integer(header, "BitsAllocated")
    if rows is None or columns is None or bits is None:
        raise attempt.error("malformed", "the DICOM header lacks Rows, Columns or Bits Allocated")
    if bits not in (1, 8, 16, 32, 64) or samples not in (1, 3):
        raise attempt.error("unsupported", f"DICOM of {samples} samples of {bits} bits is not read")
    attempt.check_size(rows, columns, samples, max(1, bits // 8))
    photometric = str(header.get("PhotometricInterpretation") or "").strip()
    if photometric not in _COLOURS | _GREYS | {_PALETTE}:
        raise attempt.error("unsupported", "the DICOM header's Photometric Interpretation is missing or not known")
    if (samples == 3) != (photometric in _COLOURS):
        raise attempt.error("malformed", f"the DICOM header has {samples} samples per pixel for {photometric}")
    return photometric


def _check_length(header: Dataset, layout: Layout, photometric: str, attempt: Attempt) -> None:
    if UID(layout.syntax).is_encapsulated:
        raise attempt.error("malformed", "the DICOM file's pixels are not coded as it says")
    start, end = cast("tuple[int, int]", layout.pixels)
    # Colour at half width: two bytes a pixel.
    samples = 2 if photometric == "YBR_FULL_422" else int(header.get("SamplesPerPixel") or 1)
    expected = -(-header.Rows * header.Columns * samples * header.BitsAllocated // 8)
    if end - start < expected:
        raise attempt.error("truncated", f"the DICOM file holds {end - start} of {expected} bytes of pixels")
    # An odd length is padded by one byte.
    if end - start > expected + expected % 2:
        raise attempt.error("malformed", f"the DICOM file holds {end - start} bytes of pixels instead of {expected}")


def _decode_compressed(header: Dataset, layout: Layout, attempt: Attempt) -> npt.NDArray[Any]:
    frame = b"".join(layout.data[start:end] for start, end in layout.fragments)
    syntax = UID(layout.syntax)
    if not syntax.is_encapsulated:
        raise attempt.error("malformed", "the DICOM file's pixels are not coded as it says")
    precision = check_frame(frame, header, layout.syntax, attempt)
    if layout.syntax == JPEG_EXTENDED and precision > 8:
        return decode_isolated(layout.reduced(), layout.syntax, attempt)
    plugins = _plugins(syntax, attempt)
    if layout.syntax in JPEG_2000_SYNTAXES and precision > 8 and header.get("SamplesPerPixel") == 3:
        # Pillow would cut deep colours down to 8 bits.
        plugins = [name for name in plugins if name != "pillow"]
    if plugins[:1] in (["pillow"], ["pydicom"]):
        try:
            return _pixels(header, plugins[0])
        except RuntimeError:
            # Pillow cannot place some component layouts of JPEG 2000 that the others can; for the other syntaxes a
            # second opinion would only be a more lenient one.
            if layout.syntax not in JPEG_2000_SYNTAXES or "gdcm" not in plugins:
                raise attempt.error("malformed", f"the {syntax.name} frame cannot be decoded", _COPY) from None
    if "gdcm" in plugins or not plugins:
        return decode_isolated(layout.reduced(), layout.syntax, attempt)
    return _pixels(header, plugins[0])


def _pixels(header: Dataset, plugin: str = "") -> npt.NDArray[Any]:
    return cast("npt.NDArray[Any]", pydicom.pixels.pixel_array(header, index=0, decoding_plugin=plugin))


def _plugins(syntax: UID, attempt: Attempt) -> list[str]:
    """Return the names of pydicom's installed plugins for a transfer syntax, best first."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise attempt.error("unsupported", "the DICOM file's transfer syntax is not read", _CONVERT) from None
    plugins = [name for name in _PLUGINS if name in decoder.available_plugins]
    if not plugins:
        packages = "; ".join(decoder.missing_dependencies)
        raise attempt.error("unsupported", f"nothing installed decodes {syntax.name}", f"install one of: {packages}")
    return plugins


def _to_grey(samples: npt.NDArray[Any], header: Dataset, photometric: str, attempt: Attempt) -> npt.NDArray[np.uint8]:
    if photometric in _GREYS:
        if samples.ndim != 2:
            raise attempt.error("malformed", "the DICOM file's pixels are not as many as its header says")
        return display(samples, header, invert=photometric == "MONOCHROME1")
    if photometric == _PALETTE:
        samples = apply_color_lut(samples, header)[..., :3]
    if samples.dtype.kind != "u":
        raise attempt.error("unsupported", "signed colours are not read")
    grey = luminance(samples)
    return grey if grey.dtype == np.uint8 else to_uint8(grey)


def _integer(header: Dataset, keyword: str) -> int | None:
    value = header.get(keyword)
    try:
        return None if value is None else int(value)
    except (ValueError, TypeError):
        return None
