"""Which token goes to which group: exact counts, uniform positions, no empty group, the share of separate pairs."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from umif.errors import ShapeError
from umif.rng import keyed_rng
from umif.tokens import draw_groups, draw_ratio

SIZES = st.integers(1, 400)
# Sixteenths are exact in binary, so that halves are halves.
SIXTEENTHS = st.integers(0, 16).map(lambda n: n / 16)


@given(SIZES, SIZES, SIXTEENTHS, st.integers(0, 2**32))
@settings(deadline=None, max_examples=300)
def test_counts_are_exact(n_image: int, n_supervision: int, ratio: float, seed: int) -> None:
    bits = draw_groups(n_image, n_supervision, ratio, np.random.default_rng(seed))
    ones = [
        int(Decimal(n * share).to_integral_value(ROUND_HALF_UP))
        for n, share in ((n_image, ratio), (n_supervision, 1 - ratio))
    ]
    assume(0 < sum(ones) < n_image + n_supervision)
    assert [int(bits[:n_image].sum()), int(bits[n_image:].sum())] == ones


@given(SIZES, SIZES, st.floats(0, 1), st.integers(0, 2**32))
@settings(deadline=None, max_examples=300)
def test_neither_group_is_ever_empty(n_image: int, n_supervision: int, ratio: float, seed: int) -> None:
    bits = draw_groups(n_image, n_supervision, ratio, np.random.default_rng(seed))
    assert bits.dtype == np.bool_
    assert bits.shape == (n_image + n_supervision,)
    assert 0 < bits.sum() < len(bits)


@pytest.mark.parametrize(
    ("n_image", "n_supervision", "ratio", "ones"),
    [
        (1, 1, 0.5, (0, 1)),  # both halves round up: everything would be in group 1
        (1, 1, 0.4999, (0, 1)),
        (1, 1, 0.7, (1, 0)),
        (3, 1, 0.9, (3, 0)),
        (1, 3, 0.5, (1, 2)),
        (2, 1, 0.2, (0, 1)),
        (1, 2, 0.51, (1, 1)),
    ],
)
def test_few_tokens(n_image: int, n_supervision: int, ratio: float, ones: tuple[int, int]) -> None:
    bits = draw_groups(n_image, n_supervision, ratio, np.random.default_rng(0))
    assert (int(bits[:n_image].sum()), int(bits[n_image:].sum())) == ones


def test_ratio_one_keeps_image_and_supervision_apart() -> None:
    assert draw_groups(196, 40, 1.0, np.random.default_rng(0)).tolist() == [True] * 196 + [False] * 40
    assert draw_groups(196, 40, 0.0, np.random.default_rng(0)).tolist() == [False] * 196 + [True] * 40


def test_every_choice_of_positions_is_equally_likely() -> None:
    from scipy.stats import chisquare  # type: ignore[import-untyped]

    rng = np.random.default_rng(5)
    seen = dict.fromkeys(combinations(range(5), 2), 0)
    supervision = dict.fromkeys(combinations(range(4), 2), 0)
    for _ in range(4000):
        bits = draw_groups(5, 4, 0.4, rng)  # 2 of 5 and 2 of 4 (2.4 rounds to 2)
        seen[tuple(np.flatnonzero(bits[:5]).tolist())] += 1  # type: ignore[index]
        supervision[tuple(np.flatnonzero(bits[5:]).tolist())] += 1  # type: ignore[index]
    # A fixed seed; a position that is left out or favoured gives 0 to many digits.
    assert chisquare(list(seen.values())).pvalue > 0.01
    assert chisquare(list(supervision.values())).pvalue > 0.01


@pytest.mark.parametrize("p_separate", [0.0, 0.2, 0.8, 1.0])
def test_the_share_of_separate_pairs_is_p_and_the_rest_is_uniform(p_separate: float) -> None:
    from scipy.stats import binomtest, kstest

    ratios = np.array([draw_ratio(p_separate, keyed_rng(7, "ratio", step)) for step in range(4000)])
    separate = int((ratios == 1.0).sum())
    if p_separate in (0.0, 1.0):
        assert separate == p_separate * 4000
    else:
        assert binomtest(separate, 4000, p_separate).pvalue > 0.01
    rest = ratios[ratios < 1.0]
    if len(rest):
        assert kstest(rest, "uniform").pvalue > 0.01


def test_a_ratio_costs_two_numbers_whatever_comes_out() -> None:
    after = []
    for p_separate in (0.0, 1.0):
        rng = np.random.default_rng(3)
        draw_ratio(p_separate, rng)
        after.append(rng.random())
    assert after[0] == after[1]


@pytest.mark.parametrize("p_separate", [-0.1, 1.1, float("nan")])
def test_no_share_outside_0_to_1(p_separate: float) -> None:
    with pytest.raises(ShapeError, match="p_separate"):
        draw_ratio(p_separate, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("n_image", "n_supervision", "ratio"), [(0, 5, 0.5), (5, 0, 0.5), (5, 5, -0.01), (5, 5, 1.01), (5, 5, float("nan"))]
)
def test_pairs_that_cannot_be_grouped_are_refused(n_image: int, n_supervision: int, ratio: float) -> None:
    with pytest.raises(ShapeError):
        draw_groups(n_image, n_supervision, ratio, np.random.default_rng(0))
