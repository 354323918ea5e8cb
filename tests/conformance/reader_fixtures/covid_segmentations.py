"""A small folder in the native layout of covid-19-chest-xray-segmentations-dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

METADATA = """patientid,offset,sex,age,finding,view,modality,folder,filename,license,clinical_notes,other_notes,
2,0,M,65,COVID-19,PA,X-ray,images,a.jpeg,,Opacity in the left lung,,
3,0,F,40,No Finding,AP,X-ray,images,b.png,CC BY,,,
"""
STRUCTURE = (
    "#,Taxonomy,Class,Template Name,File Folder,Filename,Image,Tag,Mask,Resolution,Top,Left,Width,Height,Points,"
    "Text Annotation,Minimal Top,Minimal Left,Minimal Width,Minimal Height,Attributes\n"
    "1,,COVID-19 Airways,Airways,,a.jpeg,images/x.jpg,,masks/one.png,20x24,3,5,8,10,,undefined,3,5,8,10,\n"
    "2,Class:Left Lung,COVID-19 Left Lung,Left Lung,,a.jpeg,images/x.jpg,,masks/two.png,20x24,0,0,6,6,,,0,0,6,6,\n"
    "3,,COVID-19 Monitoring Probes,Monitoring Probes,,a.jpeg,images/x.jpg,,,20x24,0,0,20,24,,,,,,,\n"
    "4,,COVID-19 Tubings,Tubings,,a.jpeg,images/x.jpg,,masks/gone.png,20x24,0,0,6,6,,,0,0,6,6,\n"
    "5,,COVID-19 Tubings,Tubings,,a.jpeg,images/x.jpg,,../masks/two.png,20x24,0,0,6,6,,,0,0,6,6,\n"
    "6,,COVID-19 Tubings,Tubings,,other.png,images/y.jpg,,masks/two.png,20x24,0,0,6,6,,,0,0,6,6,\n"
)
NOT_IMAGES = ("masks",)
REQUIRED = ("metadata.csv", "structure.csv", "images")
GOLDEN = {"images/a.jpeg": [("COVID-19", "present")], "images/b.png": [("No Finding", "present")]}
EXCLUDED = {"no row in metadata.csv": 1}
MALFORMED = (
    ("structure.csv", "20x24,3,5", "20 by 24,3,5", TableError, "structure.csv:2"),
    ("structure.csv", "20x24,3,5", "20x24,3.5,5", TableError, "structure.csv:2"),
    ("structure.csv", "20x24,0,0,6,6", "20x24,0,left,6,6", TableError, "structure.csv:3"),
    ("structure.csv", "COVID-19 Airways", "", TableError, "structure.csv:2"),
    ("structure.csv", "Resolution", "Size", TableError, "structure.csv:1"),
    ("metadata.csv", "finding", "findings", TableError, "metadata.csv:1"),
)


def build(root: Path) -> None:
    (root / "images").mkdir()
    (root / "masks").mkdir()
    (root / "metadata.csv").write_text(METADATA, encoding="utf-8")
    (root / "structure.csv").write_text(STRUCTURE, encoding="utf-8")
    grey = Image.fromarray(np.full((24, 20), 90, np.uint8))
    for name in ("a.jpeg", "b.png", "without_row.png"):
        grey.save(root / "images" / name)
    for name, (height, width) in (("one", (10, 8)), ("two", (6, 6))):
        crop = np.zeros((height, width, 4), np.uint8)
        crop[..., 3] = 255
        crop[1:-1, 1:-1, 0] = 200
        Image.fromarray(crop).save(root / "masks" / f"{name}.png")
