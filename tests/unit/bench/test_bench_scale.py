"""What many processes send is what is computed, and the model and the cost follow from what they say they assume."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from train_runs import run_many
from umif.bench.cost import GFLOP_PER_PAIR, measured_cost, paper_cost
from umif.bench.flops import umif_step
from umif.bench.pairs import mixed_batch
from umif.bench.scale import AGREED, Cluster, measure, predict_many, sharded_traffic, traffic
from umif.bench.scale_run import VOCABULARY, Load, build_stepper, model_config, shared_pairs
from umif.cli import main
from umif.models.umif import ModelConfig, UmiF
from umif.train.distributed import joined

LOAD = Load(pairs=6, image_size=32, width=32, depth=1, heads=2)


def count_what_is_sent(options: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: do one step and write down the size of every message."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    sizes: dict[str, list[int]] = {"reduce": [], "gather": []}
    with joined("cpu") as processes, pytest.MonkeyPatch.context() as patch:
        stepper = build_stepper(LOAD, processes)
        batch = shared_pairs(LOAD, 0, processes.rank, processes.world_size)
        reduce, gather = dist.all_reduce, dist.all_gather

        def counted_reduce(tensor: torch.Tensor, *args: Any, **named: Any) -> Any:
            sizes["reduce"].append(tensor.nbytes)
            return reduce(tensor, *args, **named)

        def counted_gather(parts: list[torch.Tensor], tensor: torch.Tensor) -> Any:
            sizes["gather"].append(tensor.nbytes)
            return gather(parts, tensor)

        patch.setattr(dist, "all_reduce", counted_reduce)
        patch.setattr(dist, "all_gather", counted_gather)
        stepper.step(0, batch, [], stop=False, save=False)
        parameters = sum(p.numel() for p in stepper.state.model.parameters() if p.requires_grad)
    if processes.is_main:
        Path(options["out"]).write_text(json.dumps({**sizes, "parameters": parameters}), encoding="utf-8")


def test_a_step_sends_what_is_computed(tmp_path: Path) -> None:
    out = tmp_path / "sent.json"
    assert run_many({"out": str(out)}, 2, count_what_is_sent) == [0, 0]
    sent = json.loads(out.read_text(encoding="utf-8"))
    expected = traffic(sent["parameters"], 32, LOAD.pairs, 2)
    # Round a ring of two, a process sends its all-reduced bytes once: 2 (N − 1) / N = 1.
    agreement, *gradients = sent["reduce"]
    assert agreement == AGREED * 8 == expected.agreement
    assert sum(gradients) == expected.gradients
    assert sent["gather"] == [expected.features] == [3 * (3 * 32 + 1) * 4]
    assert expected.messages == len(sent["reduce"]) + len(sent["gather"])


class Sent(TorchDispatchMode):
    """Bytes that each collective of torch's sends from this process round a ring, by kind, in order."""

    def __init__(self, processes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.processes = processes
        self.bytes: dict[str, list[int]] = {"gather": [], "scatter": [], "reduce": []}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name.startswith(("c10d.", "_c10d_functional.")):
            others = self.processes - 1
            if "allgather" in name or "all_gather" in name:
                # Its output, (whole, part, …) or ([parts], [part], …).
                part = args[1] if isinstance(args[1], torch.Tensor) else args[1][0]
                self.bytes["gather"].append(others * part.nbytes)
            elif "reduce_scatter" in name:
                self.bytes["scatter"].append(others * args[0].nbytes)
            elif "allreduce" in name or "all_reduce" in name:
                whole = args[0] if isinstance(args[0], torch.Tensor) else args[0][0]
                self.bytes["reduce"].append(2 * others * whole.nbytes // self.processes)
        return func(*args, **(kwargs or {}))


def count_what_shards_send(options: dict[str, Any], environment: dict[str, str]) -> None:
    """Body of a process: do one step on shared weights and write down the size of every message."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    load = replace(LOAD, depth=2, shard="full", chunk_pairs=options["chunk_pairs"])
    with joined("cpu") as processes:
        stepper = build_stepper(load, processes)
        batch = shared_pairs(load, 0, processes.rank, processes.world_size)
        with Sent(processes.world_size) as sent:
            stepper.step(0, batch, [], stop=False, save=False)
    if processes.is_main:
        Path(options["out"]).write_text(json.dumps(sent.bytes), encoding="utf-8")


# Of 6 pairs two processes hold 3 each: in one pass, or in chunks of 2 and 1.
@pytest.mark.parametrize(("chunk_pairs", "passes"), [(None, 1), (2, 2)])
def test_shared_weights_send_what_is_computed(tmp_path: Path, chunk_pairs: int | None, passes: int) -> None:
    out = tmp_path / "sent.json"
    assert run_many({"out": str(out), "chunk_pairs": chunk_pairs}, 2, count_what_shards_send) == [0, 0]
    sent = json.loads(out.read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = UmiF(model_config(replace(LOAD, depth=2)))
    expected = sharded_traffic(model, LOAD.pairs, 2, passes=passes)
    assert sum(sent["gather"]) == expected.weights + expected.features
    assert sum(sent["scatter"]) == expected.gradients
    assert sent["reduce"] == [expected.agreement]
    # The gradient's norm, one number, is summed within an operation on sharded tensors, below what `Sent` sees.
    assert sum(map(len, sent.values())) == expected.messages - 1


def test_one_process_sends_nothing() -> None:
    assert traffic(10, 8, 4, 1).total == 0
    assert sharded_traffic(UmiF(model_config(LOAD)), 4, 1).total == 0


def test_shared_pairs_are_those_of_one_process() -> None:
    whole, parts = shared_pairs(LOAD, 3), [shared_pairs(LOAD, 3, rank, 2) for rank in range(2)]
    assert whole.slots_B.tolist() == sorted(torch.cat([part.slots_B for part in parts]).tolist())
    torch.testing.assert_close(whole.images_NHW[1::2], parts[1].images_NHW)


@pytest.mark.slow
def test_processes_are_measured_against_one() -> None:
    rows = measure([1, 2], LOAD, rounds=1)
    assert [row["processes"] for row in rows] == [1, 2]
    assert rows[0]["efficiency"] == 1.0
    assert rows[0]["work"] == 1.0
    assert rows[1]["work"] == pytest.approx(rows[0]["processor_s"] / rows[1]["processor_s"])
    assert rows[1]["efficiency"] == pytest.approx(rows[0]["seconds"] / rows[1]["seconds"] / 2)


def test_the_model_of_many_gpus_loses_to_what_it_assumes() -> None:
    found = predict_many(Cluster())
    assert found["measured"] is False
    same_batch, same_share = found["same_batch"], found["same_share"]
    assert [row["gpus"] for row in same_batch] == [1, 8, 16, 32, 64, 128, 256, 512]
    for rows in (same_batch, same_share):
        assert all(row["efficiency"] <= 1.0 for row in rows)
        shares = [row["efficiency"] for row in rows]
        assert shares == sorted(shares, reverse=True)
    # A step cannot be shorter than the host needs to launch it.
    assert same_batch[-1]["compute_ms"] >= 25
    free = Cluster(launch_s=0, latency_s=0, inside=1e30, between=1e30, flops=1e30)
    assert all(row["efficiency"] == pytest.approx(1.0) for row in predict_many(free)["same_batch"])


def test_the_operations_of_a_pair_are_those_that_are_counted() -> None:
    with torch.device("meta"):
        model = UmiF(ModelConfig(vocab_size=VOCABULARY))
    counted = [umif_step(model, mixed_batch(seed, 64, image_size=224, vocab_size=VOCABULARY)) / 64 for seed in range(4)]
    assert statistics.mean(counted) / 1e9 == pytest.approx(GFLOP_PER_PAIR, rel=1e-3)


def test_cost_follows_from_the_rate() -> None:
    measured = measured_cost(1000.0, devices=2, watts=500.0, pairs=3_600_000, epochs=10)
    assert measured["hours"] == [10.0, 10.0]
    assert measured["kwh"] == [10.0, 10.0]
    rows = paper_cost()
    assert [row["rate_from"] for row in rows] == ["assumed"] * 3
    assert rows[0]["pairs_per_s"] == pytest.approx([788e3 * share / GFLOP_PER_PAIR for share in (0.35, 0.50)])
    for row in rows:
        assert row["hours"] == sorted(row["hours"])
        assert row["hours"][0] == pytest.approx(83e6 / row["pairs_per_s"][1] / 3600)


def test_the_verb_prints_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--cost", "--pairs-per-s", "1500", "--devices", "8", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["cost"]
    assert rows[-1]["pairs_per_s"] == [12000.0, 12000.0]
    assert main(["bench", "scale", "--cost"]) == 0
    assert "16 × V100" in capsys.readouterr().out


def test_the_verb_measures_and_predicts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    command = ["bench", "scale", "--processes", "1", "--pairs", "4", "--rounds", "1", "--out", str(out)]
    assert main(command) == 0
    assert "not measured" in capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found.keys() == {"hardware", "load", "results", "model"}
