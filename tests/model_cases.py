"""A small network, the paper's losses, and batches of every mix of kinds, for the model's tests."""

from __future__ import annotations

from typing import Any

SMALL = {"backbone": "vit_tiny_patch16_224", "image_size": 32, "depth": 3, "vocab_size": 60, "max_text_tokens": 40}
SPEC: dict[str, dict[str, Any]] = {"align": {}, "con": {}}
BATCHES = {
    "all kinds": ["report", "segment", "class", "image", "caption", "segment"],
    "texts only": ["report", "caption", "class"],
    "masks only": ["segment", "segment"],
    "images only": ["image", "image"],
    "one pair": ["report"],
}
