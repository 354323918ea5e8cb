"""What of a DICOM header a reader may see: identifiers as hashes, codes if they are known ones, and nothing else."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from umif.readers.dicom_header import KEY_VARIABLE, OTHER, hash_identifier, read_dicom_header

if TYPE_CHECKING:
    from pathlib import Path

UID = "1.2.840.10008.5.1.4.1.1.1.1"


def written(path: Path, **elements: str) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        ExplicitVRLittleEndian, UID, "1.2.3",
    )  # fmt: skip
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    with disable_value_validation():
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path, enforce_file_format=True)
    return path


def test_identifiers_come_hashed_and_blank_stays_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    path = written(tmp_path / "a.dcm", PatientID="MRN 4711 ", StudyInstanceUID="")
    header = read_dicom_header(path, ("PatientID", "StudyInstanceUID"))
    # Reckoned here once more, so that published corpora keep their ids.
    expected = hashlib.blake2b(b"MRN 4711", digest_size=16, person=b"umif header id").hexdigest()
    assert header == {"PatientID": expected, "StudyInstanceUID": ""}


def test_a_secret_makes_other_hashes_which_are_as_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []
    for secret in ("", "one", "one", "another"):
        monkeypatch.setenv(KEY_VARIABLE, secret)
        hashes.append(hash_identifier("4711"))
    plain, one, again, other = hashes
    assert one == again
    assert len({plain, one, other}) == 3
    assert hash_identifier("4712") != other


@pytest.mark.parametrize(
    ("element", "value", "kept"),
    [
        ("ViewPosition", "PA", "PA"),
        ("ViewPosition", " pa", "pa"),
        ("ViewPosition", "PA WARBURTON", OTHER),
        ("ViewPosition", "", ""),
        ("Modality", "DX", "DX"),
        ("Modality", "MR WARBURTON", OTHER),
    ],
)
def test_codes_are_kept_if_they_are_codes(tmp_path: Path, element: str, value: str, kept: str) -> None:
    path = written(tmp_path / "a.dcm", **{element: value})
    assert read_dicom_header(path, (element,)) == {element: kept}


def test_a_keyword_without_a_rule_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.dcm", PatientName="Warburton^Ann")
    with pytest.raises(ValueError, match="PatientName"):
        read_dicom_header(path, ("PatientSex", "PatientName"))
