"""Training: recipe, state, optimiser, processes, checkpoints and the loop.

Names are loaded when first used: reading a checkpoint needs no recipe, and a recipe no loop.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umif.train.checkpoint import latest_checkpoint, load_state, load_tensors, save_checkpoint, verify_checkpoint
    from umif.train.loop import PretrainSummary, pretrain
    from umif.train.recipe import OptimConfig, Recipe, TokenizerConfig, TrainConfig
    from umif.train.state import TrainState

_LAZY = {
    "latest_checkpoint": "checkpoint",
    "load_state": "checkpoint",
    "load_tensors": "checkpoint",
    "save_checkpoint": "checkpoint",
    "verify_checkpoint": "checkpoint",
    "PretrainSummary": "loop",
    "pretrain": "loop",
    "OptimConfig": "recipe",
    "Recipe": "recipe",
    "TokenizerConfig": "recipe",
    "TrainConfig": "recipe",
    "TrainState": "state",
}

__all__ = [
    "OptimConfig",
    "PretrainSummary",
    "Recipe",
    "TokenizerConfig",
    "TrainConfig",
    "TrainState",
    "latest_checkpoint",
    "load_state",
    "load_tensors",
    "pretrain",
    "save_checkpoint",
    "verify_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"umif.train.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'umif.train' has no attribute {name!r}")
