"""Sets made from CheXpert: CheXlocalize's outlines and the 5 × 200 images."""

from __future__ import annotations

import csv
import hashlib
import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from umif.errors import TableError
from umif.readers.chexlocalize import Chexlocalize
from umif.readers.chexpert_5x200 import CLASSES, Chexpert5x200

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.readers.base import Region


def drawn(regions: list[Region], width: int, height: int) -> NDArray[np.bool_]:
    """Return the union of regions as pixels, by OpenCV for polygons and by plain repetition for runs."""
    canvas = np.zeros((height, width), np.uint8)
    for region in regions:
        assert region.frame == (width, height)
        if region.shape == "polygon":
            cv2.fillPoly(canvas, [np.rint(np.array(region.points)).astype(np.int32)], 1)
        else:
            values = np.repeat(np.arange(len(region.runs)) % 2, region.runs)
            canvas |= values.reshape(width, height).T.astype(np.uint8)
    return canvas.astype(bool)


def test_real_polygons_and_run_lengths_are_the_same_regions(real_data: Path, tmp_path: Path) -> None:
    sample = real_data / "chexlocalize-sample" / "sample"
    only_runs = copy_of(sample, tmp_path / "runs")
    (only_runs / "gt_annotations_val.json").unlink()
    by_polygons, by_runs = (list(Chexlocalize(root).read()) for root in (sample, only_runs))
    assert [record.image_id for record in by_polygons] == [record.image_id for record in by_runs]
    compared = 0
    for one, other in zip(by_polygons, by_runs, strict=True):
        names = {region.finding for region in one.regions}
        assert names == {region.finding for region in other.regions}
        for name in names:
            regions = [[region for region in record.regions if region.finding == name] for record in (one, other)]
            frame = regions[0][0].frame
            assert frame is not None
            first, second = (drawn(part, *frame) for part in regions)
            # OpenCV draws the edge and rounds the corners, so the two may differ by two pixels along an outline.
            kernel = np.ones((5, 5), np.uint8)
            outside = first & ~cv2.dilate(second.astype(np.uint8), kernel).astype(bool)
            inside = cv2.erode(second.astype(np.uint8), kernel).astype(bool) & ~first
            assert (outside.sum(), inside.sum()) == (0, 0)
            compared += 1
    assert compared == 4


def test_real_labels_and_outlines_agree(real_data: Path) -> None:
    for record in Chexlocalize(real_data / "chexlocalize-sample" / "sample").read():
        present = {finding.name for finding in record.findings if finding.state == "present"}
        outlined = {region.finding.replace("Airspace", "Lung") for region in record.regions}
        assert outlined == present
        assert (record.split, record.patient_namespace) == ("val", "chexpert")


def copy_of(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def touch(root: Path, *items: str) -> None:
    for item in items:
        (root / item).parent.mkdir(parents=True, exist_ok=True)
        (root / item).write_bytes(b"")


def test_5x200_on_the_real_rows(real_data: Path, tmp_path: Path) -> None:
    table = real_data / "csv_layouts" / "CheXpert-v1.0-small" / "train.csv"
    shutil.copy(table, tmp_path)
    expected: dict[str, str] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            item = row["Path"].partition("/")[2]
            touch(tmp_path, item)
            values = [float(row[name] or 0) for name in list(row)[6:]]  # all but No Finding
            if row["Frontal/Lateral"] == "Frontal" and sorted(values)[-2:] == [0, 1] and min(values) == 0:
                name = next(name for name in list(row)[6:] if row[name] == "1.0")
                if name in CLASSES:
                    expected[item] = name
    found = {
        record.image_id: [finding.name for finding in record.findings if finding.state == "present"]
        for record in Chexpert5x200(tmp_path).read()
    }
    assert len(found) >= 5
    assert {item: [name for name in names if name in CLASSES] for item, names in found.items()} == {
        item: [name] for item, name in expected.items()
    }


def write_train(root: Path, images: int) -> list[str]:
    header = (
        "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,"
        "Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
        "Support Devices"
    )
    items = [f"train/patient{number:05d}/study1/view1_frontal.jpg" for number in range(images)]
    rows = [f"CheXpert-v1.0/{item},Male,50,Frontal,AP,,,,,,1.0,,,,,,,," for item in items]
    (root / "train.csv").write_text("\n".join([header, *rows]) + "\n")
    touch(root, *items)
    return items


def test_5x200_chooses_by_the_hash_of_the_path(tmp_path: Path) -> None:
    items = write_train(tmp_path, 230)
    reader = Chexpert5x200(tmp_path)
    records = list(reader.read())
    assert len(records) == 200
    assert {record.image_id for record in records} == set(
        sorted(items, key=lambda item: hashlib.sha256(item.encode()).hexdigest())[:200]
    )
    assert {record.split for record in records} == {"test"}
    assert reader.account.excluded == {"not one of the five times 200": 30}
    assert reader.account.notes["fewer than 200 candidates for Atelectasis"] == 1
    # A missing picture is not replaced by the next one.
    records[0].image.unlink()
    assert len(list(reader.read())) == 199


def test_5x200_takes_a_list_that_is_here(tmp_path: Path) -> None:
    items = write_train(tmp_path, 3)
    listed = tmp_path / "chexpert_5x200.csv"
    header = f",Path,{','.join(CLASSES)}"
    listed.write_text(f"{header}\n0,CheXpert-v1.0/{items[1]},0.0,1.0,0.0,0.0,0.0\n")
    (record,) = Chexpert5x200(tmp_path).read()
    assert (record.image_id, record.where) == (items[1], "chexpert_5x200.csv:2")
    assert {finding.name for finding in record.findings if finding.state == "present"} == {"Cardiomegaly"}
    listed.write_text(f"{header}\n0,CheXpert-v1.0/{items[1]},1.0,1.0,0.0,0.0,0.0\n")
    with pytest.raises(TableError, match="exactly one"):
        list(Chexpert5x200(tmp_path).read())
