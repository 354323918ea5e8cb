"""How fast requests may go out: limits a minute, pauses that the endpoint asks for, waits between tries."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0


def backoff_s(
    failures: int, rng: np.random.Generator, asked_s: float | None = None, first_s: float = FIRST_WAIT_S
) -> float:
    """Return how long to wait after the n-th failure: doubling, drawn from its upper half, at least what was asked for.

    The draw keeps clients that failed together from coming back together.
    """
    ceiling = min(LONGEST_WAIT_S, first_s * 2.0 ** (failures - 1))
    return max(asked_s or 0.0, ceiling * (0.5 + 0.5 * float(rng.random())))


class Pace:
    """Spaces requests evenly, so that no minute holds more requests or tokens than allowed.

    Args:
        requests_per_min: Limit; `None` = none.
        tokens_per_min: Limit over tokens sent and asked for; `None` = none.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        requests_per_min: float | None = None,
        tokens_per_min: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_request_s = 60 / requests_per_min if requests_per_min else 0.0
        self._per_token_s = 60 / tokens_per_min if tokens_per_min else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._paused_until_s = 0.0

    def reserve(self, tokens: int) -> float:
        """Take the next place for a request of so many tokens; return the seconds to wait for it."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next_s, self._paused_until_s)
            self._next_s = start + max(self._per_request_s, tokens * self._per_token_s)
            return start - now

    def pause(self, seconds: float) -> None:
        """Hold all requests back for a while: an endpoint that is too busy for one is so for all."""
        with self._lock:
            self._paused_until_s = max(self._paused_until_s, self._clock() + seconds)

    def left_of_pause(self) -> float:
        """Return the seconds until requests may go out again."""
        with self._lock:
            return max(0.0, self._paused_until_s - self._clock())
