"""A small folder in the native layout of BRAX: DICOM files and their PNG copies, UIDs with points in their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path


def stem(number: int, patient: int = 1) -> str:
    return f"id_{patient}f-2b/Study_1.2.{number}/Series_1.2.{number}.7/image-1.2.{number}.7.9"


def paths(number: int, patient: int = 1) -> str:
    return f"Anonymized_DICOMs/{stem(number, patient)}.dcm,images/{stem(number, patient)}.png"


# The first column has no name; ages are bins; integers became floats where a column has blanks.
TABLE = f""",DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,No Finding,\
Enlarged Cardiomediastinum,Cardiomegaly,Lung Lesion,Lung Opacity,Edema,Consolidation,Pneumonia,Atelectasis,\
Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices,ViewPosition,Rows,Columns,Manufacturer
0,{paths(1)},1f-2b,F,45,81,20080101,,,1.0,,-1.0,0.0,,,,,,,,1.0,PA,2000,2000,1
1,{paths(2)},1f-2b,F,45.0,81,20080101,,,1.0,,-1.0,0.0,,,,,,,,1.0,L,2000,2000,1
2,{paths(3, 2)},2f-2b,M,85 or more,82,20080102,1,,,,,,,,,,,,,,,1500,1800,2
3,{paths(4, 3)},3f-2b,O,,83,20080103,,,,,,,,,,,,,,,AP LLD,1500,1800,2
3,{paths(4, 3)},3f-2b,O,,83,20080103,,,,,,,,,,,,,,,AP LLD,1500,1800,2
4,{paths(5, 3)},3f-2b,O,,83,20080103,0,,,,,,,,,,,,,,RLO,1500,1800,2
5,../../etc/passwd,../../etc/passwd,4f-2b,F,30,84,20080104,1,,,,,,,,,,,,,,PA,1500,1800,2
"""
REQUIRED = ("master_spreadsheet_update.csv",)
_FIRST = [
    ("Cardiomegaly", "present"),
    ("Lung Opacity", "uncertain"),
    ("Edema", "absent"),
    ("Support Devices", "present"),
]
GOLDEN = {
    stem(1): _FIRST,
    stem(2): _FIRST,
    stem(3, 2): [("No Finding", "present")],
    stem(4, 3): [],
}
EXCLUDED = {
    "another copy of the same image is used": 1,
    "image file is missing": 1,
    "no row in master_spreadsheet_update.csv": 2,
    "path leaves the folder": 1,
}
MALFORMED = (
    ("master_spreadsheet_update.csv", ",-1.0,", ",-2.0,", TableError, "update.csv:2"),
    ("master_spreadsheet_update.csv", "1f-2b,F,45.0,", "1f-2b,F,45.0,,", TableError, "update.csv:3"),
    ("master_spreadsheet_update.csv", "png,2f-2b", "png,9f-2b", TableError, "update.csv:4"),
    ("master_spreadsheet_update.csv", ",images/id_2f", ",pictures/id_2f", TableError, "update.csv:4"),
    ("master_spreadsheet_update.csv", "3f-2b,O,,83", "3f-2b,F,,83", TableError, "update.csv:6"),
    ("master_spreadsheet_update.csv", "20080103,0,,", "20080103,x,,", TableError, "update.csv:7"),
    ("master_spreadsheet_update.csv", "Edema", "Oedema", TableError, "update.csv:1"),
)
_FILES = (
    f"Anonymized_DICOMs/{stem(1)}.dcm",
    f"images/{stem(1)}.png",
    f"images/{stem(2)}.png",
    f"Anonymized_DICOMs/{stem(3, 2)}",  # as version 1.0.0 names them
    f"images/{stem(4, 3)}.png",
    f"images/{stem(8, 3)}.png",
    f"Anonymized_DICOMs/{stem(9, 3)}.dcm",
)


def build(root: Path) -> None:
    (root / "master_spreadsheet_update.csv").write_text(TABLE, encoding="utf-8-sig")
    for name in _FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.fromarray(np.arange(80, dtype=np.uint16).reshape(8, 10)).save(root / name)
        else:
            (root / name).write_bytes(b"no pixel is read")
