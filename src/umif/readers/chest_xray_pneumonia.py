"""Chest X-ray pneumonia (Kermany et al.): radiographs of children, labelled by their folder and file name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.folders import pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split

SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
NORMAL, PNEUMONIA = "NORMAL", "PNEUMONIA"
BACTERIAL, VIRAL = "BACTERIAL PNEUMONIA", "VIRAL PNEUMONIA"
_PATIENT = re.compile(r"(person\d+|NORMAL2-IM-\d+|IM-\d+)(?:[-_].*)?")
_CAUSE = re.compile(r"person\d+_(bacteria|virus)(?:_.*)?")


@register("reader", "chest-xray-pneumonia")
class ChestXrayPneumonia(Reader):
    """Reader of the `chest_xray` folders.

    The folder says normal or pneumonia, the file name says bacteria or virus, and its beginning is the patient's key.
    The official split is not disjoint by patient, so it must not be used as it stands.
    """

    card: ClassVar[Card] = Card(
        title="Chest X-ray images (pneumonia), Kermany et al.",
        licence="CC BY 4.0",
        citation="Kermany et al., Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning, "
        "Cell 2018",
        images=5_856,
        access="open",
        kinds=("class",),
        how_to_get="https://data.mendeley.com/datasets/rscbjbr9sj/3: ChestXRay2017.zip",
        layout="{train,test,val}/NORMAL/*.jpeg\n{train,test,val}/PNEUMONIA/person<n>_{bacteria,virus}_<m>.jpeg",
        overlaps=("its own official test set: 170 patient keys occur in train and in test",),
        excluded="images in folders other than NORMAL and PNEUMONIA",
        checked_on="images",
        checked_against="1,659 images of a copy that was squashed to 224 × 224",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image, by path."""
        folders = [self.root / name for name in sorted(SPLITS) if (self.root / name).is_dir()]
        if not folders:
            self.require("train")
        if not any((folder / name).is_dir() for folder in folders for name in (NORMAL, PNEUMONIA)):
            self.require(f"{folders[0].name}/{NORMAL}")
        for folder in folders:
            for relative, path in pictures(self, folder):
                label = path.relative_to(folder).parts[0]
                if label in (NORMAL, PNEUMONIA):
                    yield self._record(relative, path, label, SPLITS[folder.name])
                else:
                    self.exclude(relative, "folder is neither NORMAL nor PNEUMONIA")

    def _record(self, relative: str, path: Path, label: str, split: Split) -> Record:
        patient = _PATIENT.fullmatch(path.stem)
        if patient is None:
            self.note("no patient key in the file name: counts as a patient of its own")
        return Record(
            image=path,
            image_id=relative,
            patient=patient[1] if patient else None,
            split=split,
            findings=self._findings(path, label),
            where=relative,
        )

    def _findings(self, path: Path, label: str) -> tuple[Finding, ...]:
        present, absent = LabelState.PRESENT, LabelState.ABSENT
        if label == NORMAL:
            return Finding(NORMAL, present), Finding(PNEUMONIA, absent)
        cause = _CAUSE.fullmatch(path.stem)
        if cause is None:
            self.note("pneumonia whose file name states no cause")
            return (Finding(PNEUMONIA, present),)
        bacterial = cause[1] == "bacteria"
        return (
            Finding(PNEUMONIA, present),
            Finding(BACTERIAL, present if bacterial else absent),
            Finding(VIRAL, absent if bacterial else present),
        )
