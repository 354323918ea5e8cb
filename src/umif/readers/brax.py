"""BRAX: Brazilian chest radiographs with the 14 CheXpert observations, mined from reports that are not released."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import LayoutError
from umif.readers.base import Card, Reader, Record
from umif.readers.chexpert import FINDINGS, parse_states
from umif.readers.folders import pictures, relative_name
from umif.readers.patients import parse_age, parse_sex
from umif.readers.repeated_rows import unique_rows
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.tables import Row

TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
DICOM, PNG = "Anonymized_DICOMs", "images"  # in the order of preference
PATHS = {DICOM: "DicomPath", PNG: "PngPath"}
_PERSON = ("PatientID", "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition")
_SUFFIXES = (".png", ".dcm", ".dicom")
# The oldest bin has no upper end, so it is no age.
OLDEST = "85 or more"


@register("reader", "brax")
class Brax(Reader):
    """Reader of BRAX, as DICOM files, as the authors' PNG conversion, or both; then DICOM is used.

    Labels are 1, 0, -1 and blank as in CheXpert. Ages are bins of five years, given as the table's number.
    """

    card: ClassVar[Card] = Card(
        title="BRAX, a Brazilian labeled chest X-ray dataset",
        licence="PhysioNet Credentialed Health Data License: no passing on",
        citation="Reis et al., BRAX, Brazilian labeled chest x-ray dataset, Scientific Data 2022",
        images=40_967,
        access="credentialed",
        kinds=("class",),
        how_to_get="https://physionet.org/content/brax (credentialed account, data use agreement)",
        layout=(
            "master_spreadsheet_update.csv                                            (1.0.0: master_spreadsheet.csv)\n"
            "images/id_<PatientID>/Study_<UID>/Series_<UID>/image-<UID>.png                        (or the next one)\n"
            "Anonymized_DICOMs/id_<PatientID>/Study_<UID>/Series_<UID>/image-<UID>.dcm      (1.0.0: without suffix)"
        ),
        excluded="images without a row; rows whose file is missing; the PNG where the DICOM file of the image is here",
        checked_on="layout",
        checked_against="the layout's description; a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the table that is on disk, by path."""
        table = self._table()
        on_disk = self._pictures()
        found: dict[str, Record] = {}
        rows = read_table(table, (*PATHS.values(), *_PERSON, *FINDINGS))
        for item, row in unique_rows(self, rows, _item):
            copies = self._copies(on_disk, row)
            if copies:
                found[item] = self._record(item, copies[0], row)
                for copy in copies[1:]:
                    self.exclude(copy.relative_to(self.root).as_posix(), "another copy of the same image is used")
            else:
                parse_states(row)  # a wrong encoding must not hide behind a missing file
                self.exclude(item, "image file is missing", row.where)
        for item in sorted(found):
            yield found[item]
        for path in on_disk.values():
            self.exclude(path.relative_to(self.root).as_posix(), f"no row in {table.name}")

    def _table(self) -> Path:
        for name in TABLES[1:]:
            if (self.root / name).exists() and not (self.root / TABLES[0]).exists():
                return self.root / name
        return self.require(TABLES[0])

    def _pictures(self) -> dict[str, Path]:
        folders = [name for name in PATHS if (self.root / name).is_dir()]
        if not folders:
            raise LayoutError(
                "no folder of pictures here", where=self.root, fix=f"expected layout:\n{self.card.layout}"
            )
        found: dict[str, Path] = {}
        for name in folders:
            for relative, path in pictures(self, self.root / name, any_suffix=name == DICOM):
                if found.setdefault(_stem(relative), path) is not path:
                    self.exclude(relative, "another copy of the same image is used")
        return found

    def _copies(self, on_disk: dict[str, Path], row: Row) -> list[Path]:
        """Take the pictures that a row names out of those on disk, the preferred one first."""
        names = [relative_name(row[column]) for column in PATHS.values()]
        copies = [on_disk.pop(_stem(name), None) for name in names if name is not None]
        return [copy for copy in copies if copy is not None]

    def _record(self, item: str, path: Path, row: Row) -> Record:
        patient = row["PatientID"]
        folder = path.relative_to(self.root).parts[1]
        if not patient or folder.removeprefix("id_") != patient.removeprefix("id_"):
            raise row.error(f"PatientID is {patient!r} in the folder {folder!r}", fix="expected …/id_<PatientID>/…")
        return Record(
            image=path,
            image_id=item,
            patient=patient,
            study=row["AccessionNumber"] or None,
            view=row["ViewPosition"] or None,
            sex=parse_sex(self, row["PatientSex"]),
            age_years=self._age(row["PatientAge"]),
            findings=parse_states(row),
            where=row.where,
        )

    def _age(self, text: str) -> float | None:
        if text == OLDEST:
            self.note(f"age is {OLDEST}: left open")
            return None
        return parse_age(self, text.removesuffix(".0"))


def _item(row: Row) -> str:
    """Return the image's id: its path without the first folder and the suffix, which differ between the copies."""
    raw = row[PATHS[PNG]] or row[PATHS[DICOM]]
    name = relative_name(raw)
    if name is None:  # leaves the folder, and is excluded by its whole path
        return raw
    folder, _, item = _stem(name).partition("/")
    if folder not in PATHS or not item:
        raise row.error(f"the path is {raw!r:.80}", fix=f"expected {PNG}/id_<PatientID>/… or {DICOM}/id_<PatientID>/…")
    return item


def _stem(name: str) -> str:
    """Return a path without the suffix of a picture; a UID holds points of its own."""
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
