"""A small folder in the native layout of the Figure 1 COVID-19 dataset, with its odd values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """patientid,offset,sex,age,finding,survival,temperature,pO2 saturation,view,modality,artifacts/distortion,notes
COVID-90001,13,M,33,COVID-19,,,58,AP erect,X-ray,,"Saturation 58% on room air, 89% on ""15 litres"" of oxygen."
COVID-90003a,8,M,50+,,,39.1,91-92,AP erect,X-ray,Some from monitor,The patient\x92s first film.
COVID-90003b,8,M,early 40s,,,39.1,90,,X-ray,"Slight, from monitor",
COVID-90003b,8,M,early 40s,,,39.1,90,,X-ray,"Slight, from monitor",

COVID-90005,,,,Pneumonia,,,,,X-ray,,labeled pneumonia
COVID-90006,,F,57,No finding,,,,PA,X-ray,,N/A
COVID-90007,,,,COVID-19,,,,,X-ray,,Gone.
COVID-90008,,,,COVID-19,,,,Axial,CT,,A slice.
,,,,COVID-19,,,,,X-ray,,Nobody.
../secret,,,,COVID-19,,,,,X-ray,,Secret.
"""
REQUIRED = ("metadata.csv", "images")
GOLDEN = {
    "images/COVID-90001.jpg": [("COVID-19", "present")],
    "images/COVID-90003a.JPG": [],
    "images/COVID-90003b.png": [],
    "images/COVID-90005.jpg": [("Pneumonia", "present")],
    "images/COVID-90006.png": [("No finding", "present")],
}
EXCLUDED = {
    "another picture has the same name": 1,
    "image file is missing": 1,
    "modality is CT": 1,
    "no patientid": 1,
    "no row in metadata.csv": 1,
    "path leaves the folder": 1,
}
MALFORMED = (
    ("metadata.csv", "X-ray,,\"Sat", "MRI,,\"Sat", TableError, "metadata.csv:2"),
    ("metadata.csv", "patientid", "patient", TableError, "metadata.csv:1"),
    ("metadata.csv", "labeled pneumonia", '"labeled pneumonia', TableError, "metadata.csv:7"),
    ("metadata.csv", "X-ray,,labeled", "X-ray,,labeled,more", TableError, "metadata.csv:7"),
    ("metadata.csv", "X-ray,,labeled pneumonia", "X-ray", TableError, "metadata.csv:7"),
    ("metadata.csv", "Gone.", "Go\ufffdne.", None, ""),
)  # fmt: skip


def build(root: Path) -> None:
    (root / "metadata.csv").write_text(TABLE, encoding="utf-8-sig")
    (root / "images").mkdir()
    grey = Image.fromarray(np.arange(24 * 20, dtype=np.uint16).astype(np.uint8).reshape(24, 20))
    for name in ("COVID-90001.jpg", "COVID-90003a.JPG", "COVID-90003b.png", "COVID-90005.jpg", "COVID-90005.png"):
        grey.save(root / "images" / name)
    for name in ("COVID-90006.png", "COVID-90008.png", "COVID-90099.jpg"):
        grey.save(root / "images" / name)
    (root / "README.md").write_text("no picture")
