"""Traps of covid-chestxray and covid-segmentations: regions, notes and what is excluded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from umif.errors import TableError
from umif.readers.base import Record, Region
from umif.readers.covid_chestxray import BOXES, LUNGVAE, V7LABS, CovidChestxray
from umif.readers.covid_segmentations import CovidSegmentations

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "patientid,sex,age,finding,view,modality,folder,filename,clinical_notes,other_notes,\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.jpeg", "b.png"):
        (tmp_path / "images" / name).write_bytes(b"")
    write_rows(tmp_path, "1,M,30,COVID-19,PA,X-ray,images,a.jpeg,,,", "2,F,,todo,AP,X-ray,images,b.png,,,")
    return tmp_path


def write_rows(root: Path, *rows: str) -> None:
    (root / "metadata.csv").write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")


def read(root: Path) -> dict[str, Record]:
    return {record.image_id: record for record in CovidChestxray(root).read()}


def texts(root: Path, notes: str, other: str) -> list[str]:
    write_rows(root, f'1,M,30,COVID-19,PA,X-ray,images,a.jpeg,"{notes}","{other}",')
    return [text.text for text in read(root)["images/a.jpeg"].texts]


def test_notes_are_cleaned_and_joined_with_their_rest(root: Path) -> None:
    assert texts(root, "Two  days of\n fever", " positive test.") == ["Two days of fever positive test."]
    assert texts(root, "Abra\ufffdo \ufffd cough", "") == ["Abrao cough"]
    assert texts(root, "Died (Courtesy of Song F, Shanghai). Day 3.", "") == ["Died. Day 3."]
    assert texts(root, " - ?\ufffd", "") == []
    assert texts(root, "", "") == []


@pytest.mark.parametrize(
    "thanks",
    [
        "Case courtesy of Dr A, Radiopaedia.org, rID: 1", "Credit to B", "Image originally shared on Figure 1.",
        "Since January 2020 Elsevier has created a resource centre", "? Department of Radiology, Berlin",
    ],
)  # fmt: skip
def test_thanks_to_a_source_never_become_text(root: Path, thanks: str) -> None:
    assert texts(root, "Cough", thanks) == ["Cough"]


def test_findings_of_the_older_and_the_newer_table(root: Path) -> None:
    write_rows(
        root,
        '1,M,30,"COVID-19, ARDS",PA,X-ray,images,a.jpeg,,,',
        "2,F,,Pneumonia/Bacterial/E.Coli,AP,X-ray,images,b.png,,,",
    )
    names = {key: [finding.name for finding in record.findings] for key, record in read(root).items()}
    assert names["images/a.jpeg"] == ["COVID-19", "ARDS"]
    assert names["images/b.png"] == ["Pneumonia", "Pneumonia/Bacterial", "Pneumonia/Bacterial/E.Coli"]


@pytest.mark.parametrize("finding", ["todo", "Unknown", ""])
def test_unlabelled_image_has_no_finding_and_is_no_negative(root: Path, finding: str) -> None:
    write_rows(root, f"1,M,30,{finding},PA,X-ray,images,a.jpeg,,,")
    reader = CovidChestxray(root)
    (record,) = reader.read()
    assert record.findings == ()
    assert reader.account.notes["image without a finding (todo, Unknown or blank)"] == 1


def test_repeated_rows_are_merged_and_counted(root: Path) -> None:
    row = "1,M,30,COVID-19,PA,X-ray,images,a.jpeg,,,"
    write_rows(root, row, row, row.replace("30", "31"))
    reader = CovidChestxray(root)
    (record,) = reader.read()
    assert (record.age_years, record.where) == (30, "metadata.csv:2")
    assert reader.account.notes["repeated row, equal"] == 1
    assert reader.account.notes["repeated row that differs: the first one is used"] == 1
    assert reader.account.excluded == {"no row in metadata.csv": 1}


def test_ct_is_excluded_even_where_its_file_is_missing(root: Path) -> None:
    write_rows(root, "1,M,30,COVID-19,Axial,CT,volumes,ct.nii.gz,,,", "1,M,30,COVID-19,Axial,,images,a.jpeg,,,")
    reader = CovidChestxray(root)
    assert list(reader.read()) == []
    assert reader.account.excluded == {
        "modality is CT": 1,
        "modality is not stated": 1,
        "no row in metadata.csv": 1,
    }


def write_boxes(root: Path, boxes: list[Any], **image: Any) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    data = {
        "categories": [{"id": 1, "name": "Right Lung"}, {"id": 2, "name": "Left Lung"}],
        "images": [{"id": 7, "file_name": "a.jpeg", "width": 400, "height": 300, **image}],
        "annotations": [{"image_id": 7, "category_id": 1 + i % 2, "bbox": box} for i, box in enumerate(boxes)],
    }
    (root / BOXES).write_text(json.dumps(data))


def test_lung_boxes_keep_the_frame_of_their_file(root: Path) -> None:
    write_boxes(root, [[10, 20.5, 30, 40], [None] * 4, [1, 2, 0, 4]])
    reader = CovidChestxray(root)
    records = {record.image_id: record for record in reader.read()}
    box = Region("Right Lung", "box", box=(10.0, 20.5, 30.0, 40.0), frame=(400, 300))
    assert records["images/a.jpeg"].regions == (box,)
    assert reader.account.notes["null lung box"] == 1
    assert reader.account.notes["lung box without extent"] == 1


@pytest.mark.parametrize(
    ("boxes", "image"),
    [
        ([[1, 2, 3]], {}), (["x"], {}), ([[1, 2, 3, "4"]], {}), ([[1, 2, 3, True]], {}), ([[1, 2, 3, 1e300]], {}),
        ([[1, 2, 3, float("nan")]], {}), ([[1, 2, 3, 4]], {"width": 0}), ([[1, 2, 3, 4]], {"id": [7]}),
        ([[1, 2, 3, 4]], {"id": 8}), ([[1, 2, 3, 4]], {"height": None}),
    ],
)  # fmt: skip
def test_malformed_lung_boxes_are_table_errors(root: Path, boxes: list[Any], image: dict[str, Any]) -> None:
    write_boxes(root, boxes, **image)
    with pytest.raises(TableError, match="lung_bounding_boxes"):
        read(root)


def test_both_kinds_of_lung_masks_find_their_image(root: Path) -> None:
    for folder, name in ((LUNGVAE, "a_mask.png"), (LUNGVAE, "b_mask.png.png"), (V7LABS, "a.jpeg"), (V7LABS, "c.png")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name).write_bytes(b"")
    reader = CovidChestxray(root)
    records = {record.image_id: record for record in reader.read()}
    paths = [region.mask_path for region in records["images/a.jpeg"].regions]
    assert paths == [root / LUNGVAE / "a_mask.png", root / V7LABS / "a.jpeg"]
    assert [region.mask_path for region in records["images/b.png"].regions] == [root / LUNGVAE / "b_mask.png.png"]
    assert reader.account.notes["lung region of an image that is not read"] == 1


def test_lungvae_mask_that_fits_two_images_is_given_to_neither(root: Path) -> None:
    (root / "images" / "a.png").write_bytes(b"")
    (root / LUNGVAE).mkdir(parents=True)
    (root / LUNGVAE / "a_mask.png").write_bytes(b"")
    reader = CovidChestxray(root)
    assert not any(record.regions for record in reader.read())
    assert reader.account.notes["lungVAE mask that fits several images"] == 1


def test_crops_are_placed_at_their_offsets(root: Path) -> None:
    (root / "masks").mkdir()
    (root / "masks" / "m.png").write_bytes(b"")
    columns = "Class,Filename,Mask,Resolution,Top,Left,Width,Height\n"
    (root / "structure.csv").write_text(columns + "COVID-19 Airways,a.jpeg,masks/m.png,402x320,7,143,126,175\n")
    records = {record.image_id: record for record in CovidSegmentations(root).read()}
    (region,) = records["images/a.jpeg"].regions
    assert region == Region(
        "COVID-19 Airways", "mask", mask_path=root / "masks" / "m.png", offset=(143, 7), frame=(402, 320)
    )
    assert records["images/a.jpeg"].patient_namespace == "covid-chestxray"


@pytest.mark.parametrize("cells", ["0x320,7,143", "402,7,143", "402x320,-1,143", "402x320,7,x"])
def test_malformed_placement_names_its_line(root: Path, cells: str) -> None:
    (root / "masks").mkdir()
    (root / "masks" / "m.png").write_bytes(b"")
    (root / "structure.csv").write_text(
        f"Class,Filename,Mask,Resolution,Top,Left\nAirways,a.jpeg,masks/m.png,{cells}\n"
    )
    with pytest.raises(TableError, match=r"structure\.csv:2"):
        list(CovidSegmentations(root).read())
