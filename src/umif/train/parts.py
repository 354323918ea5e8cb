"""Saved tensors, in one file or in parts: which files they are in, and any rows of them.

    model.safetensors                       every tensor whole
    model.00000-of-00004.safetensors, …     a part for each process that shared the weights

Of a tensor that was shared out, a part holds the rows that its process had; parts follow one another along the first
axis, and a process that had no row of it leaves it out. What every process had alike is in the first part alone. So the
whole is the parts end to end, and whoever needs some rows reads those bytes, however many processes wrote them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from umif.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_PART = re.compile(r"\.(\d{5})-of-(\d{5})\.safetensors")


def part_file(name: str, rank: int, world_size: int) -> str:
    """Name the file of one process's part.

    Example:
        >>> part_file("model", 2, 4)
        'model.00002-of-00004.safetensors'
    """
    return f"{name}.{rank:05d}-of-{world_size:05d}.safetensors"


class SavedTensors:
    """The tensors called `name` in a checkpoint, read when they are asked for, on the CPU.

    Args:
        checkpoint: Its folder, verified (`latest_checkpoint` does that).
        name: `model` or `optimizer`.

    Raises:
        CheckpointError: there is no such file, a part is missing, or one is no safetensors file.
    """

    def __init__(self, checkpoint: str | Path, name: str = "model") -> None:
        self._where = Path(checkpoint) / f"{name}.safetensors"
        self._files: list[Any] = []
        self._holders: dict[str, list[Any]] = {}
        for path in self._paths(name):
            try:
                file = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"cannot be read: {error}", where=path) from None
            self._files.append(file)
            for tensor in file.keys():  # noqa: SIM118 - a file, no mapping
                self._holders.setdefault(tensor, []).append(file)

    @property
    def names(self) -> list[str]:
        """The tensors' names, in alphabetical order."""
        return sorted(self._holders)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor, of all its parts together."""
        shapes = [tuple(file.get_slice(tensor).get_shape()) for file in self._holders[tensor]]
        first = shapes[0]
        if len(shapes) == 1:
            return first
        if any(not shape or shape[1:] != first[1:] for shape in shapes):
            raise CheckpointError(f"parts of {tensor!r} do not fit together: {shapes}", where=self._where)
        return (sum(shape[0] for shape in shapes), *first[1:])

    def whole(self, tensor: str) -> Tensor:
        """Return a tensor in one piece."""
        shape = self.shape(tensor)
        if len(self._holders[tensor]) > 1:
            return self.rows(tensor, 0, shape[0])
        found: Tensor = self._holders[tensor][0].get_tensor(tensor)
        return found

    def rows(self, tensor: str, first: int, last: int) -> Tensor:
        """Return rows first … last − 1 of a tensor, reading no others."""
        found: list[Tensor] = []
        start = 0
        for file in self._holders[tensor]:
            part = file.get_slice(tensor)
            rows = part.get_shape()[0]
            low, high = max(first - start, 0), min(last - start, rows)
            if low < high:
                found.append(part[low:high])
            start += rows
        if not found:
            found.append(self._holders[tensor][0].get_slice(tensor)[0:0])
        return found[0] if len(found) == 1 else torch.cat(found)

    def _paths(self, name: str) -> list[Path]:
        if self._where.is_file():
            return [self._where]
        parts = {}
        for path in self._where.parent.glob(f"{name}.*-of-*.safetensors"):
            match = _PART.fullmatch(path.name.removeprefix(name))
            if match is not None:
                parts[int(match[1])] = (int(match[2]), path)
        if not parts:
            raise CheckpointError("cannot be read: there is no such file", where=self._where)
        count = next(iter(parts.values()))[0]
        if set(parts) != set(range(count)) or any(number != count for number, _ in parts.values()):
            have = ", ".join(path.name for _, (_, path) in sorted(parts.items()))
            raise CheckpointError(f"{count} parts belong together, there are {have}", where=self._where)
        return [parts[rank][1] for rank in range(count)]
