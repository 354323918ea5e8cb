"""A crash, a full disk or a damaged file never costs the last good checkpoint."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from faulty_disk import Crash, FaultyDisk, assert_sound, tensors_of
from umif.errors import CheckpointError, RunError, StorageError
from umif.train import durable
from umif.train.checkpoint import latest_checkpoint, load_tensors, save_checkpoint, verify_checkpoint
from umif.train.durable import Disk

if TYPE_CHECKING:
    from pathlib import Path


FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def save(run: Path, step: int, disk: Disk | None = None) -> Path:
    return save_checkpoint(run, step, tensors_of(step), {"step": step}, disk=disk or Disk())


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many writes per file, so that there are boundaries within a file too."""
    monkeypatch.setattr(durable, "CHUNK_BYTES", 256)


def calls_of_a_save(folder: Path) -> list[str]:
    """What the third save of a run does: it also removes the first."""
    disk = FaultyDisk()
    save(folder, 1)
    save(folder, 2)
    save(folder, 3, disk)
    return disk.calls


@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_at_every_boundary_leaves_a_sound_checkpoint(tmp_path: Path, torn: bool) -> None:
    calls = calls_of_a_save(tmp_path / "count")
    assert {"write", "fsync", "mkdir", "rename", "unlink", "rmdir"} <= set(calls)
    for at in range(len(calls)):
        run = tmp_path / f"{at}"
        save(run, 1)
        save(run, 2)
        with pytest.raises(Crash):
            save(run, 3, FaultyDisk(at, torn=torn))
        assert_sound(run, {2, 3})
        # The run goes on: the same save again succeeds, and nothing hidden or half-made is left.
        save(run, 3)
        assert assert_sound(run, {3}) == 3
        save(run, 4)
        assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]


def test_a_crash_in_the_very_first_save_leaves_no_checkpoint_or_a_sound_one(tmp_path: Path) -> None:
    disk = FaultyDisk()
    save(tmp_path / "count", 1, disk)
    for at in range(len(disk.calls)):
        run = tmp_path / f"{at}"
        run.mkdir()
        with pytest.raises(Crash):
            save(run, 1, FaultyDisk(at))
        if latest_checkpoint(run) is not None:
            assert_sound(run, {1})
        save(run, 1)
        assert_sound(run, {1})


def test_a_full_disk_gives_a_typed_error_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    calls = calls_of_a_save(tmp_path / "count")
    for at, call in enumerate(calls):
        run = tmp_path / f"{at}"
        save(run, 1)
        save(run, 2)
        disk = FaultyDisk(at, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), torn=True)
        with pytest.raises(StorageError, match="No space left") as caught:
            save(run, 3, disk)
        assert caught.value.fix
        newest = assert_sound(run, {2, 3})
        if call == "write":
            assert newest == 2
            # What a full disk holds of the failed attempt is given back at once.
            assert not list((run / "checkpoints").glob(".*tmp"))


def damaged_run(tmp_path: Path, name: str) -> tuple[Path, Path]:
    run = tmp_path / name
    save(run, 1)
    return run, save(run, 2)


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_is_noticed_at_any_length(tmp_path: Path, file: str) -> None:
    run, newest = damaged_run(tmp_path, "run")
    whole = (newest / file).read_bytes()
    for length in np.linspace(0, len(whole) - 1, 50).astype(int):
        (newest / file).write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            verify_checkpoint(newest)
        assert_sound(run, {1})
    (newest / file).write_bytes(whole)
    verify_checkpoint(newest)


@pytest.mark.parametrize("file", FILES)
def test_any_flipped_bit_is_noticed(tmp_path: Path, file: str) -> None:
    run, newest = damaged_run(tmp_path, "run")
    whole = (newest / file).read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(whole), size=min(200, 8 * len(whole)), replace=False):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        (newest / file).write_bytes(flipped)
        with pytest.raises(CheckpointError):
            verify_checkpoint(newest)
    assert_sound(run, {1})


@pytest.mark.parametrize("file", FILES)
def test_a_deleted_file_is_noticed_and_the_owner_sets_the_checkpoint_aside(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    run, newest = damaged_run(tmp_path, "run")
    (newest / file).unlink()
    with caplog.at_level(logging.WARNING):
        found = latest_checkpoint(run, set_aside=True)
    assert found == run / "checkpoints/step-00000001"
    assert f"{file} is missing" in caplog.text
    assert not newest.exists()
    assert newest.with_name("step-00000002.bad").exists()
    # The step is trained and saved again beside what was set aside.
    save(run, 2)
    assert_sound(run, {2})


def test_a_reader_leaves_a_damaged_checkpoint_where_it_is(tmp_path: Path) -> None:
    run, newest = damaged_run(tmp_path, "run")
    (newest / "state.json").unlink()
    assert latest_checkpoint(run) == run / "checkpoints/step-00000001"
    assert newest.exists()


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over_silently(tmp_path: Path) -> None:
    run, newest = damaged_run(tmp_path, "run")
    for path in (newest, run / "checkpoints/step-00000001"):
        (path / "model.safetensors").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(RunError, match="none of 2 checkpoints is intact"):
            latest_checkpoint(run, set_aside=True)


def test_a_saved_step_is_not_written_again(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    before = (path / "manifest.json").stat().st_mtime_ns
    disk = FaultyDisk()
    assert save(tmp_path, 1, disk) == path
    assert (path / "manifest.json").stat().st_mtime_ns == before
    assert disk.calls == []


def test_a_pickle_in_the_place_of_tensors_is_refused(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("the payload ran",))

    path = save(tmp_path, 1)
    torch.save(Payload(), path / "model.safetensors")
    with pytest.raises(CheckpointError):
        verify_checkpoint(path)
    with pytest.raises(CheckpointError):
        load_tensors(path)
