"""A small folder in the native layout of PadChest: the 36 columns, lists as Python prints them, 16-bit PNG."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = (
    "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
    "ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric", "Modality_DICOM", "Manufacturer_DICOM",
    "PhotometricInterpretation_DICOM", "PixelRepresentation_DICOM", "PixelAspectRatio_DICOM",
    "SpatialResolution_DICOM", "BitsStored_DICOM", "WindowCenter_DICOM", "WindowWidth_DICOM", "Rows_DICOM",
    "Columns_DICOM", "XRayTubeCurrent_DICOM", "Exposure_DICOM", "ExposureInuAs_DICOM", "ExposureTime",
    "RelativeXRayExposure_DICOM", "ReportID", "Report", "MethodLabel", "Labels", "Localizations",
    "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS",
)  # fmt: skip


def name(number: int) -> str:
    return f"2168401113669640125580827069120093{number:011d}_00-102-0{number:02d}.png"


BROKEN = "216840111366964012373310883942009152114636712_00-102-045.png"
MISSING = "216840111366964012283393834152009033102258826_00-059-087.png"
_EFFUSION = {
    "StudyID": "S1", "PatientID": "93683930214303450917200229342302306178", "PatientBirth": "1930.0",
    "PatientSex_DICOM": "M", "MethodLabel": "Physician", "StudyDate_DICOM": "20140915",
    "Report": "derram pleural derech . cardiomegali .",
    "Labels": "['cardiomegaly', ' pleural effusion', '']", "Localizations": "['loc right', 'loc basal']",
    "LabelsLocalizationsBySentence": "[['pleural effusion', 'loc right', 'loc basal'], ['cardiomegaly']]",
    "labelCUIS": "['C0018800' 'C0032227']",
}  # fmt: skip
ROWS = (
    {"ImageID": name(1), "ImageDir": "0", "Projection": "PA", **_EFFUSION},
    {"ImageID": name(2), "ImageDir": "0", "Projection": "L", **_EFFUSION, "Report": ""},
    {
        "ImageID": name(3), "ImageDir": "1", "Projection": "AP_horizontal", "StudyID": "S2", "PatientID": "7",
        "PatientSex_DICOM": "O", "MethodLabel": "RNN_model", "Report": "sin hallazg patolog .", "Labels": "['normal']",
        "PatientBirth": "2050", "StudyDate_DICOM": "20140915", "PhotometricInterpretation_DICOM": "MONOCHROME1",
    },
    {"ImageID": name(4), "ImageDir": "1", "Projection": "", "ViewPosition_DICOM": "LATERAL", "StudyID": "S3"},
    {
        "ImageID": name(5), "ImageDir": "1", "Projection": "COSTAL", "StudyID": "S4", "PatientID": "8",
        "Labels": "[\"unchanged\", 'Rib Fracture', 'nodule']", "Localizations": "['loc rib', 'loc left']",
        "LabelsLocalizationsBySentence": "['rib fracture', 'loc rib', 'nodule', 'loc left']",
    },
    {"ImageID": name(6), "ImageDir": "1", "Projection": "EXCLUDE", "Labels": "['normal']"},
    {"ImageID": name(7), "ImageDir": "1", "Projection": "PA", "Pediatric": "PED", "Labels": "['normal']"},
    {"ImageID": name(8), "ImageDir": "1", "Projection": "PA", "Labels": "['exclude']"},
    {"ImageID": name(9), "ImageDir": "1", "Projection": "PA", "Labels": "['normal']"},
    {"ImageID": name(3), "ImageDir": "1", "Projection": "PA"},  # replaced below by an equal row
    {"ImageID": BROKEN, "ImageDir": "1", "Projection": "PA", "Labels": "['normal']"},
    {"ImageID": MISSING, "ImageDir": "1", "Projection": "PA", "Labels": "['normal']"},
    {"ImageID": "../" + name(1), "ImageDir": "1", "Projection": "PA", "Labels": "['normal']"},
)  # fmt: skip
REQUIRED = ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",)
UNMAPPED = ("unchanged",)
_BOTH = [("cardiomegaly", "present"), ("pleural effusion", "present")]
GOLDEN = {
    name(1): _BOTH,
    name(2): _BOTH,
    name(3): [("normal", "present")],
    name(4): [],
    name(5): [("unchanged", "present"), ("rib fracture", "present"), ("nodule", "present")],
}
EXCLUDED = {
    "image file is missing": 1,
    "known to be damaged in the release": 1,
    "known to be missing in the release": 1,
    "labelled exclude": 1,
    "no row in the table": 1,
    "path leaves the folder": 1,
    "patient is a child": 1,
    "projection is EXCLUDE": 1,
    "the same file name is in another folder": 1,
}
_TABLE = REQUIRED[0]
MALFORMED = (
    (_TABLE, "['cardiomegaly', ' pleural", "['cardiomegaly' ' pleural", TableError, "19.csv:2"),
    (_TABLE, "['cardiomegaly', ' pleural", "cardiomegaly", TableError, "19.csv:2"),
    (_TABLE, "'loc basal'], ['card", "'loc basal'] ['card", TableError, "19.csv:2"),
    (_TABLE, "['loc right', 'loc basal']", "loc right", TableError, "19.csv:2"),
    (_TABLE, "1930.0", "MCMXXX", TableError, "19.csv:2"),
    (_TABLE, ",AP_horizontal,", ",AP,", TableError, "19.csv:11"),
    (_TABLE, "Localizations", "Locations", TableError, "19.csv:1"),
)
_FILES = (*((0, name(n)) for n in (1, 2)), *((1, name(n)) for n in (1, 3, 4, 5, 6, 7, 8, 20)), (1, BROKEN))


def build(root: Path) -> None:
    rows = [ROWS[2] if row["ImageID"] == name(3) else row for row in ROWS]
    with (root / _TABLE).open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows({"": str(number), "Pediatric": "No", **row} for number, row in enumerate(rows))
    for folder, file_name in _FILES:
        (root / str(folder)).mkdir(exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint16).reshape(8, 10) * 50).save(root / str(folder) / file_name)
