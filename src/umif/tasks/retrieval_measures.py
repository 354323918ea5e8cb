"""Searches of one encoder on one shelf → what they are worth, in all and in every resample of the patients.

Shape legend: Q queries, N candidates, D features, F findings, K cut-offs, R replicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.tasks.metrics import UNKNOWN, estimate_of, patient_weights
from umif.tasks.neighbours import cosine_blocks
from umif.tasks.ranking import (
    chance_of_hits,
    class_means,
    first_hits,
    macro,
    precision_at,
    weighted_medians,
    weighted_precision,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.tasks.base import TaskOptions
    from umif.tasks.neighbours import Barred
    from umif.tasks.ranking import Owners
    from umif.tasks.retrieval_items import Links, Shelf

RECALL_CUTS = (1, 5, 10)
PRECISION_CUTS = (5, 10, 100)


@dataclass(frozen=True, slots=True)
class Measured:
    """One number of one encoder.

    Attributes:
        metric: `R@5`, `P@10 by finding`.
        value: The mean over the classes.
        replicates_R: The same in each resample; NaN where nothing is defined.
        extra: What else the row shall tell; `chance` always.
    """

    metric: str
    value: float
    replicates_R: NDArray[np.float64]
    extra: dict[str, Any]


def recalls(
    queries_QD: NDArray[np.float32],
    candidates_ND: NDArray[np.float32],
    links: Links,
    owners: Owners,
    options: TaskOptions,
) -> list[Measured]:
    """R@k and median rank of the first hit: any candidate that answers the query."""
    n_queries, n_candidates = len(queries_QD), len(candidates_ND)
    cuts = [cut for cut in RECALL_CUTS if cut < n_candidates]
    ranks_Q, hits_QK = np.empty(n_queries), np.empty((n_queries, len(cuts)))
    for some, scores_qN in cosine_blocks(queries_QD, candidates_ND):
        ranks_Q[some], hits_QK[some] = first_hits(scores_qN, links.relevant(some), cuts)
    chance_Q, chance_QK = chance_of_hits(np.full(n_queries, n_candidates), links.answers_Q, cuts)
    means, medians = [np.zeros((0, len(cuts)))], [np.zeros(0)]
    for weights_rQ in owners.weights(options.bootstrap, options.seed):
        means.append(class_means(hits_QK, weights_rQ))
        medians.append(weighted_medians(ranks_Q, weights_rQ))
    middle = estimate_of(float(np.median(ranks_Q)), np.concatenate(medians))
    rank = {"value": middle.value, "low": middle.low, "high": middle.high, "chance": float(np.median(chance_Q))}
    extra = {"n_queries": n_queries, "n_candidates": n_candidates, "median_rank": rank}
    means_RK = np.concatenate(means)
    return [
        Measured(
            f"R@{cut}",
            float(hits_QK[:, column].mean()),
            means_RK[:, column],
            {**extra, "chance": float(chance_QK[:, column].mean())},
        )
        for column, cut in enumerate(cuts)
    ]


def precisions(
    queries_QD: NDArray[np.float32],
    candidates_ND: NDArray[np.float32],
    labels_QF: NDArray[np.int8],
    labels_NF: NDArray[np.int8],
    classes: Sequence[str],
    owners: Owners,
    options: TaskOptions,
    barred: Barred | None = None,
) -> list[Measured]:
    """P@k by finding: a query that shows a finding asks for it, among candidates of which it is known.

    The value is the mean over the findings of the mean over their queries; a finding without any is left out.
    """
    able = np.flatnonzero((labels_QF == 1).any(0) & (labels_NF != UNKNOWN).any(0)).tolist()
    classes, labels_QF, labels_NF = [classes[column] for column in able], labels_QF[:, able], labels_NF[:, able]
    if not classes:
        return []
    known_FN, kept_QF = (labels_NF != UNKNOWN).T, labels_QF == 1
    cuts = [cut for cut in PRECISION_CUTS if cut <= _fewest(known_FN, kept_QF, barred)]
    values_QFK = np.full((*labels_QF.shape, len(cuts)), np.nan)
    chance_QF = np.full(labels_QF.shape, np.nan)
    for some, scores_qN in cosine_blocks(queries_QD, candidates_ND, barred):
        for column in range(len(classes)):
            asking = np.flatnonzero(kept_QF[some, column])
            scores_an = scores_qN[np.ix_(asking, np.flatnonzero(known_FN[column]))]
            good_an = np.broadcast_to(labels_NF[known_FN[column], column] == 1, scores_an.shape)
            values_QFK[some.start + asking, column] = precision_at(scores_an, good_an, cuts)
            there_an = scores_an > -np.inf
            chance_QF[some.start + asking, column] = (there_an & good_an).sum(1) / np.maximum(there_an.sum(1), 1)
    one_1Q = np.ones((1, len(labels_QF)))
    drawn: list[list[NDArray[np.float64]]] = [[np.zeros((0, len(classes)))] for _ in cuts]
    for weights_rQ in owners.weights(options.bootstrap, options.seed):
        for place, found in enumerate(drawn):
            found.append(class_means(values_QFK[:, :, place], weights_rQ))
    extra = {
        "n_queries": int(kept_QF.any(1).sum()),
        "n_candidates": len(candidates_ND),
        "queries_by_finding": dict(zip(classes, kept_QF.sum(0).tolist(), strict=True)),
    }
    chance_F = class_means(chance_QF, one_1Q)[0]
    return [
        _by_finding(cut, classes, class_means(values_QFK[:, :, place], one_1Q)[0], drawn[place], chance_F, extra)
        for place, cut in enumerate(cuts)
    ]


def named_precisions(
    directions_FD: NDArray[np.float32],
    candidates_ND: NDArray[np.float32],
    shelf: Shelf,
    options: TaskOptions,
) -> list[Measured]:
    """P@k of one query per finding, in words. A resample draws the patients of the images that are searched."""
    labels_NF = shelf.labels_NF
    known_FN = (labels_NF != UNKNOWN).T
    cuts = [cut for cut in PRECISION_CUTS if cut <= int(known_FN.sum(1).min())]
    scores_FN = np.concatenate([scores for _, scores in cosine_blocks(directions_FD, candidates_ND)])
    values_KF = np.empty((len(cuts), len(shelf.classes)))
    drawn: list[list[NDArray[np.float64]]] = [[np.zeros((0, len(shelf.classes)))] for _ in cuts]
    for column, known_N in enumerate(known_FN):
        scores_n, good_n = scores_FN[column, known_N], labels_NF[known_N, column] == 1
        values_KF[:, column] = precision_at(scores_n[None], good_n[None], cuts)[0]
    for weights_rN in patient_weights(shelf.patients_N.tolist(), options.bootstrap, options.seed):
        of_findings_rFK = np.stack(
            [
                weighted_precision(
                    scores_FN[column, known_N], labels_NF[known_N, column] == 1, weights_rN[:, known_N], cuts
                )
                for column, known_N in enumerate(known_FN)
            ],
            axis=1,
        )
        for place, found in enumerate(drawn):
            found.append(of_findings_rFK[:, :, place])
    chance_F = (labels_NF == 1).sum(0) / known_FN.sum(1)
    extra = {"n_queries": len(shelf.classes), "n_candidates": len(candidates_ND)}
    return [
        _by_finding(cut, shelf.classes, values_KF[place], drawn[place], chance_F, extra)
        for place, cut in enumerate(cuts)
    ]


def _by_finding(
    cut: int,
    classes: Sequence[str],
    values_F: NDArray[np.float64],
    drawn: Sequence[NDArray[np.float64]],
    chance_F: NDArray[np.float64],
    extra: dict[str, Any],
) -> Measured:
    replicates_RF = np.concatenate(drawn)
    each = [estimate_of(float(value), replicates_RF[:, column]) for column, value in enumerate(values_F)]
    told = {
        **extra,
        "chance": float(macro(chance_F[None])[0]),
        "per_class": {name: one.value for name, one in zip(classes, each, strict=True)},
        "per_class_interval": {name: [one.low, one.high] for name, one in zip(classes, each, strict=True)},
        "per_class_chance": dict(zip(classes, chance_F.tolist(), strict=True)),
    }
    return Measured(f"P@{cut} by finding", float(macro(values_F[None])[0]), macro(replicates_RF), told)


def _fewest(known_FN: NDArray[np.bool_], asking_QF: NDArray[np.bool_], barred: Barred | None) -> int:
    """Return how many candidates the query has that has the fewest."""
    fewest = int(known_FN.sum(1).min(initial=known_FN.shape[1]))
    if barred is None:
        return fewest
    for known_N, asking_Q in zip(known_FN, asking_QF.T, strict=True):
        own = np.bincount(barred.candidates_N[known_N], minlength=int(barred.queries_Q.max(initial=0)) + 1)
        fewest = min(fewest, int((known_N.sum() - own[barred.queries_Q[asking_Q]]).min(initial=fewest)))
    return fewest
