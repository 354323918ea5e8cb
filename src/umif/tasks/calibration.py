"""How far probabilities can be believed, and what a threshold chosen on val does on test.

Calibration is measured, never mended: nothing is fitted to val for it.

Shape legend: N images, F classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import expit, softmax  # type: ignore[import-untyped]

from umif.tasks.metrics import UNKNOWN, estimate_of, weighted_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BINS = 15
TARGET = 0.95
# How scores become probabilities: log-odds of each class, log-odds of classes that exclude one another, or as they are.
Link = Literal["logistic", "softmax", "identity"]


def probabilities(scores_NF: NDArray[np.floating], link: Link) -> NDArray[np.float64]:
    """Return the probabilities that scores stand for. Shape (N, F)."""
    scores = np.asarray(scores_NF, dtype=np.float64)
    if link == "identity":
        return scores
    return np.asarray(expit(scores) if link == "logistic" else softmax(scores, axis=1))


def calibration(believed_N: NDArray[np.floating], true_N: NDArray[np.bool_], bins: int = BINS) -> dict[str, Any]:
    """Return expected calibration error, Brier score and reliability bins of one yes-or-no question.

    `ece` = mean over images of |mean belief − share that is true| of the image's bin; bins are of equal width, the
    upper edge inside, empty ones not listed. `brier` = mean squared difference of belief and truth.

    Shapes: both (N,), N > 0.
    """
    believed, truth = np.asarray(believed_N, dtype=np.float64), np.asarray(true_N, dtype=np.float64)
    # As scikit-learn's calibration_curve bins.
    place_N = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], believed)
    rows = []
    for place in np.unique(place_N):
        inside = place_N == place
        rows.append(
            {
                "from": float(place / bins),
                "to": float((place + 1) / bins),
                "n": int(inside.sum()),
                "believed": float(believed[inside].mean()),
                "true": float(truth[inside].mean()),
            }
        )
    error = sum(row["n"] * abs(row["believed"] - row["true"]) for row in rows) / len(believed)
    return {"ece": float(error), "brier": float(np.square(believed - truth).mean()), "bins": rows}


def class_calibration(
    scores_NF: NDArray[np.floating], labels_NF: NDArray[np.integer], classes: Sequence[str], link: Link
) -> dict[str, Any]:
    """Return the calibration of every class that has a score of its own, and the mean over these.

    Of classes that exclude one another (`softmax`): that of the likeliest class being right, with the Brier score over
    all classes.
    """
    believed_NF = probabilities(scores_NF, link)
    if link == "softmax":
        known = (labels_NF != UNKNOWN).all(axis=1)
        top_n, truth_nF = believed_NF[known].argmax(1), labels_NF[known] == 1
        found = calibration(believed_NF[known].max(1), truth_nF[np.arange(len(top_n)), top_n])
        brier = float(np.square(believed_NF[known] - truth_nF).sum(axis=1).mean())
        return {**found, "brier": brier, "of": "the likeliest class"}
    per_class = {}
    for column, name in enumerate(classes):
        known = labels_NF[:, column] != UNKNOWN
        # A class that could not be fitted has one score for all: that is no belief.
        if known.any() and np.ptp(np.asarray(scores_NF)[known, column]) > 0:
            per_class[name] = calibration(believed_NF[known, column], labels_NF[known, column] == 1)
    if not per_class:
        return {}
    means = {key: float(np.mean([one[key] for one in per_class.values()])) for key in ("ece", "brier")}
    return {**means, "per_class": per_class}


def operating_points(
    val_N: NDArray[np.floating],
    val_labels_N: NDArray[np.integer],
    test_N: NDArray[np.floating],
    test_labels_N: NDArray[np.integer],
    patients_N: Sequence[str],
    replicates: int,
    seed: int,
    target: float = TARGET,
) -> list[dict[str, Any]]:
    """Return sensitivity and specificity on test at two thresholds chosen on val; none where val has one state only.

    An image is called positive above the threshold. The first threshold is the lowest at which val's specificity
    reaches the target, the second the highest at which its sensitivity does. Intervals are of patients resampled with
    the threshold as it is; on val the target holds by choice, on test it may be missed, which is what is told.

    Shapes: (n,) of val, (N,) of test.
    """
    positives, negatives = (np.sort(np.asarray(val_N)[val_labels_N == state]) for state in (1, 0))
    if not len(positives) or not len(negatives):
        return []
    specific = float(negatives[int(np.ceil(target * len(negatives) - 1e-9)) - 1])
    sensitive = float(np.nextafter(positives[int((1 - target) * len(positives) + 1e-9)], -np.inf))
    sides = {"sensitivity": np.flatnonzero(test_labels_N == 1), "specificity": np.flatnonzero(test_labels_N == 0)}
    found = []
    for what, threshold in (("specificity", specific), ("sensitivity", sensitive)):
        called_N = np.asarray(test_N) > threshold
        right = {"sensitivity": called_N, "specificity": ~called_N}
        sets = [(places, right[name][places].astype(np.float64)) for name, places in sides.items()]
        drawn = weighted_means(sets, patients_N, replicates, seed)
        point: dict[str, Any] = {"at": f"{what} {100 * target:g} % on val", "threshold": threshold}
        point["val"] = {
            "sensitivity": float((positives > threshold).mean()),
            "specificity": float((negatives <= threshold).mean()),
        }
        for (name, _), (places, hits), values_R in zip(sides.items(), sets, drawn, strict=True):
            estimate = estimate_of(float(hits.mean()), values_R) if len(places) else None
            point[name] = None if estimate is None else [estimate.value, estimate.low, estimate.high]
        found.append(point)
    return found
