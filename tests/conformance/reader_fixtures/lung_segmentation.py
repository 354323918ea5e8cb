"""The demo folder of lung-segmentation-2d, with rows and files that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """img,mask
1.jpg,1-mask.png
10.jpg,10-mask.png
2.jpg,gone-mask.png
3.jpg,
4.jpg,4-mask.png
1.jpg,1-mask.png

../../secret.jpg,1-mask.png
5.jpg,/etc/5-mask.png
,1-mask.png
"""
REQUIRED = ("Demo/idx.csv", "Demo/Data")
GOLDEN: dict[str, list[tuple[str, str]]] = {
    "Demo/Data/1.jpg": [],
    "Demo/Data/10.jpg": [],
    "Demo/Data/2.jpg": [],
    "Demo/Data/3.jpg": [],
}
EXCLUDED = {
    "image file is missing": 1,
    "mask of a missing picture": 1,
    "no row in idx.csv": 2,
    "path leaves the folder": 2,
    "row names no picture": 1,
}
MALFORMED = (
    ("Demo/idx.csv", "mask\n", "masks\n", TableError, "idx.csv:1"),
    ("Demo/idx.csv", "10.jpg,10-mask.png", "1.jpg,10-mask.png", TableError, "idx.csv:3"),
    ("Demo/idx.csv", "2.jpg,gone-mask.png", "2.jpg", TableError, "idx.csv:4"),
    ("Demo/idx.csv", "2.jpg,gone", '2.jpg,"gone', TableError, "idx.csv:4"),
)


def build(root: Path) -> None:
    (root / "Demo" / "Data").mkdir(parents=True)
    (root / "Demo" / "idx.csv").write_text(TABLE, encoding="utf-8-sig")
    lungs = np.zeros((24, 20), np.uint8)
    lungs[4:20, 2:8] = lungs[4:20, 12:18] = 255
    for name in ("1", "10", "2", "3", "5"):
        Image.fromarray(255 - lungs // 2).save(root / "Demo" / "Data" / f"{name}.jpg")
    for name in ("1-mask", "10-mask", "4-mask", "nobody-mask"):
        Image.fromarray(lungs).save(root / "Demo" / "Data" / f"{name}.png")
    (root / "Demo" / "demo.py").write_text("no picture")
