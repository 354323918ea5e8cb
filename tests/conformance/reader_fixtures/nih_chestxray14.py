"""A small folder in the native layout of NIH ChestX-ray14, images in two of its folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],
00090001_001.png,Cardiomegaly|Effusion,1,90001,58,M,PA,2500,2048,0.168,0.168,
00090001_002.png,No Finding,2,90001,412,M,PA,2500,2048,0.168,0.168,
00000061_000.png,Pleural_Thickening|Infiltration,0,61,058Y,F,AP,2500,2048,0.168,0.168,
00090003_000.png,Hernia,0,90003,30,F,AP,2500,2048,0.168,0.168,
00000061_000.png,Pleural_Thickening|Infiltration,0,61,058Y,F,AP,2500,2048,0.168,0.168,
../../secret.png,Hernia,0,90004,30,F,AP,2500,2048,0.168,0.168,
"""
BOXES = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00000061_000.png,Infiltrate,200.25,310.5,150.0,220.75
00090009_000.png,Mass,1,2,3,4
"""
EXPERTS = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id
00090001_001.png,Cardiomegaly|Effusion,1,90001,58,M,PA,2500,2048,0.168,0.168,NO,YES,NO,NO,val
"""
REQUIRED = ("Data_Entry_2017_v2020.csv", "images_001")
GOLDEN = {
    "00000061_000.png": [("Pleural_Thickening", "present"), ("Infiltration", "present")],
    "00090001_001.png": [
        ("Cardiomegaly", "present"),
        ("Effusion", "present"),
        ("Fracture", "absent"),
        ("Pneumothorax", "present"),
        ("Airspace opacity", "absent"),
        ("Nodule or mass", "absent"),
    ],
    "00090001_002.png": [("No Finding", "present")],
}
EXCLUDED = {
    "image file is missing": 1,
    "no row in Data_Entry_2017_v2020.csv": 1,
    "path leaves the folder": 1,
    "the same file name is in another folder": 1,
}
MALFORMED = (
    ("Data_Entry_2017_v2020.csv", "|Effusion", "|Efusion", TableError, "v2020.csv:2"),
    ("Data_Entry_2017_v2020.csv", "No Finding", "No Finding|Mass", TableError, "v2020.csv:3"),
    ("Data_Entry_2017_v2020.csv", ",90001,58", ",nobody,58", TableError, "v2020.csv:2"),
    ("Data_Entry_2017_v2020.csv", "Finding Labels", "Findings", TableError, "v2020.csv:1"),
    ("Data_Entry_2017_v2020.csv", "Infiltration,0,61", "Mass,0,61", TableError, "v2020.csv:6"),
    ("BBox_List_2017.csv", "Infiltrate", "Infiltrates", TableError, "BBox_List_2017.csv:2"),
    ("BBox_List_2017.csv", "310.5", "nan", TableError, "BBox_List_2017.csv:2"),
    ("BBox_List_2017.csv", ",220.75", "", TableError, "BBox_List_2017.csv:2"),
    ("google2019_nih-chest-xray-labels.csv", "NO,YES", "NO,MAYBE", TableError, "labels.csv:2"),
    ("google2019_nih-chest-xray-labels.csv", "Nodule or mass", "Nodule", TableError, "labels.csv:1"),
    ("test_list.txt", "00000061_000.png", "00090001_001.png", TableError, ".txt:1"),
)


def build(root: Path) -> None:
    (root / "Data_Entry_2017_v2020.csv").write_text(TABLE, encoding="utf-8-sig")
    (root / "BBox_List_2017.csv").write_text(BOXES)
    (root / "google2019_nih-chest-xray-labels.csv").write_text(EXPERTS)
    (root / "train_val_list.txt").write_text("00090001_001.png\n00090001_002.png\n")
    (root / "test_list.txt").write_text("00000061_000.png\n")
    first, second = root / "images_001", root / "images_002" / "images"
    first.mkdir()
    second.mkdir(parents=True)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for folder, name in ((first, "00090001_001.png"), (second, "00090001_002.png"), (second, "00000061_000.png")):
        Image.fromarray(grey).save(folder / name)
    Image.fromarray(grey).save(second / "00090001_001.png")
    Image.fromarray(grey).convert("RGBA").save(second / "00099999_000.png")
