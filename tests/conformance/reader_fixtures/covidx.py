"""A small folder of COVIDx: lists with and without sources, blanks in ids, an older version beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = """3 SARS-10.1148rg.242035193-g04mr34g0-Fig8a-day0.jpeg pneumonia cohen
COVID 216 COVID(216).png COVID-19 sirm
COVID-00039a COVID-00039a.jpg COVID-19 fig1
0a1b2c3d-0000-4000-8000-000000000000 0a1b2c3d-0000-4000-8000-000000000000.png normal rnsa
0a1b2c3d-0000-4000-8000-000000000000 0a1b2c3d-0000-4000-8000-000000000000.png normal rsna

sub-S03044 sub-S03044_run-1_cr.png COVID-19 bimcv
"""
TEST = """8 SARS-10.1148rg.242035193-g04mr34g05x-Fig5-day9.jpeg pneumonia
419639-000000 MIDRC-RICORD-1C-419639-000000-12345-0.png COVID-19 ricord
"""
OLD = "8 old.jpeg normal\n"
REQUIRED: tuple[str, ...] = ()
_COVID = [("normal", "absent"), ("COVID-19", "present")]
_PNEUMONIA = [("normal", "absent"), ("pneumonia", "present"), ("COVID-19", "absent")]
GOLDEN = {
    "train/0a1b2c3d-0000-4000-8000-000000000000.png": [
        ("normal", "present"), ("pneumonia", "absent"), ("COVID-19", "absent"),
    ],
    "train/COVID(216).png": _COVID,
    "train/COVID-00039a.jpg": _COVID,
    "train/SARS-10.1148rg.242035193-g04mr34g0-Fig8a-day0.jpeg": _PNEUMONIA,
    "test/MIDRC-RICORD-1C-419639-000000-12345-0.png": _COVID,
    "test/SARS-10.1148rg.242035193-g04mr34g05x-Fig5-day9.jpeg": _PNEUMONIA,
}  # fmt: skip
EXCLUDED = {"image file is missing": 1, "not in the lists": 2}
_TRAIN = "labels/train_COVIDx9A.txt"
MALFORMED = (
    (_TRAIN, "pneumonia cohen", "tumour cohen", TableError, "train_COVIDx9A.txt:1"),
    (_TRAIN, "COVID-19 sirm", "COVID-19 moon", TableError, "train_COVIDx9A.txt:2"),
    (_TRAIN, "COVID(216).png", "../COVID(216).png", TableError, "train_COVIDx9A.txt:2"),
    (_TRAIN, "COVID(216).png", "COVID(216)", TableError, "train_COVIDx9A.txt:2"),
    (_TRAIN, "normal rsna", "pneumonia rsna", TableError, "train_COVIDx9A.txt:5"),
    (_TRAIN, "normal rnsa", "negative rnsa", TableError, "train_COVIDx9A.txt:5"),
    (_TRAIN, "COVID-19 bimcv", "positive bimcv", TableError, "train_COVIDx9A.txt"),
    (_TRAIN, "COVID-00039a COVID-00039a.jpg COVID-19 fig1", "COVID-19 fig1", TableError, "train_COVIDx9A.txt:3"),
)
_PICTURES = (
    "train/0a1b2c3d-0000-4000-8000-000000000000.png",
    "train/COVID(216).png",
    "train/COVID-00039a.jpg",
    "data/SARS-10.1148rg.242035193-g04mr34g0-Fig8a-day0.jpeg",
    "test/MIDRC-RICORD-1C-419639-000000-12345-0.png",
    "test/SARS-10.1148rg.242035193-g04mr34g05x-Fig5-day9.jpeg",
    "test/COVID(216).png",
    "competition_test/1.png",
)


def build(root: Path) -> None:
    (root / "labels").mkdir()
    (root / "labels" / "train_COVIDx9A.txt").write_text(TRAIN, encoding="utf-8-sig")
    (root / "labels" / "test_COVIDx9A.txt").write_text(TEST)
    (root / "labels" / "train_COVIDx2.txt").write_text(OLD)
    for name in _PICTURES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(root / name)
    (root / _PICTURES[0]).write_bytes(b"no picture at all")
