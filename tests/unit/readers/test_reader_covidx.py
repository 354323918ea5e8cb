"""Traps of COVIDx: lists of many versions, lines of three to five words, one image in two lists."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from umif.errors import LayoutError, TableError
from umif.readers.covidx import CLASSES, Covidx, parse_line, patient_key

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, **lists: str) -> None:
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text(lines)
        part = name.split("_")[0]
        for line in lines.splitlines():
            (root / part).mkdir(exist_ok=True)
            (root / part / parse_line(line, "x").file).write_bytes(b"")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("8 a.jpeg pneumonia", ("8", "a.jpeg", "pneumonia", "")),
        ("8 a.jpeg COVID-19 cohen", ("8", "a.jpeg", "COVID-19", "cohen")),
        ("COVID 216 COVID(216).png COVID-19 sirm", ("COVID 216", "COVID(216).png", "COVID-19", "sirm")),
        ("COVID 216 COVID(216).png COVID-19", ("COVID 216", "COVID(216).png", "COVID-19", "")),
        ("x x.png normal rnsa\r", ("x", "x.png", "normal", "rsna")),
        ("x x.png negative rsna", ("x", "x.png", "negative", "rsna")),
    ],
)
def test_lines_are_read_from_their_end(line: str, expected: tuple[str, ...]) -> None:
    assert parse_line(line, "train.txt:1")[:4] == expected


@pytest.mark.parametrize(
    "line", ["a.png normal", "8 a.png", "8 a.png tumour cohen", "8 a.png normal moon", "8 /a.png normal"]
)
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(TableError, match=r"train\.txt:7"):
        parse_line(line, "train.txt:7")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("8 a.jpeg pneumonia cohen", ("8", "covid-chestxray")),
        ("8 a.png normal sirm", ("sirm:8", None)),
        ("8 a.png normal", ("unknown:8", None)),
        ("COVID-00039a COVID-00039a.jpg COVID-19 fig1", ("COVID-00039", "figure1-covid")),
        (
            "SITE2-000061 MIDRC-RICORD-1C-SITE2-000061-54321-1.png COVID-19 ricord",
            ("MIDRC-RICORD-1C-SITE2-000061", "midrc-ricord-1c"),
        ),
        ("A204200 A204200-01-29-1901-0.png COVID-19 stonybrook", ("stonybrook:A204200", None)),
    ],
)
def test_patients_keep_the_keys_of_their_source(line: str, key: tuple[str, str | None]) -> None:
    assert patient_key(parse_line(line, "train.txt:1")) == key


def test_list_of_the_download_is_preferred_then_the_latest_version(tmp_path: Path) -> None:
    write(
        tmp_path,
        train_COVIDx="1 one.png normal\n",
        train_COVIDx8A="1 eight.png normal cohen\n",
        train_COVIDx8B="1 eight.png negative cohen\n",
    )
    assert [record.image.name for record in Covidx(tmp_path).read()] == ["eight.png"]
    write(
        tmp_path,
        **{"train_COVIDx_CXR-3B": "1 clean.png positive cohen\n", "train_COVIDx9A": "1 nine.png normal cohen\n"},
    )
    reader = Covidx(tmp_path)
    assert [record.image.name for record in reader.read()] == ["clean.png"]
    assert reader.account.notes["list of another version, not read"] == 4
    write(tmp_path, train="1 plain.png negative rsna\n", val="2 valid.png positive bimcv\n")
    assert [(record.image.name, record.split) for record in Covidx(tmp_path).read()] == [
        ("plain.png", "train"),
        ("valid.png", "val"),
    ]


def test_one_file_in_two_parts_stays_two_images(tmp_path: Path) -> None:
    line = "1 same.png positive cohen\n"
    write(tmp_path, train=line, test=line)
    records = list(Covidx(tmp_path).read())
    assert [(record.image_id, record.patient) for record in records] == [
        ("train/same.png", "1"),
        ("test/same.png", "1"),
    ]


def test_folder_without_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("1 a.png normal\n")
    with pytest.raises(LayoutError, match=r"train\.txt"):
        list(Covidx(tmp_path).read())


def test_covidx_on_the_real_lists(real_data: Path, tmp_path: Path) -> None:
    """Every list alone: each line one image, with the class that the line names; Cohen's patients are his table's."""
    labels = real_data / "csv_layouts" / "COVIDx" / "labels"
    with (real_data / "covid-chestxray-dataset" / "metadata.csv").open(encoding="utf-8", errors="replace") as file:
        patients = {row["filename"]: row["patientid"] for row in csv.DictReader(file)}
    lines = agreed = differ = 0
    for path in sorted(labels.glob("*.txt")):
        root = tmp_path / path.stem
        (root / "labels").mkdir(parents=True)
        (root / "labels" / path.name).write_bytes(path.read_bytes())
        part = path.name.split("_")[0]
        expected = {}
        for line in path.read_text().splitlines():
            file_name, label = next(
                (a, b) for a, b in zip(line.split(), line.split()[1:], strict=False) if b in CLASSES
            )
            (root / part).mkdir(exist_ok=True)
            (root / part / file_name).write_bytes(b"")
            expected[f"{part}/{file_name}"] = label
            lines += 1
        reader = Covidx(root)
        records = list(reader.read())
        assert {record.image_id: record.findings for record in records} == {
            item: CLASSES[label] for item, label in expected.items()
        }
        for record in records:
            if record.patient_namespace == "covid-chestxray" and record.image.name in patients:
                agreed += record.patient == patients[record.image.name]
                differ += record.patient != patients[record.image.name]
    assert lines == 3974
    assert (agreed > 3_000, differ) == (True, 1), "one patient was numbered anew between two versions"
