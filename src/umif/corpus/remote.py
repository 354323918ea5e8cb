"""One folder behind a URL, through fsspec: what files it holds, and one of them fetched whole.

Whatever goes wrong comes out as `RemoteError` with the URL in it, but for its user, password and query, which may be
secrets.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from umif.errors import RemoteError
from umif.readers.folders import relative_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_T = TypeVar("_T")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(?:://|::[A-Za-z])")
ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
_HASH_BYTES = 1 << 20
# What tells one version of a file from another, as far as a file system says it. Without any, the size alone.
_VERSION = (
    "size", "ETag", "etag", "LastModified", "Last-Modified", "last_modified", "mtime", "updated", "generation",
    "md5Hash", "Content-MD5", "CRC", "date_time", "created", "modified", "VersionId",
)  # fmt: skip
_MD5 = ("md5Hash", "Content-MD5")
# Archives have one place that they are read at.
_ONE_READER = ("zip", "tar", "libarchive")


def is_url(root: str) -> bool:
    """Whether `root` is a URL (`s3://…`, `zip://…::…`) and no folder's path."""
    return _URL.match(root) is not None


def shown(url: str) -> str:
    """Return `url` without user, password, query and fragment, for messages and file names.

    Example:
        >>> shown("zip://a::https://me:secret@host/b.zip?key=1")
        'zip://a::https://host/b.zip'
    """
    parts = []
    for link in url.split("::"):
        split = urlsplit(link)
        host = split.netloc.rpartition("@")[2]
        parts.append(urlunsplit((split.scheme, host, split.path, "", "")) if host else link.partition("?")[0])
    return "::".join(parts)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a remote folder.

    Attributes:
        name: Its path within the folder, plain and relative.
        path: What its file system calls it.
        size: Bytes; `None` if only asking for the file itself tells.
        version: Changes when the file does, as far as its file system can tell; blank if not asked yet.
        md5: Of its bytes, base64, where its file system tells; blank where not.
    """

    name: str
    path: str
    size: int | None
    version: str
    md5: str = ""


class RemoteFolder:
    """A folder behind a URL. If the URL is that of a file, the folder is the one that the file is in.

    Attributes:
        file: The file's name if the URL is a file's, else blank.

    Raises:
        RemoteError: the protocol is unknown, its package is missing, or there is nothing to be seen.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.shown = shown(url)
        self._fs, root = _file_system(url)
        self.protocol = _protocol(url)
        self.readers = 1 if self.protocol in _ONE_READER else None
        self.file = ""
        with _typed(self.shown):
            # File systems live as long as the process and remember listings; what is there may have changed.
            self._fs.invalidate_cache()
            if not self._is_folder(root):
                self._fs.info(root)  # raises what stands in the way
                root, _, self.file = root.rstrip("/").rpartition("/")
        self._root = root.rstrip("/")

    def _is_folder(self, root: str) -> bool:
        return root.strip("/") == "" or bool(self._fs.isdir(root))

    def files(self) -> Iterator[RemoteFile]:
        """Yield all files below the folder, by name.

        Raises:
            RemoteError: the folder cannot be listed, or names a file outside itself.
        """
        with _typed(self.shown):
            listed: dict[str, dict[str, Any]] = self._fs.find(self._root, detail=True)
        named = {}
        for path, info in listed.items():
            name = self._name(path)
            if name:
                named[name] = RemoteFile(name, path, None, "") if self._asks else _file(name, path, info)
        yield from (named[name] for name in sorted(named))

    @property
    def _asks(self) -> bool:
        """Whether each file has to be asked for: an index page tells no more than names."""
        return self.protocol in ("http", "https")

    def _name(self, path: str) -> str | None:
        inner = path.removeprefix(self._root).lstrip("/")
        if self._asks:
            if "?" in inner or "#" in inner or path == inner:
                return None  # links of an index page that sort it, or lead elsewhere
            inner = unquote(inner)
        name = relative_name(inner)
        if name is None or name != inner.rstrip("/"):
            raise RemoteError(f"holds a file that is called {inner!a:.120}", where=self.shown, fix="rename it there")
        return name

    def asked(self, file: RemoteFile) -> RemoteFile:
        """Return `file` with its size and version, if the listing did not tell them.

        Raises:
            RemoteError: it cannot be asked for.
        """
        if file.version:
            return file
        info = _tried(self._where(file), lambda: self._fs.info(file.path))
        return _file(file.name, file.path, info)

    def fetch(self, file: RemoteFile, target: Path) -> tuple[int, str]:
        """Write `file` to `target`; return its size and SHA-256. What breaks off, or is too short, is tried again.

        Raises:
            RemoteError: no right, not there, or it keeps failing.
            OSError: `target` cannot be written.
        """

        with target.open("wb"):  # what the disk refuses must not look like the network's fault
            pass

        def once() -> tuple[int, str]:
            self._fs.get_file(file.path, str(target))
            size, sha256, md5 = _hashes(target)
            if file.size is not None and size != file.size:
                raise EOFError(f"{size} of {file.size} bytes came")
            if file.md5 not in ("", md5):
                raise EOFError("the bytes that came do not have the MD5 that they should have")
            return size, sha256

        return _tried(self._where(file), once)

    def _where(self, file: RemoteFile) -> str:
        return f"{self.shown.rstrip('/')}/{file.name}"


def read_small(url: str) -> bytes:
    """Return the bytes of the file behind `url` as they are now.

    Raises:
        RemoteError: no right, not there, or it keeps failing.
    """
    file_system, path = _file_system(url)
    return _tried(shown(url), lambda: bytes(file_system.cat_file(path)))


def s3_options(url: str) -> dict[str, str]:
    """Return what Lance has to be told to reach the `s3://` URL that fsspec reaches: it looks in other places.

    Credentials that only the environment or a profile hold are found by both, and are not passed.

    Raises:
        RemoteError: the package for S3 is missing.
    """
    file_system, _ = _file_system(url)
    endpoint = file_system.endpoint_url or _first_set("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or ""
    options = {
        "aws_endpoint": endpoint,
        "allow_http": "true" if endpoint.startswith("http://") else "",
        "aws_region": file_system.client_kwargs.get("region_name") or _first_set("AWS_REGION", "AWS_DEFAULT_REGION"),
        "aws_access_key_id": file_system.key,
        "aws_secret_access_key": file_system.secret,
        "aws_session_token": file_system.token,
        "skip_signature": "true" if file_system.anon else "",
    }
    return {name: str(value) for name, value in options.items() if value}


def _first_set(*variables: str) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


def _tried(where: str, action: Callable[[], _T]) -> _T:
    for attempt in range(1, ATTEMPTS):
        try:
            with _typed(where):
                return action()
        except BrokenOffError:
            time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
    with _typed(where):
        return action()


class BrokenOffError(RemoteError):
    """What may go better the next time."""


@contextmanager
def _typed(where: str) -> Iterator[None]:
    """Turn whatever a file system raises into `RemoteError`; the local disk's own troubles pass."""
    try:
        yield
    except RemoteError:
        raise
    except Exception as error:
        raise _explained(error, where) from None


def _explained(error: Exception, where: str) -> Exception:
    status = getattr(error, "status", None)
    if isinstance(error, OSError) and error.errno in _DISK:
        return error
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and _says_why(cause):
        return _explained(cause, where)  # web servers that refuse or cannot be reached come as files that are missing
    if isinstance(error, FileNotFoundError):
        return RemoteError("there is no such file or folder", where=where, fix="check the URL")
    if isinstance(error, PermissionError) or status in (401, 403) or "credentials" in str(error).lower():
        fix = "check the rights, and that the protocol's package finds your credentials"
        return RemoteError("there is no right to read this", where=where, fix=fix)
    if isinstance(error, (zipfile.BadZipFile, ImportError, ValueError, NotImplementedError)):
        return RemoteError(f"cannot be read: {_words(error)}", where=where, fix="check the URL, or copy the file again")
    fix = "run it again: what has been fetched is kept"
    return BrokenOffError(f"the transfer broke off: {_words(error)}", where=where, fix=fix)


def _says_why(cause: Exception) -> bool:
    status = getattr(cause, "status", 404 if not isinstance(cause, OSError) else None)
    return status not in (404, 410) and not isinstance(cause, FileNotFoundError)


# Full, over quota, read-only, too large: the cache's disk, since no network says so.
_DISK = (28, 122, 30, 27)


def _words(error: Exception) -> str:
    # Only the kind and first line: what follows may quote a signed URL.
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}" + (f" ({text[:120]})" if text and "://" not in text else "")


def _protocol(url: str) -> str:
    return re.split(r"::|://", url, maxsplit=1)[0].lower()


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        file_system, root = fsspec.core.url_to_fs(url, **_region(url))
    except ImportError as error:
        cause = error.__cause__
        package = (cause.name if isinstance(cause, ModuleNotFoundError) else None) or _package(url)
        what = f"reading it takes a package that is not installed: {package}"
        raise RemoteError(what, where=shown(url), fix=f"pip install {package}  (fsspec says: {error})") from None
    except ValueError as error:
        if "Protocol" not in str(error):
            raise _explained(error, shown(url)) from None
        fix = "known ones: " + ", ".join(sorted(fsspec.available_protocols()))
        raise RemoteError(f"the protocol is not known: {error}", where=shown(url), fix=fix) from None
    except Exception as error:  # an archive's own file is opened here
        raise _explained(error, shown(url)) from None
    return file_system, str(root)


def _region(url: str) -> dict[str, Any]:
    """The region of AWS_REGION for `s3fs`, which would look at AWS_DEFAULT_REGION only."""
    import fsspec

    region = os.environ.get("AWS_REGION")
    if not region or "s3://" not in url or "client_kwargs" in fsspec.config.conf.get("s3", {}):
        return {}
    return {"s3": {"client_kwargs": {"region_name": region}}}


def _package(url: str) -> str:
    from fsspec.registry import known_implementations

    known = known_implementations.get(_protocol(url), {"class": "fsspec"})
    return str(known["class"]).partition(".")[0]


def _file(name: str, path: str, info: dict[str, Any]) -> RemoteFile:
    md5 = next((info[key] for key in _MD5 if isinstance(info.get(key), str)), "")
    return RemoteFile(name, path, info.get("size"), _version_of(info), md5)


def _version_of(info: dict[str, Any]) -> str:
    """Return a short text that is another for another version of the file that `info` is about."""
    known = repr([(key, str(info[key])) for key in _VERSION if info.get(key) is not None])
    return hashlib.sha256(known.encode("utf-8", "replace")).hexdigest()[:32]


def _hashes(path: Path) -> tuple[int, str, str]:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BYTES):
            sha256.update(block)
            md5.update(block)
            size += len(block)
    return size, sha256.hexdigest(), base64.b64encode(md5.digest()).decode()
