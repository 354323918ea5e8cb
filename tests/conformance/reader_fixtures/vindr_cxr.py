"""A small folder in PhysioNet's layout of VinDr-CXR: three readers of a training image, one of a test image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,Edema,Emphysema,"
    "Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,Pleural effusion,"
    "Pleural thickening,Pneumothorax,Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,"
    "Tuberculosis,Other diseases,No finding"
)
NAMES = COLUMNS.split(",")
KEYS = tuple(f"{number:032x}" for number in (0xA0, 0xB1, 0xC2, 0xD3, 0xE4, 0xF5))


def labels(*names: str) -> str:
    return ",".join("1" if name in names else "0" for name in NAMES)


IMAGE_LABELS = f"""image_id,rad_id,{COLUMNS}
{KEYS[0]},R1,{labels("Cardiomegaly", "ILD", "Pneumonia")}
{KEYS[0]},R2,{labels("Cardiomegaly", "Pneumonia")}
{KEYS[0]},R3,{labels("Cardiomegaly", "Other diseases")}
{KEYS[0]},R3,{labels("Cardiomegaly", "Other diseases")}
{KEYS[1]},R1,{labels("No finding").replace("0", "0.0").replace("1", "1.0")}
{KEYS[1]},R2,{labels("No finding")}
{KEYS[1]},R4,{labels("No finding")}
{KEYS[2]},R1,{labels("Edema")}
"""
BOXES = f"""image_id,rad_id,class_name,x_min,y_min,x_max,y_max
{KEYS[0]},R1,Cardiomegaly,691.0,1375.0,1653.0,1831.0
{KEYS[0]},R2,Cardiomegaly,700,1380,1650,1830
{KEYS[0]},R3,Cardiomegaly,700.0,1380.0,1650.0,1830.0
{KEYS[0]},R1,ILD,10.5,20.5,110.5,220.5
{KEYS[0]},R1,ILD,10.5,20.5,10.5,220.5
{KEYS[0]},R2,Pneumonia,,,,
{KEYS[1]},R1,No finding,,,,
{KEYS[1]},R2,No finding,,,,
{KEYS[1]},R4,No finding,,,,
"""
TEST_LABELS = f"""image_id,{COLUMNS.replace("Other diseases", "Other disease")}
{KEYS[3]},{labels("Nodule/Mass")}
"""
TEST_BOXES = f"""image_id,class_name,x_min,y_min,x_max,y_max
{KEYS[3]},Nodule/Mass,5.0,6.0,7.0,8.0
"""
REQUIRED = ("annotations", "train", "test")
UNMAPPED = ("Other disease", "Other diseases")
_ABSENT = dict.fromkeys(NAMES, "absent")
GOLDEN = {
    KEYS[0]: list(
        {
            **_ABSENT, "Cardiomegaly": "present", "ILD": "uncertain", "Pneumonia": "present",
            "Other diseases": "uncertain",
        }.items()
    ),
    KEYS[1]: list({**_ABSENT, "No finding": "present"}.items()),
    KEYS[3]: [
        (name.replace("diseases", "disease"), "present" if name == "Nodule/Mass" else "absent") for name in NAMES
    ],
}  # fmt: skip
EXCLUDED = {
    "another copy of the same image is used": 1,
    "image file is missing": 1,
    "no DICOM file: boxes would not fit": 1,
    "no row in the tables": 1,
}
_LABELS, _BOXES = "annotations/image_labels_train.csv", "annotations/annotations_train.csv"
MALFORMED = (
    (_LABELS, "Enlarged PA", "Large PA", TableError, "image_labels_train.csv:1"),
    (_LABELS, "Other diseases", "Other disease", None, ""),
    (_LABELS, "R2,0", "R2,x", TableError, "image_labels_train.csv:3"),
    (_LABELS, "R2,0", "R1,0", TableError, "image_labels_train.csv:3"),
    (_LABELS, "R2,0", "0", TableError, "image_labels_train.csv:3"),
    (_LABELS, f"\n{KEYS[1]}", "\n", TableError, "image_labels_train.csv:6"),
    (_BOXES, "Cardiomegaly", "Big heart", TableError, "annotations_train.csv:2"),
    (_BOXES, "1653.0", "", TableError, "annotations_train.csv:2"),
    (_BOXES, "R2,No finding,,,,", "R2,No finding,1,2,3,4", TableError, "annotations_train.csv:9"),
    (_BOXES, KEYS[1], "nobody", TableError, "annotations_train.csv:8"),
    (_BOXES, "y_max", "ymax", TableError, "annotations_train.csv:1"),
)


def write_dicom(path: Path, **elements: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 7, 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PixelData = bytes(range(64))
    dataset.save_as(path, enforce_file_format=True)


def build(root: Path) -> None:
    tables = root / "annotations"
    tables.mkdir()
    (tables / "image_labels_train.csv").write_text(IMAGE_LABELS, encoding="utf-8-sig")
    (tables / "annotations_train.csv").write_text(BOXES)
    (tables / "image_labels_test.csv").write_text(TEST_LABELS)
    (tables / "annotations_test.csv").write_text(TEST_BOXES)
    write_dicom(root / "train" / f"{KEYS[0]}.dicom", PatientSex="F", PatientAge="058Y")
    (root / "train" / f"{KEYS[1]}.dicom").write_bytes(b"no DICOM at all")
    write_dicom(root / "train" / f"{KEYS[4]}.dicom")
    (root / "train" / f"{KEYS[0]}.png").write_bytes(b"a copy at another size")
    (root / "train" / f"{KEYS[0]}.dcm").write_bytes(b"a copy")
    write_dicom(root / "test" / f"{KEYS[3]}.dicom", PatientSex="O")
