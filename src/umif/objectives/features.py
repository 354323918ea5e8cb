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
    from torch import Tensor


def gather_features(features: Features, slots_B: Tensor) -> Features:
    """Return the global batch's features in slot order; with one process, the same features in fp32.

    Processes may hold different numbers of pairs (bad samples are dropped by id).

    Args:
        features: This process's features.
        slots_B: Position of each pair in the global batch, (B,) int64.

    Shapes: each (B, D) becomes (sum of all B, D) fp32 (fp64 stays).
    """
    names = [field.name for field in fields(Features) if getattr(features, field.name) is not None]
    local = {name: _exact(getattr(features, name)) for name in names}
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Features(**local)
    counts = _all_counts(len(slots_B), slots_B.device)
    order = torch.argsort(torch.cat(_all_gather(slots_B, counts)))
    return Features(**{name: torch.cat(_all_gather(value, counts))[order] for name, value in local.items()})


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _all_counts(count: int, device: torch.device) -> list[int]:
    mine = torch.tensor([count], device=device)
    counts = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    return [int(c) for c in counts]


def _all_gather(x: Tensor, counts: list[int]) -> list[Tensor]:
    """Rows of every process; this one's own keep their place in the graph."""
    longest = max(counts)
    padded = x.detach().new_zeros((longest, *x.shape[1:]))
    padded[: len(x)] = x.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    rows = [part[:count] for part, count in zip(parts, counts, strict=True)]
    rows[dist.get_rank()] = x
    return rows
