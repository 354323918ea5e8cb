"""A small folder in the native layout of ROCO v1: lists without a header, both kinds of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

CAPTIONS = {
    "train": "ROCO_00001\t Chest X-ray showing\u00a0a left pneumothorax (arrow).\n"
    "ROCO_00002\t Axial computed tomography of the chest.\n"
    "ROCO_00003\t Radiograph and CT of the right wrist.\n"
    "ROCO_00004\n"
    "ROCO_00005\t X-ray.\n"
    "ROCO_00006\t Figure 2. Radiographs of the hand: (A) before, (B) after surgery.\n"
    "ROCO_00006\t Figure 2. Radiographs of the hand: (A) before, (B) after surgery.\n",
    "validation": "ROCO_00007\t Plain film of the abdomen with $\\alpha$ loops.\n",
    "test": "ROCO_00008\t Chest radiograph of a child.\n",
}
LICENCES = {
    "train": "ROCO_00001,PMC4608653_cro-0008-0385-g01.jpg,CC BY-NC\nROCO_00006,PMC4608653_gr2.jpg,NO-CC CODE\n",
    "validation": "ROCO_00007,PMC0000007_x.jpg,CC BY\n",
}
REQUIRED: tuple[str, ...] = ("data",)
GOLDEN: dict[str, list[tuple[str, str]]] = {"ROCO_00001": [], "ROCO_00006": [], "ROCO_00007": []}
EXCLUDED = {
    "caption names a picture of another kind": 1,
    "caption names no radiograph": 1,
    "caption of fewer than 3 words": 2,
    "image file is missing": 1,
    "no caption in captions.txt": 1,
    "not in the radiology part": 1,
}
_TRAIN = "data/train/radiology/captions.txt"
MALFORMED = (
    (_TRAIN, "ROCO_00002\t", "00002\t", TableError, "captions.txt:2"),
    (_TRAIN, "ROCO_00002\t", "ROCO_00001\t", TableError, "captions.txt"),
    (_TRAIN, "ROCO_00001\t Chest", "ROCO_00001 Chest", TableError, "captions.txt:1"),
    ("data/train/radiology/licences.txt", "PMC4608653_cro", "4608653_cro", TableError, "licences.txt:2"),
    ("data/train/radiology/licences.txt", "PMC_ID", "PMC", TableError, "licences.txt:1"),
    ("data/train/radiology/licences.txt", "ROCO_00006", "../00006", TableError, "licences.txt:3"),
)


def build(root: Path) -> None:
    for part, captions in CAPTIONS.items():
        folder = root / "data" / part / "radiology"
        (folder / "images").mkdir(parents=True)
        (folder / "captions.txt").write_text(captions, encoding="utf-8")
        if part in LICENCES:
            (folder / "licences.txt").write_text(f"ROCO_ID,PMC_ID,CC\n{LICENCES[part]}")
        (folder / "keywords.txt").write_text("ROCO_00001\t\tpneumothorax\tleft\n")
    names = [f"train/radiology/images/ROCO_0000{number}.jpg" for number in (1, 2, 3, 6, 9)]
    others = ["validation/radiology/images/ROCO_00007.jpg", "train/non-radiology/images/ROCO_00100.jpg"]
    for name in (*names, *others):
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(root / "data" / name)
