"""Values on their way from a worker process to the main one, large arrays in memory that both see.

Mental model: the sender has a few *trays*, pieces of memory that each side maps once. It puts the large arrays of a
value onto a free tray, and over the socket goes what is small: the pickle, small arrays, and where the rest lies. The
receiver makes arrays over the tray itself, without a copy; when the last of them is gone, it says so with its next
message, and the tray is used again. Which tray is free only the sender decides, and no lock is shared, so a side that
is killed leaves nothing locked; what it had mapped, the kernel takes back.

Why trays that are used again: fresh shared memory for each batch costs more than a socket, since the kernel must find
and zero its pages. They are anonymous files (`memfd_create`) whose descriptors travel over the socket: no names that
outlive a crash, and no bound by the size of /dev/shm, which containers keep small. Where there are none (macOS), where
making one fails, or where the receiver keeps so many values that all trays are taken, arrays go over the socket.
"""

from __future__ import annotations

import array
import contextlib
import io
import mmap
import os
import pickle
import socket
import struct
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from umif.errors import LoaderError

# Smaller arrays go over the socket, where all of them fit into its buffer; so who keeps one keeps no tray.
_LARGE = 1 << 16
# Two values that wait, one that is being made, those that the receiver holds, and the ones whose return it has not yet
# told of.
_TRAYS = 8
_HEAD = struct.Struct("<qq")  # parts, tray
_PART = struct.Struct("<qq")  # length, where on the tray
_NO_TRAY = _IN_LINE = -1
_AS_BEFORE, _NEW_TRAY = b"=", b"+"


class _Pickler(pickle.Pickler):
    """Tensors as arrays, whose memory is sent as it is."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


@dataclass(frozen=True, slots=True)
class Parcel:
    """A packed value: what goes over the socket, and the tray's descriptor if it is a new one."""

    parts: tuple[bytes | memoryview, ...]
    descriptor: int | None

    def send(self, line: socket.socket) -> None:
        """Send the parcel.

        Raises:
            OSError: nobody reads.
        """
        try:
            if self.descriptor is None:
                line.sendall(_AS_BEFORE)
            else:
                # One byte is sent whole or not at all, and the descriptor with it.
                socket.send_fds(line, [_NEW_TRAY], [self.descriptor])
        finally:
            if self.descriptor is not None:
                os.close(self.descriptor)
        for part in self.parts:
            line.sendall(part)


class Sender:
    """Packs values, large arrays onto trays."""

    def __init__(self) -> None:
        self._trays: list[mmap.mmap] = []
        self._free = 0  # bit k: tray k

    def take_back(self, trays: int) -> None:
        """Use the trays again whose bits are set."""
        self._free |= trays

    def pack(self, value: Any) -> Parcel:
        """Pack a value; it may be changed or go afterwards if all of its arrays found room on a tray.

        Raises:
            Exception: it cannot be pickled.
        """
        buffers: list[pickle.PickleBuffer] = []
        text = io.BytesIO()
        _Pickler(text, protocol=5, buffer_callback=buffers.append).dump(value)
        parts = [text.getbuffer(), *(buffer.raw() for buffer in buffers)]
        places, size = [_IN_LINE], 0
        for part in parts[1:]:
            places.append(size if part.nbytes >= _LARGE else _IN_LINE)
            if part.nbytes >= _LARGE:
                size += -(-part.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        tray, descriptor = self._choose_tray(size) if size else (_NO_TRAY, None)
        if tray == _NO_TRAY:
            places = [_IN_LINE] * len(parts)
        head = _HEAD.pack(len(parts), tray)
        for part, place in zip(parts, places, strict=True):
            head += _PART.pack(part.nbytes, place)
            if place != _IN_LINE:
                self._trays[tray][place : place + part.nbytes] = part
        in_line: list[bytes | memoryview] = [head]
        in_line += [part for part, place in zip(parts, places, strict=True) if place == _IN_LINE]
        if tray != _NO_TRAY:
            in_line = [b"".join(in_line)]  # little: one message wakes the receiver once
        return Parcel(tuple(in_line), descriptor)

    def _choose_tray(self, size: int) -> tuple[int, int | None]:
        """Return a tray of `size` bytes or more, and its descriptor if the receiver does not know it yet."""
        free = [index for index in range(len(self._trays)) if self._free >> index & 1]
        large = [index for index in free if len(self._trays[index]) >= size]
        if large:
            self._free &= ~(1 << large[0])
            return large[0], None
        if not free and len(self._trays) == _TRAYS:
            return _NO_TRAY, None
        try:
            # The next value may be somewhat larger; or as large as one before.
            descriptor, memory = _make_memory(max(size + size // 4, *map(len, self._trays), 0))
        except (OSError, AttributeError):
            return _NO_TRAY, None
        if not free:
            self._trays.append(memory)
            return len(self._trays) - 1, descriptor
        self._trays[free[0]].close()
        self._trays[free[0]] = memory
        self._free &= ~(1 << free[0])
        return free[0], descriptor


def _make_memory(size: int) -> tuple[int, mmap.mmap]:
    descriptor = os.memfd_create("umif-tray")
    try:
        # Asks for all of it now: short of memory later would be a signal instead of an error.
        os.posix_fallocate(descriptor, 0, size)
        return descriptor, mmap.mmap(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise


class Receiver:
    """Receives values of one sender, and knows which of its trays are free again."""

    def __init__(self) -> None:
        self._trays: dict[int, mmap.mmap] = {}
        # What the arrays on a tray keep alive. Asking it is done by whoever sends the next message; a callback would
        # run in any thread, in the middle of anything.
        self._lent: dict[int, weakref.ref[Any]] = {}

    def receive(self, line: socket.socket) -> Any:
        """Wait for the next value.

        Raises:
            OSError: the line is broken, or nothing came in time.
            EOFError: the sender is gone.
            LoaderError: this process has no file descriptor left.
        """
        tag, descriptors, *_ = _receive_descriptor(line)
        with contextlib.ExitStack() as closing:
            for descriptor in descriptors:
                closing.callback(os.close, descriptor)
            count, tray = _HEAD.unpack(read(line, _HEAD.size))
            parts = list(_PART.iter_unpack(read(line, count * _PART.size)))
            if tag == _NEW_TRAY:
                if not descriptors:
                    raise LoaderError(
                        "no file descriptor is left for what a worker sends",
                        where="loader",
                        fix="raise `ulimit -n`, or use fewer workers",
                    )
                self._trays[tray] = mmap.mmap(descriptors[0], os.fstat(descriptors[0]).st_size)
        memory = memoryview(b"") if tray == _NO_TRAY else self._lend(tray)
        text, *buffers = [
            read(line, length) if place == _IN_LINE else memory[place : place + length] for length, place in parts
        ]
        return pickle.loads(text, buffers=buffers)

    def _lend(self, tray: int) -> memoryview:
        lent = np.frombuffer(self._trays[tray], dtype=np.uint8)
        self._lent[tray] = weakref.ref(lent)
        # A view of an array refers to what that array was made from; a memoryview refers to the array itself.
        return lent.data

    def take_returned(self) -> int:
        """Return, as bits, the trays of which no array is left, each once."""
        returned = [tray for tray, lent in self._lent.items() if lent() is None]
        for tray in returned:
            del self._lent[tray]
        return sum(1 << tray for tray in returned)


def _receive_descriptor(line: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one byte, and the descriptor that came with it, which programs started from here do not inherit."""
    room = socket.CMSG_LEN(array.array("i").itemsize)
    tag, messages, *_ = line.recvmsg(1, room, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    if not tag:
        raise EOFError("the line was closed")
    descriptors = array.array("i")
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return tag, descriptors.tolist()


def read(line: socket.socket, length: int) -> bytearray:
    """Read so many bytes.

    Raises:
        OSError: the line is broken, or nothing came in time.
        EOFError: the other side is gone.
    """
    data = bytearray(length)
    view = memoryview(data)
    while len(view):
        got = line.recv_into(view)
        if not got:
            raise EOFError("the line was closed")
        view = view[got:]
    return data
