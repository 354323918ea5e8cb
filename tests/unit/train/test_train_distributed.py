"""Several processes compute what one process with the whole batch would."""

from __future__ import annotations

import math
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from train_runs import finish, make_corpus, run_many, start, start_many, steps_done, tiny_recipe, train, wait_for_step
from umif.errors import ConfigError
from umif.objectives import compute_losses
from umif.train.checkpoint import latest_checkpoint, load_tensors
from umif.train.distributed import joined
from umif.train.runfolder import read_log, read_run_json
from umif.train.step import Stepper

if TYPE_CHECKING:
    from pathlib import Path

    from umif.models.umif import Features

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
    for step in (3, 4, 5):
        shutil.rmtree(run / f"checkpoints/step-0000000{step}")
    # From step 2 on: four parts instead of two; then none.
    assert run_many(recipe, 4) == [0] * 4
    assert_same_training(alone, run)
    shutil.rmtree(run / "checkpoints/step-00000005")
    recipe["train"]["shard"] = "none"
    assert run_many(recipe, 1) == [0]
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


def test_shards_stay_as_they_are_where_a_loss_is_nan(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = recipe_of(corpus, run, shard="full", save_every=1, keep=10)
    assert run_many(recipe, 2, break_third_loss) == [0, 0]
    for name in ("model", "optimizer"):
        before, after, later = (load_tensors(run / f"checkpoints/step-0000000{k}", name) for k in (2, 3, 4))
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert not all(torch.equal(after[key], later[key]) for key in after)


def train_ahead(recipe: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: train as on a GPU, results read late."""
    Stepper.__init__.__kwdefaults__["ahead"] = True  # type: ignore[index]
    train(recipe, environment)


def test_processes_that_run_ahead_train_as_one(corpus: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_many(recipe_of(corpus, run), 2, train_ahead) == [0, 0]
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
