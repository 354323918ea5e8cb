"""Pictures on disk: found in one order, and never outside the dataset's folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from umif.errors import LayoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.readers.base import Reader

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp"})


_LONGEST_PART = 255  # bytes, on every common file system
_LONGEST_NAME = 1024


def relative_name(name: str) -> str | None:
    """Return `name`, a path in a table, as a plain relative path.

    Returns:
        `None` if it leaves the folder (absolute, `..`, a drive) or cannot name a file.
    """
    if not name or "\0" in name or PureWindowsPath(name).drive or PureWindowsPath(name).root:
        return None
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return None
    sizes = [len(part.encode(errors="replace")) for part in path.parts]
    return None if max(sizes) > _LONGEST_PART or sum(sizes) > _LONGEST_NAME else str(path)


def is_file(path: Path) -> bool:
    """Return whether a file is there; what cannot be asked for (no permission, no such device) is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def pictures(reader: Reader, folder: Path, *, any_suffix: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield (path relative to the reader's root, path) of every picture under `folder`, sorted.

    With `any_suffix` every file that is not hidden counts as a picture: some releases name DICOM files by a bare UID.

    Links are followed, loops are not. What is no picture is counted as a note; a picture whose name is no valid text
    cannot stand in any table and is excluded.

    Raises:
        LayoutError: a folder cannot be listed.
    """
    for path in sorted(_files(folder)):
        relative = path.relative_to(reader.root).as_posix()
        if path.name.startswith(".") or not (any_suffix or path.suffix.lower() in PICTURE_SUFFIXES):
            reader.note("file that is no picture")
        elif not is_file(path):
            reader.note("link that leads nowhere")
        elif not _is_text(relative):
            reader.exclude(ascii(relative), "file name is no valid text")
        else:
            yield relative, path


def _files(folder: Path) -> Iterator[Path]:
    visited = set()

    def refuse(error: OSError) -> None:
        raise LayoutError(f"cannot be listed: {error.strerror or error}", where=error.filename or folder)

    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = Path(here).resolve()
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        for name in files:
            yield Path(here, name)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.isprintable()
