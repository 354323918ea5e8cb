"""The weighted sum of the objectives that a recipe names."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from umif.config import REGISTRY
from umif.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from umif.models.umif import Features

Spec = dict[str, dict[str, Any]]
PAPER: Spec = {"align": {}, "con": {}}


def check_objectives(spec: Mapping[str, Mapping[str, Any]]) -> None:
    """Check every name and argument before a run begins.

    Raises:
        RegistryError: an objective of that name is not registered.
        ConfigError: an argument that it does not take, naming the nearest, or no objective at all.
    """
    if not spec:
        raise ConfigError("names no objective", where="objectives", fix="for example {align: {}, con: {}}")
    for name, arguments in spec.items():
        known = [p for p in inspect.signature(REGISTRY.get("objective", name)).parameters if p != "features"]
        for argument in arguments or {}:
            if argument not in (*known, "weight"):
                raise ConfigError(
                    f"the objective {name!r} takes no {argument!r}",
                    where=f"objectives.{name}",
                    fix=nearest(argument, [*known, "weight"]),
                )


def compute_losses(features: Features, spec: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Compute every objective in `spec` and their weighted sum.

    Args:
        features: Of the whole global batch (`gather_features`).
        spec: Objective name → its arguments; `weight` (1.0) is the factor in the sum.

    Shapes: returns name → () each, unweighted, and `total`.
    """
    losses: dict[str, Tensor] = {}
    total = torch.zeros((), device=features.f1_BD.device)
    for name, arguments in spec.items():
        options = dict(arguments or {})
        weight = float(options.pop("weight", 1.0))
        losses[name] = REGISTRY.get("objective", name)(features, **options)
        total = total + weight * losses[name]
    return {**losses, "total": total}
