"""What a process holds of the loader's shared memory, as the kernel tells it; Linux only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def _mappings(process: int | str) -> list[str]:
    return (Path("/proc") / str(process) / "maps").read_text(encoding="utf-8").splitlines()


def held(process: int | str = "self") -> tuple[int, int]:
    """Return how many descriptors a process has open, and how many mappings of trays."""
    descriptors = len(list((Path("/proc") / str(process) / "fd").iterdir()))
    return descriptors, sum("umif-tray" in line for line in _mappings(process))


def on_a_tray(tensor: torch.Tensor) -> bool:
    """Whether the tensor of this process lies on a tray."""
    for line in _mappings("self"):
        first, last = (int(each, 16) for each in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return "umif-tray" in line
    return False
