"""ROC curves, thinned: how many of the positives are found at shares of false alarms that are the same for every curve.

The shares stand close together near zero, where a curve is steep and where a reader looks. As they are shared, curves
of several seeds or classes are averaged by the mean of what is found at each share.

Shape legend: N images, F classes, S seeds, G shares of false alarms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from umif.tasks.metrics import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

POINTS = 41
_DECIMALS = 4
FALSE_ALARMS_G: NDArray[np.float64] = np.round(np.linspace(0, 1, POINTS) ** 2, _DECIMALS)


def roc_curve(scores_N: NDArray[np.floating], labels_N: NDArray[np.integer]) -> NDArray[np.float64] | None:
    """Return the share of positives found at each of `FALSE_ALARMS_G`; `None` where one of the two states is missing.

    Between two thresholds the curve is straight, so that equal scores count as they do in the AUC; where it rises at
    one share of false alarms, the upper end counts. Unknown labels are left out.

    Shapes: (N,), (N,) → (G,).
    """
    known_N = np.asarray(labels_N) != UNKNOWN
    scores, there = np.asarray(scores_N, dtype=np.float64)[known_N], np.asarray(labels_N)[known_N] == 1
    if not there.any() or there.all():
        return None
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    found = np.append(0, np.cumsum(there[order])[last_of_equals]) / there.sum()
    alarms = np.append(0, np.cumsum(~there[order])[last_of_equals]) / (~there).sum()
    left = np.searchsorted(alarms, FALSE_ALARMS_G, side="right") - 1
    right = np.minimum(left + 1, len(alarms) - 1)
    gap = alarms[right] - alarms[left]
    along = np.divide(FALSE_ALARMS_G - alarms[left], gap, out=np.zeros(POINTS), where=gap > 0)
    return np.asarray(found[left] + along * (found[right] - found[left]))


def roc_points(
    scores_SNF: NDArray[np.floating], labels_NF: NDArray[np.integer], classes: Sequence[str]
) -> dict[str, Any]:
    """Return what a row keeps: `false_alarms`, and `found` by class, the mean over the seeds; {} without any curve."""
    found = {}
    for column, name in enumerate(classes):
        curves = [roc_curve(scores_NF[:, column], labels_NF[:, column]) for scores_NF in scores_SNF]
        own = [curve for curve in curves if curve is not None]
        if own:
            found[name] = np.mean(own, axis=0).round(_DECIMALS).tolist()
    return {"false_alarms": FALSE_ALARMS_G.tolist(), "found": found} if found else {}
