"""Whatever the labels, a passage can be taken apart again and says nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from umif.language import read_passage, vocabulary, write_passage
from umif.readers.base import LabelState
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Mapping

IDS = [entry.id for entry in vocabulary() if entry.kind == "finding"]
SPELLINGS = {entry.id: (entry.id, entry.name, *entry.synonyms) for entry in vocabulary()}
NARROWER = {key: [other for other in IDS if key in vocabulary().lineage(other)[1:]] for key in IDS}
WIDER = [key for key in IDS if NARROWER[key]]
LABELS = st.dictionaries(st.sampled_from(IDS), st.sampled_from(list(LabelState)), max_size=20)


def contradicted(key: str, states: Mapping[str, LabelState]) -> bool:
    """Whether a finding is absent and one that is a kind of it is present or uncertain."""
    shown = (LabelState.PRESENT, LabelState.UNCERTAIN)
    return states[key] == LabelState.ABSENT and any(states.get(other) in shown for other in NARROWER[key])


@settings(max_examples=150, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 2**63), limit=st.integers(1, 25), data=st.data())
def test_passage_reads_back_to_its_labels(
    labels: dict[str, LabelState], seed: int, limit: int, data: st.DataObject
) -> None:
    raw = [(data.draw(st.sampled_from(SPELLINGS[key])), state) for key, state in labels.items()]
    text = write_passage(raw, keyed_rng(seed, "template"), max_statements=limit)
    states = read_passage(text)
    mentioned = {key: state for key, state in labels.items() if state != LabelState.NOT_MENTIONED}
    mentioned = {key: state for key, state in mentioned.items() if not contradicted(key, mentioned)}
    assert states.items() <= mentioned.items()
    assert len(states) <= limit
    assert bool(states) == bool(mentioned) == bool(text)
    stated = {key for key, state in mentioned.items() if state != LabelState.ABSENT}
    if len(stated) <= limit:
        assert stated <= states.keys(), "a finding that is there was left out"
    else:
        assert states.keys() <= stated, "a negative took the place of a finding"


@settings(max_examples=150, deadline=None)
@given(
    wider=st.sampled_from(WIDER),
    shown=st.sampled_from([LabelState.PRESENT, LabelState.UNCERTAIN]),
    others=LABELS,
    seed=st.integers(0, 2**63),
    data=st.data(),
)
def test_no_passage_denies_a_finding_of_which_it_states_a_kind(
    wider: str, shown: LabelState, others: dict[str, LabelState], seed: int, data: st.DataObject
) -> None:
    narrower = data.draw(st.sampled_from(NARROWER[wider]))
    labels = {**others, wider: LabelState.ABSENT, narrower: shown}
    for uncertain in ("worded", "left_out"):
        states = read_passage(write_passage(list(labels.items()), keyed_rng(seed, "template"), uncertain=uncertain))
        assert wider not in states
        assert not any(contradicted(key, states) for key in states)
        if uncertain == "worded":
            assert states[narrower] == shown or len(labels) > 12


@settings(max_examples=80, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 2**63))
def test_uncertain_findings_left_out_are_nowhere(labels: dict[str, LabelState], seed: int) -> None:
    text = write_passage(list(labels.items()), keyed_rng(seed, "template"), uncertain="left_out")
    assert LabelState.UNCERTAIN not in read_passage(text).values()


@settings(max_examples=80, deadline=None)
@given(
    words=st.lists(st.tuples(st.text(max_size=20), st.sampled_from(list(LabelState))), max_size=5),
    seed=st.integers(0, 2**63),
)
def test_any_words_give_a_passage_or_nothing(words: list[tuple[str, LabelState]], seed: int) -> None:
    text = write_passage(words, keyed_rng(seed, "template"))
    assert text == "" or text.endswith(".")
