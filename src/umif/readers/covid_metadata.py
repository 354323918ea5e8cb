"""The table `metadata.csv` that covid-chestxray-dataset and covid-19-chest-xray-segmentations-dataset share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from umif.readers.base import Finding, LabelState, Record, Text
from umif.readers.folders import is_file, pictures, relative_name
from umif.readers.patients import parse_age, parse_sex
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Reader
    from umif.readers.tables import Row

NAMESPACE = "covid-chestxray"
TABLE = "metadata.csv"
_REQUIRED = ("patientid", "finding", "modality", "filename")
_OPTIONAL = ("sex", "age", "view", "folder", "clinical_notes", "other_notes")
_NOT_LABELLED = frozenset({"", "todo", "unknown"})
# `other_notes` holds either the end of the clinical notes or thanks to a source, which say nothing of the picture.
_THANKS = re.compile(
    r"courtesy of|credits? to|originally shared|radiopaedia|elsevier|department of radiology|copyright|all rights",
    re.IGNORECASE,
)
_THANKS_WITHIN = re.compile(r" ?\((?:case )?courtesy of[^()]*\)", re.IGNORECASE)


def located_rows(reader: Reader) -> Iterator[tuple[str, Path, Row]]:
    """Yield (image id, picture, row) of each radiograph with a row, sorted; exclude and count everything else."""
    rows = _rows_by_picture(reader)
    on_disk = dict(pictures(reader, reader.require("images")))
    for item in sorted(rows.keys() | on_disk.keys()):
        row = rows.get(item)
        if row is None:
            reader.exclude(item, f"no row in {TABLE}")
        elif (modality := row["modality"]) != "X-ray":
            if modality not in ("CT", ""):
                raise row.error(f"the modality is {modality!r}", fix="known: X-ray, CT")
            reader.exclude(item, f"modality is {modality or 'not stated'}", row.where)
        else:
            path = on_disk.get(item, reader.root / item)
            if is_file(path):
                yield item, path, row
            else:
                reader.exclude(item, "image file is missing", row.where)


def _rows_by_picture(reader: Reader) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for row in read_table(reader.require(TABLE), _REQUIRED, _OPTIONAL):
        if not row["filename"]:
            reader.exclude(row.where, "no file name", row.where)
            continue
        name = f"{row.get('folder') or 'images'}/{row['filename']}"
        # An absolute file name must not hide behind the folder before it.
        item = relative_name(name) if relative_name(row["filename"]) else None
        if item is None:
            reader.exclude(f"{row.where} {row['filename']!a}", "path leaves the folder", row.where)
        elif item in rows:
            same = rows[item].cells == row.cells
            reader.note("repeated row, equal" if same else "repeated row that differs: the first one is used")
        else:
            rows[item] = row
    return rows


def parse_findings(reader: Reader, row: Row) -> tuple[Finding, ...]:
    """Return the findings of a row, all present.

    The newer table writes a path (`Pneumonia/Viral/COVID-19`): each level is a finding of its own, named by the path
    down to it, so nothing of the dataset's spelling is lost. The older one lists names (`COVID-19, ARDS`).
    """
    if row["finding"].lower() in _NOT_LABELLED:
        reader.note("image without a finding (todo, Unknown or blank)")
        return ()
    names: dict[str, None] = {}
    for entry in row["finding"].split(","):
        levels = [level.strip() for level in entry.split("/") if level.strip()]
        for depth in range(1, len(levels) + 1):
            names["/".join(levels[:depth])] = None
    return tuple(Finding(name, LabelState.PRESENT) for name in names)


def parse_notes(reader: Reader, row: Row) -> tuple[Text, ...]:
    """Return the clinical notes as one text, without thanks to sources; none if nothing readable is left."""
    parts = [row.get("clinical_notes")]
    if other := row.get("other_notes"):
        if _THANKS.search(other):
            reader.note("other_notes that only name a source")
        else:
            parts.append(other)
    text = " ".join(" ".join(parts).replace("\ufffd", "").split())
    text = _THANKS_WITHIN.sub("", text).strip()
    if not any(character.isalnum() for character in text):
        return ()
    return (Text("report", text, "notes"),)


def make_record(reader: Reader, item: str, path: Path, row: Row) -> Record:
    """Return the record of one row, without regions."""
    return Record(
        image=path,
        image_id=item,
        patient=row["patientid"] or None,
        patient_namespace=NAMESPACE,
        view=row.get("view") or None,
        sex=parse_sex(reader, row.get("sex")),
        age_years=parse_age(reader, row.get("age")),
        texts=parse_notes(reader, row),
        findings=parse_findings(reader, row),
        where=row.where,
    )
