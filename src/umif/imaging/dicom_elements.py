"""DICOM's elements, walked before anything is interpreted: bounds, nesting, and where the pixels lie.

The walk reads tags, lengths and nesting, never values; so it can prove that a file is whole and shallow, and that an
encapsulated frame ends properly, before a full parser recurses into it. Patient data pass through it unread.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydicom.datadict import dictionary_VR

if TYPE_CHECKING:
    from umif.imaging.picture import Attempt

PREAMBLE_BYTES = 132
DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_TRANSFER_SYNTAX = 0x00020010
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# Value representations whose length takes four bytes after two of padding.
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_LETTERS = re.compile(rb"[A-Z]{2}")
_INFLATE_BYTES = 1 << 20
# Look-up tables take 128 KiB; a longer element of the header, or a frame in more pieces, is no radiograph's.
_MAX_ELEMENT = 1 << 20
_MAX_FRAGMENTS = 1 << 16
# Elements between two looks at the clock.
_CLOCK_EVERY = 4096


@dataclass(slots=True)
class Layout:
    """Where the parts of a DICOM file lie.

    Attributes:
        data: The whole file; if it was deflated, inflated and named `EXPLICIT_LITTLE`.
        syntax: UID of the transfer syntax; guessed from the first element if the file does not say it.
        start: Where the data set starts, behind preamble and meta group.
        pixels: Bytes of the uncompressed pixel data (start, end); `None` if compressed or absent.
        fragments: (start, end) of each fragment of compressed pixel data.
        items: Where the items of the compressed pixel data start, behind the element's head.
        wanted: (start, end) of each element that was asked for, head and value.
    """

    data: bytes
    syntax: str
    start: int
    pixels: tuple[int, int] | None = None
    fragments: list[tuple[int, int]] = field(default_factory=list)
    items: int = 0
    wanted: list[tuple[int, int]] = field(default_factory=list)

    def reduced(self) -> bytes:
        """Return a data set of the wanted elements alone, the frame's fragments joined to one.

        There is one frame, so its pieces belong together whatever the table of offsets says.
        """
        parts = []
        for start, end in self.wanted:
            if self.fragments and start <= self.fragments[0][0] < end:
                parts.append(self.data[start : self.items] + _item(_ITEM, b""))
                parts.append(_item(_ITEM, b"".join(self.data[a:b] for a, b in self.fragments)))
                parts.append(_item(_SEQUENCE_END, b""))
            else:
                parts.append(self.data[start:end])
        return b"".join(parts)


def looks_like_dicom(data: bytes) -> bool:
    """Return whether the bytes carry DICOM's mark, or start with an element that its files start with."""
    if data[128:PREAMBLE_BYTES] == b"DICM":
        return True
    if len(data) < 8 or data[:2] not in (b"\x02\x00", b"\x08\x00") or data[3] != 0:
        return False
    implicit_length = int.from_bytes(data[4:8], "little")
    return bool(_LETTERS.fullmatch(data[4:6])) or implicit_length <= min(1024, len(data) - 8)


def walk(data: bytes, tags: frozenset[int], attempt: Attempt) -> Layout:
    """Walk a whole file, noting where the elements with these tags lie.

    Raises:
        ImageError: `truncated`, `malformed` or `too_large` (nesting, or an inflated size, over the limits).
    """
    syntax, start = _read_meta(data, PREAMBLE_BYTES if data[128:PREAMBLE_BYTES] == b"DICM" else 0, attempt)
    if syntax is None:
        syntax = EXPLICIT_LITTLE if _LETTERS.fullmatch(data[start + 4 : start + 6]) else IMPLICIT_LITTLE
    if syntax == DEFLATED:
        data, start, syntax = _inflate(memoryview(data)[start:], attempt), 0, EXPLICIT_LITTLE
    layout = Layout(data, syntax, start)
    walker = _Walker(layout, tags, attempt, order=">" if syntax == EXPLICIT_BIG else "<")
    walker.elements(start, len(data), explicit=syntax != IMPLICIT_LITTLE, depth=0, delimited=False)
    return layout


def _read_meta(data: bytes, position: int, attempt: Attempt) -> tuple[str | None, int]:
    """Return the transfer syntax's UID (`None` without a meta group) and where the data set starts."""
    syntax = None
    while data[position : position + 2] == b"\x02\x00":
        head = 12 if data[position + 4 : position + 6] in _LONG else 8
        if position + head > len(data):
            raise _short(attempt)
        length = int.from_bytes(data[position + (8 if head == 12 else 6) : position + head], "little")
        if position + head + length > len(data):
            raise _short(attempt)
        if data[position + 2 : position + 4] == b"\x10\x00":
            syntax = data[position + head : position + head + length].strip(b"\x00 ").decode("ascii", "replace")
        position += head + length
    if position + 8 > len(data):
        raise _short(attempt)
    return syntax, position


def _inflate(packed: memoryview, attempt: Attempt) -> bytes:
    """Inflate a deflated data set, at most as far as the limit on decoded bytes."""
    limit = attempt.limits.max_decoded_bytes
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    pieces: list[bytes] = []
    total = 0
    pending: bytes | memoryview = packed
    try:
        while not inflater.eof:
            attempt.check_time()
            piece = inflater.decompress(pending, _INFLATE_BYTES)
            pending = inflater.unconsumed_tail
            if not piece and not pending:
                break
            total += len(piece)
            if total > limit:
                raise attempt.error("too_large", f"inflates to over {limit / 2**20:.0f} MiB")
            pieces.append(piece)
    except zlib.error:
        raise attempt.error("malformed", "the deflated data set is damaged", "copy the file again") from None
    if not inflater.eof:
        raise _short(attempt)
    return b"".join(pieces)


class _Walker:
    def __init__(self, layout: Layout, tags: frozenset[int], attempt: Attempt, order: str) -> None:
        self._data = layout.data
        self._tags = tags
        self._layout = layout
        self._attempt = attempt
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "I")
        self._count = 0

    def elements(self, position: int, end: int, *, explicit: bool, depth: int, delimited: bool) -> int:
        """Walk a data set or an item; return the offset behind it."""
        if depth > self._attempt.limits.max_nesting:
            raise self._attempt.error("too_large", f"sequences are nested over {depth - 1} deep")
        while position < end or delimited:
            if position + 8 > end:
                if depth == 0 and not any(self._data[position:end]):
                    return end
                raise _short(self._attempt)
            tag = self._read_tag(position)
            if tag == _ITEM_END and delimited:
                return position + 8
            if tag == 0 and depth == 0 and not any(self._data[position:end]):
                return end
            start, position = position, self._element(tag, position, end, explicit=explicit, depth=depth)
            if depth == 0 and tag in self._tags:
                if tag not in PIXEL_TAGS and position - start > _MAX_ELEMENT:
                    raise self._attempt.error("too_large", f"an element of the header is {position - start} bytes long")
                self._layout.wanted.append((start, position))
        return position

    def _element(self, tag: int, position: int, end: int, *, explicit: bool, depth: int) -> int:
        self._count += 1
        if self._count % _CLOCK_EVERY == 0:
            self._attempt.check_time()
        if tag >> 16 == 0xFFFE:
            raise self._attempt.error("malformed", f"a delimiter stands where an element should, at byte {position}")
        representation, value, length = self._head(position, end, explicit=explicit)
        if length == _UNDEFINED:
            if tag in PIXEL_TAGS and representation != b"SQ":
                return self._fragments(value, end, keep=depth == 0)
            inner = explicit and representation != b"UN"
            return self._sequence(value, end, explicit=inner, depth=depth, delimited=True)
        if value + length > end:
            raise _short(self._attempt)
        if tag in PIXEL_TAGS and depth == 0:
            self._layout.pixels = (value, value + length)
        elif representation == b"SQ" or (representation is None and _is_sequence(tag)):
            self._sequence(value, value + length, explicit=explicit, depth=depth, delimited=False)
        return value + length

    def _head(self, position: int, end: int, *, explicit: bool) -> tuple[bytes | None, int, int]:
        """Return an element's representation (`None` = not said), where its value starts, and its length."""
        representation = self._data[position + 4 : position + 6]
        # Some files hold implicit elements within explicit ones; there the two bytes are no letters.
        if not explicit or not _LETTERS.fullmatch(representation):
            return None, position + 8, self._long.unpack_from(self._data, position + 4)[0]
        if representation not in _LONG:
            return representation, position + 8, self._short.unpack_from(self._data, position + 6)[0]
        if position + 12 > end:
            raise _short(self._attempt)
        return representation, position + 12, self._long.unpack_from(self._data, position + 8)[0]

    def _sequence(self, position: int, end: int, *, explicit: bool, depth: int, delimited: bool) -> int:
        while position < end or delimited:
            if position + 8 > end:
                raise _short(self._attempt)
            tag, length = self._read_tag(position), self._long.unpack_from(self._data, position + 4)[0]
            position += 8
            if tag == _SEQUENCE_END and delimited:
                return position
            if tag != _ITEM:
                raise self._attempt.error("malformed", f"a sequence holds something else than items, at {position - 8}")
            item_end = end if length == _UNDEFINED else position + length
            if item_end > end:
                raise _short(self._attempt)
            position = self.elements(
                position, item_end, explicit=explicit, depth=depth + 1, delimited=length == _UNDEFINED
            )
        return position

    def _fragments(self, position: int, end: int, *, keep: bool) -> int:
        first = True
        if keep:
            self._layout.items = position
        while True:
            if position + 8 > end:
                raise _short(self._attempt)
            tag, length = self._read_tag(position), self._long.unpack_from(self._data, position + 4)[0]
            position += 8
            if tag == _SEQUENCE_END:
                return position
            if tag != _ITEM or length == _UNDEFINED:
                raise self._attempt.error(
                    "malformed", f"the compressed pixels are no fragments, at byte {position - 8}"
                )
            if position + length > end:
                raise _short(self._attempt)
            # The first item is the table of offsets.
            if len(self._layout.fragments) > _MAX_FRAGMENTS:
                raise self._attempt.error("too_large", f"one frame comes in over {_MAX_FRAGMENTS} fragments")
            if keep and not first:
                self._layout.fragments.append((position, position + length))
            first = False
            position += length

    def _read_tag(self, position: int) -> int:
        group, element = self._tag.unpack_from(self._data, position)
        return int(group) << 16 | int(element)


def _item(tag: int, value: bytes) -> bytes:
    # Compressed pixels are little-endian always; an item's length is even.
    value += bytes(len(value) % 2)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def _is_sequence(tag: int) -> bool:
    try:
        return bool(dictionary_VR(tag) == "SQ")
    except KeyError:
        return False


def _short(attempt: Attempt) -> Exception:
    return attempt.error("truncated", "the DICOM file ends early", "copy or download the file again")
