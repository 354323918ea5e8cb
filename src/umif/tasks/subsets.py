"""Shares of the training labels: drawn by patient, stratified by label, nested, the same for every encoder.

All patients are put into one order, and a share is a beginning of it: so 1 % lies inside 10 %, and 10 % inside 100 %.
The order spreads every stratum evenly, and begins with one patient of each, so that even the smallest share can be
fitted: a share is rounded up to that many patients. How many it came to is told with the result.

Shape legend: N images, F classes, P patients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from umif.errors import TaskError
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from numpy.typing import NDArray


def label_subset(
    patients_N: NDArray[np.str_], labels_NF: NDArray[np.int8], percent: float, seed: int
) -> NDArray[np.int64]:
    """Return the positions of the images of `percent` % of the patients, ascending.

    Depends on the set of patients, their labels and the seed, not on the order of the images.

    Raises:
        TaskError: `percent` lies outside (0, 100].
    """
    if not 0 < percent <= 100:
        raise TaskError(f"{percent} % is no share of labels", fix="choose above 0 and up to 100")
    if percent == 100:
        return np.arange(len(patients_N))
    ordered, strata = patient_order(patients_N, labels_NF, seed)
    count = min(len(ordered), max(strata, int(np.floor(percent / 100 * len(ordered) + 0.5))))
    return np.flatnonzero(np.isin(patients_N, ordered[:count]))


def patient_order(patients_N: NDArray[np.str_], labels_NF: NDArray[np.int8], seed: int) -> tuple[NDArray[np.str_], int]:
    """Return all patients in the order in which shares take them, and the number of strata.

    Within a stratum the order is a keyed permutation; over strata a patient's place is its rank as a fraction.
    """
    names, stratum_P = _strata(patients_N, labels_NF)
    rng = keyed_rng(seed, "label-subset")
    shuffled = rng.permutation(len(names))
    place_P = np.empty(len(names))
    found = np.unique(stratum_P)
    for stratum in found:
        members = shuffled[stratum_P[shuffled] == stratum]
        place_P[members] = (np.arange(len(members)) + rng.random()) / len(members)
        place_P[members[0]] = -1.0  # one of each stratum comes first
    # Ties (the first ones) are settled by the permutation.
    return names[shuffled[np.argsort(place_P[shuffled], kind="stable")]], len(found)


def _strata(patients_N: NDArray[np.str_], labels_NF: NDArray[np.int8]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the patients, sorted, and the stratum of each.

    One class: patients with negative images only, positive only, both. So a share that holds one of each stratum holds
    both states wherever the whole has them. Several classes: the rarest class that is present in any of the patient's
    images, or none.
    """
    names, patient_N = np.unique(patients_N, return_inverse=True)
    count, classes = len(names), labels_NF.shape[1]
    has_PF = np.zeros((2, count, classes), dtype=bool)
    for state in (0, 1):
        image, column = np.nonzero(labels_NF == state)
        has_PF[state, patient_N[image], column] = True
    if classes == 1:
        return names, has_PF[0, :, 0] + 2 * has_PF[1, :, 0]
    rarest_first = np.argsort(has_PF[1].sum(0), kind="stable")
    sorted_PF = has_PF[1][:, rarest_first]
    return names, np.where(sorted_PF.any(1), sorted_PF.argmax(1), classes).astype(np.int64)
