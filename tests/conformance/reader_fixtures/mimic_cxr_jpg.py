"""A small folder in the native layout of MIMIC-CXR-JPG: tables packed and unpacked, reports beside the pictures."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

LABELS = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
IDS = tuple(f"{number:08x}-11111111-22222222-33333333-44444444" for number in range(8))
METADATA_HEADER = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
METADATA = f"""{METADATA_HEADER}
{IDS[0]},19999998,59999991,"CHEST (PA, LAT)",PA,3056,2544,21800506,213014.531,"CHEST (PA, LAT)",postero-anterior,Erect
{IDS[1]},19999998,59999991,"CHEST (PA, LAT)",LATERAL,3056,2544,21800506,213014.531,"CHEST (PA, LAT)",lateral,Erect
{IDS[2]},19999998.0,59999992.0,CHEST (PORTABLE AP),AP,2544,3056,21800626,165500.312,,antero-posterior,
{IDS[3]},19999999,59999993,,,2544,3056,21800626,165500.312,,,
{IDS[3]},19999999,59999993,,,2544,3056,21800626,165500.312,,,
{IDS[4]},19999999,59999994,CHEST (PORTABLE AP),AP LLD,2544,3056,21800626,165500.312,,,
{IDS[5]},19999999,59999995,CHEST (PORTABLE AP),AP,2544,3056,21800626,165500.312,,,
"""
SPLIT = "dicom_id,study_id,subject_id,split\n" + "".join(
    f"{IDS[number]},{study},{subject},{split}\n"
    for number, study, subject, split in (
        (0, 59999991, 19999998, "train"),
        (1, 59999991, 19999998, "train"),
        (2, 59999992, 19999998, "train"),
        (3, 59999993, 19999999, "validate"),
        (4, 59999994, 19999999, "test"),
        (5, 59999995, 19999999, "test"),
    )
)
CHEXPERT = f"""subject_id,study_id,{LABELS}
19999998,59999991,,,0.0,,,,,1.0,,-1.0,,,0.0,
19999998,59999992,,,,,,,,,1.0,,,,,
19999998,59999992,,,,,,,,,1.0,,,,,
19999999,59999994,,1.0,,,,,,,,,,,,
"""
TEST_LABELS = f"""study_id,{LABELS.replace("Lung", "Airspace").replace("Airspace Lesion", "Lung Lesion").replace("No Finding,", "")}
59999994,0.0,,,,,,,1.0,,,,,
"""  # noqa: E501
REPORTS = {
    "19999998/s59999991": """ FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough.

 FINDINGS:

 Small left effusion since ___.  No
 pneumothorax.

 IMPRESSION:

 1.  As above.
""",
    "19999998/s59999992": " FINAL REPORT\n INDICATION: ___\n\n IMPRESSION:  No significant change.\n",
    "19999999/s59999993": "  \n",
}
REQUIRED = ("mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-split.csv", "files")
_STUDY_1 = [
    ("Consolidation", "absent"),
    ("Lung Opacity", "present"),
    ("Pleural Effusion", "uncertain"),
    ("Pneumothorax", "absent"),
]
GOLDEN = {
    IDS[0]: _STUDY_1,
    IDS[1]: _STUDY_1,
    IDS[2]: [("No Finding", "present")],
    IDS[3]: [],
    IDS[4]: [("Atelectasis", "absent"), ("Airspace Opacity", "present")],
}
EXCLUDED = {
    "another copy of the same image is used": 1,
    "file name is not subject/study/image": 1,
    "image file is missing": 1,
    "no row in mimic-cxr-2.0.0-metadata.csv": 1,
}
_FILE = "mimic-cxr-2.0.0-metadata.csv"
_CHEXPERT = "mimic-cxr-2.0.0-chexpert.csv"
MALFORMED = (
    (_FILE, ",19999998,59999991", ",29999998,59999991", TableError, f"{_FILE}:2"),
    (_FILE, ",19999998,59999991", ",19999998,5999999", TableError, f"{_FILE}:2"),
    (_FILE, ",19999998,59999991", ",19999999,59999991", TableError, "split.csv.gz:2"),
    (_FILE, IDS[0], IDS[0].upper().replace("0", "x"), TableError, f"{_FILE}:2"),
    (_FILE, f"{IDS[3]},19999999,59999993,,,2544", f"{IDS[3]},19999999,59999993,,PA,2544", TableError, f"{_FILE}:6"),
    (_FILE, "ViewPosition", "View", TableError, f"{_FILE}:1"),
    (_FILE, "19999998.0,59999992.0", "19999998.0,59999991.0", TableError, "split.csv.gz:4"),
    (_CHEXPERT, ",1.0,,-1.0", ",1.0,,-2.0", TableError, f"{_CHEXPERT}:2"),
    (_CHEXPERT, "59999992,,,,,,,,,1.0", "59999992,,,,,,,,,0.0", TableError, f"{_CHEXPERT}:4"),
    (_CHEXPERT, "Lung Opacity", "Airspace Opacity", TableError, f"{_CHEXPERT}:1"),
)
_FILES = (
    f"p19/p19999998/s59999991/{IDS[0]}.jpg",
    f"p19/p19999998/s59999991/{IDS[0]}.png",
    f"p19/p19999998/s59999991/{IDS[1]}.jpg",
    f"p19/p19999998/s59999992/{IDS[2]}.jpg",
    f"p19/p19999999/s59999993/{IDS[3]}.jpg",
    f"p19/p19999999/s59999994/{IDS[4]}.jpg",
    f"p19/p19999999/s59999994/{IDS[6]}.jpg",
    "p19/p19999999/s59999994/collage.jpg",
)


def build(root: Path) -> None:
    (root / _FILE).write_text(METADATA, encoding="utf-8-sig")
    (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(SPLIT.encode(), mtime=0))
    (root / _CHEXPERT).write_text(CHEXPERT)
    (root / "mimic-cxr-2.1.0-test-set-labeled.csv").write_text(TEST_LABELS)
    for name in _FILES:
        path = root / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(path)
    (root / "files" / _FILES[2]).write_bytes(b"no picture at all")
    (root / "files" / "p19" / "p19999999" / "s59999994" / "index.html").write_text("<html>")
    for name, report in REPORTS.items():
        (root / "files" / "p19" / f"p{name}.txt").write_text(report)
