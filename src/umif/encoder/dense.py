"""Features of every patch of a corpus's images, after several blocks, in half precision on disk and mapped into memory.

Heads that draw or box things train on these: the backbone runs over each image once, however many epochs a head needs.

A store is a folder per weights, preprocessing, blocks and corpus. It holds parts, each written whole and then renamed,
so what is there is complete; a request for further rows adds a part. Nothing but a part's own rows is ever rewritten.

Shape legend: N images, K blocks, P patches, D features.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from umif.errors import NonFiniteError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

FORMAT = 1
_HALF_MAX = float(np.finfo(np.float16).max)
logger = logging.getLogger(__name__)


class PatchFeatures:
    """Patches of some images after some blocks, read from disk as they are asked for.

    Attributes:
        blocks: The blocks (1-based, without the final norm), in the order of axis 1.
        grid: Rows and columns of patches.
        width: Features D.
    """

    def __init__(
        self,
        parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float16]]],
        blocks: Sequence[int],
        grid: tuple[int, int],
        *,
        keep: object = None,
    ) -> None:
        """Join parts; `keep` is held as long as this object, as a store whose folder is temporary must be."""
        self._keep = keep
        self.blocks = tuple(blocks)
        self.grid = grid
        self._parts = [features for _, features in parts]
        counts = [len(rows) for rows, _ in parts]
        rows_M = np.concatenate([rows for rows, _ in parts]) if parts else np.zeros(0, dtype=np.int64)
        part_M = np.repeat(np.arange(len(parts)), counts)
        place_M = np.concatenate([np.arange(count) for count in counts]) if parts else np.zeros(0, dtype=np.int64)
        order = np.argsort(rows_M, kind="stable")
        self._rows, self._part, self._place = rows_M[order], part_M[order], place_M[order]

    @property
    def width(self) -> int:
        """Features D of one patch after one block."""
        return int(self._parts[0].shape[-1]) if self._parts else 0

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the corpus's images that are here, ascending. Shape (N,)."""
        return self._rows

    def take(self, image_rows: ArrayLike) -> Tensor:
        """Read images, in the order asked for. Shapes: (N,) → (N, K, P, D), fp32.

        Raises:
            KeyError: an image is not here.
        """
        wanted = np.asarray(image_rows, dtype=np.int64)
        where = np.searchsorted(self._rows, wanted)
        found = (where < len(self._rows)) & (self._rows[np.minimum(where, len(self._rows) - 1)] == wanted)
        if not found.all():
            raise KeyError(f"no features of image row {wanted[~found][0]}")
        out = np.empty((len(wanted), *self._parts[0].shape[1:]), dtype=np.float32)
        for index, (part, place) in enumerate(zip(self._part[where], self._place[where], strict=True)):
            out[index] = self._parts[part][place]
        return torch.from_numpy(out)


class PatchStore:
    """Parts of one key below `folder`; `None` as folder: a temporary one that goes with this object."""

    def __init__(self, folder: Path | None, key: dict[str, Any], shape_KPD: tuple[int, int, int]) -> None:
        self._key = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        self._shape = shape_KPD
        name = hashlib.sha256(self._key.encode()).hexdigest()[:32]
        if folder is not None:
            with contextlib.suppress(OSError):
                (folder / name).mkdir(parents=True, exist_ok=True)
                if not os.access(folder / name, os.W_OK):
                    folder = None
            if folder is not None and not (folder / name).is_dir():
                logger.warning("%s: cannot be written, patch features are kept for this time only", folder)
                folder = None
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="umif-patches-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder / name

    def parts(self) -> list[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Return the complete parts: rows and mapped features (n, K, P, D); damaged ones are removed with a warning."""
        found = []
        for path in sorted(self.folder.glob("part-*")):
            try:
                if (path / "key.json").read_text(encoding="utf-8") != self._key:
                    continue
                rows = np.load(path / "rows.npy", allow_pickle=False)
                features = np.load(path / "features.npy", mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                logger.warning("%s: cannot be read (%s), its features are extracted again", path, error)
                shutil.rmtree(path, ignore_errors=True)
                continue
            if features.dtype == np.float16 and features.shape == (len(rows), *self._shape):
                found.append((rows, features))
        return found

    def add(self, rows_N: NDArray[np.int64], batches: Iterable[NDArray[np.float32]]) -> None:
        """Write one part: `rows_N` and, in their order, batches of features (n, K, P, D).

        Memory: one batch. What is too large for half precision is cut to its largest number.

        Raises:
            NonFiniteError: features hold NaN or infinity; nothing is kept.
            StorageError: the disk is full or fails.
        """
        final = self.folder / f"part-{uuid.uuid4().hex}"  # of its own, for two processes may add at once
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(prefix=".making-", dir=self.folder))
        except OSError as error:
            raise StorageError(f"cannot be written: {error.strerror or error}", where=self.folder) from error
        try:
            self._write(making, rows_N, batches)
            making.replace(final)
        except OSError as error:
            raise StorageError(
                f"patch features cannot be written: {error.strerror or error}", where=self.folder, fix="make room"
            ) from error
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _write(self, folder: Path, rows_N: NDArray[np.int64], batches: Iterable[NDArray[np.float32]]) -> None:
        features = np.lib.format.open_memmap(
            folder / "features.npy", mode="w+", dtype=np.float16, shape=(len(rows_N), *self._shape)
        )
        done = 0
        for batch in batches:
            if not np.isfinite(batch).all():
                raise NonFiniteError("the encoder's features hold NaN or infinity", fix="the weights are damaged")
            features[done : done + len(batch)] = np.clip(batch, -_HALF_MAX, _HALF_MAX)
            done += len(batch)
        if done != len(rows_N):
            raise ValueError(f"{done} images' features for {len(rows_N)} rows")
        features.flush()
        del features
        np.save(folder / "rows.npy", rows_N)
        (folder / "key.json").write_text(self._key, encoding="utf-8")
