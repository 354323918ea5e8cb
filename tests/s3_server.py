"""An object store on the loopback that speaks as much of S3 as reading takes, and counts what is asked of it."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 1 << 16
_DATE = "2026-01-01T00:00:00.000Z"


class ObjectStore(ThreadingHTTPServer):
    """Serves `objects`, "bucket/key" → bytes.

    Attributes:
        fetched: How often each object was sent, whole or in part.
        sent: Bytes of each object that were sent.
        cut: Objects of which half of what was asked for is missing, this many more times.
        failing: Objects that are answered by "503 Slow Down", this many more times; the key "" is every object.
        closed: Whether nobody has the right to read anything.
        delay_seconds: What passes before each answer.
        bytes_per_second: Of all answers together; 0 for no limit.
    """

    daemon_threads = True
    # Clients open dozens of connections at once, and one that is not taken is tried again a second later.
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.fetched: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.failing: Counter[str] = Counter()
        self.closed = False
        self.delay_seconds = 0.0
        self.bytes_per_second = 0.0
        self._line = threading.Lock()
        self._free_at = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def upload(self, folder: Path, place: str) -> None:
        """Put every file of a folder below "bucket/prefix"."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.objects[f"{place}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()

    def occupy_line(self, size: int) -> None:
        """Wait as long as so many bytes take, behind those that wait already."""
        if self.bytes_per_second:
            with self._line:
                self._free_at = max(self._free_at, time.monotonic()) + size / self.bytes_per_second
                wait = self._free_at - time.monotonic()
            time.sleep(max(wait, 0.0))

    def fails(self, place: str) -> bool:
        """Whether this answer is to be a failure."""
        for key in (place, ""):
            if self.failing[key] > 0:
                self.failing[key] -= 1
                return True
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: connections that break are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: ObjectStore
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        time.sleep(self.server.delay_seconds)
        parts = urlsplit(self.path)
        place, query = unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)
        if self.server.closed:
            self._refuse(403, "AccessDenied", body)
        elif self.server.fails(place):
            self._refuse(503, "SlowDown", body)
        elif "list-type" in query:
            self._send(200, _listing(self.server.objects, place, query), body, {"Content-Type": "application/xml"})
        elif place not in self.server.objects:
            self._refuse(404, "NoSuchKey", body)
        else:
            self._give(place, body)

    def _refuse(self, status: int, code: str, body: bool) -> None:
        text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._send(status, text, body, {"Content-Type": "application/xml"})

    def _give(self, place: str, body: bool) -> None:
        data, status = self.server.objects[place], 200
        headers = {"ETag": _etag(data), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = asked.groups()
            start = int(first) if first else len(data) - int(last)
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data, status = data[start:stop], 206
        broken = body and self.server.cut[place] > 0
        if broken:
            self.server.cut[place] -= 1
        if broken and not asked:
            data = data[: len(data) // 2]
        if body:
            self.server.fetched[place] += 1
        self._send(status, data, body, headers, broken=bool(broken and asked), place=place)

    def _send(
        self, status: int, data: bytes, body: bool, headers: dict[str, str], *, broken: bool = False, place: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = self.close_connection or broken
        rest = memoryview(data[: len(data) // 2] if broken else data) if body else memoryview(b"")
        for start in range(0, len(rest), _BLOCK):
            block = rest[start : start + _BLOCK]
            self.server.occupy_line(len(block))
            # Before they leave, so that who has them finds them counted; clients break off what they do not want.
            self.server.sent[place] += len(block)
            self.wfile.write(block)


@lru_cache(maxsize=256)
def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _listing(objects: dict[str, bytes], bucket: str, query: dict[str, list[str]]) -> bytes:
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    rows, folders = [], set()
    for place in sorted(objects):
        key = place.removeprefix(f"{bucket}/")
        if key == place or not key.startswith(prefix):
            continue
        inner = key[len(prefix) :]
        if delimiter and delimiter in inner:
            folders.add(prefix + inner.split(delimiter)[0] + delimiter)
            continue
        data = objects[place]
        rows.append(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_DATE}</LastModified><ETag>{escape(_etag(data))}</ETag>"
            f"<Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    rows += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in sorted(folders)]
    head = f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(rows)}</KeyCount>"
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    text = f'<ListBucketResult xmlns="{space}">{head}<IsTruncated>false</IsTruncated>{"".join(rows)}</ListBucketResult>'
    return text.encode()


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    server = ObjectStore()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def settings(server: ObjectStore, cache: Path) -> dict[str, str]:
    """What the environment has to hold for a process that reads from the store, and keeps what it read in `cache`."""
    return {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "UMIF_CACHE": str(cache),
    }
