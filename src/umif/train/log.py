"""What a run says while it trains: a line per step for machines, a line now and then for people.

`log.jsonl` gets a row for every step, its floats with every bit; `TIME_FIELDS` are the only ones that two runs of the
same recipe may differ in. People see a progress bar on a terminal and plain lines elsewhere, both on standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from umif.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TIME_FIELDS = frozenset({"seconds", "pairs_per_s", "data_wait_share"})


class Stopwatch:
    """Where the time of a run goes, since it started or went on."""

    def __init__(self) -> None:
        self._start = self._window_start = time.perf_counter()
        self._waited = self._window_waited = 0.0
        self._pairs = self._window_pairs = 0

    def step(self, pairs: int, waited: float) -> None:
        """Count a finished step of `pairs` pairs that waited `waited` seconds for its data."""
        self._pairs += pairs
        self._window_pairs += pairs
        self._waited += waited
        self._window_waited += waited

    def window(self) -> dict[str, float]:
        """Return the time fields since the last call."""
        now = time.perf_counter()
        fields = _rates(now - self._window_start, self._window_pairs, self._window_waited)
        self._window_start, self._window_pairs, self._window_waited = now, 0, 0.0
        return {"seconds": now - self._start, **fields}

    def whole(self) -> dict[str, float]:
        """Return the time fields since the start."""
        seconds = time.perf_counter() - self._start
        return {"seconds": seconds, **_rates(seconds, self._pairs, self._waited)}


def _rates(seconds: float, pairs: int, waited: float) -> dict[str, float]:
    seconds = max(seconds, 1e-9)
    return {"pairs_per_s": pairs / seconds, "data_wait_share": min(1.0, waited / seconds)}


class RunLog:
    """Writes `log.jsonl`, `ledger.jsonl`, TensorBoard events and progress; used by the main process only."""

    def __init__(self, run: Path, *, step: int, steps: int, tensorboard: bool, progress: bool) -> None:
        self._log = (run / "log.jsonl").open("ab")
        self._ledger = (run / "ledger.jsonl").open("ab")
        self._tensorboard = _tensorboard_writer(run / "tb", step) if tensorboard else None
        self._steps = steps
        self._console = Console(file=sys.stderr) if progress else None
        self._bar: Progress | None = None
        if self._console is not None and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]pretrain"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[now]}"), console=self._console,
            )  # fmt: skip
            self._task = self._bar.add_task("pretrain", total=steps, completed=step, now="")
            self._bar.start()

    def row(self, row: dict[str, Any]) -> None:
        """Write the row of a step; one with `std` is shown too."""
        _append(self._log, [row])
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"])
        if "std" not in row:
            return
        if self._bar is not None:
            self._bar.update(self._task, now=_describe(row))
        elif self._console is not None:
            self.say(f"step {row['step']}/{self._steps}  {_describe(row)}")
        if self._tensorboard is not None:
            for name, value in _scalars(row):
                self._tensorboard.add_scalar(name, value, row["step"])

    def ledger(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write rows of samples that were dropped or steps that were skipped."""
        _append(self._ledger, rows)

    def say(self, text: str) -> None:
        """Tell the people."""
        if self._console is not None:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def sync(self) -> None:
        """Make what was written durable, before a checkpoint says that these steps are done."""
        for file in (self._log, self._ledger):
            file.flush()
            os.fsync(file.fileno())
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def close(self) -> None:
        """Close all files and the bar."""
        if self._bar is not None:
            self._bar.stop()
        self._log.close()
        self._ledger.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def _append(file: IO[bytes], rows: Iterable[dict[str, Any]]) -> None:
    try:
        for row in rows:
            file.write(json.dumps(row, allow_nan=False, ensure_ascii=False).encode() + b"\n")
        file.flush()
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}",
            where=file.name,
            fix="make room or mend the disk, then start the same command again: it goes on from the last checkpoint",
        ) from error


def _describe(row: dict[str, Any]) -> str:
    losses = "  ".join(f"{name} {value:.4f}" for name, value in row["losses"].items() if name != "total")
    return (
        f"{losses}  std {row['std']:.2f}  acc {row['accuracy']:.2f}  align {row['alignment']:.2f} "
        f"unif {row['uniformity']:.2f}  lr {row['lr']:.1e}  {row['pairs_per_s']:.1f} pairs/s  "
        f"wait {100 * row['data_wait_share']:.1f} %"
    )


def _scalars(row: dict[str, Any]) -> list[tuple[str, float]]:
    pairs = [(f"loss/{name}", value) for name, value in row["losses"].items()]
    health = ("std", "accuracy", "alignment", "uniformity", "effective_rank")
    pairs += [(f"features/{name}", row[name]) for name in health]
    pairs += [(f"optim/{name}", row[name]) for name in ("lr", "momentum", "grad_norm")]
    return pairs + [(f"time/{name}", row[name]) for name in ("pairs_per_s", "data_wait_share")]


def _tensorboard_writer(folder: Path, step: int) -> Any:
    with warnings.catch_warnings():
        # The package warns of its own dependencies; nothing a user could mend.
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder), purge_step=step + 1)
