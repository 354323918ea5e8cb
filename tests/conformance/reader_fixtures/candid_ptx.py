"""A small folder in the native layout of CANDID-PTX: files named by their UID without suffix, one row per mask."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

KEYS = tuple(f"1.2.826.0.1.3680043.8.498.{number}" for number in range(8))
REPORT = 'XR CHEST\nThere is a small "apical" pneumothorax,\nwith a drain.'
# Rows: image, study, file name, mask, report.
ROWS = (
    (KEYS[0], "1.9.0", "P101_2011-02-03_1", "2048 3 1021 5", REPORT),
    (KEYS[0], "1.9.0", "P101_2011-02-03_1", "2050 10", REPORT),
    (KEYS[0], "1.9.0", "P101_2011-02-03_1", "2050 10", REPORT),
    (KEYS[1], "1.9.1", "P101_2012-02-03_1", "-1", "No pneumothorax."),
    (KEYS[2], "1.9.2", "P102_2012-02-03_1", "", ""),
    (KEYS[3], "1.9.3", "P103_2013-02-03_1", "-1", "Clear."),
    (KEYS[3], "1.9.3", "P104_2013-02-03_1", "-1", "Clear."),
    (KEYS[4], "1.9.4", "P105_2013-02-03_1", "7 7", "Missing."),
)
TUBES = ((KEYS[0], "a1", "0 1024 1024 5"), (KEYS[2], "a2", "-1"), (KEYS[7], "a3", "5 5"))
RIBS = ((KEYS[1], "b1", "100 50"), (KEYS[1], "b2", "400 50"))
REQUIRED = ("Pneumothorax_reports.csv", "dataset")
GOLDEN = {
    KEYS[0]: [("Pneumothorax", "present"), ("chest tube", "present"), ("acute rib fracture", "absent")],
    KEYS[1]: [("Pneumothorax", "absent"), ("chest tube", "absent"), ("acute rib fracture", "present")],
    KEYS[2]: [("Pneumothorax", "absent"), ("chest tube", "absent"), ("acute rib fracture", "absent")],
}
EXCLUDED = {
    "another copy of the same image is used": 1,
    "image file is missing": 1,
    "image of two patients": 1,
    "no row in Pneumothorax_reports.csv": 1,
}
_TABLE, _TUBES = "Pneumothorax_reports.csv", "chest_tube.csv"
MALFORMED = (
    (_TABLE, "2048 3 1021 5", "2048 3 1021", TableError, "reports.csv:2"),
    (_TABLE, "2050 10", "2050 -10", TableError, "reports.csv:5"),
    (_TABLE, "2050 10", "-1", TableError, "reports.csv:5"),
    (_TABLE, "7 7", "7 1048570", TableError, "reports.csv"),
    (_TABLE, "P102_2012", "2012", TableError, "reports.csv"),
    (_TABLE, f"\n{KEYS[2]},", "\n,", TableError, "reports.csv"),
    (_TABLE, "EncodedPixels", "Encoded", TableError, "reports.csv:1"),
    (_TUBES, "1024 1024 5", "1024 1024", TableError, "chest_tube.csv:2"),
    (_TUBES, "anon_SOPUID", "SOPUID", TableError, "chest_tube.csv:1"),
)


def write(path: Path, header: tuple[str, ...], rows: tuple[tuple[str, ...], ...], encoding: str = "utf-8") -> None:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([header, *rows])


def build(root: Path) -> None:
    header = ("SOPInstanceUID", "StudyInstanceUID", "filename", "EncodedPixels", "Report")
    write(root / _TABLE, header, ROWS, "utf-8-sig")
    write(root / _TUBES, ("anon_SOPUID", "tube_annotation", "mask_rle"), TUBES)
    write(root / "Rib_fracture_mask_rle.csv", ("anon_SOPUID", "rib_annotation", "mask_rle"), RIBS)
    (root / "dataset").mkdir()
    for number in (0, 1, 2, 3, 5):
        (root / "dataset" / KEYS[number]).write_bytes(b"DICOM without its suffix; no pixel is read")
    (root / "dataset" / f"{KEYS[1]}.dcm").write_bytes(b"")
