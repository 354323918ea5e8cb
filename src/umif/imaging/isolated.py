"""GDCM in a process of its own.

GDCM is the one decoder here for lossless JPEG, JPEG-LS and 12-bit JPEG, but a damaged frame can make it end the process
that it runs in. So it runs in a second one, which is started when the first such frame comes, serves one frame at a
time, is bounded in time and memory, and is simply replaced when it dies.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.imaging import gdcm_process
from umif.imaging.gdcm_process import read_message, write_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from umif.imaging.picture import Attempt

_COPY = "copy or download the file again"
# Starting means importing, which a busy machine makes long.
_START_SECONDS = 60.0


class _Decoder:
    """The second process, as long as it lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._left_alone: list[subprocess.Popen[bytes] | None] = []

    def decode(self, data_set: bytes, syntax: str, attempt: Attempt) -> npt.NDArray[Any]:
        """Send a frame over, get its samples back.

        Raises:
            ImageError: `malformed`, also if the decoder crashed; `too_slow`; `unsupported` without GDCM.
        """
        left = attempt.limits.max_seconds - (time.monotonic() - attempt.started)
        with self._lock:
            # Starting a process, or waiting for another thread's frame, is not the file's fault.
            process = self._running(attempt)
            assert process.stdin is not None
            assert process.stdout is not None
            with _ended_after(max(0.0, left), process) as timer:
                try:
                    write_message(process.stdin, {"syntax": syntax}, data_set)
                    answer = read_message(process.stdout)
                except BrokenPipeError:
                    answer = None
                in_time = timer.is_alive()
            if answer is None or not in_time:
                self._stop()
        if not in_time:
            raise attempt.error("too_slow", f"takes longer to decode than {attempt.limits.max_seconds:g} s")
        if answer is None:
            raise attempt.error("malformed", "the compressed frame crashed its decoder", _COPY)
        head, body = answer
        if "reason" in head:
            raise attempt.error(head["reason"], head["what"], head["fix"])
        return np.frombuffer(body, dtype=np.dtype(head["dtype"])).reshape(head["shape"])

    def _running(self, attempt: Attempt) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self._process = subprocess.Popen(
            # -P: the modules beside the file are not for import under their bare names.
            [sys.executable, "-P", gdcm_process.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        # Its first message says that it is ready, so that its start does not count as the file's time.
        assert self._process.stdout is not None
        with _ended_after(_START_SECONDS, self._process) as timer:
            read_message(self._process.stdout)
            in_time = timer.is_alive()
        if not in_time:
            self._stop()
            raise attempt.error("too_slow", f"the decoder did not start within {_START_SECONDS:g} s", "try again")
        return self._process

    def _stop(self, patience_seconds: float = 0.0) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # What it had not read yet is lost with it.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None

    def close(self) -> None:
        """End the second process; the closing of its input tells it to."""
        with self._lock:
            self._stop(patience_seconds=5.0)

    def forget(self) -> None:
        """After a fork: the process is the parent's to talk to; the lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        self._left_alone.append(self._process)
        self._process = None


@contextlib.contextmanager
def _ended_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[threading.Timer]:
    """Kill a process that is not done with the body in time; its pipes then close, which ends any wait for them."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


_DECODER = _Decoder()
atexit.register(_DECODER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_DECODER.forget)


def decode_isolated(data_set: bytes, syntax: str, attempt: Attempt) -> npt.NDArray[Any]:
    """Decode the frame of a DICOM data set by GDCM, in another process.

    Args:
        data_set: The elements that make up the picture, without preamble and meta group.
        syntax: UID of its transfer syntax.
        attempt: Whose time is spent.

    Shapes: Returns: (H, W) or (H, W, 3), of the type that the data set says.

    Raises:
        ImageError: `malformed`, `too_slow`, `unsupported`.
    """
    return _DECODER.decode(data_set, syntax, attempt)
