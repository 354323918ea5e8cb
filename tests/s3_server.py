"""An object store on the loopback that speaks as much of S3 as reading takes, and counts what is asked of it."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DATE = "2026-01-01T00:00:00.000Z"


class ObjectStore(ThreadingHTTPServer):
    """Serves `objects`, "bucket/key" → bytes.

    Attributes:
        fetched: How often each object was sent.
        cut: Objects of which half is missing, this many more times.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.fetched: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def upload(self, folder: Path, place: str) -> None:
        """Put every file of a folder below "bucket/prefix"."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.objects[f"{place}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()

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
        parts = urlsplit(self.path)
        place, query = unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)
        if "list-type" in query:
            self._send(200, _listing(self.server.objects, place, query), body, {"Content-Type": "application/xml"})
        elif place not in self.server.objects:
            text = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
            self._send(404, text, body, {"Content-Type": "application/xml"})
        else:
            data = self.server.objects[place]
            headers = {"ETag": _etag(data), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
            if body:
                self.server.fetched[place] += 1
                if self.server.cut[place] > 0:
                    self.server.cut[place] -= 1
                    data = data[: len(data) // 2]
            self._send(200, data, body, headers)

    def _send(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


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
