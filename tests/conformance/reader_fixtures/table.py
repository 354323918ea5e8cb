"""A small table of somebody's own data, with the odd values of spreadsheets, and the file that explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """Filename ,Patient ID,Study,Projection,Gender,Age,Split,Report,Caption,Findings,Edema,Pneumothorax,Tube,\
Lung mask,Smoker
a.png,12.0,s1,PA,f,58,train,"Heart enlarged.
No ""effusion"".",Large heart,Cardiomegaly; Mass,0,0.0,yes,masks/a.png,1
sub/b.JPG,12,s1,LATERAL,F,058Y,training,,nan,['Nodule'],-1,,no,,0
images/c.png,13,,,M,,Validation,Unremarkable.,,none,,1.0,unclear,,
gone.png,14,,,M,40,test,Gone.,,Mass,1,0,,,
,15,,,M,40,test,No picture.,,Mass,1,0,,,
../secret.png,16,,,M,40,test,Secret.,,Mass,1,0,,,
a.png,12,s1,PA,F,58,train,,,Hernia,,,,masks/a2.png,1

a.png,12,s1,PA,F,58,train,,,Hernia,,,,masks/a2.png,1
E.PNG,17,s9,AP,?,412,Test,,,,1,0,,masks/gone.png,
"""
CONFIG = """columns: {labels: Findings}
findings: {Tube: endotracheal tube}
masks: {Lung mask: lung}
states: {uncertain: unclear}
"""
NOT_IMAGES = ("masks",)
REQUIRED = ("cases.csv", "images")
GOLDEN = {
    "images/a.png": [
        ("endotracheal tube", "present"),
        ("Edema", "absent"),
        ("Pneumothorax", "absent"),
        ("Cardiomegaly", "present"),
        ("Mass", "present"),
        ("Hernia", "present"),
    ],
    "images/c.png": [("endotracheal tube", "uncertain"), ("Pneumothorax", "present")],
    "images/e.png": [("Edema", "present"), ("Pneumothorax", "absent")],
    "images/sub/b.JPG": [("endotracheal tube", "absent"), ("Edema", "uncertain"), ("Nodule", "present")],
}
EXCLUDED = {
    "image file is missing": 1,
    "no row in cases.csv": 2,
    "path leaves the folder": 1,
    "row names no picture": 1,
}
MALFORMED = (
    ("cases.csv", "Filename", "Bild", TableError, "cases.csv:1"),
    ("cases.csv", "Study", "Gender", TableError, "cases.csv:1"),
    ("cases.csv", ",Validation,", ",fold 3,", TableError, "cases.csv:5"),
    ("cases.csv", "none,,1.0", "none,mild,1.0", TableError, "cases.csv:5"),
    ("cases.csv", "['Nodule']", "['1']", TableError, "cases.csv:4"),
    ("cases.csv", "['Nodule']", "word " * 40, TableError, "cases.csv:4"),
    ("cases.csv", "['Nodule']", "Edema", TableError, "cases.csv:4"),
    ("cases.csv", ',Hernia,,,,masks/a2.png,1\n\n', ',Hernia,1,,,,1\n\n', TableError, "cases.csv:9"),
    ("cases.csv", "a.png,12,", "a.png,99,", TableError, "cases.csv:9"),
    ("cases.csv", "Gone.,,Mass,1,0,,,", "Gone.,,Mass,1,0,,,,x", TableError, "cases.csv:6"),
    ("cases.csv", "Gone.,,Mass,1,0,,,", "Gone.,,Mass", TableError, "cases.csv:6"),
    ("cases.csv", "Unremarkable.", '"Unremarkable.', TableError, "cases.csv:5"),
    ("cases.csv", "images/c.png", "images/C.PNG", None, ""),
    ("cases.csv", "images/c.png", "images\\\\c.png", None, ""),
    ("cases.csv", "images/c.png", "images/c", None, ""),
)  # fmt: skip


def build(root: Path) -> None:
    (root / "cases.csv").write_text(TABLE, encoding="utf-8-sig")
    (root / "umif-table.yaml").write_text(CONFIG, encoding="utf-8")
    (root / "images" / "sub").mkdir(parents=True)
    (root / "masks").mkdir()
    grey = Image.fromarray(np.full((24, 20), 90, np.uint8))
    for name in ("a.png", "sub/b.JPG", "c.png", "e.png", "without_row.png"):
        grey.save(root / "images" / name)
    for name in ("a.png", "a2.png", "nobody.png"):
        grey.save(root / "masks" / name)
    (root / "images" / "notes.txt").write_text("no picture")
