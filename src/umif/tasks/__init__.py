"""Downstream tasks: the frozen encoder put to use, every number with its interval and its baselines.

Names are loaded when first used: metrics need no network.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umif.tasks.base import Result, Task, TaskOptions
    from umif.tasks.evaluation import evaluate
    from umif.tasks.problems import applicable

_LAZY = {
    "Result": "base",
    "Task": "base",
    "TaskOptions": "base",
    "applicable": "problems",
    "evaluate": "evaluation",
}

__all__ = ["Result", "Task", "TaskOptions", "applicable", "evaluate"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"umif.tasks.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'umif.tasks' has no attribute {name!r}")
