"""What lets corpora of any size be drawn from: sets of rows as bits, and orders that are computed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from umif.tokens.rows import RowSet
from umif.tokens.sampler import TABLE_PAIRS, PairSampler
from umif.tokens.shuffle import Shuffle


@pytest.mark.parametrize("count", [1, 7, 8, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.5, 1.0])
def test_a_set_of_rows_is_the_list_of_them(count: int, share: float) -> None:
    rng = np.random.default_rng(count)
    chosen = rng.random(count) < share
    rows, expected = RowSet(chosen), np.flatnonzero(chosen)
    assert len(rows) == len(expected)
    assert np.array_equal(rows.all(), expected)
    places = rng.permutation(len(expected))
    assert np.array_equal(rows.take(places), expected[places])
    assert rows.nbytes <= count / 8 + 2 * 136 + count / 128
    for wrong in (-1, len(expected)):
        with pytest.raises(IndexError, match="rows; asked for places"):
            rows.take([wrong])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 65, 100, 1000, 4097, 150_000])
def test_a_computed_order_holds_every_number_once(count: int) -> None:
    order = Shuffle(count, np.random.default_rng(count))(np.arange(count))
    assert np.array_equal(np.sort(order), np.arange(count))


def test_a_computed_order_is_shuffled() -> None:
    # Every number stands in every sixteenth of the order equally often, and neighbours do not stay together.
    count, orders = 64, 4000
    seen = np.stack([Shuffle(count, np.random.default_rng(seed))(np.arange(count)) for seed in range(orders)])
    places = np.argsort(seen, axis=1)
    table = np.stack([np.bincount(places[:, number], minlength=count) for number in range(count)])
    expected = orders / count
    chi2 = ((table - expected) ** 2 / expected).sum()
    freedom = (count - 1) ** 2
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)
    together = (np.abs(np.diff(seen, axis=1)) == 1).mean()
    assert abs(together - 2 / count) < 5 * np.sqrt(2 / count / (orders * (count - 1)))


def test_a_large_kind_comes_once_per_epoch_in_an_order_of_its_own() -> None:
    count = TABLE_PAIRS + 77
    sampler = PairSampler({"report": count}, seed=3, kinds_per_step=1, pairs_per_kind=count)
    first, second = ([pair for _, pair in sampler.draw(step)] for step in (0, 1))
    assert sorted(first) == sorted(second) == list(range(count))
    assert first != second
    part = PairSampler({"report": count}, seed=3, kinds_per_step=1, pairs_per_kind=5)
    assert [pair for step in range(2000) for _, pair in part.draw(step)] == first[:10_000]


def test_small_kinds_keep_the_order_that_they_always_had() -> None:
    sampler = PairSampler({"report": 5}, seed=0, kinds_per_step=1, pairs_per_kind=5)
    from umif.rng import keyed_rng

    assert [pair for _, pair in sampler.draw(0)] == keyed_rng(0, "order:report", 0).permutation(5).tolist()


def test_a_hundred_million_pairs_take_no_more_memory_than_a_hundred_thousand() -> None:
    taken = []
    for count in (10**5, 10**8):
        tracemalloc.start()
        sampler = PairSampler({"report": count, "class": count}, seed=0)
        for step in (0, 1, 5000):
            sampler.draw(step)
        taken.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert taken[1] <= taken[0]
