"""Free English text → which findings it states, and how. Made to err towards saying nothing.

Templates are read back exactly by `umif.language.read_passage`; a model's prose cannot be. Here findings are found by
the vocabulary's words, and cues around each mention tell its state. Where cues contradict each other or reach too far,
the mention is unclear: it neither supports a label nor speaks against one. Source: the idea of cues and scopes is
NegEx's (Chapman et al., 2001); cues and rules are our own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from umif.language.llm.rules import rules
from umif.language.vocabulary import Vocabulary, vocabulary
from umif.readers.base import LabelState

if TYPE_CHECKING:
    from collections.abc import Iterable

_SENTENCES = re.compile(r"(?<=[.!?;])\s+|;|\n+")
_MASK = "§"
# What may stand between a finding and a cue that follows it.
_LINKING = re.compile(
    rf"(?:[\s,:{_MASK}]|\b(?:and|or|is|are|was|were|be|been|has|have|can|also|an?|there|remains?)\b)*"
)
_ASSERTED = re.compile(
    r"\s*(?:is|are|was|were|has been|have been)\s+(?:\w+ly\s+)?"
    r"(?:present|seen|noted|visible|evident|identified|demonstrated|found|observed|apparent|detected|recognised)\b"
)
_JOINED_BY_OR = re.compile(rf"{_MASK}.*\b(?:or|nor)\b[^,{_MASK}]*$")
_GOES_ON_WITH_OR = re.compile(rf"(?:\s*,[^,{_MASK}]*{_MASK})*\s*,?\s*(?:or|nor)\b[^,{_MASK}]*{_MASK}")
# A mention that has its verb, so that the cue that follows is its own.
_LINKED = re.compile(rf"{_MASK}\s*(?:is|are|was|were|has been|have been)\s*$")
_VERBS = ("may", "might", "could")
_ANSWERED_NO = re.compile(r"\s*[:?]\s*(?:no|none|negative|absent)\b")


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a text names a finding; `state` is `None` where it cannot be told."""

    finding: str
    words: str
    state: LabelState | None


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    parts = sorted((r"\s+".join(map(re.escape, phrase.split())) for phrase in words), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(parts)})(?![\w-])")


@cache
def _cues(name: str) -> re.Pattern[str]:
    return _any_of(getattr(rules(), name))


def _phrase(words: str) -> str:
    """Return the pattern of a finding's words: hyphens optional, the last word in either number."""
    parts = [re.escape(part) for part in re.split(r"[\s-]+", words.casefold()) if part]
    last = parts[-1]
    parts[-1] = f"{last[:-1]}(?:y|ies)" if last.endswith("y") else f"{last}(?:e?s)?" if last[-1].isalpha() else last
    return r"[\s-]+".join(parts)


@cache
def _mentions(words: Vocabulary) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return a pattern with one group for each way to name a finding, longest first, and whose they are."""
    names: dict[str, str] = {}
    for entry in words:
        if entry.kind != "finding" or entry.id == "no_finding":
            continue
        spelled = [wording.words for wording in entry.words]
        # One-word spellings of datasets (`Typical`, `virus`) mean other things in prose.
        spelled += [text for text in entry.synonyms if re.fullmatch(r"[A-Za-z]+(?:[ -][A-Za-z]+)+", text)]
        for text in (*spelled, *rules().words.get(entry.id, ())):
            names.setdefault(_phrase(text), entry.id)
    ordered = sorted(names, key=lambda phrase: (-len(phrase), phrase))
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(f'({phrase})' for phrase in ordered)})(?![\w-])")
    return pattern, tuple(names[phrase] for phrase in ordered)


def read_mentions(text: str, words: Vocabulary | None = None) -> list[Mention]:
    """Return every mention of a finding in a free text, in order.

    Example:
        >>> [(m.finding, m.state.value) for m in read_mentions("Small pleural effusion without pneumothorax.")]
        [('pleural_effusion', 'present'), ('pneumothorax', 'absent')]
    """
    pattern, owners = _mentions(words or vocabulary())
    found: list[Mention] = []
    for sentence in _SENTENCES.split(text.casefold().replace("’", "'")):
        matches = list(pattern.finditer(sentence))
        for start, end in _clauses(sentence, matches) if matches else ():
            inside = [match for match in matches if start <= match.start() < end]
            # What lies between the mentions of a clause, which themselves may hold cues (`indeterminate appearance`).
            edges = [start, *(place for match in inside for place in match.span()), end]
            gaps = [sentence[edges[n] : edges[n + 1]] for n in range(0, len(edges), 2)]
            for number, match in enumerate(inside, start=1):
                state = _state(_MASK.join(gaps[:number]), _MASK.join(gaps[number:]))
                found.append(Mention(owners[(match.lastindex or 1) - 1], match[0], state))
    return found


def read_states(text: str, words: Vocabulary | None = None) -> dict[str, set[LabelState]]:
    """Return the states in which a free text clearly states each finding; unclear mentions are left out."""
    states: dict[str, set[LabelState]] = {}
    for mention in read_mentions(text, words):
        if mention.state is not None:
            states.setdefault(mention.finding, set()).add(mention.state)
    return states


def _clauses(sentence: str, mentions: list[re.Match[str]]) -> list[tuple[int, int]]:
    """Return where the clauses start and end: split at boundary words outside findings."""
    clauses, start = [], 0
    for match in _cues("boundaries").finditer(sentence):
        if not any(one.start() < match.end() and match.start() < one.end() for one in mentions):
            clauses.append((start, match.start()))
            start = match.end()
    return [*clauses, (start, len(sentence))]


def _state(before: str, after: str) -> LabelState | None:
    if _cues("unclear_before").search(before) or _follows("unclear_after", after) or after.lstrip().startswith("?"):
        return None
    if _ANSWERED_NO.match(after):
        return LabelState.ABSENT
    for kind, state in (("doubtful", LabelState.UNCERTAIN), ("negated", LabelState.ABSENT)):
        ahead = list(_cues(f"{kind}_before").finditer(before))
        reach = _reaches(before, ahead[-1], after) if ahead else False
        behind = _follows(f"{kind}_after", after)
        if behind or reach:
            return state
        if reach is None or behind is None:
            return None
    # "Atelectasis or pneumonia" states neither.
    return None if _JOINED_BY_OR.search(before) or _GOES_ON_WITH_OR.match(after) else LabelState.PRESENT


def _reaches(before: str, cue: re.Match[str], after: str) -> bool | None:
    """Whether a cue among the words before a mention applies to it; `None` if that cannot be told."""
    ahead, between = before[: cue.start()], before[cue.end() :]
    verb = cue[0] in _VERBS and ahead.rstrip().endswith(_MASK)
    if verb or _LINKED.search(ahead):  # the cue belongs to the mention before it: "effusion is absent and …"
        return False if _ASSERTED.match(after) else None
    if _cues("assertions").search(between):
        return None
    if _MASK in between or "," in between:
        listed = _JOINED_BY_OR.search(between)
        if not (listed or _GOES_ON_WITH_OR.match(after)) or (_ASSERTED.match(after) and not listed):
            return None
    return True


def _follows(kind: str, after: str) -> bool | None:
    """Whether a cue after a mention applies to it; `None` if that cannot be told."""
    match = _cues(kind).search(after)
    if match is None or _ASSERTED.match(after):
        return False
    return True if _LINKING.fullmatch(after[: match.start()]) else None
