"""A small folder in the native layout of MIDRC-RICORD-1c: DICOM files by patient, study and series; MD.ai's export."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

EXPORT = "1c_mdai_rsna_project_MwBeK3Nr_annotations_labelgroup_all_2021-01-08-164102_v3.json"
NAMES = (
    "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance", "Negative for Pneumonia",
    "Mild Opacities (1-2 lung zones)", "Moderate Opacities (3-4 lung zones)", "Severe Opacities (>4 lung zones)",
    "Limited Study",
)  # fmt: skip
GROUPS = ("Reader group 1", "Reader group 2", "Reader group 3", "Adjudication")
# Votes: study → the labels of each group, by the beginning of their names.
VOTES = {
    "1.3.1": (("Typical", "Mild"), ("Typical", "Moderate"), ("Atypical", "Severe"), ()),
    "1.3.2": (("Typical",), ("Typical",), ("Negative",), ("Negative",)),
    "1.3.3": (("Typical", "Limited"), ("Indeterminate",), ("Negative",), ()),
    "1.3.9": (("Typical",), ("Typical",), ("Typical",), ()),
}
REQUIRED = ("MIDRC-RICORD-1C", "1c_mdai")
UNMAPPED = (
    "Limited Study", "Mild Opacities (1-2 lung zones)", "Moderate Opacities (3-4 lung zones)",
    "Negative for Pneumonia", "Severe Opacities (>4 lung zones)",
)  # fmt: skip


def path_of(patient: str, study: str, view: str, number: int = 1) -> str:
    folder = f"MIDRC-RICORD-1C-{patient}/12-01-2003-NA-XR CHEST 1 VIEW AP PORTABLE-{study[-5:].replace('.', '')}"
    return f"MIDRC-RICORD-1C/{folder}/{number}.000000-{view}-09124/1-1.dcm"


FILES = {
    path_of("419639-003251", "1.3.1", "AP"): ("419639-003251", "1.3.1", "AP", "DX"),
    path_of("419639-003251", "1.3.1", "LL", 2): ("419639-003251", "1.3.1", "LL", "DX"),
    path_of("419639-003251", "1.3.2", "PA"): ("419639-003251", "1.3.2", "PA", "CR"),
    path_of("SITE2-000061", "1.3.3", "AP"): ("SITE2-000061", "1.3.3", "AP", "CR"),
    path_of("SITE2-000061", "1.3.4", "AP"): ("SITE2-000061", "1.3.4", "AP", "CR"),
    path_of("440808-000007", "1.3.5", "AP"): ("440808-000007", "1.3.5", "AP", "CT"),
}
_TYPICAL, _INDETERMINATE, _ATYPICAL, _NEGATIVE = NAMES[:4]
GOLDEN = {
    path_of("419639-003251", "1.3.1", "AP"): [
        (_TYPICAL, "present"), (_INDETERMINATE, "absent"), (_ATYPICAL, "absent"), (_NEGATIVE, "absent"),
        *((name, "uncertain") for name in NAMES[4:7]),
    ],
    path_of("419639-003251", "1.3.2", "PA"): [
        (_TYPICAL, "absent"), (_INDETERMINATE, "absent"), (_ATYPICAL, "absent"), (_NEGATIVE, "present"),
    ],
    path_of("SITE2-000061", "1.3.3", "AP"): [
        (_TYPICAL, "uncertain"), (_INDETERMINATE, "uncertain"), (_ATYPICAL, "absent"), (_NEGATIVE, "uncertain"),
        ("Limited Study", "uncertain"),
    ],
    path_of("SITE2-000061", "1.3.4", "AP"): [],
}  # fmt: skip
EXCLUDED = {"DICOM header cannot be read": 1, "modality is CT": 1, "view is neither AP nor PA": 1}
MALFORMED = (
    (EXPORT, '"labelGroups"', '"groups"', TableError, EXPORT),
    (EXPORT, '"labelId": "L_0_0"', '"labelId": "L_9_9"', TableError, "annotation 0"),
    (EXPORT, '"StudyInstanceUID": "1.3.1"', '"StudyInstanceUID": null', TableError, "annotation 0"),
    (EXPORT, '"annotations": [', '"annotations": 5, "x": [', TableError, EXPORT),
)


def export() -> str:
    groups = [
        {
            "id": f"G_{group}",
            "name": title,
            # One group writes the names in other capitals.
            "labels": [
                {"id": f"L_{group}_{number}", "name": name.lower() if group == 2 else name, "scope": "STUDY"}
                for number, name in enumerate(NAMES)
            ],
        }
        for group, title in enumerate(GROUPS)
    ]
    annotations = [
        {"id": "A", "labelId": f"L_{group}_{number}", "StudyInstanceUID": study, "SeriesInstanceUID": None}
        for study, votes in VOTES.items()
        for group, given in enumerate(votes)
        for number, name in enumerate(NAMES)
        if name.startswith(given or ("no such label",))
    ]
    datasets = [{"id": "D", "name": "1c", "annotations": annotations}]
    return json.dumps({"labelGroups": groups, "datasets": datasets}, indent=1)


def write_dicom(path: Path, patient: str, study: str, view: str, modality: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID, dataset.StudyInstanceUID = f"MIDRC-RICORD-1C-{patient}", study
    dataset.PatientSex, dataset.PatientAge, dataset.ViewPosition, dataset.Modality = "F", "071Y", view, modality
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 7, 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(range(64))
    dataset.save_as(path, enforce_file_format=True)


def build(root: Path) -> None:
    (root / EXPORT).write_text(export())
    (root / "MIDRC-RICORD-1c Clinical Data Jan 13 2021 .xlsx").write_bytes(b"not read")
    for name, (patient, study, view, modality) in FILES.items():
        write_dicom(root / name, patient, study, view, modality)
    damaged = root / path_of("440808-000007", "1.3.6", "AP")
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no DICOM at all")
