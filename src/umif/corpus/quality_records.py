"""Checks of what belongs to pictures: regions, patients and their splits, labels."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus.quality_base import check
from umif.corpus.regions import decode_mask
from umif.errors import CorpusError
from umif.language import vocabulary
from umif.language.hierarchy import denied_but_shown, strongest
from umif.readers.base import LabelState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from umif.corpus.quality_base import Issue, Scene

# Rounding of frames by a pixel or two is no straying region.
_OVERHANG = 0.02


@check("region_lost", "Regions that the build left out", severity="note")
def region_lost(scene: Scene, issue: Issue) -> None:
    """Outside the picture, empty, unreadable, or a mask of another size than its picture; lines of the ledger."""
    for line in scene.ledger("region"):
        detail = f"{line['reason']}" + (f": {line['error']}" if line.get("error") else "")
        issue.add(f"{line['dataset']}/{line['item']}", line["dataset"], detail, listed=False)


@check("region_outside", "Regions that stick out of their picture", severity="suspect", decision="review")
def region_outside(scene: Scene, issue: Issue) -> None:
    """Part of a box, ellipse or polygon lies outside the picture by over 2 % of its side; that part is cut off."""
    for pair in _segments(scene):
        reach = max((_overhang(region) for region in pair["regions"]), default=0.0)
        if reach > _OVERHANG:
            issue.add(pair["pair"], pair["dataset"], f"by {reach:.0%} of the side", pair["image_row"])


@check("region_empty", "Masks without a region", severity="defect", decision="exclude")
def region_empty(scene: Scene, issue: Issue) -> None:
    """Not one pixel belongs to any region of the pair, or its mask cannot be decoded."""
    for pair in _segments(scene):
        if not any(_holds_something(region) for region in pair["regions"]):
            issue.add(pair["pair"], pair["dataset"], f"{len(pair['regions'])} regions, all empty", pair["image_row"])


@check("patient_split", "Patients in several splits", severity="defect")
def patient_split(scene: Scene, issue: Issue) -> None:
    """The corpus's own splits are made by patient, so there should be none."""
    _in_several(scene, issue, "split")


@check("official_split", "Patients in several of their dataset's splits", severity="note")
def official_split(scene: Scene, issue: Issue) -> None:
    """The dataset's own lists put one patient on both sides. The corpus does not: who has a test image is all test."""
    _in_several(scene, issue, "official_split")


@check("unmapped", "Labels that the vocabulary does not know", severity="note")
def unmapped(scene: Scene, issue: Issue) -> None:
    """Kept as the dataset spells them, drawn in grey and worded as they are; a line in the vocabulary maps one."""
    counts: Counter[tuple[str, str]] = Counter()
    for dataset, raw, finding, _ in labels(scene):
        if finding is None:
            counts[dataset, raw] += 1
    for pair in _segments(scene):
        counts.update((pair["dataset"], r["raw"]) for r in pair["regions"] if r["finding"] is None)
    for (dataset, raw), count in counts.most_common():
        issue.add(raw, dataset, f"{count:,} times", count=count)


@check("denied_but_shown", "Findings denied beside a narrower one", severity="note")
def denied_beside_narrower(scene: Scene, issue: Issue) -> None:
    """A finding is labelled absent while one that is a kind of it is present or uncertain (no lung opacity, but
    consolidation). The labels stay; passages leave the denial out, as a text with both would contradict itself.
    """
    row = -1
    for batch in scene.corpus.image_batches(["findings"]):
        for findings in batch["findings"].to_pylist():
            row += 1
            states = strongest((each["finding"], LabelState(each["state"])) for each in findings if each["finding"])
            denied = denied_but_shown(states, vocabulary())
            if denied:
                said = [f"{wider} absent, {narrower} {states[narrower]}" for wider, narrower in denied.items()]
                issue.add(*scene.named(row), ", ".join(said), row)


def labels(scene: Scene) -> Any:
    """Yield (dataset, spelling, finding or `None`, state) of every label of every image."""
    for batch in scene.corpus.image_batches(["dataset", "findings"]):
        for dataset, findings in zip(batch["dataset"].to_pylist(), batch["findings"].to_pylist(), strict=True):
            for finding in findings:
                yield dataset, finding["raw"], finding["finding"], finding["state"]


def _segments(scene: Scene) -> Any:
    for batch in scene.pairs(["pair", "dataset", "image_row", "regions"], "kind = 'segment'"):
        yield from batch


def _in_several(scene: Scene, issue: Issue, column: str) -> None:
    """Report each patient whose images have several values of a column."""
    values = scene.images[column]
    stated = np.flatnonzero(values != None)  # noqa: E711 - elementwise
    patients, place = np.unique(scene.images["patient"][stated].astype(str), return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(patients)))
    for patient, rows in zip(patients, np.split(stated[order], starts[1:]) if len(patients) else [], strict=True):
        found = sorted(set(values[rows]))
        if len(found) > 1:
            spread = ", ".join(f"{int((values[rows] == value).sum())} in {value}" for value in found)
            issue.add(str(patient), scene.named(rows[0])[1], spread, *rows[:2])


def _overhang(region: Mapping[str, Any]) -> float:
    """Return by how much of the picture's side a region sticks out of it."""
    if region["box"] is not None:
        left, top, width, height = region["box"]
        return float(max(-left, -top, left + width - 1, top + height - 1, 0.0))
    if region["points"] is not None and len(region["points"]):
        points = np.asarray(region["points"])
        return float(max(-points.min(), points.max() - 1, 0.0))
    return 0.0


def _holds_something(region: Mapping[str, Any]) -> bool:
    if region["shape"] == "rle":
        return bool(region["runs"]) and any(region["runs"][1::2])
    if region["shape"] == "mask":
        try:
            return bool(decode_mask(region["mask"] or b"").any())
        except CorpusError:
            return False
    if region["box"] is not None:
        left, top, width, height = region["box"]
        return bool(width > 0 and height > 0 and left < 1 and top < 1 and left + width > 0 and top + height > 0)
    points = np.asarray(region["points"] or []).reshape(-1, 2)
    return bool(len(points) >= 3 and (np.ptp(points, axis=0) > 0).all())
