"""A small folder in the native layout of the RSNA challenge, with DICOM files and the official mapping to NIH."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

KEYS = tuple(f"{number:08d}-0000-4000-8000-000000000000" for number in range(5))
LABELS = f"""patientId,x,y,width,height,Target
{KEYS[0]},100.0,150.0,200.0,300.0,1
{KEYS[0]},500.0,150.0,200.0,300.0,1
{KEYS[1]},,,,,0
{KEYS[2]},,,,,0
{KEYS[3]},,,,,0
"""
CLASSES = f"""patientId,class
{KEYS[0]},"Lung Opacity, Lung Opacity"
{KEYS[0]},"Lung Opacity, Lung Opacity"
{KEYS[1]},No Lung Opacity / Not Normal
{KEYS[2]},Normal
{KEYS[3]},Normal
"""
MAPPING = [
    {"img_id": "00090001_000.png", "subset_img_id": KEYS[0], "orig_labels": ["Infiltration"]},
    {"img_id": "00000061_003.png", "subset_img_id": KEYS[1], "orig_labels": ["Mass"]},
    {"img_id": "00000062_003.png", "subset_img_id": None, "orig_labels": ["Mass"]},
]
REQUIRED = ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "stage_2_train_images")
GOLDEN = {
    KEYS[0]: [("Lung Opacity", "present")],
    KEYS[1]: [("Lung Opacity", "absent"), ("Normal", "absent")],
    KEYS[2]: [("Normal", "present"), ("Lung Opacity", "absent")],
}
EXCLUDED = {
    "another copy of the same image is used": 1,
    "image file is missing": 1,
    "no row in stage_2_train_labels.csv": 1,
    "test image of the challenge, unlabelled": 1,
}
MALFORMED = (
    ("stage_2_train_labels.csv", "300.0,1", "300.0,2", TableError, "stage_2_train_labels.csv:2"),
    ("stage_2_train_labels.csv", "500.0", "many", TableError, "stage_2_train_labels.csv:3"),
    ("stage_2_train_labels.csv", ",,,,,0", ",1,2,3,4,0", TableError, "stage_2_train_labels.csv:4"),
    ("stage_2_train_labels.csv", "Target", "Taget", TableError, "stage_2_train_labels.csv:1"),
    ("stage_2_detailed_class_info.csv", ",Normal", ",Nomal", TableError, "stage_2_detailed_class_info.csv:5"),
    ("stage_2_detailed_class_info.csv", "No Lung Opacity / Not Normal", "Lung Opacity", TableError, "info.csv:4"),
    ("pneumonia-challenge-dataset-mappings_2018.json", "00090001_000.png", "secret.png", TableError, "entry 0"),
    ("pneumonia-challenge-dataset-mappings_2018.json", "[{", "[[{", TableError, ".json:1"),
)


def write_dicom(path: Path, sex: str, age: str, view: str) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    with disable_value_validation():  # the challenge writes an age as 51, which DICOM would have as 051Y
        dataset.PatientSex, dataset.PatientAge, dataset.ViewPosition = sex, age, view
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 7, 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(range(64))
    with disable_value_validation():
        dataset.save_as(path, enforce_file_format=True)


def build(root: Path) -> None:
    train, test, copies = (root / f"stage_2_{name}" for name in ("train_images", "test_images", "train_images_jpg"))
    for folder in (train, test, copies):
        folder.mkdir()
    (root / "stage_2_train_labels.csv").write_text(LABELS)
    (root / "stage_2_detailed_class_info.csv").write_text(CLASSES)
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(MAPPING))
    write_dicom(train / f"{KEYS[0]}.dcm", "F", "51", "AP")
    write_dicom(train / f"{KEYS[1]}.dcm", "M", "148", "PA")
    (train / f"{KEYS[2]}.dcm").write_bytes(b"no DICOM at all")
    write_dicom(train / f"{KEYS[4]}.dcm", "M", "50", "PA")
    write_dicom(test / "11111111-0000-4000-8000-000000000000.dcm", "O", "", "PA")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(copies / f"{KEYS[0]}.jpg")
