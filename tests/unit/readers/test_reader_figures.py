"""Collections of figures: ROCO in both versions and MedICaT, and what a caption says of its figure."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from umif.errors import LayoutError
from umif.readers.figure_captions import NO_RADIOGRAPH, OTHER_PICTURE, clean_caption, has_parts, why_no_radiograph
from umif.readers.medicat import FIGURES, OTHER_REFERENCE, Medicat
from umif.readers.roco import Roco
from umif.readers.roco_v2 import RocoV2

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("Chest X-ray showing an effusion.", None), ("Chest xray", None), ("A x ray", None), ("X‐ray of T1", None),
        ("Panoramic radiograph of the jaw", None), ("Radiographie du thorax de face", None), ("Plain film", None),
        ("Portable CXR", None), ("Roentgenogram of the hand", None), ("Röntgen", NO_RADIOGRAPH),
        ("CT of the chest", NO_RADIOGRAPH), ("Kaplan-Meier curves", NO_RADIOGRAPH),
        ("X-ray and CT of the chest", OTHER_PICTURE), ("X-ray diffraction of crystals", OTHER_PICTURE),
        ("Radiograph (a) and photograph (b)", OTHER_PICTURE), ("Dual-energy X-ray absorptiometry", OTHER_PICTURE),
        ("Chest X-ray computed tomography", OTHER_PICTURE), ("Radiograph; T2-weighted image", OTHER_PICTURE),
        ("Autoradiograph", NO_RADIOGRAPH), ("Coronary angiography", NO_RADIOGRAPH),
    ],
)  # fmt: skip
def test_a_caption_is_believed_if_it_names_a_radiograph_and_nothing_else(caption: str, reason: str | None) -> None:
    assert why_no_radiograph(caption) == reason


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Figure 4. Radiograph", "Radiograph"), ("Fig. 12a: Radiograph", "Radiograph"), ("Fig 3 Hand", "Hand"),
        (" a \n b", "a b"), ("Figure of merit", "Figure of merit"), ("FIGURE S2) Hand", "Hand"), ("4. Hand", "4. Hand"),
    ],
)  # fmt: skip
def test_number_of_a_figure_is_no_part_of_its_caption(raw: str, clean: str) -> None:
    assert clean_caption(raw) == clean


def test_parts_of_a_figure() -> None:
    assert has_parts("(A) before and (b) after")
    assert has_parts("A: before. B: after")
    assert not has_parts("Chest radiograph (a). See (a)")
    assert not has_parts("Grade A lesion, class B")


def test_roco_on_the_real_lists(real_data: Path, tmp_path: Path) -> None:
    """Captions, articles and parts of 1,000 real lines; their images are stood in for."""
    source = real_data / "csv_layouts" / "roco-dataset"
    shutil.copytree(source / "data", tmp_path / "data")
    expected: dict[str, tuple[str, str, str]] = {}
    for part, split in (("validation", "val"), ("test", "test")):
        folder = tmp_path / "data" / part / "radiology"
        (folder / "images").mkdir()
        lines = (folder / "licences.txt").read_text().splitlines()[1:]
        articles = {line.split(",")[0]: line.split(",")[1].split("_")[0] for line in lines}
        for line in (folder / "captions.txt").read_text(encoding="utf-8").splitlines():
            item, caption = line.split("\t", 1)
            (folder / "images" / f"{item}.jpg").write_bytes(b"")
            expected[item] = (" ".join(caption.split()), articles[item], split)
    reader = Roco(tmp_path)
    records = {record.image_id: record for record in reader.read()}
    assert reader.account.seen == len(expected) == 1_000
    assert set(reader.account.excluded) <= {OTHER_PICTURE, NO_RADIOGRAPH, "caption of fewer than 3 words"}
    assert len(records) > 950
    for item, record in records.items():
        caption, article, split = expected[item]
        assert (record.texts[0].text, record.patient, record.split) == (clean_caption(caption), article, split)
        assert not {"CT", "MRI", "ultrasound"} & set(record.texts[0].text.split())


def test_roco_v2_asserts_that_modalities_are_among_the_concepts(tmp_path: Path) -> None:
    (tmp_path / "test_captions.csv").write_text("ID,Caption\nROCOv2_2023_test_000001,Chest X-ray of a man.\n")
    (tmp_path / "test_concepts_manual.csv").write_text("ID,CUIs\nROCOv2_2023_test_000001,C0000001\n")
    with pytest.raises(LayoutError, match="C1306645"):
        list(RocoV2(tmp_path).read())


def test_roco_v2_articles_keep_figures_together(tmp_path: Path) -> None:
    items = [f"ROCOv2_2023_test_{number:06d}" for number in range(3)]
    (tmp_path / "test_captions.csv").write_text("ID,Caption\n" + "".join(f"{item},Chest of a man.\n" for item in items))
    concepts = "ID,CUIs\n" + "".join(f"{item},C1306645\n" for item in items)
    (tmp_path / "test_concepts_manual.csv").write_text(concepts)
    (tmp_path / "license_information.csv").write_text(f"a,b\n{items[0]},x PMC77 y\n{items[1]},PMC77\n")
    (tmp_path / "test_images").mkdir()
    for item in items:
        (tmp_path / "test_images" / f"{item}.jpg").write_bytes(b"")
    assert [record.patient for record in RocoV2(tmp_path).read()] == ["PMC77", "PMC77", None]


def test_medicat_texts_are_the_caption_and_sentences_about_this_picture(tmp_path: Path) -> None:
    name = "a" * 40
    entry = {
        "pdf_hash": name, "fig_uri": "1-Figure1-1.png", "s2_caption": None, "s2orc_caption": "Figure 1. Chest X-ray.",
        "s2orc_references": ["See  Figure 1 here.", "CT showed more (Figure 1).", "Fig. 1", "See Figure 1 here."],
        "radiology": True,
    }  # fmt: skip
    (tmp_path / "release" / "figures").mkdir(parents=True)
    (tmp_path / "release" / FIGURES).write_text(json.dumps(entry | {"s2orc_caption": "Figure 1. Frontal chest X-ray."}))
    (tmp_path / "release" / "figures" / f"{name}_1-Figure1-1.png").write_bytes(b"")
    reader = Medicat(tmp_path)
    (record,) = reader.read()
    assert [text.text for text in record.texts] == ["Frontal chest X-ray.", "See Figure 1 here."]
    assert reader.account.notes[OTHER_REFERENCE] == 1
    assert (record.patient, record.split) == (name, None)


def test_medicat_on_the_real_sample(real_data: Path, tmp_path: Path) -> None:
    sample = real_data / "csv_layouts" / "MedICaT" / "sample.jsonl"
    shutil.copy(sample, tmp_path)
    entries = [json.loads(line) for line in sample.read_text().splitlines()]
    for entry in entries:
        (tmp_path / f"{entry['pdf_hash']}_{entry['fig_uri']}").write_bytes(b"")
    reader = Medicat(tmp_path)
    assert list(reader.read()) == [], "the sample's radiology figures are CT and MR"
    assert reader.account.excluded == {
        NO_RADIOGRAPH: sum(entry["radiology"] for entry in entries),
        "figure is not marked as radiology": sum(not entry["radiology"] for entry in entries),
    }
