"""Near hashes among a million: candidates for films that are the same.

Multi-index hashing: 64 bits are cut into four bands of 16. Two hashes that differ in at most 11 bits differ in at most
two bits of at least one band, so looking up each band with up to two of its bits flipped finds every such pair, and
only hashes that share a band's bucket are ever compared.

Shape legend: N left films or hashes, M right ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from umif.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RADIUS = 11  # bits; the largest that bands of two flipped bits allow
CANDIDATES = 16  # nearest films that are looked at, of each film
_BANDS, _BAND_BITS = 4, 16
_CHUNK = 1 << 21  # pairs compared at a time: about 100 MiB
_FEW_HASHES = 2048  # looking up costs more than comparing all

Near = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.uint8]"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Two places that may show one film; `window` of the right film is the one of least distance."""

    left: int
    right: int
    window: int
    distance: int


class HashIndex:
    """Hashes made ready to be searched. Shapes: hashes_N (N,) uint64."""

    def __init__(self, hashes_N: NDArray[np.uint64]) -> None:
        self.hashes_N = hashes_N
        self._bands: list[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]] = []
        for band in range(_BANDS if len(hashes_N) > _FEW_HASHES else 0):
            keys = _band(hashes_N, band)
            order = np.argsort(keys, kind="stable")
            starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=1 << _BAND_BITS))])
            self._bands.append((hashes_N[order], order, starts))

    def near(self, right_M: NDArray[np.uint64], radius: int = RADIUS) -> Iterator[Near]:
        """Yield all places (left, right) whose hashes differ in at most `radius` bits, and in how many, in chunks.

        Nothing is missed; a pair may come up to four times, once for each band in which it is near.

        Shapes: right_M (M,) uint64; yields three arrays of one length.
        Raises:
            ConfigError: `radius` is not in 0 … 11.
        """
        if not 0 <= radius <= RADIUS:
            raise ConfigError(f"a radius of {radius} bits cannot be searched", fix=f"choose 0 to {RADIUS}")
        if not self._bands:
            yield from _compare_all(self.hashes_N, right_M, radius)
        flips = [
            sum(1 << bit for bit in bits) for n in range(radius // _BANDS + 1) for bits in combinations(range(16), n)
        ]
        for band, (left, order, starts) in enumerate(self._bands):
            keys = _band(right_M, band)
            for flip in flips:
                first = starts[keys ^ flip]
                yield from _compare(left, order, right_M, first, starts[(keys ^ flip) + 1] - first, radius)


def nearest_films(index: HashIndex, right_MV: NDArray[np.uint64], *, everything: bool = False) -> list[Candidate]:
    """Return for each right film the nearest left films, at most 16, with the window that brought them nearest.

    Args:
        index: One hash for each left film.
        right_MV: A hash for each window of each right film.
        everything: Take the nearest however far they are; for few films.

    Shapes: right_MV (M, V).
    """
    windows = right_MV.shape[1]
    flat = right_MV.ravel()
    chunks = _compare_all(index.hashes_N, flat, 64) if everything else index.near(flat)
    found = [_reduced(left, right // windows, right % windows, distance) for left, right, distance in chunks]
    if not found:
        return []
    best = _reduced(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    order = np.lexsort((best[0], best[3], best[1]))
    films = best[1][order]
    rank = np.arange(len(films)) - np.searchsorted(films, films)
    chosen = np.stack([part[order][rank < CANDIDATES].astype(np.int64) for part in best], axis=1)
    return [Candidate(*row) for row in chosen.tolist()]


def _reduced(
    left: NDArray[np.int64], film: NDArray[np.int64], window: NDArray[np.int64], distance: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Keep of each (left, film) the window of least distance."""
    order = np.lexsort((window, distance, left, film))
    left, film, window, distance = left[order], film[order], window[order], distance[order]
    first = np.ones(len(left), dtype=bool)
    first[1:] = (left[1:] != left[:-1]) | (film[1:] != film[:-1])
    return left[first], film[first], window[first], distance[first]


def _band(hashes: NDArray[np.uint64], band: int) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = ((hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(0xFFFF)).astype(np.int64)
    return keys


def _compare(
    sorted_left: NDArray[np.uint64],
    order: NDArray[np.int64],
    right_M: NDArray[np.uint64],
    first_M: NDArray[np.int64],
    count_M: NDArray[np.int64],
    radius: int,
) -> Iterator[Near]:
    """Compare each right hash with its bucket: `count` hashes from place `first` of the sorted left ones."""
    total = np.cumsum(count_M)
    done, begin = 0, 0
    while begin < len(right_M):
        end = max(int(np.searchsorted(total, done + _CHUNK, side="right")), begin + 1)
        counts = count_M[begin:end]
        # Places within the buckets, one after the other: 0 … count - 1 of each, from its first.
        shift = first_M[begin:end] - (np.cumsum(counts) - counts)
        place = np.repeat(shift, counts)
        place += np.arange(len(place))
        distance = np.bitwise_count(sorted_left[place] ^ np.repeat(right_M[begin:end], counts))
        near = np.flatnonzero(distance <= radius)
        if len(near):
            owner = np.searchsorted(np.cumsum(counts), near, side="right") + begin
            yield order[place[near]], owner, distance[near]
        done, begin = int(total[end - 1]), end


def _compare_all(left_N: NDArray[np.uint64], right_M: NDArray[np.uint64], radius: int) -> Iterator[Near]:
    step = max(1, _CHUNK // max(1, len(left_N)))
    for begin in range(0, len(right_M), step):
        distance = np.bitwise_count(right_M[begin : begin + step, None] ^ left_N[None, :])
        right, left = np.nonzero(distance <= radius)
        if len(left):
            yield left, right + begin, distance[right, left]
