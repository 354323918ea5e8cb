"""The cache survives what a crash leaves, refuses what was tampered with, and is one process's at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from umif.errors import InputError, StorageError
from umif.language.llm import Answer, AnswerCache

if TYPE_CHECKING:
    from pathlib import Path


def answer(number: int) -> Answer:
    return Answer(f"línea {number}\u2028\n\ud800", "stop", "m", number, 2, 0.5)


def filled(path: Path, count: int = 5) -> bytes:
    with AnswerCache(path) as cache:
        for number in range(count):
            cache.put(f"k{number}", answer(number))
    return path.read_bytes()


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    with AnswerCache(tmp_path / "c") as cache:
        assert [cache.get(f"k{number}") for number in range(5)] == [answer(number) for number in range(5)]
        assert cache.get("other") is None
        assert len(cache) == 5
    assert (tmp_path / "c").stat().st_mode & 0o077 == 0


def test_a_file_cut_at_any_byte_keeps_every_whole_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "c"
    whole = filled(path, 2)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        with AnswerCache(path) as cache:
            assert len(cache) == lines
            cache.put("new", answer(9))
        with AnswerCache(path) as cache:
            assert len(cache) == lines + 1
            assert cache.get("new") == answer(9)


def test_a_damaged_line_is_named_not_used(tmp_path: Path) -> None:
    path = tmp_path / "c"
    whole = filled(path)
    for place in range(0, len(whole) - 1, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"damaged|format") as caught, AnswerCache(path):
            pass
        assert f"{path}:" in str(caught.value)


def test_a_kill_between_writes_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom umif.language.llm import Answer, AnswerCache\n"
        "with AnswerCache(Path(sys.argv[1])) as cache:\n"
        "    for n in range(10 ** 6):\n"
        "        cache.put(f'k{n}', Answer('x' * (n % 300), 'stop', 'm', n, 1, 0.1))\n"
        "        print(n, flush=True)\n"
    )
    path = tmp_path / "c"
    for stop in (1, 40, 163):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) == stop:
                    child.kill()
                    break
        with AnswerCache(path) as cache:
            assert len(cache) > stop
            for n in range(stop + 1):
                assert cache.get(f"k{n}") == Answer("x" * (n % 300), "stop", "m", n, 1, 0.1)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "c"), pytest.raises(InputError, match="another process"), AnswerCache(tmp_path / "c"):
        pass
    with AnswerCache(tmp_path / "c"):
        pass


def test_a_full_disk_is_said_and_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    whole = filled(path)
    write = os.write
    room = 30

    def full(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(room, len(data))
        room -= taken
        return write(descriptor, bytes(data[:taken]))

    with AnswerCache(path) as cache:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            cache.put("new", answer(1))
        monkeypatch.undo()
        assert cache.get("new") is None
        assert path.read_bytes() == whole
        cache.put("new", answer(1))
    with AnswerCache(path) as cache:
        assert cache.get("new") == answer(1)


def test_an_answer_that_comes_after_the_end_is_left(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "c") as cache:
        pass
    cache.put("late", answer(1))
    with AnswerCache(tmp_path / "c") as cache:
        assert len(cache) == 0
