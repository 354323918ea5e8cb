"""Kept pictures are the right ones or none, whoever writes, dies, or damages what lies there."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from umif.corpus import picture_cache
from umif.corpus.picture_cache import PictureCache, limit_bytes
from umif.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROWS = 400


@pytest.fixture(autouse=True)
def _any_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_cache, "SPARE_BYTES", 0)


def picture(row: int) -> bytes:
    rng = np.random.default_rng(row)
    return rng.bytes(int(rng.integers(1, 3000)))


def keep(cache: PictureCache, rows: Sequence[int]) -> int:
    return cache.keep(rows, [picture(row) for row in rows])


def is_right(cache: PictureCache, rows: Sequence[int]) -> list[bool]:
    """Whether each row is there; what is there is compared."""
    found = cache.take(rows)
    assert all(data in (None, picture(row)) for row, data in zip(rows, found, strict=True))
    return [data is not None for data in found]


def test_what_is_kept_is_found_again_by_everybody_at_once(tmp_path: Path) -> None:
    one, two = PictureCache(tmp_path / "kept"), PictureCache(tmp_path / "kept")
    assert one.take([3, 0]) == [None, None]
    assert keep(one, [3, 7]) == 2
    assert keep(two, [0]) == 1
    for cache in (one, two, PictureCache(tmp_path / "kept")):
        assert cache.take([7, 0, 1, 3, 7]) == [picture(7), picture(0), None, picture(3), picture(7)]


def test_nobody_writes_to_anothers_segment_and_the_next_takes_it_over(tmp_path: Path) -> None:
    caches = [PictureCache(tmp_path) for _ in range(3)]
    for row, cache in enumerate(caches):
        keep(cache, [row])
    assert len(list(tmp_path.glob("*.rows"))) == 3
    del cache
    caches.clear()
    gc.collect()
    later = PictureCache(tmp_path)
    keep(later, [50])
    assert len(list(tmp_path.glob("*.rows"))) == 3
    assert is_right(later, [0, 1, 2, 50]) == [True] * 4


def test_an_empty_picture_is_one(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path)
    cache.keep([2], [b""])
    assert cache.take([2, 1]) == [b"", None]


@pytest.mark.parametrize("name", ["places", "00001.rows"])
def test_no_damage_makes_another_picture(tmp_path: Path, name: str) -> None:
    cache = PictureCache(tmp_path)
    rows = [0, 1, 2, 5]
    pictures = [bytes([row]) * (5 + row) for row in rows]
    cache.keep(rows, pictures)
    whole = (tmp_path / name).read_bytes()
    damaged = [whole[:end] for end in range(len(whole))]
    damaged += [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in (0, 7)
    ]
    lost = 0
    for data in damaged:
        (tmp_path / name).write_bytes(data)
        found = cache.take(rows)
        assert all(got in (None, expected) for got, expected in zip(found, pictures, strict=True))
        lost += found.count(None)
    assert lost >= len(damaged)  # each damage hits a record, or the place of one
    (tmp_path / name).write_bytes(whole)
    assert cache.take(rows) == pictures


def test_what_was_damaged_can_be_kept_anew(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path)
    keep(cache, [4, 5])
    segment = tmp_path / "00001.rows"
    data = bytearray(segment.read_bytes())
    data[20] ^= 255
    segment.write_bytes(data)
    assert is_right(cache, [4, 5]) == [False, True]
    keep(cache, [4])
    assert is_right(cache, [4, 5]) == [True, True]


def test_no_more_is_kept_than_was_allowed(tmp_path: Path) -> None:
    limit = 10_000
    caches = [PictureCache(tmp_path, limit) for _ in range(2)]
    kept = sum(keep(caches[row % 2], [row]) for row in range(100))
    assert 0 < kept < 100
    assert limit - 3100 < sum(file.stat().st_size for file in tmp_path.glob("*.rows")) <= limit
    assert sum(is_right(caches[0], range(100))) == kept
    assert PictureCache(tmp_path / "none", 0).keep([1], [b"a"]) == 0


def test_room_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_cache, "SPARE_BYTES", 1 << 62)
    cache = PictureCache(tmp_path)
    assert keep(cache, [1]) == 0
    assert list(tmp_path.glob("*.rows")) == []


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    cache = PictureCache(tmp_path)
    keep(cache, [0, 1])
    before = (tmp_path / "00001.rows").stat().st_size
    write, calls = os.pwrite, 0

    def full(handle: int, data: Any, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls > fails_at:
            write(handle, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert keep(cache, [2, 3]) == (2 if fails_at == 3 else 0)
    if fails_at < 3:
        assert (tmp_path / "00001.rows").stat().st_size == before
        assert keep(cache, [2, 3]) == 0
    assert is_right(cache, [0, 1]) == [True, True]
    del cache
    gc.collect()
    later = PictureCache(tmp_path)
    keep(later, [4, 5, 6])
    is_right(later, [2, 3])
    assert is_right(later, [0, 1, 4, 5, 6]) == [True] * 5


def test_a_disk_that_refuses_is_told_of_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="pictures are not kept any more"):
        cache = PictureCache(tmp_path / "file" / "kept")
    assert cache.take([0]) == [None]
    assert keep(cache, [0]) == 0


def _write(folder: Path, first: int) -> None:
    picture_cache.SPARE_BYTES = 0
    cache = PictureCache(folder)
    for row in range(first, ROWS, 3):
        keep(cache, [row])
        time.sleep(0.001)


def test_processes_that_write_and_are_killed_leave_right_pictures(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(tmp_path, first)) for first in range(3)]
    cache = PictureCache(tmp_path)
    for process in processes:
        process.start()
    while not is_right(cache, [30])[0]:
        time.sleep(0.005)
    assert processes[0].pid is not None
    os.kill(processes[0].pid, signal.SIGKILL)
    while any(process.is_alive() for process in processes):
        is_right(cache, range(ROWS))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0, 0]
    assert all(is_right(cache, [row for row in range(ROWS) if row % 3]))
    keep(cache, range(0, ROWS, 3))
    assert all(is_right(PictureCache(tmp_path), range(ROWS)))
    # One for each process that wrote at the same time; who starts late, or last, takes over.
    assert len(list(tmp_path.glob("*.rows"))) <= 3


@pytest.mark.parametrize(("text", "limit"), [("", None), (" ", None), ("0", 0), ("200000000000", 200_000_000_000)])
def test_the_limit_is_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch, text: str, limit: int | None) -> None:
    monkeypatch.setenv("UMIF_CACHE_BYTES", text)
    assert limit_bytes() == limit


@pytest.mark.parametrize("text", ["much", "-1", "10GB"])
def test_another_limit_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("UMIF_CACHE_BYTES", text)
    with pytest.raises(ConfigError, match="is no number of bytes"):
        limit_bytes()
