"""Steps on synthetic pairs, on one process of many: what `umif bench scale` and the memory benchmark time.

A step is the training loop's own (`umif.train.step.Stepper`); only the pairs are made up, so no corpus is needed.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from umif.bench.hardware import forget_peak, memory_mib
from umif.bench.pairs import mixed_batch

if TYPE_CHECKING:
    from umif.models.umif import ModelConfig
    from umif.tokens.batch import Batch
    from umif.train.distributed import Processes
    from umif.train.step import Stepper

VOCABULARY = 4000


@dataclass(frozen=True, slots=True)
class Load:
    """What each step computes.

    Attributes:
        pairs: Of the global batch.
        image_size: Side of a picture, pixels; patches have 16.
        width, depth, heads: Of the network; None = ViT-Tiny's.
        chunk_pairs, shard: See `train.chunk_pairs` and `train.shard`.
    """

    pairs: int = 64
    image_size: int = 128
    width: int | None = None
    depth: int | None = 4
    heads: int | None = None
    chunk_pairs: int | None = None
    shard: Literal["none", "full"] = "none"


def shared_pairs(load: Load, seed: int, rank: int = 0, world_size: int = 1) -> Batch:
    """Return a process's slots of the global batch of this load."""
    return mixed_batch(
        seed, load.pairs, image_size=load.image_size, vocab_size=VOCABULARY, rank=rank, world_size=world_size
    )


def build_stepper(load: Load, processes: Processes, *, steps: int = 10_000, dtype: str = "fp32") -> Stepper:
    """Return what does the steps of a run with this load, from weights of seed 0."""
    from umif.models.umif import build_model
    from umif.train.optim import build_optimizer
    from umif.train.recipe import Recipe
    from umif.train.shard import place_model
    from umif.train.start import Run
    from umif.train.state import TrainState
    from umif.train.step import Stepper

    recipe = Recipe.model_validate(
        {
            "corpus": Path("none"),
            "out": Path("none"),
            "model": model_config(load).model_dump(),
            "data": {"kinds_per_step": 1, "pairs_per_kind": load.pairs},
            "train": {
                "steps": steps,
                "chunk_pairs": load.chunk_pairs,
                "shard": load.shard,
                "device": str(processes.device),
            },
        }
    )
    model = build_model(recipe.model)
    place_model(model, processes, load.shard)
    state = TrainState(model, build_optimizer(model, recipe.optim), recipe.seed, "none")
    nothing: Any = None  # no step asks where pairs come from
    return Stepper(Run(recipe, processes, None, nothing, steps, dtype), state)


def model_config(load: Load) -> ModelConfig:
    """Return the network of a load."""
    from umif.models.umif import ModelConfig

    sizes = {"width": load.width, "depth": load.depth, "heads": load.heads}
    return ModelConfig(backbone="vit_tiny_patch16_224", image_size=load.image_size, vocab_size=VOCABULARY, **sizes)


def time_process(rank: int, world_size: int, port: int, load: Load, rounds: int, threads: int, queue: Any) -> None:
    """Body of a process: do steps with the others.

    The first one puts into the queue the median of the steps' seconds on the wall, the mean of their seconds of
    processor time over all processes, and the most memory that a process held in a step above what it held before
    there was a model, MiB.
    """
    import torch

    from umif.train.distributed import joined

    torch.set_num_threads(threads)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world_size, "RANK": rank}
    os.environ.update({name: str(value) for name, value in where.items()})
    with joined("cpu") as processes:
        batch = shared_pairs(load, 0, rank, world_size)
        before = memory_mib("VmRSS")
        stepper = build_stepper(load, processes)
        forget_peak()
        seconds, spent = [], []
        for step in range(rounds + 1):
            batch = shared_pairs(load, step, rank, world_size)
            processes.total([0])  # all begin together
            start, worked = time.perf_counter(), time.process_time()
            stepper.step(step, batch, [], stop=False, save=False)
            seconds.append(time.perf_counter() - start)
            spent.append(time.process_time() - worked)
        (work,) = processes.total([statistics.mean(spent[1:])])
        held = max(processes.gather(memory_mib("VmHWM") - before))
        if processes.is_main:
            queue.put((statistics.median(seconds[1:]), work, held))
