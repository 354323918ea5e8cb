"""A corpus in an object store, read by row: what is small lies here, and a picture comes when it is first used.

Training draws pairs from the whole corpus, so after a few steps it has touched every file of it, and yet only a part
of the rows. Lance reads single rows out of an object store by their byte ranges. So the mirror of a corpus in S3 has
its tables, and for pictures a marker that says where they are:

    <mirror>/light/…                         corpus.json, ledger.jsonl, quarantine.csv, pairs.lance as they are there
    <mirror>/light/images.lance              every column of the images but `jpeg`
    <mirror>/light/remote.json               the marker: URL, fingerprint, and names of the data files there
    <mirror>/pictures/<fingerprint>/         pictures that were used (`corpus/picture_cache.py`)

Lance never writes a data file's name twice. Pictures are read only if the files there are those of the marker, so a
corpus that was replaced is an error and never another picture.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from umif.corpus.manifest import (
    IMAGES_FOLDER,
    LEDGER,
    MANIFEST,
    PAIRS_FOLDER,
    json_bytes,
    read_manifest,
    sync,
    write_atomically,
)
from umif.corpus.picture_cache import PictureCache, limit_bytes
from umif.corpus.remote import BrokenOffError, read_small, s3_options, shown
from umif.errors import ConfigError, CorpusError, RemoteError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from umif.corpus.progress import Bar
    from umif.corpus.remote import RemoteFile

_T = TypeVar("_T")
FETCH_VARIABLE = "UMIF_FETCH"
_WAYS = ("rows", "whole")
MARKER, PICTURES = "remote.json", "pictures"
# Of what `quarantine.py` reads; named here, since that module reads mirrors.
_TABLES = (MANIFEST, LEDGER, "quarantine.csv")
_FORMAT = 1
_READ_ROWS = 256
_LIGHT_ROWS = 8192
# How long a store that does not answer is asked again. A loader's worker that says nothing for 300 s counts as hung.
PATIENCE_SECONDS = 150.0
_PAUSES_SECONDS = (0.5, 15.0)
# Of each request, within which Lance tries again by itself.
_CLIENT = {"client_max_retries": "3", "client_retry_timeout": "60", "request_timeout": "30s", "connect_timeout": "5s"}

_NO_RIGHT = re.compile(r"status code: 40[13]|necessary privileges|ExpiredToken|AWS credentials|provided credentials")
# What the store or the network said, behind the request and before the place in Lance's sources.
_SAID = re.compile(r" - (.{1,80}?)(?:: <|, /|$)")


def reads_rows(url: str) -> bool:
    """Whether the corpus behind `url` is read by row: it is in S3, and `$UMIF_FETCH` does not ask for all of it.

    Raises:
        ConfigError: the variable has another value than `rows` or `whole`.
    """
    way = os.environ.get(FETCH_VARIABLE, "").strip() or _WAYS[0]
    if way not in _WAYS:
        raise ConfigError(f"{way!r} is no way to fetch a corpus", where=f"${FETCH_VARIABLE}", fix=nearest(way, _WAYS))
    parts = urlsplit(url)
    # The marker holds the URL, so one with a secret in it is not for this.
    plain = "::" not in url and not parts.query and "@" not in parts.netloc
    return way == "rows" and parts.scheme == "s3" and plain


def is_table(name: str) -> bool:
    """Whether a file of the corpus is mirrored as it is."""
    return name in _TABLES or name.startswith(f"{PAIRS_FOLDER}/")


def state_of(files: Iterable[RemoteFile]) -> str:
    """Return a hash that is another once any file of the images there is another."""
    rows = [(file.name, file.size, file.version) for file in files if file.name.startswith(f"{IMAGES_FOLDER}/")]
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Marker:
    """What `remote.json` says.

    Attributes:
        url: Of the corpus.
        fingerprint: Of the corpus that the light copy belongs to; blank while that is being made.
        state: Of the images' files as they were listed (`state_of`).
        files: Names of the images' data files there, in order.
        copied: Files of the light copy of the images with their sizes.
    """

    url: str
    fingerprint: str
    state: str
    files: list[str]
    copied: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> Marker | None:
        """Return the marker in a corpus's folder; `None` if its pictures are there themselves.

        Raises:
            CorpusError: it cannot be read.
        """
        try:
            data = json.loads((folder / MARKER).read_text(encoding="utf-8"))
            if data.pop("format") != _FORMAT:
                raise ValueError("another format")
            return cls(**data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            fix = "remove the folder, and open the corpus by its URL again"
            raise CorpusError(f"cannot be read: {error}", where=folder / MARKER, fix=fix) from None

    def write(self, folder: Path) -> None:
        """Write it into a corpus's folder."""
        write_atomically(folder / MARKER, json_bytes({"format": _FORMAT, **asdict(self)}))


def begin_light(url: str, folder: Path) -> None:
    """Mark the light copy in `folder` as unfinished."""
    Marker(url, "", "", [], {}).write(folder)


def is_light(url: str, folder: Path, state: str) -> bool:
    """Whether `folder` holds the light copy of the images of this state, and of the manifest beside it."""
    try:
        marker = Marker.read(folder)
        if marker is None or (marker.url, marker.state) != (url, state):
            return False
        return (
            marker.copied == _sizes(folder / IMAGES_FOLDER) and marker.fingerprint == read_manifest(folder).fingerprint
        )
    except CorpusError:  # damaged, or of another format: it is made again
        return False


def write_light(url: str, folder: Path, state: str, bar: Bar) -> None:
    """Copy the images' table without pictures into `folder`, whose manifest is there, and finish it by its marker.

    Pictures of other fingerprints are removed from the cache.

    Raises:
        RemoteError: the images cannot be read.
        OSError: the disk is full or refuses.
    """
    manifest = read_manifest(folder)
    source = f"{url.rstrip('/')}/{IMAGES_FOLDER}"
    building = folder / f"{IMAGES_FOLDER}.part"

    def copy() -> list[str]:
        dataset = _open_lance(url)
        bar.start(f"reading the table of {shown(url)}", manifest.images)
        shutil.rmtree(building, ignore_errors=True)
        _copy_table(dataset, building, source, bar)
        return _data_files(dataset)

    files = _patiently(copy, source)
    for path in (building, *building.rglob("*")):
        sync(path)
    shutil.rmtree(folder / IMAGES_FOLDER, ignore_errors=True)
    building.rename(folder / IMAGES_FOLDER)
    Marker(url, manifest.fingerprint, state, files, _sizes(folder / IMAGES_FOLDER)).write(folder)
    kept = _pictures_folder(folder, manifest.fingerprint)
    for other in kept.parent.glob("*"):
        if other != kept:
            shutil.rmtree(other, ignore_errors=True)


def _copy_table(dataset: Any, target: Path, source: str, bar: Bar) -> None:
    import lance
    import pyarrow as pa

    names = [name for name in dataset.schema.names if name != "jpeg"]
    broke: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in dataset.to_batches(columns=names, batch_size=_LIGHT_ROWS, scan_in_order=True):
                yield batch
                bar.advance(batch.num_rows)
        except Exception as error:
            broke.append(error)
            raise

    schema = pa.schema([dataset.schema.field(name) for name in names])
    try:
        lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches()), str(target), schema=schema)
    except Exception as error:
        if broke:
            raise _explained(broke[0], source) from None
        raise OSError(None, str(error).partition(", /")[0], str(target)) from None


class RemotePictures:
    """The pictures of a corpus whose folder holds a marker; made by `RemotePictures.find`.

    Nothing is asked of the store before a picture is missing here.
    """

    def __init__(self, folder: Path, marker: Marker) -> None:
        self._folder, self._marker = folder, marker
        self._where = f"{marker.url.rstrip('/')}/{IMAGES_FOLDER}"
        self._max_bytes = limit_bytes()
        self._cache: PictureCache | None = None
        self._dataset: Any = None

    @classmethod
    def find(cls, folder: Path, fingerprint: str) -> RemotePictures | None:
        """Return the pictures of the corpus of this fingerprint; `None` if they are in `folder` itself.

        Raises:
            CorpusError: the light copy is unfinished, or that of another corpus by now.
        """
        marker = Marker.read(folder)
        if marker is None:
            return None
        if marker.fingerprint != fingerprint:
            fix = "open the corpus by its URL: " + marker.url
            raise CorpusError("its copy in the cache is unfinished, or of another corpus by now", where=folder, fix=fix)
        return cls(folder, marker)

    def take(self, rows: Sequence[int]) -> list[bytes]:
        """Return the pictures of `rows`, in that order and as often as named.

        Raises:
            CorpusError: another corpus is behind the URL by now.
            RemoteError: there is no right, they are not there any more, or the store does not answer.
        """
        if self._cache is None:
            self._cache = PictureCache(_pictures_folder(self._folder, self._marker.fingerprint), self._max_bytes)
        unique = sorted(set(rows))
        found = dict(zip(unique, self._cache.take(unique), strict=True))
        missing = [row for row in unique if found[row] is None]
        for first in range(0, len(missing), _READ_ROWS):
            part = missing[first : first + _READ_ROWS]
            pictures = self._fetch(part)
            self._cache.keep(part, pictures)
            found.update(zip(part, pictures, strict=True))
        return [data for row in rows if (data := found[row]) is not None]

    def _fetch(self, rows: list[int]) -> list[bytes]:
        def once() -> list[bytes]:
            if self._dataset is None:
                self._dataset = self._opened()
            pictures: list[bytes] = self._dataset.take(rows, columns=["jpeg"]).column("jpeg").to_pylist()
            return pictures

        try:
            return _patiently(once, self._where)
        except BrokenOffError:
            raise
        except RemoteError as error:
            # What was there may be gone because another corpus came.
            try:
                there = self._fingerprint_there()
            except RemoteError:
                raise error from None
            if there != self._marker.fingerprint:
                raise _replaced(self._marker.url) from None
            raise

    def _opened(self) -> Any:
        dataset = _open_lance(self._marker.url)
        if _data_files(dataset) != self._marker.files or self._fingerprint_there() != self._marker.fingerprint:
            raise _replaced(self._marker.url)
        return dataset

    def _fingerprint_there(self) -> str | None:
        try:
            found = json.loads(read_small(f"{self._marker.url.rstrip('/')}/{MANIFEST}"))
        except ValueError:
            return None
        return found.get("fingerprint") if isinstance(found, dict) else None


def _replaced(url: str) -> CorpusError:
    fix = "open its URL again; a run that learns from it has to start anew"
    return CorpusError("the corpus was replaced since it was opened", where=shown(url), fix=fix)


def _pictures_folder(folder: Path, fingerprint: str) -> Path:
    return folder.parent / PICTURES / fingerprint[:32]


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _open_lance(url: str) -> Any:
    import lance

    return lance.dataset(f"{url.rstrip('/')}/{IMAGES_FOLDER}", storage_options={**_CLIENT, **s3_options(url)})


def _data_files(dataset: Any) -> list[str]:
    return [file.path for fragment in dataset.get_fragments() for file in fragment.metadata.files]


def _patiently(action: Callable[[], _T], where: str) -> _T:
    """Return what `action` does; what Lance raises becomes a `RemoteError`, and what may go better is tried again."""
    pause, most = _PAUSES_SECONDS
    began = time.monotonic()
    while True:
        try:
            return action()
        except BrokenOffError as error:
            broken = error
        except (ValueError, RuntimeError, OSError) as error:
            explained = _explained(error, where)
            if not isinstance(explained, BrokenOffError):
                raise explained from None
            broken = explained
        if time.monotonic() - began + pause > PATIENCE_SECONDS:
            raise broken
        time.sleep(pause)
        pause = min(2 * pause, most)


def _explained(error: Exception, where: str) -> Exception:
    """Return the typed error for what Lance raised; it knows errors by their words only."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return error  # of this machine's disk
    if "ot found" in text:
        fix = "put the corpus back there, and run it again: it goes on with what is kept"
        return RemoteError("the pictures are not there any more", where=shown(where), fix=fix)
    if _NO_RIGHT.search(text):
        fix = "check the rights and the credentials ($AWS_ACCESS_KEY_ID, $AWS_SECRET_ACCESS_KEY), and run it again"
        return RemoteError("there is no right to read this", where=shown(where), fix=fix)
    said = _SAID.search(text)
    fix = "run it again: what has been fetched is kept"
    return BrokenOffError(f"reading broke off{f' ({said[1]})' if said else ''}", where=shown(where), fix=fix)
