"""Average precision of predicted boxes by COCO's rules, its patient bootstrap, sensitivity at a false-positive rate.

Whether a prediction is a hit depends on its own image alone. So predictions are matched once per image, class and
threshold; a replicate of the bootstrap only weights the images anew, which is a sum along the predictions' order.

A class may be unknown in an image (neither boxed nor said to be absent): then the image says nothing about it, and
predictions of it there are neither hits nor false.

Source: the COCO evaluation (pycocotools), with which the values agree: 101 points of recall, 100 predictions per image
and class, all areas; of boxes that overlap a prediction equally the last is taken.

Shape legend: N images, K classes, G boxes and M predictions (of an image or of all), T thresholds, R replicates, H hits
at any threshold, X hits at one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from umif.tasks.detection_boxes import iou_matrix
from umif.tasks.metrics import UNKNOWN, patient_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# 0.40 to 0.75 is the field's range for radiographs, 0.50 to 0.95 COCO's; both are parts of one list.
THRESHOLDS: tuple[float, ...] = tuple(round(0.40 + 0.05 * step, 2) for step in range(12))
MAIN, COCO = slice(0, 8), slice(2, 12)
HALF = THRESHOLDS.index(0.5)
MAX_DETECTIONS = 100
_RECALLS = np.linspace(0.0, 1.0, 101)
_EPSILON = np.spacing(1)
# (replicate, hit) cells held at a time.
_CELLS = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Detections:
    """What is predicted on one image, in any order.

    Shapes: boxes_M4 as fractions (left, top, right, bottom); scores_M, by which they are ranked; objectness_M, in
    [0, 1]; classes_M, positions in the list of classes.
    """

    boxes_M4: NDArray[np.float64]
    scores_M: NDArray[np.float64]
    objectness_M: NDArray[np.float64]
    classes_M: NDArray[np.int64]

    def where(self, chosen_M: NDArray[np.bool_]) -> Detections:
        """Return some of them."""
        return Detections(
            self.boxes_M4[chosen_M], self.scores_M[chosen_M], self.objectness_M[chosen_M], self.classes_M[chosen_M]
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """What is there on one image.

    Shapes: boxes_G4; classes_G; states_K: 1 = boxed, 0 = absent, −1 = unknown.
    """

    boxes_G4: NDArray[np.float64]
    classes_G: NDArray[np.int64]
    states_K: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Matches:
    """All predictions of one class in falling order of score, and which of them are hits at each threshold.

    Shapes: image_M; score_M; hit_TM bool; truth_N, boxes per image, 0 where the class is absent or unknown.
    """

    image_M: NDArray[np.int64]
    score_M: NDArray[np.float64]
    hit_TM: NDArray[np.bool_]
    truth_N: NDArray[np.float64]


def match(predicted: Sequence[Detections], truths: Sequence[Truth], classes: int) -> list[Matches]:
    """Match predictions to boxes, each image by itself; one `Matches` per class."""
    found = []
    for index in range(classes):
        images, scores, hits = [], [], []
        truth_N = np.zeros(len(truths))
        for image, (ours, truth) in enumerate(zip(predicted, truths, strict=True)):
            if truth.states_K[index] == UNKNOWN:
                continue
            boxes_G4 = truth.boxes_G4[truth.classes_G == index]
            truth_N[image] = len(boxes_G4)
            mine = np.flatnonzero(ours.classes_M == index)
            mine = mine[np.argsort(-ours.scores_M[mine], kind="stable")][:MAX_DETECTIONS]
            images.append(np.full(len(mine), image, dtype=np.int64))
            scores.append(ours.scores_M[mine])
            hits.append(_hits(iou_matrix(ours.boxes_M4[mine], boxes_G4)))
        score_M = np.concatenate([np.zeros(0), *scores])
        order = np.argsort(-score_M, kind="stable")
        image_M = np.concatenate([np.zeros(0, dtype=np.int64), *images])
        hit_TM = np.concatenate([np.zeros((len(THRESHOLDS), 0), dtype=bool), *hits], axis=1)
        found.append(Matches(image_M[order], score_M[order], hit_TM[:, order], truth_N))
    return found


def _hits(iou_MG: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Let each prediction in turn take the box that it overlaps most of those left, if enough. Shape (T, M)."""
    least_T = np.minimum(np.array(THRESHOLDS), 1 - 1e-10)
    count, boxes = iou_MG.shape
    hit_TM = np.zeros((len(least_T), count), dtype=bool)
    free_TG = np.ones((len(least_T), boxes), dtype=bool)
    for index in np.flatnonzero((iou_MG >= least_T[0]).any(axis=1)) if boxes else ():
        able_TG = np.where(free_TG & (iou_MG[index] >= least_T[:, None]), iou_MG[index], -1.0)
        taken_T = boxes - 1 - able_TG[:, ::-1].argmax(axis=1)
        able_T = able_TG.max(axis=1) >= 0
        hit_TM[able_T, index] = True
        free_TG[able_T, taken_T[able_T]] = False
    return hit_TM


def average_precision(matches: Matches, weights_RN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one class's average precision at each threshold under each row of image weights.

    Between two hits precision only falls and recall stands still, so hits alone decide: each adds the highest precision
    from there on, times the points of recall that it reaches first.

    Shapes: (R, N) → (R, T); NaN where no box has weight.
    """
    total_R = weights_RN @ matches.truth_N
    ap_RT = np.zeros((len(weights_RN), len(THRESHOLDS)))
    any_M = matches.hit_TM.any(axis=0)
    places = np.flatnonzero(any_M)
    # How many predictions of each image lie behind the hit before and up to each hit: then a sum over images does.
    behind_M: NDArray[np.int64] = np.cumsum(any_M) - any_M
    ranked = behind_M < len(places)
    counts_NH = np.zeros((weights_RN.shape[1], len(places)))
    np.add.at(counts_NH, (matches.image_M[ranked], behind_M[ranked]), 1.0)
    ranked_RH = np.cumsum(weights_RN @ counts_NH, axis=1)
    weights_RH = weights_RN[:, matches.image_M[places]]
    for index, hit_H in enumerate(matches.hit_TM[:, places]):
        right_RX = np.cumsum(weights_RH[:, hit_H], axis=1)
        precision_RX = right_RX / (ranked_RH[:, hit_H] + _EPSILON)
        best_RX = np.maximum.accumulate(precision_RX[:, ::-1], axis=1)[:, ::-1]
        recall_RX = right_RX / np.maximum(total_R, 1.0)[:, None]
        reached_RX = np.searchsorted(_RECALLS, recall_RX.ravel(), side="right").reshape(recall_RX.shape)
        ap_RT[:, index] = (best_RX * np.diff(reached_RX, axis=1, prepend=0)).sum(axis=1) / len(_RECALLS)
    ap_RT[total_R == 0] = np.nan
    return ap_RT


def precision_table(found: Sequence[Matches], weights_N: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the average precision of every class at every threshold. Shape (K, T); NaN for a class without boxes."""
    weights_N = np.ones(len(found[0].truth_N)) if weights_N is None else weights_N
    return np.stack([average_precision(one, weights_N[None])[0] for one in found])


def mean_precision(table_XKT: NDArray[np.float64], thresholds: slice = MAIN) -> NDArray[np.float64]:
    """Mean over thresholds and over the classes that have boxes. Shapes: (…, K, T) → (…); NaN where none has."""
    per_class = table_XKT[..., thresholds].mean(axis=-1)
    defined = ~np.isnan(per_class)
    total = np.where(defined, per_class, 0.0).sum(axis=-1)
    count = defined.sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def precision_replicates(
    found: Sequence[Matches], patients: Sequence[str], replicates: int, seed: int
) -> NDArray[np.float64]:
    """Return the average precisions in each replicate of whole patients. Shape (R, K, T).

    Depends on the set of patients and the seed alone which replicates there are, so two encoders' are paired.
    """
    parts = [np.zeros((0, len(found), len(THRESHOLDS)))]
    rows = max(1, _CELLS // max(1, *(int(one.truth_N.sum()) for one in found)))
    for weights_RN in patient_weights(patients, replicates, seed):
        for start in range(0, len(weights_RN), rows):
            part_RN = weights_RN[start : start + rows]
            parts.append(np.stack([average_precision(one, part_RN) for one in found], axis=1))
    return np.concatenate(parts)


def legacy_precision(
    predicted: Sequence[Detections], truths: Sequence[Truth], classes: int
) -> tuple[float | None, int]:
    """Return the mAP (0.40 to 0.75) as the code of MGCA takes it, and on how many images.

    Predictions below an objectness of one half are dropped; then images without a prediction are skipped, so their
    missed boxes cost nothing, and images without a box are skipped, so their false alarms cost nothing. It is too high
    by construction and only for comparison with published numbers. `None` where no image is left.
    """
    sure = [one.where(one.objectness_M >= 0.5) for one in predicted]
    scored_N = np.array(
        [len(ours.scores_M) > 0 and len(truth.boxes_G4) > 0 for ours, truth in zip(sure, truths, strict=True)]
    )
    value = float(mean_precision(precision_table(match(sure, truths, classes), scored_N.astype(np.float64))))
    return (None if np.isnan(value) else value), int(scored_N.sum())


def sensitivity(
    found: Sequence[Matches], false_per_image: float = 1.0, threshold: int = 0
) -> tuple[float, float | None]:
    """Return the largest share of all boxes found at no more than `false_per_image` false predictions per image.

    Predictions of all classes are ranked together; a prediction is right if it hits at threshold number `threshold`.
    The second value is the least score that counts there; `None` where even the best are wrong too often.
    """
    score_M = np.concatenate([one.score_M for one in found])
    order = np.argsort(-score_M, kind="stable")
    score_M, hit_M = score_M[order], np.concatenate([one.hit_TM[threshold] for one in found])[order]
    boxes = sum(float(one.truth_N.sum()) for one in found)
    if not len(order) or not boxes:
        return 0.0, None
    whole = np.flatnonzero(np.append(score_M[1:] != score_M[:-1], True))  # a cut lies between different scores only
    right, wrong = np.cumsum(hit_M)[whole], np.cumsum(~hit_M)[whole]
    allowed = np.flatnonzero(wrong <= false_per_image * len(found[0].truth_N))
    if not len(allowed):
        return 0.0, None
    return float(right[allowed[-1]] / boxes), float(score_M[whole[allowed[-1]]])
