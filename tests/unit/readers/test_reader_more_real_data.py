"""The readers of smaller sets on real radiographs and real tables: exact counts, plain reading as the reference."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING

from umif.config import REGISTRY
from umif.readers.dicom_header import hash_identifier

if TYPE_CHECKING:
    from pathlib import Path

    from umif.readers.base import Reader, Record


def read(root: Path, name: str) -> tuple[list[Record], Reader]:
    reader = REGISTRY.get("reader", name)(root)
    return list(reader.read()), reader


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def states(records: list[Record]) -> Counter[tuple[str, str]]:
    return Counter((finding.name, finding.state.value) for record in records for finding in record.findings)


def shapes(records: list[Record]) -> Counter[tuple[str, str]]:
    return Counter((region.finding, region.shape) for record in records for region in record.regions)


def touch(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_siim_dicom(real_data: Path) -> None:
    (record,), reader = read(real_data / "siim-acr-pneumothorax", "siim-acr-pneumothorax")
    assert reader.account.excluded == {}
    study = record.image.parent.parent
    assert (study.parent.name, record.study) == ("dicom-images-train", hash_identifier(study.name))
    assert (record.sex, record.age_years, record.view) == ("M", 62.0, "PA")
    assert states([record]) == {("Pneumothorax", "absent"): 1}


def test_siim_table(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "csv_layouts" / "SIIM-ACR" / "train-rle.csv"
    rows = table(path)[1:]
    (tmp_path / path.name).write_bytes(path.read_bytes())
    touch(tmp_path, [f"png/{row[0]}.png" for row in rows])
    records, reader = read(tmp_path, "siim-acr-pneumothorax")
    assert (reader.account.yielded, reader.account.excluded) == (400, {})
    assert states(records) == {("Pneumothorax", "absent"): 278, ("Pneumothorax", "present"): 122}
    areas = {row[0]: sum(map(int, row[1].split()[1::2])) for row in rows if row[1] != "-1"}
    assert {record.image_id: sum(record.regions[0].runs[1::2]) for record in records if record.regions} == areas


def test_bone_fractures(real_data: Path) -> None:
    records, reader = read(real_data / "bone-fracture-yolo" / "data", "bone-fracture-yolo")
    assert (reader.account.seen, reader.account.yielded) == (879, 879)
    assert reader.account.notes == {"image in which nothing was drawn": 37}
    assert Counter(record.split for record in records) == {"train": 778, "val": 66, "test": 35}
    assert shapes(records) == {
        ("fracture", "box"): 619,
        ("line", "box"): 312,
        ("messed_up_angle", "box"): 147,
        ("angle", "box"): 62,
    }
    for record in records:
        for region in record.regions:
            assert region.box is not None
            x, y, width, height = region.box
            assert -0.01 <= x <= x + width <= 1.01
            assert -0.01 <= y <= y + height <= 1.01
