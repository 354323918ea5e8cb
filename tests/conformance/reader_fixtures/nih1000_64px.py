"""A few of the folders of NIH1000, with pictures that lie elsewhere or are there twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

FILES = (
    "test/0_normal/00090002_001.png",
    "train/0_normal/00090001_000.png",
    "train/1_abnormal/00090001_001.png",
    "train/1_abnormal/00090001_002.JPG",
    "train/1_abnormal/more/00090001_003.png",
    "train/2_unknown/00090003_000.png",
    "train/stray.png",
    "valid/1_abnormal/00090001_001.png",
    "valid/1_abnormal/00090004_010.png",
)
REQUIRED = ("NIH1000",)
GOLDEN = {
    "NIH1000/test/0_normal/00090002_001.png": [("normal", "present")],
    "NIH1000/train/0_normal/00090001_000.png": [("normal", "present")],
    "NIH1000/train/1_abnormal/00090001_001.png": [("normal", "absent")],
    "NIH1000/valid/1_abnormal/00090004_010.png": [("normal", "absent")],
}
EXCLUDED = {
    "file name is not the NIH's": 1,
    "folder is not part/class": 3,
    "the same image is in another folder": 1,
}


def build(root: Path) -> None:
    grey = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).astype(np.uint8).reshape(64, 64))
    for number, name in enumerate(FILES):
        (root / "NIH1000" / name).parent.mkdir(parents=True, exist_ok=True)
        grey.convert("RGBA" if number % 2 and name.endswith("png") else "RGB").save(root / "NIH1000" / name)
    (root / "README.md").write_text("no picture")
