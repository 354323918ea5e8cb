from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from umif.errors import CorpusError
from umif.tokens.loader import batches
from umif.tokens.prefetch import made_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from umif.tokens.loader import StepDataset


def test_steps_come_once_each_and_in_order() -> None:
    assert list(made_ahead(lambda step: step * step, 3, 40)) == [step * step for step in range(3, 40)]
    assert list(made_ahead(lambda step: step, 5, 5)) == []


def test_no_more_is_made_than_asked_for_ahead() -> None:
    made: list[int] = []
    third = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 2:
            third.set()
        return step

    steps = made_ahead(make, 0, 100, ahead=2)
    assert next(steps) == 0
    assert third.wait(30)
    steps.close()  # type: ignore[attr-defined]
    assert made == [0, 1, 2]


def test_an_error_comes_at_its_step_and_ends_the_thread() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise CorpusError("step two is bad")
        return step

    steps = made_ahead(make, 0, 9)
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(CorpusError, match="step two"):
        next(steps)
    assert not [thread for thread in threading.enumerate() if thread.name == "umif-ahead"]


def test_leaving_early_leaves_no_thread_behind() -> None:
    steps = made_ahead(lambda step: step, 0, 10**9)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "umif-ahead"]


def test_a_thread_makes_the_batches_that_are_made_between_steps(make_dataset: Callable[..., StepDataset]) -> None:
    here = [(step, batch.images_NHW.sum().item(), bad) for step, batch, bad in batches(make_dataset(), 2, 6)]
    ahead = [(step, batch.images_NHW.sum().item(), bad) for step, batch, bad in batches(make_dataset(), 2, 6, None)]
    assert ahead == here
