"""Is an answer fit to be used? Parsed, whole, English, of a sensible length, and in agreement with the labels.

A check that cannot tell lets the text pass where a human wrote what it was made from (translation, polish); a report
that is written from labels alone must state them, and nothing else that the checks can see.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

from umif.language.hierarchy import denied_but_shown, strongest
from umif.language.llm.english import not_english
from umif.language.llm.reading import read_mentions, read_states
from umif.language.llm.rules import rules
from umif.language.templates import NO_FINDING, read_passage
from umif.language.vocabulary import Vocabulary, vocabulary
from umif.readers.base import LabelState

if TYPE_CHECKING:
    from umif.language.llm.cache import Answer
    from umif.language.llm.items import Item
    from umif.language.llm.prompts import Job

P, A, U = LabelState.PRESENT, LabelState.ABSENT, LabelState.UNCERTAIN
_MOST_REPEATS = 3
_REPORT_WORDS = (2, 250)
# Stemmed Spanish gains small words in translation; a polish changes little.
_WORD_RATIO = {"translate": (0.3, 3.5), "polish": (0.4, 2.5)}
_SLACK_WORDS = 15
_NORMAL = re.compile(
    r"\b(normal|unremarkable|healthy|no finding|no abnormal|nothing abnormal|no patholog)", re.IGNORECASE
)


class UnfitError(Exception):
    """An answer that cannot be used; the message says why."""


def judge(job: Job, item: Item, answer: Answer, words: Vocabulary | None = None) -> str:
    """Return the text of an answer that passes every check.

    Raises:
        UnfitError: it does not; the reason is the message.
    """
    if answer.finish == "length":
        raise UnfitError("cut off at the longest length")
    if answer.finish not in ("stop", "eos", "end_turn", "stop_sequence"):
        raise UnfitError(f"ended by {answer.finish}")
    text = parse(answer.text)
    _check_form(job, item, text)
    known = words or vocabulary()
    if job == "reports":
        _check_written(item, text, known)
    else:
        _check_told(item, text, known)
        if job == "polish":
            _check_same(item.text, text, known)
    return text


def parse(content: str) -> str:
    """Return the text inside `{"text": …}`, past thoughts and a code fence.

    Raises:
        UnfitError: there is no such object, or something else beside it.
    """
    bare = re.sub(r"^.*</think>", "", content, flags=re.DOTALL).strip()
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", bare, flags=re.DOTALL)
    try:
        data = json.loads(fenced[1] if fenced else bare, strict=False)
    except (ValueError, RecursionError):
        raise UnfitError("is no JSON object") from None
    text = data.get("text") if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise UnfitError("has no text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnfitError("holds no valid Unicode") from None
    return re.sub(r"\s+", " ", text).strip()


def _check_form(job: Job, item: Item, text: str) -> None:
    if not text:
        raise UnfitError("is empty")
    why = not_english(text)
    if why is not None:
        raise UnfitError(f"not English: {why}")
    lower = text.casefold()
    scrap = next((scrap for scrap in rules().chatter if scrap in lower and scrap not in item.text.casefold()), None)
    if scrap is not None:
        raise UnfitError(f"talks instead of reporting: {scrap!r}")
    sentences = Counter(sentence.strip().casefold() for sentence in re.split(r"[.;]", text) if sentence.strip())
    if sentences and max(sentences.values()) > _MOST_REPEATS:
        raise UnfitError("repeats itself")
    count = len(text.split())
    least, most = _REPORT_WORDS
    if job != "reports":
        given, (low, high) = len(item.text.split()), _WORD_RATIO[job]
        least, most = int(given * low) - _SLACK_WORDS, int(given * high) + _SLACK_WORDS
    if not least <= count <= most:
        raise UnfitError(f"has {count} words where {max(1, least)} to {most} are plausible")


def states_of(item: Item, words: Vocabulary | None = None) -> dict[str, LabelState]:
    """Return the item's labels by the vocabulary's ids, the stronger of two.

    Without unknown labels and organs, and without the denial of a finding of which a narrower one is there.
    """
    known = words or vocabulary()
    entries = [(known.find(raw), state) for raw, state in item.labels if state != LabelState.NOT_MENTIONED]
    states = strongest((entry.id, state) for entry, state in entries if entry and entry.kind != "anatomy")
    denied = denied_but_shown(states, known)
    return {key: state for key, state in states.items() if key not in denied}


def _of(states: dict[str, LabelState], wanted: LabelState, words: Vocabulary, *, wider: bool = True) -> set[str]:
    """Return the findings in a state; with `wider`, all that they are kinds of as well."""
    ids = [key for key, state in states.items() if state == wanted]
    return {above for key in ids for above in (words.lineage(key) if wider else (key,))}


def _check_told(item: Item, text: str, words: Vocabulary) -> None:
    """Refuse what clearly contradicts a label: stated in one way only, and that the opposite of the label."""
    labels, said = states_of(item, words), read_states(text, words)
    asserted = {key for key, states in said.items() if states != {A}}
    for key, state in labels.items():
        if state == P and key != NO_FINDING:
            denied = [above for above in words.lineage(key) if said.get(above) == {A}]
            if denied and not any(key in words.lineage(other) for other in asserted):
                raise UnfitError(f"denies {denied[0]}, which the labels state")
    absent = _of(labels, A, words, wider=False) - _of(labels, P, words) - _of(labels, U, words)
    for key, states in said.items():
        if states == {P} and absent.intersection(words.lineage(key)):
            raise UnfitError(f"states {key}, which the labels deny")
        standard = any(words[above].chexpert14 for above in words.lineage(key))
        device = "support_devices" in words.lineage(key)
        if labels.get(NO_FINDING) == P and states == {P} and standard and not device and labels.get(key) != P:
            raise UnfitError(f"states {key} in an image without finding")


def _check_written(item: Item, text: str, words: Vocabulary) -> None:
    """Refuse a report that leaves a label out, states it otherwise, or states what no label does."""
    labels, said = states_of(item, words), read_states(text, words)
    present, doubtful = _of(labels, P, words), _of(labels, U, words)
    absent, healthy = _of(labels, A, words, wider=False), labels.get(NO_FINDING) == P
    for key, state in labels.items():
        if key == NO_FINDING:
            continue
        if state != A and said.get(key) != {state}:
            raise UnfitError(
                f"does not state {key} as {state}" + (f" but as {_listed(said[key])}" if key in said else "")
            )
        if state == A and said.get(key, {A}) != {A}:
            raise UnfitError(f"states {key} as {_listed(said[key])}, which the labels deny")
    for key, states in said.items():
        denied = bool(absent.intersection(words.lineage(key)))
        if P in states and (key not in present or (denied and key not in labels)):
            raise UnfitError(f"invents {key}")
        if U in states and key not in doubtful | present:
            raise UnfitError(f"invents doubt of {key}")
        if A in states and not denied and not healthy:
            raise UnfitError(f"denies {key}, which no label does")
    if read_passage(text).get(NO_FINDING) not in (None, labels.get(NO_FINDING)) or (
        healthy and not _NORMAL.search(text)
    ):
        raise UnfitError("does not agree on whether the image is normal")
    qualifier = _qualifier(text, item)
    if qualifier is not None:
        raise UnfitError(f"invents a place or degree: {qualifier!r}")


def _listed(states: set[LabelState]) -> str:
    return " and ".join(sorted(states))


def _check_same(before: str, after: str, words: Vocabulary) -> None:
    """Refuse a polish that turns, drops or adds a finding that both readings are clear about."""
    old, new = read_states(before, words), read_states(after, words)
    for key, states in old.items():
        if key in new and len(states) == 1 and not states & new[key]:
            raise UnfitError(f"states {key} as {_listed(new[key])}, the original as {_listed(states)}")
        if states == {P} and not any(key in words.lineage(other) or other in words.lineage(key) for other in new):
            raise UnfitError(f"drops {key}")
    named = {mention.finding for mention in read_mentions(before, words)}  # unclear mentions included
    for key, states in new.items():
        related = any(key in words.lineage(other) or other in words.lineage(key) for other in old)
        if states == {P} and not related and key not in named:
            raise UnfitError(f"adds {key}")


@cache
def _qualifiers() -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, rules().qualifiers))})(?![\w-])")


def _qualifier(text: str, item: Item) -> str | None:
    """Return a place or degree that stands in the text outside the names of its labels."""
    rest = text.casefold()
    known = vocabulary()
    for raw, _ in item.labels:
        entry = known.find(raw)
        for words in (raw, *(wording.words for wording in entry.words)) if entry else (raw,):
            rest = rest.replace(re.sub(r"[_/]", " ", words).casefold(), " ")
    match = _qualifiers().search(rest)
    return match[0] if match else None
