"""Weights, gradients and moments shared out to processes (FSDP2), for networks whose copies would not fit each device.

Student and teacher are one unit: their weights are gathered before the forward pass and given back after the backward
pass, in which gradients are summed straight into each process's part. So a device holds whole weights while it
computes, and between steps, as of gradients, moments and the teacher's average, only its own part. Sums over
processes equal those of `umif.train.gradients`.

A checkpoint holds whole tensors, as without sharding: it loads on any number of processes, sharded or not.

Source: torch.distributed.fsdp.fully_shard, with sums instead of means.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from umif.train.distributed import Processes


def shard_model(model: nn.Module, processes: Processes) -> None:
    """Share the parameters of a model out to all processes, in place."""
    mesh = init_device_mesh(processes.device.type, (processes.world_size,))
    sharded: Any = fully_shard(model, mesh=mesh, reshard_after_forward=False)
    # Sums, not means; and by a plain sum, which every backend knows.
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard_model` was here."""
    return isinstance(model, FSDPModule)


def release(model: nn.Module) -> None:
    """Give whole weights back that a forward pass without a backward pass has left, if the model is sharded."""
    if isinstance(model, FSDPModule):
        model.reshard()


@contextmanager
def one_backward(model: nn.Module, *, last: bool) -> Iterator[None]:
    """Sum gradients over processes in the last backward pass of a step only; before it, collect them."""
    sharded: Any = model
    sharded.set_requires_gradient_sync(last)
    sharded.set_reshard_after_backward(last)
    yield
    if last:
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


@contextmanager
def quiet_forward() -> Iterator[None]:
    """Leave out a warning that speaks of changing a model's output in place, which nothing here does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        yield


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor in one piece, which takes part of every process; any other as it is."""
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full


def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Gather sharded tensors one after the other to the CPU; all processes take part, and one keeps them."""
    gathered = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            gathered[name] = full.cpu()
    return gathered


def like(value: Tensor, tensor: Tensor) -> Tensor:
    """Return `value`, which every process has in one piece, on the device of `tensor` and shared out as that is."""
    moved = value.to(tensor.device, copy=True)
    if not isinstance(tensor, DTensor) or value.ndim == 0:
        return moved
    return distribute_tensor(moved, tensor.device_mesh, tensor.placements, src_data_rank=None)
