"""A small folder in the native layout of a Roboflow export: boxes, an outline, an empty file, stray files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = """train: ../train/images
val: ../valid/images
test: ../test/images

nc: 4
names: ['angle', 'fracture', 'line', 'messed_up_angle']

roboflow:
  license: CC BY 4.0
"""
BOX = "1 0.29441260744985676 0.60693359375 0.07306590257879657 0.0458984375"
OUTLINE = "3 0.5 0.25 0.75 0.25 0.75 0.5 0.5 0.5"
LABELS = {
    "train/102_jpg.rf.aa": f"{BOX}\n{OUTLINE}\n{BOX}",
    "train/102_jpg.rf.bb": "",
    "valid/7.rf.cc": "0 0.5 0.5 0.0 0.25\n",
    "test/7.rf.dd": "\ufeff2 0.5 0.5 1 1\r\n\r\n",
    "test/9.rf.ee": BOX,
}
REQUIRED = ("data.yaml", "train/labels")
GOLDEN = {
    "test/images/7.rf.dd.jpg": [("line", "present")],
    "train/images/102_jpg.rf.aa.jpg": [("fracture", "present"), ("messed_up_angle", "present")],
    "train/images/102_jpg.rf.bb.jpg": [],
    "valid/images/7.rf.cc.jpg": [("angle", "present")],
}
EXCLUDED = {"no label file": 1}
# Signs of a fracture that the vocabulary has no words for.
UNMAPPED = ("angle", "line", "messed_up_angle")
MALFORMED = (
    ("train/labels/102_jpg.rf.aa.txt", "1 0.29", "4 0.29", TableError, "102_jpg.rf.aa.txt:1"),
    ("train/labels/102_jpg.rf.aa.txt", "1 0.29", "-1 0.29", TableError, "102_jpg.rf.aa.txt:1"),
    ("train/labels/102_jpg.rf.aa.txt", "3 0.5 0.25", "3 0.5", TableError, "102_jpg.rf.aa.txt:2"),
    ("train/labels/102_jpg.rf.aa.txt", "3 0.5 0.25", "3 1.5 0.25", TableError, "102_jpg.rf.aa.txt:2"),
    ("train/labels/102_jpg.rf.aa.txt", "3 0.5 0.25", "3 nan 0.25", TableError, "102_jpg.rf.aa.txt:2"),
    ("data.yaml", "names:", "nams:", TableError, "data.yaml"),
    ("data.yaml", "['angle'", "[['angle'", TableError, "data.yaml:"),
)


def build(root: Path) -> None:
    (root / "data.yaml").write_text(CLASSES)
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for name, text in LABELS.items():
        split, stem = name.split("/")
        for part in ("images", "labels"):
            (root / split / part).mkdir(parents=True, exist_ok=True)
        (root / split / "labels" / f"{stem}.txt").write_text(text, encoding="utf-8", newline="")
        if stem != "9.rf.ee":
            grey.save(root / split / "images" / f"{stem}.jpg")
    grey.save(root / "valid" / "images" / "8.rf.ff.jpg")
