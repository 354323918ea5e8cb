"""A small folder in the native layout of MURA-v1.1, as the archive unpacks: everything in a folder of its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = """MURA-v1.1/train/XR_SHOULDER/patient90001/study1_positive/image1.png
MURA-v1.1/train/XR_SHOULDER/patient90001/study1_positive/image2.png
MURA-v1.1/train/XR_HAND/patient90001/study1_negative/image1.png
MURA-v1.1/train/XR_HAND/patient90001/study1_negative/image1.png
MURA-v1.1/train/XR_ELBOW/patient90002/study2_negative/image1.png
MURA-v1.1/train/../../../secret.png
"""
TRAIN_LABELS = """MURA-v1.1/train/XR_SHOULDER/patient90001/study1_positive/,1
MURA-v1.1/train/XR_HAND/patient90001/study1_negative/,0
MURA-v1.1/train/XR_ELBOW/patient90002/study2_negative/,0
"""
VALID = """MURA-v1.1/valid/XR_WRIST/patient91185/study1_positive/image1.png
MURA-v1.1/valid/XR_WRIST/patient91186/study1_negative/image1.png
"""
VALID_LABELS = """MURA-v1.1/valid/XR_WRIST/patient91185/study1_positive/,1.0
"""
REQUIRED = ("MURA-v1.1",)
GOLDEN = {
    "train/XR_HAND/patient90001/study1_negative/image1.png": [("normal", "present")],
    "train/XR_SHOULDER/patient90001/study1_positive/image1.png": [("normal", "absent")],
    "train/XR_SHOULDER/patient90001/study1_positive/image2.png": [("normal", "absent")],
    "valid/XR_WRIST/patient91185/study1_positive/image1.png": [("normal", "absent")],
    "valid/XR_WRIST/patient91186/study1_negative/image1.png": [("normal", "present")],
}
EXCLUDED = {
    "image file is missing": 1,
    "no line in valid_image_paths.csv": 1,
    "path leaves the folder": 1,
}
_PATHS, _LABELS = "MURA-v1.1/train_image_paths.csv", "MURA-v1.1/train_labeled_studies.csv"
MALFORMED = (
    (_PATHS, "image2.png", "image2.png,1", TableError, "train_image_paths.csv:2"),
    (_PATHS, "XR_ELBOW", "XR_KNEE", TableError, "train_image_paths.csv:5"),
    (_PATHS, "train/XR_HAND", "valid/XR_HAND", TableError, "train_image_paths.csv:3"),
    (_LABELS, "negative/,0", "negative/,1", TableError, "train_labeled_studies.csv:2"),
    (_LABELS, "negative/,0", "negative/", TableError, "train_labeled_studies.csv:2"),
    (_LABELS, "positive/,1", "positive/,yes", TableError, "train_labeled_studies.csv:1"),
    (_LABELS, "positive/,1", "maybe/,1", TableError, "train_labeled_studies.csv:1"),
)
_PICTURES = (*GOLDEN, "valid/XR_WRIST/patient91187/study1_negative/image1.png")


def build(root: Path) -> None:
    base = root / "MURA-v1.1"
    for name in _PICTURES:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(base / name)
    (base / "train_image_paths.csv").write_text(TRAIN)
    (base / "train_labeled_studies.csv").write_text(TRAIN_LABELS)
    (base / "valid_image_paths.csv").write_text(VALID)
    (base / "valid_labeled_studies.csv").write_text(VALID_LABELS)
