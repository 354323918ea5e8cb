"""A small folder in the native layout of covid-chestxray-dataset, with its odd values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = (
    "patientid,offset,sex,age,finding,survival,intubated,intubation_present,went_icu,in_icu,needed_supplemental_O2,"
    "extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,view,modality,date,"
    "location,folder,filename,doi,url,license,clinical_notes,other_notes,"
)
# patientid, sex, age, finding, view, modality, folder, filename, clinical notes, other notes
ROWS = (
    ("2", "M", "65", "COVID-19", "PA", "X-ray", "images", "a.jpeg", "Opacity\ufffd in  the left lung, new.", ""),
    ("2", "M", "65", "COVID-19, ARDS", "AP Supine", "X-ray", "images", "b.JPG", "", "Case courtesy of Dr A, rID: 1"),
    ("2", "M", "65", "COVID-19, ARDS", "AP Supine", "X-ray", "images", "b.JPG", "", "Case courtesy of Dr A, rID: 1"),
    ("3", "F", "230", "Pneumonia/Viral/COVID-19", "L", "X-ray", "images", "c.png", "Fever", " and cough for two days."),
    ("324a", "", "", "todo", "", "X-ray", "images", "d.png", "\ufffd ?", ""),
    ("5", "F", "7", "No Finding", "PA", "X-ray", "images", "gone.png", "", ""),
    ("6", "F", "50", "COVID-19", "Axial", "CT", "images", "ct.png", "", ""),
    ("6", "F", "50", "COVID-19", "Axial", "CT", "volumes", "ct.nii.gz", "", ""),
    ("7", "M", "41", "Unknown", "PA", "X-ray", "images", "../secret.png", "", ""),
    ("7", "M", "41", "Unknown", "PA", "X-ray", "images", "/etc/secret.png", "", ""),
    ("7", "M", "41", "Unknown", "PA", "X-ray", "images", "C:\\secret.png", "", ""),
)
NOT_IMAGES = ("annotations",)
REQUIRED = ("metadata.csv", "images")
GOLDEN = {
    "images/a.jpeg": [("COVID-19", "present")],
    "images/b.JPG": [("COVID-19", "present"), ("ARDS", "present")],
    "images/c.png": [
        ("Pneumonia", "present"),
        ("Pneumonia/Viral", "present"),
        ("Pneumonia/Viral/COVID-19", "present"),
    ],
    "images/d.png": [],
}
EXCLUDED = {
    "image file is missing": 1,
    "modality is CT": 2,
    "no row in metadata.csv": 1,
    "path leaves the folder": 3,
}
MALFORMED = (
    ("metadata.csv", ",X-ray,", ",MRI,", TableError, "metadata.csv:2"),
    ("metadata.csv", "modality", "modalty", TableError, "metadata.csv:1"),
    ("metadata.csv", "Fever", 'Fev"er', None, ""),
    ("metadata.csv", "todo", '"todo', TableError, "metadata.csv:6"),
    ("metadata.csv", ",7,No Finding", ",7,No Finding,more", TableError, "metadata.csv:7"),
    ("annotations/imageannotation_ai_lung_bounding_boxes.json", "{", "{,", TableError, ".json:1"),
    ("annotations/imageannotation_ai_lung_bounding_boxes.json", '"bbox"', '"box"', TableError, ".json"),
    ("annotations/imageannotation_ai_lung_bounding_boxes.json", "10.5", '"ten"', TableError, "annotations[0]"),
)


def line(row: tuple[str, ...]) -> str:
    patient, sex, age, finding, view, modality, folder, name, notes, other = row
    cells = [patient, "0", sex, age, finding, *[""] * 12, view, modality, "2020", "Rome, Italy", folder, name]
    cells += ["", "", "CC BY", notes, other, ""]
    return ",".join(f'"{cell}"' if "," in cell else cell for cell in cells)


def build(root: Path) -> None:
    for folder in ("images", "annotations/lungVAE-masks", "annotations/semantic_masks_v7labs_lungs"):
        (root / folder).mkdir(parents=True)
    (root / "metadata.csv").write_text("\n".join([HEADER, *map(line, ROWS)]) + "\n", encoding="utf-8")
    grey = Image.fromarray(np.arange(24 * 20, dtype=np.uint16).astype(np.uint8).reshape(24, 20))
    for name, mode in (("a.jpeg", "L"), ("b.JPG", "RGB"), ("c.png", "RGBA"), ("d.png", "P"), ("ct.png", "L")):
        grey.convert(mode).save(root / "images" / name)
    grey.save(root / "images" / "without_row.png")
    (root / "images" / "notes.txt").write_text("no picture")
    mask = Image.fromarray(np.where(np.arange(480).reshape(24, 20) % 3, 0, 127).astype(np.uint8))
    mask.save(root / "annotations/lungVAE-masks/b_mask.png")
    mask.save(root / "annotations/lungVAE-masks/c_mask.png.png")
    mask.save(root / "annotations/lungVAE-masks/nobody_mask.png")
    mask.save(root / "annotations/semantic_masks_v7labs_lungs/a.jpeg", format="PNG")
    boxes = {
        "categories": [{"id": 1, "name": "Right Lung"}, {"id": 2, "name": "Left Lung"}],
        "images": [{"id": 1, "file_name": "a.jpeg", "width": 200, "height": 240}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10.5, 20, 50, 90]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [None, None, None, None]},
        ],
    }
    path = root / "annotations/imageannotation_ai_lung_bounding_boxes.json"
    path.write_text(json.dumps(boxes), encoding="utf-8")
