"""The five readers on real radiographs: exact counts, and plain csv reading as the independent reference."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from umif.config import REGISTRY
from umif.language import vocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from umif.readers.base import Reader, Record

FOLDERS = {
    "covid-chestxray": "covid-chestxray-dataset",
    "covid-segmentations": "covid-19-chest-xray-segmentations-dataset",
    "nih-chestxray14": "nih-chestxray14",
    "rsna-pneumonia": "rsna-pneumonia-detection",
    "chest-xray-pneumonia": "chest_xray",
}


def read(real_data: Path, name: str) -> tuple[list[Record], Reader]:
    reader = REGISTRY.get("reader", name)(real_data / FOLDERS[name])
    return list(reader.read()), reader


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shapes(records: list[Record]) -> Counter[tuple[str, str]]:
    return Counter((region.finding, region.shape) for record in records for region in record.regions)


def test_covid_chestxray(real_data: Path) -> None:
    records, reader = read(real_data, "covid-chestxray")
    account = reader.account
    assert (account.seen, account.yielded) == (567, 489)
    assert account.excluded == {"modality is CT": 47, "no row in metadata.csv": 31}
    assert account.notes["repeated row, equal"] == 5
    assert account.notes["null lung box"] == 2
    rows = {row["filename"]: row for row in table(reader.root / "metadata.csv")}
    xrays = {name for name, row in rows.items() if row["modality"] == "X-ray"}
    assert {record.image.name for record in records} == xrays
    for record in records:
        row = rows[record.image.name]
        assert record.patient == row["patientid"]
        assert record.view == (row["view"] or None)
        listed = [] if row["finding"] in ("todo", "Unknown") else row["finding"].split(", ")
        assert [finding.name for finding in record.findings] == listed
    assert shapes(records) == {("lung", "mask"): 500, ("Right Lung", "box"): 118, ("Left Lung", "box"): 118}
    texts = [text.text for record in records for text in record.texts]
    assert len(texts) == 402
    assert not any("\ufffd" in text or "ourtesy of" in text or "Radiopaedia" in text for text in texts)


def test_covid_segmentations(real_data: Path) -> None:
    records, reader = read(real_data, "covid-segmentations")
    assert (reader.account.seen, reader.account.yielded, reader.account.excluded) == (79, 79, {})
    assert reader.account.notes["structure without a mask"] == 12
    structures = [row for row in table(reader.root / "structure.csv") if row["Mask"]]
    expected = Counter(
        (row["Filename"], row["Class"], row["Mask"].removeprefix("masks/"), int(row["Left"]), int(row["Top"]))
        for row in structures
    )
    found = Counter(
        (record.image.name, region.finding, region.mask_path.name, *region.offset)
        for record in records
        for region in record.regions
        if region.mask_path is not None
    )
    assert found == expected
    assert found.total() == 472
    other = {record.image_id: record for record in read(real_data, "covid-chestxray")[0]}
    both = [record for record in records if record.image_id in other]
    assert len(both) == 76
    assert all(other[record.image_id].patient == record.patient for record in both)


def test_nih_chestxray14(real_data: Path) -> None:
    records, reader = read(real_data, "nih-chestxray14")
    assert (reader.account.seen, reader.account.yielded, reader.account.excluded) == (772, 772, {})
    rows = {row["Image Index"]: row for row in table(reader.root / "Data_Entry_2017_v2020.csv")}
    experts = {row["Image Index"]: row for row in table(reader.root / "google2019_nih-chest-xray-labels.csv")}
    asked = ("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass")
    differ: Counter[str] = Counter()
    for record in records:
        row = rows[record.image_id]
        mined = row["Finding Labels"].split("|")
        if record.image_id in experts:
            answers = {name: experts[record.image_id][name] for name in asked}
            assert [(f.name, f.state.value) for f in record.findings[-4:]] == [
                (name, "present" if answers[name] == "YES" else "absent") for name in asked
            ]
            differ["pneumothorax"] += "Pneumothorax" in mined and answers["Pneumothorax"] == "NO"
            differ["no finding"] += mined == ["No Finding"] and "YES" in answers.values()
            left = [name for name in mined if name != "Pneumothorax"]
            left = [] if left == ["No Finding"] and "YES" in answers.values() else left
            assert [finding.name for finding in record.findings[:-4]] == left
        else:
            assert [finding.name for finding in record.findings] == mined
        assert record.patient == record.image_id[:8] == f"{int(row['Patient ID']):08d}"
        assert record.age_years == float(row["Patient Age"])
    assert len(experts) == 32
    assert reader.account.notes == {
        "'No Finding' where radiologists saw something: left out": differ["no finding"],
        "mined 'Pneumothorax' that radiologists did not see: theirs holds": differ["pneumothorax"],
    }
    assert Counter(record.split for record in records) == {"train": 651, "test": 121}
    assert shapes(records).total() == 39
    assert shapes(records)["Infiltrate", "box"] == 2


def test_rsna_pneumonia(real_data: Path) -> None:
    records, reader = read(real_data, "rsna-pneumonia")
    assert (reader.account.seen, reader.account.yielded, reader.account.excluded) == (94, 94, {})
    assert not reader.account.notes
    boxes = Counter(
        (row["patientId"], float(row["x"]), float(row["height"]))
        for row in table(reader.root / "stage_2_train_labels.csv")
        if row["Target"] == "1"
    )
    found = Counter((r.image_id, region.box[0], region.box[3]) for r in records for region in r.regions if region.box)
    assert found == boxes
    states = Counter((finding.name, finding.state.value) for record in records for finding in record.findings)
    assert states == {
        ("Lung Opacity", "present"): 49,
        ("Lung Opacity", "absent"): 45,
        ("Normal", "absent"): 27,
        ("Normal", "present"): 18,
    }
    nih = {record.patient for record in read(real_data, "nih-chestxray14")[0]}
    assert {record.patient for record in records} <= nih, "its patients are not recognised as NIH's"


def test_chest_xray_pneumonia(real_data: Path) -> None:
    records, reader = read(real_data, "chest-xray-pneumonia")
    assert (reader.account.seen, reader.account.yielded, reader.account.excluded) == (1659, 1659, {})
    assert not reader.account.notes
    folders = Counter(record.image.relative_to(reader.root).parts[:2] for record in records)
    assert folders == {
        ("train", "NORMAL"): 378,
        ("train", "PNEUMONIA"): 1095,
        ("test", "NORMAL"): 59,
        ("test", "PNEUMONIA"): 127,
    }
    assert Counter(f.name for r in records for f in r.findings if f.state == "present") == {
        "NORMAL": 437,
        "PNEUMONIA": 1222,
        "BACTERIAL PNEUMONIA": 799,
        "VIRAL PNEUMONIA": 423,
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_vocabulary_knows_every_real_label(real_data: Path, name: str) -> None:
    records, _ = read(real_data, name)
    raw = {finding.name for record in records for finding in record.findings}
    raw |= {region.finding for record in records for region in record.regions}
    assert [label for label in sorted(raw) if vocabulary().find(label) is None] == []
