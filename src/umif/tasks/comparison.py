"""Scores of several encoders on one test set → rows of the results table, each with interval and paired gains."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from umif.tasks.base import Result
from umif.tasks.metrics import estimate_of, gain_of, macro_auroc, macro_auroc_replicates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from umif.tasks.base import TaskOptions
    from umif.tasks.problems import Cases


BY_PATIENT = "; by patient"


@dataclass(frozen=True, slots=True)
class Scored:
    """What one encoder says of the test images of some cases.

    Attributes:
        encoder: Its name with the readout, for tables.
        baseline: Whether it is one.
        scores_NF: Higher = more likely positive; test images in the order of the cases.
        extra: What else the row shall tell.
    """

    encoder: str
    baseline: bool
    scores_NF: NDArray[np.float64]
    extra: dict[str, Any] = field(default_factory=dict)


def published_protocol(protocol: str, met: Mapping[str, int]) -> str:
    """Return a protocol as it reads on published splits: with what of the test set is met elsewhere."""
    return (
        f"{protocol.removesuffix(BY_PATIENT)}; splits as published: {met['test_patients_in_train']:,} of "
        f"{met['test_patients']:,} test patients are also in train, {met['test_images_in_own_train']:,} of "
        f"{met['test_images']:,} test images in the corpus's own train"
    )


def compare_scores(
    task: str, protocol: str, labels: float, cases: Cases, scored: Sequence[Scored], options: TaskOptions
) -> list[Result]:
    """Return one row per encoder, in the order given.

    Every row that is no baseline also tells its gain over each baseline, on the same resamples of the same patients:
    `extra["gains"]` = [{over, value, low, high, share_not_above_zero}].

    Raises:
        TaskError: no class of the test set has both positives and negatives.
    """
    test = cases.of("test")
    labels_NF, patients = cases.labels_NF[test], cases.patients_N[test].tolist()
    values = [macro_auroc(one.scores_NF, labels_NF) for one in scored]
    replicates = macro_auroc_replicates(
        [one.scores_NF for one in scored], labels_NF, patients, options.bootstrap, options.seed
    )
    met = cases.overlap
    published: dict[str, Any] = {} if met is None else {"splits": cases.splits, "overlap": met}
    protocol = protocol if met is None else published_protocol(protocol, met)
    results = []
    for index, one in enumerate(scored):
        value, per_class = values[index]
        estimate = estimate_of(value, replicates[index])
        extra: dict[str, Any] = {"problem": cases.problem.name, "n_images": len(test), **published, **one.extra}
        if len(cases.classes) > 1:
            extra["per_class"] = dict(zip(cases.classes, per_class, strict=True))
        rivals = [] if one.baseline else [place for place, other in enumerate(scored) if other.baseline]
        if rivals:
            extra["gains"] = [
                {
                    "over": scored[place].encoder,
                    **asdict(gain_of(value - values[place][0], replicates[index], replicates[place])),
                }
                for place in rivals
            ]
        results.append(
            Result(
                task=task,
                data=cases.data,
                protocol=protocol,
                labels=labels,
                metric="AUC" if len(cases.classes) == 1 else "macro AUC",
                value=estimate.value,
                low=estimate.low,
                high=estimate.high,
                encoder=one.encoder,
                baseline=one.baseline,
                split_sha256=cases.split_sha256,
                n_patients=cases.test_patients,
                extra=extra,
            )
        )
    return results
