"""The pixel copy: a corpus's pictures as they come out of their JPEGs, end to end in one file.

Decoding is most of what a training picture costs, and it gives the same pixels every time. A copy of them is 4 to 5
times as large as the JPEGs and read many times as fast. It belongs to one fingerprint, changes no manifest, and may be
deleted at any time: batches are the same bit for bit with it and without.

    <corpus>/pixels/pixels.json   written last: format, fingerprint, number of pictures, sizes of the other two
    <corpus>/pixels/places.npy    one row per image: offset, height, width, check sum
    <corpus>/pixels/pictures.bin  uint8 rows of each picture, which starts at a multiple of 64 bytes

A picture that cannot be decoded has height 0 there; asking for it gives its JPEG, whose error is then the usual one. So
does one whose check sum is wrong.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus.manifest import json_bytes, sync, write_atomically
from umif.errors import ImageError
from umif.imaging import decode_jpeg_grey

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from umif.corpus.progress import Bar
    from umif.corpus.store import Corpus

PIXELS_FOLDER = "pixels"
_ABOUT, _PLACES, _PICTURES = "pixels.json", "places.npy", "pictures.bin"
_FORMAT = 1
_ALIGN = 64
_READ = 256


class PixelCopy:
    """Read access to a copy; made by `PixelCopy.find`. Nothing of it is held in memory: both files are mapped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: NDArray[np.int64] = np.asarray(np.load(folder / _PLACES, mmap_mode="r"))
        with (folder / _PICTURES).open("rb") as stream:
            self._bytes = np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        self._warned = False

    @classmethod
    def find(cls, corpus: Path, fingerprint: str) -> PixelCopy | None:
        """Return the whole copy of the corpus of this fingerprint in `corpus`, or `None` if there is none."""
        folder = corpus / PIXELS_FOLDER
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            whole = about["format"] == _FORMAT and about["fingerprint"] == fingerprint
            whole = whole and all((folder / name).stat().st_size == size for name, size in about["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return cls(folder) if whole else None

    def take(self, rows: ArrayLike) -> list[NDArray[np.uint8] | None]:
        """Return read-only views (H, W) of the pictures of `rows`; `None` where only the JPEG tells."""
        wanted = np.asarray(rows, dtype=np.int64).reshape(-1)
        found: list[NDArray[np.uint8] | None] = []
        for offset, height, width, expected in self._places[wanted].tolist():
            data = self._bytes[offset : offset + _padded(height * width)]
            if height == 0:
                found.append(None)
            elif _check_sum(data) != expected:
                self._warn()
                found.append(None)
            else:
                found.append(data[: height * width].reshape(height, width))
        return found

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            what = "is damaged; its JPEGs are read in its place. Delete the folder and make it again"
            warnings.warn(f"{self._folder} {what}", stacklevel=3)


def write_pixels(corpus: Corpus, bar: Bar) -> Path:
    """Decode every picture of a corpus into its pixel copy, unless there is a whole one; return the copy's folder.

    The caller holds the corpus's lock.

    Raises:
        OSError: the disk is full or refuses.
    """
    folder = corpus.path / PIXELS_FOLDER
    if PixelCopy.find(corpus.path, corpus.fingerprint) is not None:
        return folder
    remove_pixels(corpus.path)
    folder.mkdir()
    count = corpus.manifest.images
    places = np.zeros((count, 4), dtype=np.int64)
    bar.start("decoding images", count)
    with (folder / _PICTURES).open("wb") as stream:
        end = 0
        for first in range(0, count, _READ):
            rows = np.arange(first, min(first + _READ, count))
            for row, jpeg in zip(rows.tolist(), corpus.take_jpegs(rows), strict=True):
                try:
                    picture = decode_jpeg_grey(jpeg)
                except ImageError:
                    continue
                height, width = picture.shape
                data = np.zeros(_padded(height * width), dtype=np.uint8)
                data[: height * width] = picture.reshape(-1)
                places[row] = end, height, width, _check_sum(data)
                end += stream.write(data.data)
            bar.advance(len(rows))
        end += stream.write(bytes(_ALIGN))  # so that there is something to map
        stream.flush()
        os.fsync(stream.fileno())
    np.save(folder / _PLACES, places)
    sync(folder / _PLACES)
    about: dict[str, Any] = {
        "format": _FORMAT,
        "fingerprint": corpus.fingerprint,
        "images": count,
        "files": {name: (folder / name).stat().st_size for name in (_PLACES, _PICTURES)},
    }
    write_atomically(folder / _ABOUT, json_bytes(about))
    sync(corpus.path)
    return folder


def remove_pixels(corpus: Path) -> None:
    """Remove the pixel copy in a corpus's folder, whole or not."""
    folder = corpus / PIXELS_FOLDER
    (folder / _ABOUT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _check_sum(data: NDArray[np.uint8]) -> int:
    """Sum of the bytes as 64-bit words, without overflow: any single wrong byte and any missing page changes it."""
    return int(np.add.reduce(data.view(np.int64)))
