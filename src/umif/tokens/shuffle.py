"""A shuffled order that is computed place by place, in no memory, for sets too large for a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ROUNDS = 8


class Shuffle:
    """A permutation of 0 … count − 1 drawn by `rng`: `shuffle(places)` says which numbers stand there.

    The bits of a number are cut in two, and each part in turn is changed by a keyed hash of the other, eight times (a
    Feistel network, which is one to one whatever the hash). What falls beyond `count` goes through again until it
    does not, which keeps it one to one.

    Source: Luby and Rackoff (1988) on Feistel networks as random permutations; Black and Rogaway (2002) on going
    through again (cycle walking); the hash is the finaliser of SplitMix64 (Steele et al. 2014).
    Differs: such orders are few (those of 512 key bits) among all n!, which no run of any length could tell.

    Example:
        >>> sorted(Shuffle(10, np.random.default_rng(0))(range(10)).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        if count < 1:
            raise ValueError(f"there is no order of {count} numbers")
        self._count = np.uint64(count)
        bits = max(2, (count - 1).bit_length())
        self._low_bits = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << (bits // 2)) - 1)
        self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = rng.integers(0, 1 << 64, size=_ROUNDS, dtype=np.uint64)

    def __call__(self, places: ArrayLike) -> NDArray[np.int64]:
        """Return the numbers at some places. Shapes: (n,) → (n,)."""
        found = self._once(np.asarray(places, dtype=np.uint64))
        while (beyond := found >= self._count).any():
            found[beyond] = self._once(found[beyond])
        return found.astype(np.int64)

    def _once(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        low, high = numbers & self._low_mask, numbers >> self._low_bits
        for key_0, key_1 in self._keys.reshape(-1, 2):
            high = high ^ (_mixed(low ^ key_0) & self._high_mask)
            low = low ^ (_mixed(high ^ key_1) & self._low_mask)
        return (high << self._low_bits) | low


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Arrays of unsigned integers wrap around, which is meant.
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
