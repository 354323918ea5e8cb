"""The head's geometry, targets, loss and predictions; that it learns sixteen cases by heart, places from features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umif.encoder.dense import PatchFeatures
from umif.tasks.detection_boxes import fit_anchors, iou_matrix
from umif.tasks.detection_fit import fit_head, new_head, raw_predictions
from umif.tasks.detection_head import DetectionHead, Target, assign, detection_loss, detections
from umif.tasks.detection_metrics import HALF, Truth, match, precision_table
from umif.tasks.head_training import HeadTraining

ANCHORS = np.array([[0.05 * side, 0.04 * side] for side in range(2, 11)])


def head_of(grid: tuple[int, int] = (7, 7), classes: int = 2, width: int = 8) -> DetectionHead:
    statistics = np.stack([np.zeros(width), np.ones(width)]).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DetectionHead(width, grid, classes, ANCHORS, statistics, neck=16)


def random_truth(rng: np.random.Generator, count: int, classes: int = 2) -> Truth:
    size = rng.uniform(0.08, 0.5, (count, 2))
    corner = rng.uniform(0, 1 - size)
    kinds = rng.integers(0, classes, count)
    states = np.isin(np.arange(classes), kinds).astype(np.int8)
    return Truth(np.concatenate([corner, corner + size], axis=1), kinds, states)


def said(head: DetectionHead, target: Target) -> torch.Tensor:
    """The numbers of a head that is right and sure. Shape (1, S, numbers)."""
    raw = torch.zeros(1, len(head.slots_S6), head.numbers)
    raw[..., 4:] = -20.0
    for slot, box, kind in zip(target.slots_G, target.boxes_G4, target.classes_G, strict=True):
        column, row, wide, high, anchor_wide, anchor_high = head.slots_S6[slot]
        x, y = (box[0] + box[2]) / 2 / wide - column, (box[1] + box[3]) / 2 / high - row
        raw[0, slot, :2] = torch.logit(torch.stack([x, y]))
        raw[0, slot, 2:4] = torch.log(torch.stack([(box[2] - box[0]) / anchor_wide, (box[3] - box[1]) / anchor_high]))
        raw[0, slot, 4] = 20.0
        if head.classes > 1:
            raw[0, slot, 5 + kind] = 20.0
    return raw


@pytest.mark.parametrize("grid", [(7, 7), (4, 6), (14, 14), (1, 1)])
def test_a_head_says_something_of_each_anchor_of_each_cell_of_three_maps(grid: tuple[int, int]) -> None:
    head = head_of(grid)
    rows, columns = grid
    cells = 4 * rows * columns + rows * columns + -(-rows // 2) * -(-columns // 2)
    raw = head(torch.randn(2, 8, rows, columns))
    assert raw.shape == (2, 3 * cells, 7)
    assert raw[..., 4].sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)
    assert head_of(grid, classes=1)(torch.randn(1, 8, rows, columns)).shape == (1, 3 * cells, 5)


@pytest.mark.parametrize("classes", [1, 2])
def test_what_is_right_costs_nothing_and_is_what_is_found(classes: int) -> None:
    rng = np.random.default_rng(1)
    head = head_of(classes=classes)
    for count in (0, 1, 3):
        truth = random_truth(rng, count, classes)
        target = assign(head, truth)
        assert len(set(target.slots_G.tolist())) == count
        raw = said(head, target)
        assert float(detection_loss(head, raw, [target], 1.0)) == pytest.approx(0, abs=1e-3)
        [found] = detections(head, raw)
        best = iou_matrix(truth.boxes_G4, found.boxes_M4)
        # Drawn boxes that overlap by more than one half are suppressed where they are of one class.
        assert len(found.scores_M) <= count
        if len(found.scores_M) == count:
            assert (best.max(axis=1) > 0.999).all() if count else True
            assert sorted(found.classes_M.tolist()) == sorted(truth.classes_G.tolist())
        wrong = raw.clone()
        wrong[..., 4] = -wrong[..., 4]
        assert float(detection_loss(head, wrong, [target], 1.0)) > 100


def test_a_box_goes_to_the_anchor_of_its_shape_in_the_cell_of_its_centre_and_the_second_to_the_next_best() -> None:
    head = head_of()
    wide, high = ANCHORS[8]
    box = [0.9 - wide / 2, 0.7 - high / 2, 0.9 + wide / 2, 0.7 + high / 2]
    target = assign(head, Truth(np.array([box, box]), np.array([0, 1]), np.array([1, 1], dtype=np.int8)))
    first, second = head.slots_S6[target.slots_G].tolist()
    # 7 patches make 4 coarse cells, of 2/7 each: 0.9 lies in the last, 0.7 in the third.
    assert first == pytest.approx([3, 2, 2 / 7, 2 / 7, wide, high])
    assert second == pytest.approx([3, 2, 2 / 7, 2 / 7, *ANCHORS[7]])


def test_a_slot_that_overlaps_a_box_without_being_given_it_is_asked_for_nothing() -> None:
    head = head_of()
    truth = random_truth(np.random.default_rng(2), 1)
    target = assign(head, truth)
    raw = said(head, target)
    [slot] = target.slots_G.tolist()
    place = head.slots_S6[slot]
    twin = next(
        index
        for index in range(len(head.slots_S6))
        if index != slot and torch.equal(head.slots_S6[index, :4], place[:4])
    )
    ratio = torch.log(place[4:] / head.slots_S6[twin, 4:])
    raw[0, twin, :2], raw[0, twin, 2:4] = raw[0, slot, :2], raw[0, slot, 2:4] + ratio
    quiet = float(detection_loss(head, raw, [target], 1.0))
    raw[0, twin, 4] = 20.0
    assert float(detection_loss(head, raw, [target], 1.0)) == pytest.approx(quiet, abs=1e-3)
    raw[0, twin, 2:4] -= 3.0
    assert float(detection_loss(head, raw, [target], 1.0)) > 5


def test_of_predictions_that_overlap_the_best_of_a_class_stays() -> None:
    head = head_of()
    truth = Truth(np.array([[0.3, 0.3, 0.6, 0.5]] * 3), np.array([0, 0, 1]), np.array([1, 1], dtype=np.int8))
    [found] = detections(head, said(head, assign(head, truth)))
    assert sorted(found.classes_M.tolist()) == [0, 1]


def learn(
    features: np.ndarray, grid: tuple[int, int], truths: list[Truth], n_train: int, steps: int, seed: int = 0
) -> tuple[float, DetectionHead]:
    """Train on the first images; return the mean AP at 0.5 on the others, or on the same if there are no others."""
    rows = np.arange(len(truths))
    kept = PatchFeatures([(rows, features.astype(np.float16)[:, None])], (1,), grid)
    anchors = fit_anchors(np.concatenate([truth.boxes_G4 for truth in truths[:n_train]]), 9, seed)
    head = new_head(kept, rows[:n_train], 2, anchors, 32, seed)
    test = rows[n_train:] if n_train < len(truths) else rows
    those = [truths[row] for row in test]
    settings = HeadTraining(steps=steps, batch=8, lr=3e-3, validate_every=max(1, steps // 4))
    fit_head(head, kept, (rows[:n_train], truths[:n_train]), (test, those), settings, seed)
    found = [one for raw in raw_predictions(head, kept, test, torch.device("cpu")) for one in detections(head, raw)]
    return float(precision_table(match(found, those, 2))[:, HALF].mean()), head


def test_sixteen_cases_are_learned_by_heart() -> None:
    rng = np.random.default_rng(3)
    truths = [random_truth(rng, int(rng.integers(0, 3))) for _ in range(16)]
    value, _ = learn(rng.normal(size=(16, 16, 24)), (4, 4), truths, n_train=16, steps=240)
    assert value >= 0.95


def test_places_are_learned_from_features_that_tell_them_and_the_seed_decides_everything() -> None:
    rng = np.random.default_rng(4)
    truths, features = [], rng.normal(size=(60, 16, 6))
    for image in range(60):
        column, row, kind = rng.integers(0, 3), rng.integers(0, 3), int(rng.integers(0, 2))
        box = np.array([[column, row, column + 2, row + 2]]) / 4
        truths.append(Truth(box, np.array([kind]), np.array([kind == 0, kind == 1], dtype=np.int8)))
        marked = features[image].reshape(4, 4, 6)
        marked[row : row + 2, column : column + 2, kind] += 6
    value, head = learn(features, (4, 4), truths, n_train=40, steps=120)
    assert value > 0.8
    torch.manual_seed(77)
    _, again = learn(features, (4, 4), truths, n_train=40, steps=120)
    _, other = learn(features, (4, 4), truths, n_train=40, steps=120, seed=1)
    assert all(torch.equal(first, second) for first, second in zip(head.parameters(), again.parameters(), strict=True))
    assert not torch.equal(head.inward.weight, other.inward.weight)


def test_a_feature_that_is_alike_everywhere_is_not_blown_up() -> None:
    features = np.random.default_rng(0).normal(size=(4, 16, 5)).astype(np.float16)
    features[..., 2] = 3.0
    kept = PatchFeatures([(np.arange(4), features[:, None])], (1,), (4, 4))
    head = new_head(kept, np.arange(4), 1, ANCHORS, 16, 0)
    assert torch.isfinite(head(torch.full((1, 5, 4, 4), 3.1))).all()
    assert float(head.statistics[1].min()) > 1e-4
