"""Weights, gradients and moments shared out to processes (FSDP2), for networks whose copies would not fit each device.

Every block of student and teacher is a unit of its own; what lies around the blocks (tokenisers, norms, heads) is one
more. A block's weights are gathered before it runs and given back after it, forward and backward, and its gradient is
summed straight into each process's part. So a device holds its own part of weights, gradients, moments and the
teacher's average, the whole weights around the blocks, and of one block or two (the next is fetched ahead). Sums over
processes equal those of `umif.train.gradients`.

Each process saves its own part and reads no more than that (`umif.train.parts`).

Source: torch.distributed.fsdp.fully_shard, with sums instead of means.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    from umif.models.umif import TokenEncoder, UmiF
    from umif.train.distributed import Processes


def place_model(model: UmiF, processes: Processes, how: Literal["none", "full"]) -> None:
    """Move a model to where this process computes, in place: whole, or (`full`) the part of it that is its own."""
    if how == "none" or processes.world_size == 1:
        model.to(processes.device)
    else:
        shard_model(model, processes)


def shard_model(model: UmiF, processes: Processes) -> None:
    """Share the parameters of a model out to all processes, in place, and move them to their device unit by unit."""
    mesh = init_device_mesh(processes.device.type, (processes.world_size,))
    for encoder in (model.student, model.teacher):
        for block in _blocks(encoder):
            block.with_weights = MethodType(_with_weights, block)
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
            register_fsdp_forward_method(block, "with_weights")
        encoder.execution = replace(encoder.execution, sharded=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    # Backward, each unit fetches the next one ahead. Left to guess, FSDP2 would fetch blocks of the teacher, too.
    around: Any = model
    way = [around, *reversed(_blocks(model.student)), around]
    for unit, following in pairwise(way):
        unit.set_modules_to_backward_prefetch([following])
    for unit in model.modules():
        if isinstance(unit, FSDPModule):
            # Sums, not means; and by a plain sum, which every backend knows.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard_model` was here."""
    return isinstance(model, FSDPModule)


def release(model: nn.Module) -> None:
    """Give whole weights back that a forward pass without a backward pass has left, if the model is sharded."""
    if isinstance(model, FSDPModule):
        model.reshard()


@contextmanager
def sharded_backward(model: nn.Module) -> Iterator[None]:
    """Leave the backward pass inside with a gradient for every parameter, as without sharding.

    Gradients are summed over processes in every pass: collecting them over several would take room for whole ones.
    """
    yield
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


def own_part(tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """Return what this process is to save: its rows, if it has any; what all have alike, the main process."""
    held: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            if processes.is_main:
                held[name] = tensor
        elif len(rows := tensor.to_local()):
            held[name] = rows
    return held


def own_rows(tensor: Tensor) -> tuple[int, int] | None:
    """Return the rows [first, last) of a sharded tensor that lie on this process; `None` if it lies on every one.

    Source: torch.chunk's rule, by which FSDP2 deals rows: ⌈rows/N⌉ each, as long as there are any.
    """
    if not isinstance(tensor, DTensor):
        return None
    mesh, rows = tensor.device_mesh, tensor.shape[0]
    first = min(rows, mesh.get_local_rank() * -(-rows // mesh.size()))
    return first, first + len(tensor.to_local())


def placed(part: Tensor, tensor: Tensor) -> Tensor:
    """Return this process's part of a saved tensor on the device of `tensor`, and sharded as that is."""
    moved = part.to(tensor.device, copy=True)
    if not isinstance(tensor, DTensor) or part.ndim == 0:
        return moved
    return DTensor.from_local(
        moved,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def units(model: UmiF) -> dict[str, list[Tensor]]:
    """Return the parameters of each unit: `student.0`, …, `teacher.0`, …, and `around` the blocks."""
    found: dict[str, list[Tensor]] = {}
    for name, encoder in (("student", model.student), ("teacher", model.teacher)):
        for number, block in enumerate(_blocks(encoder)):
            found[f"{name}.{number}"] = list(block.parameters())
    inside = {id(parameter) for parameters in found.values() for parameter in parameters}
    return {"around": [parameter for parameter in model.parameters() if id(parameter) not in inside], **found}


def _blocks(encoder: TokenEncoder) -> list[Any]:
    return list(encoder.vit.blocks)  # type: ignore[arg-type]


def _with_weights(layer: Any, run: Callable[..., Tensor], x_TD: Tensor, segments: Any) -> Tensor:
    """Run a block in a given way; as a method of the block, with its weights gathered around it."""
    return run(layer, x_TD, segments)
