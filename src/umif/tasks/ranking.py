"""How good a ranking is: recall, rank of the first hit and precision, with the expected value over ties.

Candidates of exactly equal score have no order, so every number here is its mean over all orders of them. So features
that have collapsed score what chance scores, and nothing depends on how a table is sorted.

Resampling is by patient, and the candidates stay: a replicate weighs the queries.

Shape legend: Q queries, N candidates, K cut-offs, F classes, R replicates, M (query, patient) rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln  # type: ignore[import-untyped]

from umif.tasks.metrics import patient_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


def first_hits(
    scores_QN: NDArray[np.float64], relevant_QN: NDArray[np.bool_], cuts: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rank of each query's first relevant candidate (1 = best), and whether it is within each cut-off.

    Shapes: (Q,) and (Q, K); every query must have a relevant candidate.
    Example:
        >>> ranks, hits = first_hits(np.array([[0.9, 0.5, 0.5]]), np.array([[False, True, False]]), [1, 2])
        >>> ranks.tolist(), hits.tolist()
        ([2.5], [[0.0, 0.5]])
    """
    best_Q1 = np.where(relevant_QN, scores_QN, -np.inf).max(1, keepdims=True)
    above_Q = (scores_QN > best_Q1).sum(1)
    level_QN = scores_QN == best_Q1
    tied_Q, good_Q = level_QN.sum(1), (level_QN & relevant_QN).sum(1)
    hits = [1.0 - _none_drawn(tied_Q, good_Q, np.clip(cut - above_Q, 0, tied_Q)) for cut in cuts]
    return above_Q + (tied_Q + 1) / (good_Q + 1), np.stack(hits, axis=1)


def chance_of_hits(
    candidates_Q: NDArray[np.int64], relevant_Q: NDArray[np.int64], cuts: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a random order gives where `first_hits` gives ranks and hits. Shapes: (Q,) and (Q, K)."""
    hits = [1.0 - _none_drawn(candidates_Q, relevant_Q, np.minimum(cut, candidates_Q)) for cut in cuts]
    return (candidates_Q + 1) / (relevant_Q + 1), np.stack(hits, axis=1)


def precision_at(
    scores_QN: NDArray[np.float64], relevant_QN: NDArray[np.bool_], cuts: Sequence[int]
) -> NDArray[np.float64]:
    """Return the share of relevant candidates among the nearest, for each cut-off.

    A candidate of score −inf takes no part; a query with fewer than `cut` others is asked for as many as there are.

    Shapes: (Q, K); NaN for a query without any candidate.
    """
    there_QN = scores_QN > -np.inf
    total_Q, count = there_QN.sum(1), scores_QN.shape[1]
    results = np.full((len(scores_QN), len(cuts)), np.nan)
    for column, cut in enumerate(cuts):
        place = count - min(cut, count)
        least_Q1 = np.partition(scores_QN, place, axis=1)[:, place : place + 1]
        above_QN, level_QN = scores_QN > least_Q1, (scores_QN == least_Q1) & there_QN
        asked_Q = np.minimum(cut, total_Q)
        room_Q = asked_Q - above_QN.sum(1)
        share_Q = (level_QN & relevant_QN).sum(1) / np.maximum(level_QN.sum(1), 1)
        good_Q = (above_QN & relevant_QN).sum(1) + room_Q * share_Q
        results[:, column] = np.where(total_Q > 0, good_Q / np.maximum(asked_Q, 1), np.nan)
    return results


def weighted_precision(
    scores_N: NDArray[np.float64],
    relevant_N: NDArray[np.bool_],
    weights_RN: NDArray[np.float64],
    cuts: Sequence[int],
) -> NDArray[np.float64]:
    """Return the precision of one query among candidates that occur as often as their weights say.

    Shapes: (R, K); NaN where no candidate has any weight.
    """
    order = np.argsort(-scores_N, kind="stable")
    sorted_N = scores_N[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]]))
    mass_RG = np.add.reduceat(weights_RN[:, order], starts, axis=1)
    good_RG = np.add.reduceat(weights_RN[:, order] * relevant_N[order], starts, axis=1)
    share_RG = good_RG / np.where(mass_RG > 0, mass_RG, 1.0)
    before_RG = np.cumsum(mass_RG, axis=1) - mass_RG
    asked_RK = np.minimum(np.asarray(cuts)[None], mass_RG.sum(1)[:, None])
    taken_RK = np.stack(
        [(np.clip(asked_R[:, None] - before_RG, 0.0, mass_RG) * share_RG).sum(1) for asked_R in asked_RK.T],
        axis=1,
    )
    return np.where(asked_RK > 0, taken_RK / np.where(asked_RK > 0, asked_RK, 1.0), np.nan)


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose a query is. A text that several patients' images share belongs to all of them, in equal parts.

    Shapes: query_M int64, ascending, each query at least once; patient_M str.
    """

    query_M: NDArray[np.int64]
    patient_M: NDArray[np.str_]

    def weights(self, replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
        """Yield the weight of each query in each replicate: the mean of its owners' numbers of draws. (r, Q)."""
        starts = np.flatnonzero(np.concatenate([[True], self.query_M[1:] != self.query_M[:-1]]))
        owners_Q = np.diff(np.append(starts, len(self.query_M)))
        for weights_rM in patient_weights(self.patient_M.tolist(), replicates, seed):
            yield np.add.reduceat(weights_rM, starts, axis=1) / owners_Q


def class_means(values_QF: NDArray[np.float64], weights_RQ: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted mean of each class over its queries; NaN where none has weight.

    Shapes: values_QF, NaN where a query does not ask for a class; returns (R, F).
    """
    asked_QF = ~np.isnan(values_QF)
    mass_RF = weights_RQ @ asked_QF.astype(np.float64)
    total_RF = weights_RQ @ np.where(asked_QF, values_QF, 0.0)
    return np.where(mass_RF > 0, total_RF / np.where(mass_RF > 0, mass_RF, 1.0), np.nan)


def macro(per_class_RF: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the classes that are not NaN; NaN where all are. Shape (R,)."""
    defined_RF = ~np.isnan(per_class_RF)
    count_R = defined_RF.sum(1)
    total_R = np.where(defined_RF, per_class_RF, 0.0).sum(1)
    return np.where(count_R > 0, total_R / np.maximum(count_R, 1), np.nan)


def weighted_medians(values_Q: NDArray[np.float64], weights_RQ: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of values that occur as often as their weights say, NaN where none does. Shape (R,).

    Between two middle values it is their mean, as usual.
    """
    order = np.argsort(values_Q, kind="stable")
    sorted_Q, reached_RQ = values_Q[order], np.cumsum(weights_RQ[:, order], axis=1)
    half_R1 = reached_RQ[:, -1:] / 2
    # Thirds of a draw do not add up to a half exactly.
    lower_R = (reached_RQ >= half_R1 - 1e-9).argmax(1)
    upper_R = (reached_RQ > half_R1 + 1e-9).argmax(1)
    return np.where(half_R1[:, 0] > 0, (sorted_Q[lower_R] + sorted_Q[upper_R]) / 2, np.nan)


def _none_drawn(tied: NDArray[np.int64], good: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chance that `drawn` of `tied` without replacement hold none of the `good` ones."""
    bad = tied - good
    possible = drawn <= bad
    some = np.where(possible, drawn, 0)
    chance = np.exp(gammaln(bad + 1) - gammaln(bad - some + 1) - gammaln(tied + 1) + gammaln(tied - some + 1))
    return np.where(possible, np.where(drawn > 0, chance, 1.0), 0.0)
