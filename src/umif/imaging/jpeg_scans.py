"""Proof that a JPEG's coded data reach to the picture's last row.

A file whose rest was lost may still end in an end marker (some tools put one there). Decoders of the libjpeg family
then paint what is missing in grey, without a word to the caller. Four checks catch that, to within the last blocks:

* the scans together must code every coefficient of every component to its last bit;
* where restart markers divide the data, they are counted;
* a decoder that gets the data of the only scan but not the end marker must have painted the last row by then;
* in a picture of several scans, bytes put behind each scan must not change any pixel: whoever reads them lacked data.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.imaging.picture import TimedBytes

if TYPE_CHECKING:
    from umif.imaging.jpeg import JpegHeader
    from umif.imaging.picture import Attempt

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# Without FF, so no marker; without a pattern, so no picture goes on like this.
_NOISE = bytes((37 * n * n + 11 * n + 5) % 251 for n in range(256))
# Bytes that a decoder wants to see ahead of what it decodes: it fills a register of 64 bits.
_AHEAD = 8
# Pixels of the last row that are looked at, evenly spread and always with the last one.
_WATCHED = 16


def _check_bands(header: JpegHeader, attempt: Attempt) -> None:
    """Raise `ImageError` (`truncated`) if coefficients, or their low bits, come in no scan."""
    left = {component: [16] * 64 for component in header.sampling}
    for scan in header.scans:
        first, last, low_bits = scan.band if header.progressive else (0, 63, 0)
        for component in scan.components:
            for coefficient in range(first, min(last, 63) + 1):
                left.setdefault(component, [0] * 64)[coefficient] = low_bits
    if any(any(coefficients) for coefficients in left.values()):
        raise attempt.error("truncated", "scans of the JPEG are missing", "copy or download the file again")


def _check_restarts(data: bytes, header: JpegHeader, attempt: Attempt) -> None:
    """Raise `ImageError` (`truncated`) if a scan has fewer restart markers than its units need."""
    for scan in header.scans:
        if scan.interval:
            needed = -(-_units(header, scan.components) // scan.interval) - 1
            found = sum(1 for _ in _RESTART.finditer(data, scan.start, scan.end))
            if found < needed:
                raise attempt.error("truncated", f"the JPEG has {found} of {needed} restart markers")


def _units(header: JpegHeader, components: bytes) -> int:
    """Return how many units (MCUs) a scan codes: blocks of its only component, or groups of blocks of several."""
    factors = list(header.sampling.values())
    widest, tallest = max(h for h, _ in factors) or 1, max(v for _, v in factors) or 1
    if len(components) == 1:
        across, down = header.sampling.get(components[0], (1, 1))
        width, height = -(-header.width * across // widest), -(-header.height * down // tallest)
        return -(-width // 8) * -(-height // 8)
    return -(-header.width // (8 * widest)) * -(-header.height // (8 * tallest))


def decode_whole(data: bytes, header: JpegHeader, attempt: Attempt, scale: int = 1) -> Image.Image:
    """Decode a JPEG, at 1/`scale` of its size (1, 2, 4 or 8), and return it only if all of it was there.

    Raises:
        ImageError: `truncated`.
    """
    _check_bands(header, attempt)
    _check_restarts(data, header, attempt)
    if len(header.scans) > 1:
        image = _decode(TimedBytes(data, attempt), scale)
        if _decode(TimedBytes(_with_noise(data, header), attempt), scale).tobytes() != image.tobytes():
            raise _lacking(attempt)
        return image
    end = header.scans[0].end
    source = _PausedBytes(data[:end] + _NOISE[:_AHEAD] + data[end:], end + _AHEAD, attempt)
    image = _opened(source, scale)
    source.image = image
    image.load()
    # A decoder that has its last row may stop without asking for the end.
    if source.row_before_end is not None and source.row_before_end != _last_row(image):
        raise _lacking(attempt)
    return image


def _decode(source: TimedBytes, scale: int) -> Image.Image:
    image = _opened(source, scale)
    image.load()
    return image


def _opened(source: TimedBytes, scale: int) -> Image.Image:
    image = Image.open(source, formats=("JPEG",))
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))
    return image


def _with_noise(data: bytes, header: JpegHeader) -> bytes:
    pieces = []
    done = 0
    for scan in header.scans:
        pieces += [data[done : scan.end], _NOISE]
        done = scan.end
    return b"".join([*pieces, data[done:]])


class _PausedBytes(TimedBytes):
    """Bytes that stop short before the end marker, and look at the picture before they give it out."""

    def __init__(self, data: bytes, pause: int, attempt: Attempt) -> None:
        super().__init__(data, attempt)
        self._pause = pause
        self.image: Image.Image | None = None
        self.row_before_end: list[object] | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._pause - self.tell()
        if left > 0:
            return super().read(left if size is None or size < 0 else min(size, left))
        if self.image is not None and self.row_before_end is None:
            self.row_before_end = _last_row(self.image)
        return super().read(size)


def _last_row(image: Image.Image) -> list[object]:
    # The decoder's own memory: asking the image itself would start another decode.
    columns = np.unique(np.linspace(0, image.width - 1, _WATCHED).astype(int))
    return [image.im.getpixel((int(column), image.height - 1)) for column in columns]


def _lacking(attempt: Attempt) -> Exception:
    return attempt.error(
        "truncated", "the JPEG's coded data end before its last row", "copy or download the file again"
    )
