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
INTERVAL_QUERIES = 500  # of one finding that an interval is taken from


@dataclass(frozen=True, slots=True)
class Side:
    """Queries or candidates of a search by finding.

    Shapes: unit_XD, rows of length one; labels_XF, 1, 0 or −1 (unknown).
    """

    unit_XD: NDArray[np.float32]
    labels_XF: NDArray[np.int8]
    owners: Owners


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
    queries: Side, candidates: Side, classes: Sequence[str], options: TaskOptions, barred: Barred | None = None
) -> list[Measured]:
    """P@k by finding: a query that shows a finding asks for it, among candidates of which it is known.

    The value is the mean over the findings of the mean over their queries; a finding without any is left out. A
    resample draws the patients of the queries and of the candidates: an encoder that gives every query the same answer
    is as uncertain as that one answer.
    """
    able = np.flatnonzero((queries.labels_XF == 1).any(0) & (candidates.labels_XF != UNKNOWN).any(0)).tolist()
    classes = [classes[column] for column in able]
    kept_QF, labels_NF = queries.labels_XF[:, able] == 1, candidates.labels_XF[:, able]
    if not classes:
        return []
    known_FN = (labels_NF != UNKNOWN).T
    cuts = [cut for cut in PRECISION_CUTS if cut <= _fewest(known_FN, kept_QF, barred)]
    values_QFK = np.full((*kept_QF.shape, len(cuts)), np.nan)
    chance_QF = np.full(kept_QF.shape, np.nan)
    resampled = _Resampled(queries.owners, candidates.owners, kept_QF, cuts, options)
    for some, scores_qN in cosine_blocks(queries.unit_XD, candidates.unit_XD, barred):
        for column, known_N in enumerate(known_FN):
            asking = np.flatnonzero(kept_QF[some, column])
            known = np.flatnonzero(known_N)
            scores_an = scores_qN[np.ix_(asking, known)]
            good_an = np.broadcast_to(labels_NF[known, column] == 1, scores_an.shape)
            values_QFK[some.start + asking, column] = precision_at(scores_an, good_an, cuts)
            there_an = scores_an > -np.inf
            chance_QF[some.start + asking, column] = (there_an & good_an).sum(1) / np.maximum(there_an.sum(1), 1)
            for row, query in enumerate(some.start + asking):
                resampled.add(query, column, scores_an[row], good_an[row], known, values_QFK[query, column])
    one_1Q = np.ones((1, len(kept_QF)))
    extra = {
        "n_queries": int(kept_QF.any(1).sum()),
        "n_candidates": len(labels_NF),
        "queries_by_finding": dict(zip(classes, kept_QF.sum(0).tolist(), strict=True)),
    }
    chance_F = class_means(chance_QF, one_1Q)[0]
    found = []
    for place, cut in enumerate(cuts):
        values_F = class_means(values_QFK[:, :, place], one_1Q)[0]
        found.append(_by_finding(cut, classes, values_F, resampled.replicates(place, values_F), chance_F, extra))
    return found


class _Resampled:
    """Precisions of every query in every resample of the patients, added up by finding as queries come.

    Of a finding with very many queries, some evenly spaced ones stand for all: the interval is then that of their
    mean, moved to the mean of all, and errs to the wide side.
    """

    def __init__(
        self, queries: Owners, candidates: Owners, kept_QF: NDArray[np.bool_], cuts: Sequence[int], options: TaskOptions
    ) -> None:
        self._cuts = cuts
        self._deep = 2 * max(cuts, default=0) + 50  # a resample's nearest `cut` lie among the nearest twice as many
        self._queries_QR = _weights(queries, options)
        self._candidates_NR = _weights(candidates, options)
        self._asked_QF = np.zeros_like(kept_QF)
        for column, kept_Q in enumerate(kept_QF.T):
            all_Q = np.flatnonzero(kept_Q)
            few = np.linspace(0, len(all_Q) - 1, min(len(all_Q), INTERVAL_QUERIES)).round().astype(np.int64)
            self._asked_QF[all_Q[few], column] = True
        shape = (kept_QF.shape[1], options.bootstrap, len(cuts))
        self._total_FRK, self._mass_FRK = np.zeros(shape), np.zeros(shape)
        self._value_FK, self._count_F = np.zeros((shape[0], shape[2])), np.zeros(shape[0])

    def add(
        self,
        query: int,
        column: int,
        scores_n: NDArray[np.float64],
        good_n: NDArray[np.bool_],
        known: NDArray[np.int64],
        values_K: NDArray[np.float64],
    ) -> None:
        """Count one query of one finding: its scores of the candidates `known`, and its value on the whole."""
        if not (self._asked_QF[query, column] and self._cuts and self._total_FRK.shape[1]):
            return
        near = _nearest_with_ties(scores_n, self._deep)
        weights_Rm = self._candidates_NR[known[near]].T.astype(np.float64)
        precision_RK = weighted_precision(scores_n[near], good_n[near], weights_Rm, self._cuts)
        mass_RK = np.where(np.isnan(precision_RK), 0.0, self._queries_QR[query].astype(np.float64)[:, None])
        self._total_FRK[column] += mass_RK * np.nan_to_num(precision_RK)
        self._mass_FRK[column] += mass_RK
        self._value_FK[column] += values_K
        self._count_F[column] += 1

    def replicates(self, place: int, values_F: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each finding's mean in each resample, for one cut-off; NaN where it has no query. Shape (R, F)."""
        total_RF, mass_RF = self._total_FRK[:, :, place].T, self._mass_FRK[:, :, place].T
        means_RF = np.where(mass_RF > 0, total_RF / np.where(mass_RF > 0, mass_RF, 1.0), np.nan)
        return means_RF + values_F - self._value_FK[:, place] / np.maximum(self._count_F, 1)


def _weights(owners: Owners, options: TaskOptions) -> NDArray[np.float32]:
    """Return how often each one occurs in each resample. Shape (X, R)."""
    blocks = [block_rX.T.astype(np.float32) for block_rX in owners.weights(options.bootstrap, options.seed)]
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((int(owners.query_M.max()) + 1, 0), dtype=np.float32)


def _nearest_with_ties(scores_n: NDArray[np.float64], deep: int) -> NDArray[np.int64]:
    """Return the places of the `deep` highest scores and of all that equal the least of them; −inf is never one."""
    if len(scores_n) <= deep:
        return np.flatnonzero(scores_n > -np.inf)
    least = np.partition(scores_n, len(scores_n) - deep)[len(scores_n) - deep]
    return np.flatnonzero((scores_n >= least) & (scores_n > -np.inf))


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
        _by_finding(cut, shelf.classes, values_KF[place], np.concatenate(drawn[place]), chance_F, extra)
        for place, cut in enumerate(cuts)
    ]


def _by_finding(
    cut: int,
    classes: Sequence[str],
    values_F: NDArray[np.float64],
    replicates_RF: NDArray[np.float64],
    chance_F: NDArray[np.float64],
    extra: dict[str, Any],
) -> Measured:
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
