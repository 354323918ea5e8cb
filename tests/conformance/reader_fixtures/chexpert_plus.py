"""A small folder in the native layout of CheXpert Plus: a table with sections, PNG files, labels as JSON lines."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

SECTIONS = (
    "section_narrative", "section_clinical_history", "section_history", "section_comparison", "section_technique",
    "section_procedure_comments", "section_findings", "section_impression", "section_end_of_impression",
    "section_summary", "section_accession_number",
)  # fmt: skip
COLUMNS = (
    "", "path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order",
    "report", *SECTIONS, "age", "sex", "race", "ethnicity", "interpreter_needed", "insurance_type", "recent_bmi",
    "deceased", "split",
)  # fmt: skip
NAMES = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
)  # fmt: skip
_FIRST, _SECOND, _THIRD, _FOURTH = (
    "train/patient90001/study1/view1_frontal.jpg", "train/patient90001/study1/view2_lateral.jpg",
    "train/patient90002/study3/view1_frontal.jpg", "valid/patient94541/study1/view1_frontal.jpg",
)  # fmt: skip
_REPORT = {
    "report": 'NARRATIVE:\nCHEST, "TWO VIEWS"\n\nIMPRESSION:\n\n1.  SMALL EFFUSION.\n',
    "section_impression": "1.  Small left effusion,\n    no pneumothorax.\n",
    "section_findings": "The heart is\nnormal.",
}
# Ages went through a data frame; findings are blank as often as not; a line break stands inside many a cell.
ROWS = (
    {"path_to_image": _FIRST, "frontal_lateral": "Frontal", "ap_pa": "PA", "age": "61.0", "sex": "Female", **_REPORT},
    {"path_to_image": _SECOND, "frontal_lateral": "Lateral", "age": "61.0", "sex": "Female", **_REPORT},
    {
        "path_to_image": _THIRD, "frontal_lateral": "Frontal", "ap_pa": "AP", "age": "0.0", "sex": "Unknown",
        "section_impression": " . ", "section_summary": "2-abnormal, previously reported.",
    },
    {"path_to_image": _FOURTH, "frontal_lateral": "Frontal", "ap_pa": "AP", "age": "90", "sex": "Male"},
    {"path_to_image": _FOURTH, "frontal_lateral": "Frontal", "ap_pa": "AP", "age": "90", "sex": "Male"},
    {"path_to_image": "train/patient90003/study1/view1_frontal.jpg", "frontal_lateral": "Frontal", "age": "5"},
    {"path_to_image": "../train/patient90003/study1/view1_frontal.jpg", "frontal_lateral": "Frontal", "age": "5"},
)  # fmt: skip
LABELS = (
    {"path_to_image": _FIRST, "Pleural Effusion": 1.0, "Pneumothorax": 0.0, "Edema": -1.0},
    {"path_to_image": _SECOND, "Pleural Effusion": 1, "Pneumothorax": 0, "Edema": -1},
    {"path_to_image": _FOURTH, "No Finding": 1.0, "Support Devices": float("nan")},
    {"path_to_image": "train/patient90003/study1/view1_frontal.jpg"},
)
REQUIRED = ("df_chexpert_plus_240401.csv",)
_SEEN = [("Edema", "uncertain"), ("Pneumothorax", "absent"), ("Pleural Effusion", "present")]
GOLDEN = {_FIRST: _SEEN, _SECOND: _SEEN, _THIRD: [], _FOURTH: [("No Finding", "present")]}
EXCLUDED = {
    "file name is not patient/study/view": 1,
    "image file is missing": 1,
    "no row in df_chexpert_plus_240401.csv": 1,
    "path leaves the folder": 1,
    "the same image is in another folder": 1,
}
_TABLE, _LINES = "df_chexpert_plus_240401.csv", "chexbert_labels/report_fixed.json"
MALFORMED = (
    (_TABLE, "path_to_image", "path", TableError, "240401.csv:1"),
    (_TABLE, "section_impression", "impression", TableError, "240401.csv:1"),
    (_TABLE, "view2_lateral.jpg", "picture.jpg", TableError, "240401.csv:12"),
    (_TABLE, "valid/patient", "train/patient", TableError, "240401.csv"),
    (_TABLE, ",90,Male", ",91,Male", TableError, "240401.csv"),
    (_LINES, '"Edema": -1.0', '"Edema": -2.0', TableError, "report_fixed.json:1"),
    (_LINES, '"Edema": -1.0', '"Edema": "-1.0"', TableError, "report_fixed.json:1"),
    (_LINES, '"Edema": -1.0', '"Edema": true', TableError, "report_fixed.json:1"),
    (_LINES, '"Edema": -1,', '"Oedema": -1,', TableError, "report_fixed.json:2"),
    (_LINES, "view2_lateral", "view1_frontal", None, ""),
    (_LINES, "{", "[", TableError, "report_fixed.json:1"),
)
_PICTURES = (_FIRST, _SECOND, _THIRD, _FOURTH, "train/patient90009/study1/view1_frontal.jpg", "train/thumbnail.jpg")


def build(root: Path) -> None:
    with (root / _TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        for row in ROWS:
            split = row["path_to_image"].removeprefix("../").partition("/")[0]
            writer.writerow({"": "0", "deid_patient_id": "patient00017", **row, "split": split})
    (root / "chexbert_labels").mkdir()
    lines = [json.dumps(dict.fromkeys(NAMES) | labels) for labels in LABELS]
    (root / _LINES).write_text("\n".join(lines) + "\n")
    for name in _PICTURES:
        path = (root / "PNG" / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(path)
    second = root / "copies" / _FIRST  # after PNG in the order of names
    second.parent.mkdir(parents=True)
    Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(second)
