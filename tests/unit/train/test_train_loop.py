"""The loop in one process: what a run leaves behind, and what stops it."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from train_runs import differences, make_corpus, tiny_recipe
from umif.errors import CollapseError, CorpusError, NonFiniteError, RunError, StorageError
from umif.objectives import compute_losses
from umif.tokens.loader import BadSample, StepDataset
from umif.train import durable, loop
from umif.train.checkpoint import latest_checkpoint, load_state, load_tensors
from umif.train.health import Health
from umif.train.loop import PretrainSummary, pretrain
from umif.train.optim import clip_gradients
from umif.train.recipe import Recipe
from umif.train.runfolder import RunFolder, read_log, read_run_json
from umif.train.signals import StopRequest
from umif.train.step import Outcome, Stepper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from umif.models.umif import Features
    from umif.tokens.batch import Batch

    Run = Callable[..., PretrainSummary]

LONG = os.environ.get("UMIF_LONG") == "1"
SPREAD = Health(std=1.0, accuracy=1.0, chance=0.1, alignment=0.1, uniformity=-2.0, effective_rank=9.0)
ALIKE = Health(std=0.01, accuracy=0.1, chance=0.1, alignment=0.0, uniformity=0.0, effective_rank=1.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.getbasetemp())


@pytest.fixture
def run(corpus: Path, tmp_path: Path) -> Run:
    """Train in `tmp_path / name`; keyword arguments go to the recipe's `train`."""

    def go(name: str = "run", changes: dict[str, Any] | None = None, **train: Any) -> PretrainSummary:
        recipe = {**tiny_recipe(corpus, tmp_path / name, **train), **(changes or {})}
        return pretrain(Recipe.model_validate(recipe), progress=False)

    return go


def ledger(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_a_record_of_everything(run: Run, tmp_path: Path, corpus: Path) -> None:
    summary = run(steps=7, log_every=3, save_every=3, tensorboard=True)
    folder = tmp_path / "run"
    assert {"run", "steps", "pairs_per_s", "data_wait_share", "losses"} <= summary.to_json().keys()
    assert summary.losses.keys() == {"align", "con"}
    assert summary.finished
    assert summary.steps == 7
    assert 0 <= summary.data_wait_share <= 1
    info = read_run_json(folder)
    assert info is not None
    assert info["corpus"]["path"] == str(corpus.resolve())
    assert info["recipe"]["train"]["steps"] == info["steps"] == 7
    assert info["starts"][0]["versions"].keys() >= {"umif", "torch", "timm", "python"}
    assert info["settings"]["world_size"] == 1
    rows = read_log(folder)
    assert [row["step"] for row in rows] == list(range(1, 8))
    assert [row["step"] for row in rows if "std" in row] == [3, 6, 7]
    assert rows[-1]["losses"]["align"] == summary.losses["align"]
    assert rows[-1]["losses"]["total"] == pytest.approx(sum(summary.losses.values()), rel=1e-6)
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step-00000006", "step-00000007"]
    assert list((folder / "tb").glob("events*"))
    assert info["model"] == load_state(folder / "checkpoints/step-00000007")["model"]
    # The recipe of the folder starts the same run again.
    assert Recipe.model_validate(info["recipe"]).train.steps == 7


def test_the_first_weights_follow_from_the_seed_and_the_teacher_follows_the_student(run: Run, tmp_path: Path) -> None:
    run("a", steps=1)
    run("b", steps=1)
    run("c", {"seed": 1}, steps=1)
    assert differences(tmp_path / "a", tmp_path / "b") == []
    tensors = [load_tensors(tmp_path / name / "checkpoints/step-00000001") for name in "ac"]
    name = "vit.blocks.0.mlp.fc1.weight"
    assert not torch.equal(tensors[0][f"student.{name}"], tensors[1][f"student.{name}"])
    moved = (tensors[0][f"student.{name}"] - tensors[0][f"teacher.{name}"]).abs().max()
    assert 0 < float(moved) < 2e-3


def test_a_finished_run_says_so_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    first = run(steps=3)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != "run.json"}
    again = run(steps=3)
    assert again == first
    assert before == {p: p.read_bytes() for p in before}


def test_epochs_are_passes_over_all_pairs(run: Run, tmp_path: Path) -> None:
    summary = run(steps=None, epochs=0.5, save_every=None)
    info = read_run_json(tmp_path / "run")
    assert info is not None
    assert summary.steps == info["steps"]
    dataset_pairs = sum(row["pairs"] for row in read_log(tmp_path / "run"))
    assert dataset_pairs == summary.steps * 8
    assert summary.steps >= 1


def test_replay_from_every_step_is_exact(run: Run, tmp_path: Path) -> None:
    steps = 200 if LONG else 5
    run("whole", steps=steps, keep=1000)
    for step in range(1, steps):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        for folder in (copy / "checkpoints").iterdir():
            if int(folder.name.removeprefix("step-")) > step:
                shutil.rmtree(folder)
        run("copy", steps=steps, keep=1000)
        assert differences(tmp_path / "whole", copy) == []
        shutil.rmtree(copy)


def test_two_threads_give_the_same_bits_twice(run: Run, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run("a", steps=3, threads=2)
    run("b", steps=3, threads=2)
    assert differences(tmp_path / "a", tmp_path / "b") == []
    # The caller's settings are the caller's.
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_bf16_is_asked_for_and_kept(run: Run, tmp_path: Path) -> None:
    run(steps=2, dtype="bf16")
    info = read_run_json(tmp_path / "run")
    assert info is not None
    assert info["settings"]["dtype"] == "bf16"
    assert all(math.isfinite(row["losses"]["total"]) for row in read_log(tmp_path / "run"))
    with pytest.raises(RunError, match=r"train\.dtype = 'bf16', not 'fp32'"):
        run(steps=2, dtype="fp32")


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_processor_computes_in_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    run(steps=1, dtype="auto")
    info = read_run_json(tmp_path / "run")
    assert info is not None
    assert info["settings"]["dtype"] == chosen


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 5}, "seed = 0, not 5"),
        ({"optim": {"lr": 0.5}}, "optim.lr = 0.001, not 0.5"),
        ({"tokenizer": {"vocab_size": 401}}, "tokenizer.vocab_size = 400, not 401"),
    ],
)
def test_another_recipe_is_refused_and_the_key_is_named(
    run: Run, tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    run(steps=1)
    with pytest.raises(RunError) as caught:
        run("run", changes, steps=1)
    assert key in str(caught.value)
    assert "another `out`" in str(caught.value)


def test_another_corpus_is_refused(run: Run, tmp_path: Path) -> None:
    run(steps=1)
    file = tmp_path / "run/run.json"
    info = json.loads(file.read_text(encoding="utf-8"))
    info["corpus"]["fingerprint"] = "0" * 64
    file.write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(RunError, match="learns from the corpus"):
        run(steps=1)


def test_a_run_is_not_gone_on_with_unasked(run: Run, tmp_path: Path, corpus: Path) -> None:
    run(steps=1)
    recipe = Recipe.model_validate(tiny_recipe(corpus, tmp_path / "run", steps=1))
    with pytest.raises(RunError, match="already holds a run"):
        pretrain(recipe, resume=False, progress=False)


def test_a_folder_in_use_is_refused(run: Run, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"), pytest.raises(RunError, match="another process"):
        run(steps=1)
    run(steps=1)


def test_a_file_system_without_locks_is_told_from_a_folder_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("umif.train.runfolder.fcntl.flock", refuse)
    with pytest.raises(StorageError, match="cannot be locked against other processes: No locks available"):
        RunFolder(tmp_path / "run")


def break_losses(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the loss of the steps (counted from 1, over all runs of the test) NaN."""
    calls = 0

    def broken(features: Features, spec: Any) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        losses = compute_losses(features, spec)
        return {name: loss * math.nan for name, loss in losses.items()} if calls in steps else losses

    monkeypatch.setattr("umif.train.step.compute_losses", broken)


def break_gradients(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    calls = 0

    def broken(model: nn.Module, largest: float | None) -> Tensor:
        nonlocal calls
        calls += 1
        if calls in steps:
            gradient = next(p.grad for p in model.parameters() if p.grad is not None)
            gradient.view(-1)[0] = math.inf
        return clip_gradients(model, largest)

    monkeypatch.setattr("umif.train.step.clip_gradients", broken)


def run_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave results on the device, as on a GPU."""
    monkeypatch.setattr(loop, "Stepper", functools.partial(Stepper, ahead=True))


@pytest.mark.parametrize("ahead", [False, True], ids=["at once", "ahead"])
@pytest.mark.parametrize(("injure", "stage"), [(break_losses, "loss"), (break_gradients, "gradient")])
def test_nan_is_caught_before_the_update(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, injure: Callable[..., None], stage: str, ahead: bool
) -> None:
    if ahead:
        run_ahead(monkeypatch)
    injure(monkeypatch, {3})
    run(steps=5, keep=10)
    folder = tmp_path / "run"
    for name in ("model", "optimizer"):
        before, after, later = (load_tensors(folder / f"checkpoints/step-0000000{k}", name) for k in (2, 3, 4))
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert not all(torch.equal(after[key], later[key]) for key in after)
    (row,) = ledger(folder)
    assert row["step"] == 3
    assert row["stage"] == stage
    assert len(row["pairs"]) == 8
    assert all("#" in pair for pair in row["pairs"])
    assert [r.get("skipped") for r in read_log(folder)] == [None, None, stage, None, None]


def test_reading_results_late_changes_nothing_that_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third step is looked at and every fifth saved; the others are read while the next is under way."""
    options: dict[str, Any] = {"steps": 11, "log_every": 3, "save_every": 5}
    run("a", **options)
    steps: list[int] = []

    class Unread(Stepper):
        """Does a step without a look at a tensor's value, for which a GPU would have to be waited for."""

        def step(self, step: int, *args: Any, **options: Any) -> Outcome:
            steps.append(step)
            with monkeypatch.context() as blind:
                for name in ("item", "__float__", "__int__", "__bool__"):
                    blind.setattr(torch.Tensor, name, None)
                return super().step(step, *args, **options)

    monkeypatch.setattr(loop, "Stepper", functools.partial(Unread, ahead=True))
    run("b", **options)
    rows = [read_log(tmp_path / name) for name in "ab"]
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]
    for a, b in zip(*rows, strict=True):
        assert (a["step"], a["pairs"], a["lr"]) == (b["step"], b["pairs"], b["lr"])
        # The teacher moves by another formula; of a small loss that is left where much cancels, its rounding is more.
        assert b["losses"] == pytest.approx(a["losses"], rel=1e-5, abs=1e-5)
    path = "checkpoints/step-00000011"
    assert steps == list(range(11))
    states = [load_state(tmp_path / name / path) for name in "ab"]
    assert states[1].pop("losses") == pytest.approx(states[0].pop("losses"), rel=1e-5, abs=1e-5)
    assert states[0] == states[1]
    for name in ("model", "optimizer"):
        tensors = [load_tensors(tmp_path / which / path, name) for which in "ab"]
        for key, value in tensors[0].items():
            torch.testing.assert_close(tensors[1][key], value, rtol=1e-3, atol=1e-5)


def test_three_steps_in_a_row_with_nan_stop_the_run_and_fewer_do_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_losses(monkeypatch, {1, 2, 4, 5, 7, 8, 9})
    with pytest.raises(NonFiniteError, match="3 steps in a row, up to 9"):
        run(steps=12)
    assert [row["step"] for row in ledger(tmp_path / "run")] == [1, 2, 4, 5, 7, 8, 9]
    # The last checkpoint is of the step before; going on repeats what led here, and the ledger holds it once.
    monkeypatch.setattr("umif.train.step.compute_losses", compute_losses)
    run(steps=12)
    assert [row["step"] for row in ledger(tmp_path / "run")] == [1, 2, 4, 5, 7, 8]


def look_like(monkeypatch: pytest.MonkeyPatch, health: Callable[[int], Health]) -> None:
    looks = 0

    def seen(_: Features) -> Health:
        nonlocal looks
        looks += 1
        return health(looks)

    monkeypatch.setattr(loop, "feature_health", seen)


def test_features_that_stay_collapsed_stop_the_run_after_a_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_like(monkeypatch, lambda look: ALIKE if look > 2 else SPREAD)
    with pytest.raises(CollapseError, match="at step 5") as caught:
        run(steps=20, log_every=1, save_every=None, collapse_patience=3)
    assert "optim.lr" in str(caught.value)
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    assert newest.name == "step-00000005"


def test_warm_up_and_a_passing_weakness_do_not_stop_a_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    look_like(monkeypatch, lambda look: SPREAD if look in (6, 8, 10) else ALIKE)
    optim = {"lr": 1e-3, "warmup_share": 0.5}
    assert run("run", {"optim": optim}, steps=10, log_every=1, collapse_patience=2).finished


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Report a bad sample at each of the steps (counted from 0)."""
    original = StepDataset.__getitem__

    def spoiled(self: StepDataset, step: int) -> tuple[Batch, list[BadSample]]:
        batch, bad = original(self, step)
        more = [BadSample(pair="x#class", row=1, slot=2, hash="0", stage="decode", error="broken")]
        return batch, bad + (more if step in steps else [])

    monkeypatch.setattr(StepDataset, "__getitem__", spoiled)


def test_bad_samples_are_rows_of_the_ledger(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {1, 4})
    assert run(steps=6).bad_samples == 2
    rows = ledger(tmp_path / "run")
    assert [row["step"] for row in rows] == [2, 5]
    assert rows[0] == {
        "step": 2, "pair": "x#class", "row": 1, "slot": 2, "hash": "0", "stage": "decode", "error": "broken",
    }  # fmt: skip


def test_too_many_bad_samples_stop_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_FEW_BAD", 3)
    spoil(monkeypatch, set(range(1, 100)))
    with pytest.raises(CorpusError, match="3 of 35 samples"):
        run("a", steps=6)
    assert run("b", steps=5, max_bad_share=0.5).bad_samples == 4
    with pytest.raises(CorpusError, match="1 of 17 samples"):
        run("c", steps=6, max_bad_share=0.0)


def test_a_disk_that_fills_up_costs_no_finished_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("whole", steps=6)
    written = 0
    original = durable.Disk.write

    def full(self: durable.Disk, descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        if written > 6_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(durable.Disk, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            run(steps=6)
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    assert run(steps=6).finished
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_progress_is_plain_lines_where_there_is_no_terminal(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(Recipe.model_validate(tiny_recipe(corpus, tmp_path / "run", steps=6)))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert "begins: 6 steps of 8 pairs" in lines[0]
    assert [line.split()[1] for line in lines[1:-1]] == ["3/6", "6/6"]
    for word in ("align", "con", "std", "acc", "unif", "lr", "pairs/s", "wait"):
        assert word in lines[1]
    assert "finished after step 6" in lines[-1]


def test_signals_are_remembered_and_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopRequest() as stop:
        assert stop.received is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == "SIGTERM"
        # Asked twice by hand, it leaves at once.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.received == "SIGTERM"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
