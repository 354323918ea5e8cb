"""Right and wrong answers → rows: open, closed and overall accuracy, with intervals and paired gains.

Shape legend: N test questions, R replicates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.tasks.metrics import patient_weights
from umif.tasks.problems import ids_sha256
from umif.tasks.rows import Measurement, paired_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.vqa_data import Questions

KINDS = ("overall", "open", "closed")


@dataclass(frozen=True, slots=True)
class Judged:
    """Which test questions one way of answering gets right.

    Attributes:
        encoder: Its name, for tables.
        baseline: Whether it is one.
        right_N: Whether each answer is the true one.
        extra: What else its rows shall tell.
        per_kind: What only the row of a kind shall tell, by kind.
    """

    encoder: str
    baseline: bool
    right_N: NDArray[np.bool_]
    extra: dict[str, Any] = field(default_factory=dict)
    per_kind: dict[str, dict[str, Any]] = field(default_factory=dict)


def of_kind(closed_N: NDArray[np.bool_], kind: str) -> NDArray[np.int64]:
    """Return the positions of the questions of a kind: `overall`, `open` or `closed`. Shape (n,)."""
    keep = {"overall": np.ones_like(closed_N), "open": ~closed_N, "closed": closed_N}[kind]
    return np.flatnonzero(keep)


def accuracies(right_N: NDArray[np.bool_], closed_N: NDArray[np.bool_]) -> dict[str, float | None]:
    """Share of right answers, by kind; `None` for a kind that is not asked."""
    places = {kind: of_kind(closed_N, kind) for kind in KINDS}
    return {kind: float(right_N[own].mean()) if len(own) else None for kind, own in places.items()}


def accuracy_replicates(
    right_sets: Sequence[NDArray[np.bool_]], patients_N: Sequence[str], replicates: int, seed: int
) -> list[NDArray[np.float64]]:
    """Accuracy of each set of answers in each replicate, the same patients for all. Shapes: (R,) each.

    A replicate draws patients, with all their questions; one whose patient is unknown is a patient of its own image.
    """
    values: list[list[NDArray[np.float64]]] = [[] for _ in right_sets]
    for weights_RN in patient_weights(patients_N, replicates, seed):
        for index, right_N in enumerate(right_sets):
            values[index].append(weights_RN @ right_N.astype(np.float64) / weights_RN.sum(1))
    return [np.concatenate(blocks) if blocks else np.zeros(0) for blocks in values]


def compare_answers(
    questions: Questions, protocol: str, labels: float, judged: Sequence[Judged], options: TaskOptions
) -> list[Result]:
    """Return one row per kind and way of answering; rows that are no baseline tell their gain over each baseline."""
    test = questions.of("test")
    results = []
    for kind in KINDS:
        own = of_kind(questions.closed_N[test], kind)
        if not len(own):
            continue
        places = test[own]
        patients = questions.patients_N[places]
        rights = [one.right_N[own] for one in judged]
        replicates = accuracy_replicates(rights, patients.tolist(), options.bootstrap, options.seed)
        measured = [
            Measurement(
                one.encoder,
                one.baseline,
                float(rights[index].mean()),
                replicates[index],
                {"problem": questions.dataset, "n_questions": len(own), **one.extra, **one.per_kind.get(kind, {})},
            )
            for index, one in enumerate(judged)
        ]
        results += paired_rows(
            measured,
            task="vqa",
            data=f"{questions.dataset}: questions",
            protocol=protocol,
            labels=labels,
            metric="accuracy" if kind == "overall" else f"{kind} accuracy",
            split_sha256=ids_sha256(questions.ids(places)),
            n_patients=len(np.unique(patients)),
        )
    return results
