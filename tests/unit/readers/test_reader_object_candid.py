"""Traps of object-CXR's drawn objects and of CANDID-PTX's masks, patients and reports."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from reader_checks import fails, states
from umif.corpus.regions import decode_runs
from umif.errors import LayoutError
from umif.readers.base import Region
from umif.readers.candid_ptx import CandidPtx
from umif.readers.object_cxr import ObjectCxr

if TYPE_CHECKING:
    from pathlib import Path


# object-CXR


def objects(root: Path, annotation: str, column: str = "image_name") -> ObjectCxr:
    (root / "train.csv").write_text(f"{column},annotation\n1.jpg,{annotation}\n")
    (root / "dev.csv").write_text(f"{column},annotation\n1.jpg,\n")
    for part in ("train", "dev"):
        (root / part).mkdir(exist_ok=True)
        (root / part / "1.jpg").write_bytes(b"")
    return ObjectCxr(root)


@pytest.mark.parametrize("column", ["image_name", "image_path"])
def test_object_shapes(tmp_path: Path, column: str) -> None:
    annotation = "0 100 120 180 200;1 10 20 40 80;2 10 10 50 12 40 60;"
    training, development = objects(tmp_path, annotation, column).read()
    assert training.regions == (
        Region("foreign object", "box", box=(100.0, 120.0, 80.0, 80.0)),
        Region("foreign object", "ellipse", box=(10.0, 20.0, 30.0, 60.0)),
        Region("foreign object", "polygon", points=((10.0, 10.0), (50.0, 12.0), (40.0, 60.0))),
    )
    assert states(training) == {"foreign object": "present"}
    # The same name in the other part is another image; blank means that nothing is there.
    assert (development.image_id, development.split, states(development)) == (
        "dev/1.jpg",
        "val",
        {"foreign object": "absent"},
    )


def test_object_with_corners_in_another_order_is_the_same(tmp_path: Path) -> None:
    regions = {
        next(iter(objects(tmp_path, text).read())).regions for text in ("0 1 2 30 40", "0 30 40 1 2", "0 1 40 30 2")
    }
    assert len(regions) == 1


def test_object_beyond_the_edge_keeps_its_shape(tmp_path: Path) -> None:
    record = next(iter(objects(tmp_path, "1 -10 5 30 45").read()))
    assert record.regions == (Region("foreign object", "ellipse", box=(-10.0, 5.0, 40.0, 40.0)),)


def test_object_without_extent_is_still_an_object(tmp_path: Path) -> None:
    reader = objects(tmp_path, "0 5 5 5 9")
    record = next(iter(reader.read()))
    assert (states(record), record.regions) == ({"foreign object": "present"}, ())
    assert reader.account.notes["object without extent"] == 1


@pytest.mark.parametrize(
    "annotation",
    ["0 1 2 3", "0 1 2 3 4 5 6", "1 1 2", "2 1 2 3 4", "2 1 2 3 4 5", "9 1 2 3 4", "box", "0 a b c d", "0 1_0 2 3 4"],
)
def test_wrong_object_is_named(tmp_path: Path, annotation: str) -> None:
    fails(objects(tmp_path, annotation), "train.csv:2")


# CANDID-PTX

HEADER = ("SOPInstanceUID", "StudyInstanceUID", "filename", "EncodedPixels", "Report")


def candid(root: Path, *rows: tuple[str, ...], tubes: tuple[tuple[str, ...], ...] | None = None) -> CandidPtx:
    for name, header, table in (
        ("Pneumothorax_reports.csv", HEADER, rows),
        ("chest_tube.csv", ("anon_SOPUID", "a", "mask_rle"), tubes),
    ):
        if table is not None:
            with (root / name).open("w", encoding="utf-8-sig", newline="") as file:
                csv.writer(file).writerows([header, *table])
    (root / "dataset").mkdir(exist_ok=True)
    for row in rows:
        (root / "dataset" / row[0]).write_bytes(b"")
    return CandidPtx(root)


def test_candid_masks_of_all_rows_are_one_region(tmp_path: Path) -> None:
    rows = [("1.2.3", "9", "P1_2011", mask, "Text.") for mask in ("2048 3 1021 5", "3000 100", "3050 100 7 1")]
    (record,) = candid(tmp_path, *rows).read()
    (region,) = record.regions
    expected = np.zeros(1024 * 1024, dtype=bool)
    for row in rows:  # the independent reading: paint every row
        numbers = [int(number) for number in row[3].split()]
        position = 0
        for skip, run in zip(numbers[::2], numbers[1::2], strict=True):
            expected[position + skip : position + skip + run] = True
            position += skip + run
    assert np.array_equal(decode_runs(region.runs, 1024, 1024).T.ravel(), expected)
    assert len(record.texts) == 1


def test_candid_absence_from_a_table_is_a_negative_and_a_missing_table_is_none(tmp_path: Path) -> None:
    rows = (("1.2.3", "9", "P1_2011", "-1", "Text."), ("1.2.4", "9", "P1_2012", "", ""))
    reader = candid(tmp_path, *rows)
    first, second = reader.read()
    assert states(first) == states(second) == {"Pneumothorax": "absent"}
    assert reader.account.notes["no chest_tube.csv here: nothing is said of chest tube"] == 1
    first, second = candid(tmp_path, *rows, tubes=(("1.2.4", "a", "5 5"),)).read()
    assert states(first) == {"Pneumothorax": "absent", "chest tube": "absent"}
    assert states(second) == {"Pneumothorax": "absent", "chest tube": "present"}
    assert [region.finding for region in second.regions] == ["chest tube"]


@pytest.mark.parametrize(
    ("report", "texts"),
    [
        ("Small apical\npneumothorax.", ["Small apical pneumothorax."]),
        ("XR CHEST\n\nINDICATION: Fall.\n\nFINDINGS: Clear lungs.", ["Clear lungs."]),
        ("As above.", []),
        ("", []),
    ],
)
def test_candid_report_is_what_it_says_of_the_picture(tmp_path: Path, report: str, texts: list[str]) -> None:
    reader = candid(tmp_path, ("1.2.3", "9", "P1_2011", "-1", report))
    (record,) = reader.read()
    assert [text.text for text in record.texts] == texts
    reasons = reader.account.notes.keys() & {"report has no text", "report only refers to another text"}
    assert len(reasons) == (not texts)


def test_candid_patient_begins_the_file_name(tmp_path: Path) -> None:
    (record,) = candid(tmp_path, ("1.2.3", "9", "P123_2011-05-06_2", "-1", "Text.")).read()
    assert (record.patient, record.study, record.image_id) == ("P123", "9", "1.2.3")
    fails(candid(tmp_path, ("1.2.3", "9", "scan123", "-1", "Text.")), "Pneumothorax_reports.csv:2")


def test_candid_without_its_pictures_names_the_layout(tmp_path: Path) -> None:
    candid(tmp_path, ("1.2.3", "9", "P1_2011", "-1", "Text."))
    (tmp_path / "dataset" / "1.2.3").unlink()
    (tmp_path / "dataset").rmdir()
    with pytest.raises(LayoutError, match="SOPInstanceUID"):
        list(CandidPtx(tmp_path).read())


def test_candid_image_that_is_listed_but_not_here_is_excluded(tmp_path: Path) -> None:
    reader = candid(tmp_path, ("1.2.3", "9", "P1_2011", "-1", "Text."), ("1.2.4", "9", "P1_2011", "3 3", "Text."))
    (tmp_path / "dataset" / "1.2.4").unlink()
    assert [record.image_id for record in reader.read()] == ["1.2.3"]
    assert reader.account.excluded == {"image file is missing": 1}
