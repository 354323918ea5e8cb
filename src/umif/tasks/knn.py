"""Classification by neighbours: the nearest training images vote, weighted by how near they are; nothing is fitted.

Source: the weighted k-NN of DINO and its forerunners (votes exp(cosine / 0.07)).
Differs: several findings at once, each asked of the images that know it; k, and whether features are standardised
    first, are chosen on val.

Shape legend: N images, D features, F classes, k neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from umif.config import register
from umif.errors import TaskError
from umif.tasks.base import Task
from umif.tasks.metrics import UNKNOWN, macro_auroc
from umif.tasks.neighbours import NOBODY, Neighbours, nearest, unit_rows
from umif.tasks.probes import fittable, run_probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import FrozenEncoder
    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.probes import ProbeData

PROTOCOL = "frozen features, votes of the nearest train images; k, scaling chosen on val, test scored once; by patient"
K_GRID = (5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07


@register("task", "knn")
class NeighbourClassification(Task):
    """CLS and pooled patches → votes of neighbours → AUC with a 95 % patient-bootstrap interval."""

    summary: ClassVar[str] = "classification by the nearest training images"

    def run(self, encoder: FrozenEncoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate every problem at every share of the labels; rows by problem, share, then encoder.

        Raises:
            TaskError: a problem that was named cannot be carried by the corpus, or none can.
        """
        return run_probe("knn", PROTOCOL, neighbour_probe, encoder, corpus, options)


def neighbour_probe(data: ProbeData, seed: int) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Choose k and scaling by macro AUC on val, the first of equals, and score test; nothing is drawn.

    Raises:
        TaskError: no class has both states among the training labels, or none of those among the val labels.
    """
    fitted = fittable(data.train_NF)
    if not fitted:
        raise TaskError("the training labels hold one class only", fix="use a larger share of the labels")
    found = []
    for scaling, scaled in (("none", data), ("standardised", data.standardised())):
        train_ND = unit_rows(scaled.train_ND)
        val_KNF = votes(unit_rows(scaled.val_ND), train_ND, data.train_NF[:, fitted], K_GRID)
        values = [macro_auroc(scores_NF, data.val_NF[:, fitted])[0] for scores_NF in val_KNF]
        best = int(np.argmax(values))
        found.append((values[best], scaling, K_GRID[best], train_ND, scaled.test_ND))
    value, scaling, k, train_ND, test_ND = max(found, key=lambda one: one[0])
    scores_NF = np.zeros((len(test_ND), data.train_NF.shape[1]))
    scores_NF[:, fitted] = votes(unit_rows(test_ND), train_ND, data.train_NF[:, fitted], (k,))[0]
    return scores_NF, {"k": k, "scaling": scaling, "val_auc": value}


def votes(
    queries_ND: NDArray[np.float32], train_ND: NDArray[np.float32], train_NF: NDArray[np.int8], grid: Sequence[int]
) -> NDArray[np.float64]:
    """Return the share of the votes for each class among the k nearest that know it, for each k.

    A neighbour's vote weighs exp(cosine / 0.07). Where fewer than k know a class, all of them vote.

    Args:
        queries_ND, train_ND: Rows of length one.
        train_NF: Labels; each class is known in at least one image.
        grid: Values of k.

    Shapes: (k values, N, F).
    """
    scores_KNF = np.empty((len(grid), len(queries_ND), train_NF.shape[1]))
    searched: dict[bytes, Neighbours] = {}  # most classes are known in the same images: one search does for all of them
    for column in range(train_NF.shape[1]):
        known = np.flatnonzero(train_NF[:, column] != UNKNOWN)
        if known.tobytes() not in searched:
            searched[known.tobytes()] = nearest(queries_ND, train_ND[known], max(grid), engine="exact")
        near = searched[known.tobytes()]
        assert (near.places_Qk != NOBODY).all()  # nobody is barred
        weights_Nk = np.exp((near.cosines_Qk - 1) / TEMPERATURE)
        yes_Nk = train_NF[known, column][near.places_Qk] == 1
        for_N, all_N = np.cumsum(weights_Nk * yes_Nk, axis=1), np.cumsum(weights_Nk, axis=1)
        for place, k in enumerate(grid):
            last = min(k, len(known)) - 1
            # Votes of what is far away come near zero, but never to it: exp(−2 / 0.07) is 4e−13.
            scores_KNF[place, :, column] = for_N[:, last] / all_N[:, last]
    return scores_KNF
