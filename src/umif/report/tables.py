"""Rows of results → tables: grouped, compared with the baselines beside them, as text, CSV and JSON.

A row is `Result.to_json()`; rows of one comparison share task, data, protocol, labels, metric and test set, so that
only numbers taken on the same patients are ever held against each other. All metrics in use are better when higher.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Row = dict[str, Any]
COLUMNS = (
    "run", "task", "data", "protocol", "labels", "encoder", "baseline", "metric", "value", "low", "high",
    "n_patients", "split_sha256",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows that may be held against each other, best first.

    Attributes:
        task, data, protocol, labels, metric: What the rows share.
        rows: Sorted by value, highest first.
    """

    task: str
    data: str
    protocol: str
    labels: float
    metric: str
    rows: tuple[Row, ...]

    @property
    def trained(self) -> Row | None:
        """The best row that is no baseline."""
        return next((row for row in self.rows if not row["baseline"]), None)

    @property
    def rival(self) -> Row | None:
        """The best baseline."""
        return next((row for row in self.rows if row["baseline"]), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says: `outcome` is `above`, `open` or `below` the best baseline; `words` say it plainly."""

    outcome: str
    words: str
    comparison: Comparison
    ours: Row
    rival: Row


@dataclass(frozen=True, slots=True)
class Gain:
    """What an encoder gains `over` another on the same resampled patients, with the 95 % interval of the gain.

    `low` and `high` are `None` where nothing was resampled.
    """

    over: str
    value: float
    low: float | None
    high: float | None


def compare(rows: Iterable[Row]) -> list[Comparison]:
    """Group rows into comparisons; in order of task, data, share of labels, then metric.

    Metrics are in the order of the rows, which is the task's own: what it is judged by first.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    places: dict[tuple[str, str, str], int] = {}
    for row in rows:
        places.setdefault((row["task"], row["data"], row["metric"]), len(places))
        key = (row["task"], row["data"], row["protocol"], row["labels"], row["metric"], row["split_sha256"])
        groups.setdefault(key, []).append(row)
    return [
        Comparison(task, data, protocol, labels, metric, tuple(sorted(groups[key], key=lambda row: -row["value"])))
        for key in sorted(groups, key=lambda key: (*key[:4], places[key[0], key[1], key[4]], key[5]))
        for task, data, protocol, labels, metric, _ in [key]
    ]


def judge(comparison: Comparison) -> Verdict | None:
    """Say whether the trained encoder beats the best baseline; `None` where one of the two is missing.

    The paired gain decides where the task gives one (`extra["gains"]`, same patients resampled together), because two
    separate intervals may overlap although one encoder wins in nearly every resample; else the intervals decide.
    """
    ours, rival = comparison.trained, comparison.rival
    if ours is None or rival is None:
        return None
    gain = next((gain for gain in paired_gains(ours) if gain.over == rival["encoder"]), None)
    difference = ours["value"] - rival["value"]
    if gain is not None and gain.low is not None and gain.high is not None:
        low, high = gain.low, gain.high
    elif None not in (ours["low"], ours["high"], rival["low"], rival["high"]):
        low, high = ours["low"] - rival["high"], ours["high"] - rival["low"]
    else:
        low = high = difference
    if low > 0:
        return Verdict("above", "above every baseline", comparison, ours, rival)
    if high < 0:
        return Verdict("below", f"{rival['encoder']} wins", comparison, ours, rival)
    leader = ours if difference >= 0 else rival
    return Verdict("open", f"not settled, {leader['encoder']} leads", comparison, ours, rival)


def paired_gains(row: Row) -> list[Gain]:
    """Return the gains of a row over others that the task measured on the same resamples (`extra["gains"]`)."""
    return [
        Gain(gain["over"], gain["value"], gain["low"], gain["high"]) for gain in row.get("extra", {}).get("gains", [])
    ]


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Drop baseline rows that repeat another run's: the same encoder, test set and value."""
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for row in rows:
        key = tuple(row[name] for name in COLUMNS if name != "run")
        if not (row["baseline"] and key in seen):
            kept.append(row)
        seen.add(key)
    return kept


def number(value: float | None) -> str:
    """Return a metric with three decimals, a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def interval(row: Row) -> str:
    """Return `[low, high]`, or nothing where an interval has no meaning."""
    return "" if row["low"] is None or row["high"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"


def share(labels: float) -> str:
    """Return a share of labels as `10 %`; `none` for tasks that train nothing."""
    return f"{labels:g} %" if labels else "none"


def results_text(rows: Sequence[Row]) -> str:
    """Return the rows as a plain table for a terminal, baselines marked."""
    lines = []
    for comparison in compare(rows):
        splits = comparison.rows[0].get("extra", {}).get("splits", "clean")
        lines.append(
            f"{comparison.task} · {comparison.data} · labels: {share(comparison.labels)} · {comparison.metric}"
            f" · protocol: {splits}"
        )
        if splits != "clean":
            lines.append(f"  {comparison.protocol}")
        width = max(len(row["encoder"]) for row in comparison.rows)
        for row in comparison.rows:
            mark = "  (baseline)" if row["baseline"] else ""
            lines.append(f"  {row['encoder']:<{width}}  {number(row['value'])} {interval(row)}{mark}")
    return "\n".join(lines) if lines else "no results"


def results_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV, one line each, columns `COLUMNS`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
