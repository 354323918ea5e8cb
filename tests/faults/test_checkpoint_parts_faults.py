"""A checkpoint that several processes write together survives a crash, or a full disk, of any of them."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from faulty_disk import Crash, FaultyDisk, assert_sound, tensors_of
from umif.errors import CheckpointError, RunError, StorageError, UmifError
from umif.train import durable
from umif.train.checkpoint import latest_checkpoint, load_tensors, save_checkpoint_together
from umif.train.distributed import Processes
from umif.train.durable import Disk
from umif.train.parts import SavedTensors, part_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PARTS = [part_file(name, rank, 2) for name in ("model", "optimizer") for rank in range(2)]
GONE = (Crash, threading.BrokenBarrierError)


class Meeting:
    """Where two threads wait for one another, as two processes do in a collective."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=60)
        self.values: list[Any] = [None, None]


@dataclass(frozen=True)
class Thread(Processes):
    """One of two processes, played by a thread."""

    meeting: Meeting

    def gather(self, value: Any) -> list[Any]:
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        values = list(self.meeting.values)
        self.meeting.barrier.wait()
        return values


def own_part(step: int, rank: int) -> dict[str, dict[str, Tensor]]:
    """Rows of `a`, of which the first process has more; `b` lies with the first alone."""
    rows = slice(0, 24) if rank == 0 else slice(24, 40)
    parts: dict[str, dict[str, Tensor]] = {}
    for group, held in tensors_of(step).items():
        parts[group] = {name: tensor[rows] for name, tensor in held.items() if tensor.ndim}
        if rank == 0:
            parts[group] |= {name: tensor for name, tensor in held.items() if not tensor.ndim}
    return parts


def save(run: Path, step: int, *disks: Disk) -> list[BaseException | None]:
    """Save from two threads; return what each of them ended with."""
    meeting = Meeting()
    ends: list[BaseException | None] = [None, None]
    run.mkdir(exist_ok=True)

    def work(rank: int) -> None:
        processes = Thread(rank, 2, torch.device("cpu"), meeting)
        disk = disks[rank] if disks else Disk()
        try:
            save_checkpoint_together(run, step, own_part(step, rank), {"step": step}, processes, disk=disk)
        except BaseException as error:
            ends[rank] = error
            if not isinstance(error, UmifError):
                meeting.barrier.abort()  # the other one's connection breaks

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "CHUNK_BYTES", 256)


def calls_of_a_save(run: Path) -> list[list[str]]:
    """What either process does in the third save of a run."""
    for step in (1, 2):
        assert save(run, step) == [None, None]
    disks = [FaultyDisk(), FaultyDisk()]
    assert save(run, 3, *disks) == [None, None]
    assert_sound(run, {3})
    return [disk.calls for disk in disks]


def faults(calls: list[list[str]]) -> list[tuple[int, int]]:
    """Every (process, call)."""
    return [(rank, at) for rank in range(2) for at in range(len(calls[rank]))]


def test_a_crash_of_either_process_leaves_a_sound_checkpoint(tmp_path: Path) -> None:
    calls = calls_of_a_save(tmp_path / "count")
    # The second one writes its part and nothing else.
    assert set(calls[1]) == {"write", "fsync"}
    for rank, at in faults(calls):
        run = tmp_path / f"{rank}-{at}"
        for step in (1, 2):
            save(run, step)
        disks = [Disk(), Disk()]
        disks[rank] = FaultyDisk(at, torn=True)
        ends = save(run, 3, *disks)
        assert isinstance(ends[rank], Crash)
        assert ends[1 - rank] is None or isinstance(ends[1 - rank], GONE)
        newest = assert_sound(run, {2, 3})
        assert newest == 2 or rank == 0
        # The run goes on: nothing hidden or half-made is in the way, or left.
        for step in (3, 4):
            assert save(run, step) == [None, None]
        assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]
        assert_sound(run, {4})


def test_a_full_disk_of_either_process_is_an_error_of_both(tmp_path: Path) -> None:
    calls = calls_of_a_save(tmp_path / "count")
    for rank, at in faults(calls):
        run = tmp_path / f"{rank}-{at}"
        for step in (1, 2):
            save(run, step)
        disks = [Disk(), Disk()]
        disks[rank] = FaultyDisk(at, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), torn=True)
        ends = save(run, 3, *disks)
        assert isinstance(ends[0], StorageError)
        assert isinstance(ends[1], RunError)
        assert "No space left" in str(ends[0])
        assert str(ends[0]) == str(ends[1])
        newest = assert_sound(run, {2, 3})
        if calls[rank][at] == "write":
            assert newest == 2
            assert not list((run / "checkpoints").glob(".*tmp"))


@pytest.mark.parametrize("file", PARTS)
def test_a_damaged_or_deleted_part_is_noticed(tmp_path: Path, file: str) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    newest = tmp_path / "checkpoints/step-00000002"
    whole = (newest / file).read_bytes()
    (newest / file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert_sound(tmp_path, {1})
    (newest / file).unlink()
    assert_sound(tmp_path, {1})
    with pytest.raises(CheckpointError, match="2 parts belong together"):
        load_tensors(newest, file.partition(".")[0])
    assert latest_checkpoint(tmp_path, set_aside=True) == tmp_path / "checkpoints/step-00000001"


def test_any_rows_are_read_from_the_parts_that_hold_them(tmp_path: Path) -> None:
    save(tmp_path, 1)
    saved = SavedTensors(tmp_path / "checkpoints/step-00000001")
    whole = tensors_of(1)["model"]
    assert saved.names == ["a", "b"]
    assert (saved.shape("a"), saved.shape("b")) == ((40, 7), ())
    assert torch.equal(saved.whole("b"), whole["b"])
    for first, last in ((0, 40), (0, 24), (24, 40), (20, 30), (39, 40), (24, 24), (40, 40)):
        assert torch.equal(saved.rows("a", first, last), whole["a"][first:last])
