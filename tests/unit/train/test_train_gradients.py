"""Sums of gradients overlap with the backward pass and are the same, bit for bit, as sums after it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from train_runs import run_many
from umif.train.gradients import GradientSum, fill_buckets


class Network(nn.Module):
    """Four layers, of which the first is left out of the graph on request, and one frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.layers[1].requires_grad_(False)

    def forward(self, x_BD: Tensor, *, with_unused: bool) -> Tensor:
        for layer in self.layers:
            x_BD = torch.tanh(layer(x_BD))
        result = x_BD.square().sum()
        return result + self.unused(x_BD[:, :3]).sum() if with_unused else result


def one_process(options: dict[str, Any], environment: dict[str, str]) -> None:
    """Sum by hand after the backward pass, then while it runs; write down whether the bits agree."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    import umif.train.gradients as module

    module.BUCKET_BYTES = options["bucket_bytes"]
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = Network()
    x_BD = torch.randn(5, 16, generator=torch.Generator().manual_seed(rank))
    passes = [x_BD, x_BD.flip(0)]
    for x in passes:
        model(x, with_unused=rank == 0).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    plain = []
    for bucket in fill_buckets(trained):
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in bucket])
        dist.all_reduce(flat)
        plain.append(flat)
    model.zero_grad()
    summed = GradientSum(model, dist.get_world_size())
    early: list[int] = []
    model.get_parameter("layers.0.weight").register_hook(lambda _: early.append(len(summed._sent)))
    model(passes[0], with_unused=rank == 0).backward()
    with summed.during_backward():
        model(passes[1], with_unused=rank == 0).backward()
    after = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    found = {
        "same": torch.equal(torch.cat(plain), after),
        "buckets": len(summed.buckets),
        "early": early[-1],
        "frozen": model.get_parameter("layers.1.weight").grad is None,
        "bytes": summed.bytes == 4 * sum(p.numel() for p in trained),
        "hooks": sum(len(p._post_accumulate_grad_hooks or {}) for p in trained),
    }
    Path(options["out"], f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_sum_is_that_of_a_sum_after_the_pass_and_begins_within_it(tmp_path: Path, world_size: int) -> None:
    assert run_many({"out": str(tmp_path), "bucket_bytes": 600}, world_size, one_process) == [0] * world_size
    for rank in range(world_size):
        found = json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8"))
        # The last buckets have left before the first layer, which ends the fourth, has its gradient.
        assert found.pop("early") in ({2, 3} if world_size > 1 else {0})
        assert found == {"same": True, "buckets": 4, "frozen": True, "bytes": True, "hooks": 0}


def test_buckets_hold_every_tensor_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umif.train.gradients.BUCKET_BYTES", 64)
    gradients = [torch.zeros(n) for n in (3, 30, 1, 1, 1, 20)] + [torch.zeros(2, dtype=torch.float64)]
    buckets = list(fill_buckets(gradients))
    assert [id(g) for bucket in buckets for g in bucket] == [id(g) for g in gradients]
    assert [len(bucket) for bucket in buckets] == [2, 4, 1]
