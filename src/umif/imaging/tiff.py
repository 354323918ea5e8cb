"""TIFF's directory: sizes before pixels, one page, and proof that every strip or tile lies within the file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umif.imaging.picture import Attempt

MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
# Bytes per value of each field type, and the letter that reads it where it is an unsigned integer.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TYPE_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _FORMAT = 322, 323, 324, 325, 339
_WANTED = frozenset(
    {_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_OFFSETS, _SAMPLES, _ROWS, _STRIP_BYTES}
    | {_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _FORMAT}
)
# None, CCITT ×3, LZW, JPEG, deflate ×2, PackBits, Zstandard.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773, 50000})
_MAX_PAGES = 64
# Strips of one row in the largest picture allowed are fewer; lists of more would cost memory for nothing.
_MAX_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """What the first page's directory says.

    Attributes:
        samples: Samples per pixel, alpha included.
        sample_format: 1 unsigned, 2 signed, 3 floating point.
        photometric: 0 = grey with 0 white, 1 = grey with 0 black, 2 = RGB, 3 = palette, …
    """

    height: int
    width: int
    bits: int
    samples: int
    sample_format: int
    photometric: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """How this file writes its numbers: byte order, and classic or BigTIFF."""

    order: str
    big: bool

    def number(self, data: bytes, position: int, letter: str, attempt: Attempt) -> int:
        try:
            return int(struct.unpack_from(self.order + letter, data, position)[0])
        except struct.error:
            raise attempt.error("truncated", "the TIFF ends early", "copy or download the file again") from None


def check_tiff(data: bytes, attempt: Attempt) -> TiffHeader:
    """Return the header of a whole TIFF of one page; pages marked as reduced copies of it are allowed beside it.

    Raises:
        ImageError: `truncated`, `malformed`, `multi_frame`, `unsupported` or `too_large`.
    """
    order = "<" if data[:2] == b"II" else ">"
    layout = _Layout(order, big=data[2:4] in (b"+\x00", b"\x00+"))
    first = layout.number(data, 8 if layout.big else 4, "Q" if layout.big else "I", attempt)
    fields, next_page = _directory(data, first, layout, attempt)
    header = _header(fields, attempt)
    _check_pieces(fields, header, len(data), attempt)
    seen = {first}
    while next_page:
        if next_page in seen or len(seen) >= _MAX_PAGES:
            raise attempt.error("malformed", "the TIFF's pages go round in a circle")
        seen.add(next_page)
        attempt.check_time()
        page, next_page = _directory(data, next_page, layout, attempt)
        if not page.get(_SUBFILE, (0,))[0] & 1:
            raise attempt.error("multi_frame", "holds several pages", "export the page that is meant as a file")
    return header


def _directory(data: bytes, position: int, layout: _Layout, attempt: Attempt) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the wanted fields of the directory at `position`, and where the next one is (0 = nowhere)."""
    count_letter, offset_letter, inline = ("Q", "Q", 8) if layout.big else ("H", "I", 4)
    count = layout.number(data, position, count_letter, attempt)
    position += struct.calcsize(count_letter)
    entry_bytes = 4 + 2 * inline
    if count > 65_535 or position + count * entry_bytes + inline > len(data):
        raise attempt.error("truncated", "the TIFF's directory ends early", "copy or download the file again")
    fields: dict[int, tuple[int, ...]] = {}
    for entry in range(position, position + count * entry_bytes, entry_bytes):
        tag, kind = struct.unpack_from(layout.order + "HH", data, entry)
        values = layout.number(data, entry + 4, offset_letter, attempt)
        length = values * _TYPE_BYTES.get(kind, 1)
        start = entry + 4 + inline
        if length > inline:
            start = layout.number(data, start, offset_letter, attempt)
        if start + length > len(data):
            raise attempt.error("truncated", f"the values of TIFF field {tag} lie outside the file")
        if tag in _WANTED:
            if values > _MAX_VALUES:
                raise attempt.error("too_large", f"TIFF field {tag} holds {values} values")
            if kind not in _TYPE_LETTERS or not values:
                raise attempt.error("malformed", f"TIFF field {tag} holds no whole numbers")
            fields[tag] = struct.unpack_from(f"{layout.order}{values}{_TYPE_LETTERS[kind]}", data, start)
    return fields, layout.number(data, position + count * entry_bytes, offset_letter, attempt)


def _header(fields: dict[int, tuple[int, ...]], attempt: Attempt) -> TiffHeader:
    missing = {_WIDTH, _HEIGHT, _PHOTOMETRIC} - fields.keys()
    if missing:
        raise attempt.error("malformed", f"the TIFF lacks its fields {sorted(missing)}")
    header = TiffHeader(
        height=fields[_HEIGHT][0],
        width=fields[_WIDTH][0],
        bits=max(fields.get(_BITS, (1,))),
        samples=fields.get(_SAMPLES, (1,))[0],
        sample_format=fields.get(_FORMAT, (1,))[0],
        photometric=fields[_PHOTOMETRIC][0],
    )
    if not 1 <= header.samples <= 8 or not 1 <= header.bits <= 64:
        raise attempt.error("unsupported", f"a TIFF of {header.samples} samples of {header.bits} bits is not read")
    attempt.check_size(header.height, header.width, header.samples, max(1, header.bits / 8))
    compression = fields.get(_COMPRESSION, (1,))[0]
    if compression not in _COMPRESSIONS:
        raise attempt.error(
            "unsupported", f"TIFF compression {compression} is not read", "save it uncompressed, LZW or deflate"
        )
    return header


def _check_pieces(fields: dict[int, tuple[int, ...]], header: TiffHeader, size: int, attempt: Attempt) -> None:
    """Check that there are as many strips or tiles as the picture needs, all of them within the file."""
    tiled = _TILE_OFFSETS in fields
    offsets = fields.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    lengths = fields.get(_TILE_BYTES if tiled else _STRIP_BYTES, ())
    if tiled:
        height, width = fields.get(_TILE_HEIGHT, (0,))[0], fields.get(_TILE_WIDTH, (0,))[0]
        attempt.check_size(height, width, header.samples, max(1, header.bits / 8))
    else:
        height, width = min(fields.get(_ROWS, (header.height,))[0], header.height), header.width
        if height < 1:
            raise attempt.error("malformed", "the TIFF's strips have no rows")
    planes = header.samples if fields.get(_PLANAR, (1,))[0] == 2 else 1
    needed = -(-header.height // height) * -(-header.width // width) * planes
    if len(offsets) < needed or len(lengths) < needed:
        raise attempt.error("malformed", f"the TIFF has {len(offsets)} of {needed} strips or tiles")
    for start, length in zip(offsets[:needed], lengths[:needed], strict=True):
        if start + length > size or not length:
            raise attempt.error("truncated", "a strip of the TIFF lies outside the file", "copy the file again")
    if fields.get(_COMPRESSION, (1,))[0] == 1:
        row_bytes = -(-header.width * header.bits * (header.samples // planes) // 8)
        if not tiled and sum(lengths[:needed]) < row_bytes * header.height * planes:
            raise attempt.error("truncated", "the TIFF's strips are shorter than its rows", "copy the file again")
