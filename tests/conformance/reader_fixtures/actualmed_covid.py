"""A small folder in the native layout of the Actualmed COVID-19 dataset, with its odd values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """patientid,offset,sex,age,finding,survival,temperature,pO2 saturation,view,modality,imagename,\
artifacts/distortion,notes
ANON91,,,,No finding,,,,AP,X-ray,CR.1.2.1.png,,"Negative (covid-19 viral infection is excluded), \
date taken (YYYYMMDD): 20200319"
ANON92,,,,COVID-19,,,,PA,X-ray,CR.1.2.2.png,,", date taken (YYYYMMDD): 20200320"
ANON92,,,,,,,,AP,X-ray,CR.1.2.3.png,,"Inconclusive, date taken (YYYYMMDD): 20200323"
ANON92,,,,,,,,AP,X-ray,CR.1.2.3.png,,"Inconclusive, date taken (YYYYMMDD): 20200324"
ANON93,,F,61,COVID-19,,,,AP,X-ray,DX.1.2.4.png,,"Portable film, date taken (YYYYMMDD): 20200324"
ANON94,,,,COVID-19,,,,AP,X-ray,CR.1.2.5.png,,
ANON95,,,,COVID-19,,,,AP,X-ray,,,
ANON96,,,,COVID-19,,,,AP,X-ray,/etc/CR.1.2.6.png,,
,,,,,,,,AP,X-ray,CR.1.2.7.png,,
ANON97,,,,COVID-19,,,,,,CR.1.2.8.png,,
"""
REQUIRED = ("metadata.csv", "images")
GOLDEN = {
    "images/CR.1.2.1.png": [("No finding", "present"), ("COVID-19", "absent")],
    "images/CR.1.2.2.png": [("COVID-19", "present")],
    "images/CR.1.2.3.png": [("COVID-19", "uncertain")],
    "images/CR.1.2.7.png": [],
    "images/DX.1.2.4.png": [("COVID-19", "present")],
}
EXCLUDED = {
    "image file is missing": 1,
    "modality is not stated": 1,
    "no imagename": 1,
    "no row in metadata.csv": 1,
    "path leaves the folder": 1,
}
MALFORMED = (
    ("metadata.csv", "AP,X-ray,CR.1.2.1", "AP,XR,CR.1.2.1", TableError, "metadata.csv:2"),
    ("metadata.csv", "imagename", "image", TableError, "metadata.csv:1"),
    ("metadata.csv", "No finding", "COVID-19", TableError, "metadata.csv:2"),
    ("metadata.csv", "ANON94", '"ANON94', TableError, "metadata.csv:7"),
    ("metadata.csv", "CR.1.2.5.png,,", "CR.1.2.5.png,,,more", TableError, "metadata.csv:7"),
)


def build(root: Path) -> None:
    (root / "metadata.csv").write_text(TABLE, encoding="utf-8", newline="\r\n")
    (root / "images").mkdir()
    grey = Image.fromarray(np.arange(24 * 20, dtype=np.uint16).astype(np.uint8).reshape(24, 20))
    for name in ("CR.1.2.1", "CR.1.2.2", "CR.1.2.3", "DX.1.2.4", "CR.1.2.7", "CR.1.2.8", "CR.1.2.99"):
        grey.convert("RGBA").save(root / "images" / f"{name}.png")
    (root / "images" / "notes.txt").write_text("no picture")
