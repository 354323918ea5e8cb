"""UmiF: one robust radiograph encoder from every kind of supervision that medical datasets carry.

Names are loaded when first used, so that `import umif` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umif import corpus, encoder, language, models, objectives, readers, tasks, tokens
    from umif.config import register
    from umif.encoder import Encoder, load_encoder
    from umif.models import build_model
    from umif.readers.base import Card, Finding, LabelState, Question, Reader, Record, Region, Text

__version__ = "0.1.0"

_LAZY = {
    "register": "umif.config",
    "Reader": "umif.readers.base",
    "Record": "umif.readers.base",
    "Card": "umif.readers.base",
    "Finding": "umif.readers.base",
    "LabelState": "umif.readers.base",
    "Question": "umif.readers.base",
    "Region": "umif.readers.base",
    "Text": "umif.readers.base",
    "build_model": "umif.models",
    "load_encoder": "umif.encoder",
    "Encoder": "umif.encoder",
}
_PACKAGES = (
    "config", "errors", "imaging", "readers", "language", "corpus", "tokens",
    "models", "objectives", "train", "encoder", "tasks", "report",
)  # fmt: skip

__all__ = [
    "Card",
    "Encoder",
    "Finding",
    "LabelState",
    "Question",
    "Reader",
    "Record",
    "Region",
    "Text",
    "build_model",
    "corpus",
    "encoder",
    "language",
    "load_encoder",
    "models",
    "objectives",
    "readers",
    "register",
    "tasks",
    "tokens",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"umif.{name}")
    raise AttributeError(f"module 'umif' has no attribute {name!r}")
