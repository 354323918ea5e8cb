"""What a text says of findings: plain words are understood, and where there is doubt nothing is concluded."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from umif.corpus.quality_mentions import contradictions, said_of
from umif.language import vocabulary, write_passage
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "finding", "said"),
    [
        ("Small left pleural effusion.", "pleural_effusion", "present"),
        ("FINDINGS: small left pleural effusion", "pleural_effusion", "present"),
        ("There are bilateral pleural effusions without pneumothorax.", "pleural_effusion", "present"),
        ("There are bilateral pleural effusions without pneumothorax.", "pneumothorax", "absent"),
        ("No pneumothorax, pleural effusion or consolidation.", "consolidation", "absent"),
        ("No evidence of pneumothorax.", "pneumothorax", "absent"),
        ("Pneumothorax is not seen.", "pneumothorax", "absent"),
        ("Negative for pneumothorax", "pneumothorax", "absent"),
        ("No fracture but cardiomegaly.", "cardiomegaly", "present"),
        ("Possible pneumonia.", "pneumonia", "uncertain"),
        ("Pneumonia cannot be excluded.", "pneumonia", "uncertain"),
        ("INDICATION: pneumonia", "pneumonia", "uncertain"),
        ("History of pneumothorax.", "pneumothorax", "uncertain"),
        ("No new pneumothorax.", "pneumothorax", "uncertain"),
        ("No change in the pleural effusion.", "pleural_effusion", "uncertain"),
        ("No cardiomegaly with small pleural effusion.", "pleural_effusion", "uncertain"),
        ("Pneumonia or edema.", "edema", "uncertain"),
        ("Pneumonia?", "pneumonia", "uncertain"),
        ("Resolved pneumothorax.", "pneumothorax", "uncertain"),
    ],
)
def test_a_sentence_is_read_as_a_person_would(text: str, finding: str, said: str) -> None:
    assert said_of(text)[finding] == {said}


def test_the_longest_spelling_is_taken() -> None:
    assert set(said_of("Subcutaneous emphysema on the left.")) == {"subcutaneous_emphysema"}


def test_a_narrower_finding_that_is_stated_saves_the_wider_label() -> None:
    text = "No pneumonia of the right lung. Viral pneumonia of the left lung."
    assert contradictions([("pneumonia", "present")], text) == []
    assert contradictions([("pneumonia", "present")], "No pneumonia.") == [
        "labelled with pneumonia, which the text denies"
    ]


@pytest.mark.parametrize("stronger", ["present", "uncertain"])
def test_the_stronger_of_two_labels_of_one_finding_stands(stronger: str) -> None:
    for labels in ([("edema", stronger), ("edema", "absent")], [("edema", "absent"), ("edema", stronger)]):
        assert contradictions(labels, "Pulmonary edema.") == []


def test_passages_of_labels_hardly_ever_contradict_them() -> None:
    names = [entry.id for entry in vocabulary() if entry.kind == "finding" and entry.id != "no_finding"]
    rng = np.random.default_rng(0)
    false = 0
    for step in range(1500):
        states = rng.choice(["present", "absent", "uncertain"], 5).tolist()
        labels = list(zip(rng.choice(names, 5, replace=False).tolist(), states, strict=True))
        false += bool(contradictions(labels, write_passage(labels, keyed_rng(0, "mentions", step))))
    # The bank has turns that no report has ("the search for … came to nothing"); one in a hundred is passed over.
    assert false <= 15


def test_on_real_reports_false_alarms_are_rare_and_denials_are_found(real_data: Path) -> None:
    """Labels that people gave to real reports; a denied finding labelled present is the planted contradiction."""
    with (real_data / "openi-indiana-reports" / "indiana_reports.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    reports = alarms = denied = caught = 0
    for row in rows:
        text = f"{row['findings']} {row['impression']}"
        entries = [vocabulary().find(name.strip()) for name in row["Problems"].split(";")]
        labels = [(entry.id, "present") for entry in entries if entry is not None and entry.kind == "finding"]
        reports += 1
        alarms += bool(contradictions(labels, text))
        for finding, words in (("pneumothorax", "no pneumothorax"), ("pleural_effusion", "no pleural effusion")):
            if words in text.lower() and finding not in dict(labels):
                denied += 1
                caught += bool(contradictions([(finding, "present")], text))
    assert alarms <= 0.002 * reports
    assert caught >= 0.97 * denied > 500
