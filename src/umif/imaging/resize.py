"""The corpus's own pictures: shrunk once, stored as grey JPEG, decoded again at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.errors import ImageError
from umif.imaging.jpeg import read_jpeg_header
from umif.imaging.picture import Attempt, DecodeLimits

if TYPE_CHECKING:
    import numpy.typing as npt

_START = b"\xff\xd8\xff"
_END = b"\xff\xd9"
_LIMITS = DecodeLimits()
# How `encode_jpeg` begins: end of the JFIF segment, quantisation table, and the frame of one component with its size.
_TABLE, _FRAME = slice(20, 24), slice(89, 94)
_TABLE_IS, _FRAME_IS = b"\xff\xdb\x00\x43", b"\xff\xc0\x00\x0b\x08"


def resize_shorter_side(pixels_HW: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Shrink a picture until its shorter side is `side`, keeping its proportions; never enlarge.

    Every source pixel counts (area averaging), so that fine lines fade instead of breaking up.

    Shapes: pixels_HW: (H, W). Returns: (H', W') with min(H', W') = min(side, H, W).
    """
    height, width = pixels_HW.shape
    shorter = min(height, width)
    if side < 1:
        raise ValueError(f"side must be at least 1, not {side}")
    if shorter <= side:
        return np.ascontiguousarray(pixels_HW)
    longer = max(side, round(max(height, width) * side / shorter))
    size = (side, longer) if width <= height else (longer, side)
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels_HW), size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def encode_jpeg(pixels_HW: npt.NDArray[np.uint8], quality: int = 95) -> bytes:
    """Write a grey picture as baseline JPEG; the same pixels always give the same bytes.

    Raises:
        ImageError: the picture does not fit into a JPEG (empty, or a side over 65,535 pixels).
    """
    if pixels_HW.ndim != 2 or pixels_HW.dtype != np.uint8:
        raise ValueError(f"needs (H, W) uint8, not {pixels_HW.shape} {pixels_HW.dtype}")
    if min(pixels_HW.shape) < 1 or max(pixels_HW.shape) > 65_535:
        height, width = pixels_HW.shape
        raise ImageError(f"{width} × {height} pixels do not fit into a JPEG", reason="too_large")
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels_HW), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError("cannot be written as JPEG", reason="unsupported")
    return bytes(data)


def decode_jpeg_grey(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG that `encode_jpeg` wrote: the hot path of training.

    It trusts the corpus's checksums for what lies between the header and the end marker, which it checks; `decode` is
    for bytes from elsewhere.

    Shapes: Returns: (H, W) uint8.

    Raises:
        ImageError: no whole JPEG.
    """
    if not data.startswith(_START):
        raise ImageError("is no JPEG", reason="unsupported", fix="prepare the corpus again")
    if not data.endswith(_END):
        raise ImageError("the JPEG ends early", reason="truncated", fix="prepare the corpus again")
    size = _own_size(data)
    if size is None:
        header = read_jpeg_header(data, Attempt("", _LIMITS))
        size = header.height, header.width
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape != size:
        raise ImageError("the JPEG cannot be decoded", reason="malformed", fix="prepare the corpus again")
    return np.asarray(pixels, dtype=np.uint8)


def _own_size(data: bytes) -> tuple[int, int] | None:
    """Return the (height, width) that the header says if it is laid out as `encode_jpeg` does; a walk says the same."""
    if data[_TABLE] != _TABLE_IS or data[_FRAME] != _FRAME_IS or data[4:6] != b"\x00\x10":
        return None
    height, width = int.from_bytes(data[94:96], "big"), int.from_bytes(data[96:98], "big")
    return (height, width) if 0 < height * width <= _LIMITS.max_pixels else None
