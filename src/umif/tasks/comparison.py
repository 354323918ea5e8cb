"""Scores of several encoders on one test set → rows of the results table, each with interval and paired gains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.tasks.calibration import class_calibration, operating_points
from umif.tasks.measures import measure_of
from umif.tasks.metrics import macro_auroc
from umif.tasks.roc import roc_points
from umif.tasks.rows import Measurement, of_seeds, paired_rows
from umif.tasks.slices import MOST_REPLICATES, slices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.calibration import Link
    from umif.tasks.measures import Measure
    from umif.tasks.problems import Cases


BY_PATIENT = "; by patient"


@dataclass(frozen=True, slots=True)
class Scored:
    """What one encoder says of the test images of some cases.

    Attributes:
        encoder: Its name with the readout, for tables.
        baseline: Whether it is one.
        scores_NF: Higher = more likely positive; test images in the order of the cases. With several seeds, one such
            set for each: (S, N, F).
        extra: What else the row shall tell.
        seed_extra: What it shall tell of each seed.
        val_NF: Scores of the val images, in the shape of `scores_NF`; thresholds are chosen on them.
        link: How scores become probabilities; `None` where they do not, and calibration is not told.
    """

    encoder: str
    baseline: bool
    scores_NF: NDArray[np.float64]
    extra: dict[str, Any] = field(default_factory=dict)
    seed_extra: tuple[dict[str, Any], ...] = ()
    val_NF: NDArray[np.float64] | None = None
    link: Link | None = None

    @property
    def scores_SNF(self) -> NDArray[np.float64]:
        """Scores of each seed."""
        return self.scores_NF[None] if self.scores_NF.ndim == 2 else self.scores_NF


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

    The value of several seeds is the mean of theirs; in each resample of the patients it is the mean of the seeds'
    values on that resample. So the interval is that of the mean: it tells how far other patients would move it, and
    what the seeds do stands beside it (`extra["seeds"]`).

    Every row that is no baseline also tells its gain over each baseline, on the same resamples of the same patients:
    `extra["gains"]` = [{over, value, low, high, share_not_above_zero}], and its groups (`extra["slices"]`).

    Raises:
        TaskError: no class of the test set has both positives and negatives.
    """
    test = cases.of("test")
    labels_NF, patients = cases.labels_NF[test], cases.patients_N[test].tolist()
    measure = measure_of(cases)
    found = [[measure.value(scores_NF, labels_NF) for scores_NF in one.scores_SNF] for one in scored]
    values = [float(np.mean([value for value, _ in each])) for each in found]
    sets = [scores_NF for one in scored for scores_NF in one.scores_SNF]
    drawn = iter(measure.replicates(sets, labels_NF, patients, options.bootstrap, options.seed))
    replicates = [np.mean([next(drawn) for _ in one.scores_SNF], axis=0) for one in scored]
    met = cases.overlap
    published: dict[str, Any] = {} if met is None else {"splits": cases.splits, "overlap": met}
    protocol = protocol if met is None else published_protocol(protocol, met)
    measured = []
    for index, one in enumerate(scored):
        extra: dict[str, Any] = {"problem": cases.problem.name, "n_images": len(test), **cases.notes, **published}
        told = one.seed_extra or tuple({} for _ in found[index])
        extra |= one.extra | of_seeds([value for value, _ in found[index]], told)
        if len(cases.classes) > 1:
            extra["per_class"] = dict(zip(cases.classes, _mean_of([each for _, each in found[index]]), strict=True))
        if measure.exclusive:
            extra["macro_auc"] = float(np.mean([macro_auroc(scores, labels_NF)[0] for scores in one.scores_SNF]))
        extra |= _beliefs(one, cases, measure, options)
        extra["roc"] = roc_points(one.scores_SNF, labels_NF, cases.classes)
        if not one.baseline:
            groups = {by: group_N[test] for by, group_N in cases.groups.items()}
            extra["slices"] = slices(
                measure, one.scores_SNF, labels_NF, patients, groups, options.bootstrap, options.seed
            )
        measured.append(Measurement(one.encoder, one.baseline, values[index], replicates[index], extra))
    return paired_rows(
        measured,
        task=task,
        data=cases.data,
        protocol=protocol,
        labels=labels,
        metric=measure.name,
        split_sha256=cases.split_sha256,
        n_patients=cases.test_patients,
    )


def _mean_of(lists: Sequence[list[float | None]]) -> list[float | None]:
    """Mean over the seeds of each class; `None` where a seed has none."""
    return [
        None if None in column else float(np.mean([value for value in column if value is not None]))
        for column in zip(*lists, strict=True)
    ]


def _beliefs(one: Scored, cases: Cases, measure: Measure, options: TaskOptions) -> dict[str, Any]:
    """Calibration and operating points, of the first seed where there are several."""
    test, val = cases.of("test"), cases.of("val")
    told: dict[str, Any] = {}
    scores_NF = one.scores_SNF[0]
    if one.link is not None:
        told["calibration"] = class_calibration(scores_NF, cases.labels_NF[test], cases.classes, one.link)
    if one.val_NF is not None and not measure.exclusive:
        val_nF = one.val_NF if one.val_NF.ndim == 2 else one.val_NF[0]
        patients = cases.patients_N[test].tolist()
        told["operating_points"] = {
            name: operating_points(
                val_nF[:, column],
                cases.labels_NF[val, column],
                scores_NF[:, column],
                cases.labels_NF[test, column],
                patients,
                min(options.bootstrap, MOST_REPLICATES),
                options.seed,
            )
            for column, name in enumerate(cases.classes)
        }
    return told
