"""Small real runs in processes of their own, for tests and benchmarks that stop, kill and compare them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus import prepare
from umif.corpus.phantom import write_phantom
from umif.errors import UmifError
from umif.train.checkpoint import FOLDER, latest_checkpoint
from umif.train.log import TIME_FIELDS
from umif.train.loop import pretrain
from umif.train.recipe import Recipe
from umif.train.runfolder import read_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

# A server that has imported everything that is slow once; each run is a quick, clean fork of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["umif.train.loop", "timm"])


def make_corpus(folder: Path, images: int = 24) -> Path:
    """Prepare a small phantom corpus, once per folder."""
    corpus = folder / "train_corpus"
    if not corpus.exists():
        write_phantom(folder / "train_raw", images, size=64)
        prepare(corpus, [("phantom", folder / "train_raw")], workers=1, progress=False)
    return corpus


def tiny_recipe(corpus: Path, out: Path, **train: Any) -> dict[str, Any]:
    """Two blocks of width 48 on 32-pixel pictures, 8 pairs a step; a step takes some tens of milliseconds."""
    return {
        "corpus": str(corpus),
        "out": str(out),
        "tokenizer": {"vocab_size": 400},
        "model": {"backbone": "vit_tiny_patch16_224", "image_size": 32, "depth": 2, "width": 48, "heads": 3},
        "data": {"pairs_per_kind": 2},
        "optim": {"lr": 1e-3, "teacher_momentum": 0.99},
        "train": {
            "steps": 12,
            "log_every": 3,
            "save_every": 1,
            "tensorboard": False,
            "device": "cpu",
            "dtype": "fp32",
            **train,
        },
    }


def train(recipe: dict[str, Any], environment: dict[str, str] | None = None) -> None:
    """Body of a process: train; leave with the exit code that the command line would give."""
    os.environ.update(environment or {})
    try:
        summary = pretrain(Recipe.model_validate(recipe), progress=False)
    except UmifError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0 if summary.finished else 128 + int(signal.Signals[summary.stopped_by or "SIGTERM"]))


def start(recipe: dict[str, Any], environment: dict[str, str] | None = None) -> BaseProcess:
    """Start a run in a process of its own."""
    process = _CONTEXT.Process(target=train, args=(recipe, environment))
    process.start()
    return process


def finish(process: BaseProcess, seconds: float = 600) -> int:
    """Wait for a process; return its exit code."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"the run did not end within {seconds} s")
    return process.exitcode


def start_many(
    recipe: dict[str, Any], world_size: int, body: Callable[..., None] = train, **environment: str
) -> list[BaseProcess]:
    """Start a run on several processes, as torchrun starts them. `body` is called with recipe and environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size), **environment}
    processes = []
    for rank in range(world_size):
        own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(_CONTEXT.Process(target=body, args=(recipe, own)))
        processes[-1].start()
    return list(processes)


def run_many(recipe: dict[str, Any], world_size: int, body: Callable[..., None] = train) -> list[int]:
    """Run a recipe on several processes, as torchrun starts them; return their exit codes."""
    return [finish(process) for process in start_many(recipe, world_size, body)]


def steps_done(run: Path) -> int:
    """Number of the last step in a run's log."""
    rows = read_log(run)
    return int(rows[-1]["step"]) if rows else 0


def wait_for_step(run: Path, step: int, process: BaseProcess, seconds: float = 600) -> None:
    """Return when the log holds `step`, or the process has ended."""
    deadline = time.monotonic() + seconds
    while process.is_alive() and time.monotonic() < deadline:
        if steps_done(run) >= step:
            return
        time.sleep(0.002)


@dataclass(frozen=True, slots=True)
class Kill:
    """Where a run was when it was killed.

    Attributes:
        step: The last step in its log.
        saving: Whether a checkpoint was being written, or an old one removed.
    """

    step: int
    saving: bool


def kill_at_random(recipe: dict[str, Any], kills: int, seed: int = 0) -> list[Kill]:
    """Run a recipe to its end, killed up to `kills` times (-9) at random moments: at the start, in a step, in a save.

    On a crowded machine a run can be done before a kill reaches it, so fewer kills than were meant may come back; the
    run is then complete all the same.
    """
    rng = np.random.default_rng(seed)
    run, steps = Path(recipe["out"]), int(recipe["train"]["steps"])
    done: list[Kill] = []
    while len(done) < kills and steps_done(run) < steps:
        before = _hidden(run)
        process = start(recipe)
        left = steps - steps_done(run)
        ahead = int(rng.integers(0, max(1, left // (kills - len(done)))))
        target = steps_done(run) + ahead
        if ahead:
            wait_for_step(run, target, process)
        # Somewhere in what follows: the start, a step, or the save before it. However fast a step is, not beyond it.
        wait_for_step(run, target + 1, process, seconds=rng.uniform(0, 0.15 if ahead else 1.0))
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            # What an earlier kill left is there until the next save.
            done.append(Kill(steps_done(run), bool(_hidden(run) - before)))
        elif finish(process) != 0:
            raise RuntimeError(f"the run failed with exit code {process.exitcode}")
    code = finish(start(recipe))
    if code != 0:
        raise RuntimeError(f"the run failed with exit code {code}")
    return done


def _hidden(run: Path) -> set[tuple[str, int]]:
    """Folders that a save works in, by name and inode."""
    found = [*(run / FOLDER).glob(".step-*.tmp"), *(run / FOLDER).glob(".step-*.old")]
    return {(path.name, path.stat().st_ino) for path in found}


def differences(left: Path, right: Path) -> list[str]:
    """What differs between two runs: bytes of the last checkpoint, rows of the logs but for their time fields."""
    found = []
    newest = [latest_checkpoint(run) for run in (left, right)]
    if newest[0] is None or newest[1] is None or newest[0].name != newest[1].name:
        return [f"last checkpoints: {newest[0]} and {newest[1]}"]
    for file in sorted(newest[0].iterdir()):
        if file.read_bytes() != (newest[1] / file.name).read_bytes():
            found.append(f"{file.name} of {newest[0].name}")
    rows = [[_untimed(row) for row in read_log(run)] for run in (left, right)]
    if len(rows[0]) != len(rows[1]):
        found.append(f"{len(rows[0])} and {len(rows[1])} rows of log.jsonl")
    found += [f"log row {a['step']}: {a} and {b}" for a, b in zip(*rows, strict=False) if a != b]
    if (left / "ledger.jsonl").read_bytes() != (right / "ledger.jsonl").read_bytes():
        found.append("ledger.jsonl")
    return found


def _untimed(row: dict[str, Any]) -> dict[str, Any]:
    # json writes the shortest text that reads back to the same float, so equal texts are equal bits.
    kept = {key: value for key, value in row.items() if key not in TIME_FIELDS}
    return {key: json.dumps(value) if key != "step" else value for key, value in kept.items()}
