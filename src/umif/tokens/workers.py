"""Worker processes that make the steps of a run, in order, whatever happens to them.

Mental model: worker w of n makes steps first + w, first + w + n, …; each has a socket of its own, over which steps go
one way and results the other, their large arrays in memory that both sides see (`parcel`). What a step gives is a pure
function of the step, so a worker that died or hung is replaced and its successor is asked for whatever it still owed:
nothing is lost and nothing comes twice.

Why not torch's DataLoader: it notices a dead worker in a signal handler, which raises wherever the training step
happens to be; its workers share one queue, whose lock a killed worker may take along; and it passes tensors through
/dev/shm, which containers keep small.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import socket
import struct
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import torch

from umif.errors import LoaderError, UmifError
from umif.tokens.parcel import Receiver, Sender, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.context import ForkServerProcess

    from umif.tokens.parcel import Parcel

T = TypeVar("T")

RESTARTS = 3
_ORDER = struct.Struct("<qq")  # the step, and which of its trays are free again
_READY = b"!"
# Starting means importing; on a busy machine that takes long, and it is no sign of hanging.
_START_SECONDS = 300.0
# A worker that is let go finishes the step it is at; one that takes longer is ended.
_GRACE_SECONDS = 5.0


def make_steps(
    make: Callable[[int], T],
    first: int,
    last: int,
    *,
    workers: int,
    prefetch: int = 2,
    timeout_seconds: float = 300.0,
) -> Iterator[T]:
    """Yield `make(step)` for first ≤ step < last, made by `workers` processes.

    Args:
        make: Pure, and picklable: it is sent to other processes.
        first: First step.
        last: Step after the last.
        workers: Number of processes, 1 or more.
        prefetch: Steps that each worker makes ahead.
        timeout_seconds: A worker that has started and sends nothing for so long, while it is waited for, hangs.

    Raises:
        UmifError: what `make` raised, at the step that it was raised for.
        LoaderError: `make` raised something else, or workers ended or hung at one step after `RESTARTS` restarts.
    """
    count = min(workers, last - first)
    crew: list[_Worker] = []
    try:
        for index in range(count):
            crew.append(_Worker(make, timeout_seconds))
            for step in range(first + index, min(last, first + index + prefetch * count), count):
                crew[-1].ask(step)
        for step in range(first, last):
            worker = crew[(step - first) % count]
            result = worker.take()
            if step + prefetch * count < last:
                worker.ask(step + prefetch * count)
            yield result
    finally:
        for worker in crew:
            worker.let_go()
        for worker in crew:
            worker.end()


class _Worker:
    """One process, replaced when it dies or hangs."""

    def __init__(self, make: Callable[[int], Any], timeout_seconds: float) -> None:
        self._make = make
        self._timeout = timeout_seconds
        self._owed: deque[int] = deque()
        # After a restart the oldest step is asked for alone: made ahead of time, a step that kills its worker would
        # take finished ones along with it, over and over, and they would be blamed.
        self._alone = False
        self._start()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(max(self._timeout, _START_SECONDS))
        self._ready = False
        self._receiver = Receiver()  # what the last worker left stays readable as long as anything refers to it
        # Never forked from here: Lance, Arrow and torch run threads that a fork would leave half-alive. The fork server
        # has none, and has torch imported already, so a worker starts in a moment.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["umif.tokens.workers"])
        # It has the environment of when it was started; a worker needs that of now, with the address of the store.
        args = (theirs, self._make, dict(os.environ))
        process = context.Process(target=_serve, args=args, name="umif-loader", daemon=True)
        process.start()
        self._process: ForkServerProcess | None = process
        theirs.close()
        if self._owed:
            self._alone = True
            self._send(self._owed[0])

    def ask(self, step: int) -> None:
        """Ask for a step; results come in the order of asking."""
        self._owed.append(step)
        if not self._alone:
            self._send(step)

    def _send(self, step: int) -> None:
        with contextlib.suppress(OSError):  # if it is dead, `take` notices and starts another
            self._socket.sendall(_ORDER.pack(step, self._receiver.take_returned()))

    def take(self) -> Any:
        """Wait for the oldest step asked for."""
        for restarts in range(RESTARTS + 1):
            if restarts:
                self._start()
            try:
                if not self._ready:
                    read(self._socket, len(_READY))
                    self._ready = True
                    self._socket.settimeout(self._timeout)
                made, value = self._receiver.receive(self._socket)
            except (OSError, EOFError) as error:
                how = self._how_it_ended(error)
                self.end(kill=True)
                continue
            self._owed.popleft()
            if self._alone:
                self._alone = False
                for step in self._owed:
                    self._send(step)
            if not made:
                raise value
            return value
        raise LoaderError(
            f"worker processes failed {RESTARTS + 1} times in a row at step {self._owed[0]}; the last one {how}",
            where="loader",
            fix="see whether memory ran out (dmesg) and use fewer workers, or workers=0 to find the cause; a script "
            "that starts workers must do so under `if __name__ == '__main__':`",
        )

    def _how_it_ended(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"sent nothing for {self._socket.gettimeout():g} s"
        assert self._process is not None
        self._process.join(_GRACE_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def let_go(self) -> None:
        """Close the line: the worker leaves once it is through with the step at hand."""
        self._socket.close()

    def end(self, *, kill: bool = False) -> None:
        """See the process off."""
        self._socket.close()
        if self._process is None:
            return
        if kill:
            self._process.kill()
        self._process.join(_GRACE_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()
        self._process = None


# ------------------------------------------------------------------------------------- in the worker's process
def _serve(line: socket.socket, make: Callable[[int], Any], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which lets workers go
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with contextlib.suppress(OSError):
        line.sendall(_READY)
    sender = Sender()
    finished: queue.SimpleQueue[Parcel] = queue.SimpleQueue()
    # Results leave in a thread of their own, so that the next step is made while the main process is busy.
    threading.Thread(target=_send_finished, args=(line, finished), daemon=True).start()
    while True:
        try:
            step, trays = _ORDER.unpack(read(line, _ORDER.size))
        except (OSError, EOFError):
            return  # the main process let go, or is gone
        sender.take_back(trays)
        finished.put(_make(make, step, sender))


def _make(make: Callable[[int], Any], step: int, sender: Sender) -> Parcel:
    """Make a step and pack it, or what it raised."""
    try:
        return sender.pack((True, make(step)))
    except UmifError as error:
        return sender.pack((False, error))
    except Exception as error:
        text = "".join(traceback.format_exception(error)).rstrip()
        return sender.pack((False, LoaderError(f"making step {step} failed\n{text}", where="loader")))


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _send_finished(line: socket.socket, finished: queue.SimpleQueue[Parcel]) -> None:
    while True:
        parcel = finished.get()
        try:
            parcel.send(line)
        except OSError:
            return
