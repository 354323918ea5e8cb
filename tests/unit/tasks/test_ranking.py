"""Ranks, recall and precision against hand-worked cases, brute force over all orders of ties, and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from umif.tasks.ranking import (
    Owners,
    chance_of_hits,
    class_means,
    first_hits,
    macro,
    precision_at,
    weighted_medians,
    weighted_precision,
)

CASES = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n).filter(any),
        st.integers(1, n + 2),
    )
)


def every_order(scores: list[int]) -> list[tuple[int, ...]]:
    """All orders, best first, that the scores allow."""
    places = range(len(scores))
    return [
        order
        for order in itertools.permutations(places)
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]


@given(CASES)
def test_ties_have_the_mean_over_all_orders_of_them(case: tuple[list[int], list[bool], int]) -> None:
    scores, relevant, cut = case
    orders = every_order(scores)
    firsts = [next(rank for rank, place in enumerate(order, 1) if relevant[place]) for order in orders]
    within = [rank <= cut for rank in firsts]
    shares = [np.mean([relevant[place] for place in order[:cut]]) for order in orders]
    scores_1N, relevant_1N = np.array([scores], dtype=float), np.array([relevant])
    ranks, hits = first_hits(scores_1N, relevant_1N, [cut])
    assert ranks[0] == pytest.approx(np.mean(firsts))
    assert hits[0, 0] == pytest.approx(np.mean(within))
    assert precision_at(scores_1N, relevant_1N, [cut])[0, 0] == pytest.approx(np.mean(shares))


def test_a_hand_worked_case() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]])
    relevant = np.array([[False, True, True, False], [False, False, False, True]])
    ranks, hits = first_hits(scores, relevant, [1, 2])
    assert ranks.tolist() == [2, 1]
    assert hits.tolist() == [[0, 1], [1, 1]]
    assert precision_at(scores, relevant, [1, 2, 3]).tolist() == [[0, 1 / 2, 2 / 3], [1, 1 / 2, 1 / 3]]


def test_recall_agrees_with_scikit_learn_where_each_query_has_one_answer() -> None:
    rng = np.random.default_rng(0)
    scores, answer = rng.random((40, 12)), rng.integers(12, size=40)
    relevant = np.arange(12)[None] == answer[:, None]
    _, hits = first_hits(scores, relevant, [1, 5])
    for column, cut in enumerate([1, 5]):
        assert hits[:, column].mean() == top_k_accuracy_score(answer, scores, k=cut, labels=range(12))


def test_equal_features_score_what_chance_scores() -> None:
    rng = np.random.default_rng(1)
    relevant = rng.random((20, 30)) < 0.2
    relevant[:, 0] = True
    ranks, hits = first_hits(np.zeros((20, 30)), relevant, [1, 5, 10])
    chance_ranks, chance_hits = chance_of_hits(np.full(20, 30), relevant.sum(1), [1, 5, 10])
    assert ranks == pytest.approx(chance_ranks)
    assert hits == pytest.approx(chance_hits)
    assert precision_at(np.zeros((20, 30)), relevant, [5])[:, 0] == pytest.approx(relevant.mean(1))


def test_what_is_barred_takes_no_part_in_precision() -> None:
    scores = np.array([[-np.inf, 0.5, 0.4, -np.inf], [-np.inf] * 4])
    relevant = np.array([[True, False, True, True], [True] * 4])
    found = precision_at(scores, relevant, [1, 2, 4])
    assert found[0].tolist() == [0, 0.5, 0.5]
    assert np.isnan(found[1]).all()


@given(st.data())
def test_weights_are_copies_of_candidates(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    scores = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), dtype=float)
    relevant = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    found = weighted_precision(scores, relevant, weights[None].astype(float), [2, 4])[0]
    if weights.sum():
        copies = np.repeat(np.arange(n), weights)
        assert found == pytest.approx(precision_at(scores[copies][None], relevant[copies][None], [2, 4])[0])
    else:
        assert np.isnan(found).all()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1))
def test_weighted_medians_are_medians_of_copies(rows: list[tuple[int, int]]) -> None:
    values, weights = np.array(rows, dtype=float).T
    [found] = weighted_medians(values, weights[None])
    copies = np.repeat(values, weights.astype(int))
    assert np.isnan(found) if not len(copies) else found == np.median(copies)


def test_class_means_leave_out_queries_that_do_not_ask() -> None:
    values = np.array([[1.0, np.nan], [0.0, 0.5], [0.5, np.nan]])
    found = class_means(values, np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 2.0]]))
    assert found[0].tolist() == [0.5, 0.5]
    assert found[1, 0] == 0.75
    assert np.isnan(found[1, 1])
    assert macro(found).tolist() == [0.5, 0.75]


def test_a_text_of_several_patients_is_drawn_with_each_of_them() -> None:
    owners = Owners(np.array([0, 0, 1]), np.array(["a", "b", "c"]))
    alone = Owners(np.array([0, 1, 2]), np.array(["a", "b", "c"]))
    shared = np.concatenate(list(owners.weights(50, 3)))
    each = np.concatenate(list(alone.weights(50, 3)))
    assert np.array_equal(shared[:, 0], (each[:, 0] + each[:, 1]) / 2)
    assert np.array_equal(shared[:, 1], each[:, 2])
