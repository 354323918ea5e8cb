"""JPEG's markers: sizes before pixels, and proof that the picture is there to its end.

Decoders of the libjpeg family fill what is missing with grey and report it nowhere, so completeness is decided here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umif.imaging.picture import Attempt

_SOI, _EOI, _SOS, _DRI, _DNL = 0xD8, 0xD9, 0xDA, 0xDD, 0xDC
# Start of frame: all of C0…CF but DHT, JPG and DAC; F7 is JPEG-LS.
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF, 0xF7})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# In coded data FF 00 is a stuffed byte, FF D0…D7 a restart, FF FF fill; anything else is the next marker.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# JPEG-LS stuffs a bit, not a byte: only FF 80…FF are markers there.
_NEXT_MARKER_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
# Segments between two looks at the clock.
_CLOCK_EVERY = 4096


@dataclass(frozen=True, slots=True)
class Scan:
    """One pass over some of the components.

    Attributes:
        start, end: Where its coded data lie.
        components: The identifiers of its components.
        band: First and last coefficient that it codes, and how many low bits it leaves to later scans.
        interval: Units between restart markers; 0 = none.
    """

    start: int
    end: int
    components: bytes
    band: tuple[int, int, int]
    interval: int


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What a JPEG's frame header says, and where the picture ends.

    Attributes:
        sof: The frame marker's second byte (0xC0 baseline, 0xC2 progressive, 0xC3 lossless, 0xF7 JPEG-LS, …).
        sampling: Identifier of each component → its horizontal and vertical sampling factors.
        scans: The scans in order.
        end: Offset behind the end marker; 0 if only the header was read.
    """

    height: int
    width: int
    components: int
    precision: int
    sof: int
    sampling: dict[int, tuple[int, int]]
    scans: tuple[Scan, ...] = ()
    end: int = 0

    @property
    def progressive(self) -> bool:
        """Whether the picture comes in several passes."""
        return self.sof in _PROGRESSIVE

    @property
    def lossless(self) -> bool:
        """Whether this is lossless JPEG or JPEG-LS."""
        return self.sof in _LOSSLESS


def read_jpeg_header(data: bytes, attempt: Attempt) -> JpegHeader:
    """Return the frame header, having checked its size against the limits; coded data are not looked at."""
    return _walk(data, attempt, whole=False)


def check_jpeg(data: bytes, attempt: Attempt) -> JpegHeader:
    """Return the header of a JPEG that is whole: every segment, every scan and the end marker are there.

    What follows the end marker (a second picture, padding) is not looked at.

    Raises:
        ImageError: `truncated`, `malformed`, `unsupported` or `too_large`.
    """
    return _walk(data, attempt, whole=True)


def _walk(data: bytes, attempt: Attempt, *, whole: bool) -> JpegHeader:
    frame: JpegHeader | None = None
    scans: list[Scan] = []
    interval = 0
    position = 2
    segments = 0
    while True:
        segments += 1
        if segments % _CLOCK_EVERY == 0:
            attempt.check_time()
        marker, position = _marker(data, position, attempt)
        if marker == _EOI:
            if frame is None or not scans:
                raise attempt.error("malformed", "the JPEG holds no picture")
            return replace(frame, scans=tuple(scans), end=position)
        if marker in _STANDALONE:
            continue
        if marker == _SOI:
            raise attempt.error("malformed", "a JPEG starts inside another one")
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2:
            raise _short(attempt) if position + 2 > len(data) else attempt.error("malformed", "a segment has no length")
        if position + length > len(data):
            raise _short(attempt)
        body = data[position + 2 : position + length]
        position += length
        if marker in _FRAMES:
            if frame is not None:
                raise attempt.error("unsupported", "hierarchical JPEG is not read")
            frame = _frame(marker, body, attempt)
            if not whole:
                return frame
        elif marker == _DRI:
            interval = int.from_bytes(body[:2], "big")
        elif marker == _DNL:
            raise attempt.error("unsupported", "a JPEG that gives its height at its end is not read")
        elif marker == _SOS:
            if frame is None:
                raise attempt.error("malformed", "a scan comes before the frame header")
            pattern = _NEXT_MARKER_LS if frame.sof == 0xF7 else _NEXT_MARKER
            found = pattern.search(data, position)
            if found is None:
                raise _short(attempt)
            scans.append(_scan(body, position, found.start(), interval, attempt))
            position = found.start()
            if len(scans) > attempt.limits.max_scans:
                raise attempt.error("too_large", f"the JPEG has over {attempt.limits.max_scans} scans")


def _marker(data: bytes, position: int, attempt: Attempt) -> tuple[int, int]:
    if position + 2 > len(data):
        raise _short(attempt)
    if data[position] != 0xFF:
        raise attempt.error("malformed", f"byte {position} of the JPEG is no marker")
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position >= len(data):
        raise _short(attempt)
    return data[position], position + 1


def _scan(body: bytes, start: int, end: int, interval: int, attempt: Attempt) -> Scan:
    if not body or len(body) < 4 + 2 * body[0]:
        raise attempt.error("malformed", "a scan header of the JPEG is too short")
    first, last, approximation = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    return Scan(start, end, body[1 : 1 + 2 * body[0] : 2], (first, last, approximation & 15), interval)


def _frame(marker: int, body: bytes, attempt: Attempt) -> JpegHeader:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise attempt.error("malformed", "the JPEG's frame header is too short")
    header = JpegHeader(
        height=int.from_bytes(body[1:3], "big"),
        width=int.from_bytes(body[3:5], "big"),
        components=body[5],
        precision=body[0],
        sof=marker,
        sampling={body[at]: (body[at + 1] >> 4, body[at + 1] & 15) for at in range(6, 6 + 3 * body[5], 3)},
    )
    if not 1 <= header.components <= 4:
        raise attempt.error("malformed", f"the JPEG has {header.components} components")
    attempt.check_size(header.height, header.width, header.components, 2 if header.precision > 8 else 1)
    return header


def _short(attempt: Attempt) -> Exception:
    return attempt.error("truncated", "the JPEG ends early", "copy or download the file again")
