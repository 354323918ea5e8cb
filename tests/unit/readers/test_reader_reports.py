"""Traps of the datasets that have reports or labels mined from them: CheXpert, CheXpert Plus, MIMIC-CXR, PadChest."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING

import pytest

from reader_checks import touch
from umif.errors import LayoutError, TableError
from umif.readers.base import LabelState, Record
from umif.readers.chexpert import FINDINGS, STATES, Chexpert

if TYPE_CHECKING:
    from pathlib import Path

    from umif.readers.base import Reader

CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)
IMAGE = "patient00007/study3/view1_frontal.jpg"


def records_of(reader: Reader) -> dict[str, Record]:
    return {record.image_id: record for record in reader.read()}


def write_chexpert(root: Path, *cells: str, table: str = "train.csv", part: str = "train", image: str = IMAGE) -> None:
    row = f"CheXpert-v1.0/{part}/{image},Male,50,Frontal,AP," + ",".join((*cells, *[""] * (len(FINDINGS) - len(cells))))
    (root / table).write_text(f"{CHEXPERT_HEADER}\n{row}\n")


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    touch(tmp_path, f"train/{IMAGE}")
    write_chexpert(tmp_path, "", "-1.0", "0.0", "1.0")
    return tmp_path


def test_four_states_of_chexpert_stay_apart(chexpert: Path) -> None:
    (record,) = Chexpert(chexpert).read()
    assert [(finding.name, finding.state) for finding in record.findings] == [
        ("Enlarged Cardiomediastinum", LabelState.UNCERTAIN),
        ("Cardiomegaly", LabelState.ABSENT),
        ("Lung Opacity", LabelState.PRESENT),
    ]
    assert (record.patient, record.patient_namespace) == ("patient00007", "chexpert")
    assert (record.study, record.split, record.view) == ("patient00007/study3", "train", "AP")
    assert (record.sex, record.age_years, record.texts) == ("M", 50.0, ())


@pytest.mark.parametrize("folder", ["CheXpert-v1.0 batch 2 (train 1)", "CheXpert-v1.0 batch 2 (train 1)/train"])
def test_chexpert_pictures_are_found_in_batches(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, f"{folder}/{IMAGE}")
    tables = tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)"
    tables.mkdir()
    write_chexpert(tables)
    (record,) = Chexpert(tmp_path).read()
    assert record.image_id == f"train/{IMAGE}"
    assert record.image == tmp_path / folder / IMAGE


def test_chexpert_parts_become_splits(chexpert: Path) -> None:
    valid, test = "patient64541/study1/view1_frontal.jpg", "patient64741/study1/view2_lateral.jpg"
    touch(chexpert, f"valid/{valid}", f"test/{test}")
    write_chexpert(chexpert, table="valid.csv", part="valid", image=valid)
    # The package with the test labels writes paths without the release's name, and no columns of sex, age and view.
    header = "Path," + ",".join(FINDINGS)
    (chexpert / "test_labels.csv").write_text(f"{header}\ntest/{test}" + ",0" * 14 + "\n")
    records = records_of(Chexpert(chexpert))
    assert {name: record.split for name, record in records.items()} == {
        f"train/{IMAGE}": "train",
        f"valid/{valid}": "val",
        f"test/{test}": "test",
    }
    assert records[f"test/{test}"].view == "Lateral"
    assert {finding.state for finding in records[f"test/{test}"].findings} == {LabelState.ABSENT}


def test_chexpert_part_without_its_table_is_refused_and_the_test_part_excluded(chexpert: Path) -> None:
    touch(chexpert, "test/patient64741/study1/view1_frontal.jpg")
    reader = Chexpert(chexpert)
    assert len(list(reader.read())) == 1
    assert reader.account.excluded == {"no row in the tables": 1}
    touch(chexpert, "valid/patient64541/study1/view1_frontal.jpg")
    with pytest.raises(LayoutError, match=r"valid\.csv"):
        list(Chexpert(chexpert).read())


@pytest.mark.parametrize("cell", ["2.0", "nan", "-0.0", "1.00", "yes"])
def test_chexpert_value_outside_the_encoding_is_refused(chexpert: Path, cell: str) -> None:
    write_chexpert(chexpert, cell)
    with pytest.raises(TableError, match=r"train\.csv:2: 'No Finding'"):
        list(Chexpert(chexpert).read())


def test_chexpert_on_the_real_tables(real_data: Path, tmp_path: Path) -> None:
    layouts = real_data / "csv_layouts"
    tables = {"train": "CheXpert-v1.0-small/train.csv", "val": "CheXpert-v1.0/valid.csv"}
    tables["test"] = "CheXpert-v1.0/test_labels.csv"
    expected = {}
    for split, name in tables.items():
        shutil.copy(layouts / name, tmp_path)
        with (layouts / name).open(newline="") as file:
            for row in csv.DictReader(file):
                item = row["Path"].partition("/")[2]
                touch(tmp_path, item)
                expected[item] = (split, {name: STATES[row[name]] for name in FINDINGS if row[name]})
    reader = Chexpert(tmp_path)
    found = {
        record.image_id: (record.split, {finding.name: finding.state for finding in record.findings})
        for record in reader.read()
    }
    assert found == expected
    assert (len(found), reader.account.excluded, dict(reader.account.notes)) == (684, {}, {})


def test_chexpert_on_real_pictures(real_data: Path) -> None:
    reader = Chexpert(real_data / "chexlocalize-sample" / "sample")
    records = records_of(reader)
    assert list(records) == [f"valid/patient6454{n}/study1/view1_frontal.jpg" for n in (1, 2)]
    assert [(record.sex, record.age_years, record.view) for record in records.values()] == [
        ("M", 73.0, "AP"),
        ("M", 70.0, "PA"),
    ]
