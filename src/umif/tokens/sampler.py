"""Which pairs a step sees: Algorithm 1 of UmiF as a pure function of (seed, step).

Mental model: each kind of pair is an endless tape of shuffled epochs. A step draws a few kinds and reads the next M
pairs off the tape of each. How far a tape has run before step k follows from the kinds of all steps before k, which
are drawn in blocks and counted, so any step can be asked for at once and nothing has to be saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from umif.errors import ConfigError, EmptyError
from umif.rng import keyed_rng
from umif.tokens.shuffle import Shuffle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_BLOCK_STEPS = 1024
# Shuffled epochs kept at a time: all kinds' current ones and, at their ends, the next.
_KEPT_EPOCHS, _KEPT_BLOCKS = 12, 4
# Kinds of more pairs are shuffled by a formula (`Shuffle`), so many places at a time: a table of all of them would take
# 8 bytes a pair, and seconds at the start of each epoch.
TABLE_PAIRS = 1 << 17
_PART = 4096


class PairSampler:
    """Draws the pairs of every step.

    Each step draws `kinds_per_step` kinds with replacement, with probability ∝ count ** size_exponent, and
    `pairs_per_kind` pairs of each drawn kind. Within a kind every pair comes once per shuffled epoch. Where a kind has
    fewer pairs than a step takes, a pair comes more than once in that step, in slots (and augmentations) of its own.

    Source: UmiF, Algorithm 1 (4 kinds; M pairs each; probability ∝ count).
    Differs: without replacement within a kind, and `size_exponent` (1.0 is the paper's) for corpora of few masks.

    Args:
        counts: Number of pairs of each kind.
        seed: Of the run.
        kinds_per_step: Kinds drawn per step. P: 4.
        pairs_per_kind: M. P: 512 (a batch of 2,048).
        size_exponent: Below 1 small kinds come more often, at 0 all alike.

    Raises:
        EmptyError: there is no kind, or a kind has no pairs.
        ConfigError: a number outside its range.

    Example:
        >>> sampler = PairSampler({"report": 100, "segment": 3}, seed=0, pairs_per_kind=2)
        >>> sampler.draw(5) == sampler.draw(5)
        True
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        *,
        seed: int,
        kinds_per_step: int = 4,
        pairs_per_kind: int = 32,
        size_exponent: float = 1.0,
    ) -> None:
        if not counts:
            raise EmptyError("there is no kind of pairs to draw from", where="sampler")
        for kind, count in counts.items():
            if count < 1:
                raise EmptyError(f"the kind {kind!r} has no pairs", where="sampler", fix="leave the kind out")
        for name, value in (("kinds_per_step", kinds_per_step), ("pairs_per_kind", pairs_per_kind)):
            if value < 1:
                raise ConfigError(f"{name} must be 1 or more, not {value}", where=f"data.{name}")
        # Sorted, so that the order in which a caller lists kinds changes nothing.
        self.counts = {kind: int(counts[kind]) for kind in sorted(counts)}
        self.seed = seed
        self.kinds_per_step = kinds_per_step
        self.pairs_per_kind = pairs_per_kind
        self._names = tuple(self.counts)
        weights = np.array(list(self.counts.values()), dtype=np.float64) ** size_exponent
        self.probabilities = dict(zip(self._names, (weights / weights.sum()).tolist(), strict=True))
        edges = np.cumsum(weights / weights.sum())
        # The last edge is 1 up to rounding, which a draw must not fall beyond.
        self._edges = edges[:-1]
        # Times each kind was drawn before block b; grows as far as somebody asks.
        self._before = [np.zeros(len(self._names), dtype=np.int64)]
        self._blocks: dict[int, NDArray[np.int64]] = {}
        self._orders: dict[tuple[str, int, int], NDArray[np.int64]] = {}

    def __len__(self) -> int:
        """Pairs of all kinds together."""
        return sum(self.counts.values())

    @property
    def pairs_per_step(self) -> int:
        """Slots of one step."""
        return self.kinds_per_step * self.pairs_per_kind

    def kinds(self, step: int) -> tuple[str, ...]:
        """Return the kinds of a step, in slot order."""
        return tuple(self._names[index] for index in self._kind_row(step))

    def draw(self, step: int) -> list[tuple[str, int]]:
        """Return (kind, index within the kind) of each slot of a step."""
        drawn = self._drawn_before(step)
        slots: list[tuple[str, int]] = []
        for index in self._kind_row(step):
            kind, first = self._names[index], int(drawn[index]) * self.pairs_per_kind
            drawn[index] += 1
            slots.extend((kind, pair) for pair in self._read(kind, first, self.pairs_per_kind))
        return slots

    def position_of(self, step: int) -> dict[str, int]:
        """Return how many pairs of each kind the steps before `step` have taken."""
        taken = self._drawn_before(step) * self.pairs_per_kind
        return {kind: int(count) for kind, count in zip(self._names, taken, strict=True)}

    def epochs(self, step: int) -> dict[str, float]:
        """Return how many times the steps before `step` have gone through each kind."""
        return {kind: taken / self.counts[kind] for kind, taken in self.position_of(step).items()}

    def _read(self, kind: str, first: int, length: int) -> list[int]:
        """The tape of `kind` from position `first` on."""
        count, found = self.counts[kind], []
        size = count if count <= TABLE_PAIRS else _PART
        while length > 0:
            epoch, place = divmod(first, count)
            part, start = divmod(place, size)
            read = self._order(kind, epoch, part, size)[start : start + length]
            found.extend(read.tolist())
            first, length = first + len(read), length - len(read)
        return found

    def _order(self, kind: str, epoch: int, part: int, size: int) -> NDArray[np.int64]:
        """A part of a kind's shuffled epoch; a pure function, kept because steps in a row ask for the same one."""
        key = (kind, epoch, part)
        if key not in self._orders:
            _make_room(self._orders, _KEPT_EPOCHS)
            rng, count = keyed_rng(self.seed, f"order:{kind}", epoch), self.counts[kind]
            if count <= TABLE_PAIRS:
                self._orders[key] = rng.permutation(count)
            else:
                self._orders[key] = Shuffle(count, rng)(np.arange(part * size, min((part + 1) * size, count)))
        return self._orders[key]

    def _block(self, block: int) -> NDArray[np.int64]:
        """Kinds of the steps of a block. Shapes: returns (_BLOCK_STEPS, kinds_per_step)."""
        if block not in self._blocks:
            _make_room(self._blocks, _KEPT_BLOCKS)
            draws = keyed_rng(self.seed, "kinds", block).random((_BLOCK_STEPS, self.kinds_per_step))
            self._blocks[block] = np.searchsorted(self._edges, draws, side="right")
        return self._blocks[block]

    def _kind_row(self, step: int) -> list[int]:
        if step < 0:
            raise ConfigError(f"there is no step {step}", where="step", fix="steps count from 0")
        row: list[int] = self._block(step // _BLOCK_STEPS)[step % _BLOCK_STEPS].tolist()
        return row

    def _drawn_before(self, step: int) -> NDArray[np.int64]:
        """Times each kind was drawn before `step`, in the order of `_names`; the caller's own copy."""
        if step < 0:
            raise ConfigError(f"there is no step {step}", where="step", fix="steps count from 0")
        block, within = divmod(step, _BLOCK_STEPS)
        while len(self._before) <= block:
            last = self._block(len(self._before) - 1)
            self._before.append(self._before[-1] + np.bincount(last.ravel(), minlength=len(self._names)))
        part = self._block(block)[:within].ravel()
        return self._before[block] + np.bincount(part, minlength=len(self._names))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_blocks": {}, "_orders": {}}


def _make_room(kept: dict[Any, NDArray[np.int64]], size: int) -> None:
    while len(kept) >= size:
        del kept[next(iter(kept))]  # the oldest
