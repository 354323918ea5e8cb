"""Degrees and places are worded where they are given, read back exactly, and change nothing where they are not."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.errors import ConfigError
from umif.language import (
    Detail,
    detail_of,
    label_detail,
    load_templates,
    read_details,
    read_passage,
    templates,
    vocabulary,
    write_passage,
)
from umif.language.details import detail_words, write_detailed
from umif.language.llm import read_states
from umif.language.templates import DATA, NO_FINDING
from umif.readers.base import LabelState
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from pathlib import Path

P, A, U = LabelState.PRESENT, LabelState.ABSENT, LabelState.UNCERTAIN
FINDINGS = [entry for entry in vocabulary() if entry.kind == "finding" and entry.id != NO_FINDING]
SEVERITIES = [entry.id for entry in detail_words().severities]
PLACES = [entry.id for entry in detail_words().places]
LABELS = st.dictionaries(
    st.sampled_from([entry.id for entry in FINDINGS]), st.sampled_from(list(LabelState)), max_size=8
)
DETAILS = st.builds(
    Detail,
    st.none() | st.sampled_from(SEVERITIES),
    st.lists(st.sampled_from(PLACES), max_size=3, unique=True).map(tuple),
)


def test_the_bank_has_forms_for_degree_and_place() -> None:
    for state in (P, U):
        for detail in (Detail("mild"), Detail(None, ("left",)), Detail("mild", ("left",))):
            for diagnosis in (True, False):
                assert len(templates().bank(state).detailed.fitting(detail, diagnosis=diagnosis)) >= 4
    assert len(templates()) >= 220


def test_every_detailed_sentence_reads_back_for_every_finding_degree_and_place() -> None:
    rng = keyed_rng(0, "details")
    details = [Detail(s) for s in SEVERITIES] + [Detail(None, (p,)) for p in PLACES]
    details += [Detail(SEVERITIES[n % len(SEVERITIES)], (p, PLACES[n - 1])) for n, p in enumerate(PLACES)]
    for number, entry in enumerate(FINDINGS):
        for state in (P, U):
            for detail in details[number % 5 :: 5]:
                fitting = templates().bank(state).detailed.fitting(detail, diagnosis=entry.diagnosis)
                sentence = fitting[int(rng.integers(len(fitting)))]
                for wording in entry.words:
                    text = write_detailed(sentence, wording, detail, rng, plural=entry.plural, plain=False)
                    assert "{" not in text
                    assert read_details(f"{text}.") == {entry.id: (state, detail)}, text


@pytest.mark.parametrize("state", [P, U])
def test_every_detailed_sentence_reads_back(state: LabelState) -> None:
    for sentence in templates().bank(state).detailed.sentences():
        for entry in FINDINGS[::4]:
            detail = Detail(
                "severe" if any(slot in sentence for slot in ("graded}", "{severity}")) else None,
                ("left_lower_lobe", "right_base") if "{place}" in sentence else (),
            )
            rng = keyed_rng(1, sentence)
            text = write_detailed(sentence, entry.words[0], detail, rng, plural=entry.plural, plain=True)
            assert read_details(text) == {entry.id: (state, detail)}, text
            assert read_passage(text) == {entry.id: state}
            assert read_states(text).get(entry.id) == {state}, text


@settings(max_examples=150, deadline=None)
@given(
    labels=LABELS,
    data=st.data(),
    seed=st.integers(0, 2**63),
    wording=st.sampled_from(["varied", "plain"]),
)
def test_a_passage_states_exactly_the_details_given(
    labels: dict[str, LabelState], data: st.DataObject, seed: int, wording: str
) -> None:
    details = {key: data.draw(DETAILS) for key in labels if data.draw(st.booleans())}
    text = write_passage(list(labels.items()), keyed_rng(seed, "t"), details=details, wording=wording)  # type: ignore[arg-type]
    for key, (state, detail) in read_details(text).items():
        assert state == labels[key]
        assert detail == (details.get(key, Detail()) if state in (P, U) else Detail()), text
    stated = {key for key, state in labels.items() if state in (P, U)}
    assert stated <= read_details(text).keys()


@settings(max_examples=100, deadline=None)
@given(
    labels=LABELS,
    seed=st.integers(0, 2**63),
)
def test_no_details_and_empty_ones_draw_the_same(labels: dict[str, LabelState], seed: int) -> None:
    plain = write_passage(list(labels.items()), keyed_rng(seed, "t"))
    empty = dict.fromkeys(labels, Detail())
    assert write_passage(list(labels.items()), keyed_rng(seed, "t"), details=empty) == plain


def test_passages_without_details_are_what_they_were_before_details_came() -> None:
    ids = [
        "cardiomegaly", "pleural_effusion", "pneumothorax", "edema", "pneumonia", "nodule", "fracture", "no_finding",
        "support_devices", "atelectasis", "covid_19", "hernia",
    ]  # fmt: skip
    digest = hashlib.sha256()
    for seed in range(300):
        rng = keyed_rng(seed, "golden")
        count = int(rng.integers(1, len(ids)))
        states = ("present", "absent", "uncertain")
        labels = [(ids[int(i)], states[int(rng.integers(3))]) for i in rng.choice(len(ids), count, replace=False)]
        if ("pneumonia", "absent") in labels and {("covid_19", "present"), ("covid_19", "uncertain")} & set(labels):
            continue  # a contradiction, of which the denial is no longer written
        digest.update(write_passage(labels, keyed_rng(seed, "t")).encode())
    # Taken from the bank before it had degrees and places; a change of a sentence or wording changes it, and says so.
    assert digest.hexdigest() == "45553dcb7db838257456c6a2a99a82640164cef08b9dd0bd92c667b7b78d68d0"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Costophrenic Angle/right/blunted/mild", Detail("mild", ("right",))),
        ("Opacity/lung/base/left", Detail(None, ("left_base",))),
        ("Opacity/lung/upper lobe/right/severe", Detail("severe", ("right_upper_lobe",))),
        ("Cardiac Shadow/enlarged/moderate", Detail("moderate")),
        ("Pneumonia/Viral/COVID-19", Detail()),
        ("left", Detail()),
        ("Nodule/Mass", Detail()),
        ("x/loc left/loc lower lobe", Detail(None, ("left_lower_lobe",))),
        ("x/left/right/base", Detail(None, ("both_bases",))),
        ("x/lung/bilateral", Detail(None, ("both_lungs",))),
    ],
)
def test_details_of_a_datasets_own_spelling(raw: str, expected: Detail) -> None:
    assert label_detail(raw) == expected


def test_every_place_with_parts_is_found_by_them() -> None:
    spelled = {entry.id: entry for entry in detail_words().places}
    for entry in detail_words().places:
        if entry.parts:
            assert detail_of(entry.parts).places == (entry.id,)
            assert detail_of(reversed(entry.parts)).places == (entry.id,)
        for text in (*entry.words, *entry.synonyms, f"loc {entry.id}"):
            assert detail_of([text]).places == (entry.id,)
        assert set(entry.parts) <= set(spelled)


def test_unknown_details_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'severe'"):
        write_passage([("edema", P)], keyed_rng(0, "t"), details={"edema": Detail("sever")})
    with pytest.raises(ConfigError, match="left_base"):
        write_passage([("edema", P)], keyed_rng(0, "t"), details={"edema": Detail(None, ("left_bas",))})


def test_a_bank_without_detailed_sentences_leaves_details_out(tmp_path: Path) -> None:
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    del data["present"]["detailed"]
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(data))
    bank = load_templates(tmp_path / "t.yaml")
    text = write_passage([("edema", P)], keyed_rng(0, "t"), details={"edema": Detail("mild")}, bank=bank)
    assert read_details(text, bank=bank) == {"edema": (P, Detail())}


@pytest.mark.parametrize(
    ("state", "group", "sentence", "message"),
    [
        ("present", "graded", "{finding} {is} seen", "slots of graded"),
        ("present", "placed", "{graded} {is} seen", "slots of placed"),
        ("present", "both", "{finding} {place}", "slots of both"),
        ("present", "placed", "{finding} {place} {place}", "slots of placed"),
        ("present", "placed", "{finding}, {place}", "comma"),
        ("present", "placed", "{finding} {place} {when}", "slots of placed"),
        ("absent", "placed", "no {finding} {place}", "neither degree nor place"),
    ],
)
def test_damaged_detailed_sentences_are_refused(
    tmp_path: Path, state: str, group: str, sentence: str, message: str
) -> None:
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    data[state].setdefault("detailed", {})[group] = [sentence]
    (tmp_path / "templates.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        load_templates(tmp_path / "templates.yaml")
