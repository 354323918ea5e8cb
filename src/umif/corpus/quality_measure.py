"""Measuring every picture of a corpus: block by block, by worker processes, once.

Each block's measures are a file of their own, written whole or not at all, so an interrupted pass goes on where it was
and a second `inspect` reads no picture. Files of another corpus or of older measures are not taken.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.corpus.manifest import write_atomically
from umif.corpus.progress import Bar
from umif.corpus.quality_pixels import MEASURES, VERSION, measure_jpegs
from umif.errors import UmifError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.corpus.store import Corpus

# Half a thousand pictures are about 10 MB of JPEG: what a worker holds at a time.
_BLOCK = 512
_READ = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """The measures of all images in row order, and what they cost: pictures read now, and seconds for it."""

    rows: NDArray[np.void]
    read: int
    seconds: float


def measure_corpus(corpus: Corpus, folder: Path, *, workers: int, progress: bool) -> Measured:
    """Return the measures of every image, from `folder` where they are there already.

    Args:
        corpus: What to measure.
        folder: Where the measures are kept; made if missing.
        workers: Processes; 1 measures in this one.
        progress: Show a bar on standard error.

    Raises:
        UmifError: a worker process died; finished blocks are kept.
        OSError: a file cannot be written.
    """
    started = time.perf_counter()
    kept = folder / f"measures-{VERSION}-{corpus.fingerprint[:16]}"
    for old in folder.glob("measures-*"):
        if old != kept:
            shutil.rmtree(old)
    kept.mkdir(parents=True, exist_ok=True)
    total = corpus.manifest.images
    blocks = [(start, min(start + _BLOCK, total)) for start in range(0, total, _BLOCK)]
    rows = np.zeros(total, dtype=MEASURES)
    missing = []
    with Bar(progress) as bar:
        bar.start("measuring pictures", total)
        for start, stop in blocks:
            block = _load(kept / f"{start}.npy", stop - start)
            if block is None:
                missing.append((start, stop))
            else:
                rows[start:stop] = block
                bar.advance(stop - start)
        for (start, stop), block in _measured(corpus, missing, workers):
            _save(kept / f"{start}.npy", block)
            rows[start:stop] = block
            bar.advance(stop - start)
    return Measured(rows, sum(stop - start for start, stop in missing), time.perf_counter() - started)


def _measured(
    corpus: Corpus, blocks: list[tuple[int, int]], workers: int
) -> Iterator[tuple[tuple[int, int], NDArray[np.void]]]:
    """Yield blocks with their measures as they are finished, in any order."""
    if workers <= 1 or len(blocks) <= 1:
        for block in blocks:
            yield block, _measure_block(corpus, *block)
        return
    # Spawned, not forked: Lance runs threads that a fork would leave half-alive.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(blocks)), mp_context=context, initializer=_start_worker)
    waiting = iter(blocks)
    running: dict[Future[NDArray[np.void]], tuple[int, int]] = {}

    def submit(count: int) -> None:
        for block in itertools.islice(waiting, count):
            running[pool.submit(_measure_block, corpus, *block)] = block

    try:
        submit(2 * workers)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
                submit(1)
    except (BrokenProcessPool, BrokenPipeError):
        fix = "run it again (finished blocks are kept), with fewer workers if memory ran out"
        raise UmifError("a worker process died while it measured pictures", where=corpus.path, fix=fix) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _measure_block(corpus: Corpus, start: int, stop: int) -> NDArray[np.void]:
    parts = [
        measure_jpegs(corpus.take_jpegs(np.arange(first, min(first + _READ, stop))))
        for first in range(start, stop, _READ)
    ]
    return np.concatenate(parts)


def _load(file: Path, count: int) -> NDArray[np.void] | None:
    try:
        block = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return block if block.dtype == MEASURES and block.shape == (count,) else None


def _save(file: Path, block: NDArray[np.void]) -> None:
    data = BytesIO()
    np.save(data, block, allow_pickle=False)
    write_atomically(file, data.getvalue())


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
