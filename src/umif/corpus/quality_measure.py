"""Measuring every picture of a corpus: block by block, by worker processes, once.

Each block's measures are a file of their own, written whole or not at all, so an interrupted pass goes on where it was
and a second `inspect` reads no picture. Files of another corpus or of older measures are not taken.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from umif.corpus.manifest import write_atomically
from umif.corpus.processes import work_in_processes
from umif.corpus.progress import Bar
from umif.corpus.quality_pixels import MEASURES, VERSION, measure_jpegs
from umif.errors import UmifError

if TYPE_CHECKING:
    from collections.abc import Iterator
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

    def died(_: object) -> UmifError:
        fix = "run it again (finished blocks are kept), with fewer workers if memory ran out"
        return UmifError("a worker process died while it measured pictures", where=corpus.path, fix=fix)

    yield from work_in_processes(partial(_measure_block, corpus), blocks, min(workers, len(blocks)), died)


def _measure_block(corpus: Corpus, block: tuple[int, int]) -> NDArray[np.void]:
    start, stop = block
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
