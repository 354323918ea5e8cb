"""Writes that survive a crash: every byte is on the disk before anything points to it.

A file or folder is written under a temporary name, synced, renamed, and its parent synced. All calls to the operating
system go through one `Disk`, so that a test can stop or fail at each of them in turn.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Large enough that calls do not count, small enough that a test of a small checkpoint has boundaries to stop at.
CHUNK_BYTES = 16 * 2**20


class Disk:
    """The calls to the operating system that a durable write makes."""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of `data`; return how many bytes."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Return once what was written is on the disk."""
        os.fsync(descriptor)

    def mkdir(self, path: Path) -> None:
        """Make a folder."""
        path.mkdir(parents=True)

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the name `target`, replacing a file of that name."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()


DISK = Disk()


def write_file(path: Path, chunks: Iterable[bytes | memoryview], disk: Disk = DISK) -> tuple[int, str]:
    """Write `chunks` to a new file and sync it; return its size in bytes and its SHA-256, hexadecimal.

    Raises:
        OSError: the disk refused; the file may be left half-written.
    """
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            for start in range(0, len(view), CHUNK_BYTES):
                part = view[start : start + CHUNK_BYTES]
                digest.update(part)
                size += len(part)
                while part:
                    part = part[disk.write(descriptor, part) :]
        disk.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size, digest.hexdigest()


def sync(path: Path, disk: Disk = DISK) -> None:
    """Make a file's content, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        disk.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, disk: Disk = DISK) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    write_file(temporary, [data], disk)
    disk.rename(temporary, path)
    sync(path.parent, disk)


def remove_folder(path: Path, disk: Disk = DISK) -> None:
    """Remove a folder and what it holds, links not followed."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            remove_folder(entry, disk)
        else:
            disk.unlink(entry)
    disk.rmdir(path)


def to_json(value: Any) -> bytes:
    """Return `value` as JSON bytes; equal values give equal bytes, and floats keep every bit."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
