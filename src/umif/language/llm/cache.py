"""Answers on disk, appended one by one: what was paid for is never asked for again.

One line of JSON for each answer, synced before the job goes on, so a kill loses at most what was in flight. A line
that a crash tore is cut off when the file is opened again. The file is locked while a job writes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import zlib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from umif.errors import InputError, StorageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to one request.

    Attributes:
        text: The content, unparsed.
        finish: Why the model stopped (`stop`, `length`, …).
        model: The model that the endpoint says has answered.
        tokens_in: Tokens of the request; estimated where the endpoint does not count.
        seconds: Time that the request took.
    """

    text: str
    finish: str
    model: str
    tokens_in: int
    tokens_out: int
    seconds: float


class AnswerCache:
    """Key of a request → its answer; open it as a context.

    Example:
        >>> with AnswerCache(path) as cache:  # doctest: +SKIP
        ...     cache.put("3f2a…", answer)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size = 0

    def __enter__(self) -> Self:
        """Open, lock and read the file.

        Raises:
            InputError: another process writes it, or a line in its middle is damaged.
            StorageError: it cannot be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Reports of patients: for the user's eyes only.
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise StorageError(f"cannot be opened: {error.strerror}", where=self.path) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            fix = "wait for it, or give another --cache"
            raise InputError("another process works with this cache", where=self.path, fix=fix) from None
        try:
            self._load()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = -1

    def _load(self) -> None:
        data = self.path.read_bytes()
        self._size = data.rfind(b"\n") + 1
        if self._size < len(data):
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        for number, line in enumerate(data[: self._size].splitlines(), start=1):
            key, answer = _parse(line, f"{self.path}:{number}")
            self._answers[key] = answer

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """Return the answer to a request, or `None`."""
        return self._answers.get(key)

    def answers(self) -> list[Answer]:
        """Return all answers."""
        with self._lock:
            return list(self._answers.values())

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is on the disk when this returns.

        Raises:
            StorageError: the disk refused; the file is left as it was.
        """
        row: dict[str, Any] = {"v": FORMAT, "key": key, **asdict(answer)}
        body = json.dumps(row, ensure_ascii=True)
        line = f'{body[:-1]}, "crc": {zlib.crc32(body.encode())}}}\n'.encode()
        with self._lock:
            if self._descriptor < 0:
                return  # the job has ended; an answer that comes later is one that was in flight
            try:
                view = memoryview(line)
                while view:
                    view = view[os.write(self._descriptor, view) :]
                os.fsync(self._descriptor)
            except OSError as error:
                os.ftruncate(self._descriptor, self._size)
                what = f"cannot be written: {error.strerror or error}"
                fix = "make room and run it again: what was answered is kept"
                raise StorageError(what, where=self.path, fix=fix) from None
            self._size += len(line)
            self._answers[key] = answer


def _parse(line: bytes, where: str) -> tuple[str, Answer]:
    fix = "delete that line: its request is then sent again"
    try:
        row = json.loads(line)
        crc = row.pop("crc")
        intact = zlib.crc32(json.dumps(row, ensure_ascii=True).encode()) == crc
        known = row["v"] == FORMAT
        answer = Answer(**{field.name: row[field.name] for field in fields(Answer)})
        key = str(row["key"])
    except (ValueError, KeyError, TypeError, AttributeError):
        intact, known = False, True
    if not known:
        raise InputError(f"the cache has format {row['v']!r}, this UmiF reads {FORMAT}", where=where)
    if not intact:
        raise InputError("this line of the cache is damaged", where=where, fix=fix)
    return key, answer
