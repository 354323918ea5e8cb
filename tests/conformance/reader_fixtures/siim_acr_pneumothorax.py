"""A small folder in the native layout of SIIM-ACR: DICOM files in their studies, PNG copies, the table of stage 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

KEYS = tuple(f"1.2.276.0.7230010.3.1.4.8323329.{number}.1517875201.850819" for number in range(7))
# The first image has two masks which overlap, and one of them twice; the blank before a cell is the original's.
TABLE = f"""ImageId, EncodedPixels
{KEYS[0]},2048 3 1021 5 1019 4
{KEYS[0]},2050 10
{KEYS[0]},2050 10
{KEYS[1]},-1
{KEYS[2]}, -1
{KEYS[3]},0 1024
{KEYS[4]},-1
"""
REQUIRED = ("stage_2_train.csv",)
GOLDEN = {
    KEYS[0]: [("Pneumothorax", "present")],
    KEYS[1]: [("Pneumothorax", "absent")],
    KEYS[2]: [("Pneumothorax", "absent")],
    KEYS[3]: [("Pneumothorax", "present")],
}
EXCLUDED = {
    "another copy of the same image is used": 1,
    "drawn mask: the runs in the table are used": 1,
    "image file is missing": 1,
    "no row in stage_2_train.csv": 1,
    "test image of the challenge, unlabelled": 1,
}
MALFORMED = (
    ("stage_2_train.csv", "2048 3 1021", "2048 3 1021 7", TableError, "stage_2_train.csv:2"),
    ("stage_2_train.csv", "2050 10", "2050 -10", TableError, "stage_2_train.csv:3"),
    ("stage_2_train.csv", "0 1024", "0 1048577", TableError, "stage_2_train.csv:7"),
    ("stage_2_train.csv", "0 1024", "5 0", TableError, "stage_2_train.csv:7"),
    ("stage_2_train.csv", "0 1024", "", TableError, "stage_2_train.csv:7"),
    ("stage_2_train.csv", "2050 10", "-1", TableError, "stage_2_train.csv:4"),
    ("stage_2_train.csv", "EncodedPixels", "Encoded", TableError, "stage_2_train.csv:1"),
    ("stage_2_train.csv", f"{KEYS[1]},", ",", TableError, "stage_2_train.csv:5"),
)


def write_dicom(path: Path, patient: str, sex: str = "M", age: str = "62", view: str = "PA") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = path.stem
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    with disable_value_validation():  # ages are written as 62, which DICOM would have as 062Y
        dataset.PatientID, dataset.StudyInstanceUID = patient, path.parent.parent.name
        dataset.PatientSex, dataset.PatientAge, dataset.ViewPosition = sex, age, view
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 7, 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(range(64))
    with disable_value_validation():
        dataset.save_as(path, enforce_file_format=True)


def build(root: Path) -> None:
    (root / "stage_2_train.csv").write_text(TABLE)
    train, test = root / "dicom-images-train", root / "dicom-images-test"
    write_dicom(train / "1.2.3" / "1.2.3.4" / f"{KEYS[0]}.dcm", "16d7f894")
    write_dicom(test / "1.2.4" / "1.2.4.4" / f"{KEYS[1]}.dcm", "26d7f894", sex="F", age="413", view="AP")
    (train / "1.2.5" / "1.2.5.4").mkdir(parents=True)
    (train / "1.2.5" / "1.2.5.4" / f"{KEYS[2]}.dcm").write_bytes(b"no DICOM at all")
    write_dicom(train / "1.2.7" / "1.2.7.4" / f"{KEYS[5]}.dcm", "36d7f894")
    write_dicom(root / "stage_2_images" / f"{KEYS[6]}.dcm", "46d7f894")
    grey = Image.fromarray(np.zeros((8, 8), np.uint8))
    for folder, key in (("png", KEYS[3]), ("png", KEYS[0]), ("png_masks", KEYS[3])):
        (root / folder).mkdir(exist_ok=True)
        grey.save(root / folder / f"{key}.png")
