"""Metrics and their intervals: AUROC, macro AUROC, accuracies; resampling is by patient.

A label is 1 (positive), 0 (negative) or −1 (unknown: not mentioned, uncertain). Unknowns are left out of a class, never
counted as negative. Images of one patient are not independent, so a replicate of the bootstrap draws whole patients,
and two encoders are compared on the same replicates.

Shape legend: N images, F classes, R replicates, P patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from umif.errors import ShapeError, TaskError
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

UNKNOWN = -1
# Weights of so many (replicate, image) cells are held at a time: 64 MiB of float64.
_CELLS = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; `low` and `high` are `None` where nothing was resampled."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Gain:
    """A paired difference with its 95 % interval, and the share of replicates in which it was not above zero."""

    value: float
    low: float | None
    high: float | None
    share_not_above_zero: float | None


def auroc(scores_N: NDArray[np.floating], labels_N: NDArray[np.integer]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting one half.

    Shapes: both (N,); unknown labels (−1) are left out.
    Source: Mann–Whitney U over average ranks.
    Raises:
        TaskError: the labels hold one class only, where the area is not defined.
        ShapeError: lengths differ, or a score is not finite.

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    value = float(_class_auc(_checked(scores_N)[:, None], np.asarray(labels_N)[:, None])[0])
    if np.isnan(value):
        raise TaskError(
            "the labels hold one class only, so there is no AUC", fix="test on data with positives and negatives"
        )
    return value


def macro_auroc(scores_NF: NDArray[np.floating], labels_NF: NDArray[np.integer]) -> tuple[float, list[float | None]]:
    """Mean of the classes' AUROC, and each class's own; `None` marks a class with one state only, left out of the mean.

    Raises:
        TaskError: no class has both states.
    """
    per_class = _class_auc(_checked(scores_NF), np.asarray(labels_NF))
    if np.isnan(per_class).all():
        raise TaskError(
            "no class has both positives and negatives, so there is no AUC",
            fix="test on data with positives and negatives",
        )
    return float(np.nanmean(per_class)), [None if np.isnan(value) else float(value) for value in per_class]


def accuracy(predicted_N: NDArray[np.integer], labels_N: NDArray[np.integer]) -> float:
    """Share of images whose predicted class is the labelled one; unknown labels (−1) are left out.

    Raises:
        TaskError: nothing is labelled.
    """
    known = np.asarray(labels_N) != UNKNOWN
    if len(predicted_N) != len(labels_N):
        raise ShapeError(f"{len(predicted_N)} predictions for {len(labels_N)} labels")
    if not known.any():
        raise TaskError("no image is labelled, so there is no accuracy")
    return float((np.asarray(predicted_N)[known] == np.asarray(labels_N)[known]).mean())


def macro_auroc_interval(
    scores_NF: NDArray[np.floating],
    labels_NF: NDArray[np.integer],
    patients_N: Sequence[str],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Macro AUROC with its 95 % patient-bootstrap interval (percentiles 2.5 and 97.5).

    A class that has one state only in a replicate is left out of that replicate's mean; a replicate in which no class
    has both is left out altogether.

    Raises:
        TaskError: no class has both states.
    """
    value, _ = macro_auroc(scores_NF, labels_NF)
    [values_R] = macro_auroc_replicates([scores_NF], labels_NF, patients_N, replicates, seed)
    return estimate_of(value, values_R)


def macro_auroc_gain(
    scores_NF: NDArray[np.floating],
    baseline_NF: NDArray[np.floating],
    labels_NF: NDArray[np.integer],
    patients_N: Sequence[str],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Gain:
    """Macro AUROC of `scores` minus that of `baseline`, both on the same replicates of the same patients.

    Raises:
        TaskError: no class has both states.
    """
    value = macro_auroc(scores_NF, labels_NF)[0] - macro_auroc(baseline_NF, labels_NF)[0]
    ours_R, theirs_R = macro_auroc_replicates([scores_NF, baseline_NF], labels_NF, patients_N, replicates, seed)
    return gain_of(value, ours_R, theirs_R)


def estimate_of(value: float, values_R: NDArray[np.float64]) -> Estimate:
    """Return a value with the interval that its replicates span."""
    return Estimate(value, *_percentiles(values_R))


def gain_of(value: float, ours_R: NDArray[np.float64], theirs_R: NDArray[np.float64]) -> Gain:
    """Return a difference with the interval that the replicates' differences span; the two must be paired."""
    difference_R = ours_R - theirs_R
    defined_R = difference_R[~np.isnan(difference_R)]
    share = float((defined_R <= 0).mean()) if len(defined_R) else None
    return Gain(value, *_percentiles(difference_R), share)


def patient_weights(patients_N: Sequence[str], replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield, block by block, how often each image occurs in each replicate: its patient's number of draws.

    Shapes: blocks (r, N), r summing to `replicates`. Which replicates there are depends on the set of patients and the
    seed alone, neither on the block size nor on the order of the images.
    """
    names, patient_N = np.unique(np.asarray(patients_N, dtype=np.str_), return_inverse=True)
    count = len(names)
    block = max(1, _CELLS // max(1, len(patient_N)))
    for start in range(0, replicates, block):
        stop = min(start + block, replicates)
        draws = [keyed_rng(seed, "bootstrap", step=r).integers(count, size=count) for r in range(start, stop)]
        weights_RP = np.stack([np.bincount(drawn, minlength=count) for drawn in draws]).astype(np.float64)
        yield weights_RP[:, patient_N]


def macro_auroc_replicates(
    score_sets: Sequence[NDArray[np.floating]],
    labels_NF: NDArray[np.integer],
    patients_N: Sequence[str],
    replicates: int,
    seed: int,
) -> list[NDArray[np.float64]]:
    """Macro AUROC of each set of scores in each replicate: the same patients for all, so that they are paired.

    Shapes: (R,) for each set; NaN where no class has both states.
    """
    if len(patients_N) != len(labels_NF):
        raise ShapeError(f"{len(patients_N)} patients for {len(labels_NF)} labels")
    values: list[list[NDArray[np.float64]]] = [[] for _ in score_sets]
    for weights_RN in patient_weights(patients_N, replicates, seed):
        for index, scores_NF in enumerate(score_sets):
            columns = zip(np.asarray(scores_NF).T, np.asarray(labels_NF).T, strict=True)
            per_class_FR = np.stack([_weighted_auc(scores, labels, weights_RN) for scores, labels in columns])
            defined_FR = ~np.isnan(per_class_FR)
            count_R = defined_FR.sum(0)
            total_R = np.where(defined_FR, per_class_FR, 0.0).sum(0)
            values[index].append(np.where(count_R > 0, total_R / np.maximum(count_R, 1), np.nan))
    return [np.concatenate(blocks) if blocks else np.zeros(0) for blocks in values]


def exclusive_accuracy(
    scores_NF: NDArray[np.floating], labels_NF: NDArray[np.integer]
) -> tuple[float, list[float | None]]:
    """Share of images whose highest score is their class's, and the share among each class's own images.

    Of equal highest scores the first counts. Labels are 1 in one class and 0 in the others; rows of unknowns are left
    out. A class without an image has no share (`None`).

    Raises:
        TaskError: nothing is labelled.
        ShapeError: shapes differ, a score is not finite, or an image is of several classes.
    """
    known_n, hits_n, truth_n = _hits(scores_NF, labels_NF)
    if not len(known_n):
        raise TaskError("no image is labelled, so there is no accuracy")
    own = [hits_n[truth_n == column] for column in range(np.asarray(labels_NF).shape[1])]
    return float(hits_n.mean()), [float(one.mean()) if len(one) else None for one in own]


def exclusive_accuracy_replicates(
    score_sets: Sequence[NDArray[np.floating]],
    labels_NF: NDArray[np.integer],
    patients_N: Sequence[str],
    replicates: int,
    seed: int,
) -> list[NDArray[np.float64]]:
    """Accuracy of each set of scores in each replicate, paired as `macro_auroc_replicates`. Shapes: (R,) each."""
    if len(patients_N) != len(labels_NF):
        raise ShapeError(f"{len(patients_N)} patients for {len(labels_NF)} labels")
    found = [_hits(scores_NF, labels_NF) for scores_NF in score_sets]
    return weighted_means([(known, hits.astype(np.float64)) for known, hits, _ in found], patients_N, replicates, seed)


def weighted_means(
    sets: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
    patients_N: Sequence[str],
    replicates: int,
    seed: int,
) -> list[NDArray[np.float64]]:
    """Mean of values over the images that have them, in each replicate; NaN where none of these is drawn.

    Each set is (positions of the images, their values). Shapes: (R,) for each set.
    """
    means: list[list[NDArray[np.float64]]] = [[] for _ in sets]
    for weights_RN in patient_weights(patients_N, replicates, seed):
        for index, (places_n, values_n) in enumerate(sets):
            weights_Rn = weights_RN[:, places_n]
            total_R = weights_Rn.sum(1)
            mean_R = (weights_Rn @ values_n) / np.maximum(total_R, 1.0)
            means[index].append(np.where(total_R > 0, mean_R, np.nan))
    return [np.concatenate(blocks) if blocks else np.zeros(0) for blocks in means]


def _hits(
    scores_NF: NDArray[np.floating], labels_NF: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Positions of the labelled images, whether each is told right, and its class."""
    scores, labels = _checked(scores_NF), np.asarray(labels_NF)
    if scores.shape != labels.shape:
        raise ShapeError(f"scores of shape {scores.shape} for labels of shape {labels.shape}")
    known_n = np.flatnonzero((labels != UNKNOWN).all(axis=1))
    if len(known_n) and not ((labels[known_n] == 1).sum(axis=1) == 1).all():
        raise ShapeError("an image is of no class or of several, where classes exclude one another")
    truth_n = labels[known_n].argmax(axis=1)
    return known_n, scores[known_n].argmax(axis=1) == truth_n, truth_n


def _class_auc(scores_NF: NDArray[np.float64], labels_NF: NDArray[np.integer]) -> NDArray[np.float64]:
    """AUROC of each class, NaN where it has one state only. Shape (F,)."""
    if scores_NF.shape != labels_NF.shape:
        raise ShapeError(f"scores of shape {scores_NF.shape} for labels of shape {labels_NF.shape}")
    once = np.ones((1, len(scores_NF)))
    columns = zip(scores_NF.T, labels_NF.T, strict=True)
    return np.array([_weighted_auc(scores, labels, once)[0] for scores, labels in columns])


def _weighted_auc(
    scores_N: NDArray[np.floating], labels_N: NDArray[np.integer], weights_RN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUROC of one class under each row of weights, NaN where a state has no weight. Shape (R,).

    Scores are sorted once: each run of equal scores adds its positives times (the negatives below + half its own).
    """
    known = np.flatnonzero(labels_N != UNKNOWN)
    if not len(known):
        return np.full(len(weights_RN), np.nan)
    order = known[np.argsort(scores_N[known], kind="stable")]
    sorted_N, positive_N = scores_N[order], labels_N[order] == 1
    starts = np.flatnonzero(np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]]))
    weights = weights_RN[:, order]
    positives_RG = np.add.reduceat(weights * positive_N, starts, axis=1)
    negatives_RG = np.add.reduceat(weights * ~positive_N, starts, axis=1)
    below_RG = np.cumsum(negatives_RG, axis=1) - 0.5 * negatives_RG
    wins_R = np.einsum("rg,rg->r", positives_RG, below_RG)
    pairs_R = positives_RG.sum(1) * negatives_RG.sum(1)
    return np.where(pairs_R > 0, wins_R / np.maximum(pairs_R, 1.0), np.nan)


def _percentiles(values_R: NDArray[np.float64]) -> tuple[float | None, float | None]:
    defined = values_R[~np.isnan(values_R)]
    if not len(defined):
        return None, None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _checked(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ShapeError("scores hold NaN or infinity, so they have no order")
    return values
