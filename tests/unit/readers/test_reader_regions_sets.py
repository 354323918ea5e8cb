"""Traps of the datasets that draw findings (runs, boxes, ellipses, outlines, masks) or come as reports and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from reader_checks import fails, states, touch
from umif.corpus.regions import decode_runs
from umif.errors import LayoutError
from umif.readers.base import Region
from umif.readers.bone_fracture_yolo import BoneFractureYolo
from umif.readers.siim_acr_pneumothorax import SiimAcrPneumothorax, alternating_runs

if TYPE_CHECKING:
    from pathlib import Path


# SIIM-ACR


def siim(root: Path, *rows: str, table: str = "train-rle.csv", column: str = " EncodedPixels") -> SiimAcrPneumothorax:
    (root / table).write_text("\n".join([f"ImageId,{column}", *rows]) + "\n")
    touch(root, *(f"png/{row.split(',')[0]}.png" for row in rows))
    return SiimAcrPneumothorax(root)


def test_relative_runs_go_down_the_columns(tmp_path: Path) -> None:
    # By hand: pixels 1024·2 + (0, 1, 2), then 1021 further on 5 pixels, then 1019 further on 4.
    (record,) = siim(tmp_path, "a,2048 3 1021 5 1019 4").read()
    (region,) = record.regions
    expected = np.zeros((1024, 1024), dtype=bool)
    expected[0:3, 2] = expected[0:5, 3] = expected[0:4, 4] = True
    assert region.frame == (1024, 1024)
    assert np.array_equal(decode_runs(region.runs, 1024, 1024), expected)


def test_all_rows_of_an_image_are_one_region(tmp_path: Path) -> None:
    rows = ("a,10 5 100 7", "a,12 20", "a,117 4", "a,12 20")
    reader = siim(tmp_path, *rows)
    (record,) = reader.read()
    (region,) = record.regions
    expected = np.zeros(1024 * 1024, dtype=bool)
    for row in rows:  # the independent reading: paint every row
        numbers = [int(number) for number in row[2:].split()]
        position = 0
        for skip, run in zip(numbers[::2], numbers[1::2], strict=True):
            expected[position + skip : position + skip + run] = True
            position += skip + run
    assert np.array_equal(decode_runs(region.runs, 1024, 1024).T.ravel(), expected)
    assert reader.account.notes["repeated row, equal"] == 1


@pytest.mark.parametrize(
    ("spans", "runs"),
    [
        ([(0, 4)], (0, 4)),
        ([(3, 5), (5, 7)], (3, 4)),
        ([(3, 9), (4, 6)], (3, 6)),
        ([(8, 9), (1, 2)], (1, 1, 6, 1)),
        ([], ()),
    ],
)
def test_spans_become_alternating_runs(spans: list[tuple[int, int]], runs: tuple[int, ...]) -> None:
    assert alternating_runs(spans) == runs


@pytest.mark.parametrize("cell", ["-1", " -1", " -1 "])
@pytest.mark.parametrize("column", [" EncodedPixels", "EncodedPixels"])
def test_no_pneumothorax_is_a_negative_however_it_is_spaced(tmp_path: Path, cell: str, column: str) -> None:
    (record,) = siim(tmp_path, f"a,{cell}", column=column).read()
    assert states(record) == {"Pneumothorax": "absent"}
    assert record.regions == ()


def test_the_later_table_wins(tmp_path: Path) -> None:
    siim(tmp_path, "a,-1")
    (record,) = siim(tmp_path, "a,1 2", table="stage_2_train.csv", column="EncodedPixels").read()
    assert record.where == "stage_2_train.csv:2"


def test_absolute_starts_are_noticed_where_they_leave_the_picture(tmp_path: Path) -> None:
    # Runs whose starts count from the first pixel add up to more pixels than there are.
    fails(siim(tmp_path, "a,557374 2 558391 8 559408 14"), "train-rle.csv:2")


def test_without_a_picture_the_layout_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-rle.csv").write_text("ImageId, EncodedPixels\na,-1\n")
    with pytest.raises(LayoutError, match="dicom-images-train"):
        list(SiimAcrPneumothorax(tmp_path).read())


# Bone fractures


def bones(root: Path, label: str, names: str = "['angle', 'fracture']") -> BoneFractureYolo:
    (root / "data.yaml").write_text(f"nc: 2\nnames: {names}\n")
    touch(root, "train/images/26_jpg.rf.0a.jpg", "train/labels/26_jpg.rf.0a.txt")
    (root / "train" / "labels" / "26_jpg.rf.0a.txt").write_text(label)
    return BoneFractureYolo(root)


def test_yolo_box_is_a_fraction_of_the_picture(tmp_path: Path) -> None:
    (record,) = bones(tmp_path, "1 0.5 0.25 0.25 0.125\n").read()
    assert record.regions == (Region("fracture", "box", box=(0.375, 0.1875, 0.25, 0.125), frame=(1, 1)),)
    assert (record.patient, record.split) == ("26_jpg", "train")


def test_longer_line_is_an_outline(tmp_path: Path) -> None:
    (record,) = bones(tmp_path, "0 0.5 0.25 0.75 0.25 0.75 0.5").read()
    points = ((0.5, 0.25), (0.75, 0.25), (0.75, 0.5))
    assert record.regions == (Region("angle", "polygon", points=points, frame=(1, 1)),)


def test_empty_label_file_gives_no_negative(tmp_path: Path) -> None:
    reader = bones(tmp_path, "\n")
    (record,) = reader.read()
    assert (record.findings, record.regions) == ((), ())
    assert reader.account.notes == {"image in which nothing was drawn": 1}


def test_classes_may_be_numbered(tmp_path: Path) -> None:
    (record,) = bones(tmp_path, "1 0.5 0.5 0.5 0.5", names="{0: angle, 1: fracture}").read()
    assert states(record) == {"fracture": "present"}


@pytest.mark.parametrize(
    "label", ["2 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.5", "1 0.5 0.5 0.5 1.5", "1 0.5 0.5 0.5 x", "x 1 1 1 1"]
)
def test_wrong_label_line_is_named(tmp_path: Path, label: str) -> None:
    fails(bones(tmp_path, f"1 0.5 0.5 0.5 0.5\n{label}\n"), "26_jpg.rf.0a.txt:2")


@pytest.mark.parametrize("names", ["[]", "[1, 2]", "{0: angle, 2: fracture}", "[[['a', {"])
def test_classes_that_cannot_be_read_are_refused(tmp_path: Path, names: str) -> None:
    fails(bones(tmp_path, "", names=names), "data.yaml")
