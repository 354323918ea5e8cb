"""Ragged batches of every kind for the model's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from umif.tokens.batch import Example, pack
from umif.tokens.grouping import draw_groups, draw_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from umif.tokens.batch import Batch

VOCABULARY = 60


def ragged_batch(
    kinds: Sequence[str], *, image_size: int = 32, patch_size: int = 16, seed: int = 0, ratios: Sequence[float] = ()
) -> Batch:
    """A batch of the given kinds with texts of 1 to 30 tokens and random groups."""
    rng = np.random.default_rng(seed)
    patches = (image_size // patch_size) ** 2

    def picture(*channels: int) -> np.ndarray:
        return rng.integers(0, 256, (image_size, image_size, *channels), dtype=np.uint8)

    examples = []
    for slot, kind in enumerate(kinds):
        text = rng.integers(0, VOCABULARY, int(rng.integers(1, 31))) if kind in ("report", "caption", "class") else None
        ratio = ratios[slot] if ratios else draw_ratio(0.2, rng)
        examples.append(
            Example(
                kind=kind,
                pair=slot,
                slot=slot,
                ratio=ratio,
                bits=draw_groups(patches, patches if text is None else len(text), ratio, rng),
                image=picture(),
                text_ids=text,
                mask=picture(3) if kind == "segment" else None,
                second_view=picture() if kind == "image" else None,
            )
        )
    return pack(examples, patch_size=patch_size)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return ragged_batch
