"""Putting a run together before its first step: folder, settings, vocabulary, data, and a new or a restored state."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from umif.corpus import Corpus
from umif.corpus.quarantine import read_quarantine
from umif.errors import ConfigError, RunError
from umif.models.umif import build_model
from umif.objectives import check_objectives
from umif.tokens.loader import StepDataset
from umif.train.checkpoint import latest_checkpoint
from umif.train.leaks import KEY, declared_leaks
from umif.train.optim import build_optimizer
from umif.train.runfolder import RunFolder
from umif.train.shard import place_model
from umif.train.state import TrainState
from umif.train.vocabulary import prepare_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.train.distributed import Processes
    from umif.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Run:
    """What does not change while a run trains.

    Attributes:
        recipe: As given.
        processes: Who takes part.
        folder: The run folder, held by the main process; `None` on the others.
        dataset: Step → this process's batch.
        steps: Of the whole run.
        dtype: What the network computes in: `fp32` or `bf16`.
    """

    recipe: Recipe
    processes: Processes
    folder: RunFolder | None
    dataset: StepDataset
    steps: int
    dtype: str


@contextmanager
def started(recipe: Recipe, processes: Processes, *, resume: bool) -> Iterator[tuple[Run, TrainState]]:
    """Own the run folder and yield the run and its state; new, or from the newest intact checkpoint.

    Raises:
        RunError: the folder is in use, belongs to another corpus or recipe, or has no intact checkpoint.
        ConfigError: an objective, device or size that does not fit.
        LeakError: the corpus leaks into a declared evaluation.
    """
    check_objectives(recipe.objectives)
    fingerprint = Corpus.open(recipe.corpus).fingerprint
    # Read once, so that all processes leave out the same, whatever becomes of the list meanwhile.
    quarantine = processes.on_main(lambda: read_quarantine(recipe.corpus).sha256)
    with _owned(recipe.out, processes) as folder:
        audit = processes.on_main(lambda: None if folder is None else declared_leaks(recipe, folder.read("run.json")))
        settings = _settings(recipe, processes)
        settings = processes.on_main(
            lambda: (
                settings
                if folder is None
                else folder.claim(recipe, fingerprint, settings, resume=resume, quarantine=quarantine)
            )
        )
        with _reproducible(recipe.train.threads or int(settings["threads"]), processes.device):
            tokenizer = prepare_tokenizer(recipe, processes)
            data = (recipe.corpus, tokenizer, recipe.data, recipe.seed, processes.rank, processes.world_size)
            dataset = StepDataset(*data)
            if dataset.quarantine_sha256 != quarantine:
                where = read_quarantine(recipe.corpus).path
                raise RunError("the quarantine list changed while the run was started", where=where, fix="start again")
            run = Run(recipe, processes, folder, dataset, total_steps(recipe, dataset), settings["dtype"])
            state = _new_state(run, fingerprint, tokenizer.vocab_size)
            _restore(run, state)
            if folder is not None:
                # Known only now: what the vocabulary and the corpus came to.
                known = folder.read("run.json") or {}
                found = {} if audit is None else {KEY: audit}
                folder.write("run.json", {**known, **found, "model": state.to_json()["model"], "steps": run.steps})
            yield run, state


def total_steps(recipe: Recipe, dataset: StepDataset) -> int:
    """Return the steps of a run: `train.steps`, or as many as `train.epochs` passes over all pairs take."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    return max(1, round(recipe.train.epochs * sum(dataset.counts.values()) / recipe.batch_size))


def _new_state(run: Run, fingerprint: str, vocab_size: int) -> TrainState:
    recipe = run.recipe
    model = build_model(recipe.model, vocab_size=vocab_size, seed=recipe.seed)
    if model.student.patch_size != recipe.data.patch_size:
        raise ConfigError(
            f"data.patch_size = {recipe.data.patch_size}, but model.backbone = {recipe.model.backbone!r} has patches "
            f"of {model.student.patch_size}",
            where="recipe",
            fix=f"set data.patch_size={model.student.patch_size}",
        )
    place_model(model, run.processes, recipe.train.shard)
    return TrainState(model, build_optimizer(model, recipe.optim), recipe.seed, fingerprint)


def _restore(run: Run, state: TrainState) -> None:
    """Take the newest intact checkpoint, and cut the logs back to its step."""
    folder = run.folder

    def find() -> str | None:
        assert folder is not None
        path = latest_checkpoint(folder.path, set_aside=True)
        return None if path is None else str(path)

    checkpoint = run.processes.on_main(find)
    if checkpoint is not None:
        state.restore(Path(checkpoint))
    if folder is not None:
        folder.truncate("log.jsonl", state.step)
        folder.truncate("ledger.jsonl", state.step)


@contextmanager
def _owned(path: Path, processes: Processes) -> Iterator[RunFolder | None]:
    held: list[RunFolder] = []
    # list.append gives None, which travels to the other processes as JSON; the folder itself does not.
    processes.on_main(lambda: held.append(RunFolder(path)))
    try:
        yield held[0] if held else None
    finally:
        for folder in held:
            folder.close()


def _settings(recipe: Recipe, processes: Processes) -> dict[str, Any]:
    """What the recipe's `auto` comes to on this machine."""
    config, device = recipe.train, processes.device
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bf16" if _computes_bf16(device) else "fp32"
    return {
        "dtype": dtype,
        "device": device.type,
        "threads": config.threads or torch.get_num_threads(),
        "world_size": processes.world_size,
    }


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Elsewhere torch converts back and forth, which is slower than fp32.
    cpu: Any = torch.cpu
    return bool(device.type == "cpu" and (cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()))


def limit_onednn() -> None:
    """Have oneDNN keep few of the products that it compiled; a user's own setting stands.

    Every batch has another number of tokens, and it would keep one for each: gigabytes in a thousand steps. It reads
    this when it is first used.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "64")


@contextmanager
def _reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Compute with so many threads and, on a CPU, sum in a fixed order; leave the caller's settings as they were.

    The last bits of a sum depend on the number of threads, so a run that goes on uses the number that it began with.
    With several threads the gradient of an index would be added up in whatever order they come (atomic adds), but for
    torch's deterministic mode. On CUDA that mode refuses kernels that are wanted, and no bits are promised.
    """
    mode: Any = torch.utils.deterministic  # its one setting is made in C++, where type checkers see none
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        mode.fill_uninitialized_memory,
    )
    torch.set_num_threads(threads)
    limit_onednn()
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # It would also fill fresh memory with NaN, which costs time and changes nothing here.
        mode.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        mode.fill_uninitialized_memory = before[3]
