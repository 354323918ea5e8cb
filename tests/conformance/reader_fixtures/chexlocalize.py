"""A small folder of CheXlocalize: polygons of the validation part, run lengths of the test part, CheXpert's tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

LABELS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
TEN = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Airspace Opacity", "Edema", "Consolidation",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Support Devices",
)  # fmt: skip
VAL = f"""Path,Sex,Age,Frontal/Lateral,AP/PA,{LABELS}
CheXpert-v1.0/valid/patient94541/study1/view1_frontal.jpg,Male,73,Frontal,AP,\
0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
CheXpert-v1.0/valid/patient94542/study1/view2_lateral.jpg,Female,0,Lateral,,\
1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
"""
TEST = f"""Path,{LABELS}
test/patient94741/study1/view1_frontal.jpg,0,0,0,1,0,0,0,0,0,0,0,0,0,0
test/patient94741/study1/view1_frontal.jpg,0,0,0,1,0,0,0,0,0,0,0,0,0,0
"""
POLYGONS = {
    "patient94541_study1_view1_frontal": {
        "img_size": [8, 10],
        "Enlarged Cardiomediastinum": [[[1.0, 1.0], [5.5, 1.0], [5.5, 6.2]], [[1, 1], [1, 1]]],
        "Airspace Opacity": [[[2.0, 2.0], [4.0, 2.0], [4.0, 4.0], [2.0, 4.0]], [[6.0, 2.0], [8.0, 2.0], [8.0, 4.0]]],
    },
    "patient94543_study1_view1_frontal": {"img_size": [8, 10], "Support Devices": [[[1, 1], [5, 1], [5, 6]]]},
}


def compress(runs: list[int]) -> str:
    """Return runs as COCO writes them; each below 16 and without differences, as there are at most three."""
    assert len(runs) <= 3
    text = ""
    for run in runs:
        groups = [run >> shift & 31 for shift in range(0, 20, 5)]
        while len(groups) > 1 and groups[-1] == 0 and not groups[-2] & 16:
            groups.pop()
        text += "".join(chr(48 + group + 32 * (place < len(groups) - 1)) for place, group in enumerate(groups))
    return text


RUNS = {
    "patient94741_study1_view1_frontal": {
        name: {"size": [8, 10], "counts": compress([9, 6, 65] if name == "Airspace Opacity" else [80])} for name in TEN
    }
}
GOLDEN = {
    "patient94541_study1_view1_frontal": list(
        {
            **dict.fromkeys(LABELS.split(","), "absent"),
            "Enlarged Cardiomediastinum": "present",
            "Cardiomegaly": "present",
            "Lung Opacity": "present",
        }.items()
    ),
    "patient94542_study1_view2_lateral": list(
        {**dict.fromkeys(LABELS.split(","), "absent"), "No Finding": "present"}.items()
    ),
    "patient94543_study1_view1_frontal": [("Support Devices", "present")],
    "patient94741_study1_view1_frontal": list(
        {**dict.fromkeys(LABELS.split(","), "absent"), "Lung Opacity": "present"}.items()
    ),
}
EXCLUDED = {
    "another copy of the same image is used": 1,
    "file name is not patient/study/view": 1,
    "neither outline nor row of labels": 1,
}
_POLYGONS, _RUNS = "CheXlocalize/gt_annotations_val.json", "CheXlocalize/gt_segmentations_test.json"
MALFORMED = (
    (_POLYGONS, '"img_size": [8', '"img_size": [0', TableError, "gt_annotations_val.json:patient94541"),
    (_POLYGONS, "5.5, 6.2]", "5.5]", TableError, "gt_annotations_val.json:patient94541"),
    (_POLYGONS, "Airspace Opacity", "Air", TableError, "gt_annotations_val.json:patient94541"),
    (_POLYGONS, "patient94543_study1", "patient94543", TableError, "gt_annotations_val.json"),
    (_RUNS, '"size": [8, 10]', '"size": [8, 11]', TableError, "gt_segmentations_test.json:patient94741"),
    (_RUNS, '"counts": "', '"counts": "~', TableError, "gt_segmentations_test.json:patient94741"),
    (_RUNS, "patient94741_study1_view1_frontal", "patient94541_study1_view1_frontal", TableError, "test.json"),
    ("CheXpert/val_labels.csv", "0.0,1.0,1.0", "2.0,1.0,1.0", TableError, "val_labels.csv:2"),
    ("CheXpert/val_labels.csv", "view2_lateral.jpg", "view2.jpg", TableError, "val_labels.csv:3"),
    ("CheXpert/test_labels.csv", ",0,0,0,1", ",0,0,0,0", TableError, "test_labels.csv:3"),
    ("CheXpert/test_labels.csv", "Fracture", "Fractures", TableError, "test_labels.csv:1"),
)
_PICTURES = (
    "CheXpert/val/patient94541/study1/view1_frontal.jpg",
    "CheXpert/val/patient94542/study1/view2_lateral.jpg",
    "CheXpert/val/patient94543/study1/view1_frontal.jpg",
    "CheXpert/val/patient94544/study1/view1_frontal.jpg",
    "CheXpert/test/patient94741/study1/view1_frontal.jpg",
    "CheXpert/val/example.jpg",
    "old/patient94541/study1/view1_frontal.jpg",
)


def build(root: Path) -> None:
    (root / "CheXlocalize").mkdir()
    (root / _POLYGONS).write_text(json.dumps(POLYGONS))
    (root / _RUNS).write_text(json.dumps(RUNS))
    (root / "CheXlocalize" / "hb_annotations_test.json").write_text("{}")
    for name in _PICTURES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(root / name)
    (root / "CheXpert" / "val_labels.csv").write_text(VAL, encoding="utf-8-sig")
    (root / "CheXpert" / "test_labels.csv").write_text(TEST, newline="\r\n")
