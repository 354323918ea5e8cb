"""Worker processes that build shards: spawned, few shards at a time, gone when the main process is.

A shard is a pure function of its records, so who builds it, and in which order, does not matter.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import cv2

from umif.corpus.shards import Encoding, Shard, build_shard
from umif.errors import UmifError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from concurrent.futures import Future
    from pathlib import Path


def build_shards(
    shards: list[Shard], folder: Path, encoding: Encoding, workers: int
) -> Generator[tuple[Shard, dict[str, Any]], None, None]:
    """Build shards and yield each with its sidecar as it is finished, in any order.

    With one worker, or one shard, the work is done in this process.

    Raises:
        UmifError: a worker process died.
        OSError: a shard could not be written.
    """
    workers = min(workers, len(shards))
    if workers <= 1:
        for shard in shards:
            yield shard, build_shard(shard, folder, encoding)
        return
    # Spawned, not forked: Lance and Arrow run threads that a fork would leave half-alive.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    waiting = iter(shards)
    running: dict[Future[dict[str, Any]], Shard] = {}

    def submit(some: Iterable[Shard]) -> None:
        for shard in some:
            running[pool.submit(build_shard, shard, folder, encoding)] = shard

    try:
        submit(itertools.islice(waiting, 2 * workers))
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                sidecar = future.result()
                yield running.pop(future), sidecar
                submit(itertools.islice(waiting, 1))
    except (BrokenProcessPool, BrokenPipeError):  # the pipe breaks when a worker dies while it is started
        names = ", ".join(sorted({shard.items[0].image for shard in running.values()}))
        raise UmifError(
            "a worker process died" + (f" while it built the shards that begin with {names}" if names else ""),
            where=folder,
            fix="run it again (finished shards are kept), with fewer workers if memory ran out; a script that calls "
            "prepare must do so under `if __name__ == '__main__':`",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave interrupts to the main process, one thread to each worker, and nobody behind when the main one dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
