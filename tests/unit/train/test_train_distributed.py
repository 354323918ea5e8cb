"""Several processes compute what one process with the whole batch would."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from train_runs import finish, make_corpus, run_many, start, start_many, steps_done, tiny_recipe, train, wait_for_step
from umif.encoder import load_encoder
from umif.errors import ConfigError, ProcessLostError, RunError, StorageError
from umif.objectives import compute_losses
from umif.train import shard
from umif.train.checkpoint import latest_checkpoint, load_tensors
from umif.train.distributed import joined
from umif.train.durable import Disk
from umif.train.parts import part_file
from umif.train.runfolder import read_log, read_run_json
from umif.train.step import Stepper

if TYPE_CHECKING:
    from collections.abc import Callable

    from umif.models.umif import Features, UmiF

STEPS = 5
# 9 pairs: processes hold 5 and 4, or 3, 2, 2 and 2, as after a bad sample.
DATA = {"kinds_per_step": 3, "pairs_per_kind": 3}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "alone"
    assert finish(start(recipe_of(corpus, run))) == 0
    return run


def recipe_of(corpus: Path, run: Path, **train: Any) -> dict[str, Any]:
    return {**tiny_recipe(corpus, run, steps=STEPS, **train), "data": DATA}


def assert_same_training(left: Path, right: Path) -> None:
    """Losses, gradients and weights agree up to the rounding of sums in another order, in fp32.

    The first step shows what the processes compute; later ones start from weights that rounding has moved already.
    """
    rows = [read_log(run) for run in (left, right)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for number, (a, b) in enumerate(zip(*rows, strict=True)):
        close = 1e-5 if number == 0 else 1e-4
        assert a["pairs"] == b["pairs"]
        for name, value in a["losses"].items():
            assert b["losses"][name] == pytest.approx(value, rel=close)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=10 * close)
    newest = [latest_checkpoint(run) for run in (left, right)]
    tensors: list[dict[str, Any]] = [load_tensors(path) for path in newest if path is not None]
    whole = [torch.cat([t.flatten().double() for _, t in sorted(state.items())]) for state in tensors]
    assert float((whole[0] - whole[1]).norm() / whole[0].norm()) < 1e-5


@pytest.mark.parametrize("world_size", [2, 4])
def test_many_processes_train_as_one(corpus: Path, alone: Path, tmp_path: Path, world_size: int) -> None:
    run = tmp_path / "run"
    assert run_many(recipe_of(corpus, run), world_size) == [0] * world_size
    assert_same_training(alone, run)
    info = read_run_json(run)
    assert info is not None
    assert info["settings"]["world_size"] == world_size


@pytest.mark.parametrize("world_size", [1, 2])
def test_chunks_train_as_whole_batches(corpus: Path, alone: Path, tmp_path: Path, world_size: int) -> None:
    """Of 9 pairs, two processes hold 5 and 4: one has three chunks and the other two."""
    run = tmp_path / "run"
    assert run_many(recipe_of(corpus, run, chunk_pairs=2), world_size) == [0] * world_size
    assert_same_training(alone, run)


@pytest.mark.parametrize("chunk_pairs", [None, 2], ids=["whole", "chunks"])
def test_shards_train_as_copies_and_load_on_other_processes(
    corpus: Path, alone: Path, tmp_path: Path, chunk_pairs: int | None
) -> None:
    """Width 48 and 3 heads share out unevenly over 2 processes, and over 4 some get nothing of a parameter."""
    run = tmp_path / "run"
    recipe = recipe_of(corpus, run, shard="full", save_every=1, keep=10, chunk_pairs=chunk_pairs)
    assert run_many(recipe, 2) == [0, 0]
    assert_same_training(alone, run)
    # Two parts go on as four; those as one, whole; and that as two parts.
    for first, shards, world_size in ((3, "full", 4), (4, "none", 1), (5, "full", 2)):
        for step in range(first, STEPS + 1):
            shutil.rmtree(run / f"checkpoints/step-0000000{step}")
        recipe["train"]["shard"] = shards
        assert run_many(recipe, world_size) == [0] * world_size
        assert_same_training(alone, run)
        files = {file.name for file in (run / f"checkpoints/step-0000000{first}").glob("model*")}
        parts = {part_file("model", rank, world_size) for rank in range(world_size)}
        assert files == (parts if shards == "full" else {"model.safetensors"})


def test_each_process_saves_its_own_part(corpus: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_many(recipe_of(corpus, run, shard="full"), 2) == [0, 0]
    path = latest_checkpoint(run)
    assert path is not None
    parts = [path / part_file("model", rank, 2) for rank in range(2)]
    assert {file.name for file in path.glob("model*")} == {part.name for part in parts}
    held = [load_file(part) for part in parts]
    whole = load_tensors(path)
    sizes = [sum(t.numel() for t in part.values()) for part in held]
    assert sum(sizes) == sum(t.numel() for t in whole.values())
    # What has one row only, places and CLS token, is the first one's.
    assert 0.4 < sizes[1] / sum(sizes) < 0.5
    # Readers need not know: the encoder of a run that was sharded is that of any other.
    alone_path = latest_checkpoint(alone)
    assert alone_path is not None
    left, right = load_encoder(path), load_encoder(alone_path)
    picture = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
    torch.testing.assert_close(left.encode_images(picture), right.encode_images(picture), rtol=1e-3, atol=1e-4)


def count_whole_blocks(recipe: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: train, and at each block write down how many blocks hold whole weights just then."""
    counts: list[int] = []
    models: list[UmiF] = []
    place, run_block = shard.place_model, shard._with_weights

    def placed(model: UmiF, *args: Any) -> None:
        models.append(model)
        place(model, *args)

    def counted(layer: Any, *args: Any) -> torch.Tensor:
        blocks = [*models[0].student.vit.blocks, *models[0].teacher.vit.blocks]  # type: ignore[misc]
        counts.append(sum(not isinstance(block.attn.qkv.weight, DTensor) for block in blocks))
        assert not isinstance(layer.attn.qkv.weight, DTensor)
        return run_block(layer, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("umif.train.start.place_model", placed)
        patch.setattr(shard, "_with_weights", counted)
        try:
            train(recipe, environment)
        finally:
            out = Path(recipe["out"]) / f"whole-{environment['RANK']}.json"
            out.write_text(json.dumps(counts), encoding="utf-8")


@pytest.mark.parametrize("recompute", [False, True])
def test_a_process_holds_the_whole_weights_of_one_block_at_a_time(
    corpus: Path, tmp_path: Path, recompute: bool
) -> None:
    """Of 8 blocks; the next one is fetched while a block runs, where there is something to run beside."""
    run = tmp_path / "run"
    recipe = recipe_of(corpus, run, shard="full")
    recipe["model"] = {**recipe["model"], "depth": 4, "recompute": recompute}
    assert run_many(recipe, 2, count_whole_blocks) == [0, 0]
    for rank in range(2):
        counts = json.loads((run / f"whole-{rank}.json").read_text(encoding="utf-8"))
        assert len(counts) >= 8 * STEPS
        assert set(counts) <= {1, 2}
        assert counts.count(1) >= 8 * STEPS


def train_and_tell(recipe: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: train; what it says goes into a file beside the run folder."""
    said = Path(recipe["out"]).with_name(f"said-{environment['RANK']}.txt")
    with said.open("w") as stream, redirect_stderr(stream):
        train(recipe, environment)


def fail_to_write(recipe: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: train; the second one's disk is full once the run has two checkpoints."""
    write = Disk.write

    def refuse(disk: Disk, descriptor: int, data: memoryview) -> int:
        if environment["RANK"] == "1" and len(list(Path(recipe["out"]).glob("checkpoints/step-*"))) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(disk, descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Disk, "write", refuse)
        train_and_tell(recipe, environment)


def test_a_full_disk_of_one_process_ends_all_and_costs_no_checkpoint(corpus: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = recipe_of(corpus, run, shard="full", save_every=1)
    assert run_many(recipe, 2, fail_to_write) == [StorageError.exit_code, RunError.exit_code]
    for rank in range(2):
        message = (tmp_path / f"said-{rank}.txt").read_text()
        assert "the checkpoint of step 3" in message
        assert "No space left on device (process 1)" in message
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-00000001", "step-00000002"]
    assert run_many(recipe, 2) == [0, 0]
    assert_same_training(alone, run)


def break_third_loss(recipe: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: train with NaN in the third step."""
    calls = []

    def broken(features: Features, spec: Any) -> dict[str, torch.Tensor]:
        calls.append(spec)
        factor = math.nan if len(calls) == 3 else 1.0
        return {name: loss * factor for name, loss in compute_losses(features, spec).items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("umif.train.step.compute_losses", broken)
        train(recipe, environment)


def break_third_loss_ahead(recipe: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: the same as on a GPU, where the device decides that the step is skipped."""
    Stepper.__init__.__kwdefaults__["ahead"] = True  # type: ignore[index]
    break_third_loss(recipe, environment)


@pytest.mark.parametrize("body", [break_third_loss, break_third_loss_ahead])
def test_shards_stay_as_they_are_where_a_loss_is_nan(corpus: Path, tmp_path: Path, body: Callable[..., None]) -> None:
    run = tmp_path / "run"
    recipe = recipe_of(corpus, run, shard="full", save_every=1, keep=10)
    assert run_many(recipe, 2, body) == [0, 0]
    for name in ("model", "optimizer"):
        before, after, later = (load_tensors(run / f"checkpoints/step-0000000{k}", name) for k in (2, 3, 4))
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert not all(torch.equal(after[key], later[key]) for key in after)


def train_ahead(recipe: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: train as on a GPU, results read late."""
    Stepper.__init__.__kwdefaults__["ahead"] = True  # type: ignore[index]
    train(recipe, environment)


@pytest.mark.parametrize("shards", ["none", "full"])
def test_processes_that_run_ahead_train_as_one(corpus: Path, alone: Path, tmp_path: Path, shards: str) -> None:
    run = tmp_path / "run"
    assert run_many(recipe_of(corpus, run, shard=shards), 2, train_ahead) == [0, 0]
    assert_same_training(alone, run)


def test_the_number_of_processes_may_change_on_the_way(corpus: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = recipe_of(corpus, run, save_every=None)
    process = start(recipe)
    wait_for_step(run, 2, process)
    os.kill(process.pid or 0, signal.SIGTERM)
    assert finish(process) == 128 + signal.SIGTERM
    assert 0 < steps_done(run) < STEPS
    assert run_many(recipe, 2) == [0, 0]
    assert_same_training(alone, run)


def die_in_third_step(recipe: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: train; the second one is killed when its third step has its features."""
    calls = []

    def deadly(features: Features, spec: Any) -> dict[str, torch.Tensor]:
        calls.append(spec)
        if len(calls) == 3 and environment["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return compute_losses(features, spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("umif.train.step.compute_losses", deadly)
        train_and_tell(recipe, environment)


@pytest.mark.parametrize("shards", ["none", "full"])
def test_a_process_that_is_killed_ends_the_others_with_a_word_about_it(
    corpus: Path, alone: Path, tmp_path: Path, shards: str
) -> None:
    run = tmp_path / "run"
    recipe = recipe_of(corpus, run, shard=shards, save_every=1)
    assert run_many(recipe, 2, die_in_third_step) == [ProcessLostError.exit_code, -signal.SIGKILL]
    said = (tmp_path / "said-0.txt").read_text()
    assert "another process of the run is gone" in said
    assert "goes on from the last checkpoint" in said
    assert steps_done(run) == 2
    assert run_many(recipe, 2) == [0, 0]
    assert_same_training(alone, run)


def test_processes_stop_together_and_as_many_others_go_on(corpus: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = recipe_of(corpus, run, save_every=None)
    processes = start_many(recipe, 4)
    wait_for_step(run, 2, processes[0])
    # One is told, as a scheduler may tell one node first; the others learn of it within the step.
    os.kill(processes[3].pid or 0, signal.SIGTERM)
    assert {finish(process) for process in processes} == {128 + signal.SIGTERM}
    assert 0 < steps_done(run) < STEPS
    assert run_many(recipe, 2) == [0, 0]
    assert_same_training(alone, run)


def test_an_error_of_the_writing_process_ends_all(corpus: Path, alone: Path, tmp_path: Path) -> None:
    recipe = recipe_of(corpus, alone)
    assert run_many({**recipe, "seed": 9}, 2) == [2, 2]


def test_a_device_that_is_not_there_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "abacus"):
        with pytest.raises(ConfigError, match=r"train\.device"), joined(name):
            pass
    with joined("auto") as processes:
        assert processes.device.type == "cpu"
        assert processes.is_main
