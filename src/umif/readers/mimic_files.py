"""Where MIMIC-CXR keeps what: releases of its two forms, pictures in `files/`, reports unpacked or in their zip.

Half a million folders are walked with names alone, as making a `Path` of each costs more than reading it.
"""

from __future__ import annotations

import os
import re
import zipfile
from typing import TYPE_CHECKING, NamedTuple

from umif.errors import LayoutError, TableError
from umif.readers.folders import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from umif.readers.base import Reader

FILES, REPORTS_ZIP, REPORTS_FOLDER = "files", "mimic-cxr-reports.zip", "mimic-cxr-reports"
SUBJECT, STUDY = r"1\d{7}", r"5\d{7}"
DICOM_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}"
UNREADABLE = "report that cannot be read"
COPY = "another copy of the same image is used"
_PICTURE = re.compile(rf"p1\d/p({SUBJECT})/s({STUDY})/({DICOM_ID})\.\w+")
_GROUP = re.compile(r"p1\d")
_DEPTH = 8  # folders below files/: three in the release, and no way round in a loop of links
_MOST_BYTES = 1_000_000  # of one report; the longest has some thousands


class Picture(NamedTuple):
    """A picture on disk: where it lies below `files`, its subject, study and DICOM id."""

    relative: str
    subject: str
    study: str
    dicom_id: str


def release(root: Path, name: str) -> Path:
    """Return the folder that holds `files/p10/…` of `name`: `root`, or a release of it below (`<name>/2.1.0`)."""
    for folder in (root, root / name):
        below = sorted(folder.glob("2.*"), reverse=True) if folder.is_dir() else []
        for candidate in (folder, *below):
            if _holds_groups(candidate / FILES):
                return candidate
    return root


def _holds_groups(files: Path) -> bool:
    try:
        with os.scandir(files) as entries:
            return any(_GROUP.fullmatch(entry.name) for entry in entries)
    except OSError:
        return False


def find_table(folders: Iterable[Path], stem: str) -> Path | None:
    """Return a table by the end of its name (`metadata.csv`), packed or not, of the newest version there.

    The names carry a version that need not be the release's.
    """
    for folder in folders:
        found = sorted((*folder.glob(f"*{stem}"), *folder.glob(f"*{stem}.gz")), key=lambda path: path.name)
        found = [path for path in found if not path.name.startswith(".")]
        if found:
            # Of one version the unpacked file, whose name is a part of the other's.
            newest = found[-1].name.removesuffix(".gz")
            return next(path for path in found if path.name.removesuffix(".gz") == newest)
    return None


def walk_pictures(reader: Reader, files: Path, suffix: str) -> Iterator[Picture]:
    """Yield the pictures below `files` by subject, study and id; of two files of one id that with `suffix`.

    Raises:
        LayoutError: a folder cannot be listed.
    """
    for folder, names in _walk(str(files), "", 0):
        kept: dict[str, str] = {}
        # The native suffix comes last, so that it replaces a copy.
        for name in sorted(names, key=lambda name: (name.endswith(suffix), name)):
            relative = f"{folder}/{name}" if folder else name
            stem, _, ending = name.rpartition(".")
            if not stem or f".{ending.lower()}" not in PICTURE_SUFFIXES:
                if ending != "txt":
                    reader.note("file that is no picture")
            elif not name.isascii() or _PICTURE.fullmatch(relative) is None:
                reader.exclude(_name(relative), "file name is not subject/study/image")
            else:
                if stem in kept:
                    reader.exclude(_name(kept[stem]), COPY)
                kept[stem] = relative
        for stem in sorted(kept):
            match = _PICTURE.fullmatch(kept[stem])
            assert match is not None
            yield Picture(kept[stem], match[1], match[2], match[3])


def _name(relative: str) -> str:
    return f"{FILES}/{relative}".encode("ascii", "backslashreplace").decode()


def _walk(folder: str, relative: str, depth: int) -> Iterator[tuple[str, list[str]]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise LayoutError(f"cannot be listed: {error.strerror or error}", where=folder) from None
    yield relative, [name for name, is_folder in found if not is_folder]
    for name, is_folder in found:
        if is_folder and depth < _DEPTH:
            yield from _walk(f"{folder}/{name}", f"{relative}/{name}" if relative else name, depth + 1)


class Reports:
    """The reports of studies: in `files/` beside the pictures, in a folder of their own, or in their zip."""

    def __init__(self, reader: Reader, folders: Iterable[Path]) -> None:
        self._reader = reader
        self._folders: list[str] = []
        self._zips: list[zipfile.ZipFile] = []
        for folder in dict.fromkeys(folders):
            self._folders += [
                str(files)
                for files in (folder / FILES, folder / REPORTS_FOLDER / FILES, folder / REPORTS_FOLDER)
                if _holds_groups(files)
            ]
            if (folder / REPORTS_ZIP).is_file():
                self._zips.append(_open_zip(folder / REPORTS_ZIP))

    def close(self) -> None:
        """Close the zips."""
        for archive in self._zips:
            archive.close()

    def read(self, subject: str, study: str) -> str | None:
        """Return the report of a study; `None` if there is none, or it cannot be read, which is noted."""
        relative = f"p{subject[:2]}/p{subject}/s{study}.txt"
        try:
            data = self._bytes(relative)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
            self._reader.note(UNREADABLE)
            return None
        if data is None:
            return None
        if len(data) > _MOST_BYTES:
            self._reader.note(UNREADABLE)
            return None
        return data.decode(errors="replace").replace("\r\n", "\n").replace("\0", " ")

    def _bytes(self, relative: str) -> bytes | None:
        for folder in self._folders:
            try:
                descriptor = os.open(f"{folder}/{relative}", os.O_RDONLY | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                return os.read(descriptor, _MOST_BYTES + 1)
            finally:
                os.close(descriptor)
        for archive in self._zips:
            try:
                with archive.open(f"{FILES}/{relative}") as file:
                    return file.read(_MOST_BYTES + 1)
            except KeyError:
                continue
        return None


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise TableError(f"is no readable zip: {error}", where=path, fix="download it again") from None
