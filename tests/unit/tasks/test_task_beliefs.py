"""Calibration, operating points and groups, against scikit-learn and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss, roc_curve

from umif.errors import ShapeError, TaskError
from umif.tasks.calibration import calibration, class_calibration, operating_points, probabilities
from umif.tasks.measures import Measure
from umif.tasks.metrics import (
    exclusive_accuracy,
    exclusive_accuracy_replicates,
    macro_auroc,
    macro_auroc_replicates,
    patient_weights,
    weighted_means,
)
from umif.tasks.slices import age_group, slices

AUC = Measure("macro AUC", False, macro_auroc, macro_auroc_replicates)


def drawn(seed: int, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    believed = rng.random(count)
    return believed, rng.random(count) < believed**2


# ------------------------------------------------------------------------------------------------- calibration
@pytest.mark.parametrize("seed", range(5))
def test_bins_and_brier_equal_scikit_learn(seed: int) -> None:
    believed, truth = drawn(seed)
    found = calibration(believed, truth)
    true, mean = calibration_curve(truth, believed, n_bins=15, strategy="uniform")
    assert [row["true"] for row in found["bins"]] == pytest.approx(true.tolist())
    assert [row["believed"] for row in found["bins"]] == pytest.approx(mean.tolist())
    assert found["brier"] == pytest.approx(brier_score_loss(truth, believed))
    weights = np.array([row["n"] for row in found["bins"]]) / len(believed)
    assert found["ece"] == pytest.approx(float(weights @ np.abs(true - mean)))


@pytest.mark.parametrize(
    ("believed", "truth", "ece"), [([0.0, 1.0], [0, 1], 0.0), ([1.0, 0.0], [0, 1], 1.0), ([0.5], [1], 0.5)]
)
def test_edges_of_belief(believed: list[float], truth: list[int], ece: float) -> None:
    found = calibration(np.array(believed), np.array(truth, dtype=bool))
    assert found["ece"] == pytest.approx(ece)
    assert sum(row["n"] for row in found["bins"]) == len(truth)


def test_classes_are_averaged_and_unknown_labels_left_out() -> None:
    believed, truth = drawn(1)
    scores = np.log(believed / (1 - believed))
    labels = np.stack([truth, np.where(np.arange(300) < 50, truth, -1), truth], axis=1).astype(np.int8)
    found = class_calibration(np.stack([scores, scores, np.zeros(300)], axis=1), labels, ("a", "b", "flat"), "logistic")
    assert set(found["per_class"]) == {"a", "b"}  # one score for all is no belief
    assert found["per_class"]["b"]["brier"] == pytest.approx(brier_score_loss(truth[:50], believed[:50]))
    assert found["ece"] == pytest.approx(np.mean([one["ece"] for one in found["per_class"].values()]))


def test_of_exclusive_classes_the_likeliest_is_believed() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    labels = np.eye(3, dtype=np.int8)[truth]
    found = class_calibration(scores, labels, ("a", "b", "c"), "softmax")
    chances = probabilities(scores, "softmax")
    assert chances.sum(1) == pytest.approx(np.ones(200))
    assert found["brier"] == pytest.approx(((chances - labels) ** 2).sum(1).mean())
    right = scores.argmax(1) == truth
    assert sum(row["n"] * row["true"] for row in found["bins"]) == pytest.approx(right.sum())


# ------------------------------------------------------------------------------------------------- operating points
@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_those_of_the_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 400)
    scores = np.round(labels + rng.normal(0, 1, 400), 1)  # with ties
    found = operating_points(scores, labels, scores, labels, [f"p{n}" for n in range(400)], 20, 0)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    specific, sensitive = found
    # Of all thresholds that reach the target, the one that costs the other side least.
    assert specific["sensitivity"][0] == pytest.approx(true[1 - false >= 0.95].max())
    assert specific["specificity"][0] >= 0.95
    assert sensitive["specificity"][0] == pytest.approx((1 - false)[true >= 0.95].max())
    assert sensitive["sensitivity"][0] >= 0.95
    for point in found:
        assert point["val"]["sensitivity"] == point["sensitivity"][0]
        assert point["sensitivity"][1] <= point["sensitivity"][0] <= point["sensitivity"][2]


def test_test_labels_do_not_choose_a_threshold() -> None:
    rng = np.random.default_rng(0)
    val, labels = rng.normal(size=100), rng.integers(0, 2, 100)
    patients = [f"p{n}" for n in range(100)]
    one = operating_points(val, labels, val, labels, patients, 0, 0)
    other = operating_points(val, labels, val, 1 - labels, patients, 0, 0)
    assert [point["threshold"] for point in one] == [point["threshold"] for point in other]
    assert operating_points(val, np.ones(100, dtype=int), val, labels, patients, 0, 0) == []  # nothing to choose by
    alone = operating_points(val, labels, val, np.ones(100, dtype=int), patients, 0, 0)
    assert all(point["specificity"] is None for point in alone)


# ------------------------------------------------------------------------------------------------- exclusive classes
@pytest.mark.parametrize("seed", range(5))
def test_accuracies_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, 4, 90), rng.normal(size=(90, 4))
    value, recalls = exclusive_accuracy(scores, np.eye(4, dtype=np.int8)[truth])
    assert value == pytest.approx(accuracy_score(truth, scores.argmax(1)))
    assert np.mean([one for one in recalls if one is not None]) == pytest.approx(
        balanced_accuracy_score(truth, scores.argmax(1))
    )


def test_labels_that_do_not_exclude_one_another_are_refused() -> None:
    scores = np.zeros((2, 2))
    with pytest.raises(ShapeError, match="of several"):
        exclusive_accuracy(scores, np.ones((2, 2), dtype=np.int8))
    with pytest.raises(TaskError, match="no image is labelled"):
        exclusive_accuracy(scores, np.full((2, 2), -1, dtype=np.int8))
    with pytest.raises(ShapeError, match="NaN"):
        exclusive_accuracy(np.full((2, 2), np.nan), np.eye(2, dtype=np.int8))


def test_replicates_of_accuracy_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 3, 40), rng.normal(size=(40, 3))
    patients = [f"p{n % 11}" for n in range(40)]
    [found] = exclusive_accuracy_replicates([scores], np.eye(3, dtype=np.int8)[truth], patients, 30, 5)
    [weights] = patient_weights(patients, 30, 5)
    hits = scores.argmax(1) == truth
    expected = [hits[np.repeat(np.arange(40), row.astype(int))].mean() for row in weights]
    assert found.tolist() == pytest.approx(expected)
    [empty] = weighted_means([(np.zeros(0, dtype=np.int64), np.zeros(0))], patients, 3, 0)
    assert np.isnan(empty).all()


# ------------------------------------------------------------------------------------------------- groups
def test_a_group_that_is_read_worse_shows_its_gap() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (600, 1)).astype(np.int8)
    sex = np.where(np.arange(600) < 250, "F", "M")
    sex[-50:] = ""  # not known
    scores = labels + rng.normal(0, np.where(sex == "F", 2.0, 0.3)[:, None], (600, 1))
    patients = [f"p{n}" for n in range(600)]
    found = {one["group"]: one for one in slices(AUC, scores[None], labels, patients, {"sex": sex}, 300, 0)}
    assert set(found) == {"F", "M"}
    assert found["F"]["value"] == macro_auroc(scores[:250], labels[:250])[0]
    assert found["F"]["gap"]["value"] == pytest.approx(found["F"]["value"] - found["M"]["value"])
    assert found["F"]["gap"]["high"] < 0 < found["M"]["gap"]["low"]
    assert found["F"]["low"] <= found["F"]["value"] <= found["F"]["high"]
    assert (found["F"]["n_images"], found["M"]["n_images"]) == (250, 300)
    assert found["F"]["replicates"] == 200


def test_groups_without_enough_patients_are_not_measured() -> None:
    labels = np.tile([0, 1], 50)[:, None].astype(np.int8)
    patients = [f"p{n}" for n in range(100)]
    few = np.where(np.arange(100) < 8, "a", "b")  # four positive patients
    alone = np.full(100, "a")
    assert slices(AUC, labels[None].astype(float), labels, patients, {"few": few, "alone": alone}, 10, 0) == []


def test_several_seeds_are_averaged_within_a_group() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 2)).astype(np.int8)
    scores = rng.normal(size=(3, 80, 2))
    view = np.where(np.arange(80) % 2, "AP", "PA")
    found = slices(AUC, scores, labels, [f"p{n}" for n in range(80)], {"view": view}, 20, 0)
    inside = view == "AP"
    expected = np.mean([macro_auroc(one[inside], labels[inside])[0] for one in scores])
    assert found[0]["value"] == pytest.approx(expected)
    assert found[0]["classes"] == 2


def test_ages_fall_into_groups() -> None:
    assert [age_group(years) for years in (None, 0.0, 17.9, 18.0, 59.0, 80.0, 104.0)] == [
        "", "0–17", "0–17", "18–39", "40–59", "80 and over", "80 and over",
    ]  # fmt: skip
