"""A disk that fails or stops at any of its calls, and checkpoints that tell whether they came through."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from umif.train.checkpoint import latest_checkpoint, load_state, load_tensors
from umif.train.durable import Disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor


class Crash(BaseException):
    """The process stops here: nothing of it may tidy up."""


class FaultyDisk(Disk):
    """Counts every call and fails the one numbered `fail_at`, before it acts or, for a torn write, half-way."""

    def __init__(self, fail_at: int = -1, fault: Callable[[], BaseException] = Crash, *, torn: bool = False) -> None:
        self.calls: list[str] = []
        self.fail_at, self.fault, self.torn = fail_at, fault, torn

    def _count(self, name: str) -> bool:
        self.calls.append(name)
        return len(self.calls) - 1 == self.fail_at

    def write(self, descriptor: int, data: memoryview) -> int:
        if self._count("write"):
            if self.torn:
                os.write(descriptor, data[: len(data) // 2])
            raise self.fault()
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        if self._count("fsync"):
            raise self.fault()
        super().fsync(descriptor)

    def mkdir(self, path: Path) -> None:
        if self._count("mkdir"):
            raise self.fault()
        super().mkdir(path)

    def rename(self, source: Path, target: Path) -> None:
        if self._count("rename"):
            raise self.fault()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        if self._count("unlink"):
            raise self.fault()
        super().unlink(path)

    def rmdir(self, path: Path) -> None:
        if self._count("rmdir"):
            raise self.fault()
        super().rmdir(path)


def tensors_of(step: int) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {"a": torch.randn(40, 7, generator=generator), "b": torch.tensor(step)},
        "optimizer": {"exp_avg/a": torch.randn(40, 7, generator=generator)},
    }


def assert_sound(run: Path, steps: set[int]) -> int:
    path = latest_checkpoint(run)
    assert path is not None
    step = load_state(path)["step"]
    assert step in steps
    for name, group in tensors_of(step).items():
        loaded = load_tensors(path, name)
        assert loaded.keys() == group.keys()
        assert all(torch.equal(loaded[key], group[key]) for key in group)
    return int(step)
