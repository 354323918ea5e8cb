"""PadChest: Spanish chest radiographs with reports, 193 kinds of labels, and where in the body each is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Text
from umif.readers.folders import pictures
from umif.readers.patients import parse_age, parse_sex
from umif.readers.repeated_rows import unique_rows
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.tables import Row

TABLES = (
    "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
    "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
)
LANGUAGE = "es"
# Files that the release lists but lacks, and files that it holds damaged.
MISSING = frozenset(
    {
        "216840111366964012819207061112010307142602253_04-014-084",
        "216840111366964012989926673512011074122523403_00-163-058",
        "216840111366964012959786098432011033083840143_00-176-115",
        "216840111366964012558082906712009327122220177_00-102-064",
        "216840111366964012339356563862009072111404053_00-043-192",
        "216840111366964013076187734852011291090445391_00-196-188",
        "216840111366964012373310883942009117084022290_00-064-025",
        "216840111366964012283393834152009033102258826_00-059-087",
        "216840111366964012373310883942009170084120009_00-097-074",
        "216840111366964012819207061112010315104455352_04-024-184",
        "216840111366964012819207061112010306085429121_04-020-102",
    }
)
BROKEN = frozenset(
    {
        "216840111366964012989926673512011083134050913_00-168-009",
        "216840111366964012373310883942009152114636712_00-102-045",
        "216840111366964012819207061112010281134410801_00-129-131",
        "216840111366964012487858717522009280135853083_00-075-001",
        "216840111366964012989926673512011151082430686_00-157-045",
        "216840111366964013686042548532013208193054515_02-026-007",
        "216840111366964013590140476722013058110301622_02-056-111",
        "216840111366964013590140476722013043111952381_02-065-198",
        "216840111366964013829543166512013353113303615_02-092-190",
        "216840111366964013962490064942014134093945580_01-178-104",
    }
)
_COLUMNS = (
    "ImageID", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM", "ViewPosition_DICOM",
    "Projection", "Pediatric", "PhotometricInterpretation_DICOM", "Report", "MethodLabel", "Labels", "Localizations",
    "LabelsLocalizationsBySentence",
)  # fmt: skip
NOT_CHEST, PAEDIATRIC = "EXCLUDE", "PED"
EXCLUDE, NORMAL = "exclude", "normal"
# A list as Python prints it, of strings without escapes; or, by sentence, a list of such lists.
_STRING = r"(?:'[^'\\]*'|\"[^\"\\]*\")"
_LIST = re.compile(rf"\[\s*(?:{_STRING}\s*(?:,\s*{_STRING}\s*)*(?:,\s*)?)?\]")
_LISTS = re.compile(rf"\[\s*(?:{_LIST.pattern}\s*(?:,\s*{_LIST.pattern}\s*)*(?:,\s*)?)?\]")
_ENTRY = re.compile(r"'([^']*)'|\"([^\"]*)\"")


@register("reader", "padchest")
class Padchest(Reader):
    """Reader of PadChest, its images in numbered folders or all in one.

    The labels are a list of what is there: what is not listed is not mentioned. A report is of a study, so an image
    whose cell is blank has the report of the study's other images. Reports stay Spanish (`Text.language` is `es`), in
    the release's wording without endings and stop words. A finding has a location where its sentence names one finding;
    with several it is not said whose the location is.
    """

    card: ClassVar[Card] = Card(
        title="PadChest",
        licence="BIMCV research use agreement: no commercial use, no passing on",
        citation="Bustos et al., PadChest: A large chest x-ray image dataset with multi-label annotated reports, "
        "Medical Image Analysis 2020",
        images=160_868,
        access="credentialed",
        kinds=("report", "class"),
        how_to_get="https://bimcv.cipf.es/bimcv-projects/padchest (request form): the table and 0.zip to 54.zip; "
        "unzip them",
        layout=(
            "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv      (or .csv.gz)\n"
            "0/<ImageID>.png … 54/<ImageID>.png                        (or all files in one folder)"
        ),
        excluded="21 files known to be missing or damaged; projections marked EXCLUDE; children; images labelled "
        "`exclude`; images without a row; rows whose file is missing",
        checked_on="layout",
        checked_against="the layout's description; a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the table that is on disk, by name."""
        table = self.require(next((name for name in TABLES if (self.root / name).exists()), TABLES[0]))
        on_disk = self._pictures()
        reports = _study_reports(table)
        found: dict[str, Record] = {}
        for name, row in unique_rows(self, read_table(table, _COLUMNS), lambda row: row["ImageID"]):
            path = on_disk.pop(name, None)
            labels = parse_list(row, "Labels")
            reason = _why_excluded(row, name, labels, path)
            if path is None or reason is not None:
                self.exclude(name, reason or "image file is missing", row.where)
            else:
                found[name] = self._record(name, path, row, labels, reports)
        for name in sorted(found):
            yield found.pop(name)
        for path in on_disk.values():
            self.exclude(path.relative_to(self.root).as_posix(), "no row in the table")

    def _pictures(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for relative, path in pictures(self, self.root):
            if found.setdefault(path.name, path) is not path:
                self.exclude(relative, "the same file name is in another folder")
        return found

    def _record(
        self, name: str, path: Path, row: Row, labels: tuple[str, ...], reports: dict[str, str | None]
    ) -> Record:
        report = row["Report"] or self._shared_report(reports.get(row["StudyID"]))
        if row["PhotometricInterpretation_DICOM"] == "MONOCHROME1":
            self.note("taken from MONOCHROME1: whether its grey values were turned round is not documented")
        if row["MethodLabel"]:
            self.note(f"labelled by {row['MethodLabel']}")
        return Record(
            image=path,
            image_id=name,
            patient=row["PatientID"] or None,
            study=row["StudyID"] or None,
            view=row["Projection"] or row["ViewPosition_DICOM"] or None,
            sex=parse_sex(self, row["PatientSex_DICOM"]),
            age_years=self._age(row),
            texts=(Text("report", report, "report", LANGUAGE),) if report else (),
            findings=self._findings(row, labels),
            where=row.where,
        )

    def _shared_report(self, report: str | None) -> str | None:
        self.note("report of another image of the study" if report else "image without a report")
        return report

    def _age(self, row: Row) -> float | None:
        """Return the age to a year: of the birth only the year is told."""
        if not row["PatientBirth"] or not row["StudyDate_DICOM"]:
            return None
        years = row.whole("StudyDate_DICOM") // 10_000 - row.whole("PatientBirth")
        return parse_age(self, str(years))

    def _findings(self, row: Row, labels: tuple[str, ...]) -> tuple[Finding, ...]:
        if not labels:
            self.note("image without labels, which does not mean normal")
        elif NORMAL in labels and len(labels) > 1:
            self.note(f"{NORMAL!r} beside other labels: all are kept")
        places, unclear = _places(row, labels)
        if unclear:
            self.note("location in a sentence of several findings: not given")
        return tuple(Finding(label, LabelState.PRESENT, places.get(label, ())) for label in labels)


def _why_excluded(row: Row, name: str, labels: tuple[str, ...], path: Path | None) -> str | None:
    stem = name.removesuffix(".png")
    if stem in MISSING and path is None:
        return "known to be missing in the release"
    if stem in BROKEN:
        return "known to be damaged in the release"
    if row["Projection"] == NOT_CHEST:
        return f"projection is {NOT_CHEST}"
    if row["Pediatric"] == PAEDIATRIC:
        return "patient is a child"
    return "labelled exclude" if EXCLUDE in labels else None


def _study_reports(table: Path) -> dict[str, str | None]:
    """Return the report of each study that has a row without one; `None` where the others' reports differ."""
    blank: set[str] = {row["StudyID"] for row in read_table(table, ("StudyID", "Report")) if not row["Report"]}
    reports: dict[str, str | None] = {}
    for row in read_table(table, ("StudyID", "Report")) if blank else ():
        study, report = row["StudyID"], row["Report"]
        if study and report and study in blank:
            reports[study] = report if reports.get(study, report) == report else None
    return reports


def _places(row: Row, labels: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Return the locations of each label, and whether some could not be told apart."""
    known = frozenset(parse_list(row, "Localizations"))
    sentences = parse_lists(row, "LabelsLocalizationsBySentence")
    places: dict[str, tuple[str, ...]] = {}
    unclear = False
    for sentence in sentences if known else ():
        seen = [entry for entry in sentence if entry in labels]
        where = tuple(entry for entry in sentence if entry in known)
        if where and len(seen) == 1:
            places[seen[0]] = tuple(dict.fromkeys(places.get(seen[0], ()) + where))
        unclear = unclear or bool(where and len(seen) > 1)
    return places, unclear


def parse_list(row: Row, column: str) -> tuple[str, ...]:
    """Return the entries of a cell that holds a Python list of strings, each once, stripped and in lower case.

    Raises:
        TableError: it holds something else.
    """
    text = row[column]
    if text and not _LIST.fullmatch(text):
        raise row.error(
            f"{column!r} is {text!r:.80}", fix="expected a list, as in ['cardiomegaly', 'pleural effusion']"
        )
    return _entries(text)


def parse_lists(row: Row, column: str) -> tuple[tuple[str, ...], ...]:
    """Return the lists of a cell that holds a Python list of lists of strings; a plain list counts as one sentence.

    Raises:
        TableError: it holds something else.
    """
    text = row[column]
    if not text or _LIST.fullmatch(text):
        return (_entries(text),)
    if not _LISTS.fullmatch(text):
        raise row.error(
            f"{column!r} is {text!r:.80}", fix="expected a list of lists, as in [['normal'], ['scoliosis']]"
        )
    return tuple(_entries(match[0]) for match in _LIST.finditer(text, 1))


@lru_cache(maxsize=65_536)  # few distinct lists in 160,000 rows: equal ones share their memory
def _entries(text: str) -> tuple[str, ...]:
    entries = (first or second for first, second in _ENTRY.findall(text))
    return tuple(dict.fromkeys(entry.strip().lower() for entry in entries if entry.strip()))
