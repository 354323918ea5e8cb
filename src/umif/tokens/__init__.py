"""From a corpus to packed batches: text and patch tokens, grouping, sampling, packing.

    corpus ── PairSampler ──► pairs of (seed, step) ── decode, augment, tokenise, group ──► Example ── pack ──► Batch

What reads a corpus is loaded when first used: models need batches, and no Lance.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from umif.tokens.batch import Batch, Example, Stream, pack
from umif.tokens.grouping import draw_groups, draw_ratio

if TYPE_CHECKING:
    from umif.tokens.loader import BadSample, DataConfig, StepDataset, batches
    from umif.tokens.sampler import PairSampler
    from umif.tokens.text import TextTokenizer, vocabulary_texts

_LAZY = {
    "BadSample": "umif.tokens.loader",
    "DataConfig": "umif.tokens.loader",
    "PairSampler": "umif.tokens.sampler",
    "StepDataset": "umif.tokens.loader",
    "TextTokenizer": "umif.tokens.text",
    "batches": "umif.tokens.loader",
    "vocabulary_texts": "umif.tokens.text",
}

__all__ = [
    "BadSample",
    "Batch",
    "DataConfig",
    "Example",
    "PairSampler",
    "StepDataset",
    "Stream",
    "TextTokenizer",
    "batches",
    "draw_groups",
    "draw_ratio",
    "pack",
    "vocabulary_texts",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'umif.tokens' has no attribute {name!r}")
