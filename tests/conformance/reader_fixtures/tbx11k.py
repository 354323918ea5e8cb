"""A small folder in the native layout of TBX11K, with both lists, test images and another dataset's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

CATEGORIES = [
    {"id": number, "name": name, "supercategory": "Tuberculosis"}
    for number, name in enumerate(
        ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis"), start=1
    )
]
TRAIN = {1: "tb/tb0005.png", 2: "tb/tb0007.png", 3: "tb/tb1199.png", 601: "health/h0001.png", 602: "health/h0002.png"}
VAL = {1: "sick/s0001.png", 2: "../../secret.png"}
BOXES: list[tuple[int, int, list[float]]] = [
    (1, 1, [381.8337097167969, 126.8733901977539, 40.236907958984375, 44.565773010253906]),
    (1, 2, [1, 2, 30, 40]),
    (1, 2, [1, 2, 30, 40]),
    (2, 2, [307.25, 62.5, 135.5, 146.625]),
    (2, 3, [10.0, 10.0, 0.0, 5.0]),
]
REQUIRED = ("annotations", "imgs")
GOLDEN = {
    "imgs/health/h0001.png": [("health", "present"), ("tb", "absent")],
    "imgs/sick/s0001.png": [("health", "absent"), ("tb", "absent")],
    "imgs/tb/tb0005.png": [
        ("tb", "present"),
        ("ActiveTuberculosis", "present"),
        ("ObsoletePulmonaryTuberculosis", "present"),
    ],
    "imgs/tb/tb0007.png": [("tb", "present"), ("ObsoletePulmonaryTuberculosis", "present")],
    "imgs/tb/tb1199.png": [("tb", "present")],
}
EXCLUDED = {
    "image file is missing": 1,
    "image of another dataset": 1,
    "in none of the lists": 1,
    "path leaves the folder": 1,
    "test image, unlabelled": 1,
}
_LIST = "annotations/json/TBX11K_train.json"
MALFORMED = (
    (_LIST, '"name": "ActiveTuberculosis"', '"name": "ActiveTB"', TableError, "categories[0]"),
    (_LIST, '"bbox": [1, 2, 30, 40]', '"bbox": [1, 2, 30]', TableError, "annotations[1]"),
    (_LIST, '"bbox": [1, 2, 30, 40]', '"bbox": [1, 2, NaN, 40]', TableError, "annotations[1]"),
    (_LIST, '"image_id": 1', '"image_id": 601', TableError, "image 601"),
    (_LIST, '"image_id": 1', '"image_id": 4', TableError, "annotations[0]"),
    (_LIST, '"category_id": 1', '"category_id": "1"', TableError, "annotations[0]"),
    (_LIST, '"width": 512', '"width": 0', TableError, "images[0]"),
    (_LIST, '"id": 602', '"id": 601', TableError, "images[4]"),
    (_LIST, "health/h0001.png", "healthy/h0001.png", None, ""),
    (_LIST, "health/h0002.png", "health/h0001.png", TableError, "TBX11K_train.json"),
    (_LIST, '"images": [', '"images": [[', TableError, "TBX11K_train.json:1"),
)


def coco(images: dict[int, str], boxes: list[tuple[int, int, list[float]]]) -> dict[str, Any]:
    return {
        "categories": CATEGORIES,
        "images": [
            {"id": number, "file_name": name, "width": 512, "height": 512, "license": 1}
            for number, name in images.items()
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "bbox": box}
            for number, (image, category, box) in enumerate(boxes)
        ],
    }


def build(root: Path) -> None:
    (root / "annotations" / "json").mkdir(parents=True)
    (root / _LIST).write_text(json.dumps(coco(TRAIN, BOXES)))
    (root / "annotations" / "json" / "TBX11K_val.json").write_text(json.dumps(coco(VAL, [])))
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    others = ("test/t0001.png", "extra/da/train/p001.png", "sick/s0002.png")
    for name in (*TRAIN.values(), "sick/s0001.png", *others):
        if name != "health/h0002.png":
            (root / "imgs" / name).parent.mkdir(parents=True, exist_ok=True)
            grey.save(root / "imgs" / name)
