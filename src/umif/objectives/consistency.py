"""Consistency: both groups approach the view that the teacher has of all tokens (UmiF eq. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from umif.config import register
from umif.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

    from umif.models.umif import Features


def consistency_loss(teacher_BD: Tensor, f1_BD: Tensor, f0_BD: Tensor) -> Tensor:
    """Mean over pairs of 2 − 2 cos(t, f0) + 2 − 2 cos(t, f1).

    It falls during a collapse, too: never judge a run by it alone.

    Shapes: (B, D) each, any scale. Returns: () fp32 (fp64 for fp64 input). No gradient flows into `teacher_BD`.
    Source: UmiF eq. 2, after BYOL.
    Raises:
        ShapeError: the shapes differ.

    Example:
        >>> t = torch.eye(2)
        >>> consistency_loss(t, t, -t).item()
        4.0
    """
    if not teacher_BD.shape == f1_BD.shape == f0_BD.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (teacher_BD, f1_BD, f0_BD))
        raise ShapeError(f"the features differ in shape: {shapes}")

    def cosine(f_BD: Tensor) -> Tensor:
        exact = torch.float64 if f_BD.dtype == torch.float64 else torch.float32
        return F.cosine_similarity(teacher_BD.detach().to(exact), f_BD.to(exact), dim=1)

    return (2 - 2 * cosine(f0_BD) + 2 - 2 * cosine(f1_BD)).mean()


@register("objective", "con")
def con(features: Features) -> Tensor:
    """UmiF eq. 2 on a batch's features; the predictor's outputs stand in for the student's where there is one."""
    f1_BD = features.f1_BD if features.p1_BD is None else features.p1_BD
    f0_BD = features.f0_BD if features.p0_BD is None else features.p0_BD
    return consistency_loss(features.teacher_BD, f1_BD, f0_BD)
