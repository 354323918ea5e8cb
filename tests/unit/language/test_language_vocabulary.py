"""The vocabulary: every spelling of the datasets finds its id, colours are distinct, damaged files are refused."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
import yaml

from umif.errors import ConfigError
from umif.language import Vocabulary, load_vocabulary, normalise, vocabulary
from umif.language.vocabulary import DATA

if TYPE_CHECKING:
    from pathlib import Path

# The table of spellings that datasets use, written down apart from the vocabulary's file.
SPELLINGS = {
    "no_finding": "No Finding; No finding; normal; Normal; NORMAL",
    "enlarged_cardiomediastinum": "Enlarged Cardiomediastinum; mediastinal enlargement; "
    "superior mediastinal enlargement",
    "cardiomegaly": "Cardiomegaly; cardiomegaly",
    "lung_opacity": "Lung Opacity; Airspace Opacity; Airspace opacity; opacity",
    "lung_lesion": "Lung Lesion; Other lesion; lesion",
    "edema": "Edema; pulmonary edema",
    "consolidation": "Consolidation; COVID-19 Consolidation",
    "pneumonia": "Pneumonia; PNEUMONIA; atypical pneumonia",
    "atelectasis": "Atelectasis; laminar atelectasis; lobar atelectasis; segmental atelectasis; total atelectasis; "
    "round atelectasis",
    "pneumothorax": "Pneumothorax; hydropneumothorax; COVID-19 Pneumothorax",
    "pleural_effusion": "Pleural Effusion; Effusion; Pleural effusion; loculated pleural effusion; "
    "COVID-19 Pleural Effusion",
    "pleural_other": "Pleural Other; pleural plaques; calcified pleural plaques; pleural mass",
    "fracture": "Fracture; Clavicle fracture; Rib fracture; humeral fracture; vertebral fracture; callus rib fracture",
    "support_devices": "Support Devices; pacemaker; dual chamber device; single chamber device; catheter; "
    "central venous catheter; NSG tube; tracheostomy tube; chest drain tube; artificial heart valve; prosthesis",
    "infiltration": "Infiltration; Infiltrate; infiltrates",
    "nodule": "Nodule; Nodule/Mass; nodule; multiple nodules; pseudonodule; Nodule or mass",
    "mass": "Mass; pulmonary mass; mass",
    "emphysema": "Emphysema; emphysema",
    "fibrosis": "Fibrosis; Pulmonary fibrosis; fibrotic band",
    "pleural_thickening": "Pleural_Thickening; Pleural thickening; apical pleural thickening; "
    "calcified pleural thickening",
    "hernia": "Hernia; hiatal hernia",
    "interstitial_lung_disease": "ILD; interstitial pattern; reticular interstitial pattern; "
    "reticulonodular interstitial pattern",
    "ground_glass": "ground glass pattern; COVID-19 Ground Glass Opacities; Ground Glass Opacities",
    "alveolar_pattern": "alveolar pattern; air bronchogram",
    "aortic_enlargement": "Aortic enlargement; aortic elongation; aortic button enlargement; aortic aneurysm",
    "aortic_atheromatosis": "aortic atheromatosis; Calcification of the Aorta",
    "calcification": "Calcification; calcified densities; calcified adenopathy",
    "granuloma": "granuloma; calcified granuloma",
    "hilar_enlargement": "hilar enlargement; hilar congestion; adenopathy",
    "enlarged_pulmonary_artery": "Enlarged PA; pulmonary artery enlargement; pulmonary hypertension",
    "heart_failure_signs": "heart insufficiency; vascular redistribution; kerley lines",
    "costophrenic_angle_blunting": "costophrenic angle blunting",
    "hemidiaphragm_elevation": "hemidiaphragm elevation",
    "flattened_diaphragm": "flattened diaphragm",
    "hyperinflation": "COPD; air trapping; hyperinflated lung; COPD signs",
    "bronchiectasis": "bronchiectasis",
    "cavity": "Lung cavity; cavitation; abscess",
    "cyst": "Lung cyst; cyst; bullas",
    "tuberculosis": "Tuberculosis; tuberculosis; tuberculosis sequelae",
    "lung_tumor": "Lung tumor; lung metastasis",
    "mediastinal_shift": "Mediastinal shift; mediastinal shift; tracheal shift",
    "subcutaneous_emphysema": "subcutaneous emphysema",
    "scoliosis": "scoliosis; kyphosis",
    "foreign_object": "foreign object; metal; suture material",
    "covid_typical": "covid_typical",
    "covid_indeterminate": "covid_indeterminate",
    "covid_atypical": "covid_atypical",
    "covid_19": "COVID-19; Pneumonia/Viral/COVID-19",
    "ards": "ARDS",
    "sars": "SARS; Pneumonia/Viral/SARS",
    "streptococcal_pneumonia": "Streptococcus; Pneumonia/Bacterial/Streptococcus",
    "pneumocystis_pneumonia": "Pneumocystis; Pneumonia/Fungal/Pneumocystis",
    "mycoplasma_pneumonia": "Mycoplasma Bacterial Pneumonia; Pneumonia/Bacterial/Mycoplasma",
    "e_coli_pneumonia": "E.Coli; Pneumonia/Bacterial/E.Coli",
    "bacterial_pneumonia": "BACTERIAL PNEUMONIA; Bacterial; Pneumonia/Bacterial",
    "viral_pneumonia": "VIRAL PNEUMONIA; Viral; Pneumonia/Viral",
    "fungal_pneumonia": "Pneumonia/Fungal",
    "aspiration_pneumonia": "Pneumonia/Aspiration",
    "lipoid_pneumonia": "Lipoid; Pneumonia/Lipoid",
    "endotracheal_tube": "COVID-19 Endotracheal Tube; endotracheal tube",
    "nasogastric_tube": "COVID-19 Nosogastric Tube",
    "left_lung": "Left Lung; COVID-19 Left Lung",
    "right_lung": "Right Lung; COVID-19 Right Lung",
    "cardiomediastinum": "COVID-19 Cardiomediastinum",
    "airways": "COVID-19 Airways",
}
CHEXPERT = {
    "no_finding", "enlarged_cardiomediastinum", "cardiomegaly", "lung_opacity", "lung_lesion", "edema", "consolidation",
    "pneumonia", "atelectasis", "pneumothorax", "pleural_effusion", "pleural_other", "fracture", "support_devices",
}  # fmt: skip


@pytest.mark.parametrize(("finding", "spellings"), SPELLINGS.items())
def test_spellings_of_datasets_are_known(finding: str, spellings: str) -> None:
    for spelling in (finding, *spellings.split("; ")):
        entry = vocabulary().find(spelling)
        assert entry is not None, spelling
        assert entry.id == finding, spelling


@pytest.mark.parametrize("unknown", ["", "pneumo", "Effusions", "breast mass", "Other disease", "no", "todo"])
def test_nothing_is_guessed(unknown: str) -> None:
    assert vocabulary().find(unknown) is None


def test_flags_are_those_of_chexpert() -> None:
    assert {entry.id for entry in vocabulary() if entry.chexpert14} == CHEXPERT
    assert {entry.id for entry in vocabulary() if entry.competition} == {
        "atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("finding", "wider"),
    [
        ("cardiomegaly", "enlarged_cardiomediastinum"), ("edema", "lung_opacity"), ("pneumonia", "consolidation"),
        ("consolidation", "lung_opacity"), ("nodule", "lung_lesion"), ("covid_19", "pneumonia"),
        ("endotracheal_tube", "support_devices"), ("left_lung", "lung"), ("pleural_thickening", "pleural_other"),
    ],
)  # fmt: skip
def test_wider_findings_are_in_the_lineage(finding: str, wider: str) -> None:
    assert wider in vocabulary().lineage(finding)
    assert finding not in vocabulary().lineage(wider)


def test_colours_are_visible_and_far_apart() -> None:
    colours = [entry.colour for entry in vocabulary()]
    assert len(set(colours)) == len(colours)
    assert min(max(colour) for colour in colours) >= 60, "hardly brighter than the background"
    closest = min(sum(abs(a - b) for a, b in zip(left, right, strict=True)) for left, right in combinations(colours, 2))
    assert closest >= 30


def test_released_colours_do_not_change() -> None:
    # Masks of a trained encoder keep their meaning only as long as these do.
    known = {entry.id: entry.colour for entry in vocabulary()}
    assert known["cardiomegaly"] == (255, 0, 0)
    assert known["lung_opacity"] == (0, 255, 255)


def test_normalise_is_stable() -> None:
    for entry in vocabulary():
        for spelling in (entry.id, entry.name, *entry.synonyms):
            assert normalise(normalise(spelling)) == normalise(spelling)
            assert not re.search(r"[_/\-A-Z]|\s\s|^\s|\s$", normalise(spelling))


def test_words_lead_back_to_their_finding() -> None:
    for entry in vocabulary():
        for wording in entry.words:
            expected = None if entry.kind == "anatomy" else entry
            assert vocabulary().find_words(wording.words.upper()) is expected
            assert vocabulary().find_words(wording.with_article) is expected


def test_unknown_id_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'pneumothorax'"):
        vocabulary()["pneumotorax"]
    assert "pneumothorax" in vocabulary()


ENTRY = {"id": "a", "name": "finding a", "colour": [1, 2, 3]}
OTHER = {"id": "b", "name": "finding b", "colour": [4, 5, 6]}


def load(folder: Path, *entries: object, **more: object) -> Vocabulary:
    path = folder / "vocabulary.yaml"
    path.write_text(yaml.safe_dump({"entries": list(entries), **more}))
    return load_vocabulary(path)


def test_another_file_replaces_it(tmp_path: Path) -> None:
    own = load(tmp_path, ENTRY, OTHER | {"parent": "a", "wordings": ["a bee"]})
    assert len(own) == 2
    assert own.lineage("b") == ("b", "a")
    assert own.find("BEE") is own["b"]
    assert own.find("pneumonia") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "a"}, "occurs twice"),
        ({"colour": [1, 2, 3]}, "same colour"),
        ({"colour": [0, 0, 0]}, "black"),
        ({"colour": [0, 0, 256]}, "0 to 255"),
        ({"colour": [1, 2]}, "colour"),
        ({"synonyms": ["Finding_A"]}, "claimed by 'a' and by 'b'"),
        ({"name": "b and c"}, "'and' or 'or'"),
        ({"wordings": ["b, c"]}, "comma"),
        ({"parent": "z"}, "no finding 'z'"),
        ({"parent": "b"}, "kind of itself"),
        ({"id": "B b"}, "id"),
        ({"sinonyms": []}, "unknown key 'entries.1.sinonyms'"),
        ({"kind": "organ"}, "kind"),
    ],
)
def test_damaged_file_is_refused_and_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load(tmp_path, ENTRY, OTHER | change)
    assert "vocabulary.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("entries: [", "valid YAML"), ("- a", "key: value"), ("\xff", "as text")]
)
def test_what_is_no_yaml_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "v.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        load_vocabulary(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_vocabulary(tmp_path / "nothing.yaml")


def test_yaml_that_builds_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.yaml"
    path.write_text("entries: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="valid YAML"):
        load_vocabulary(path)


def test_own_file_is_read_once_per_process() -> None:
    assert vocabulary() is vocabulary()
    assert DATA.is_file()


def test_language_needs_no_torch() -> None:
    code = "import sys, umif.language as l; l.vocabulary(); l.templates(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
