"""A small data set in COCO's layout: two JSON files, one a split, with every kind of outline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

CATEGORIES = [
    {"id": 0, "name": "findings", "supercategory": "none"},
    {"id": 1, "name": "Nodule", "supercategory": "findings"},
    {"id": 2, "name": "Pleural Effusion ", "supercategory": "findings"},
]
IMAGES = [
    {"id": 1, "file_name": "a.png", "width": 4, "height": 3, "patient_id": 7, "sex": "F", "age": 61, "view": "PA"},
    {"id": 2, "file_name": "tb/b.JPG", "width": 40, "height": 48},
    {"id": 3, "file_name": "gone.png", "width": 20, "height": 24},
    {"id": 4, "file_name": "/etc/secret.png", "width": 20, "height": 24},
    {"id": 5, "file_name": "healthy.png", "height": 24, "width": 20},
]
ANNOTATIONS = [
    {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2.5, 2], "iscrowd": 0},
    {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2.5, 2], "segmentation": [], "iscrowd": 0},
    {"id": 3, "image_id": 1, "category_id": 2, "segmentation": {"size": [3, 4], "counts": [4, 2, 1, 2, 3]}},
    {"id": 4, "image_id": 1, "category_id": 1, "segmentation": {"size": [3, 4], "counts": "331O2"}},
    {"id": 5, "image_id": 2, "category_id": 2, "segmentation": [[1, 2, 30, 2, 30, 40.5], [5, 5, 6, 5, 6, 6, 5, 6]]},
    {"id": 6, "image_id": 2, "category_id": 1, "segmentation": [[1, 2, 3, 4]], "bbox": [0, 0, 5, 5]},
    {"id": 7, "image_id": 2, "category_id": 1, "bbox": [0, 0, 0, 5]},
    {"id": 8, "image_id": 3, "category_id": 1, "bbox": [0, 0, 5, 5]},
]
TEST = {
    "images": [{"id": "1", "file_name": "t.png"}],
    "annotations": [{"image_id": 1, "category_id": 9.0, "bbox": None}],
    "categories": [{"id": 9, "name": "Cardiomegaly"}],
}
REQUIRED = ("annotations", "images")
GOLDEN = {
    "images/a.png": [("Nodule", "present"), ("Pleural Effusion", "present")],
    "images/healthy.png": [],
    "images/tb/b.JPG": [("Pleural Effusion", "present"), ("Nodule", "present")],
    "images/t.png": [("Cardiomegaly", "present")],
}
EXCLUDED = {"image file is missing": 1, "no JSON file lists it": 1, "path leaves the folder": 1}
FILE = "annotations/instances_all.json"
MALFORMED = (
    (FILE, "{", "{,", TableError, ".json:1"),
    (FILE, '"categories"', '"category"', TableError, "instances_all.json"),
    (FILE, '"annotations": [', '"annotations": {}, "more": [', TableError, "instances_all.json"),
    (FILE, '"name": "Nodule"', '"name": ""', TableError, "categories[1]"),
    (FILE, '"id": 2, "name"', '"id": 1, "name"', TableError, "categories[2]"),
    (FILE, '"id": 2, "file_name"', '"id": 1, "file_name"', TableError, "images[1]"),
    (FILE, '"file_name": "a.png"', '"file": "a.png"', TableError, "images[0]"),
    (FILE, '"image_id": 3', '"image_id": 33', TableError, "annotations[7]"),
    (FILE, '"image_id": 3, "category_id": 1', '"image_id": 3, "category_id": 5', TableError, "annotations[7]"),
    (FILE, "[1, 1, 2.5, 2]", "[1, 1, 2.5]", TableError, "annotations[0]"),
    (FILE, "[1, 1, 2.5, 2]", "[1, 1, NaN, 2]", TableError, "annotations[0]"),
    (FILE, "[1, 1, 2.5, 2]", '[1, 1, "2.5", 2]', TableError, "annotations[0]"),
    (FILE, '"size": [3, 4]', '"size": [4, 3]', TableError, "annotations[2]"),
    (FILE, "[4, 2, 1, 2, 3]", "[4, 2, 1, 2, 4]", TableError, "annotations[2]"),
    (FILE, '"331O2"', '"331"', TableError, "annotations[3]"),
    (FILE, '"331O2"', '"331 2"', TableError, "annotations[3]"),
    (FILE, "30, 40.5]", "30]", TableError, "annotations[4]"),
)


def build(root: Path) -> None:
    (root / "annotations").mkdir()
    (root / "images" / "tb").mkdir(parents=True)
    write(root / FILE, {"info": {}, "images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES})
    write(root / "annotations" / "instances_test2017.json", TEST)
    write(root / "annotations" / "colours.json", {"Nodule": "red"})
    grey = Image.fromarray(np.full((24, 20), 90, np.uint8))
    for name in ("a.png", "tb/b.JPG", "healthy.png", "t.png", "unlisted.png"):
        grey.save(root / "images" / name)


def write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")
