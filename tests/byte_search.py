"""Search everything that a command wrote for texts, however it is packed: the tests' own eye for what leaked.

A file is looked at as bytes, and as whatever it may be besides: compressed, an archive, JSON with escapes, HTML with
entities and embedded pictures, Parquet or Arrow. Lance tables are also read back, column by column, since their pages
may be compressed.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import re
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_EMBEDDED = re.compile(rb"base64,([A-Za-z0-9+/=\s]{16,})")
_DEPTH = 3


def found_in(folders: Iterable[Path], texts: Iterable[str]) -> dict[str, set[str]]:
    """Return text → where it was found, of `texts` in all files below `folders`; letter case apart."""
    codes = ("utf-8", "utf-16-le", "utf-16-be", "latin-1")
    # In lower case as bytes, so that both sides change alike in every encoding.
    wanted = {text: {text.encode(code, "replace").lower() for code in codes} for text in texts}
    found: dict[str, set[str]] = {}
    for folder in folders:
        for name, data in _everything(folder):
            lowered = data.lower()
            for text, encoded in wanted.items():
                if any(each in lowered for each in encoded):
                    found.setdefault(text, set()).add(name)
    return found


def _everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        yield name, name.encode("utf-8", "surrogateescape")
        if path.suffix == ".lance" and path.is_dir():
            for row in lance.dataset(str(path)).to_table().to_pylist():
                yield f"{name} (rows)", b"\n".join(_leaves(row))
        elif path.is_file():
            for data in _unpacked(path.read_bytes(), _DEPTH):
                yield name, data


def _unpacked(data: bytes, depth: int) -> Iterator[bytes]:
    """Yield `data`, and what it holds if it is something that holds something."""
    yield data
    if depth:
        for inner in _inside(data):
            yield from _unpacked(inner, depth - 1)


def _inside(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)
    elif data.startswith((b"\x78\x01", b"\x78\x9c", b"\x78\xda")):
        try:
            yield zlib.decompress(data)
        except zlib.error:
            return
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    elif data.startswith(b"PAR1"):
        yield b"\n".join(_leaves(pq.read_table(io.BytesIO(data)).to_pylist()))
    elif data.startswith(b"ARROW1"):
        yield b"\n".join(_leaves(pa.ipc.open_file(io.BytesIO(data)).read_all().to_pylist()))
    elif data.lstrip()[:1] in (b"{", b"["):
        for line in (data, *data.splitlines()):
            try:
                yield b"\n".join(_leaves(json.loads(line)))
            except ValueError:
                continue
    elif b"<html" in data[:2000].lower():
        yield html.unescape(data.decode("utf-8", "replace")).encode()
        for match in _EMBEDDED.finditer(data):
            yield base64.b64decode(match[1])


def _leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key).encode("utf-8", "surrogatepass")
            yield from _leaves(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
