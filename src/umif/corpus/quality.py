"""Looking a corpus over: what it holds, what is wrong with it, and what to leave out of training.

    pictures → measures (once, kept) ┐
    rows, texts, regions, ledger     ┴→ checks → issues → quarantine list

Each check is one function in `quality_pictures`, `quality_records` or `quality_texts`, registered by `@check`.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Importing them registers their checks, in the order in which they are shown.
from umif.corpus import quality_pictures, quality_records, quality_texts  # noqa: F401
from umif.corpus.quality_base import Issue, Scene, checks
from umif.corpus.quality_measure import measure_corpus
from umif.corpus.quarantine import Quarantine, QuarantineRow, add_to_quarantine
from umif.corpus.schema import LABEL_STATES, PAIR_KINDS
from umif.errors import UmifError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from umif.corpus.store import Corpus

# Where two labels of one image name one finding, the one that says more stands (as in passages).
_STRENGTH = {"present": 3, "uncertain": 2, "absent": 1}
_STATED = tuple(state for state in LABEL_STATES if state in _STRENGTH)


@dataclass(slots=True)
class DatasetCount:
    """What a dataset holds: images, their splits, pairs by kind, and images by finding and state."""

    name: str
    images: int
    splits: dict[str, int]
    pairs: dict[str, int]
    findings: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect_corpus` found.

    Attributes:
        fingerprint: Of the corpus.
        datasets: Counts of each dataset, in order of name.
        issues: One for each check, also where it found nothing.
        quarantine: The list as it is now.
        added: Number of lines that this inspection added to it.
        measured: Pictures read now; those measured before are not.
        seconds: That reading took.
    """

    fingerprint: str
    datasets: tuple[DatasetCount, ...]
    issues: tuple[Issue, ...]
    quarantine: Quarantine
    added: int
    measured: int
    seconds: float

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(dataset.images for dataset in self.datasets)

    @property
    def pairs(self) -> dict[str, int]:
        """Number of pairs by kind."""
        return {kind: sum(dataset.pairs.get(kind, 0) for dataset in self.datasets) for kind in PAIR_KINDS}

    @property
    def findings(self) -> dict[str, dict[str, int]]:
        """Number of images by finding and state, over all datasets; a label nobody knows by its own spelling."""
        total: dict[str, Counter[str]] = {}
        for dataset in self.datasets:
            for name, states in dataset.findings.items():
                total.setdefault(name, Counter()).update(states)
        return {name: {state: total[name][state] for state in _STATED} for name in sorted(total)}

    def to_json(self) -> dict[str, Any]:
        """Return the inspection as plain JSON values."""
        return {
            "fingerprint": self.fingerprint,
            "images": self.images,
            "pairs": self.pairs,
            "findings": self.findings,
            "issues": [_issue_json(issue) for issue in self.issues],
            "datasets": [
                {"name": d.name, "images": d.images, "splits": d.splits, "pairs": d.pairs, "findings": d.findings}
                for d in self.datasets
            ],
            "quarantine": {
                "file": str(self.quarantine.path),
                **self.quarantine.counts,
                "added": self.added,
                "sha256": self.quarantine.sha256,
            },
            "measured": self.measured,
            "images_per_s": self.measured / self.seconds if self.measured else None,
        }


def inspect_corpus(
    corpus: Corpus, out: str | Path | None = None, *, workers: int | None = None, progress: bool = False
) -> Inspection:
    """Run all checks over a corpus, and add what they would leave out to its quarantine list.

    Args:
        corpus: To look over; it is not changed.
        out: Folder that keeps the measures of pictures; `inspect` in the corpus's folder unless told.
        workers: Processes that read pictures; one a core unless told.
        progress: Show a bar on standard error.

    Raises:
        CorpusError: the quarantine list that is there cannot be read.
        UmifError: a file cannot be written, or a worker process died.
    """
    folder = Path(out) if out is not None else corpus.path / "inspect"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        measured = measure_corpus(corpus, folder, workers=workers or os.cpu_count() or 1, progress=progress)
        scene = Scene(corpus, measured.rows)
        issues = []
        for issue, run in checks():
            run(scene, issue)
            issues.append(issue)
        quarantine, added = add_to_quarantine(corpus.path, _listed(issues))
    except OSError as error:
        where = error.filename or folder
        raise UmifError(f"cannot be written: {error.strerror or error}", where=where, fix="make room") from error
    return Inspection(
        fingerprint=corpus.fingerprint,
        datasets=_count(scene),
        issues=tuple(issues),
        quarantine=quarantine,
        added=added,
        measured=measured.read,
        seconds=measured.seconds,
    )


def _listed(issues: Iterable[Issue]) -> list[QuarantineRow]:
    """Return a line for each item, with all reasons; `exclude` if one of its checks is certain."""
    reasons: dict[str, list[str]] = {}
    excluded: set[str] = set()
    for issue in issues:
        for item, reason in issue.listed:
            reasons.setdefault(item, []).append(reason)
            if issue.decision == "exclude":
                excluded.add(item)
    return [
        QuarantineRow(item, "exclude" if item in excluded else "review", "; ".join(found))
        for item, found in reasons.items()
    ]


def _count(scene: Scene) -> tuple[DatasetCount, ...]:
    counts = {
        reader.name: DatasetCount(reader.name, reader.images, dict(reader.splits), dict(reader.pairs))
        for reader in scene.corpus.manifest.readers
    }
    for batch in scene.corpus.image_batches(["dataset", "findings"]):
        for dataset, labels in zip(batch["dataset"].to_pylist(), batch["findings"].to_pylist(), strict=True):
            stated: dict[str, str] = {}
            for label in labels:
                name, state = label["finding"] or label["raw"], label["state"]
                if _STRENGTH.get(state, 0) > _STRENGTH.get(stated.get(name, ""), 0):
                    stated[name] = state
            found = counts[dataset].findings
            for name, state in stated.items():
                found.setdefault(name, dict.fromkeys(_STATED, 0))[state] += 1
    for count in counts.values():
        count.findings = dict(sorted(count.findings.items()))
    return tuple(counts[name] for name in sorted(counts))


def _issue_json(issue: Issue) -> dict[str, Any]:
    return {
        "check": issue.check,
        "title": issue.title,
        "severity": issue.severity,
        "count": issue.count,
        "datasets": dict(sorted(issue.datasets.items())),
        "examples": [{"item": e.item, "dataset": e.dataset, "detail": e.detail} for e in issue.examples],
    }
