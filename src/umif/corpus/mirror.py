"""A dataset behind a URL → the same files in a folder here, which a reader then reads like any other.

Readers walk folders, look twice at tables and leave pixels to others, so they get a folder. A mirror is one folder of
the cache for each URL:

    <cache>/<name>-<hash of the URL>/files/…     the files under their own names
    <cache>/<name>-<hash of the URL>/index.jsonl one line per file: name, size, version there, SHA-256
    <cache>/<name>-<hash of the URL>/.lock       held while a process fetches

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

from umif.corpus.manifest import json_lines, write_atomically
from umif.corpus.progress import Bar
from umif.corpus.remote import RemoteFile, RemoteFolder, is_url, shown
from umif.errors import EmptyError, RemoteError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE_VARIABLE = "UMIF_CACHE"
FILES, INDEX, LOCK, PARTS = "files", "index.jsonl", ".lock", "parts"
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
    try:
        return _Mirror(root, cache or default_cache(), max_bytes).update(bar)
    except OSError as error:
        where = error.filename or cache or default_cache()
        fix = "make room or mend the permissions (or: --cache DIR), and run it again: it goes on where it stopped"
        raise StorageError(f"cannot be written: {error.strerror or error}", where=where, fix=fix) from error


def corpus_folder(corpus: str | Path) -> Path:
    """Return a corpus's folder on this machine: `corpus` itself, or the mirror of it if it is a URL.

    What is not in the cache yet, or is another there by now, is fetched first and checked. A path made of a URL, whose
    two slashes have become one (`s3:/bucket/corpus`), counts as that URL.

    Raises:
        RemoteError: the URL cannot be read.
        EmptyError: there is no file behind it.
        StorageError: the cache's disk is full or cannot be written.
    """
    text = str(corpus)
    if _LOST_SLASH.match(text) and not Path(text).exists():
        text = text.replace(":/", "://", 1)
    if not is_url(text):
        return Path(corpus)
    with Bar(True) as bar:
        return local_root(text, None, bar)


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

    def __init__(self, url: str, cache: Path, max_bytes: int | None) -> None:
        self._url = url
        self._max_bytes = max_bytes
        last = "".join(c if c.isalnum() or c in "-_." else "_" for c in shown(url).rstrip("/").rpartition("/")[2])
        self._folder = cache / f"{last[:40].strip('.') or 'root'}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._files = self._folder / FILES

    def update(self, bar: Bar) -> Path:
        """Fetch what is missing or has changed, remove what is gone, and return the folder (or the file)."""
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
        with self._locked():
            lines = self._update(remote, listed, bar)
            write_atomically(self._folder / INDEX, json_lines(asdict(line) for line in lines))
            self._remove_others({line.name for line in lines})
            shutil.rmtree(self._folder / PARTS, ignore_errors=True)
        return self._files / remote.file if remote.file else self._files

    def _update(self, remote: RemoteFolder, listed: list[RemoteFile], bar: Bar) -> list[_Line]:
        known = self._known()
        lines = {
            name: known[name] for name in known.keys() & {file.name for file in listed} if self._intact(known[name])
        }
        missing = [file for file in listed if not file.version or not _same(file, lines.get(file.name))]
        self._check_room(remote, listed, missing)
        (self._folder / PARTS).mkdir(exist_ok=True)
        bar.start(f"fetching {remote.shown}", len(missing))
        with (self._folder / INDEX).open("a", encoding="utf-8") as index:
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
        part = self._folder / PARTS / hashlib.sha256(file.name.encode()).hexdigest()[:32]
        size, sha256 = remote.fetch(file, part)
        line = _Line(file.name, size, file.version, sha256)
        os.utime(part, ns=(line.time_ns, line.time_ns))
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        return line

    def _check_room(self, remote: RemoteFolder, listed: list[RemoteFile], missing: list[RemoteFile]) -> None:
        self._check_total(remote, sum(file.size or 0 for file in listed))
        needed = sum(file.size or 0 for file in missing)
        free = shutil.disk_usage(self._folder).free
        if needed + _SPARE_BYTES > free:
            what = f"{needed / 2**30:.1f} GiB are to be fetched, and {free / 2**30:.1f} GiB are free"
            raise StorageError(what, where=self._folder, fix="make room, or give another folder: --cache DIR")

    def _check_total(self, remote: RemoteFolder, total: int) -> None:
        if self._max_bytes is not None and total > self._max_bytes:
            what = f"holds over {self._max_bytes / 2**30:g} GiB, the limit that was given"
            raise RemoteError(what, where=remote.shown, fix="raise --cache-limit, or name a folder below it")

    def _known(self) -> dict[str, _Line]:
        known = {}
        try:
            text = (self._folder / INDEX).read_text(encoding="utf-8", errors="replace")
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
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(self._files).as_posix() not in names:
                path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Waits: who comes second finds the files there.
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _same(file: RemoteFile, line: _Line | None) -> bool:
    return line is not None and file.version == line.version and file.size in (None, line.size)
