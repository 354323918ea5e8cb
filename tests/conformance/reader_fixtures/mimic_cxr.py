"""A small folder in the native layout of MIMIC-CXR: DICOM files, the list of records, reports still in their zip."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

IDS = tuple(f"{number:08x}-55555555-66666666-77777777-88888888" for number in range(4))
RECORDS = "subject_id,study_id,dicom_id,path\n" + "".join(
    f"19999998,{study},{dicom_id},files/p19/p19999998/s{study}/{dicom_id}.dcm\n"
    for study, dicom_id in ((59999991, IDS[0]), (59999991, IDS[1]), (59999992, IDS[2]))
)
REPORT = """                                 FINAL REPORT
 CHEST, TWO VIEWS:  Lungs are clear.

 CONCLUSION:  No pneumonia.
"""
REQUIRED = ("cxr-record-list.csv", "files")
GOLDEN: dict[str, list[tuple[str, str]]] = {IDS[0]: [], IDS[1]: []}
EXCLUDED = {"image file is missing": 1, "no row in cxr-record-list.csv": 1}
_TABLE = "cxr-record-list.csv"
MALFORMED = (
    (_TABLE, f"s59999991/{IDS[0]}", f"s59999992/{IDS[0]}", TableError, f"{_TABLE}:2"),
    (_TABLE, "files/p19", "../files/p19", TableError, f"{_TABLE}:2"),
    (_TABLE, "19999998,59999992", "9999998,59999992", TableError, f"{_TABLE}:4"),
    (_TABLE, "dicom_id", "dicom", TableError, f"{_TABLE}:1"),
)


def write_dicom(path: Path, view: str) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.ViewPosition = view
    dataset.save_as(path, enforce_file_format=True)


def build(root: Path) -> None:
    (root / _TABLE).write_text(RECORDS)
    write_dicom(root / f"files/p19/p19999998/s59999991/{IDS[0]}.dcm", "PA")
    unreadable = root / f"files/p19/p19999998/s59999991/{IDS[1]}.dcm"
    unreadable.write_bytes(b"no DICOM at all")
    write_dicom(root / f"files/p19/p19999998/s59999992/{IDS[3]}.dcm", "LL")
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
        archive.writestr("files/p19/p19999998/s59999991.txt", REPORT)
