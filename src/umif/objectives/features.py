"""What objectives act on: the features of the whole global batch, whatever the number of processes.

Every process gathers all features and computes the whole loss; its own slice carries the gradient. The gradient of the
whole loss with respect to that slice is then exact, since every term in which the slice appears, as anchor or as
negative, is there. Parameter gradients must be *summed* over processes; that equals one process with the whole batch.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from umif.models.umif import Features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# In place of a slot: no pair here. Above every slot, so that it is sorted behind them; exact in fp32, as slots are.
_ABSENT = 2.0**24


def gather_features(
    features: Features, slots_B: Tensor, *, capacity: int | None = None, pairs: int | None = None
) -> Features:
    """Return the global batch's features in slot order; with one process, the same features in fp32.

    Features, slots and, with them, the number of pairs of every process travel in one message. Processes may hold
    different numbers of pairs (bad samples are dropped by id).

    Args:
        features: This process's features.
        slots_B: Position of each pair in the global batch, (B,) int64.
        capacity: The most pairs that any process can hold, the same on all; `None` asks them, in a message of its own.
        pairs: Number of pairs of all processes together, where it is known already; `None` counts them, for which a
            GPU must be waited for.

    Shapes: each (B, D) becomes (sum of all B, D) fp32 (fp64 stays).
    """
    names = [field.name for field in fields(Features) if getattr(features, field.name) is not None]
    local = {name: _exact(getattr(features, name)) for name in names}
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Features(**local)
    rows, slots_N = _all_rows(local, slots_B, _largest(len(slots_B), slots_B.device) if capacity is None else capacity)
    order_N = torch.argsort(slots_N)
    count = int((slots_N < _ABSENT).sum()) if pairs is None else pairs
    return Features(**{name: value[order_N[:count]] for name, value in rows.items()})


def message_columns(widths: Sequence[int]) -> int:
    """Number of values that `gather_features` sends of a pair whose features have these widths."""
    return sum(widths) + 1


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _largest(count: int, device: torch.device) -> int:
    largest = torch.tensor([count], device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def _all_rows(local: dict[str, Tensor], slots_B: Tensor, capacity: int) -> tuple[dict[str, Tensor], Tensor]:
    """Rows of every process, `capacity` each, and their slots; this one's own keep their place in the graph."""
    widths = [value.shape[1] for value in local.values()]
    dtype = torch.promote_types(torch.float32, next(iter(local.values())).dtype)
    count, rank = len(slots_B), dist.get_rank()
    mine = torch.full((capacity, message_columns(widths)), _ABSENT, dtype=dtype, device=slots_B.device)
    mine[:count] = torch.cat([*(value.detach().to(dtype) for value in local.values()), slots_B[:, None].to(dtype)], 1)
    everyone = mine.new_empty((dist.get_world_size() * capacity, mine.shape[1]))
    dist.all_gather(list(everyone.split(capacity)), mine)
    rows: dict[str, Tensor] = {}
    for (name, value), sent in zip(local.items(), everyone[:, :-1].split(widths, dim=1), strict=True):
        before, after = sent[: rank * capacity], sent[rank * capacity + count :]
        rows[name] = torch.cat([before.to(value.dtype), value, after.to(value.dtype)])
    return rows, everyone[:, -1]
