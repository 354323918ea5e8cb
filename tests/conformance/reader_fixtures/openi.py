"""A small folder of Open-i as the later copy has it: two tables and pictures, with the XML of one report beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

REPORTS = """uid,MeSH,Problems,image,indication,comparison,findings,impression
1,normal,normal,Xray Chest PA and Lateral,Positive TB test,None.,The lungs are clear.,Normal chest x-XXXX.
2,Cardiomegaly/borderline;Lung/hyperdistention;Cardiomegaly/mild,Cardiomegaly;Lung;Cardiomegaly,"Chest, 2 views",,,\
"Borderline cardiomegaly. ""Clear"" lungs,
no effusion.",No acute pulmonary findings.
3,"No Indexing;Aorta, Thoracic/tortuous;Diaphragm/right/elevated","No Indexing;Aorta, Thoracic;Diaphragm",,,,,
4,Technical Quality of Image Unsatisfactory ,Technical Quality of Image Unsatisfactory ,,,,XXXX.,
5,Opacity/lung/base/left;Lung,Opacity;Lung,,,,Left base opacity.,
1,normal,normal,Xray Chest PA and Lateral,Positive TB test,None.,The lungs are clear.,Normal chest x-XXXX.
"""
PROJECTIONS = """uid,filename,projection
1,1_IM-0001-4001.dcm.png,Frontal
1,1_IM-0001-3001.dcm.png,Lateral
2,2_IM-0652-1001.dcm.png,Frontal
3,3_IM-1384-1001.dcm.png,Frontal
4,4_IM-2050-1001.dcm.png,Frontal
5,5_IM-2117-1003002.dcm.png,Lateral
6,6_IM-2192-1001.dcm.png,Frontal
"""
REQUIRED = ("indiana_reports.csv", "indiana_projections.csv")
_FOLDER = "images/images_normalized"
GOLDEN = {
    f"{_FOLDER}/1_IM-0001-3001.dcm.png": [("normal", "present")],
    f"{_FOLDER}/1_IM-0001-4001.dcm.png": [("normal", "present")],
    f"{_FOLDER}/2_IM-0652-1001.dcm.png": [("Cardiomegaly", "present"), ("Lung/hyperdistention", "present")],
    f"{_FOLDER}/3_IM-1384-1001.dcm.png": [
        ("Aorta, Thoracic/tortuous", "present"),
        ("Diaphragm/right/elevated", "present"),
    ],
    f"{_FOLDER}/4_IM-2050-1001.dcm.png": [],
}
EXCLUDED = {
    "another copy of the same image is used": 1,
    "file name is none of the collection's": 1,
    "image file is missing": 1,
    "no report": 2,
}
# A tortuous aorta is no finding of the vocabulary.
UNMAPPED = ("Aorta, Thoracic/tortuous",)
MALFORMED = (
    ("indiana_projections.csv", "3001.dcm.png,Lateral", "3001.dcm.png,Side", TableError, "projections.csv:3"),
    ("indiana_projections.csv", "2_IM-0652-1001", "../2_IM-0652-1001", TableError, "projections.csv:4"),
    ("indiana_projections.csv", "2,2_IM-0652", "3,2_IM-0652", TableError, "projections.csv:4"),
    ("indiana_projections.csv", "1_IM-0001-3001", "1_IM-0001-4001", TableError, "projections.csv:3"),
    ("indiana_projections.csv", "projection", "view", TableError, "projections.csv:1"),
    ("indiana_reports.csv", "4,Technical", ",Technical", TableError, "reports.csv:6"),
    ("indiana_reports.csv", "5,Opacity", "4,Opacity", TableError, "reports.csv:7"),
    ("indiana_reports.csv", "impression", "impresion", TableError, "reports.csv:1"),
    ("indiana_reports.csv", 'effusion."', 'effusion."x', TableError, "reports.csv:3"),
)


def build(root: Path) -> None:
    (root / "indiana_reports.csv").write_text(REPORTS, encoding="utf-8-sig")
    (root / "indiana_projections.csv").write_text(PROJECTIONS, newline="\r\n")
    (root / "ecgen-radiology").mkdir()
    (root / "ecgen-radiology" / "1.xml").write_text("<eCitation/>")
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    names = [f"{_FOLDER}/{line.split(',')[1]}" for line in PROJECTIONS.splitlines()[1:]]
    names.remove(f"{_FOLDER}/5_IM-2117-1003002.dcm.png")
    others = (f"{_FOLDER}/7_IM-2263-1001.dcm.png", "older/CXR1_1_IM-0001-4001.png", "older/montage.png")
    (root / _FOLDER).mkdir(parents=True)
    (root / "older").mkdir()
    for name in (*names, *others):
        grey.save(root / name)
