"""CheXpert Plus: the images of CheXpert with their reports, in sections, and labels read from them."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Text
from umif.readers.chexpert import FINDINGS, NAMESPACE, Pictures, parse_adult_age, parse_path
from umif.readers.patients import parse_sex
from umif.readers.repeated_rows import unique_rows
from umif.readers.report_text import describe_sections
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.chexpert import ImagePath
    from umif.readers.report_text import Described
    from umif.readers.tables import Row

TABLE = "df_chexpert_plus_240401.csv"
SPLITS: dict[str, Split] = {"train": "train", "valid": "val"}
LABELS = "chexbert_labels"
# The whole report's labels first: a finding may stand in one section only.
LABEL_FILES = ("report_fixed.json", "impression_fixed.json", "findings_fixed.json")
# What describes the picture; history, comparison and technique do not. The summary only stands in for both.
DESCRIPTION = ("section_findings", "section_impression")
STAND_IN = "section_summary"
_COLUMNS = ("path_to_image", "frontal_lateral", "ap_pa", *DESCRIPTION, "age", "sex", "split")
_STATES = {1.0: LabelState.PRESENT, 0.0: LabelState.ABSENT, -1.0: LabelState.UNCERTAIN}


@register("reader", "chexpert-plus")
class ChexpertPlus(Reader):
    """Reader of CheXpert Plus, as PNG or DICOM files; the table writes `.jpg` for either.

    A report's text is its findings and its impression; one that says nothing is left out with a reason. The patient
    is the number in the path, as in CheXpert v1.0; `deid_patient_id` counts differently and is not read. The part
    `valid` is `val`.
    """

    card: ClassVar[Card] = Card(
        title="CheXpert Plus",
        licence="Stanford University Dataset Research Use Agreement: no commercial use, no passing on",
        citation="Chambon et al., CheXpert Plus: Augmenting a Large Chest X-ray Dataset with Text Radiology Reports, "
        "Patient Demographics and Additional Image Formats, 2024",
        images=223_462,
        access="registration",
        kinds=("report", "class"),
        how_to_get="https://stanfordaimi.azurewebsites.net (Shared Datasets, CheXpert Plus): the table, PNG.zip (or "
        "the DICOM archives) and chexbert_labels.zip; unzip them",
        layout=(
            "df_chexpert_plus_240401.csv\n"
            "chexbert_labels/report_fixed.json                     (optional: labels, one JSON object a line)\n"
            "PNG/train/patient00001/study1/view1_frontal.png       (in any folder; .dcm and .jpg are read as well)\n"
            "PNG/valid/patient64541/study1/view1_frontal.png"
        ),
        overlaps=(
            "chexpert: the same images and patients",
            "CheXlocalize and much published testing: the valid part",
            "CheXpert 5×200: taken from the train part",
        ),
        excluded="images without a row; rows whose file is missing; one of two copies of an image",
        checked_on="layout",
        checked_against="the layout's description; a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the table that is on disk, by path."""
        rows = read_table(self.require(TABLE), _COLUMNS, (STAND_IN,))
        labels = self._labels()
        on_disk = Pictures(self, [self.root])
        found: dict[str, Record] = {}
        for _, row in unique_rows(self, rows, lambda row: row["path_to_image"]):
            path = parse_path(row, "path_to_image")
            if path is None or SPLITS.get(path.part) is None or row["split"] != path.part:
                what = f"the split is {row['split']!r} of {row['path_to_image']!r}"
                raise row.error(what, fix="expected train or valid, as the path begins")
            picture = on_disk.take(path.item)
            if path.item in found:
                raise row.error(f"{path.item!r} has another row, under another path")
            if picture is None:
                self.exclude(path.item, "image file is missing", row.where)
            else:
                found[path.item] = self._record(path, picture, row, labels.pop(path.item, None))
        if labels:
            self.note("labels of an image that is not read", len(labels))
        for item in sorted(found):
            yield found[item]
        on_disk.exclude_rest(f"no row in {TABLE}")

    def _labels(self) -> dict[str, tuple[Finding, ...]]:
        for name in LABEL_FILES:
            if (self.root / LABELS / name).is_file():
                if name != LABEL_FILES[0]:
                    self.note(f"labels are those of {name}")
                return _read_labels(self.root / LABELS / name)
        self.note(f"no {LABELS} here")
        return {}

    def _record(self, path: ImagePath, picture: Path, row: Row, findings: tuple[Finding, ...] | None) -> Record:
        if findings is None:
            self.note("image without labels")
        text, missing = description(row)
        if missing is not None:
            self.note(missing)
        return Record(
            image=picture,
            image_id=path.item,
            patient=path.patient,
            patient_namespace=NAMESPACE,
            study=path.study,
            view=row["ap_pa"] or row["frontal_lateral"] or path.side.capitalize(),
            sex=parse_sex(self, row["sex"]),
            age_years=parse_adult_age(self, row["age"]),
            split=SPLITS[path.part],
            texts=(Text("report", text, "report"),) if text else (),
            findings=findings or (),
            where=row.where,
        )


def description(row: Row) -> Described:
    """Return the sections of a report that describe the picture, cleaned, or why they say nothing.

    The summary stands in where neither says anything.
    """
    findings, impression = (row[column] for column in DESCRIPTION)
    described = describe_sections({"findings": findings, "impression": impression})
    if described.text is None and row.get(STAND_IN):
        summary = describe_sections({"findings": row[STAND_IN]})
        described = described if summary.text is None else summary
    return described


def _read_labels(path: Path) -> dict[str, tuple[Finding, ...]]:
    """Return the findings of each image of a file of JSON lines.

    Raises:
        TableError: a line is no JSON object of an image and the 14 names, or a value is none of 1, 0, -1 and null.
    """
    labels: dict[str, tuple[Finding, ...]] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    image, findings = _label_line(line, f"{path}:{number}")
                    if labels.setdefault(image, findings) != findings:
                        raise TableError(f"{image!r} has another line with other labels", where=f"{path}:{number}")
    except OSError as error:
        raise LayoutError(f"cannot be read: {error.strerror or error}", where=path) from None
    return labels


def _label_line(line: str, where: str) -> tuple[str, tuple[Finding, ...]]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise TableError("is not valid JSON", where=where, fix="expected one JSON object a line") from None
    image = entry.get("path_to_image") if isinstance(entry, dict) else None
    if not isinstance(image, str):
        raise TableError("has no 'path_to_image'", where=where)
    for name in FINDINGS:
        if name not in entry:
            raise TableError(f"{image!r} has no {name!r}", where=where, fix="expected the 14 observations of CheXpert")
    return image, _findings(tuple(_value(entry[name], name, where) for name in FINDINGS))


def _value(value: Any, name: str, where: str) -> float | None:
    # Tables that went through a data frame write NaN, which is no JSON, for null.
    if value is None or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in _STATES:
        raise TableError(f"{name!r} is {value!r:.40}", where=where, fix="expected 1.0, 0.0, -1.0 or null")
    return float(value)


@cache  # equal combinations share their memory
def _findings(values: tuple[float | None, ...]) -> tuple[Finding, ...]:
    return tuple(Finding(n, _STATES[v]) for n, v in zip(FINDINGS, values, strict=True) if v is not None)
