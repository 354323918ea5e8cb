"""Traps of NIH ChestX-ray14 and of the RSNA challenge, whose images are NIH's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from umif.errors import LayoutError, TableError
from umif.readers.base import LabelState, Record, Region
from umif.readers.dicom_header import read_dicom_header
from umif.readers.nih_chestxray14 import NihChestxray14, patient_key
from umif.readers.rsna_pneumonia import CLASSES, HEADERS, LABELS, MAPPING, MATCH, RsnaPneumonia

if TYPE_CHECKING:
    from pathlib import Path

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
TAIL = ",58,M,PA,2500,2048,0.168,0.168"


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    root = tmp_path / "nih"
    (root / "images").mkdir(parents=True)
    write_nih(root, "00000061_012.png,Edema|Effusion,12,61" + TAIL)
    (root / "images" / "00000061_012.png").write_bytes(b"")
    return root


def write_nih(root: Path, *rows: str, table: str = "Data_Entry_2017_v2020.csv", header: str = NIH_HEADER) -> None:
    (root / table).write_text("\n".join([header, *rows]) + "\n")


def test_only_listed_findings_are_given_and_none_as_absent(nih: Path) -> None:
    (record,) = NihChestxray14(nih).read()
    assert [(finding.name, finding.state) for finding in record.findings] == [
        ("Edema", LabelState.PRESENT),
        ("Effusion", LabelState.PRESENT),
    ]
    assert (record.patient, record.patient_namespace) == ("00000061", "nih-chestxray14")
    assert (record.sex, record.age_years, record.view) == ("M", 58.0, "PA")


@pytest.mark.parametrize("table", ["Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"])
def test_both_names_of_the_table_and_its_trailing_comma(nih: Path, table: str) -> None:
    (nih / "Data_Entry_2017_v2020.csv").unlink()
    write_nih(nih, "00000061_012.png,Mass,12,61" + TAIL + ",", table=table, header=NIH_HEADER + ",")
    (record,) = NihChestxray14(nih).read()
    assert record.where == f"{table}:2"


@pytest.mark.parametrize("label", ["Infiltrate", "mass", "", "Mass|", "Mass|No Finding", "Mass Effusion"])
def test_unknown_label_is_refused_with_its_line(nih: Path, label: str) -> None:
    write_nih(nih, f"00000061_012.png,{label},12,61" + TAIL)
    with pytest.raises(TableError, match=r"v2020\.csv:2"):
        list(NihChestxray14(nih).read())


def test_boxes_come_in_the_frame_of_1024_pixels(nih: Path) -> None:
    rows = "00000061_012.png,Infiltrate,200.25,310.5,150.0,220.75\n00000061_012.png,Mass,1,2,0,4\n"
    (nih / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n" + rows)
    reader = NihChestxray14(nih)
    (record,) = reader.read()
    assert record.regions == (Region("Infiltrate", "box", box=(200.25, 310.5, 150.0, 220.75), frame=(1024, 1024)),)
    assert reader.account.notes["box without extent"] == 1


def test_official_lists_become_splits_and_come_in_pairs(nih: Path) -> None:
    (nih / "test_list.txt").write_text("00000061_012.png\r\n\r\n")
    with pytest.raises(LayoutError, match=r"train_val_list\.txt"):
        list(NihChestxray14(nih).read())
    (nih / "train_val_list.txt").write_text("00000062_000.png\n")
    assert [record.split for record in NihChestxray14(nih).read()] == ["test"]


def test_absent_optional_files_are_noted(nih: Path) -> None:
    reader = NihChestxray14(nih)
    list(reader.read())
    assert reader.account.notes == {"no BBox_List_2017.csv here": 1, "no official lists here": 1}


@pytest.mark.parametrize(
    ("text", "key"),
    [("61", "00000061"), ("00000061_012.png", "00000061"), ("123456789", None), ("x", None), ("", None), ("-1", None)],
)
def test_patient_key_is_eight_digits(text: str, key: str | None) -> None:
    assert patient_key(text) == key


A, B = "aaaa-1", "bbbb-2"


@pytest.fixture
def rsna(tmp_path: Path) -> Path:
    root = tmp_path / "rsna"
    (root / "stage_2_train_images_jpg").mkdir(parents=True)
    for key in (A, B):
        (root / "stage_2_train_images_jpg" / f"{key}.jpg").write_bytes(b"")
    write_rsna(root, f"{A},1,2,3,4,1\n{A},5,6,7,8,1\n{B},,,,,0\n", f"{A},Lung Opacity\n{B},Normal\n")
    return root


def write_rsna(root: Path, labels: str, classes: str) -> None:
    (root / LABELS).write_text("patientId,x,y,width,height,Target\n" + labels)
    (root / CLASSES).write_text("patientId,class\n" + classes)


def read_rsna(root: Path) -> dict[str, Record]:
    return {record.image_id: record for record in RsnaPneumonia(root).read()}


def test_rows_of_one_image_are_its_boxes(rsna: Path) -> None:
    records = read_rsna(rsna)
    assert [region.box for region in records[A].regions] == [(1, 2, 3, 4), (5, 6, 7, 8)]
    assert {region.frame for region in records[A].regions} == {(1024, 1024)}
    assert records[B].regions == ()


@pytest.mark.parametrize(
    ("cell", "target", "findings"),
    [
        ('"Lung Opacity, Lung Opacity"', "1,2,3,4,1", {"Lung Opacity": "present"}),
        ("No Lung Opacity / Not Normal", ",,,,0", {"Lung Opacity": "absent", "Normal": "absent"}),
        ("Normal", ",,,,0", {"Lung Opacity": "absent", "Normal": "present"}),
    ],
)
def test_the_three_classes_stay_apart(rsna: Path, cell: str, target: str, findings: dict[str, str]) -> None:
    write_rsna(rsna, f"{A},{target}\n", f"{A},{cell}\n{A},{cell}\n")
    assert {finding.name: finding.state.value for finding in read_rsna(rsna)[A].findings} == findings


def test_image_without_a_class_keeps_its_target(rsna: Path) -> None:
    write_rsna(rsna, f"{A},1,2,3,4,1\n{B},,,,,0\n", "")
    reader = RsnaPneumonia(rsna)
    states = [record.findings[0].state for record in reader.read()]
    assert states == [LabelState.PRESENT, LabelState.ABSENT]
    assert reader.account.notes[f"image without a row in {CLASSES}"] == 2


@pytest.mark.parametrize(
    ("labels", "classes", "where"),
    [
        (f"{A},1,2,3,4,1\n{A},,,,,0\n", f"{A},Lung Opacity\n", f"{LABELS}:3"),
        (f"{A},,,,,1\n", f"{A},Lung Opacity\n", f"{LABELS}:2"),
        (f"{A},1,2,3,4,0\n", f"{A},Normal\n", f"{LABELS}:2"),
        (f"{A},,,,,0\n", f"{A},Lung Opacity\n", f"{CLASSES}:2"),
        (f"{A},,,,,0\n", f"{A},Normal\n{A},No Lung Opacity / Not Normal\n", f"{CLASSES}:3"),
        (",,,,,0\n", f"{A},Normal\n", f"{LABELS}:2"),
    ],
)
def test_contradictions_name_their_line(rsna: Path, labels: str, classes: str, where: str) -> None:
    write_rsna(rsna, labels, classes)
    with pytest.raises(TableError) as caught:
        read_rsna(rsna)
    assert str(caught.value.where).endswith(where)


def test_patients_are_nih_patients_by_either_map(rsna: Path) -> None:
    (rsna / MATCH).write_text(f"patientId,nih_image,mse\n{A},00000061_012.png,0.5\n")
    records = read_rsna(rsna)
    assert (records[A].patient, records[A].patient_namespace) == ("00000061", "nih-chestxray14")
    assert (records[B].patient, records[B].patient_namespace) == (B, None)
    # The official mapping wins over the table of matches.
    (rsna / MAPPING).write_text(json.dumps([{"img_id": "00000070_000.png", "subset_img_id": A}]))
    assert read_rsna(rsna)[A].patient == "00000070"


def test_without_a_map_each_image_is_a_patient_and_that_is_noted(rsna: Path) -> None:
    reader = RsnaPneumonia(rsna)
    assert [(record.patient, record.patient_namespace) for record in reader.read()] == [(A, None), (B, None)]
    assert any("no map to NIH patients" in note for note in reader.account.notes)


def test_header_table_gives_sex_age_and_view(rsna: Path) -> None:
    (rsna / HEADERS).write_text(f",PatientAge,PatientID,PatientSex,ViewPosition\n0,151,{A},F,AP\n")
    record = read_rsna(rsna)[A]
    assert (record.sex, record.age_years, record.view) == ("F", None, "AP")


@pytest.mark.parametrize("content", [b"", b"no DICOM", b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_damaged_dicom_header_is_unknown_not_fatal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    header = read_dicom_header(path, ("PatientSex",))
    assert header is None or header == {"PatientSex": ""}
