"""Anybody's COCO files: outlines against references, pictures found, and what is said of what cannot be meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reader_checks import touch
from umif.corpus.regions import decode_runs
from umif.errors import LayoutError, TableError
from umif.readers.coco import Coco, split_of
from umif.readers.coco_regions import decode_counts
from umif.readers.covid_chestxray import BOXES, CovidChestxray
from umif.readers.tbx11k import Tbx11k

if TYPE_CHECKING:
    from pathlib import Path

    from umif.readers.base import Reader, Record

NODULE = [{"id": 1, "name": "Nodule"}]


def encode_counts(runs: list[int]) -> str:
    """Write run lengths as the COCO API's `rleToString` does: the inverse of what is tested, from its description."""
    text = ""
    for position, run in enumerate(runs):
        value = run - runs[position - 2] if position > 2 else run
        while True:
            bits = value & 0x1F
            value >>= 5
            done = value == (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits if done else bits | 0x20))
            if done:
                break
    return text


def write(root: Path, images: Any, annotations: Any = (), categories: Any = NODULE, name: str = "all.json") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    data = {"images": images, "annotations": list(annotations), "categories": categories}
    (root / name).write_text(json.dumps(data), encoding="utf-8")
    return root


def read(root: Path) -> tuple[dict[str, Record], Reader]:
    reader = Coco(root)
    return {record.image_id: record for record in reader.read()}, reader


def drawn(root: Path, **annotation: Any) -> Record:
    image = {"id": 1, "file_name": "a.png", "width": 4, "height": 3}
    (record,) = read(write(root, [image], [{"image_id": 1, "category_id": 1, **annotation}]))[0].values()
    return record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path, "a.png", "images/b.png")
    return tmp_path


# Outlines


@given(st.lists(st.integers(0, 2**40), max_size=40))
@settings(max_examples=300, deadline=None)
def test_compressed_counts_come_back(runs: list[int]) -> None:
    assert decode_counts(encode_counts(runs), "here") == runs


@given(st.text(max_size=12) | st.text([chr(code) for code in range(48, 112)], max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_other_text_is_refused_or_means_one_list_of_numbers(text: str) -> None:
    try:
        runs = decode_counts(text, "here")
    except TableError:
        return
    assert decode_counts(encode_counts(runs), "here") == runs


def test_compressed_counts_of_real_masks_cover_their_polygons(real_data: Path) -> None:
    folder = real_data / "chexlocalize-sample" / "sample"
    masks = json.loads((folder / "gt_segmentations_val.json").read_text())
    outlines = json.loads((folder / "gt_annotations_val.json").read_text())
    compared = 0
    for image, findings in masks.items():
        for finding, mask in findings.items():
            height, width = mask["size"]
            runs = decode_counts(mask["counts"], image)
            assert sum(runs) == height * width
            polygons = outlines[image].get(finding, [])
            if not polygons:
                assert sum(runs[1::2]) == 0
                continue
            expected = np.zeros((height, width), np.uint8)
            for polygon in polygons:
                cv2.fillPoly(expected, [np.rint(polygon).astype(np.int32)], 1)
            found = decode_runs(tuple(runs), height, width)
            # Both are drawn from the same corners, so at most a pixel along the outline is decided otherwise.
            outline = sum(cv2.arcLength(np.float32(polygon), closed=True) for polygon in polygons)
            assert (found ^ (expected > 0)).sum() < outline
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("counts", [[4, 2, 1, 2, 3], encode_counts([4, 2, 1, 2, 3])])
def test_run_lengths_go_down_the_columns(root: Path, counts: Any) -> None:
    (region,) = drawn(root, segmentation={"size": [3, 4], "counts": counts}, bbox=[0, 0, 1, 1]).regions
    assert (region.shape, region.frame) == ("rle", (4, 3))
    # By hand: pixels 4, 5, 7 and 8 counted down the columns of three.
    expected = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert np.array_equal(decode_runs(region.runs, 3, 4), np.array(expected, bool))


def test_an_outline_is_taken_before_its_box_and_parts_are_regions_of_their_own(root: Path) -> None:
    parts = [[0, 0, 2, 0, 2, 2.5], [3, 1, 4, 1, 4, 3, 3, 3]]
    regions = drawn(root, segmentation=parts, bbox=[0, 0, 4, 3]).regions
    assert [region.points for region in regions] == [
        ((0.0, 0.0), (2.0, 0.0), (2.0, 2.5)),
        ((3.0, 1.0), (4.0, 1.0), (4.0, 3.0), (3.0, 3.0)),
    ]


@pytest.mark.parametrize("segmentation", [[], [[0, 0, 1, 1]], [[0, 0, 0, 0, 0, 0]], None])
def test_without_an_outline_the_box_is_taken(root: Path, segmentation: Any) -> None:
    (region,) = drawn(root, segmentation=segmentation, bbox=[1, 0.5, 2, 1]).regions
    assert (region.shape, region.box, region.frame) == ("box", (1.0, 0.5, 2.0, 1.0), (4, 3))


@pytest.mark.parametrize("bbox", [[1, 1, 0, 2], [1, 1, 2, -1], [], None, [None, None, None, None]])
def test_a_box_without_extent_leaves_the_label(root: Path, bbox: Any) -> None:
    record = drawn(root, bbox=bbox)
    assert record.regions == ()
    assert [finding.name for finding in record.findings] == ["Nodule"]


def test_empty_run_lengths_are_noted(root: Path) -> None:
    assert drawn(root, segmentation={"size": [3, 4], "counts": [12]}).regions == ()


@pytest.mark.parametrize(
    "annotation",
    [
        {"segmentation": {"size": [4, 3], "counts": [12]}},
        {"segmentation": {"size": [3, 4], "counts": [13]}},
        {"segmentation": {"size": [3, 4], "counts": [-1, 13]}},
        {"segmentation": {"size": [3, 4], "counts": [1.5, 10.5]}},
        {"segmentation": {"size": [3, 4], "counts": 12}},
        {"segmentation": {"size": [3], "counts": [12]}},
        {"segmentation": {"counts": [12]}},
        {"segmentation": "all"},
        {"segmentation": [[0, 0, 1]]},
        {"segmentation": [{"x": 0}]},
        {"segmentation": [["0", "0", "1", "1", "2", "2"]]},
        {"bbox": [0, 0, 1]},
        {"bbox": "0 0 1 1"},
        {"bbox": [0, 0, 1, True]},
        {"bbox": [0, 0, 1e12, 1]},
        {"bbox": [float("nan"), 0, 1, 1]},
        {"category_id": 2},
        {"category_id": "one"},
        {"category_id": None},
        {"image_id": 2},
    ],
)
def test_what_cannot_be_meant_names_the_annotation(root: Path, annotation: dict[str, Any]) -> None:
    with pytest.raises(TableError) as caught:
        drawn(root, **annotation)
    assert str(root / "all.json") in str(caught.value.where)
    assert "annotations[0]" in str(caught.value.where)


# Pictures and files


def test_pictures_are_found_by_path_or_its_end_and_everything_is_accounted_for(root: Path) -> None:
    touch(root, "films/deep/c.png", "unlisted.png")
    names = ("a.png", "b.png", "deep/c.png", "gone.png", "../x.png", "/etc/x.png", "C:\\x.png")
    records, reader = read(write(root, [{"id": n, "file_name": name} for n, name in enumerate(names)]))
    assert list(records) == ["a.png", "films/deep/c.png", "images/b.png"]
    assert reader.account.excluded == {
        "image file is missing": 1,
        "no JSON file lists it": 1,
        "path leaves the folder": 3,
    }
    assert all(record.where is not None and str(root) not in record.where for record in records.values())


def test_two_pictures_that_a_name_can_mean_are_an_error_unless_the_split_decides(root: Path) -> None:
    touch(root, "train2017/1.jpg", "val2017/1.jpg")
    with pytest.raises(TableError, match=r"images\[0\].*may be 'train2017/1.jpg' or 'val2017/1.jpg'"):
        read(write(root, [{"id": 1, "file_name": "1.jpg"}]))
    (root / "all.json").unlink()
    write(root, [{"id": 1, "file_name": "1.jpg"}], name="annotations/instances_val2017.json")
    assert list(read(root)[0]) == ["val2017/1.jpg"]


def test_files_of_one_picture_are_joined(root: Path) -> None:
    image = [{"id": 5, "file_name": "a.png"}]
    write(root, image, [{"image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1]}], name="boxes.json")
    write(root, [{"id": 9, "file_name": "a.png"}], [{"image_id": 9, "category_id": 1, "bbox": [1, 1, 1, 1]}])
    records, reader = read(root)
    assert [region.box for region in records["a.png"].regions] == [(1, 1, 1, 1), (0, 0, 1, 1)]
    assert [finding.name for finding in records["a.png"].findings] == ["Nodule"]
    assert reader.account.notes["picture that is listed again: its annotations are joined"] == 1


def test_a_picture_in_two_splits_is_an_error(root: Path) -> None:
    for split in ("train", "val"):
        write(root, [{"id": 1, "file_name": "a.png"}], name=f"{split}.json")
    with pytest.raises(TableError, match="is in val here and in train"):
        read(root)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("test/train.json", "train"),
        ("annotations.json", None),
        ("trainval.json", None),
        ("train_val.json", None),
        ("contest/latest.json", None),
    ],
)
def test_the_split_is_a_word_of_the_name(path: str, split: str | None) -> None:
    assert split_of(path) == split


def test_keys_of_a_users_own_are_read(root: Path) -> None:
    image = {"id": 1, "file_name": "a.png", "patient_id": 12, "study_id": "s1", "view": "PA", "sex": "f", "age": "61"}
    (record,) = read(write(root, [image]))[0].values()
    assert (record.patient, record.study, record.view, record.sex, record.age_years) == ("12", "s1", "PA", "F", 61.0)


def test_other_json_is_passed_over_and_its_lack_is_an_error(root: Path) -> None:
    (root / "settings.json").write_text("{}")
    with pytest.raises(LayoutError, match="no JSON file here holds images, annotations, categories"):
        read(root)
    assert read(write(root, [{"id": 1, "file_name": "a.png"}]))[1].account.notes["JSON file that is not COCO's"] == 1


@pytest.mark.parametrize("text", ['{"images": [], "annotations": []}', "[", "\ufeff{", "[" * 100_000, '{"images": 1'])
def test_broken_files_are_typed_errors(root: Path, text: str) -> None:
    (root / "all.json").write_text(text, encoding="utf-8")
    with pytest.raises(LayoutError):
        read(root)


def test_all_pictures_missing_names_the_first(root: Path) -> None:
    with pytest.raises(LayoutError, match=r"no picture that the files list is here; the first is 'films/x.png'"):
        read(write(root, [{"id": 1, "file_name": "films/x.png"}]))


def test_real_boxes_are_those_of_the_datasets_own_reader(real_data: Path) -> None:
    records, reader = read(real_data / "tbx11k-sample")
    expected = {record.image_id: record for record in Tbx11k(real_data / "tbx11k-sample").read()}
    assert reader.account.excluded.keys() <= {"image file is missing"}
    assert {item: record.regions for item, record in records.items()} == {
        item: record.regions for item, record in expected.items()
    }
    assert sum(len(record.regions) for record in records.values()) > 0


def test_real_lung_boxes_are_those_of_the_datasets_own_reader(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "covid-chestxray-dataset"
    (tmp_path / "images").symlink_to(root / "images")
    (tmp_path / "boxes.json").write_bytes((root / BOXES).read_bytes())
    records, _ = read(tmp_path)
    expected = {record.image_id: record for record in CovidChestxray(root).read()}
    boxes = {item: {r for r in record.regions if r.shape == "box"} for item, record in expected.items()}
    found = {item: set(record.regions) for item, record in records.items() if item in expected}
    assert found == {item: regions for item, regions in boxes.items() if item in found}
    assert sum(map(len, found.values())) == sum(map(len, boxes.values())) == 236
