"""A 64-bit perceptual hash of a picture, and all pairs of near hashes.

The hash keeps the signs of the picture's lowest spatial frequencies, so it survives scaling, re-encoding and a change
of brightness or contrast. Films of one body part are alike in just these frequencies: near hashes are candidates,
which a look at the pictures has to confirm.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_SIDE, _KEPT, _BITS = 32, 8, 64
# Pairs compared at a time: 32 MiB of hashes.
_CHUNK_PAIRS = 1 << 21


def perceptual_hash(image_HW: NDArray[np.uint8]) -> int:
    """Return the 64-bit DCT hash of a grey picture of any size.

    The picture is shrunk to 32 × 32; of its cosine transform the 8 × 8 lowest frequencies are compared with their
    median, row by row. The mean, which says nothing of the shape, gives its place to the next frequency along the row.

    Shapes: image_HW (H, W).
    """
    small = cv2.resize(image_HW.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(small)
    low = waves[:_KEPT, :_KEPT].ravel().copy()
    low[0] = waves[0, _KEPT]
    return int(np.packbits(low > np.median(low)).view(">u8")[0])


def hamming(a: int, b: int) -> int:
    """Return the number of bits in which two hashes differ."""
    return (a ^ b).bit_count()


def near_pairs(
    hashes_N: NDArray[np.uint64], max_distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs (i, j), i < j, whose hashes differ in at most `max_distance` bits, each pair once, in chunks.

    The 64 bits are cut into `max_distance` + 1 bands. Two near hashes agree in all bits of at least one band, so only
    those that share a band's value are compared; the search misses nothing.

    Shapes: hashes_N (N,) uint64; yields pairs of (n,) int64.
    """
    edges = np.linspace(0, _BITS, max_distance + 2).round().astype(int)
    bands = [(hashes_N >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1) for low, high in pairwise(edges)]
    for number, band in enumerate(bands):
        for left, right in _same_value(band):
            near = np.bitwise_count(hashes_N[left] ^ hashes_N[right]) <= max_distance
            # A pair belongs to the first band that it shares; later ones pass it over.
            for earlier in bands[:number]:
                near &= earlier[left] != earlier[right]
            if near.any():
                yield np.minimum(left, right)[near], np.maximum(left, right)[near]


def _same_value(values_N: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs of places that hold the same value, in chunks."""
    order = np.argsort(values_N, kind="stable").astype(np.int64)
    starts = np.flatnonzero(np.diff(values_N[order])) + 1
    ends = np.append(starts, len(order))
    # For each place in order: how many places of the same value come after it.
    after = np.repeat(ends, np.diff(np.concatenate([[0], ends]))) - np.arange(len(order)) - 1
    total = np.cumsum(after)
    first = 0
    while first < len(order):
        done = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, done + _CHUNK_PAIRS, side="right")), first + 1)
        counts = after[first:last]
        left = np.repeat(np.arange(first, last), counts)
        steps = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        if len(left):
            yield order[left], order[left + steps]
        first = last
