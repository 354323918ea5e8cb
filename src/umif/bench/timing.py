"""Timing several ways to do one thing, side by side.

Machines are shared and their speed drifts, so ways take turns within each round, in an order that is reversed every
other round, and what is told is the median of the ratios within rounds, with its spread.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from umif.bench.hardware import clock
from umif.corpus.progress import Bar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of paired ratios, with the smallest and the largest."""

    median: float
    low: float
    high: float

    def to_json(self) -> list[float]:
        """Return [median, low, high], rounded."""
        return [round(value, 3) for value in (self.median, self.low, self.high)]


def take_turns(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    device: str = "cpu",
    title: str = "timing",
    progress: bool = False,
) -> dict[str, list[float]]:
    """Return the seconds that each way took in each round, after one round that is not counted.

    Args:
        ways: What to time, by name.
        rounds: Rounds that count.
        device: Whose clock to read (`clock`).
        title: What the progress bar says.
        progress: Show that bar on standard error.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with Bar(progress) as bar:
        bar.start(title, (rounds + 1) * len(ways))
        for index in range(rounds + 1):
            for name in list(ways) if index % 2 else reversed(list(ways)):
                start = clock(device)
                ways[name]()
                spent = clock(device) - start
                if index:
                    seconds[name].append(spent)
                bar.advance(1)
    return seconds


def paired_ratio(of: list[float], over: list[float]) -> Ratio:
    """Return how many times `of` is `over`, paired by round."""
    ratios = [a / b for a, b in zip(of, over, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))
