"""A run that is killed, stopped or started twice goes on as if nothing had happened: equal to the last bit."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from train_runs import (
    differences,
    finish,
    kill_at_random,
    make_corpus,
    run_many,
    start,
    steps_done,
    tiny_recipe,
    wait_for_step,
)
from umif.train.checkpoint import latest_checkpoint
from umif.train.runfolder import read_log

if TYPE_CHECKING:
    from pathlib import Path

LONG = os.environ.get("UMIF_LONG") == "1"
KILLS, STEPS = (200, 1200) if LONG else (6, 48)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "undisturbed"
    assert finish(start(tiny_recipe(corpus, run, steps=STEPS)), 600) == 0
    return run


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_no_bit(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    kills = 0
    # One run, unless it was done before all kills could reach it; every run that was disturbed is compared.
    for attempt in range(6):
        run = tmp_path / f"run{attempt}"
        kills += len(kill_at_random(tiny_recipe(corpus, run, steps=STEPS), KILLS - kills, seed=attempt))
        assert len(read_log(run)) == STEPS
        assert differences(undisturbed, run) == []
        if kills == KILLS:
            break
    assert kills == KILLS


@pytest.mark.slow
def test_a_run_whose_last_checkpoint_was_damaged_goes_on_from_the_one_before(
    corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = tiny_recipe(corpus, run, steps=STEPS)
    process = start(recipe)
    wait_for_step(run, 5, process)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    newest = latest_checkpoint(run)
    assert newest is not None
    with (newest / "model.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00\xff")
    assert finish(start(recipe)) == 0
    assert (newest.with_name(newest.name + ".bad")).exists()
    assert differences(undisturbed, run) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_leaves(
    corpus: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    # No checkpoint but the one that the signal asks for.
    recipe = tiny_recipe(corpus, run, steps=STEPS, save_every=None, save_every_seconds=None)
    process = start(recipe)
    wait_for_step(run, 4, process)
    os.kill(process.pid or 0, number)
    asked = time.monotonic()
    assert finish(process, 30) == 128 + number
    assert time.monotonic() - asked < 30
    newest = latest_checkpoint(run)
    assert newest is not None
    assert newest.name == f"step-{steps_done(run):08d}"
    assert not (run / "summary.json").exists()
    assert finish(start(recipe)) == 0
    assert differences(undisturbed, run) == []


@pytest.mark.slow
def test_of_many_processes_in_one_run_folder_one_trains(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = tiny_recipe(corpus, run, steps=STEPS)
    processes = [start(recipe) for _ in range(8 if LONG else 3)]
    codes = sorted(finish(process) for process in processes)
    # Who comes when the winner is done finds a finished run, which is no error.
    assert set(codes) <= {0, 2}
    assert 0 in codes
    assert differences(undisturbed, run) == []


@pytest.mark.slow
def test_the_number_of_loader_workers_may_change_on_the_way(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(tiny_recipe(corpus, run, steps=STEPS, workers=1))
    wait_for_step(run, 4, process)
    os.kill(process.pid or 0, signal.SIGTERM)
    finish(process)
    assert steps_done(run) < STEPS
    assert run_many(tiny_recipe(corpus, run, steps=STEPS, workers=2), 1) == [0]
    assert differences(undisturbed, run) == []
