"""Texts read back: a small reader of its own finds in them what the description holds, and nothing else."""

from __future__ import annotations

import re

import pytest

from umif.corpus.phantom_description import (
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICES,
    EDEMA,
    EFFUSION,
    FINDINGS,
    FRACTURE,
    NO_FINDING,
    NODULE,
    PNEUMOTHORAX,
    Description,
    describe,
)
from umif.corpus.phantom_text import write_caption, write_questions, write_report

WORDS = {
    EFFUSION: r"effusion",
    CARDIOMEGALY: r"cardiomegaly|enlargement|heart is not enlarged",
    PNEUMOTHORAX: r"pneumothorax",
    CONSOLIDATION: r"consolidation",
    NODULE: r"nodule",
    "Atelectasis": r"atelectasis",
    EDEMA: r"edema",
    FRACTURE: r"fracture",
    DEVICES: r"tube|device|catheter",
}
DENIAL = re.compile(r"\bno\b|\bnot enlarged\b|\bnegative for\b", re.IGNORECASE)
DOUBT = re.compile(r"possible|cannot be excluded|may be|questionable|suspected|suspicious", re.IGNORECASE)
SIDES = {"left": r"\bleft\b", "right": r"\bright\b", "both": r"\bbilateral\b"}


@pytest.fixture(scope="module")
def series() -> list[Description]:
    return [describe(2, index) for index in range(300)]


def sentences(text: str) -> list[str]:
    text = re.sub(r"(FINDINGS|IMPRESSION|Impression): ", "", text)
    return [part for part in re.split(r"(?<=\.)\s+", text) if part]


def read(text: str) -> dict[str, set[str]]:
    """Finding → the states that sentences give it."""
    states: dict[str, set[str]] = {}
    for sentence in sentences(text):
        state = "absent" if DENIAL.search(sentence) else "uncertain" if DOUBT.search(sentence) else "present"
        for name, words in WORDS.items():
            if re.search(words, sentence, re.IGNORECASE):
                states.setdefault(name, set()).add(state)
    return states


def test_reports_say_what_the_labels_say_and_nothing_else(series: list[Description]) -> None:
    for description in series:
        told = read(write_report(description))
        for name in FINDINGS:
            state = description.label(name)
            if state in ("present", "uncertain"):
                assert told[name] == {state}, write_report(description)
            elif state == "absent":
                assert told.get(name, {"absent"}) == {"absent"}
            else:
                assert name not in told


def test_reports_negate_some_of_what_is_absent(series: list[Description]) -> None:
    for description in series:
        if sum(description.label(name) == "absent" for name in FINDINGS) > 2:
            assert sum(states == {"absent"} for states in read(write_report(description)).values()) >= 2


def test_sides_zones_and_sizes_are_those_of_the_description(series: list[Description]) -> None:
    for description in series:
        told = [*sentences(write_report(description)), write_caption(description)]
        for finding in description.findings:
            if finding.name in (CARDIOMEGALY, EDEMA) or finding.side == "midline":
                continue
            for sentence in told:
                for part in re.split(r",| and ", sentence):
                    if re.search(WORDS[finding.name], part, re.IGNORECASE) and not DENIAL.search(part):
                        assert re.search(SIDES[finding.side], part, re.IGNORECASE), (part, finding)
                        if " zone" in part:
                            assert f"{finding.zone} zone" in part
                        size = re.search(r"small|moderate|large", part, re.IGNORECASE)
                        if size:
                            assert size[0].lower() == ("small", "moderate", "large")[min(int(finding.size * 3), 2)]


def test_normal_reports_say_so(series: list[Description]) -> None:
    for description in series:
        normal = re.search(r"Normal chest|No acute|No abnormality|Unremarkable", write_report(description)) is not None
        assert normal == (description.label(NO_FINDING) == "present")


def test_reports_are_a_few_sentences_long_and_rarely_alike(series: list[Description]) -> None:
    reports = [write_report(description) for description in series]
    lengths = [len(sentences(report)) for report in reports]
    assert min(lengths) >= 3
    assert sum(3 <= length <= 8 for length in lengths) > 0.95 * len(lengths)
    assert len(set(reports)) > 0.97 * len(reports)
    assert all("  " not in report and "{" not in report for report in reports)


def test_captions_are_one_sentence_that_tells_no_lie(series: list[Description]) -> None:
    for description in series:
        caption = write_caption(description)
        assert len(sentences(caption)) == 1
        assert (f"{description.age_years}-year-old") in caption
        assert ("woman" in caption) == (description.sex == "F")
        listed = {name for name, words in WORDS.items() if re.search(words, caption)}
        assert listed <= {finding.name for finding in description.findings}
        assert bool(listed) == bool(description.findings)
        for name in listed:
            doubted = re.search(rf"possible [^,]*({WORDS[name]})", caption) is not None
            assert doubted == (description.label(name) == "uncertain"), caption


def test_questions_have_the_answers_of_the_description(series: list[Description]) -> None:
    asked = set()
    for description in series:
        questions = write_questions(description)
        assert len({question["question"] for question in questions}) == len(questions) >= 3
        for question in questions:
            name, answer = question["finding"], question["answer"]
            asked.add((name, question["answer_type"]))
            assert question["question"].endswith("?")
            if name == "":
                assert answer == description.view
            elif name == NO_FINDING:
                assert answer == ("no" if description.findings else "yes")
            elif question["answer_type"] == "CLOSED":
                assert re.search(WORDS[name], question["question"], re.IGNORECASE)
                assert answer == ("yes" if description.finding(name) else "no")
                assert description.label(name) != "uncertain"
            else:
                finding = description.finding(name)
                assert finding is not None
                assert description.label(name) == "present"
                if "side" in question["question"]:
                    assert answer == {"both": "both sides"}.get(finding.side, finding.side)
                elif question["question"].startswith("Where"):
                    assert answer == f"{finding.side} {finding.zone} zone"
                elif "device" in question["question"]:
                    assert answer == finding.kind
    assert {(name, "CLOSED") for name in FINDINGS} < asked
    assert {(name, "OPEN") for name in FINDINGS} < asked
