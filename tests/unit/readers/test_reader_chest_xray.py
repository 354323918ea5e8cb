"""Patient keys and causes that only the file names of chest-xray-pneumonia state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from umif.errors import LayoutError
from umif.readers.chest_xray_pneumonia import ChestXrayPneumonia

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("IM-0115-0001", "IM-0115"),
        ("IM-0429-0001-0002", "IM-0429"),
        ("NORMAL2-IM-0385-0001", "NORMAL2-IM-0385"),
        ("person1001_bacteria_2932", "person1001"),
        ("person100_virus_184", "person100"),
        ("impersonator", None),
    ],
)
def test_patient_is_the_beginning_of_the_name(tmp_path: Path, name: str, patient: str | None) -> None:
    (tmp_path / "train" / "NORMAL").mkdir(parents=True)
    (tmp_path / "train" / "NORMAL" / f"{name}.jpeg").write_bytes(b"")
    reader = ChestXrayPneumonia(tmp_path)
    (record,) = reader.read()
    assert record.patient == patient
    assert record.split == "train"
    assert bool(reader.account.notes) == (patient is None)


def test_folder_without_the_two_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "cats").mkdir(parents=True)
    with pytest.raises(LayoutError, match="train/NORMAL"):
        list(ChestXrayPneumonia(tmp_path).read())
