"""One compressed DICOM frame: does it hold the picture that the header promises, and all of it?

Checked before a decoder gets it: the frame's own dimensions (a small header may hide a huge frame) and its end.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from umif.imaging.jpeg import check_jpeg

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from umif.imaging.picture import Attempt

JPEG_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
JPEG_2000_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
RLE = "1.2.840.10008.1.2.5"
_START_AND_SIZE = b"\xff\x4f\xff\x51"
_TILE_PART, _END = b"\xff\x90", b"\xff\xd9"


def check_frame(frame: bytes, header: Dataset, syntax: str, attempt: Attempt) -> int:
    """Check a frame against the DICOM header; return its bits per sample.

    Raises:
        ImageError: `truncated`, `malformed`, `unsupported` or `too_large`.
    """
    rows, columns = int(header.Rows), int(header.Columns)
    samples = int(header.get("SamplesPerPixel") or 1)
    if syntax == RLE:
        _check_rle(frame, rows * columns, attempt)
        return int(header.BitsAllocated)
    if syntax in JPEG_SYNTAXES:
        if not frame.startswith(b"\xff\xd8"):
            raise attempt.error("malformed", "the DICOM file's frame is no JPEG")
        jpeg = check_jpeg(frame, attempt)
        found, precision = (jpeg.height, jpeg.width, jpeg.components), jpeg.precision
    elif syntax in JPEG_2000_SYNTAXES:
        *size, precision = _check_jpeg_2000(frame, attempt)
        found = (size[0], size[1], size[2])
    else:
        raise attempt.error("unsupported", "the DICOM file's transfer syntax is not read")
    if found != (rows, columns, samples):
        raise attempt.error("malformed", f"a frame of {found} rows, columns, samples under {(rows, columns, samples)}")
    return precision


def _check_jpeg_2000(frame: bytes, attempt: Attempt) -> tuple[int, int, int, int]:
    """Return (rows, columns, samples, bits), having walked all tile parts to the end marker."""
    # Some files wrap the code stream into JP2 boxes, against the standard.
    start = frame.find(_START_AND_SIZE, 0, 4096)
    if start < 0 or len(frame) < start + 45:
        raise attempt.error("malformed", "the DICOM file's frame is no JPEG 2000")

    def number(position: int, size: int) -> int:
        return int.from_bytes(frame[start + position : start + position + size], "big")

    width, height = number(8, 4) - number(16, 4), number(12, 4) - number(20, 4)
    samples, bits = number(40, 2), (number(42, 1) & 0x7F) + 1
    attempt.check_size(height, width, samples, 2 if bits > 8 else 1)
    position = start + 2
    while frame[position : position + 2] != _END:
        marker, length = frame[position : position + 2], int.from_bytes(frame[position + 2 : position + 4], "big")
        if marker == _TILE_PART:
            # A tile part of length 0 is the last one and reaches to the end marker.
            length = int.from_bytes(frame[position + 6 : position + 10], "big")
            length = length or frame.rfind(_END) - position
            position -= 2
        if position + 2 + length >= len(frame) or length < 2:
            raise attempt.error("truncated", "the DICOM file's frame ends early", "copy or download the file again")
        position += 2 + length
    return height, width, samples, bits


def _check_rle(frame: bytes, pixels: int, attempt: Attempt) -> None:
    """Add up what each segment's runs give, without writing it out."""
    count = int.from_bytes(frame[:4], "little")
    if not 1 <= count <= 15 or len(frame) < 64:
        raise attempt.error("malformed", "the DICOM file's frame has no header of run lengths")
    bounds = [int.from_bytes(frame[4 * i : 4 * i + 4], "little") for i in range(1, count + 1)] + [len(frame)]
    for start, end in pairwise(bounds):
        if not 64 <= start <= end <= len(frame):
            raise attempt.error("malformed", "the DICOM file's run lengths lie outside the frame")
        total = 0
        while start < end - 1 and total < pixels:
            control = frame[start]
            total += control + 1 if control < 128 else (257 - control) % 129
            start += control + 2 if control < 128 else (1 if control == 128 else 2)
        if total < pixels or start > end:
            raise attempt.error("truncated", "the DICOM file's run lengths give too few pixels")
        # What follows the picture is at most padding; more would be written out by the decoder.
        if end - start > 2 or total > pixels + 128:
            raise attempt.error("malformed", "the DICOM file's run lengths give too many pixels")
