"""Thinned ROC curves against scikit-learn's, by hand, and beside the rows of a comparison."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc
from sklearn.metrics import roc_curve as reference

from umif.tasks.metrics import macro_auroc
from umif.tasks.roc import FALSE_ALARMS_G, POINTS, roc_curve, roc_points


@pytest.mark.parametrize("decimals", [1, 6])
def test_a_curve_lies_on_scikit_learns_and_spans_its_area(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    labels = rng.integers(0, 2, 400)
    scores = np.round(rng.normal(labels, 1.0), decimals)  # few decimals: many equal scores
    alarms, found, _ = reference(labels, scores)
    curve = roc_curve(scores, labels)
    assert curve is not None
    inner = ~np.isin(FALSE_ALARMS_G, alarms)
    assert inner.sum() > POINTS / 2
    assert curve[inner] == pytest.approx(np.interp(FALSE_ALARMS_G, alarms, found)[inner])
    # Forty straight pieces instead of some hundred steps.
    assert auc(FALSE_ALARMS_G, curve) == pytest.approx(auc(alarms, found), abs=0.01)


def test_where_it_rises_at_one_share_of_false_alarms_the_upper_end_counts() -> None:
    curve = roc_curve(np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 0, 1, 0]))
    assert curve is not None
    assert curve[0] == 0.5
    assert (curve[(FALSE_ALARMS_G > 0) & (FALSE_ALARMS_G < 0.5)] == 0.5).all()
    assert (curve[FALSE_ALARMS_G > 0.5] == 1.0).all()


def test_scores_that_say_nothing_are_the_diagonal() -> None:
    curve = roc_curve(np.zeros(6), np.array([0, 1, 1, 0, 1, -1]))
    assert curve == pytest.approx(FALSE_ALARMS_G)


def test_unknown_labels_are_left_out_and_one_state_alone_has_no_curve() -> None:
    scores = np.array([0.9, 0.2, 0.5, 0.7])
    assert roc_curve(scores, np.array([1, 0, -1, -1])) == pytest.approx(roc_curve(scores[:2], np.array([1, 0])))
    assert roc_curve(scores, np.array([1, 1, -1, 1])) is None
    labels = np.array([[1, 1], [0, 1], [1, 1], [0, 1]])
    assert list(roc_points(np.stack([scores, scores], axis=1)[None], labels, ("a", "b"))["found"]) == ["a"]
    assert roc_points(scores[None, :, None], labels[:, 1:], ("b",)) == {}


def test_of_several_seeds_the_mean_is_kept() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 1))
    sets = rng.normal(labels, 1.0, (2, 80, 1))
    both = roc_points(sets, labels, ("edema",))["found"]["edema"]
    ones = [roc_points(each[None], labels, ("edema",))["found"]["edema"] for each in sets]
    assert both == pytest.approx(np.mean(ones, axis=0), abs=2e-4)  # kept with four decimals
    assert macro_auroc(sets[0], labels)[0] != macro_auroc(sets[1], labels)[0]
