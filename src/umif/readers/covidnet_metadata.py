"""The table `metadata.csv` that the Figure 1 and the Actualmed collection of the COVID-Net team share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from umif.readers.base import Finding, Record
from umif.readers.covid_metadata import parse_findings
from umif.readers.folders import pictures, relative_name
from umif.readers.patients import parse_age, parse_sex
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

    from umif.readers.base import Reader, Text
    from umif.readers.tables import Row

TABLE = "metadata.csv"
_REQUIRED = ("patientid", "finding", "modality")
_OPTIONAL = ("sex", "age", "view", "notes")
# Typographic marks of Windows that were stored as the control characters of their code.
_CONTROLS = re.compile("[\x80-\x9f]")


def located_rows(reader: Reader, key: str, part: Literal["name", "stem"]) -> Iterator[tuple[str, Path, Row]]:
    """Yield (image id, picture, row) of each radiograph with a row; exclude and count everything else.

    Args:
        reader: Whose account this is.
        key: The column that names the picture.
        part: What it holds: the file's whole name, or its stem.

    Raises:
        TableError: a modality that is neither X-ray nor CT.
    """
    rows = _rows_by_key(reader, key)
    on_disk: dict[str, tuple[str, Path]] = {}
    for item, path in pictures(reader, reader.require("images")):
        if on_disk.setdefault(getattr(path, part), (item, path))[0] != item:
            reader.exclude(item, "another picture has the same name")
    for name in sorted(rows.keys() | on_disk.keys()):
        row = rows.get(name)
        picture = on_disk.get(name)
        item = f"images/{name}" + (".*" if part == "stem" else "") if picture is None else picture[0]
        if row is None:
            reader.exclude(item, f"no row in {TABLE}")
        elif row["modality"] not in ("X-ray", "CT", ""):
            raise row.error(f"the modality is {row['modality']!r}", fix="known: X-ray, CT")
        elif row["modality"] != "X-ray":
            reader.exclude(item, f"modality is {row['modality'] or 'not stated'}", row.where)
        elif picture is None:
            reader.exclude(item, "image file is missing", row.where)
        else:
            yield *picture, row


def _rows_by_key(reader: Reader, key: str) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for row in read_table(reader.require(TABLE), tuple(dict.fromkeys((*_REQUIRED, key))), _OPTIONAL):
        name = row[key]
        if not name:
            reader.exclude(row.where, f"no {key}", row.where)
        elif relative_name(name) != name or "/" in name:
            reader.exclude(f"{row.where} {name!a}", "path leaves the folder", row.where)
        elif name in rows:
            same = rows[name].cells == row.cells
            reader.note("repeated row, equal" if same else "repeated row that differs: the first one is used")
        else:
            rows[name] = row
    return rows


def parse_notes(row: Row) -> str:
    """Return the notes as running text."""
    text = _CONTROLS.sub(lambda match: bytes([ord(match[0])]).decode("cp1252", "replace"), row.get("notes"))
    return " ".join(text.replace("\ufffd", "").split())


def make_record(
    reader: Reader,
    item: str,
    path: Path,
    row: Row,
    *,
    patient: str | None,
    texts: tuple[Text, ...],
    extra: tuple[Finding, ...] = (),
) -> Record:
    """Return the record of one row; `extra` are findings that its column `finding` does not state."""
    return Record(
        image=path,
        image_id=item,
        patient=patient,
        view=row.get("view") or None,
        sex=parse_sex(reader, row.get("sex")),
        age_years=parse_age(reader, row.get("age")),
        texts=texts,
        findings=(*parse_findings(reader, row), *extra),
        where=row.where,
    )
