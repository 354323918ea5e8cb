"""A finished corpus, opened for reading.

A `Corpus` is its path: it pickles as that and opens its Lance datasets when first used in a process, so it can be
handed to spawned workers. It never writes, but for pictures of a corpus that is read by row (`corpus/by_row.py`), which
it keeps in the cache.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umif.corpus.by_row import RemotePictures
from umif.corpus.manifest import IMAGES_FOLDER, LEDGER, PAIRS_FOLDER, read_manifest
from umif.corpus.mirror import corpus_folder
from umif.corpus.pixels import PIXELS_FOLDER, PixelCopy
from umif.corpus.schema import IMAGES, PAIR_KINDS, PAIRS, SPLITS
from umif.errors import ConfigError, CorpusError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from umif.corpus.manifest import Manifest

# Columns that hold pictures, geometry and questions are read only when asked for.
_HEAVY = {"jpeg", "regions", "questions"}


class Corpus:
    """Read access to a corpus; make one by `Corpus.open(path)`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._handles: dict[str, Any] = {}
        self._process = os.getpid()

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Open the corpus in `path`, which may be a URL (`s3://…`): then of its copy in the cache, fetched first.

        From S3 tables are fetched alone, and pictures when they are read.

        Raises:
            CorpusError: there is none, it is unfinished, of another format, or its files are damaged.
            RemoteError: a URL cannot be read.
        """
        folder = corpus_folder(path)
        corpus = cls(folder, read_manifest(folder))
        corpus._remote_pictures()
        expected = {IMAGES_FOLDER: corpus.manifest.images, PAIRS_FOLDER: sum(corpus.manifest.pairs.values())}
        for name, rows in expected.items():
            found = corpus._dataset(name).count_rows()
            if found != rows:
                raise CorpusError(
                    f"holds {found} rows, the manifest says {rows}",
                    where=folder / name,
                    fix="prepare the corpus again with overwrite",
                )
        return corpus

    @property
    def fingerprint(self) -> str:
        """Hash over every image, pair and split."""
        return self.manifest.fingerprint

    @property
    def ledger(self) -> Path:
        """The file with one line per item that gave no row."""
        return self.path / LEDGER

    def images_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all images in row order; without `columns`, all but pictures and questions (`schema.IMAGES`)."""
        return self._table(IMAGES_FOLDER, IMAGES, columns)

    def pairs_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all pairs in row order; without `columns`, all but the regions (`schema.PAIRS`)."""
        return self._table(PAIRS_FOLDER, PAIRS, columns)

    def take_pairs(self, rows: ArrayLike, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the pairs of `rows`, in that order and as often as named; all columns unless `columns` are given."""
        names = _known(columns, PAIRS) if columns is not None else PAIRS.names
        found: list[dict[str, Any]] = self._take(PAIRS_FOLDER, rows, names).to_pylist()
        return found

    def take_images(self, rows: ArrayLike, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return some columns of the images of `rows`, in that order and as often as named."""
        found: list[dict[str, Any]] = self._take(IMAGES_FOLDER, rows, _known(columns, IMAGES)).to_pylist()
        return found

    def take_jpegs(self, image_rows: ArrayLike) -> list[bytes]:
        """Return the pictures of `image_rows` as 8-bit grey JPEG, in that order and as often as named."""
        remote = self._remote_pictures()
        if remote is not None:
            return remote.take(self._checked(IMAGES_FOLDER, image_rows).tolist())
        found: list[bytes] = self._take(IMAGES_FOLDER, image_rows, ["jpeg"]).column("jpeg").to_pylist()
        return found

    def take_pictures(self, image_rows: ArrayLike) -> list[NDArray[np.uint8] | bytes]:
        """Return the pictures of `image_rows` as (H, W) uint8 where there is a pixel copy, else as `take_jpegs` does.

        The arrays may be read-only.
        """
        copy = self._pixel_copy()
        if copy is None:
            return list(self.take_jpegs(image_rows))
        rows = self._checked(IMAGES_FOLDER, image_rows)
        views = copy.take(rows)
        missing = [place for place, view in enumerate(views) if view is None]
        jpegs = dict(zip(missing, self.take_jpegs(rows[missing]), strict=True)) if missing else {}
        return [jpegs[place] if view is None else view for place, view in enumerate(views)]

    def ignore_pixels(self) -> None:
        """Read JPEGs in this process though there may be a pixel copy."""
        self._pixel_copy()
        self._handles[PIXELS_FOLDER] = None

    @property
    def has_pixels(self) -> bool:
        """Whether there is a whole pixel copy (`corpus/pixels.py`)."""
        return self._pixel_copy() is not None

    def take_questions(self, image_rows: ArrayLike) -> list[list[dict[str, Any]]]:
        """Return the questions (`schema.QUESTION`) of each of `image_rows`, in that order; mostly there are none."""
        if "questions" not in self._dataset(IMAGES_FOLDER).schema.names:
            return [[] for _ in np.asarray(image_rows, dtype=np.int64).reshape(-1)]
        found = self._take(IMAGES_FOLDER, image_rows, ["questions"]).column("questions").to_pylist()
        return [questions or [] for questions in found]

    def texts(self, split: str | None = None) -> Iterator[str]:
        """Yield the text of every report and caption pair, of one split or of all, in row order."""
        chosen = None if split is None else f"text IS NOT NULL AND split = '{_known_value(split, SPLITS, 'split')}'"
        dataset = self._dataset(PAIRS_FOLDER)
        for batch in dataset.to_batches(columns=["text"], filter=chosen or "text IS NOT NULL", scan_in_order=True):
            yield from batch.column("text").to_pylist()

    def image_batches(self, columns: Sequence[str], batch_rows: int = 2048) -> Iterator[pa.RecordBatch]:
        """Yield some columns of all images in row order, a few thousand rows at a time."""
        names = list(_known(columns, IMAGES))
        if "jpeg" not in names or self._remote_pictures() is None:
            yield from self._dataset(IMAGES_FOLDER).to_batches(columns=names, batch_size=batch_rows, scan_in_order=True)
            return
        for first in range(0, self.manifest.images, batch_rows):
            rows = np.arange(first, min(first + batch_rows, self.manifest.images))
            yield from self._take(IMAGES_FOLDER, rows, names).combine_chunks().to_batches()

    def pair_batches(
        self, columns: Sequence[str], batch_rows: int = 2048, where: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield some columns of all pairs, or of those of an SQL condition, in row order, a few thousand at a time."""
        yield from self._dataset(PAIRS_FOLDER).to_batches(
            columns=list(_known(columns, PAIRS)), batch_size=batch_rows, filter=where, scan_in_order=True
        )

    def pair_rows(
        self, kind: str, split: str | None = None, datasets: Sequence[str] | None = None
    ) -> NDArray[np.int64]:
        """Return the rows of the pairs of one kind, ascending; of one split and of some datasets if given.

        Raises:
            ConfigError: no such kind, split or dataset.
        """
        chosen = {"kind": [_known_value(kind, PAIR_KINDS, "kind")]}
        if split is not None:
            chosen["split"] = [_known_value(split, SPLITS, "split")]
        return _matching(self.pairs_table([*chosen, "dataset"]), chosen, self.check_datasets(datasets))

    def image_rows(self, split: str | None = None, datasets: Sequence[str] | None = None) -> NDArray[np.int64]:
        """Return the rows of the images, ascending; of one split and of some datasets if given."""
        chosen = {} if split is None else {"split": [_known_value(split, SPLITS, "split")]}
        return _matching(self.images_table([*chosen, "dataset"]), chosen, self.check_datasets(datasets))

    def sample_rows(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        split: str | None = None,
        datasets: Sequence[str] | None = None,
    ) -> NDArray[np.int64]:
        """Return up to `count` image rows drawn without replacement, ascending."""
        rows = self.image_rows(split, datasets)
        return np.sort(rng.choice(rows, size=min(count, len(rows)), replace=False))

    def check_datasets(self, datasets: Sequence[str] | None) -> list[str] | None:
        """Return the names of some datasets, or `None` for all.

        Raises:
            ConfigError: the corpus has no such dataset.
        """
        known = [reader.name for reader in self.manifest.readers]
        return None if datasets is None else [_known_value(name, known, "dataset") for name in datasets]

    def _table(self, name: str, schema: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
        names = [c for c in schema.names if c not in _HEAVY] if columns is None else _known(columns, schema)
        if name == IMAGES_FOLDER and "jpeg" in names and self._remote_pictures() is not None:
            return self._take(name, np.arange(self.manifest.images), names)
        return self._dataset(name).to_table(columns=list(names), scan_in_order=True)

    def _take(self, name: str, rows: ArrayLike, columns: Sequence[str]) -> pa.Table:
        dataset = self._dataset(name)
        # Each row is read once, in file order, whatever is asked for.
        unique, places = np.unique(self._checked(name, rows), return_inverse=True)
        remote = self._remote_pictures() if name == IMAGES_FOLDER and "jpeg" in columns else None
        if remote is None:
            return dataset.take(unique.tolist(), columns=list(columns)).take(places)
        # Rows need a column to stand in, and an image's name is a short one.
        light = dataset.take(unique.tolist(), columns=[c for c in columns if c != "jpeg"] or ["image"])
        pictures = pa.array(remote.take(unique.tolist()), IMAGES.field("jpeg").type)
        return light.append_column(IMAGES.field("jpeg"), pictures).select(list(columns)).take(places)

    def _checked(self, name: str, rows: ArrayLike) -> NDArray[np.int64]:
        wanted = np.asarray(rows, dtype=np.int64).reshape(-1)
        total = self.manifest.images if name == IMAGES_FOLDER else sum(self.manifest.pairs.values())
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < total):
            raise IndexError(
                f"{self.path / name} has rows 0 to {total - 1}; asked for {wanted.min()} to {wanted.max()}"
            )
        return wanted

    def _pixel_copy(self) -> PixelCopy | None:
        handles = self._own_handles()
        if PIXELS_FOLDER not in handles:
            handles[PIXELS_FOLDER] = PixelCopy.find(self.path, self.fingerprint)
        found: PixelCopy | None = handles[PIXELS_FOLDER]
        return found

    def _remote_pictures(self) -> RemotePictures | None:
        handles = self._own_handles()
        if "jpeg" not in handles:
            self._check_same()
            handles["jpeg"] = RemotePictures.find(self.path, self.fingerprint)
        found: RemotePictures | None = handles["jpeg"]
        return found

    def _dataset(self, name: str) -> Any:
        handles = self._own_handles()
        if name not in handles:
            self._check_same()
            try:
                handles[name] = lance.dataset(str(self.path / name))
            except (ValueError, OSError) as error:
                fix = "prepare the corpus again with overwrite"
                raise CorpusError(f"cannot be opened: {error}", where=self.path / name, fix=fix) from None
        return handles[name]

    def _own_handles(self) -> dict[str, Any]:
        if self._process != os.getpid():  # a handle does not survive a fork
            self._handles, self._process = {}, os.getpid()
        return self._handles

    def _check_same(self) -> None:
        if read_manifest(self.path).fingerprint != self.fingerprint:
            fix = "open it again; a run that learns from it has to start anew"
            raise CorpusError("the corpus was replaced since it was opened", where=self.path, fix=fix)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self.manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["manifest"])  # type: ignore[misc]

    def __repr__(self) -> str:
        pairs = ", ".join(f"{count} {kind}" for kind, count in self.manifest.pairs.items() if count)
        return f"Corpus({str(self.path)!r}: {self.manifest.images} images; {pairs or 'no'} pairs)"


def _known(columns: Sequence[str], schema: pa.Schema) -> Sequence[str]:
    for column in columns:
        _known_value(column, schema.names, "column")
    return columns


def _known_value(value: str, known: Sequence[str], what: str) -> str:
    if value not in known:
        raise ConfigError(f"the corpus has no {what} {value!r}", fix=nearest(value, known))
    return value


def _matching(table: pa.Table, chosen: dict[str, list[str]], datasets: list[str] | None) -> NDArray[np.int64]:
    if datasets is not None:
        chosen = {**chosen, "dataset": datasets}
    match = np.ones(len(table), dtype=bool)
    for column, values in chosen.items():
        match &= pc.is_in(table.column(column), pa.array(values, pa.string())).to_numpy()
    return np.flatnonzero(match).astype(np.int64)
