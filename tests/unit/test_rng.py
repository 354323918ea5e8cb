"""Draws by key are the same whichever generator gives them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from umif.rng import brief_rng, keyed_rng


@pytest.mark.parametrize("key", [(0, "groups", 0, 0), (3, "augment", 7, 1), (-1, "ratio", 2**40, 2**33)])
def test_a_brief_generator_draws_what_one_of_its_own_does(key: tuple[int, str, int, int]) -> None:
    # Before it stands another's draw that leaves half a word, and part of a block, unused.
    brief_rng(9, "other").integers(0, 2**31, size=3, dtype=np.int32)
    own, brief = keyed_rng(*key), brief_rng(*key)
    assert brief.random(9).tolist() == own.random(9).tolist()
    assert brief.permutation(50).tolist() == own.permutation(50).tolist()
    assert brief.integers(0, 2**31, size=5, dtype=np.int32).tolist() == own.integers(0, 2**31, 5, np.int32).tolist()
    assert brief.normal(size=3).tolist() == own.normal(size=3).tolist()


def test_threads_do_not_share_a_brief_generator() -> None:
    found: list[list[float]] = []
    rng = brief_rng(0, "here")
    first = rng.random()
    thread = threading.Thread(target=lambda: found.append(brief_rng(0, "there").random(2).tolist()))
    thread.start()
    thread.join()
    assert [first, rng.random()] == keyed_rng(0, "here").random(2).tolist()
    assert found == [keyed_rng(0, "there").random(2).tolist()]
