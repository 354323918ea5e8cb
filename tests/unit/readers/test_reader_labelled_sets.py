"""Traps of the sets that come with labels: BRAX, VinDr-CXR, RICORD-1c, MURA, and radiologists' labels of NIH."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from reader_checks import fails, states, touch, write_csv
from umif.errors import LayoutError, TableError
from umif.readers.base import LabelState, Region
from umif.readers.brax import Brax
from umif.readers.chexpert import FINDINGS
from umif.readers.dicom_header import hash_identifier
from umif.readers.midrc_ricord_1c import MidrcRicord1c
from umif.readers.mura import Mura
from umif.readers.nih_chestxray14 import NihChestxray14
from umif.readers.vindr_cxr import KAGGLE, VindrCxr

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# BRAX

BRAX_COLUMNS = (
    "DicomPath", "PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber", *FINDINGS, "ViewPosition",
)  # fmt: skip
BRAX_PATH = "id_7/Study_1/Series_1/image-1.2"


def brax(root: Path, *, table: str = "master_spreadsheet_update.csv", **cells: str) -> Brax:
    row = {"DicomPath": f"Anonymized_DICOMs/{BRAX_PATH}.dcm", "PngPath": f"images/{BRAX_PATH}.png", "PatientID": "7"}
    write_csv(root / table, BRAX_COLUMNS, [{**row, **cells}])
    return Brax(root)


def test_brax_prefers_dicom_and_keeps_its_id_without(tmp_path: Path) -> None:
    touch(tmp_path, f"images/{BRAX_PATH}.png")
    (png,) = brax(tmp_path).read()
    touch(tmp_path, f"Anonymized_DICOMs/{BRAX_PATH}")
    reader = brax(tmp_path)
    (dicom,) = reader.read()
    assert (png.image.suffix, dicom.image.name) == (".png", "image-1.2")
    assert png.image_id == dicom.image_id == BRAX_PATH
    assert reader.account.excluded == {"another copy of the same image is used": 1}


def test_brax_reads_the_first_versions_table(tmp_path: Path) -> None:
    touch(tmp_path, f"images/{BRAX_PATH}.png")
    (record,) = brax(tmp_path, table="master_spreadsheet.csv", Edema="-1").read()
    assert states(record) == {"Edema": "uncertain"}
    assert record.where == "master_spreadsheet.csv:2"


@pytest.mark.parametrize(
    ("cell", "age", "note"),
    [("45", 45.0, None), ("45.0", 45.0, None), ("85 or more", None, "age is 85 or more: left open"), ("", None, None)],
)
def test_brax_oldest_bin_is_no_age(tmp_path: Path, cell: str, age: float | None, note: str | None) -> None:
    touch(tmp_path, f"images/{BRAX_PATH}.png")
    reader = brax(tmp_path, PatientAge=cell)
    (record,) = reader.read()
    assert record.age_years == age
    assert dict(reader.account.notes) == ({note: 1} if note else {})


def test_brax_wrong_label_of_a_missing_file_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/other.png")
    fails(brax(tmp_path, Edema="2"), "update.csv:2")


# VinDr-CXR


def kaggle(root: Path, *rows: str) -> VindrCxr:
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    (root / "train.csv").write_text("\n".join([header, *rows]) + "\n")
    touch(root, "test/unlabelled.dicom", *(f"train/{row.split(',')[0]}.dicom" for row in rows))
    return VindrCxr(root)


def test_vindr_kaggle_readers_vote(tmp_path: Path) -> None:
    reader = kaggle(
        tmp_path,
        "a,Cardiomegaly,3,R8,10,20,30,50",
        "a,Cardiomegaly,3,R9,10,20,30,50",
        "a,Cardiomegaly,3,R9,110,120,130,150",
        "a,ILD,5,R10,1.5,2.5,3.5,5.5",
        "b,No finding,14,R8,,,,",
        "b,No finding,14.0,R9,,,,",
        "b,No finding,14,R9,,,,",
    )
    first, second = reader.read()
    expected = dict.fromkeys(KAGGLE, "absent")
    assert states(first) == {**expected, "Cardiomegaly": "present", "ILD": "uncertain"}
    assert states(second) == {**expected, "No finding": "present"}
    assert first.regions == (
        Region("Cardiomegaly", "box", box=(10.0, 20.0, 20.0, 30.0)),
        Region("Cardiomegaly", "box", box=(110.0, 120.0, 20.0, 30.0)),
        Region("ILD", "box", box=(1.5, 2.5, 2.0, 3.0)),
    )
    assert (first.patient, first.patient_namespace, first.split, first.view) == ("a", "vindr-cxr", "train", "PA")
    assert reader.account.excluded == {"test image of the challenge, unlabelled": 1}
    assert reader.account.notes["box that is drawn twice, equal"] == 1
    assert reader.account.notes["image read by 2 instead of 3"] == 1


@pytest.mark.parametrize(
    "row",
    [
        "a,Cardiomegaly,4,R8,1,2,3,4",
        "a,Edema,3,R8,1,2,3,4",
        "a,Cardiomegaly,3,R8,1,2,3,",
        "a,No finding,14,R8,1,2,3,4",
        "a,Cardiomegaly,3,R8,1,2,inf,4",
        ",No finding,14,R8,,,,",
    ],
)
def test_vindr_kaggle_wrong_row_is_named(tmp_path: Path, row: str) -> None:
    fails(kaggle(tmp_path, "a,No finding,14,R9,,,,", row), "train.csv:3")


def test_vindr_without_any_table_names_the_layout(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.dicom", "test/b.dicom")
    with pytest.raises(LayoutError, match="image_labels_train"):
        list(VindrCxr(tmp_path).read())


def test_vindr_kaggle_table_on_real_rows(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "csv_layouts" / "VinBigData" / "train.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    (tmp_path / "train.csv").write_bytes(path.read_bytes())
    touch(tmp_path, "test/x.dicom", *(f"train/{row['image_id']}.dicom" for row in rows))
    records = {record.image_id: record for record in VindrCxr(tmp_path).read()}
    # The independent reading: who saw what, counted anew.
    readers: dict[str, set[str]] = defaultdict(set)
    votes: dict[tuple[str, str], set[str]] = defaultdict(set)
    boxes: Counter[str] = Counter()
    for row in rows:
        readers[row["image_id"]].add(row["rad_id"])
        votes[row["image_id"], row["class_name"]].add(row["rad_id"])
        boxes[row["image_id"]] += row["x_min"] != ""
    assert records.keys() == readers.keys()
    for image, record in records.items():
        for finding in record.findings:
            share = len(votes[image, finding.name]) / len(readers[image])
            expected = LabelState.ABSENT if share == 0 else LabelState.PRESENT if share > 0.5 else LabelState.UNCERTAIN
            assert finding.state is expected
        assert len(record.findings) == 15
        assert len(record.regions) == boxes[image]


# MIDRC-RICORD-1c

RICORD_NAMES = ("Typical Appearance", "Indeterminate Appearance", "Atypical Appearance", "Negative for Pneumonia")


def ricord(
    root: Path, *votes: tuple[str, int], names: Sequence[str] = RICORD_NAMES, folder: str = "X"
) -> MidrcRicord1c:
    """Votes for the one study: the group's name and the label's number."""
    groups = ("first", "second", "third", "Adjudication")
    labels = [{"name": g, "labels": [{"id": f"{g}{i}", "name": n} for i, n in enumerate(names)]} for g in groups]
    annotations = [{"labelId": f"{group}{number}", "StudyInstanceUID": "1.5"} for group, number in votes]
    export = {"labelGroups": labels, "datasets": [{"annotations": annotations}]}
    (root / "1c_mdai_rsna_project_x_annotations_labelgroup_all_2021.json").write_text(json.dumps(export))
    path = root / "MIDRC-RICORD-1C" / f"MIDRC-RICORD-1C-{folder}" / "01-01-2000-NA-CHEST-00015" / "1" / "1-1.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.5.1"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID, dataset.StudyInstanceUID, dataset.ViewPosition = "MIDRC-RICORD-1C-X", "1.5", "AP"
    dataset.save_as(path, enforce_file_format=True)
    return MidrcRicord1c(root)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([("first", 0), ("second", 0), ("third", 0)], "paaa"),
        ([("first", 0), ("second", 0), ("third", 3)], "paaa"),
        ([("first", 0), ("second", 0), ("third", 3), ("Adjudication", 3)], "aaap"),
        ([("first", 0), ("second", 1), ("third", 2)], "uuua"),
        ([("first", 0), ("second", 1), ("third", 2), ("Adjudication", 1)], "apaa"),
        ([("first", 0), ("second", 1)], "uuaa"),
        ([("first", 2)], "aapa"),
        ([("first", 0), ("first", 1), ("second", 3), ("third", 3)], "aaap"),
        ([("first", 0), ("first", 0), ("second", 3), ("third", 3)], "aaap"),
        ([], ""),
    ],
)
def test_ricord_adjudication_then_majority(tmp_path: Path, votes: list[tuple[str, int]], expected: str) -> None:
    (record,) = ricord(tmp_path, *votes).read()
    words = {"p": "present", "a": "absent", "u": "uncertain"}
    assert states(record) == {n: words[c] for n, c in zip(RICORD_NAMES, expected, strict=bool(expected))}
    # The patient by the folder's name, which COVIDx's file names hold; the study by its hash.
    assert (record.patient, record.study) == ("MIDRC-RICORD-1C-X", hash_identifier("1.5"))


def test_ricord_grade_and_other_labels_are_never_absent(tmp_path: Path) -> None:
    names = (*RICORD_NAMES, "Mild", "Severe", "Limited study")
    votes = [("first", 0), ("second", 0), ("third", 0), ("first", 4), ("second", 4), ("third", 5), ("third", 6)]
    (record,) = ricord(tmp_path, *votes, names=names).read()
    assert list(states(record).items())[4:] == [("Mild", "present"), ("Limited study", "uncertain")]


def test_ricord_export_without_an_appearance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="Negative"):
        list(ricord(tmp_path, names=RICORD_NAMES[:3]).read())


def test_ricord_patient_must_be_the_folders(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="PatientID"):
        list(ricord(tmp_path, folder="Y").read())


# MURA


def mura(root: Path, paths: str, studies: str) -> Mura:
    for part in ("train", "valid"):
        (root / f"{part}_image_paths.csv").write_text(paths.replace("PART", part), encoding="utf-8-sig")
        (root / f"{part}_labeled_studies.csv").write_text(studies.replace("PART", part), newline="")
        touch(root, *(line.strip().partition("/")[2] for line in paths.replace("PART", part).splitlines()))
    return Mura(root)


def test_mura_patient_is_one_over_body_parts(tmp_path: Path) -> None:
    paths = "MURA-v1.1/PART/XR_HAND/patient00001/study1_negative/image1.png\n"
    paths += "MURA-v1.1/PART/XR_WRIST/patient00001/study1_positive/image1.png"
    studies = "MURA-v1.1/PART/XR_HAND/patient00001/study1_negative/,0\r\n"
    touch(tmp_path, "train/XR_HAND/patient00001/study1_negative/._image1.png")  # what macOS leaves behind
    reader = mura(tmp_path, paths, studies)
    records = list(reader.read())
    assert {record.patient for record in records} == {"patient00001"}
    assert {record.study for record in records} == {"XR_HAND/patient00001/study1", "XR_WRIST/patient00001/study1"}
    assert [(states(r)["normal"], r.split) for r in records] == [
        ("present", "train"),
        ("absent", "train"),
        ("present", "val"),
        ("absent", "val"),
    ]
    unlabelled = "study without a line in the table of labels: its folder's name tells the label"
    assert reader.account.notes == {unlabelled: 2, "file that is no picture": 1}


def test_mura_tables_on_real_lines(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "csv_layouts" / "MURA-v1.1"
    lines = []
    for part in ("train", "valid"):
        for name in (f"{part}_image_paths.csv", f"{part}_labeled_studies.csv"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        lines += (folder / f"{part}_image_paths.csv").read_text().split()
    touch(tmp_path, *(line.partition("/")[2] for line in lines))
    reader = Mura(tmp_path)
    records = list(reader.read())
    assert {f"MURA-v1.1/{record.image_id}" for record in records} == set(lines)
    assert reader.account.excluded == {}
    assert all((states(r)["normal"] == "absent") == ("_positive/" in r.image_id) for r in records)


# Radiologists' labels of NIH ChestX-ray14


def nih(root: Path, finding: str, answers: str) -> NihChestxray14:
    columns = "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position"
    (root / "Data_Entry_2017_v2020.csv").write_text(f"{columns}\n00000001_000.png,{finding},1,58,M,PA\n")
    header = "Image Index,Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id"
    (root / "google2019_nih-chest-xray-labels.csv").write_text(f"{header}\n00000001_000.png,{answers},val\n")
    touch(root, "images/00000001_000.png")
    return NihChestxray14(root)


@pytest.mark.parametrize(
    ("mined", "answers", "expected"),
    [
        ("Mass", "NO,NO,NO,YES", {"Mass": "present", "Nodule or mass": "present"}),
        ("Pneumothorax", "NO,NO,NO,NO", {"Pneumothorax": "absent"}),
        ("Pneumothorax", "NO,YES,NO,NO", {"Pneumothorax": "present"}),
        ("No Finding", "NO,NO,NO,NO", {"No Finding": "present"}),
        ("No Finding", "YES,NO,NO,NO", {"Fracture": "present"}),
    ],
)
def test_nih_radiologists_hold_over_mined_labels(
    tmp_path: Path, mined: str, answers: str, expected: dict[str, str]
) -> None:
    (record,) = nih(tmp_path, mined, answers).read()
    four = dict.fromkeys(("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass"), "absent")
    assert states(record) == {**four, **expected}
