"""PNG's chunks: sizes before pixels, checksums, and proof that the compressed rows are all there."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

try:
    from isal import isal_zlib as inflating  # the same interface, and inflates more than twice as fast
except ImportError:  # no wheel for this machine
    inflating = zlib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.imaging.picture import Attempt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Samples per pixel by colour type.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# First row, first column, row step, column step of Adam7's passes.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# What a decoder gets to see. Text, profiles and time stamps may be private, or bombs, and are no pixels.
_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"})
_INFLATE_BYTES = 1 << 20
# Rows up to this size are kept while they are checked, so that they need not be inflated a second time.
_KEEP_BYTES = 1 << 25
# Encoders write 8 KiB a chunk at the least, so this is a gigabyte; lists of more would cost memory for nothing.
_MAX_CHUNKS = 1 << 17


@dataclass(frozen=True, slots=True)
class PngHeader:
    """IHDR: what the picture is made of."""

    height: int
    width: int
    bits: int
    colour: int
    interlaced: bool

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return _SAMPLES[self.colour]

    @property
    def row_bytes(self) -> int:
        """Length of all filtered rows together, with their filter bytes."""
        total = 0
        for row, column, row_step, column_step in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            rows = -(-max(0, self.height - row) // row_step)
            columns = -(-max(0, self.width - column) // column_step)
            if rows and columns:
                total += rows * (1 + -(-columns * self.samples * self.bits // 8))
        return total


def check_png(data: bytes, attempt: Attempt) -> tuple[PngHeader, bytes]:
    """Return the header of a whole PNG, and the file reduced to the chunks that make up its pixels.

    Unless they are very many, the rows come as they were inflated for the check, stored without compression: inflating
    is the slowest part of reading a PNG, and the decoder would do it again.

    Raises:
        ImageError: `truncated`, `malformed`, `multi_frame` (APNG) or `too_large`.
    """
    header: PngHeader | None = None
    kept = [SIGNATURE]
    places: list[int] = []
    rows: list[memoryview] = []
    for kind, body, chunk in _chunks(data, attempt):
        if header is None:
            if kind != b"IHDR":
                raise attempt.error("malformed", "the PNG does not start with its header")
            header = _header(bytes(body), attempt)
        elif kind == b"IHDR":
            raise attempt.error("malformed", "the PNG has two headers")
        if kind == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raise attempt.error("multi_frame", "is an animated PNG", "export the frame that is meant as a file")
        if kind == b"IDAT":
            rows.append(body)
            places.append(len(kept))
        if kind in _KEPT:
            kept.append(bytes(chunk))
    if header is None:
        raise attempt.error("malformed", "the PNG holds no picture")
    inflated = _check_rows(rows, header.row_bytes, attempt)
    if inflated is not None and places[-1] - places[0] == len(places) - 1:  # else the decoder has to judge the order
        kept[places[0] : places[-1] + 1] = [_chunk(b"IDAT", zlib.compress(inflated, 0))]
    return header, b"".join(kept)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join((len(body).to_bytes(4, "big"), kind, body, zlib.crc32(body, zlib.crc32(kind)).to_bytes(4, "big")))


def _chunks(data: bytes, attempt: Attempt) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield (type, body, whole chunk) up to IEND, each with its checksum verified."""
    view = memoryview(data)
    position = len(SIGNATURE)
    fix = "copy or download the file again"
    for _ in range(_MAX_CHUNKS):
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 12 + length
        if position + 12 > len(view) or end > len(view):
            raise attempt.error("truncated", "the PNG ends early", fix)
        attempt.check_time()
        kind = bytes(view[position + 4 : position + 8])
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise attempt.error("malformed", f"the PNG's checksum at byte {position} is wrong", fix)
        yield kind, view[position + 8 : end - 4], view[position:end]
        if kind == b"IEND":
            return
        position = end
    raise attempt.error("too_large", f"the PNG has over {_MAX_CHUNKS} chunks")


def _header(body: bytes, attempt: Attempt) -> PngHeader:
    if len(body) != 13:
        raise attempt.error("malformed", f"the PNG's header is {len(body)} bytes long instead of 13")
    bits, colour, compression, filters, interlace = body[8:]
    if bits not in _DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise attempt.error("malformed", f"no PNG has colour type {colour} at {bits} bits, or its coding")
    width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
    attempt.check_size(height, width, _SAMPLES[colour], max(1, bits / 8))
    return PngHeader(height, width, bits, colour, bool(interlace))


def _check_rows(rows: list[memoryview], expected: int, attempt: Attempt) -> bytes | None:
    """Inflate: as many bytes as the picture needs must come out, no more. Return them unless they are many."""
    inflater = inflating.decompressobj()
    found = 0
    kept: list[bytes] | None = [] if expected <= _KEEP_BYTES else None

    def count(piece: bytes) -> int:
        if kept is not None:
            kept.append(piece)
        return len(piece)

    try:
        for body in rows:
            pending: bytes | memoryview = body
            while found <= expected and not inflater.eof and len(pending):
                attempt.check_time()
                found += count(inflater.decompress(pending, _INFLATE_BYTES))
                pending = inflater.unconsumed_tail
        # Output can still wait inside when the input is used up.
        while found <= expected and (more := inflater.decompress(b"", _INFLATE_BYTES)):
            found += count(more)
    except inflating.error:
        raise attempt.error("malformed", "the PNG's compressed rows are damaged") from None
    if found > expected:
        raise attempt.error("malformed", f"the PNG holds more than the {expected} bytes of rows that it needs")
    if found < expected:
        raise attempt.error("truncated", f"the PNG holds {found} of {expected} bytes of rows")
    return None if kept is None else b"".join(kept)
