"""A small folder in the native layout of object-CXR; the pictures of one part lie one folder deeper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = """image_name,annotation
00001.jpg,0 100 120 180 200;2 10 10 50 12 40 60
00002.jpg,
00003.jpg,1 30 40 90 80;1 30 40 90 80
00004.jpg,2 -3 10 50 12 40 60;0 5 5 5 9
00004.jpg,2 -3 10 50 12 40 60;0 5 5 5 9
00005.jpg,0 1 2 3 4
../00006.jpg,0 1 2 3 4
"""
DEV = """image_name,annotation
08001.jpg,1 10.0 12.0 20.0 40.0
08002.jpg,
"""
REQUIRED = ("train.csv", "dev.csv")
GOLDEN = {
    "dev/08001.jpg": [("foreign object", "present")],
    "dev/08002.jpg": [("foreign object", "absent")],
    "train/00001.jpg": [("foreign object", "present")],
    "train/00002.jpg": [("foreign object", "absent")],
    "train/00003.jpg": [("foreign object", "present")],
    "train/00004.jpg": [("foreign object", "present")],
}
EXCLUDED = {
    "image file is missing": 1,
    "no row in dev.csv": 1,
    "path leaves the folder": 1,
    "test image of the challenge, unlabelled": 1,
    "the same file name is in another folder": 1,
}
MALFORMED = (
    ("train.csv", "0 100 120", "3 100 120", TableError, "train.csv:2"),
    ("train.csv", "180 200;", "180;", TableError, "train.csv:2"),
    ("train.csv", "180 200;", "180 200 3 4;", TableError, "train.csv:2"),
    ("train.csv", " 40 60\n00002", "\n00002", TableError, "train.csv:2"),
    ("train.csv", "0 1 2 3 4", "0 1 2 nan 4", TableError, "train.csv:7"),
    ("train.csv", "0 1 2 3 4", "none", TableError, "train.csv:7"),
    ("train.csv", "annotation", "annotations", TableError, "train.csv:1"),
    ("train.csv", "image_name", "image", TableError, "train.csv:2"),
    ("train.csv", "00003.jpg,1", "00001.jpg,1", TableError, "train.csv:4"),
    ("dev.csv", "08002.jpg", "8002/08001.jpg", TableError, "dev.csv:3"),
)
_PICTURES = (
    "train/train/00001.jpg", "train/train/00002.jpg", "train/train/00003.jpg", "train/train/00004.jpg",
    "train/00001.jpg", "dev/08001.jpg", "dev/08002.jpg", "dev/08003.jpg", "test/09001.jpg",
)  # fmt: skip


def build(root: Path) -> None:
    (root / "train.csv").write_text(TRAIN, encoding="utf-8-sig")
    (root / "dev.csv").write_text(DEV)
    for name in _PICTURES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(root / name)
