"""Passages say what their labels say, vary, and are pure in their generator; the bank is unambiguous."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from umif.errors import ConfigError
from umif.language import load_templates, prompts, read_passage, templates, vocabulary, write_passage
from umif.language.sentences import fill
from umif.language.templates import DATA, NO_FINDING, PROMPTS
from umif.readers.base import LabelState
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from pathlib import Path

P, A, U, N = LabelState.PRESENT, LabelState.ABSENT, LabelState.UNCERTAIN, LabelState.NOT_MENTIONED
FINDINGS = [entry for entry in vocabulary() if entry.kind == "finding" and entry.id != NO_FINDING]
LABELS = [("Effusion", P), ("cardiomegaly", A), ("pneumonia", U), ("Pneumothorax", A), ("Support Devices", P)]


def passages(labels: list[tuple[str, LabelState]], count: int = 200, **options: object) -> list[str]:
    return [write_passage(labels, keyed_rng(7, "template", step), **options) for step in range(count)]  # type: ignore[arg-type]


def test_bank_holds_over_a_hundred_sentences() -> None:
    assert len(templates()) >= 120
    for state in (P, A, U):
        assert len(templates().single(state, diagnosis=True)) >= 15


@pytest.mark.parametrize("state", [P, A, U])
def test_every_sentence_reads_back_for_every_finding(state: LabelState) -> None:
    for entry in FINDINGS:
        for sentence in templates().single(state, diagnosis=entry.diagnosis):
            for wording in entry.words:
                text = fill(sentence, wording, plural=entry.plural)
                assert "{" not in text
                assert read_passage(f"{text}.") == {entry.id: state}, text


def test_sentences_about_the_whole_picture_read_back() -> None:
    for state in (P, A, U):
        assert len(templates().whole(state)) >= 6
        for sentence in templates().whole(state):
            assert read_passage(sentence) == {NO_FINDING: state}


def test_openings_state_nothing() -> None:
    assert [read_passage(sentence) for sentence in templates().opening] == [{}] * len(templates().opening)


def test_same_generator_gives_the_same_passage() -> None:
    assert passages(LABELS, 20) == passages(LABELS, 20)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    passages(LABELS, 5)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002


def test_passages_vary_in_sentences_order_and_style() -> None:
    texts = passages(LABELS)
    assert len(set(texts)) > 190
    assert sum(text == text.lower() for text in texts) > 10
    assert sum(";" in text for text in texts) > 10
    first = Counter(next(iter(read_passage(text))) for text in texts)
    assert len(first) >= 4, "the order hardly changes"


def test_present_and_uncertain_findings_are_always_stated() -> None:
    counts = set()
    for text in passages(LABELS):
        states = read_passage(text)
        assert {key: state for key, state in states.items() if state != A} == {
            "pleural_effusion": P,
            "support_devices": P,
            "pneumonia": U,
        }
        counts.add(sum(state == A for state in states.values()))
    assert counts == {0, 1, 2}, "how many negatives are stated is not drawn"


def test_negatives_alone_are_stated() -> None:
    assert all(read_passage(text) for text in passages([("cardiomegaly", A), ("edema", A)]))


def test_uncertain_findings_can_be_left_out() -> None:
    for text in passages(LABELS, uncertain="left_out"):
        assert "pneumonia" not in text.lower()
    assert write_passage([("pneumonia", U)], keyed_rng(0, "t"), uncertain="left_out") == ""


def test_what_is_not_mentioned_stays_unmentioned() -> None:
    for text in passages([("Effusion", N), ("cardiomegaly", P)]):
        assert read_passage(text) == {"cardiomegaly": P}
    assert write_passage([("Effusion", N)], keyed_rng(0, "t")) == ""
    assert write_passage([], keyed_rng(0, "t")) == ""


def test_number_of_statements_is_bounded_and_negatives_go_first() -> None:
    labels = [(entry.id, P if index < 3 else A) for index, entry in enumerate(FINDINGS)]
    for text in passages(labels, 50, max_statements=5):
        states = read_passage(text)
        assert 3 <= len(states) <= 5
        assert sum(state == P for state in states.values()) == 3
    assert write_passage(labels, keyed_rng(0, "t"), max_statements=0) == ""


@pytest.mark.parametrize(("states", "expected"), [((P, A), P), ((A, U), U), ((U, P), P), ((N, A), A)])
def test_two_labels_of_one_finding_give_the_stronger(
    states: tuple[LabelState, LabelState], expected: LabelState
) -> None:
    for order in (states, states[::-1]):
        labels = list(zip(("Infiltration", "Infiltrate"), order, strict=True))
        assert read_passage(write_passage(labels, keyed_rng(0, "t"))) == {"infiltration": expected}


def test_organs_are_no_findings() -> None:
    assert write_passage([("Left Lung", P)], keyed_rng(0, "t")) == ""
    with pytest.raises(ConfigError, match="no finding"):
        prompts("left lung")


def test_words_outside_the_vocabulary_are_named_as_they_are() -> None:
    for text in passages([("Bamboo_spine; severe.", P), ("cardiomegaly", A)], 50):
        assert "bamboo spine severe" in text.lower()
        assert set(read_passage(text)) <= {"cardiomegaly"}


def test_no_severity_or_side_is_invented() -> None:
    words = re.compile(r"\b(mild|moderate|severe|large|small|left|right|bilateral|upper|lower)\b", re.IGNORECASE)
    labels = [(entry.id, P) for entry in FINDINGS if entry.id not in ("sars", "ards")]
    for text in passages(labels, 50, max_statements=100):
        cleaned = text.lower().replace("severe acute respiratory", "")
        assert not words.search(cleaned), words.search(cleaned)


def test_verbs_agree_with_plural_findings() -> None:
    for text in passages([("support_devices", P)]) + passages([("support_devices", A)]):
        assert not re.search(r"devices (is|was|has)\b|there is (no )?(medical )?support", text, re.IGNORECASE), text


def test_state_may_be_given_as_text_and_nonsense_is_refused() -> None:
    assert read_passage(write_passage([("edema", "absent")], keyed_rng(0, "t"))) == {"edema": A}
    with pytest.raises(ConfigError, match="no label state"):
        write_passage([("edema", "maybe")], keyed_rng(0, "t"))


def test_plain_passages_are_made_of_the_prompts_sentences() -> None:
    for entry in FINDINGS:
        positive, negative = prompts(entry.id)
        for state, known in ((P, positive), (A, negative)):
            found = {write_passage([(entry.id, state)], keyed_rng(i, "t"), wording="plain") for i in range(40)}
            assert found == set(known), entry.id


def test_plain_passages_of_several_findings_can_be_read_back() -> None:
    labels = [("pneumonia", P), ("pleural_effusion", A), ("edema", A), ("nodule", U)]
    known = dict(labels)
    for i in range(60):
        text = write_passage(labels, keyed_rng(i, "t"), wording="plain")
        read = read_passage(text)
        assert read.items() <= known.items()
        assert {"pneumonia", "nodule"} <= read.keys()


@pytest.mark.parametrize("finding", ["pneumothorax", "Effusion", "COVID-19", "support_devices", "No Finding"])
def test_prompts_state_presence_and_absence_in_the_banks_words(finding: str) -> None:
    positive, negative = prompts(finding)
    entry = vocabulary().find(finding)
    assert entry is not None
    assert len(set(positive)) == len(set(negative)) == PROMPTS
    assert [read_passage(text) for text in positive] == [{entry.id: P}] * len(positive)
    assert [read_passage(text) for text in negative] == [{entry.id: A}] * len(negative)


def test_prompts_of_every_finding_are_in_sentence_case() -> None:
    for entry in FINDINGS:
        for text in (*prompts(entry.id)[0], *prompts(entry.id)[1]):
            assert text[0].isupper()
            assert text.endswith(".")


def test_prompts_for_free_words() -> None:
    positive, negative = prompts("bamboo spine")
    assert all("bamboo spine" in text.lower() for text in (*positive, *negative))
    assert not set(positive) & set(negative)
    with pytest.raises(ConfigError):
        prompts(" ")


def bank(folder: Path, **changes: object) -> Path:
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    for key, value in changes.items():
        group, _, part = key.partition("__")
        if part:
            data[group][part] = value
        else:
            data[group] = value
    path = folder / "templates.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_another_bank_replaces_it(tmp_path: Path) -> None:
    own = load_templates(bank(tmp_path, present={"any": ["look at {a_finding}"]}, opening=[], normal=["all is well"]))
    texts = {write_passage([("hernia", P)], keyed_rng(1, "t", step), bank=own).lower() for step in range(30)}
    assert texts == {"look at a hernia.", "look at a diaphragmatic hernia."}
    assert read_passage("Look at a hernia; all is well.", bank=own) == {"hernia": P, NO_FINDING: P}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"present__any": ["nothing here"]}, "nothing here"),
        ({"present__any": ["{finding} {finding}"]}, "once"),
        ({"present__any": ["{finding} {severity}"]}, "once"),
        ({"present__any": ["{finding}. Yes"]}, "full stop"),
        ({"present__any": ["{finding} {"]}, "stray brace"),
        ({"present__any": []}, "present.any"),
        ({"present__joint": ["{finding}"]}, "findings"),
        ({"normal": ["normal {finding}"]}, "no slot"),
        ({"normal": ["abnormal radiograph"]}, "stands under"),
        ({"absent__sign": ["{finding} {is} seen"]}, "stands under"),
        ({"gone": ["x"]}, "unknown key"),
    ],
)
def test_damaged_bank_is_refused_and_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_templates(bank(tmp_path, **changes))
    assert "templates.yaml" in str(caught.value)


def test_ambiguous_bank_is_noticed_when_a_passage_is_read(tmp_path: Path) -> None:
    own = load_templates(bank(tmp_path, absent__any=["none of {finding}", "{a_finding} {is} seen"]))
    with pytest.raises(ConfigError, match="2 ways"):
        read_passage("Cardiomegaly is seen.", bank=own)
