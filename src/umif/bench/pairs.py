"""The pairs that steps are timed on: about the mix of a real corpus, drawn from a seed."""

from __future__ import annotations

import numpy as np

from umif.tokens.batch import Batch, Example, pack
from umif.tokens.grouping import draw_groups, draw_ratio

# Three quarters of the pairs bring a text of about so many tokens (mean, spread, bounds), one quarter a mask.
TEXT_MEAN, TEXT_STD, TEXT_LEAST, TEXT_MOST = 60, 22, 16, 128
P_SEPARATE = 0.2


def mixed_batch(
    seed: int,
    pairs: int,
    *,
    image_size: int,
    vocab_size: int,
    patch_size: int = 16,
    rank: int = 0,
    world_size: int = 1,
) -> Batch:
    """Draw a batch of `pairs`, or a process's slots of it: noise for pictures, random words.

    Every fourth pair, the last one first, has a mask. A pair is the same whichever process draws it.
    """
    patches, examples = (image_size // patch_size) ** 2, []
    for slot in range(rank, pairs, world_size):
        rng = np.random.default_rng([seed, slot])
        words = int(np.clip(round(rng.normal(TEXT_MEAN, TEXT_STD)), TEXT_LEAST, TEXT_MOST))
        masked = (pairs - 1 - slot) % 4 == 0
        ratio = draw_ratio(P_SEPARATE, rng)
        examples.append(
            Example(
                kind="segment" if masked else "report",
                pair=slot,
                slot=slot,
                ratio=ratio,
                bits=draw_groups(patches, patches if masked else words, ratio, rng),
                image=rng.integers(0, 256, (image_size, image_size), dtype=np.uint8),
                text_ids=None if masked else rng.integers(0, vocab_size, words),
                mask=rng.integers(0, 256, (image_size, image_size, 3), dtype=np.uint8) if masked else None,
            )
        )
    return pack(examples, patch_size=patch_size)
