"""Values that each image has by itself (a Dice, a hit, a right answer) → rows with interval and paired gains.

The value of an encoder is the mean over images, and of several classes the mean of the classes' means, so that a
class with few images counts as much as one with many. Resampling is by patient, on the same replicates for all.

Shape legend: N images, F classes, R replicates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.errors import ShapeError, TaskError
from umif.tasks.metrics import estimate_of, patient_weights
from umif.tasks.problems import ids_sha256
from umif.tasks.rows import Measurement, paired_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.metrics import Estimate


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images that all encoders are tested on.

    Attributes:
        problem: Name of the problem.
        data: Datasets and problem, for tables.
        classes: Names of the columns.
        images_N, patients_N: Ids of the images and of their patients.
    """

    problem: str
    data: str
    classes: tuple[str, ...]
    images_N: NDArray[np.str_]
    patients_N: NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Valued:
    """What one encoder reached on each image of a test set.

    Attributes:
        encoder: Its name, for tables.
        baseline: Whether it is one.
        values_NF: Higher is better; NaN where the image has no value (the class is unknown in it).
        extra: What else the row shall tell.
    """

    encoder: str
    baseline: bool
    values_NF: NDArray[np.float64]
    extra: dict[str, Any] = field(default_factory=dict)


def macro_mean(values_NF: NDArray[np.float64]) -> tuple[float, list[float | None]]:
    """Mean of the classes' means, and each class's own; `None` marks a class without a value, left out of the mean.

    Raises:
        TaskError: no image has a value.

    Example:
        >>> macro_mean(np.array([[1.0, 0.5], [0.0, np.nan]]))
        (0.5, [0.5, 0.5])
    """
    once = np.ones((1, len(values_NF)))
    per_class_F = _class_means(_checked(values_NF), once)[0]
    if np.isnan(per_class_F).all():
        raise TaskError("no image has a value, so there is no mean", fix="test on data that has what is measured")
    return float(np.nanmean(per_class_F)), [None if np.isnan(value) else float(value) for value in per_class_F]


def macro_mean_replicates(
    value_sets: Sequence[NDArray[np.float64]], patients_N: Sequence[str], replicates: int, seed: int
) -> list[NDArray[np.float64]]:
    """Macro mean of each set of values in each replicate: the same patients for all, so that they are paired.

    A class without a value in a replicate is left out of that replicate's mean.

    Shapes: (R,) for each set; NaN where no class has a value.
    """
    checked = [_checked(values_NF) for values_NF in value_sets]
    for values_NF in checked:
        if len(values_NF) != len(patients_N):
            raise ShapeError(f"{len(patients_N)} patients for {len(values_NF)} images' values")
    found: list[list[NDArray[np.float64]]] = [[] for _ in checked]
    for weights_RN in patient_weights(patients_N, replicates, seed):
        for index, values_NF in enumerate(checked):
            means_RF = _class_means(values_NF, weights_RN)
            known_RF = ~np.isnan(means_RF)
            count_R = known_RF.sum(1)
            total_R = np.where(known_RF, means_RF, 0.0).sum(1)
            found[index].append(np.where(count_R > 0, total_R / np.maximum(count_R, 1), np.nan))
    return [np.concatenate(blocks) if blocks else np.zeros(0) for blocks in found]


def macro_mean_interval(
    values_NF: NDArray[np.float64], patients_N: Sequence[str], *, replicates: int = 1000, seed: int = 0
) -> Estimate:
    """Macro mean with its 95 % patient-bootstrap interval.

    Raises:
        TaskError: no image has a value.
    """
    [values_R] = macro_mean_replicates([values_NF], patients_N, replicates, seed)
    return estimate_of(macro_mean(values_NF)[0], values_R)


def compare_values(
    task: str,
    protocol: str,
    labels: float,
    metric: str,
    test: ImageSet,
    valued: Sequence[Valued],
    options: TaskOptions,
) -> list[Result]:
    """Return one row per encoder, in the order given.

    Every row that is no baseline also tells its gain over each baseline, on the same resamples of the same patients:
    `extra["gains"]` = [{over, value, low, high, share_not_above_zero}].

    Raises:
        TaskError: an encoder has no value on any image.
    """
    patients = test.patients_N.tolist()
    values = [macro_mean(one.values_NF) for one in valued]
    replicates = macro_mean_replicates([one.values_NF for one in valued], patients, options.bootstrap, options.seed)
    measured = []
    for index, one in enumerate(valued):
        value, per_class = values[index]
        counted = int((~np.isnan(one.values_NF)).any(axis=1).sum())
        extra: dict[str, Any] = {"problem": test.problem, "n_images": counted, **one.extra}
        if len(test.classes) > 1:
            extra["per_class"] = dict(zip(test.classes, per_class, strict=True))
        measured.append(Measurement(one.encoder, one.baseline, value, replicates[index], extra))
    return paired_rows(
        measured,
        task=task,
        data=test.data,
        protocol=protocol,
        labels=labels,
        metric=metric,
        split_sha256=ids_sha256(test.images_N),
        n_patients=len(np.unique(test.patients_N)),
    )


def _class_means(values_NF: NDArray[np.float64], weights_RN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean of each class over the images that have a value, NaN where none has. Shape (R, F)."""
    known_NF = ~np.isnan(values_NF)
    weight_RF = weights_RN @ known_NF.astype(np.float64)
    total_RF = weights_RN @ np.where(known_NF, values_NF, 0.0)
    means_RF: NDArray[np.float64] = np.where(weight_RF > 0, total_RF / np.maximum(weight_RF, 1.0), np.nan)
    return means_RF


def _checked(values_NF: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(values_NF, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"values of shape {values.shape}, not (images, classes)")
    if np.isinf(values).any():
        raise ShapeError("values hold infinity, so they have no mean")
    return values
