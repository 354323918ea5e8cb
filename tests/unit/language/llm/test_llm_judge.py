"""Answers are judged: language, form, and agreement with labels, with care."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

from umif.language import templates, vocabulary, write_passage
from umif.language.llm import Answer, Item, UnfitError, judge, language_of, not_english, read_mentions, read_states
from umif.language.llm.judge import parse, states_of
from umif.language.llm.work import label_lines
from umif.language.sentences import fill
from umif.language.templates import NO_FINDING
from umif.readers.base import LabelState
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from pathlib import Path

P, A, U = LabelState.PRESENT, LabelState.ABSENT, LabelState.UNCERTAIN
FINDINGS = [entry for entry in vocabulary() if entry.kind == "finding" and entry.id != NO_FINDING]
ENGLISH = [
    "No pneumothorax.",
    "Cardiomegaly.",
    "Lungs are clear.",
    "Small left pleural effusion with adjacent atelectasis. No pneumothorax is seen.",
    "ET tube in satisfactory position.",
    "Calcified granuloma in the right upper lobe, unchanged.",
    "Normal study.",
]
OTHERS = [
    ("spanish", "No se observan hallazgos patológicos. Silueta cardiaca normal."),
    ("spanish", "sin hallazg patolog . aument densid base izquierd"),
    ("spanish", "derrame pleural izquierdo"),
    ("french", "Pas d'épanchement pleural. Le coeur est de taille normale et les poumons sont clairs."),
    ("german", "Kein Pleuraerguss. Das Herz ist nicht vergrößert und die Lunge ist frei."),
    ("italian", "Non si osserva versamento pleurico. Il cuore è nei limiti."),
    ("portuguese", "Não há derrame pleural. O coração e os pulmões estão normais com uma linha."),
    ("other", "胸腔积液。心脏增大。"),
    ("other", "Плевральный выпот. Сердце увеличено."),
]


@pytest.mark.parametrize("text", ENGLISH)
def test_short_english_is_english(text: str) -> None:
    assert not_english(text) is None


@pytest.mark.parametrize(("language", "text"), OTHERS)
def test_other_languages_are_noticed(language: str, text: str) -> None:
    assert not_english(text) is not None
    if language != "other":
        assert language_of(text) == language


def test_every_passage_of_the_bank_is_english() -> None:
    for number, entry in enumerate(FINDINGS):
        for state in (P, A, U):
            for draw in range(5):
                text = write_passage([(entry.id, state)], keyed_rng(number, "t", draw))
                assert not_english(text) is None, text


def test_real_notes_are_english(real_data: Path) -> None:
    with (real_data / "covid-chestxray-dataset" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        notes = [row["clinical_notes"] for row in csv.DictReader(file) if row["clinical_notes"].strip()]
    wrong = [note for note in notes if language_of(note) not in ("english", None)]
    assert len(notes) > 50
    assert len(wrong) <= len(notes) * 0.01, wrong[:5]


def test_real_reports_are_english_and_hardly_ever_held_against_their_own_labels(real_data: Path) -> None:
    table = real_data / "openi-indiana-reports" / "indiana_reports.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["findings"] and row["impression"]][::5]
    refused = stated = found = 0
    for row in rows:
        text = f"{row['findings']} {row['impression']}"
        labels = tuple((name.strip(), P) for name in row["Problems"].split(";"))
        assert not_english(text) is None, text
        refused += bool(verdict("translate", text, dict(labels), text))
        said = read_states(text)
        known = [key for key in states_of(Item("", None, "", labels)) if key != NO_FINDING]
        stated += len(known)
        found += sum(P in said.get(key, ()) for key in known)
    # Indexers and radiologists themselves disagree now and then ("no definite effusion", indexed as effusion).
    assert refused <= 0.02 * len(rows)
    assert found >= 0.65 * stated
    assert len(rows) > 300


def test_the_banks_sentences_are_never_read_otherwise_and_nearly_always_read() -> None:
    total = right = 0
    for entry in FINDINGS:
        for state in (P, A, U):
            for sentence in templates().single(state, diagnosis=entry.diagnosis):
                for wording in entry.words[:2]:
                    text = fill(sentence, wording, plural=entry.plural)
                    said = read_states(f"{text[0].upper()}{text[1:]}.")
                    assert said in ({}, {entry.id: {state}}), text
                    total += 1
                    right += bool(said)
    assert right / total > 0.95


def test_passages_of_several_findings_are_never_read_otherwise() -> None:
    for draw in range(400):
        rng = keyed_rng(draw, "labels")
        chosen = [FINDINGS[int(i)] for i in rng.choice(len(FINDINGS), size=6, replace=False)]
        labels = {entry.id: (P, A, U)[int(rng.integers(3))] for entry in chosen}
        text = write_passage(list(labels.items()), rng)
        for key, states in read_states(text).items():
            assert states == {labels[key]}, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No pneumothorax, pleural effusion, or consolidation is seen.", "absent absent absent"),
        ("No pneumothorax, cardiomegaly is present.", "absent None"),
        ("There is no pneumothorax and there is a small effusion.", "absent None"),
        ("Effusion is present and pneumothorax is absent.", "present absent"),
        ("Cardiomegaly without pulmonary edema or pleural effusions.", "present absent absent"),
        ("The heart is enlarged but there is no edema.", "present absent"),
        ("Consolidation, likely representing pneumonia.", "present uncertain"),
        ("No change in the pleural effusion.", "None"),
        ("No new consolidation.", "None"),
        ("The effusion has resolved.", "None"),
        ("History of pneumonia.", "None"),
        ("Rule out pneumonia.", "None"),
        ("Pneumonia cannot be excluded.", "uncertain"),
        ("Pneumonia is excluded.", "absent"),
        ("Subcutaneous emphysema is seen; no emphysema.", "present absent"),
        ("Neither nodules nor masses are seen.", "absent absent"),
        ("Ground glass opacities and an opacity.", "present present"),
        ("Pneumothorax\nNo effusion", "present absent"),
        ("Small effusion, no pneumothorax, mild cardiomegaly.", "present absent None"),
        ("Pleural effusion is not seen and the heart is enlarged.", "absent None"),
        ("Effusion is absent and pneumothorax is present.", "absent present"),
        ("No pneumothorax, effusion or consolidation.", "absent absent absent"),
        ("No pneumothorax and mild cardiomegaly.", "absent None"),
        ("Atelectasis or pneumonia.", "None None"),
        ("Pneumonia versus atelectasis.", "None None"),
        ("Pneumothorax: no.", "absent"),
        ("Effusion?", "None"),
        ("Edema is unlikely.", "None"),
        ("Opacity concerning for pneumonia.", "present uncertain"),
    ],
)
def test_free_text_is_read_with_care(text: str, expected: str) -> None:
    assert " ".join(str(mention.state) for mention in read_mentions(text)) == expected


def verdict(job: str, text: str, labels: dict[str, LabelState], original: str = "") -> str:
    item = Item("i", "open", original, tuple(labels.items()))
    answer = Answer(json.dumps({"text": text}), "stop", "m", 1, 1, 0.1)
    try:
        judge(job, item, answer)  # type: ignore[arg-type]
    except UnfitError as error:
        return str(error)
    return ""


LABELS = {"Effusion": P, "Pneumothorax": A, "Edema": U}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A pleural effusion is seen. No pneumothorax. Possible pulmonary edema.", ""),
        ("Pleural effusion is present. Pulmonary edema cannot be excluded.", ""),
        ("Pleural effusion. Pulmonary edema. No pneumothorax.", "edema as uncertain but as present"),
        (
            "No pleural effusion. No pneumothorax. Possible pulmonary edema.",
            "pleural_effusion as present but as absent",
        ),
        ("No pneumothorax. Possible pulmonary edema.", "does not state pleural_effusion"),
        ("Pleural effusion with pneumothorax. Possible pulmonary edema.", "pneumothorax as present"),
        ("Pleural effusion. Possible pulmonary edema. The heart is enlarged.", "invents cardiomegaly"),
        ("Pleural effusion. Possible pulmonary edema. Possible pneumonia.", "invents doubt of pneumonia"),
        ("Pleural effusion. Possible pulmonary edema. No fracture.", "denies fracture"),
        ("Left pleural effusion. Possible pulmonary edema.", "place or degree: 'left'"),
        ("Severe pleural effusion. Possible pulmonary edema.", "place or degree: 'severe'"),
        ("Normal radiograph. Pleural effusion. Possible pulmonary edema.", "whether the image is normal"),
    ],
)
def test_a_written_report_states_its_labels_and_nothing_else(text: str, reason: str) -> None:
    assert reason in verdict("reports", text, LABELS)
    assert bool(reason) == bool(verdict("reports", text, LABELS))


def test_what_is_wider_than_a_label_may_be_stated_with_it() -> None:
    assert verdict("reports", "Consolidation due to pneumonia.", {"Pneumonia": P}) == ""
    assert "invents pneumonia" in verdict("reports", "Consolidation due to pneumonia.", {"Consolidation": P})
    assert verdict("reports", "No lung opacity, no consolidation.", {"Lung Opacity": A}) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Normal radiograph. No pleural effusion.", ""),
        ("The lungs are clear.", "whether the image is normal"),
        ("Normal radiograph with a nodule.", "invents nodule"),
    ],
)
def test_a_report_of_a_normal_image(text: str, reason: str) -> None:
    assert reason in verdict("reports", text, {"No Finding": P})


def test_every_plain_passage_passes_as_a_report_of_its_labels() -> None:
    for number, entry in enumerate(FINDINGS):
        for state in (P, A, U):
            labels = {entry.id: state}
            text = write_passage(list(labels.items()), keyed_rng(number, "t"), wording="plain")
            assert verdict("reports", text, labels) == "", text
            assert [entry.name in line and str(state) in line for line in label_lines(list(labels.items()))] == [True]


@pytest.mark.parametrize(
    ("text", "labels", "reason"),
    [
        ("There is a pleural effusion on the left.", {"Effusion": P}, ""),
        ("There is a pleural effusion on the left.", {}, ""),
        ("There is a pleural effusion on the left.", {"Effusion": A}, "which the labels deny"),
        ("There is no pleural effusion on the left.", {"Effusion": P}, "denies pleural_effusion"),
        ("No new effusion on the left; the right effusion persists.", {"Effusion": P}, ""),
        ("There is no effusion on the right. Small left effusion.", {"Effusion": P}, ""),
        ("No lung opacity is seen in this image.", {"Pneumonia": P}, "denies lung_opacity"),
        ("There is consolidation of the lung.", {"No Finding": P}, "without finding"),
        ("A pacemaker and scoliosis are seen.", {"No Finding": P}, ""),
        ("Possible pneumonia in the lung.", {"Pneumonia": P}, ""),
    ],
)
def test_a_translation_may_not_contradict_its_labels(text: str, labels: dict[str, LabelState], reason: str) -> None:
    found = verdict("translate", text, labels, "palabra " * len(text.split()))
    assert reason in found
    assert bool(reason) == bool(found), found


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("There is a left pleural effusion. No pneumothorax is seen.", ""),
        ("Left pleural effusion without pneumothorax. Effusion unchanged.", ""),
        ("There is no left pleural effusion. No pneumothorax is seen.", "pleural_effusion as absent"),
        ("The lungs are clear and there is no pneumothorax at all.", "drops pleural_effusion"),
        ("There is a left pleural effusion. No pneumothorax. Cardiomegaly is present.", "adds cardiomegaly"),
    ],
)
def test_a_polish_keeps_every_finding(after: str, reason: str) -> None:
    found = verdict("polish", after, {}, "effusion pleural left there is a pleural effusion. no pneumothorax")
    assert reason in found
    assert bool(reason) == bool(found), found


@pytest.mark.parametrize(
    "content",
    [
        '{"text": "a b"}',
        '  ```json\n{"text": "a  b"}\n```  ',
        '```{"text": "a\\nb"}```',
        '<think>{"text": "no"}</think>\n{"text": "a b", "note": 1}',
        '{"text": "a\nb"}',
    ],
)
def test_an_answer_is_parsed_past_fences_and_thoughts(content: str) -> None:
    assert parse(content) == "a b"


@pytest.mark.parametrize(
    "content", ["a b", '{"text": 1}', '"a b"', '{"txt": "a"}', 'Here: {"text": "a"}', "", "[" * 5000]
)
def test_whatever_else_is_no_answer(content: str) -> None:
    with pytest.raises(UnfitError):
        parse(content)
    with pytest.raises(UnfitError, match="Unicode"):
        parse('{"text": "\\ud800"}')
