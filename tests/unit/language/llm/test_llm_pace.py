"""Limits hold in every minute, waits grow and are drawn, and what the endpoint asks for is kept."""

from __future__ import annotations

import numpy as np
import pytest

from umif.language.llm.pace import LONGEST_WAIT_S, Pace, backoff_s


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def starts(pace: Pace, clock: Clock, tokens: list[int]) -> list[float]:
    """Ask for all places at once, as many helpers would; return when each may start."""
    return [clock.now + pace.reserve(count) for count in tokens]


@pytest.mark.parametrize("limit", [1, 30, 600])
def test_no_minute_holds_more_requests_than_allowed(limit: int) -> None:
    clock = Clock()
    times = np.array(starts(Pace(requests_per_min=limit, clock=clock), clock, [1] * (3 * limit)))
    for begin in times:
        assert ((times >= begin) & (times < begin + 60 - 1e-6)).sum() <= limit
    assert times[-1] - times[0] == pytest.approx((3 * limit - 1) * 60 / limit)


def test_no_minute_holds_more_tokens_than_allowed() -> None:
    clock = Clock()
    tokens = [100, 900, 400, 50, 1000, 10] * 10
    times = np.array(starts(Pace(tokens_per_min=1000, clock=clock), clock, tokens))
    spent = np.cumsum(tokens)
    # Each request starts once those before it have had their share of time.
    assert times[1:] - times[0] == pytest.approx(spent[:-1] * 60 / 1000)


def test_without_limits_nothing_waits() -> None:
    clock = Clock()
    assert starts(Pace(clock=clock), clock, [10_000] * 5) == [100.0] * 5


def test_time_that_passes_is_not_saved_up() -> None:
    clock = Clock()
    pace = Pace(requests_per_min=60, clock=clock)
    pace.reserve(1)
    clock.now += 1000
    assert starts(pace, clock, [1, 1]) == [1100.0, 1101.0]


def test_a_pause_holds_everyone_back() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.pause(30)
    pace.pause(5)
    assert pace.reserve(1) == 30
    clock.now += 20
    assert pace.left_of_pause() == pytest.approx(10)
    clock.now += 20
    assert pace.left_of_pause() == 0


def test_waits_double_vary_stay_bounded_and_keep_what_is_asked() -> None:
    rng = np.random.default_rng(1)
    for failures in range(1, 40):
        ceiling = min(LONGEST_WAIT_S, 0.5 * 2 ** (failures - 1))
        drawn = [backoff_s(failures, rng) for _ in range(50)]
        assert all(ceiling / 2 <= wait <= ceiling for wait in drawn)
        assert len(set(drawn)) > 40
    assert backoff_s(1, rng, asked_s=17) == 17
    assert backoff_s(30, rng, asked_s=17) >= LONGEST_WAIT_S / 2
