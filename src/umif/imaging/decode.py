"""Bytes → one whole grey picture: PNG, JPEG, TIFF and DICOM, told apart by content, never by name.

Each format is first walked by our own few lines (`png`, `jpeg`, `tiff`, `dicom`): dimensions, completeness, number of
pages. Only then does a decoding library see the bytes. No library's global switch is touched.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from umif.errors import ImageError
from umif.imaging.dicom import decode_dicom, looks_like_dicom
from umif.imaging.intensity import luminance, to_uint8
from umif.imaging.jpeg import check_jpeg
from umif.imaging.jpeg_scans import decode_whole
from umif.imaging.picture import QUIET, Attempt, DecodeLimits, GreyImage, SourceFormat, TimedBytes
from umif.imaging.png import SIGNATURE, check_png
from umif.imaging.tiff import MAGICS, TiffHeader, check_tiff

if TYPE_CHECKING:
    import numpy.typing as npt

_DEFAULT_LIMITS = DecodeLimits()
_ORIENTATION = 0x0112


def decode(
    data: bytes, *, name: str = "", limits: DecodeLimits = _DEFAULT_LIMITS, shorter_side: int | None = None
) -> GreyImage:
    """Decode one radiograph.

    8-bit pictures keep their grey values; deeper ones are stretched from their own range to 0…255; DICOM goes through
    its modality and VOI transforms (see `umif.imaging.dicom`). Colours become luminance; a varying alpha is laid over
    black; an EXIF orientation is applied.

    Args:
        data: The file's bytes.
        name: What errors call the file.
        limits: Bounds on sizes and time.
        shorter_side: What the picture will be made smaller to. A JPEG may then come at a half, quarter or eighth of
            its size, with a shorter side of at least twice this, which takes about two thirds of the time. Made
            smaller, its pixels are not the same: by a fraction of a grey level on the whole, by tens at the edges of
            burnt-in letters, as where its sides are no multiples its last pixels stand for less than the others.

    Raises:
        ImageError: and nothing else, whatever the bytes are; `reason` is one of `empty`, `unsupported`, `truncated`,
            `malformed`, `multi_frame`, `too_large`, `too_slow`, `non_finite`.
    """
    attempt = Attempt(name, limits)
    if not data:
        raise attempt.error("empty", "the file is empty", "copy or download it again")
    if len(data) > limits.max_bytes:
        raise _file_too_large(len(data), attempt)
    try:
        with QUIET:
            return _decode(data, attempt, shorter_side)
    except ImageError as error:
        if error.where is None and name:
            raise attempt.error(error.reason, error.what, error.fix) from None
        raise
    except MemoryError:
        raise attempt.error("too_large", "needs more memory than there is") from None
    except Exception as error:
        # A decoder's own words may quote private fields of the file, so only the kind of failure is passed on.
        raise attempt.error(
            "malformed", f"cannot be decoded ({type(error).__name__})", "open it in a viewer; copy it again"
        ) from None


def read_image(path: str | Path, limits: DecodeLimits = _DEFAULT_LIMITS) -> GreyImage:
    """Read and decode the file at `path`; errors name it.

    Raises:
        ImageError: as `decode`, or `unreadable`: missing, a folder, no permission.
    """
    file = Path(path)
    attempt = Attempt(str(file), limits)
    try:
        with file.open("rb") as handle:
            # One byte more than allowed tells a file that is too large, or that grows, without its size being trusted.
            data = handle.read(limits.max_bytes + 1)
    except OSError as error:
        raise attempt.error("unreadable", f"cannot be read: {error.strerror}", "check the path") from None
    if len(data) > limits.max_bytes:
        raise _file_too_large(len(data), attempt)
    return decode(data, name=str(file), limits=limits)


def _file_too_large(size: int, attempt: Attempt) -> ImageError:
    limit = attempt.limits.max_bytes
    return attempt.error("too_large", f"{size} bytes are over the limit of {limit}", "raise max_bytes if it is trusted")


def _decode(data: bytes, attempt: Attempt, shorter_side: int | None) -> GreyImage:
    # First, because a DICOM file's first 128 bytes are free and often hold a TIFF's start.
    if looks_like_dicom(data):
        return decode_dicom(data, attempt)
    if data.startswith(SIGNATURE):
        return _decode_png(data, attempt)
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data, attempt, shorter_side)
    if data[:4] in MAGICS:
        return _decode_tiff(data, attempt)
    raise attempt.error(
        "unsupported", "is no PNG, JPEG, TIFF or DICOM, or only the very start of one", "convert it to one of these"
    )


def _decode_png(data: bytes, attempt: Attempt) -> GreyImage:
    header, reduced = check_png(data, attempt)
    with Image.open(TimedBytes(reduced, attempt), formats=("PNG",)) as image:
        orientation = _orientation(image)
        if header.bits == 16 and header.samples > 1:
            # Pillow would keep the upper byte only, which is empty where 12 bits lie in 16.
            return _picture(_samples_cv2(reduced, attempt), orientation, 16, "png", "RGB")
        return _from_pillow(image, orientation, header.bits, "png")


def _decode_jpeg(data: bytes, attempt: Attempt, shorter_side: int | None) -> GreyImage:
    header = check_jpeg(data, attempt)
    if header.lossless or header.precision != 8:
        raise attempt.error("unsupported", f"a JPEG of {header.precision} bits is not read", "convert it to PNG")
    # Without what follows the end marker: further pictures of a multi-picture file are not this one.
    scale = _scale(min(header.height, header.width), shorter_side)
    image = decode_whole(data[: header.end], header, attempt, scale)
    orientation = _orientation(image)
    grey = _from_pillow(image, orientation, header.precision, "jpeg")
    size = (header.width, header.height) if orientation >= 5 else (header.height, header.width)
    return grey if scale == 1 else replace(grey, full_size=size)


def _scale(shorter: int, wanted: int | None) -> int:
    """Return by what a JPEG can be divided so that averaging, and not the decoder's filter, decides how it looks."""
    return 1 if wanted is None else next((scale for scale in (8, 4, 2) if shorter // scale >= 2 * wanted), 1)


def _decode_tiff(data: bytes, attempt: Attempt) -> GreyImage:
    header = check_tiff(data, attempt)
    if header.bits > 8 and (header.samples > 1 or header.bits > 32):
        # Pillow reads no deep colours and no doubles.
        samples = _samples_cv2(data, attempt)
        photometric = "RGB" if header.samples > 2 else "F"
        return _picture(samples, 1, header.bits, "tiff", photometric, invert=header.photometric == 0)
    with Image.open(TimedBytes(data, attempt), formats=("TIFF",)) as image:
        # Pillow turns a TIFF upright by itself while it loads it.
        return _from_pillow(image, 1, header.bits, "tiff", header)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1…8; what cannot be read says nothing, so 1."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _from_pillow(
    image: Image.Image, orientation: int, bits: int, source: SourceFormat, tiff: TiffHeader | None = None
) -> GreyImage:
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        values = np.asarray(image)
        if tiff is not None and tiff.bits == 32 and tiff.sample_format == 1:
            values = values.view(np.uint32)
        # Pillow turns "0 is white" round for 8 bits and fewer only.
        inverted = tiff is not None and tiff.photometric == 0
        return _picture(values[..., np.newaxis], orientation, bits, source, mode, invert=inverted)
    if "A" in image.getbands() or "transparency" in image.info:
        samples = np.asarray(image.convert("RGBA"))
    elif mode in ("L", "1"):
        # A picture that is grey already would only be copied.
        samples = np.asarray(image if mode == "L" else image.convert("L"))[..., np.newaxis]
    else:
        samples = np.asarray(image.convert("RGB"))
    return _picture(samples, orientation, bits, source, mode)


def _samples_cv2(data: bytes, attempt: Attempt) -> npt.NDArray[Any]:
    """Return (H, W, samples) in the order R, G, B, alpha at full depth. A TIFF comes upright, a PNG does not."""
    decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise attempt.error("malformed", "cannot be decoded", "open it in a viewer; copy it again")
    values: npt.NDArray[Any] = decoded if decoded.ndim == 3 else decoded[..., np.newaxis]
    # cv2 gives BGR(A), and grey with alpha as BGRA.
    return values[..., [2, 1, 0, *range(3, values.shape[2])]] if values.shape[2] >= 3 else values


def _picture(
    samples: npt.NDArray[Any],
    orientation: int,
    bits: int,
    source: SourceFormat,
    photometric: str,
    *,
    invert: bool = False,
) -> GreyImage:
    alpha = samples[..., -1] if samples.shape[2] in (2, 4) else None
    colours = samples[..., : 3 if samples.shape[2] >= 3 else 1]
    if samples.shape[2] == 1 or samples.dtype.kind == "f":
        grey = colours.mean(axis=2) if colours.shape[2] > 1 else colours[..., 0]
    else:
        grey = luminance(colours, alpha)
    if grey.dtype != np.uint8:
        grey = to_uint8(grey, invert=invert)
    return GreyImage(_upright(grey, orientation), bits, source, photometric)


def _upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Apply an EXIF orientation: 2…4 mirror or half turn, 5…8 with rows and columns exchanged."""
    if orientation >= 5:
        pixels = pixels.T
    # After the exchange: which axes run backwards.
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
