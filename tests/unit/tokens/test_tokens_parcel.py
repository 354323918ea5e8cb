"""Values on trays: as they were, kept as long as somebody refers to them, and nothing left behind when a side dies."""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trays import held, on_a_tray
from umif.errors import LoaderError
from umif.tokens.parcel import Receiver, Sender

if TYPE_CHECKING:
    from collections.abc import Iterator

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create and /proc")
SMALL, LARGE = 100, 300_000


@contextmanager
def both_ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        yield ours, theirs


class Pair:
    """Sender and receiver in one process, without threads: what one sends must fit into the socket."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours, self.theirs = ours, theirs
        self.sender, self.receiver = Sender(), Receiver()

    def carry(self, value: Any) -> Any:
        self.sender.take_back(self.receiver.take_returned())
        self.sender.pack(value).send(self.theirs)
        return self.receiver.receive(self.ours)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with both_ends() as (ours, theirs):
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        yield Pair(ours, theirs)


def filled(value: int, length: int = LARGE) -> torch.Tensor:
    return torch.full((length,), value, dtype=torch.uint8)


@linux
def test_large_arrays_lie_on_a_tray_and_small_ones_do_not(pair: Pair) -> None:
    found = pair.carry({"large": filled(3), "small": filled(4, SMALL), "array": np.arange(LARGE), "none": filled(0, 0)})
    assert on_a_tray(found["large"])
    assert on_a_tray(torch.from_numpy(found["array"]))
    assert not on_a_tray(found["small"])
    assert torch.equal(found["large"], filled(3))
    assert torch.equal(found["small"], filled(4, SMALL))
    assert np.array_equal(found["array"], np.arange(LARGE))
    assert found["none"].shape == (0,)
    found["large"].zero_()
    found["array"][:] = 1
    assert np.array_equal(pair.carry(np.arange(LARGE)), np.arange(LARGE))


@linux
def test_a_tray_is_used_again_once_nothing_refers_to_it(pair: Pair) -> None:
    places = set()
    for step in range(300):
        found = pair.carry(filled(step % 251))
        assert found[0] == found[-1] == step % 251
        places.add(found.data_ptr())
    assert len(places) == 2  # the one that is held, and the next


@linux
@pytest.mark.parametrize("part", [lambda tensor: tensor, lambda tensor: tensor[7:9], lambda tensor: tensor.numpy()[5:]])
def test_what_is_kept_stays_as_it_was_however_many_follow(pair: Pair, part: Any) -> None:
    kept = [part(pair.carry(filled(step))) for step in range(40)]
    assert all((each == step).all() for step, each in enumerate(kept))
    for step in range(40):
        assert (pair.carry(filled(step)) == step).all()
    assert all((each == step).all() for step, each in enumerate(kept))


@linux
def test_when_all_trays_are_taken_values_go_over_the_socket(pair: Pair) -> None:
    kept = [pair.carry(filled(step)) for step in range(12)]
    assert [on_a_tray(each) for each in kept] == [True] * 8 + [False] * 4
    kept.clear()
    assert on_a_tray(pair.carry(filled(1)))


@linux
def test_trays_grow_with_what_is_put_on_them_and_hold_nothing_more(pair: Pair) -> None:
    pair.carry(filled(0))
    before = held()
    for step in range(200):
        length = LARGE + 5_000 * step
        found = pair.carry(filled(step, length))
        assert len(found) == length
        assert (found == step).all()
    del found
    gc.collect()
    after = held()
    # Two trays, each mapped by both sides, which are one process here; a mapping may hold its descriptor open.
    assert after[1] <= 4
    assert after[0] - before[0] <= 2


@linux
def test_nothing_is_left_behind_when_both_sides_go() -> None:
    before = held()
    with both_ends() as (ours, theirs):
        pair = Pair(ours, theirs)
        kept = [pair.carry(filled(step)) for step in range(5)]
        assert held()[1] > before[1]
        del pair
    assert all((each == step).all() for step, each in enumerate(kept))
    del kept
    gc.collect()
    assert held() == before


@linux
@pytest.mark.parametrize("sent", [0, 1, 9, 40])
def test_a_sender_that_dies_within_a_parcel_leaves_nothing_behind(sent: int) -> None:
    """After `sent` bytes of one, whose descriptor comes with the first byte."""
    before = held()
    with both_ends() as (ours, theirs):
        parcel = Sender().pack(filled(1))
        assert parcel.descriptor is not None
        if sent:
            socket.send_fds(theirs, [b"+"], [parcel.descriptor])
            theirs.sendall(b"".join(parcel.parts)[: sent - 1])
        os.close(parcel.descriptor)
        theirs.close()
        receiver = Receiver()
        with pytest.raises(EOFError):
            receiver.receive(ours)
        del parcel, receiver
    gc.collect()
    assert held() == before


def refuse(*_: object) -> int:
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize("how", ["missing", "refused", "full"])
def test_without_shared_memory_values_go_over_the_socket(pair: Pair, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    before = held() if sys.platform == "linux" else None
    if how == "missing":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    else:
        monkeypatch.setattr(os, "memfd_create" if how == "refused" else "posix_fallocate", refuse, raising=False)
    for step in range(20):
        found = pair.carry({"large": filled(step), "rest": ["ü", None]})
        assert torch.equal(found["large"], filled(step))
        assert found["rest"] == ["ü", None]
        found["large"].zero_()
    assert before is None or held() == before


@linux
def test_having_no_descriptor_left_is_a_typed_error(pair: Pair) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    parcel = pair.sender.pack(filled(1))
    parcel.send(pair.theirs)
    lowest = os.dup(0)  # the lowest free number, which the tray would get
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(LoaderError, match=r"no file descriptor is left(?s:.)*ulimit -n"):
            pair.receiver.receive(pair.ours)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_receiver_waits_no_longer_than_its_socket_does() -> None:
    with both_ends() as (ours, _):
        ours.settimeout(0.01)
        with pytest.raises(TimeoutError):
            Receiver().receive(ours)
