"""One process or many: who we are, and the few things that processes tell each other.

Every process computes the whole global loss on gathered features, its own slice carrying the gradient; parameter
gradients are then *summed* (`umif.objectives.gather_features` says why that is exact; `gradients.py` does it). No
wrapper around the model renames its parameters. Messages between hosts are JSON, never pickles, and go from CPU to
CPU: a GPU is not waited for.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from umif.errors import ConfigError, ProcessLostError, RunError, UmifError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Long enough for the main process to train a vocabulary or to verify a large checkpoint while the others wait; a
# process that dies is noticed at once, through its closed connection.
TIMEOUT = timedelta(hours=1)

# How gloo, which has no type of error of its own, tells of a process that is gone.
_LOST = re.compile(r"gloo/|Connection (?:closed|reset|refused)")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: 0 … world_size − 1; only rank 0 writes files.
        world_size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def _messages(self) -> torch.device:
        """Where messages lie: on the host, unless the caller's own process group has no way between hosts."""
        return torch.device("cpu") if "cpu:" in dist.get_backend_config() else self.device

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums of `values` over all processes."""
        if self.world_size == 1:
            return [float(value) for value in values]
        vector = torch.tensor(list(values), dtype=torch.float64, device=self._messages)
        dist.all_reduce(vector)
        summed: list[float] = vector.tolist()
        return summed

    def gather(self, value: Any) -> list[Any]:
        """Return every process's JSON value, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        raw = json.dumps(value).encode()
        sizes = [torch.zeros(1, dtype=torch.int64, device=self._messages) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(raw)], device=self._messages))
        longest = max(int(size) for size in sizes)
        padded = torch.frombuffer(bytearray(raw.ljust(longest)), dtype=torch.uint8).to(self._messages)
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return [json.loads(bytes(part.cpu().numpy())) for part in parts]

    def on_main(self, work: Callable[[], T]) -> T:
        """Run `work` on the main process and return its JSON value everywhere.

        If it fails there, it fails everywhere: nobody waits for a process that is gone.
        """
        if self.world_size == 1:
            return work()
        message: dict[str, Any] = {}
        failure: Exception | None = None
        if self.is_main:
            try:
                message = {"value": work()}
            except UmifError as error:
                failure, message = error, {"what": error.what, "where": error.where, "fix": error.fix}
            except Exception as error:  # raised again below, once the others know
                failure, message = error, {"what": f"{type(error).__name__}: {error}", "where": None, "fix": None}
        message = self.gather(message)[0]
        if failure is not None:
            raise failure
        if "what" in message:
            raise RunError(message["what"], where=message["where"], fix=message["fix"])
        value: T = message["value"]
        return value


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that `torchrun` started, if it did; leave them at the end.

    Raises:
        ConfigError: the device does not exist.
        ProcessLostError: another process ended in the middle of the work, or does not answer.
    """
    chosen = _device(device)
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
        return
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    with _lost_processes_named():
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
        try:
            yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
        finally:
            dist.destroy_process_group()


@contextmanager
def _lost_processes_named() -> Iterator[None]:
    """Turn what torch raises where another process is gone into a typed error."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        said = str(error).splitlines()[0]
        raise ProcessLostError(
            f"another process of the run is gone, or does not answer ({said:.200})",
            fix="see what it said; the same command goes on from the last checkpoint",
        ) from error


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is no device", where="train.device", fix="use auto, cpu or cuda") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("there is no CUDA device here", where="train.device", fix="use auto or cpu")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
