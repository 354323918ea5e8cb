"""The corpus: every dataset's images and supervision in one place, prepared once.

Names are loaded when first used: building workers and the phantom need no Lance.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umif.corpus.build import add_pixels, prepare
    from umif.corpus.manifest import Manifest, PrepareConfig
    from umif.corpus.regions import draw_regions, region_mask
    from umif.corpus.splits import assign_splits
    from umif.corpus.store import Corpus

_LAZY = {
    "Corpus": "umif.corpus.store",
    "Manifest": "umif.corpus.manifest",
    "PrepareConfig": "umif.corpus.manifest",
    "add_pixels": "umif.corpus.build",
    "assign_splits": "umif.corpus.splits",
    "draw_regions": "umif.corpus.regions",
    "prepare": "umif.corpus.build",
    "region_mask": "umif.corpus.regions",
}

__all__ = [
    "Corpus",
    "Manifest",
    "PrepareConfig",
    "add_pixels",
    "assign_splits",
    "draw_regions",
    "prepare",
    "region_mask",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'umif.corpus' has no attribute {name!r}")
