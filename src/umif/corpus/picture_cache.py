"""Pictures that came from an object store, kept on this machine's disk for every process on it.

    <folder>/places        a 64-bit word for each row: segment and offset of its record; 0 where there is none
    <folder>/00001.rows …  segments: records end to end, each with its row, length, check sum and bytes

A process appends to a segment of its own, which it locks once; segments of processes that have ended are taken over.
Then it writes the record's place, in one word, so nobody ever waits for anybody. A place is believed only if the record
there is that row's and its check sum is right. Whatever a crash, a full disk or a power cut leaves behind fails that
test, counts as missing, and is fetched again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import threading
import warnings
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from umif.errors import ConfigError

try:
    from isal.isal_zlib import crc32  # some ten times as fast
except ImportError:
    from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BYTES_VARIABLE = "UMIF_CACHE_BYTES"
# Room that is left on the disk, bytes: a few checkpoints of a large run fit in.
SPARE_BYTES = 8 << 30
_PLACES = "places"
_PLACE = struct.Struct("<Q")
_OFFSET_BITS = 48
_SEGMENTS = 1 << 15
_HEAD = struct.Struct("<QII")  # row, length, CRC-32 of both and the bytes
_LONGEST = 1 << 28


def limit_bytes() -> int | None:
    """Return what is kept of one corpus at most, from `$UMIF_CACHE_BYTES`; `None` for what the disk has room for.

    Raises:
        ConfigError: it is no number of bytes.
    """
    text = os.environ.get(BYTES_VARIABLE, "").strip()
    if not text:
        return None
    try:
        limit = int(text)
    except ValueError:
        limit = -1
    if limit < 0:
        raise ConfigError(f"{text!r} is no number of bytes", where=f"${BYTES_VARIABLE}", fix="such as 200000000000")
    return limit


class PictureCache:
    """The pictures of one corpus in `folder`. Threads may share one; after a fork each process needs its own.

    Args:
        folder: Is made if it is not there.
        max_bytes: Of all segments together; what goes beyond is not kept. By default what the disk has room for,
            and at any rate `SPARE_BYTES` of it stay free.
    """

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._segments: dict[int, int] = {}
        self._own: tuple[int, int] | None = None
        self._stopped = False
        self._opened: list[int] = []
        weakref.finalize(self, _close, self._opened)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._places = self._open(_PLACES, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            self._places = -1
            self._stop(error)

    def take(self, rows: Sequence[int]) -> list[bytes | None]:
        """Return the picture of each of `rows`; `None` where it is not there, or damaged."""
        return [self._read(row) for row in rows]

    def keep(self, rows: Sequence[int], pictures: Sequence[bytes]) -> int:
        """Keep pictures as far as there is room; return how many were kept. No trouble of the disk is an error."""
        with self._lock:
            if self._stopped:
                return 0
            try:
                return self._append(rows, pictures)
            except OSError as error:
                self._stop(error)
                return 0

    def _read(self, row: int) -> bytes | None:
        try:
            word = os.pread(self._places, _PLACE.size, row * _PLACE.size) if self._places >= 0 else b""
            if len(word) < _PLACE.size:
                return None
            (place,) = _PLACE.unpack(word)
            if place == 0:
                return None
            segment, offset = self._segment(place >> _OFFSET_BITS), place & ((1 << _OFFSET_BITS) - 1)
            head = os.pread(segment, _HEAD.size, offset)
            if len(head) < _HEAD.size:
                return None
            found, length, check = _HEAD.unpack(head)
            if found != row or length > _LONGEST:
                return None
            data = os.pread(segment, length, offset + _HEAD.size)
        except OSError:
            return None
        return data if len(data) == length and _check_sum(row, data) == check else None

    def _segment(self, number: int) -> int:
        handle = self._segments.get(number)
        if handle is None:
            with self._lock:
                handle = self._segments.get(number)
                if handle is None:
                    handle = self._segments[number] = self._open(_name(number), os.O_RDONLY)
        return handle

    def _append(self, rows: Sequence[int], pictures: Sequence[bytes]) -> int:
        room = self._room()
        records = []
        for row, data in zip(rows, pictures, strict=True):
            record = _HEAD.pack(row, len(data), _check_sum(row, data)) + data
            if len(record) > room or len(data) > _LONGEST:
                break
            room -= len(record)
            records.append(record)
        if not records:
            return 0
        if self._own is None:
            self._own = self._own_segment()
        number, handle = self._own
        start = offset = os.fstat(handle).st_size
        try:
            _write_all(handle, b"".join(records), start)
            for row, record in zip(rows[: len(records)], records, strict=True):
                _write_all(self._places, _PLACE.pack(number << _OFFSET_BITS | offset), row * _PLACE.size)
                offset += len(record)
        except OSError:
            with suppress(OSError):  # gives the room back; places that were written lead nowhere then
                os.ftruncate(handle, start)
            raise
        return len(records)

    def _room(self) -> int:
        room = shutil.disk_usage(self._folder).free - SPARE_BYTES
        if self._max_bytes is not None:
            room = min(room, self._max_bytes - sum(file.stat().st_size for file in self._folder.glob("*.rows")))
        return room

    def _own_segment(self) -> tuple[int, int]:
        for number in range(1, _SEGMENTS):
            handle = self._open(_name(number), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._opened.remove(handle)
                os.close(handle)
            else:
                return number, handle
        raise OSError(errno.EMFILE, "every segment has a process that writes to it")

    def _open(self, name: str, flags: int) -> int:
        handle = os.open(self._folder / name, flags, 0o644)
        self._opened.append(handle)
        return handle

    def _stop(self, error: OSError) -> None:
        self._stopped = True
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            what = f"pictures are not kept any more ({error.strerror}); each is fetched again when it is needed"
            warnings.warn(f"{self._folder}: {what}", stacklevel=4)


def _name(number: int) -> str:
    return f"{number:05d}.rows"


def _check_sum(row: int, data: bytes) -> int:
    return int(crc32(data, crc32(_PLACE.pack(row) + len(data).to_bytes(8, "little"))))


def _write_all(handle: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(handle, left, offset)
        left, offset = left[written:], offset + written


def _close(handles: list[int]) -> None:
    for handle in handles:
        with suppress(OSError):
            os.close(handle)
