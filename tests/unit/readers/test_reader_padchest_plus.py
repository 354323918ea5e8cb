"""Traps of the sets that come with reports: CheXpert Plus and PadChest, its lists of labels and places included."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reader_checks import fails, states, touch, write_csv
from umif.errors import TableError
from umif.readers.chexpert import FINDINGS
from umif.readers.chexpert_plus import ChexpertPlus, description
from umif.readers.padchest import BROKEN, MISSING, TABLES, Padchest, parse_list, parse_lists
from umif.readers.tables import Row

if TYPE_CHECKING:
    from collections.abc import Mapping


# CheXpert Plus


def sections(**cells: str) -> Row:
    return Row(Path("table.csv"), 2, {"section_findings": "", "section_impression": "", **cells})


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ({"section_findings": "A\n  b.", "section_impression": "1. C. 2. D."}, "A b.\nC. D."),
        ({"section_impression": "C."}, "C."),
        ({"section_findings": "C.", "section_impression": " C. "}, "C."),
        ({"section_findings": " . ", "section_summary": "Normal"}, "Normal"),
        ({"section_findings": "As above.", "section_impression": "C."}, "C."),
        ({"section_impression": "C.", "section_summary": "Normal"}, "C."),
        ({"section_summary": " - "}, None),
        ({"section_impression": "No change."}, None),
    ],
)
def test_description_is_findings_and_impression(cells: dict[str, str], text: str | None) -> None:
    described = description(sections(**cells))
    assert described.text == text
    assert (described.reason is None) == (text is not None)


PLUS_COLUMNS = (
    "path_to_image", "frontal_lateral", "ap_pa", "section_findings", "section_impression", "age", "sex", "split",
)  # fmt: skip
PLUS_PATH = "train/patient00007/study1/view1_frontal.jpg"


def plus(root: Path, labels: Mapping[str, Mapping[str, Any]]) -> ChexpertPlus:
    row = {"path_to_image": PLUS_PATH, "split": "train", "ap_pa": "AP", "section_impression": "Clear."}
    write_csv(root / "df_chexpert_plus_240401.csv", PLUS_COLUMNS, [row])
    touch(root, "PNG/train/patient00007/study1/view1_frontal.png")
    for name, values in labels.items():
        touch(root, f"chexbert_labels/{name}")
        line = {"path_to_image": PLUS_PATH, **dict.fromkeys(FINDINGS), **values}
        (root / "chexbert_labels" / name).write_text(json.dumps(line))
    return ChexpertPlus(root)


def test_chexpert_plus_takes_the_whole_reports_labels_first(tmp_path: Path) -> None:
    reader = plus(tmp_path, {"impression_fixed.json": {"Edema": 0.0}})
    (record,) = reader.read()
    assert states(record) == {"Edema": "absent"}
    assert reader.account.notes["labels are those of impression_fixed.json"] == 1
    (record,) = plus(tmp_path, {"report_fixed.json": {"Edema": 1.0}}).read()
    assert states(record) == {"Edema": "present"}


def test_chexpert_plus_has_the_patients_of_chexpert(tmp_path: Path) -> None:
    reader = plus(tmp_path, {})
    (record,) = reader.read()
    assert (record.patient_namespace, record.patient, record.study) == (
        "chexpert",
        "patient00007",
        "patient00007/study1",
    )
    assert [(text.text, text.source, text.language) for text in record.texts] == [("Clear.", "report", "en")]
    assert reader.account.notes == {
        "no chexbert_labels here": 1,
        "image without labels": 1,
        "file that is no picture": 1,  # the table itself
    }


# PadChest


def padchest_row(column: str, text: str) -> Row:
    return Row(Path("table.csv"), 2, {column: text})


# No quotes of both kinds and no escapes: the reader refuses what it cannot be sure of.
LABEL_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\', categories=("L", "N", "Zs", "P")), max_size=8
)
LABEL_LISTS = st.lists(LABEL_TEXT, max_size=4)


@given(labels=LABEL_LISTS)
def test_list_cell_is_read_as_python_reads_it(labels: list[str]) -> None:
    text = repr(labels)
    if "\\" in text:  # what Python prints with an escape
        return
    expected = tuple(dict.fromkeys(entry.strip().lower() for entry in ast.literal_eval(text) if entry.strip()))
    assert parse_list(padchest_row("Labels", text), "Labels") == expected


@given(lists=st.lists(LABEL_LISTS, min_size=1, max_size=4))
def test_cell_of_lists_is_read_as_python_reads_it(lists: list[list[str]]) -> None:
    text = repr(lists)
    if "\\" in text:
        return
    expected = tuple(
        tuple(dict.fromkeys(entry.strip().lower() for entry in entries if entry.strip()))
        for entries in ast.literal_eval(text)
    )
    assert parse_lists(padchest_row("By", text), "By") == expected


@pytest.mark.parametrize(
    "text",
    ["nan", "['a'", "['a' 'b']", "[a]", "['a'] + ['b']", "['a', 1]", "['a\\'b']", "[['a']]", "('a',)", "['a',,]"],
)
def test_what_is_no_list_of_strings_is_refused(text: str) -> None:
    with pytest.raises(TableError) as caught:
        parse_list(padchest_row("Labels", text), "Labels")
    assert str(caught.value.where) == "table.csv:2"


def test_hostile_list_is_refused_at_once() -> None:
    # Blanks that could be shared out in many ways make a careless pattern quadratic or worse.
    for text in ("['a'" + " " * 100_000 + "x", "[" + " " * 100_000, "['a'," * 20_000, "[" * 100_000):
        for parse in (parse_list, parse_lists):
            with pytest.raises(TableError):
                parse(padchest_row("Labels", text), "Labels")


PADCHEST_COLUMNS = (
    "ImageID", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM", "ViewPosition_DICOM",
    "Projection", "Pediatric", "PhotometricInterpretation_DICOM", "Report", "MethodLabel", "Labels", "Localizations",
    "LabelsLocalizationsBySentence",
)  # fmt: skip


def padchest(root: Path, *rows: dict[str, str], packed: bool = False) -> Padchest:
    write_csv(root / TABLES[0], PADCHEST_COLUMNS, rows)
    if packed:
        (root / TABLES[1]).write_bytes(gzip.compress((root / TABLES[0]).read_bytes()))
        (root / TABLES[0]).unlink()
    touch(root, *(row["ImageID"] for row in rows))
    return Padchest(root)


def test_padchest_packed_table_and_flat_folder(tmp_path: Path) -> None:
    row = {"ImageID": "a.png", "Labels": "['normal']", "Report": "sin hallazg ."}
    (record,) = padchest(tmp_path, row, packed=True).read()
    assert states(record) == {"normal": "present"}
    assert record.where == f"{TABLES[1]}:2"


def test_padchest_damaged_packing_is_named(tmp_path: Path) -> None:
    padchest(tmp_path, {"ImageID": "a.png"}, packed=True)
    whole = (tmp_path / TABLES[1]).read_bytes()
    (tmp_path / TABLES[1]).write_bytes(whole[: len(whole) // 2])
    fails(Padchest(tmp_path), TABLES[1])


def test_padchest_reports_are_spanish_and_of_the_study(tmp_path: Path) -> None:
    reader = padchest(
        tmp_path,
        {"ImageID": "a.png", "StudyID": "1", "Report": "sin hallazg ."},
        {"ImageID": "b.png", "StudyID": "1"},
        {"ImageID": "c.png", "StudyID": "2", "Report": "derram ."},
        {"ImageID": "d.png", "StudyID": "2", "Report": "cardiomegali ."},
        {"ImageID": "e.png", "StudyID": "2"},
        {"ImageID": "f.png"},
    )
    records = {record.image_id: record for record in reader.read()}
    assert {text.language for record in records.values() for text in record.texts} == {"es"}
    found = {name: [text.text for text in record.texts] for name, record in records.items()}
    assert found["b.png"] == found["a.png"] == ["sin hallazg ."]
    assert found["e.png"] == found["f.png"] == [], "whose of two reports it is cannot be known"
    assert reader.account.notes["image without a report"] == 2


def test_padchest_location_belongs_to_the_only_finding_of_its_sentence(tmp_path: Path) -> None:
    cells = {
        "Labels": "['nodule', 'rib fracture', 'scoliosis', 'pleural effusion']",
        "Localizations": "['loc left', 'loc right', 'loc basal', 'loc rib']",
        "LabelsLocalizationsBySentence": "[['nodule', 'loc left'], ['scoliosis'], ['nodule', 'loc right', 'loc left'], "
        "['pleural effusion', 'rib fracture', 'loc basal', 'loc rib']]",
    }
    reader = padchest(tmp_path, {"ImageID": "a.png", **cells})
    (record,) = reader.read()
    assert {finding.name: finding.locations for finding in record.findings} == {
        "nodule": ("loc left", "loc right"),
        "rib fracture": (),
        "scoliosis": (),
        "pleural effusion": (),
    }
    assert reader.account.notes["location in a sentence of several findings: not given"] == 1


@pytest.mark.parametrize(
    ("birth", "date", "age"),
    [("1930.0", "20140915", 84.0), ("1930", "", None), ("", "20140915", None), ("2050", "20140915", None)],
)
def test_padchest_age_is_told_to_a_year(tmp_path: Path, birth: str, date: str, age: float | None) -> None:
    row = {"ImageID": "a.png", "PatientBirth": birth, "StudyDate_DICOM": date}
    (record,) = padchest(tmp_path, row).read()
    assert record.age_years == age


def test_padchest_blank_labels_are_no_negative(tmp_path: Path) -> None:
    reader = padchest(tmp_path, {"ImageID": "a.png"}, {"ImageID": "b.png", "Labels": "[]"})
    assert [record.findings for record in reader.read()] == [(), ()]
    assert reader.account.notes["image without labels, which does not mean normal"] == 2


def test_padchest_knows_21_files_of_the_release(tmp_path: Path) -> None:
    assert (len(MISSING), len(BROKEN), len(MISSING | BROKEN)) == (11, 10, 21)
    names = [f"{stem}.png" for stem in sorted(MISSING | BROKEN)]
    reader = padchest(tmp_path, *({"ImageID": name} for name in names))
    # A file that is said to be missing is used where a later download has it; a damaged one is not trusted.
    assert [record.image_id for record in reader.read()] == [f"{stem}.png" for stem in sorted(MISSING)]
    assert reader.account.excluded == {"known to be damaged in the release": 10}
    for name in names:
        (tmp_path / name).unlink()
    assert list(reader.read()) == []
    assert reader.account.excluded == {
        "known to be damaged in the release": 10,
        "known to be missing in the release": 11,
    }
