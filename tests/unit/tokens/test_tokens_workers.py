"""Workers that make steps: in order, bit for bit, and as if nothing had happened when they die or hang."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from trays import held, on_a_tray
from umif.errors import ImageError, LoaderError
from umif.tokens.workers import RESTARTS, make_steps

if TYPE_CHECKING:
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create and /proc")


@dataclass(frozen=True)
class Misbehaving:
    """Makes step k as [k, k²], and misbehaves at some steps: every time, or the first times only.

    `folder` counts the tries, since a worker that was killed remembers nothing.
    """

    folder: Path
    how: str = ""
    at: tuple[int, ...] = ()
    times: int = 1

    def __call__(self, step: int) -> tuple[int, torch.Tensor]:
        if step in self.at:
            tries = self.folder / f"{step}"
            with tries.open("a") as file:
                file.write(f"{os.getpid()}\n")
            if len(tries.read_text().splitlines()) <= self.times:
                self.misbehave(step)
        return step, torch.tensor([step, step**2])

    def misbehave(self, step: int) -> None:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "exit":
            os._exit(7)
        elif self.how == "hang":
            time.sleep(3600)
        elif self.how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.how == "typed":
            raise ImageError("cut off", reason="truncated", where=f"step {step}", fix="copy it again")
        elif self.how == "bug":
            raise KeyError("no such thing")


def steps_of(make: Misbehaving, first: int, last: int, workers: int, timeout_seconds: float = 120.0) -> list[int]:
    found = list(make_steps(make, first, last, workers=workers, timeout_seconds=timeout_seconds))
    assert all(values.tolist() == [step, step**2] for step, values in found)
    return [step for step, _ in found]


@pytest.mark.parametrize(("workers", "first", "last"), [(1, 0, 9), (2, 5, 12), (2, 3, 4), (2, 3, 3)])
def test_steps_come_once_each_and_in_order(tmp_path: Path, workers: int, first: int, last: int) -> None:
    assert steps_of(Misbehaving(tmp_path), first, last, workers) == list(range(first, last))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("how", ["killed", "exit"])
def test_a_worker_that_dies_is_replaced_and_no_step_is_lost_or_repeated(tmp_path: Path, how: str) -> None:
    make = Misbehaving(tmp_path, how, at=(2, 5), times=1)
    assert steps_of(make, 0, 8, workers=2) == list(range(8))
    for step in (2, 5):
        pids = (tmp_path / str(step)).read_text().split()
        assert len(pids) == len(set(pids)) == 2


@pytest.mark.parametrize("how", ["hang", "stopped"])
def test_a_worker_that_hangs_is_replaced(tmp_path: Path, how: str) -> None:
    # Starting does not count; should a step take longer on a very busy machine, that only means another restart.
    assert steps_of(Misbehaving(tmp_path, how, at=(1,)), 0, 4, workers=1, timeout_seconds=3) == [0, 1, 2, 3]


def test_workers_killed_from_outside_between_steps_lose_nothing(tmp_path: Path) -> None:
    seen = []
    for step, values in make_steps(Misbehaving(tmp_path), 0, 10, workers=2):
        assert values.tolist() == [step, step**2]
        seen.append(step)
        if step in (1, 4):
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)
    assert seen == list(range(10))


def test_a_worker_that_dies_again_and_again_is_a_typed_error(tmp_path: Path) -> None:
    make = Misbehaving(tmp_path, "exit", at=(1,), times=99)
    steps = make_steps(make, 0, 4, workers=1)
    assert next(steps)[0] == 0
    with pytest.raises(LoaderError, match=rf"failed {RESTARTS + 1} times in a row at step 1.*exit code 7"):
        next(steps)
    # One try more where the first worker got to step 1 before step 0 had left it.
    assert len((tmp_path / "1").read_text().split()) - RESTARTS in (1, 2)
    assert not multiprocessing.active_children()


def test_a_typed_error_arrives_whole_at_its_step(tmp_path: Path) -> None:
    steps = make_steps(Misbehaving(tmp_path, "typed", at=(2,), times=99), 0, 4, workers=2)
    assert [next(steps)[0], next(steps)[0]] == [0, 1]
    with pytest.raises(ImageError) as caught:
        next(steps)
    assert str(caught.value) == "step 2: cut off\n  → copy it again"
    assert (caught.value.reason, caught.value.where, caught.value.fix) == ("truncated", "step 2", "copy it again")


def test_a_fault_of_ours_arrives_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(LoaderError, match=r"making step 0 failed\n(?s:.)*KeyError: 'no such thing'"):
        steps_of(Misbehaving(tmp_path, "bug", at=(0,), times=99), 0, 1, workers=1)


def variable(step: int) -> str | None:
    """Return what a worker's environment says."""
    return os.environ.get("UMIF_TEST_VARIABLE")


def test_workers_have_the_environment_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that of the moment when the server that forks them was started."""
    for value in ("one", "other", None):
        if value is None:
            monkeypatch.delenv("UMIF_TEST_VARIABLE")
        else:
            monkeypatch.setenv("UMIF_TEST_VARIABLE", value)
        assert list(make_steps(variable, 0, 2, workers=2)) == [value, value]


def test_leaving_early_leaves_no_process_behind(tmp_path: Path) -> None:
    steps = make_steps(Misbehaving(tmp_path), 0, 1000, workers=2)
    next(steps)
    assert len(multiprocessing.active_children()) == 2
    steps.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


@dataclass(frozen=True)
class Arrays:
    """Makes values of many types and sizes, in a worker that can be kept from sharing memory."""

    shares: bool = True

    def __call__(self, step: int) -> dict[str, object]:
        if not self.shares and multiprocessing.parent_process() is not None:
            vars(os).pop("memfd_create", None)
        rng = np.random.default_rng(step)
        return {
            "large": torch.from_numpy(rng.integers(0, 256, (3, 500, 500), dtype=np.uint8)),
            "empty": torch.zeros((0, 4, 4, 3), dtype=torch.uint8),
            "floats": torch.from_numpy(rng.random(7)),
            "array": rng.random((2, 3)),
            "rest": [step, "ü", None, ("a", 1.5)],
        }


@pytest.mark.parametrize("shares", [True, False])
def test_tensors_arrive_bit_for_bit_and_can_be_written_to(shares: bool) -> None:
    for step, found in enumerate(make_steps(Arrays(shares), 0, 3, workers=1)):
        expected = Arrays()(step)
        assert found.keys() == expected.keys()
        for name in ("large", "empty", "floats"):
            left, right = found[name], expected[name]
            assert isinstance(left, torch.Tensor)
            assert isinstance(right, torch.Tensor)
            assert torch.equal(left, right)
            assert left.dtype == right.dtype
            if name == "large" and sys.platform == "linux":
                assert on_a_tray(left) == shares
            left.zero_()
        assert np.array_equal(found["array"], expected["array"])  # type: ignore[arg-type]
        assert found["rest"] == expected["rest"]


@dataclass(frozen=True)
class Large:
    """Makes step k as a tensor of its own length, full of k."""

    def __call__(self, step: int) -> torch.Tensor:
        return torch.full((400_000 + 1_000 * (step % 7),), step, dtype=torch.int32)


@linux
def test_descriptors_and_mappings_stay_flat_over_hundreds_of_steps() -> None:
    seen: list[list[tuple[int, int]]] = []
    for step, found in enumerate(make_steps(Large(), 0, 500, workers=2)):
        assert found[0] == found[-1] == step
        if step in (100, 499):
            # The second worker may have left by the last step, so what a worker holds is asked of both before.
            workers = [held(process.pid or 0) for process in multiprocessing.active_children()] if step == 100 else []
            seen.append([held(), *workers])
    (early, *workers), (late,) = seen
    assert len(workers) == 2
    assert all(mapped <= 8 for _, mapped in workers)
    assert 0 < early[1] <= 16
    assert late[1] <= early[1] + 2  # a busy machine may make a worker ask for another tray now and then
    assert late[0] <= early[0] + 2


@linux
def test_a_worker_that_is_killed_while_it_sends_takes_nothing_along_and_leaves_nothing_behind() -> None:
    before: tuple[int, int] | None = None
    killed = 0
    steps = make_steps(Large(), 0, 120, workers=2)
    for step, found in enumerate(steps):
        assert len(found) == len(Large()(step))
        assert (found == step).all()
        if step == 20:
            before = held()
        if step >= 20 and step % 10 == 0:
            # A worker is asked for its next step as the one before it is taken, so now it makes or sends.
            time.sleep(0.0005 * (step % 40) / 10)
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)
                killed += 1
    assert killed >= 10
    del found
    gc.collect()
    assert before is not None
    after = held()
    assert after[1] == 0
    assert after[0] <= before[0]


@linux
def test_what_a_worker_made_outlives_it() -> None:
    kept = []
    for step, found in enumerate(make_steps(Large(), 0, 8, workers=2)):
        kept.append(found)
        if step == 4:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)
    assert not multiprocessing.active_children()
    assert all((each == step).all() for step, each in enumerate(kept))


def test_a_value_that_cannot_be_sent_is_an_error_and_no_hanging() -> None:
    with pytest.raises(LoaderError, match=r"making step 0 failed\n(?s:.)*pickle"):
        list(make_steps(unpicklable, 0, 2, workers=1, timeout_seconds=120))


def unpicklable(step: int) -> object:
    return lambda: step
