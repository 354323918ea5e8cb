"""Average precision agrees with COCO's own code, on whole sets and on resampled ones; other counts by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools import coco
from pycocotools.cocoeval import COCOeval

from umif.tasks.detection_metrics import (
    COCO,
    MAIN,
    MAX_DETECTIONS,
    THRESHOLDS,
    Detections,
    Truth,
    legacy_precision,
    match,
    mean_precision,
    precision_replicates,
    precision_table,
    sensitivity,
)
from umif.tasks.metrics import patient_weights

CLASSES = 3


def truth(boxes: list[list[float]], classes: list[int] | None = None, states: list[int] | None = None) -> Truth:
    classes = [0] * len(boxes) if classes is None else classes
    states = [1 if index in classes else 0 for index in range(CLASSES)] if states is None else states
    return Truth(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(classes, dtype=np.int64),
        np.array(states, dtype=np.int8),
    )


def found(boxes: list[list[float]], scores: list[float], classes: list[int] | None = None) -> Detections:
    kinds = np.zeros(len(boxes), dtype=np.int64) if classes is None else np.array(classes, dtype=np.int64)
    values = np.array(scores, dtype=np.float64)
    return Detections(np.array(boxes, dtype=np.float64).reshape(-1, 4), values, values, kinds)


def random_set(seed: int, images: int = 30, most: int = 5) -> tuple[list[Detections], list[Truth]]:
    """Boxes on some images; predictions near some boxes, elsewhere, or none; many equal scores and equal boxes."""
    rng = np.random.default_rng(seed)
    truths, predicted = [], []
    for _ in range(images):
        count = int(rng.integers(0, most)) if rng.random() < 0.7 else 0
        corner, size = rng.uniform(0, 0.6, (count, 2)), rng.uniform(0.05, 0.4, (count, 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        kinds = rng.integers(0, CLASSES, count)
        truths.append(truth(boxes.tolist(), kinds.tolist()))
        near = boxes[rng.random(count) < 0.8].repeat(2, axis=0)
        near = near + rng.normal(0, 0.03, near.shape)
        far_corner = rng.uniform(0, 0.6, (int(rng.integers(0, 6)), 2))
        every = np.concatenate([near, np.concatenate([far_corner, far_corner + 0.2], axis=1)])
        every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 0.01)
        if rng.random() < 0.15:
            every = every[:0]
        scores = rng.random(len(every)).round(2)
        predicted.append(found(every.tolist(), scores.tolist(), rng.integers(0, CLASSES, len(every)).tolist()))
    return predicted, truths


def coco_table(predicted: list[Detections], truths: list[Truth], images: list[int] | None = None) -> np.ndarray:
    """Average precision by pycocotools. Shape (K, T); NaN where a class has no box."""
    chosen = list(range(len(truths))) if images is None else images
    reference = coco.COCO()
    annotations: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for number, image in enumerate(chosen):
        for box, kind in zip(truths[image].boxes_G4, truths[image].classes_G, strict=True):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number + 1, "category_id": int(kind) + 1, "bbox": sides,
                 "area": sides[2] * sides[3], "iscrowd": 0}
            )  # fmt: skip
        ours = predicted[image]
        for box, score, kind in zip(ours.boxes_M4, ours.scores_M, ours.classes_M, strict=True):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": number + 1, "category_id": int(kind) + 1, "bbox": sides, "score": score})
    reference.dataset = {
        "images": [{"id": number + 1} for number in range(len(chosen))],
        "categories": [{"id": index + 1} for index in range(CLASSES)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results) if results else coco.COCO(), "bbox")
        evaluation.params.iouThrs = np.array(THRESHOLDS)
        evaluation.params.imgIds = list(range(1, len(chosen) + 1))
        evaluation.params.catIds = list(range(1, CLASSES + 1))
        evaluation.evaluate()
        evaluation.accumulate()
    precision_TK = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    return np.where(precision_TK.T < 0, np.nan, precision_TK.T)


# Sums of a hundred numbers in another order differ in the last digits.
ATOL = 1e-12


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_that_of_coco(seed: int) -> None:
    predicted, truths = random_set(seed)
    ours = precision_table(match(predicted, truths, CLASSES))
    np.testing.assert_allclose(ours, coco_table(predicted, truths), rtol=0, atol=ATOL)
    assert 0.0 < mean_precision(ours, COCO) < mean_precision(ours, MAIN) < 1.0


BOX, ELSEWHERE = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
EDGES = {
    "perfect": ([found([BOX], [0.9])], [truth([BOX])]),
    "nothing found": ([found([], []), found([], [])], [truth([BOX]), truth([])]),
    "found where nothing is": ([found([BOX], [0.9]), found([BOX], [0.4])], [truth([]), truth([BOX])]),
    "twice the same": ([found([BOX, BOX], [0.9, 0.9])], [truth([BOX])]),
    "two equal boxes": ([found([BOX, BOX], [0.9, 0.8])], [truth([BOX, BOX])]),
    "wrong class": ([found([BOX], [0.9], [1])], [truth([BOX])]),
    "equal overlap with two": (
        [found([[0.2, 0.2, 0.4, 0.4], [0.1, 0.2, 0.3, 0.4]], [0.9, 0.8])],
        [truth([[0.15, 0.2, 0.35, 0.4], [0.25, 0.2, 0.45, 0.4]])],
    ),
    "exactly at a threshold": ([found([[0.0, 0.0, 0.5, 0.5]], [0.9])], [truth([[0.0, 0.0, 0.5, 1.0]])]),
    "more than count": (
        [found([ELSEWHERE] * MAX_DETECTIONS + [BOX], [0.9] * MAX_DETECTIONS + [0.1])],
        [truth([BOX])],
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_those_of_coco(name: str) -> None:
    predicted, truths = EDGES[name]
    np.testing.assert_allclose(
        precision_table(match(predicted, truths, CLASSES)), coco_table(predicted, truths), rtol=0, atol=ATOL
    )


def test_a_replicate_is_the_set_with_its_patients_as_often_as_drawn() -> None:
    predicted, truths = random_set(3, images=24)
    # Without equal scores inside an image, whose order differs between a weight of two and a second copy.
    rng = np.random.default_rng(0)
    predicted = [
        Detections(one.boxes_M4, rng.random(len(one.scores_M)), one.objectness_M, one.classes_M) for one in predicted
    ]
    patients = [f"p{image // 2}" for image in range(24)]
    ours_RKT = precision_replicates(match(predicted, truths, CLASSES), patients, 6, seed=5)
    weights_RN = np.concatenate(list(patient_weights(patients, 6, 5))).astype(int)
    for weights_N, ours in zip(weights_RN, ours_RKT, strict=True):
        images = np.repeat(np.arange(24), weights_N).tolist()
        np.testing.assert_allclose(ours, coco_table(predicted, truths, images), rtol=0, atol=ATOL)


def test_a_class_that_is_unknown_in_an_image_costs_nothing_there() -> None:
    predicted = [found([BOX], [0.5]), found([BOX, BOX], [0.9, 0.8], [0, 1])]
    known = match(predicted, [truth([BOX]), truth([ELSEWHERE], [2], [0, 0, 1])], CLASSES)
    unknown = match(predicted, [truth([BOX]), truth([ELSEWHERE], [2], [-1, 0, 1])], CLASSES)
    assert mean_precision(precision_table(known)[:1]) == pytest.approx(0.5)
    assert mean_precision(precision_table(unknown)[:1]) == pytest.approx(1.0)


def test_every_image_counts_unless_legacy() -> None:
    predicted = [found([BOX], [0.9]), found([BOX], [0.95]), found([], []), found([BOX], [0.4])]
    truths = [truth([BOX]), truth([]), truth([BOX]), truth([BOX])]
    standard = float(mean_precision(precision_table(match(predicted, truths, CLASSES))))
    # Half right from the first hit on; three boxes, two found, precision then 2 of 3.
    assert standard == pytest.approx(2 / 3 * 67 / 101)
    value, images = legacy_precision(predicted, truths, CLASSES)
    assert value == pytest.approx(1.0)
    assert images == 1
    assert legacy_precision([found([], [])], [truth([BOX])], CLASSES) == (None, 0)


def test_sensitivity_at_a_rate_of_false_predictions() -> None:
    predicted = [found([ELSEWHERE, BOX], [0.9, 0.8]), found([ELSEWHERE, ELSEWHERE, BOX], [0.7, 0.6, 0.5])]
    truths = [truth([BOX]), truth([BOX])]
    matches = match(predicted, truths, CLASSES)
    assert sensitivity(matches, 0.5) == (0.5, 0.8)
    assert sensitivity(matches, 1.0) == (0.5, 0.7)
    assert sensitivity(matches, 1.5) == (1.0, 0.5)
    assert sensitivity(matches, 0.0) == (0.0, None)
