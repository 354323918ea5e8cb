"""Who builds the shards: local processes, or a Ray cluster (`ray_engine.py`), behind one interface.

A shard is a pure function of its records, so who builds it, and in which order, does not matter. An engine takes the
work, the shards and the number of workers, and yields each shard with its sidecar as it is finished. When it is
closed early, nobody goes on working.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from umif.corpus.processes import work_in_processes
from umif.corpus.shards import Encoding, Shard, build_shard
from umif.errors import ConfigError, UmifError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

Engine = Literal["local", "ray"]


class RunShards(Protocol):
    """What an engine is: the work on each shard, done by `workers`; by default as many as it has cores."""

    def __call__(
        self, work: Callable[[Shard], dict[str, Any]], shards: list[Shard], folder: Path, workers: int | None
    ) -> Generator[tuple[Shard, dict[str, Any]], None, None]:
        """Yield shards with their sidecars as they are finished, in any order; `folder` is where they are written."""


def engine_named(name: str) -> RunShards:
    """Return the engine of this name.

    Raises:
        ConfigError: there is none of that name, or what it needs is not installed.
    """
    if name == "local":
        return run_locally
    if name == "ray":
        from umif.corpus.ray_engine import import_ray, run_on_ray

        import_ray()  # so that whoever lacks it is told before anything is read
        return run_on_ray
    raise ConfigError(f"there is no engine {name!r}", where="engine", fix=nearest(name, ("local", "ray")))


def build_shards(
    shards: list[Shard], folder: Path, encoding: Encoding, workers: int | None, run: RunShards
) -> Generator[tuple[Shard, dict[str, Any]], None, None]:
    """Build shards into `folder` and yield each with its sidecar as it is finished, in any order.

    Raises:
        UmifError: a worker process died.
        OSError: a shard could not be written.
    """
    # Absolute, since a worker elsewhere has another working directory; errors name the folder as it was given.
    work = partial(build_shard, folder=folder.absolute(), encoding=encoding)
    return run(work, shards, folder, workers)


def run_locally(
    work: Callable[[Shard], dict[str, Any]], shards: list[Shard], folder: Path, workers: int | None
) -> Generator[tuple[Shard, dict[str, Any]], None, None]:
    """Work in spawned processes, few shards at a time, that are gone when the main process is.

    With one worker, or one shard, the work is done in this process.
    """
    workers = min(workers or os.cpu_count() or 1, len(shards))
    yield from work_in_processes(work, shards, workers, partial(worker_died, folder))


def worker_died(folder: Path, shards: Iterable[Shard]) -> UmifError:
    """Return the error for a worker that died while it, or one like it, built `shards`."""
    names = ", ".join(sorted({shard.items[0].image for shard in shards}))
    return UmifError(
        "a worker process died" + (f" while it built the shards that begin with {names}" if names else ""),
        where=folder,
        fix="run it again (finished shards are kept), with fewer workers if memory ran out; a script that calls "
        "prepare must do so under `if __name__ == '__main__':`",
    )
