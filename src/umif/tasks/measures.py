"""Which number a set of cases is judged by: its value, its replicates, its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from umif.tasks.metrics import (
    exclusive_accuracy,
    exclusive_accuracy_replicates,
    macro_auroc,
    macro_auroc_replicates,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from umif.tasks.problems import Cases


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of scores (N, F) against labels (N, F).

    Attributes:
        name: For tables.
        exclusive: Whether the classes exclude one another.
        value: Scores, labels → value and each class's own.
        replicates: Sets of scores, labels, patients, number, seed → values under resampling, paired.
    """

    name: str
    exclusive: bool
    value: Callable[[NDArray[np.floating], NDArray[np.integer]], tuple[float, list[float | None]]]
    replicates: Callable[
        [Sequence[NDArray[np.floating]], NDArray[np.integer], Sequence[str], int, int], list[NDArray[np.float64]]
    ]


def measure_of(cases: Cases) -> Measure:
    """Return accuracy where the classes exclude one another, else (macro) AUC."""
    if cases.problem.kind == "classes":
        return Measure("accuracy", True, exclusive_accuracy, exclusive_accuracy_replicates)
    name = "AUC" if len(cases.classes) == 1 else "macro AUC"
    return Measure(name, False, macro_auroc, macro_auroc_replicates)
