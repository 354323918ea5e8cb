"""A dataset behind a URL → the same files in a folder here, which a reader then reads like any other.

Readers walk folders, look twice at tables and leave pixels to others, so they get a folder. A mirror is one folder of
the cache for each URL:

    <cache>/<name>-<hash of the URL>/files/…     the files under their own names
    <cache>/<name>-<hash of the URL>/index.jsonl one line per file: name, size, version there, SHA-256
    <cache>/<name>-<hash of the URL>/.lock       held while a process fetches

Of a corpus in S3 there is a light copy without the pictures in place of the files (`corpus/by_row.py`), unless all of
it is asked for.

A file is fetched beside its place, checked and then moved there, so each one is whole or absent. Its time is made
from its hash: two caches of the same bytes look alike, and a file that was touched since is fetched again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from umif.corpus.by_row import MARKER, begin_light, is_light, is_table, reads_rows, state_of, write_light
from umif.corpus.manifest import IMAGES_FOLDER, MANIFEST, json_lines, write_atomically
from umif.corpus.progress import Bar
from umif.corpus.remote import RemoteFile, RemoteFolder, is_url, shown
from umif.errors import CorpusError, EmptyError, RemoteError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE_VARIABLE = "UMIF_CACHE"
FILES, LIGHT, INDEX, LOCK, PARTS = "files", "light", "index.jsonl", ".lock", "parts"
# Transfers wait for the network, not for a core.
TRANSFERS = 16
MAX_FILES = 20_000_000
# Room that is left on the cache's disk, bytes.
_SPARE_BYTES = 1 << 28
_LOCAL = ("file", "local")
_LOST_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/(?!/)")


def default_cache() -> Path:
    """Return the folder for mirrors: `$UMIF_CACHE`, else `umif` in the user's cache folder."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "umif"


def local_root(root: str | Path, cache: Path | None, bar: Bar, max_bytes: int | None = None) -> Path:
    """Return a dataset's folder (or table) on this machine: `root` itself, or a mirror of it if it is a URL.

    Args:
        root: A path, or any URL that fsspec opens.
        cache: Where mirrors are kept; `default_cache()` unless told.
        bar: Shows how far it is.
        max_bytes: What a mirror may hold at most; by default as much as the disk has room for.

    Raises:
        RemoteError: the URL cannot be read, or holds more than `max_bytes`.
        EmptyError: there is no file behind it.
        StorageError: the cache's disk is full or cannot be written.
    """
    if isinstance(root, Path) or not is_url(root):
        return Path(root)
    protocol, _, rest = root.partition("://")
    if protocol.lower() in _LOCAL and "::" not in root:
        return Path(unquote(urlsplit(root).path) if rest.startswith("/") else rest)
    return _updated(_Mirror(root, cache or default_cache(), max_bytes), bar)


def corpus_folder(corpus: str | Path) -> Path:
    """Return a corpus's folder on this machine: `corpus` itself, or the mirror of it if it is a URL.

    What is not in the cache yet, or is another there by now, is fetched first and checked; of a corpus in S3, all but
    the pictures, which are read by row then (`corpus/by_row.py`). A path made of a URL, whose two slashes have become
    one (`s3:/bucket/corpus`), counts as that URL.

    Raises:
        RemoteError: the URL cannot be read.
        EmptyError: there is no file behind it.
        CorpusError: there are files, and no corpus, in S3.
        ConfigError: `$UMIF_FETCH` is none of the ways to fetch.
        StorageError: the cache's disk is full or cannot be written.
    """
    text = str(corpus)
    if _LOST_SLASH.match(text) and not Path(text).exists():
        text = text.replace(":/", "://", 1)
    if not is_url(text):
        return Path(corpus)
    with Bar(True) as bar:
        if not reads_rows(text):
            return local_root(text, None, bar)
        return _updated(_LightMirror(text, default_cache(), None), bar)


def _updated(mirror: _Mirror, bar: Bar) -> Path:
    try:
        return mirror.update(bar)
    except OSError as error:
        where = error.filename or mirror.folder
        fix = "make room or mend the permissions (or: --cache DIR, $UMIF_CACHE), and run it again: it goes on"
        raise StorageError(f"cannot be written: {error.strerror or error}", where=where, fix=fix) from error


@dataclass(frozen=True, slots=True)
class _Line:
    """What the index says of a file."""

    name: str
    size: int
    version: str
    sha256: str

    @property
    def time_ns(self) -> int:
        """The time that the file is given: it stands for its content."""
        return int(self.sha256[:7], 16) * 1_000_000_000


class _Mirror:
    """The mirror of one URL."""

    _FILES, _INDEX = FILES, INDEX
    # What is made here, and is not there.
    _OWN: tuple[str, ...] = ()

    def __init__(self, url: str, cache: Path, max_bytes: int | None) -> None:
        self._url = url
        self._max_bytes = max_bytes
        last = "".join(c if c.isalnum() or c in "-_." else "_" for c in shown(url).rstrip("/").rpartition("/")[2])
        self.folder = cache / f"{last[:40].strip('.') or 'root'}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._files = self.folder / self._FILES

    def update(self, bar: Bar) -> Path:
        """Fetch what is missing or has changed, remove what is gone, and return the folder (or the file)."""
        remote, listed = self._list(bar)
        with self._locked():
            self._mirror(remote, listed, bar)
        return self._files / remote.file if remote.file else self._files

    def _list(self, bar: Bar) -> tuple[RemoteFolder, list[RemoteFile]]:
        remote = RemoteFolder(self._url)
        bar.start(f"listing {remote.shown}")
        listed = []
        for file in remote.files():
            listed.append(file)
            if len(listed) > MAX_FILES:
                raise RemoteError(f"holds over {MAX_FILES} files", where=remote.shown, fix="name a folder below it")
        if not listed:
            raise EmptyError("there is no file behind this URL", where=remote.shown, fix="check the URL")
        self._files.mkdir(parents=True, exist_ok=True)
        return remote, listed

    def _mirror(self, remote: RemoteFolder, listed: list[RemoteFile], bar: Bar) -> None:
        lines = self._update(remote, listed, bar)
        write_atomically(self.folder / self._INDEX, json_lines(asdict(line) for line in lines))
        self._remove_others({line.name for line in lines})
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def _update(self, remote: RemoteFolder, listed: list[RemoteFile], bar: Bar) -> list[_Line]:
        known = self._known()
        lines = {
            name: known[name] for name in known.keys() & {file.name for file in listed} if self._intact(known[name])
        }
        missing = [file for file in listed if not file.version or not _same(file, lines.get(file.name))]
        self._check_room(remote, listed, missing)
        (self.folder / PARTS).mkdir(exist_ok=True)
        bar.start(f"fetching {remote.shown}", len(missing))
        with (self.folder / self._INDEX).open("a", encoding="utf-8") as index:
            for line in self._fetched(remote, missing, lines):
                bar.advance(1)
                if lines.get(line.name) != line:
                    lines[line.name] = line
                    # A line that a crash cuts off is not read, and its file fetched again.
                    index.write("\n" + json.dumps(asdict(line)))
        return [lines[file.name] for file in listed]

    def _fetched(self, remote: RemoteFolder, missing: list[RemoteFile], lines: dict[str, _Line]) -> Iterator[_Line]:
        """Fetch several files at a time; yield the index's line of each as it is done."""
        left = iter(missing)
        stopped = threading.Event()
        had = 0

        def one(file: RemoteFile, before: _Line | None) -> _Line:
            if stopped.is_set():
                raise RemoteError("stopped", where=remote.shown)
            file = remote.asked(file)
            return before if before is not None and _same(file, before) else self._fetch(remote, file)

        with ThreadPoolExecutor(remote.readers or TRANSFERS) as pool:
            running: set[Future[_Line]] = set()
            try:
                while True:
                    wanted = list(islice(left, 2 * TRANSFERS - len(running)))
                    running |= {pool.submit(one, file, lines.get(file.name)) for file in wanted}
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    # Failures last: what came whole beside them is kept.
                    for future in sorted(done, key=lambda each: each.exception() is not None):
                        line = future.result()
                        had += line.size
                        self._check_total(remote, had)
                        yield line
            finally:
                stopped.set()
                pool.shutdown(cancel_futures=True)

    def _fetch(self, remote: RemoteFolder, file: RemoteFile) -> _Line:
        target = self._files / file.name
        part = self.folder / PARTS / hashlib.sha256(file.name.encode()).hexdigest()[:32]
        size, sha256 = remote.fetch(file, part)
        line = _Line(file.name, size, file.version, sha256)
        os.utime(part, ns=(line.time_ns, line.time_ns))
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        return line

    def _check_room(self, remote: RemoteFolder, listed: list[RemoteFile], missing: list[RemoteFile]) -> None:
        self._check_total(remote, sum(file.size or 0 for file in listed))
        needed = sum(file.size or 0 for file in missing)
        free = shutil.disk_usage(self.folder).free
        if needed + _SPARE_BYTES > free:
            what = f"{needed / 2**30:.1f} GiB are to be fetched, and {free / 2**30:.1f} GiB are free"
            raise StorageError(
                what, where=self.folder, fix="make room, or give another folder: --cache DIR, $UMIF_CACHE"
            )

    def _check_total(self, remote: RemoteFolder, total: int) -> None:
        if self._max_bytes is not None and total > self._max_bytes:
            what = f"holds over {self._max_bytes / 2**30:g} GiB, the limit that was given"
            raise RemoteError(what, where=remote.shown, fix="raise --cache-limit, or name a folder below it")

    def _known(self) -> dict[str, _Line]:
        known = {}
        try:
            text = (self.folder / self._INDEX).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return {}
        for row in text.splitlines():
            try:
                line = _Line(**json.loads(row))
            except (ValueError, TypeError):
                continue
            known[line.name] = line
        return known

    def _intact(self, line: _Line) -> bool:
        try:
            state = (self._files / line.name).stat()
        except OSError:
            return False
        return (state.st_size, state.st_mtime_ns) == (line.size, line.time_ns)

    def _remove_others(self, names: set[str]) -> None:
        """Remove files that are not behind the URL any more, and folders that are empty by then."""
        for path in sorted(self._files.rglob("*"), reverse=True):
            name = path.relative_to(self._files)
            if name.parts[0] in self._OWN:
                continue
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif name.as_posix() not in names:
                path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Waits: who comes second finds the files there.
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


class _LightMirror(_Mirror):
    """The mirror of a corpus whose pictures stay where they are."""

    _FILES, _INDEX = LIGHT, "light.jsonl"
    _OWN = (IMAGES_FOLDER, MARKER)

    def update(self, bar: Bar) -> Path:
        """Bring the tables up to date; copy that of the images, without pictures, if it is another by now."""
        remote, listed = self._list(bar)
        if remote.file or MANIFEST not in {file.name for file in listed}:
            what = "is a file" if remote.file else f"holds no {MANIFEST}"
            raise CorpusError(f"this is no corpus: it {what}", where=remote.shown, fix="check the URL")
        state = state_of(listed)
        with self._locked():
            tables = [file for file in listed if is_table(file.name)]
            if not is_light(self._url, self._files, state):
                begin_light(self._url, self._files)
            self._mirror(remote, tables, bar)
            if not is_light(self._url, self._files, state):
                write_light(self._url, self._files, state, bar)
        return self._files


def _same(file: RemoteFile, line: _Line | None) -> bool:
    return line is not None and file.version == line.version and file.size in (None, line.size)
