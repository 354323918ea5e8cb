"""Values of several encoders on one test set, with their replicates → rows of the results table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.tasks.base import Result
from umif.tasks.metrics import estimate_of, gain_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one encoder reached.

    Attributes:
        encoder: Its name with the readout, for tables.
        baseline: Whether it is one.
        value: The metric.
        replicates_R: The metric on resamples of the patients; the same resamples for all that are compared.
        extra: What else the row shall tell.
    """

    encoder: str
    baseline: bool
    value: float
    replicates_R: NDArray[np.float64]
    extra: dict[str, Any] = field(default_factory=dict)


def paired_rows(measured: Sequence[Measurement], **shared: Any) -> list[Result]:
    """Return one row per encoder, in the order given, each with its interval.

    Every row that is no baseline also tells its gain over each baseline, on the same resamples of the same patients:
    `extra["gains"]` = [{over, value, low, high, share_not_above_zero}].

    Args:
        measured: All that are compared.
        shared: What the rows have in common: the other fields of `Result`.
    """
    rivals = [one for one in measured if one.baseline]
    rows = []
    for one in measured:
        estimate = estimate_of(one.value, one.replicates_R)
        extra = dict(one.extra)
        if rivals and not one.baseline:
            extra["gains"] = [
                {
                    "over": rival.encoder,
                    **asdict(gain_of(one.value - rival.value, one.replicates_R, rival.replicates_R)),
                }
                for rival in rivals
            ]
        rows.append(
            Result(
                value=estimate.value,
                low=estimate.low,
                high=estimate.high,
                encoder=one.encoder,
                baseline=one.baseline,
                extra=extra,
                **shared,
            )
        )
    return rows


def of_seeds(values: Sequence[float], told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what one seed tells; of several, what they share, and the value and the particulars of each.

    `extra["seeds"]` = [{value, …}], `extra["seeds_deviation"]` = the sample deviation of the values.
    """
    if len(told) == 1:
        return dict(told[0])
    common = {key: value for key, value in told[0].items() if all(other.get(key) == value for other in told)}
    seeds = [{"value": value, **one} for value, one in zip(values, told, strict=True)]
    return {**common, "seeds": seeds, "seeds_deviation": float(np.std(values, ddof=1))}
