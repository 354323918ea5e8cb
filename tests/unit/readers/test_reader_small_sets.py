"""Traps of small sets: Figure 1, Actualmed, the lung masks' demo, NIH1000, Open-i, TBX11K."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest

from reader_checks import states, touch
from umif.errors import LayoutError, TableError
from umif.readers.actualmed_covid import ActualmedCovid
from umif.readers.figure1_covid import Figure1Covid
from umif.readers.lung_segmentation import LungSegmentation
from umif.readers.nih1000 import Nih1000
from umif.readers.nih_chestxray14 import NihChestxray14
from umif.readers.openi import Openi, findings_of
from umif.readers.tbx11k import Tbx11k

if TYPE_CHECKING:
    from pathlib import Path

    from umif.readers.base import Reader, Record


def records_of(reader: Reader) -> dict[str, Record]:
    return {record.image_id: record for record in reader.read()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Figure 1


def figure1(root: Path, *rows: tuple[str, str, str]) -> Figure1Covid:
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("patientid", "finding", "notes", "modality"), *((*row, "X-ray") for row in rows)])
    touch(root, *(f"images/{row[0]}.jpg" for row in rows))
    return Figure1Covid(root)


@pytest.mark.parametrize(
    ("notes", "text"),
    [
        ("Fever for  three days.", "Fever for three days."),
        ("labeled covid19", None),
        ("labeled as COVID-19.", None),
        ("Covid19 confirmed", None),
        ("labeled normal patient", None),
        ("N/A", None),
        (" - ", None),
        ("", None),
        ("covid19 pneumonia in both lungs", "covid19 pneumonia in both lungs"),
        ("patient\x92s film", "patient’s film"),
    ],
)
def test_notes_of_figure1_that_only_repeat_the_finding_are_no_text(
    tmp_path: Path, notes: str, text: str | None
) -> None:
    (record,) = figure1(tmp_path, ("COVID-1", "COVID-19", notes)).read()
    assert [t.text for t in record.texts] == ([] if text is None else [text])
    assert all((t.kind, t.source) == ("report", "notes") for t in record.texts)


def test_images_of_a_figure1_patient_belong_together(tmp_path: Path) -> None:
    rows = [(name, "", "") for name in ("COVID-00003a", "COVID-00003b", "COVID-00030", "other1")]
    records = records_of(figure1(tmp_path, *rows))
    assert [record.patient for record in records.values()] == ["COVID-00003", "COVID-00003", "COVID-00030", "other1"]


def test_a_row_that_differs_from_an_earlier_one_is_noted(tmp_path: Path) -> None:
    reader = figure1(tmp_path, ("COVID-1", "COVID-19", "x"), ("COVID-1", "COVID-19", "x"), ("COVID-1", "SARS", "x"))
    (record,) = reader.read()
    assert states(record) == {"COVID-19": "present"}
    assert reader.account.notes["repeated row, equal"] == 1
    assert reader.account.notes["repeated row that differs: the first one is used"] == 1


def test_real_figure1(real_data: Path) -> None:
    reader = Figure1Covid(real_data / "Figure1-COVID-chestxray-dataset")
    records = list(reader.read())
    rows = {row["patientid"]: row for row in table(reader.root / "metadata.csv")}
    assert (reader.account.seen, reader.account.yielded, reader.account.excluded) == (44, 44, {})
    for record in records:
        row = rows[record.image.stem]
        assert states(record) == ({row["finding"]: "present"} if row["finding"] else {})
        assert (record.sex or "", record.view or "") == (row["sex"], row["view"])
        assert record.age_years == (float(row["age"]) if row["age"].isdecimal() else None)
    assert len({record.patient for record in records}) == len({name.rstrip("abc") for name in rows})
    texts = [text.text for record in records for text in record.texts]
    assert len(texts) == sum(len(row["notes"]) > len("labeled normal patient") for row in rows.values()) + 2
    assert not any("label" in text.lower() or "\x92" in text for text in texts)


# Actualmed


def actualmed(root: Path, finding: str, notes: str) -> ActualmedCovid:
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        header = ("patientid", "finding", "modality", "imagename", "notes")
        csv.writer(file).writerows([header, ("ANON1", finding, "X-ray", "CR.1.png", notes)])
    touch(root, "images/CR.1.png")
    return ActualmedCovid(root)


NEGATIVE = "Negative (covid-19 viral infection is excluded), date taken (YYYYMMDD): 20200319"


@pytest.mark.parametrize(
    ("finding", "notes", "expected"),
    [
        ("No finding", NEGATIVE, {"No finding": "present", "COVID-19": "absent"}),
        ("", "Inconclusive, date taken (YYYYMMDD): 20200323", {"COVID-19": "uncertain"}),
        ("COVID-19", ", date taken (YYYYMMDD): 20200320", {"COVID-19": "present"}),
        ("", "", {}),
        ("No finding", "", {"No finding": "present"}),
    ],
)
def test_outcomes_of_actualmed(tmp_path: Path, finding: str, notes: str, expected: dict[str, str]) -> None:
    (record,) = actualmed(tmp_path, finding, notes).read()
    assert (states(record), record.texts, record.patient) == (expected, (), "ANON1")


def test_an_outcome_that_contradicts_its_finding_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"metadata\.csv:2: the finding is 'COVID-19', the notes say 'Negative'"):
        list(actualmed(tmp_path, "COVID-19", NEGATIVE).read())


def test_what_else_the_notes_say_is_kept_as_text_without_the_date(tmp_path: Path) -> None:
    (record,) = actualmed(tmp_path, "", "Inconclusive, bilateral opacities, date taken (YYYYMMDD): 20200319").read()
    assert [text.text for text in record.texts] == ["bilateral opacities"]


def test_real_actualmed(real_data: Path) -> None:
    reader = ActualmedCovid(real_data / "Actualmed-COVID-chestxray-dataset")
    records = list(reader.read())
    assert (reader.account.seen, reader.account.yielded, reader.account.excluded) == (44, 44, {})
    rows = {row["imagename"]: row for row in table(reader.root / "metadata.csv")}
    expected = Counter((row["finding"], "present") for row in rows.values() if row["finding"])
    expected += Counter(("COVID-19", "absent") for row in rows.values() if row["notes"].startswith("Negative"))
    expected += Counter(("COVID-19", "uncertain") for row in rows.values() if row["notes"].startswith("Inconclusive"))
    assert Counter(item for record in records for item in states(record).items()) == expected
    assert expected["COVID-19", "absent"] == 14
    assert expected["COVID-19", "uncertain"] == 9
    assert {record.image.name: record.patient for record in records} == {
        name: row["patientid"] for name, row in rows.items()
    }
    assert not any(record.texts for record in records)


# Lung masks


def test_the_demo_or_the_folder_above_it_may_be_given(tmp_path: Path) -> None:
    touch(tmp_path, "Demo/Data/1.jpg", "Demo/Data/1-mask.png")
    (tmp_path / "Demo" / "idx.csv").write_text("img,mask\n1.jpg,1-mask.png\n")
    for root in (tmp_path, tmp_path / "Demo"):
        (record,) = LungSegmentation(root).read()
        (region,) = record.regions
        assert (region.finding, region.shape) == ("lung", "mask")
        assert region.mask_path == tmp_path / "Demo/Data/1-mask.png"


def test_a_picture_is_not_its_own_mask(tmp_path: Path) -> None:
    touch(tmp_path, "Data/1.jpg")
    (tmp_path / "idx.csv").write_text("img,mask\n1.jpg,1.jpg\n")
    reader = LungSegmentation(tmp_path)
    (record,) = reader.read()
    assert record.regions == ()
    assert reader.account.notes["mask file is missing"] == 1


def test_real_lung_masks_have_the_size_of_their_pictures_and_lie_within(real_data: Path) -> None:
    reader = LungSegmentation(real_data / "lung-segmentation-2d-demo")
    records = list(reader.read())
    assert (len(records), reader.account.excluded) == (4, {})
    for record in records:
        (region,) = record.regions
        assert region.mask_path is not None
        mask = cv2.imread(str(region.mask_path), cv2.IMREAD_UNCHANGED)
        picture = cv2.imread(str(record.image), cv2.IMREAD_GRAYSCALE)
        assert region.mask_path.name == f"{record.image.stem}-mask.png"
        assert mask.shape == picture.shape
        assert set(np.unique(mask)) == {0, 255}
        assert picture[mask > 0].mean() < picture[mask == 0].mean() + 60, "lungs are dark"


# NIH1000


def test_real_nih1000_are_images_of_the_nihs_patients(real_data: Path) -> None:
    reader = Nih1000(real_data / "nih1000-64px")
    records = list(reader.read())
    assert (reader.account.seen, reader.account.yielded, reader.account.excluded) == (902, 902, {})
    assert Counter(states(record)["normal"] for record in records) == {"present": 439, "absent": 463}
    assert all(record.split is None and record.patient_namespace == "nih-chestxray14" for record in records)
    nih = {record.image_id: record for record in NihChestxray14(real_data / "nih-chestxray14").read()}
    both = [record for record in records if record.image.name in nih]
    assert len(both) == 7
    for record in both:
        assert record.patient == nih[record.image.name].patient
        assert nih[record.image.name].patient_namespace in (None, record.patient_namespace)
    abnormal = [record for record in both if states(record)["normal"] == "absent"]
    assert all("No Finding" not in states(nih[record.image.name]) for record in abnormal)


def test_folders_that_are_no_nih1000_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "train/normal/00000001_000.png")
    with pytest.raises(LayoutError, match="no folder train/0_normal"):
        list(Nih1000(tmp_path).read())


# Open-i


def openi_xml(root: Path, uid: str, findings: str, impression: str, terms: list[str], image: str) -> None:
    (root / "ecgen-radiology").mkdir(exist_ok=True)
    (root / "ecgen-radiology" / f"{uid}.xml").write_text(
        f'<eCitation><uId id="CXR{uid}"/><Abstract><AbstractText Label="FINDINGS">{escape(findings)}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{escape(impression)}</AbstractText></Abstract><MeSH>'
        + "".join(f"<major>{escape(term)}</major>" for term in terms)
        + f'</MeSH><parentImage id="{image}"/></eCitation>'
    )


@pytest.mark.parametrize(
    ("terms", "names"),
    [
        (["Opacity/lung/base/left", "Opacity/lung/upper lobe/right"], ("Opacity",)),
        (["Lung/hypoinflation", "Lung"], ("Lung/hypoinflation",)),
        (["normal"], ("normal",)),
        (["No Indexing"], ()),
        (["", "Technical Quality of Image Unsatisfactory "], ()),
        (["Cardiomegaly/mild", "Aorta, Thoracic/tortuous"], ("Cardiomegaly", "Aorta, Thoracic/tortuous")),
    ],
)
def test_terms_of_openi_give_their_heading_or_what_is_said_of_a_place(terms: list[str], names: tuple[str, ...]) -> None:
    assert findings_of(tuple(terms)) == names


def test_openi_texts_are_findings_then_impression_and_marks_of_anonymity_stay(tmp_path: Path) -> None:
    openi_xml(tmp_path, "1", "Heart  XXXX enlarged.", "No change & no \n effusion.", ["normal"], "CXR1_1_IM-0001-3001")
    openi_xml(tmp_path, "2", "", " . ", ["normal"], "CXR2_IM-0652-1001")
    touch(tmp_path, "png/CXR1_1_IM-0001-3001.png", "png/CXR2_IM-0652-1001.png", "png/unknown.png")
    reader = Openi(tmp_path)
    first, second = reader.read()
    assert [text.text for text in first.texts] == ["Heart XXXX enlarged.\nNo change & no effusion."]
    assert (first.patient, first.study, second.texts) == ("1", "1", ())
    assert reader.account.excluded == {"file name is none of the collection's": 1}
    assert reader.account.notes["image whose report is blank"] == 1


@pytest.mark.parametrize("text", ['<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "<a>", "", "<a/>", "\0"])
def test_other_xml_is_a_typed_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "ecgen-radiology").mkdir()
    (tmp_path / "ecgen-radiology" / "1.xml").write_text(text)
    with pytest.raises(TableError) as caught:
        list(Openi(tmp_path).read())
    assert "1.xml" in str(caught.value.where)


def test_real_openi_tables_with_generated_pictures(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "openi-indiana-reports"
    for name in ("indiana_reports.csv", "indiana_projections.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    images = table(folder / "indiana_projections.csv")
    touch(tmp_path, *(f"images/images_normalized/{row['filename']}" for row in images))
    reader = Openi(tmp_path)
    records = list(reader.read())
    assert reader.account.seen == reader.account.yielded + sum(reader.account.excluded.values())
    reports = {row["uid"]: row for row in table(folder / "indiana_reports.csv")}
    assert len(records) == len({row["filename"] for row in images if row["uid"] in reports}) > 5_000
    for record in records:
        row = reports[record.patient or ""]
        sections = [row[name] for name in ("findings", "impression") if re.search("[A-Za-z0-9]", row[name])]
        assert " ".join(text.text for text in record.texts).split() == " ".join(sections).split()
        problems = {part.strip().lower() for part in row["Problems"].split(";")} - {"no indexing", ""}
        headings = {name.split("/")[0].lower() for name in states(record)}
        assert headings <= problems


# TBX11K


def tbx11k(root: Path, *images: str, **boxes: list[Any]) -> Tbx11k:
    folder = root / "annotations" / "json"
    folder.mkdir(parents=True, exist_ok=True)
    names = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis")
    data = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "images": [
            {"id": number, "file_name": name, "width": 512, "height": 512} for number, name in enumerate(images)
        ],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": names.index(name) + 1, "bbox": box} for name, box in boxes.items()
        ],
    }
    (folder / "TBX11K_train.json").write_text(json.dumps(data))
    touch(root, *(f"imgs/{name}" for name in images if ".." not in name))
    return Tbx11k(root)


def test_the_folder_says_sick_or_healthy_and_boxes_say_which_tuberculosis(tmp_path: Path) -> None:
    reader = tbx11k(tmp_path, "tb/tb1.png", "health/h1.png", "sick/s1.png", ActiveTuberculosis=[1, 2, 30, 40])
    health, sick, tb = reader.read()
    assert states(health) == {"health": "present", "tb": "absent"}
    assert states(sick) == {"health": "absent", "tb": "absent"}
    assert states(tb) == {"tb": "present", "ActiveTuberculosis": "present"}
    (region,) = tb.regions
    assert (region.finding, region.box, region.frame) == ("ActiveTuberculosis", (1, 2, 30, 40), (512, 512))
    assert {health.split, sick.split, tb.split} == {"train"}


def test_a_box_in_a_healthy_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"TBX11K_train\.json"):
        list(tbx11k(tmp_path, "health/h1.png", ActiveTuberculosis=[1, 2, 30, 40]).read())
