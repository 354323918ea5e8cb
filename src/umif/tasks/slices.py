"""The same number within groups of the test images: by sex, age, view and dataset, and how far each lies from the rest.

Shape legend: N test images, F classes, S seeds, R replicates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from umif.tasks.metrics import UNKNOWN, estimate_of, gain_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from umif.tasks.measures import Measure

# Fewer positive or negative patients say nothing of a group.
MIN_PATIENTS = 5
# Groups are many; so many resamplings tell a gap of interest from none.
MOST_REPLICATES = 200
AGES = ((0, 18, "0–17"), (18, 40, "18–39"), (40, 60, "40–59"), (60, 80, "60–79"), (80, 200, "80 and over"))


def age_group(years: float | None) -> str:
    """Return the group of an age, empty where it is not known."""
    return next((name for low, high, name in AGES if years is not None and low <= years < high), "")


def slices(
    measure: Measure,
    scores_SNF: NDArray[np.floating],
    labels_NF: NDArray[np.integer],
    patients_N: Sequence[str],
    groups: Mapping[str, NDArray[np.str_]],
    replicates: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return one entry for every group that can be measured, and whose rest can.

    {by, group, value, low, high, gap: {value, low, high}, n_images, n_patients, classes}: `gap` is the group minus all
    other images of which the same is known, on the same resamples; `classes` is how many had enough patients in both.
    Images of which it is not known (an empty string) are in neither.
    """
    found = []
    draws = min(replicates, MOST_REPLICATES)
    patients = np.asarray(patients_N)
    for by, group_N in groups.items():
        names = [name for name in np.unique(group_N).tolist() if name]
        for name in names if len(names) > 1 else []:
            inside, outside = group_N == name, (group_N != name) & (group_N != "")
            columns = _measurable(measure, labels_NF, patients, (inside, outside))
            if not len(columns):
                continue
            sides = [_only(measure, labels_NF, side, columns) for side in (inside, outside)]
            values = [float(np.mean([measure.value(scores, side)[0] for scores in scores_SNF])) for side in sides]
            drawn = [
                np.mean(measure.replicates(list(scores_SNF), side, patients_N, draws, seed), axis=0) for side in sides
            ]
            one = estimate_of(values[0], drawn[0])
            gap = gain_of(values[0] - values[1], drawn[0], drawn[1])
            found.append(
                {
                    "by": by,
                    "group": name,
                    "value": one.value,
                    "low": one.low,
                    "high": one.high,
                    "gap": {"value": gap.value, "low": gap.low, "high": gap.high},
                    "n_images": int(inside.sum()),
                    "n_patients": len(np.unique(patients[inside])),
                    "classes": len(columns),
                    "replicates": draws,
                }
            )
    return found


def _measurable(
    measure: Measure,
    labels_NF: NDArray[np.integer],
    patients_N: NDArray[np.str_],
    sides: Sequence[NDArray[np.bool_]],
) -> NDArray[np.int64]:
    """Classes with enough patients of every state that the measure needs, on both sides."""
    if measure.exclusive:
        enough = all(len(np.unique(patients_N[side])) >= 2 * MIN_PATIENTS for side in sides)
        return np.arange(labels_NF.shape[1] if enough else 0)
    able = [
        column
        for column in range(labels_NF.shape[1])
        if all(
            len(np.unique(patients_N[side & (labels_NF[:, column] == state)])) >= MIN_PATIENTS
            for side in sides
            for state in (0, 1)
        )
    ]
    return np.array(able, dtype=np.int64)


def _only(
    measure: Measure, labels_NF: NDArray[np.integer], inside_N: NDArray[np.bool_], columns: NDArray[np.int64]
) -> NDArray[np.integer]:
    """Labels of some images and classes, unknown elsewhere: resamples stay those of the whole test set."""
    kept = np.full_like(labels_NF, UNKNOWN)
    chosen = np.ix_(np.flatnonzero(inside_N), columns)
    kept[chosen] = labels_NF[chosen]
    return kept
