"""A small folder in the native layout of CheXpert-v1.0-small, with a part of newer downloads' batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

LABELS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
HEADER = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{LABELS}"
TRAIN = f"""{HEADER}
CheXpert-v1.0-small/train/patient90001/study2/view1_frontal.jpg,Female,61,Frontal,AP,,,-1.0,1.0,,0.0,-1.0,,,,1.0,,,1.0
CheXpert-v1.0-small/train/patient90001/study1/view1_frontal.jpg,Female,60,Frontal,PA,1.0,,,,,,,,,0.0,,,,
CheXpert-v1.0-small/train/patient90001/study1/view2_lateral.jpg,Female,60,Lateral,,1.0,,,,,,,,,0.0,,,,
CheXpert-v1.0-small/train/patient90001/study1/view2_lateral.jpg,Female,60,Lateral,,1.0,,,,,,,,,0.0,,,,
CheXpert-v1.0-small/train/patient90002/study1/view1_frontal.jpg,Unknown,0,Frontal,LL,,,,,,,,,,,,,,
CheXpert-v1.0-small/train/patient90003/study1/view1_frontal.jpg,Male,90,Frontal,AP,,,,,,,,,,,,,,1.0
CheXpert-v1.0-small/../train/patient90003/study1/view1_frontal.jpg,Male,90,Frontal,AP,,,,,,,,,,,,,,1.0
"""
VALID = f"""{HEADER}
CheXpert-v1.0-small/valid/patient94541/study1/view1_frontal.jpg,Male,73,Frontal,AP,\
0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
"""
TEST = f"""Path,{LABELS}
CheXpert-v1.0/test/patient94741/study1/view2_lateral.jpg,1,0,0,0,0,0,0,0,0,0,0,0,0,1
"""
REQUIRED = ("train.csv", "valid.csv")
_ALL_ABSENT = dict.fromkeys(LABELS.split(","), "absent")
GOLDEN = {
    "test/patient94741/study1/view2_lateral.jpg": list(
        {**_ALL_ABSENT, "No Finding": "present", "Support Devices": "present"}.items()
    ),
    "train/patient90001/study1/view1_frontal.jpg": [("No Finding", "present"), ("Pneumothorax", "absent")],
    "train/patient90001/study1/view2_lateral.jpg": [("No Finding", "present"), ("Pneumothorax", "absent")],
    "train/patient90001/study2/view1_frontal.jpg": [
        ("Cardiomegaly", "uncertain"),
        ("Lung Opacity", "present"),
        ("Edema", "absent"),
        ("Consolidation", "uncertain"),
        ("Pleural Effusion", "present"),
        ("Support Devices", "present"),
    ],
    "train/patient90002/study1/view1_frontal.jpg": [],
    "valid/patient94541/study1/view1_frontal.jpg": list(
        {
            **_ALL_ABSENT,
            "Enlarged Cardiomediastinum": "present",
            "Cardiomegaly": "present",
            "Lung Opacity": "present",
        }.items()
    ),
}
EXCLUDED = {
    "file name is not patient/study/view": 1,
    "image file is missing": 1,
    "no row in the tables": 1,
    "path leaves the folder": 1,
    "the same image is in another folder": 1,
}
MALFORMED = (
    ("train.csv", "AP,,,-1.0", "AP,,,-2.0", TableError, "train.csv:2"),
    ("train.csv", "AP,,,-1.0", "AP,,,nan", TableError, "train.csv:2"),
    ("train.csv", "Lateral,,1.0,,,", "Lateral,,1.0,0.0,,", TableError, "train.csv:5"),
    ("train.csv", "Edema", "Oedema", TableError, "train.csv:1"),
    ("train.csv", "small/train/patient90002", "small/valid/patient90002", TableError, "train.csv:6"),
    ("train.csv", "view2_lateral", "picture", TableError, "train.csv:4"),
    ("train.csv", "Frontal,PA,1.0,,", "Frontal,PA,1.0", TableError, "train.csv:3"),
    ("valid.csv", "Frontal/Lateral", "Frontal-Lateral", TableError, "valid.csv:1"),
    ("test_labels.csv", ",1,0,0", ",yes,0,0", TableError, "test_labels.csv:2"),
)
_PICTURES = (
    "train/patient90001/study1/view1_frontal.jpg",
    "train/patient90001/study1/view2_lateral.jpg",
    "train/patient90001/study2/view1_frontal.jpg",
    "train/patient90009/study1/view1_frontal.jpg",
    "train/thumbnail.jpg",
    "valid/patient94541/study1/view1_frontal.jpg",
    "test/patient94741/study1/view2_lateral.jpg",
    "CheXpert-v1.0 batch 2 (train 1)/train/patient90002/study1/view1_frontal.jpg",
    "CheXpert-v1.0 batch 2 (train 1)/train/patient90001/study2/view1_frontal.jpg",
)


def build(root: Path) -> None:
    (root / "train.csv").write_text(TRAIN, encoding="utf-8-sig")
    (root / "valid.csv").write_text(VALID)
    (root / "test_labels.csv").write_text(TEST)
    for name in _PICTURES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(root / name)
