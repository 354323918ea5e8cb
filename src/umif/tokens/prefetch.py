"""A thread that makes the next steps while the training process is busy with one."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def made_ahead(make: Callable[[int], T], first: int, last: int, *, ahead: int = 2) -> Iterator[T]:
    """Yield `make(step)` for first ≤ step < last, each made by one thread up to `ahead` steps before it is asked for.

    Decoding, warping and word pieces, and torch's own work, hold Python's lock for moments only, so one goes on beside
    the other. What `make` raises is raised at its own step. Leaving early waits for the step that is being made.
    """
    finished: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
    room = threading.Semaphore(ahead)
    stopped = threading.Event()

    def run() -> None:
        for step in range(first, last):
            room.acquire()
            if stopped.is_set():
                return
            try:
                finished.put((make(step), None))
            except BaseException as error:
                finished.put((None, error))
                return

    thread = threading.Thread(target=run, name="umif-ahead", daemon=True)
    thread.start()
    try:
        for _ in range(first, last):
            value, error = finished.get()
            if error is not None:
                raise error
            room.release()
            yield value  # type: ignore[misc]  # no error, so there is a value, which may be None itself
    finally:
        stopped.set()
        room.release()
        thread.join()
