"""Traps of MIMIC-CXR: two forms, two homes of the reports, packed tables, labels of several hands."""

from __future__ import annotations

import gzip
import zipfile
from typing import TYPE_CHECKING

import pytest

from umif.errors import LayoutError, TableError
from umif.readers.base import LabelState, Record
from umif.readers.mimic_cxr import LABELS, NO_REPORT, TEST_LABELS, MimicCxr, MimicCxrJpg
from umif.readers.report_text import REFERS

if TYPE_CHECKING:
    from pathlib import Path

SUBJECT, STUDY = "10000032", "50414267"
DICOM = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
PLACE = f"p10/p{SUBJECT}"


def write(root: Path, suffix: str = ".jpg", labels: str = "chexpert") -> None:
    (root / "files" / PLACE / f"s{STUDY}").mkdir(parents=True)
    (root / "files" / PLACE / f"s{STUDY}" / f"{DICOM}{suffix}").write_bytes(b"")
    ids = f"{DICOM},{SUBJECT},{STUDY}"
    tables = {
        "metadata": f"dicom_id,subject_id,study_id,ViewPosition\n{ids},AP\n",
        "split": f"dicom_id,subject_id,study_id,split\n{ids},validate\n",
        labels: f"subject_id,study_id,{','.join(LABELS)}\n{SUBJECT},{STUDY},1.0,,0.0,-1.0" + "," * 10 + "\n",
    }
    if suffix == ".jpg":
        for name, table in tables.items():
            (root / f"mimic-cxr-2.0.0-{name}.csv.gz").write_bytes(gzip.compress(table.encode()))
    else:
        path = f"files/{PLACE}/s{STUDY}/{DICOM}.dcm"
        (root / "cxr-record-list.csv").write_text(
            f"subject_id,study_id,dicom_id,path\n{SUBJECT},{STUDY},{DICOM},{path}\n"
        )


def read(root: Path) -> tuple[Record, MimicCxrJpg]:
    reader = MimicCxrJpg(root)
    (record,) = reader.read()
    return record, reader


def test_record_of_an_image(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "files" / PLACE / f"s{STUDY}.txt").write_text(" FINAL REPORT\n FINDINGS: Clear at ___.\n")
    record, reader = read(tmp_path)
    assert (record.image_id, record.patient, record.patient_namespace) == (DICOM, SUBJECT, "mimic-cxr")
    assert (record.study, record.view, record.split) == (STUDY, "AP", "val")
    assert [text.text for text in record.texts] == ["Clear at."]
    assert [(finding.name, finding.state) for finding in record.findings] == [
        ("Atelectasis", LabelState.PRESENT),
        ("Consolidation", LabelState.ABSENT),
        ("Edema", LabelState.UNCERTAIN),
    ]
    assert record.where == "mimic-cxr-2.0.0-chexpert.csv.gz:2"
    assert not reader.account.notes


@pytest.mark.parametrize("home", ["files", "mimic-cxr-reports/files", "mimic-cxr-reports"])
def test_reports_are_found_unpacked(tmp_path: Path, home: str) -> None:
    write(tmp_path)
    (tmp_path / home / PLACE).mkdir(parents=True, exist_ok=True)
    (tmp_path / home / PLACE / f"s{STUDY}.txt").write_text("Clear.")
    assert read(tmp_path)[0].texts[0].text == "Clear."


def test_whole_download_with_both_forms_and_the_zip_is_read_from_above(tmp_path: Path) -> None:
    write(tmp_path / "mimic-cxr-jpg" / "2.1.0")
    write(tmp_path / "mimic-cxr" / "2.1.0", ".dcm")
    with zipfile.ZipFile(tmp_path / "mimic-cxr" / "2.1.0" / "mimic-cxr-reports.zip", "w") as archive:
        archive.writestr(f"files/{PLACE}/s{STUDY}.txt", " IMPRESSION: Edema.\n")
    record, _ = read(tmp_path)
    assert record.image.suffix == ".jpg"
    assert record.texts[0].text == "Edema."
    # The DICOM form takes labels, views and parts of the other one's tables.
    (other,) = MimicCxr(tmp_path).read()
    assert other.image.suffix == ".dcm"
    assert (other.view, other.split, other.texts, other.findings) == (
        record.view, record.split, record.texts, record.findings,
    )  # fmt: skip


def test_empty_and_missing_reports_are_notes_and_the_image_stays(tmp_path: Path) -> None:
    write(tmp_path)
    record, reader = read(tmp_path)
    assert (record.texts, dict(reader.account.notes)) == ((), {NO_REPORT: 1})
    (tmp_path / "files" / PLACE / f"s{STUDY}.txt").write_text(" IMPRESSION: As above.\n")
    record, reader = read(tmp_path)
    assert (record.texts, dict(reader.account.notes)) == ((), {REFERS: 1})


def test_report_that_cannot_be_read_is_noted(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "files" / PLACE / f"s{STUDY}.txt").mkdir()
    record, reader = read(tmp_path)
    assert (record.texts, reader.account.notes["report that cannot be read"]) == ((), 1)
    (tmp_path / "files" / PLACE / f"s{STUDY}.txt").rmdir()
    (tmp_path / "files" / PLACE / f"s{STUDY}.txt").write_bytes(b"x" * 1_000_001)
    assert read(tmp_path)[0].texts == ()


def test_negbio_stands_in_for_chexpert(tmp_path: Path) -> None:
    write(tmp_path, labels="negbio")
    assert read(tmp_path)[0].where == "mimic-cxr-2.0.0-negbio.csv.gz:2"


def test_unpacked_table_of_a_version_is_preferred(tmp_path: Path) -> None:
    write(tmp_path)
    table = tmp_path / "mimic-cxr-2.0.0-chexpert.csv"
    table.write_text(f"subject_id,study_id,{','.join(LABELS)}\n{SUBJECT},{STUDY}" + "," * 14 + "\n")
    record, _ = read(tmp_path)
    assert (record.findings, record.where) == ((), f"{table.name}:2")


def test_radiologists_labels_replace_the_mined_ones(tmp_path: Path) -> None:
    write(tmp_path)
    cells = ["1" if name == "Airspace Opacity" else "" for name in TEST_LABELS]
    (tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv").write_text(
        f"study_id,{','.join(TEST_LABELS)}\n{STUDY},{','.join(cells)}\n"
    )
    record, _ = read(tmp_path)
    assert [(finding.name, finding.state) for finding in record.findings] == [("Airspace Opacity", LabelState.PRESENT)]


def test_damaged_archive_is_a_typed_error(tmp_path: Path) -> None:
    write(tmp_path)
    table = tmp_path / "mimic-cxr-2.0.0-split.csv.gz"
    whole = table.read_bytes()
    for damaged in (whole[:-9], b"no archive", whole[:12] + b"\xff" * 8 + whole[20:]):
        table.write_bytes(damaged)
        with pytest.raises(TableError, match=r"split\.csv\.gz"):
            read(tmp_path)
    table.write_bytes(whole)
    (tmp_path / "mimic-cxr-reports.zip").write_bytes(b"PK no zip")
    with pytest.raises(TableError, match=r"reports\.zip"):
        read(tmp_path)


def test_picture_in_the_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "files" / PLACE / f"s{STUDY}").rename(tmp_path / "files" / PLACE / "s50000001")
    with pytest.raises(LayoutError, match="study 50000001"):
        read(tmp_path)


def test_view_of_a_dicom_file_is_its_headers(tmp_path: Path) -> None:
    write(tmp_path, ".dcm")
    reader = MimicCxr(tmp_path)
    (record,) = reader.read()
    assert (record.view, record.split, record.findings) == (None, None, ())
    assert reader.account.notes["DICOM header that cannot be read"] == 1
