"""Alignment: the two groups of a pair attract each other against all other features of the batch (UmiF eq. 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from umif.config import register
from umif.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

    from umif.models.umif import Features


def alignment_loss(f1_BD: Tensor, f0_BD: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent between the two groups of each pair.

    Both directions are summed and divided by B, so the value is twice SimCLR's mean over 2B anchors. Each anchor's
    sum runs over the other 2B − 1 features of both groups.

    Shapes: f1_BD, f0_BD: (B, D), any scale. Returns: () fp32 (fp64 for fp64 input).
    Source: UmiF eq. 1, after SimCLR.
    Raises:
        ShapeError: B or D differ between the groups.
        ConfigError: a temperature that is not positive.

    Example:
        >>> f = torch.eye(2)
        >>> round(alignment_loss(f, f, temperature=1.0).item(), 4)
        1.1029
    """
    if f1_BD.shape != f0_BD.shape or f1_BD.ndim != 2:
        raise ShapeError(f"the groups' features differ: {tuple(f1_BD.shape)} and {tuple(f0_BD.shape)}")
    if not temperature > 0:
        raise ConfigError(f"the temperature must be positive, not {temperature}", where="objectives.align.temperature")
    pairs = len(f1_BD)
    z_ND = torch.cat([f1_BD, f0_BD])
    z_ND = F.normalize(z_ND if z_ND.dtype == torch.float64 else z_ND.float(), dim=1)
    with torch.autocast(z_ND.device.type, enabled=False):
        similarity_NN = z_ND @ z_ND.T / temperature
    own = torch.eye(2 * pairs, dtype=torch.bool, device=z_ND.device)
    partner_N = (torch.arange(2 * pairs, device=z_ND.device) + pairs) % (2 * pairs)
    loss = F.cross_entropy(similarity_NN.masked_fill(own, float("-inf")), partner_N, reduction="sum")
    return loss / pairs


@register("objective", "align")
def align(features: Features, temperature: float = 0.1) -> Tensor:
    """UmiF eq. 1 on a batch's features. `temperature` τ; C: 0.1."""
    return alignment_loss(features.f1_BD, features.f0_BD, temperature)
