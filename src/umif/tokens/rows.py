"""Sets of rows at one bit a row: which rows a kind of pairs draws from, for corpora of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Rows of a block: its count is kept, and it is what one look-up goes through.
_BLOCK = 1024


class RowSet:
    """Ascending row numbers, kept as bits of which every 1,024th running count is known.

    A list of the same rows would take 64 times as much in every process that makes batches.

    Args:
        chosen: Which rows are in the set.

    Shapes: chosen: (rows,) bool.

    Example:
        >>> RowSet(np.array([False, True, True, False, True])).take([2, 0]).tolist()
        [4, 1]
    """

    def __init__(self, chosen: NDArray[np.bool_]) -> None:
        self._rows = len(chosen)
        blocks = max(1, -(-len(chosen) // _BLOCK))
        bits = np.zeros((blocks, _BLOCK // 8), dtype=np.uint8)
        packed = np.packbits(chosen)
        bits.reshape(-1)[: len(packed)] = packed
        self._bits = bits
        self._ends = np.cumsum(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def nbytes(self) -> int:
        """Bytes that the set takes."""
        return self._bits.nbytes + self._ends.nbytes

    def take(self, places: ArrayLike) -> NDArray[np.int64]:
        """Return the rows at some places of the ascending order. Shapes: (n,) → (n,)."""
        wanted = np.asarray(places, dtype=np.int64).reshape(-1)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"there are {len(self)} rows; asked for places {wanted.min()} to {wanted.max()}")
        blocks = np.searchsorted(self._ends, wanted, side="right")
        before = np.where(blocks > 0, self._ends[blocks - 1], 0)
        counts = np.cumsum(np.unpackbits(self._bits[blocks], axis=1), axis=1, dtype=np.int16)
        # The first row of the block by which as many have come as are wanted.
        within = (counts > (wanted - before)[:, None]).argmax(axis=1)
        found: NDArray[np.int64] = blocks * _BLOCK + within
        return found

    def all(self) -> NDArray[np.int64]:
        """Return every row, ascending."""
        return np.flatnonzero(np.unpackbits(self._bits.reshape(-1), count=self._rows)).astype(np.int64)
