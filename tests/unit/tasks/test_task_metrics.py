"""Metrics against scikit-learn, and intervals against what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from umif.errors import ShapeError, TaskError
from umif.tasks import metrics
from umif.tasks.metrics import (
    accuracy,
    auroc,
    macro_auroc,
    macro_auroc_gain,
    macro_auroc_interval,
    macro_auroc_replicates,
    patient_weights,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def drawn(
    images: int, classes: int, signal: float = 0.0, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (images, classes)).astype(np.int8)
    return rng.normal(size=(images, classes)) + signal * labels, labels


# Exact up to the order in which scikit-learn adds trapezoids.
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1)), min_size=2, max_size=60).filter(
        lambda cases: len({label for _, label in cases}) == 2
    )
)
def test_auroc_with_ties_equals_scikit_learn(cases: list[tuple[int, int]]) -> None:
    scores, labels = np.array([c[0] for c in cases], dtype=float), np.array([c[1] for c in cases])
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_leaves_unknown_labels_out() -> None:
    scores, labels = np.array([0.1, 0.9, 0.4, 0.8, 0.3]), np.array([0, -1, 0, 1, -1])
    assert auroc(scores, labels) == roc_auc_score([0, 0, 1], [0.1, 0.4, 0.8])


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], [-1, -1, 1], [-1, -1, -1]])
def test_auroc_of_one_class_is_refused(labels: list[int]) -> None:
    with pytest.raises(TaskError, match="one class only"):
        auroc(np.array([0.1, 0.2, 0.3]), np.array(labels))


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_have_no_order_are_refused(score: float) -> None:
    with pytest.raises(ShapeError, match="NaN or infinity"):
        auroc(np.array([0.1, score]), np.array([0, 1]))


def test_scores_and_labels_of_different_shapes_are_refused() -> None:
    with pytest.raises(ShapeError):
        macro_auroc(np.zeros((4, 2)), np.zeros((4, 3), dtype=np.int8))


def test_macro_is_the_mean_over_classes_with_both_states() -> None:
    scores, labels = drawn(80, 3, signal=1.0)
    labels[:, 1] = 1  # one state only
    labels[:7, 2] = -1
    value, per_class = macro_auroc(scores, labels)
    expected = [roc_auc_score(labels[:, 0], scores[:, 0]), roc_auc_score(labels[7:, 2], scores[7:, 2])]
    assert value == pytest.approx(np.mean(expected), abs=1e-12)
    assert per_class[1] is None
    assert per_class[2] == pytest.approx(expected[1], abs=1e-12)


def test_macro_of_no_class_is_refused() -> None:
    with pytest.raises(TaskError, match="no class"):
        macro_auroc(np.zeros((3, 2)), np.ones((3, 2), dtype=np.int8))


def test_accuracy_counts_known_labels_only() -> None:
    assert accuracy(np.array([1, 0, 2, 2]), np.array([1, 1, -1, 2])) == pytest.approx(2 / 3)
    with pytest.raises(TaskError):
        accuracy(np.array([1]), np.array([-1]))


def test_replicates_equal_a_plain_loop_over_repeated_images() -> None:
    scores, labels = drawn(40, 2, signal=0.5)
    labels[::5, 0] = -1
    patients = [f"p{index // 3}" for index in range(40)]
    weights = np.concatenate(list(patient_weights(patients, 50, seed=3)))
    [ours] = macro_auroc_replicates([scores], labels, patients, 50, seed=3)
    for replicate, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(40), counts)
        per_class = []
        for column in range(2):
            known = rows[labels[rows, column] >= 0]
            per_class.append(roc_auc_score(labels[known, column], scores[known, column]))
        assert ours[replicate] == pytest.approx(np.mean(per_class), abs=1e-12)


def test_images_of_one_patient_are_drawn_together() -> None:
    patients = ["a", "b", "a", "c", "b"]
    weights = np.concatenate(list(patient_weights(patients, 200, seed=0)))
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()


def test_replicates_do_not_depend_on_block_size_or_order(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = [f"p{index % 7}" for index in range(30)]
    whole = np.concatenate(list(patient_weights(patients, 20, seed=5)))
    monkeypatch.setattr(metrics, "_CELLS", 60)
    blocks = list(patient_weights(patients, 20, seed=5))
    assert len(blocks) == 10
    assert np.array_equal(np.concatenate(blocks), whole)
    order = np.random.default_rng(0).permutation(30)
    moved = np.concatenate(list(patient_weights([patients[i] for i in order], 20, seed=5)))
    assert np.array_equal(moved, whole[:, order])


def test_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    # Scores N(0, 1) and N(1, 1): AUC = Φ(1/√2). 120 trials at 95 %: fewer than 105 has probability below 0.1 %.
    covered = 0
    for seed in range(120):
        scores, labels = drawn(150, 1, signal=1.0, seed=seed)
        estimate = macro_auroc_interval(scores, labels, [str(i) for i in range(150)], replicates=200, seed=seed)
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 0.7602 <= estimate.high
    assert covered >= 105


def test_more_images_of_the_same_patients_do_not_narrow_the_interval() -> None:
    scores, labels = drawn(60, 1, signal=0.7)
    patients = [str(index) for index in range(60)]
    once = macro_auroc_interval(scores, labels, patients, replicates=400)
    copied = macro_auroc_interval(np.tile(scores, (5, 1)), np.tile(labels, (5, 1)), patients * 5, replicates=400)
    # The same patients, drawn the same way: exactly the same replicates.
    assert copied.low == pytest.approx(once.low, abs=1e-12)
    assert copied.high == pytest.approx(once.high, abs=1e-12)


def test_no_replicates_no_interval() -> None:
    scores, labels = drawn(20, 1)
    estimate = macro_auroc_interval(scores, labels, [str(i) for i in range(20)], replicates=0)
    assert (estimate.low, estimate.high) == (None, None)
    gain = macro_auroc_gain(scores, scores, labels, [str(i) for i in range(20)], replicates=0)
    assert (gain.low, gain.high, gain.share_not_above_zero) == (None, None, None)


def test_gain_over_oneself_is_nothing_in_every_replicate() -> None:
    scores, labels = drawn(50, 2, signal=0.3)
    gain = macro_auroc_gain(scores, scores, labels, [str(i) for i in range(50)], replicates=100)
    assert (gain.value, gain.low, gain.high, gain.share_not_above_zero) == (0.0, 0.0, 0.0, 1.0)


def test_pairing_tells_apart_what_two_intervals_cannot() -> None:
    scores, labels = drawn(200, 1, signal=0.6, seed=1)
    better = scores + 0.15 * labels
    patients = [str(index) for index in range(200)]
    gain = macro_auroc_gain(better, scores, labels, patients)
    ours, theirs = (macro_auroc_interval(s, labels, patients) for s in (better, scores))
    assert gain.value == pytest.approx(ours.value - theirs.value)
    assert gain.low is not None
    assert gain.low > 0
    assert gain.share_not_above_zero == 0.0
    assert ours.low is not None
    assert theirs.high is not None
    assert ours.low < theirs.high


def test_patients_must_match_the_images() -> None:
    scores, labels = drawn(10, 1)
    with pytest.raises(ShapeError, match="patients"):
        macro_auroc_interval(scores, labels, ["a"] * 9)
