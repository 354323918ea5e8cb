"""A small data set in one folder per class, with splits, and with what lies about in such folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

FILES = (
    "Training/Normal/a.png",
    "Training/Normal/b.JPG",
    "Training/Lung_Opacity/c.png",
    "Training/Lung_Opacity/patient 7/d.png",
    "Training/Viral Pneumonia/images/e.png",
    "Training/Viral Pneumonia/masks/e.png",
    "Training/not fracture/f.png",
    "Training/.thumbnails/c.png",
    "Training/beside.png",
    "Test/Fracture/a.png",
    "valid/Normal/g.png",
    "outside.png",
)
REQUIRED = ()
OTHERS = [("Fracture", "absent"), ("Lung_Opacity", "absent"), ("Viral Pneumonia", "absent")]
GOLDEN = {
    "Test/Fracture/a.png": [("Fracture", "present")],
    "Training/Lung_Opacity/c.png": [("Lung_Opacity", "present")],
    "Training/Lung_Opacity/patient 7/d.png": [("Lung_Opacity", "present")],
    "Training/Normal/a.png": [("Normal", "present"), *OTHERS],
    "Training/Normal/b.JPG": [("Normal", "present"), *OTHERS],
    "Training/Viral Pneumonia/images/e.png": [("Viral Pneumonia", "present")],
    "Training/not fracture/f.png": [("Fracture", "absent")],
    "valid/Normal/g.png": [("Normal", "present"), *OTHERS],
}
EXCLUDED = {"folder holds masks": 1, "folder is hidden": 1, "picture is in no class folder": 2}
MALFORMED = ()


def build(root: Path) -> None:
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(root / name)
    (root / "README.txt").write_text("no picture")
    (root / "Training" / "Empty").mkdir()
