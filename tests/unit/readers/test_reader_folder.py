"""Anybody's pictures in one folder per class: what a folder's name says, and which folders are no classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from umif.errors import LayoutError
from umif.readers.chest_xray_pneumonia import ChestXrayPneumonia
from umif.readers.folder import Folder, findings_of

if TYPE_CHECKING:
    from pathlib import Path

    from umif.readers.base import Finding


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def states(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {finding.name: finding.state.value for finding in findings}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Mass", {"Mass": "present"}),
        ("NORMAL", {"NORMAL": "present", "Mass": "absent", "lung_opacity": "absent"}),
        ("no_mass", {"Mass": "absent"}),
        ("Not lung-opacity", {"lung_opacity": "absent"}),
        ("nodule", {"nodule": "present"}),
        ("non-specific", {"non-specific": "present"}),
    ],
)
def test_what_a_class_says(label: str, expected: dict[str, str]) -> None:
    classes = tuple(dict.fromkeys(("Mass", "NORMAL", "lung_opacity", "no_mass", label)))
    assert states(findings_of(label, classes)) == expected


def test_splits_stand_above_classes_and_hidden_folders_are_no_part(tmp_path: Path) -> None:
    names = ("Train/a/1.png", "VALID/a/2.jpg", "test/b/x/3.dcm", ".cache/4.png", "__MACOSX/train/a/5.png")
    reader = Folder(touch(tmp_path, *names, "Train/a/.hidden/6.png", "Train/a/notes.txt"))
    records = list(reader.read())
    assert [(record.image_id, record.split) for record in records] == [
        ("Train/a/1.png", "train"),
        ("VALID/a/2.jpg", "val"),
        ("test/b/x/3.dcm", "test"),
    ]
    assert reader.account.excluded == {"folder is hidden": 3}
    assert reader.account.seen == 6


def test_an_image_folder_of_a_mask_set_is_read_and_the_masks_are_left_out(tmp_path: Path) -> None:
    names = ("covid segmentation/images/1.png", "covid segmentation/masks/1.png", "normal/images/2.png")
    reader = Folder(touch(tmp_path, *names))
    assert [record.image_id for record in reader.read()] == [names[0], names[2]]
    assert reader.account.excluded == {"folder holds masks": 1}


def test_a_split_beside_a_class_is_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"holds the split 'train' beside 'pneumonia'"):
        list(Folder(touch(tmp_path, "train/a/1.png", "pneumonia/2.png")).read())


@pytest.mark.parametrize("names", [("1.png",), ("notes.txt",), ()])
def test_pictures_without_classes_are_sent_to_the_table(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(LayoutError, match="the reader 'table'"):
        list(Folder(touch(tmp_path, *names)).read())


@pytest.mark.parametrize("name", ["images", "Masks", "labels"])
def test_a_folder_that_is_no_class_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match=f"the folder '{name}' is no class"):
        list(Folder(touch(tmp_path, f"{name}/1.png", "a/2.png")).read())


def test_a_folder_one_level_too_high_says_which_to_give(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"perhaps .*chest_xray"):
        list(Folder(touch(tmp_path, "chest_xray/normal/1.png", "chest_xray/pneumonia/2.png")).read())


def test_real_classes_are_those_of_the_datasets_own_reader(real_data: Path) -> None:
    folder = real_data / "chest_xray"
    records = {record.image_id: record for record in Folder(folder).read()}
    expected = {record.image_id: record for record in ChestXrayPneumonia(folder).read()}
    assert records.keys() == expected.keys()
    for item, record in records.items():
        assert record.split == expected[item].split
        theirs = states(expected[item].findings)
        assert states(record.findings).items() <= theirs.items()
