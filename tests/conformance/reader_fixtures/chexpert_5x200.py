"""A small folder of CheXpert of which some images show one of the five findings alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
_START = "CheXpert-v1.0/train/patient9000"
# One finding; one with a negative beside it; two; an uncertain one beside; uncertain alone; lateral; a device beside.
TRAIN = f"""{HEADER}
{_START}1/study1/view1_frontal.jpg,Female,61,Frontal,AP,,,1.0,,,,,,,,,,,
{_START}2/study1/view1_frontal.jpg,Male,62,Frontal,PA,,0.0,0.0,,,0.0,,,1.0,0.0,,,,0.0
{_START}3/study1/view1_frontal.jpg,Male,63,Frontal,PA,,,1.0,,,1.0,,,,,,,,
{_START}4/study1/view1_frontal.jpg,Male,64,Frontal,PA,,,,,,1.0,,-1.0,,,,,,
{_START}5/study1/view1_frontal.jpg,Male,65,Frontal,PA,,,,,,-1.0,,,,,,,,
{_START}6/study1/view2_lateral.jpg,Male,66,Lateral,,,,,,,1.0,,,,,,,,
{_START}7/study1/view1_frontal.jpg,Male,67,Frontal,AP,,,,,,,,,,,1.0,,,1.0
{_START}8/study1/view1_frontal.jpg,Unknown,0,Frontal,AP,,,,,,,,,,,1.0,,,
{_START}9/study1/view1_frontal.jpg,Male,69,Frontal,AP,,,,,,1.0,,,,,,,,
"""
REQUIRED = ("train.csv",)
GOLDEN = {
    "train/patient90001/study1/view1_frontal.jpg": [("Cardiomegaly", "present")],
    "train/patient90002/study1/view1_frontal.jpg": [
        ("Enlarged Cardiomediastinum", "absent"),
        ("Cardiomegaly", "absent"),
        ("Edema", "absent"),
        ("Atelectasis", "present"),
        ("Pneumothorax", "absent"),
        ("Support Devices", "absent"),
    ],
    "train/patient90008/study1/view1_frontal.jpg": [("Pleural Effusion", "present")],
}
EXCLUDED = {"image file is missing": 1, "not one of the five times 200": 6}
MALFORMED = (
    ("train.csv", ",AP,,,1.0", ",AP,,,yes", TableError, "train.csv:2"),
    ("train.csv", "patient90001/study1", "patient/study1", TableError, "train.csv:2"),
    ("train.csv", "Edema", "Oedema", TableError, "train.csv:1"),
    ("train.csv", ",Female,61,Frontal,AP,", ",Female,61,Frontal,", TableError, "train.csv:2"),
)


def build(root: Path) -> None:
    (root / "train.csv").write_text(TRAIN, encoding="utf-8-sig")
    names = [f"{line.split(',')[0].partition('/')[2]}" for line in TRAIN.splitlines()[1:-1]]
    for name in (*names, "valid/patient94541/study1/view1_frontal.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(root / name)
