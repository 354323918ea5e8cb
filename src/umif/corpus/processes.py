"""Work shared out to a few processes: shards to build, pictures to measure, phantoms to draw.

Whatever becomes of the main process or of a worker, nobody waits for ever and nobody stays behind.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, TypeVar

import cv2

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future
    from multiprocessing.connection import Connection

    from umif.errors import UmifError


Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def work_in_processes(
    work: Callable[[Task], Outcome],
    tasks: Iterable[Task],
    workers: int,
    died: Callable[[Iterable[Task]], UmifError],
) -> Generator[tuple[Task, Outcome], None, None]:
    """Yield tasks with what `work` returned for them as they are finished, in any order.

    Spawned processes hold few tasks at a time, and are gone when the generator is closed or the main process is.

    Args:
        work: Runs in the workers; must be picklable, as tasks and outcomes are.
        tasks: What to work on.
        workers: Processes; with 1 the work is done in this one.
        died: Returns the error for a worker that died while it, or one like it, worked on some tasks.

    Raises:
        UmifError: what `died` returned.
    """
    if workers <= 1:
        for task in tasks:
            yield task, work(task)
        return
    # Spawned, not forked: Lance and Arrow run threads that a fork would leave half-alive.
    context = multiprocessing.get_context("spawn")
    over, alive = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(over,))
    waiting = iter(tasks)
    running: dict[Future[Outcome], Task] = {}

    def submit(count: int) -> None:
        for task in itertools.islice(waiting, count):
            try:
                running[pool.submit(work, task)] = task
            except OSError as error:
                # A worker that dies while another is started breaks its pipe, or has the pool close the queues that
                # the new one is given, which has no number. What else goes wrong here is the machine's refusal.
                if error.errno in (None, errno.EPIPE):
                    raise BrokenProcessPool(str(error)) from error
                raise

    try:
        submit(2 * workers)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                yield running.pop(future), outcome
                submit(1)
    except BrokenProcessPool:
        # A broken pool ends the workers that it knows and waits for all: also for one that was started meanwhile.
        alive.close()
        raise died(running.values()) from None
    finally:
        pool.shutdown(cancel_futures=True)
        alive.close()
        over.close()


def _start_worker(over: Connection) -> None:
    """Leave interrupts to the main process, one thread to each worker, and nobody behind when the main one dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_leave_at_end, args=(over,), daemon=True).start()


def _leave_at_end(over: Connection) -> None:
    """Leave when nobody can write to `over` any longer: the main process has closed its end, or is gone."""
    with contextlib.suppress(EOFError, OSError):
        over.recv_bytes()
    os._exit(1)
