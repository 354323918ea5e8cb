"""Label sets ↔ text passages: a bank of sentences, a writer that mixes them, and the reader that takes them apart.

A passage states findings as present, absent or uncertain and never mentions what its labels do not. A degree or a place
is written only where `details` gives one. The bank is `templates.yaml` beside this file; `load_templates(path)` reads
another one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, field_validator, model_validator

from umif.config import Config, parse_config
from umif.errors import ConfigError
from umif.language.details import Detail, DetailBank, check_detail, read_detailed, write_detailed
from umif.language.hierarchy import WEIGHT, denied_but_shown
from umif.language.sentences import SLOT, VERBS, check_sentences, fill
from umif.language.vocabulary import Vocabulary, VocabularyEntry, Wording, read_data, vocabulary
from umif.readers.base import LabelState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

DATA = Path(__file__).with_name("templates.yaml")
NO_FINDING = "no_finding"
PROMPTS = 4
_NO_DETAIL = Detail()
Uncertain = Literal["worded", "left_out"]
Wordiness = Literal["varied", "plain"]
_JOINT_SHARE = {LabelState.PRESENT: 0.25, LabelState.ABSENT: 0.5, LabelState.UNCERTAIN: 0.25}
_LARGEST_JOINT = 4
_CONJUNCTION = {LabelState.PRESENT: "and", LabelState.ABSENT: "or", LabelState.UNCERTAIN: "or"}
_LIST = re.compile(r",\s+|\s+and\s+|\s+or\s+")


class Bank(Config):
    """The sentences of one state: for signs and diagnoses, for signs alone, for several findings, with details."""

    any: tuple[str, ...] = Field(min_length=1)
    sign: tuple[str, ...] = ()
    joint: tuple[str, ...] = ()
    detailed: DetailBank = DetailBank()

    @field_validator("any", "sign")
    @classmethod
    def _one_slot(cls, sentences: tuple[str, ...]) -> tuple[str, ...]:
        return check_sentences(sentences, {"finding", "a_finding"})

    @field_validator("joint")
    @classmethod
    def _list_slot(cls, sentences: tuple[str, ...]) -> tuple[str, ...]:
        return check_sentences(sentences, {"findings", "a_findings"})


class Templates(Config):
    """A bank of sentences; see `templates.yaml` for what each group is for."""

    present: Bank
    absent: Bank
    uncertain: Bank
    normal: tuple[str, ...] = Field(min_length=1)
    not_normal: tuple[str, ...] = Field(min_length=1)
    maybe_normal: tuple[str, ...] = Field(min_length=1)
    opening: tuple[str, ...] = ()

    @field_validator("normal", "not_normal", "maybe_normal", "opening")
    @classmethod
    def _no_slot(cls, sentences: tuple[str, ...]) -> tuple[str, ...]:
        return check_sentences(sentences, set())

    @model_validator(mode="after")
    def _one_meaning(self) -> Templates:
        if self.absent.detailed.sentences():
            raise ValueError("absent.detailed: what is absent has neither degree nor place")
        meanings: dict[str, str] = {}
        for name, sentence in self._named():
            known = meanings.setdefault(sentence.casefold(), name.split(".")[0])
            if known != name.split(".")[0]:
                raise ValueError(f"{sentence!r} stands under {known} and under {name}")
        return self

    def _named(self) -> Iterator[tuple[str, str]]:
        for state in ("present", "absent", "uncertain"):
            bank = self.bank(LabelState(state))
            yield from ((f"{state}.{part}", s) for part in ("any", "sign", "joint") for s in getattr(bank, part))
            yield from ((f"{state}.detailed", s) for s in bank.detailed.sentences())
        for name in ("normal", "not_normal", "maybe_normal", "opening"):
            yield from ((name, sentence) for sentence in getattr(self, name))

    def bank(self, state: LabelState) -> Bank:
        """Return the sentences of a state that is mentioned."""
        return cast("Bank", getattr(self, state.value))

    def whole(self, state: LabelState) -> tuple[str, ...]:
        """Return the sentences that say whether the picture as a whole is normal."""
        return {
            LabelState.PRESENT: self.normal,
            LabelState.ABSENT: self.not_normal,
            LabelState.UNCERTAIN: self.maybe_normal,
        }[state]

    def single(self, state: LabelState, *, diagnosis: bool) -> tuple[str, ...]:
        """Return the sentences for one finding."""
        bank = self.bank(state)
        return bank.any if diagnosis else bank.sign + bank.any

    def plain(self) -> Templates:
        """Return the bank cut to what zero-shot prompts are made of: the first `PROMPTS` sentences of each group."""
        cut = {name: getattr(self, name)[:PROMPTS] for name in ("normal", "not_normal", "maybe_normal")}
        for name in ("present", "absent", "uncertain"):
            bank = self.bank(LabelState(name))
            first = {part: getattr(bank, part)[:PROMPTS] for part in ("any", "sign", "joint")}
            cut[name] = Bank(**first, detailed=bank.detailed)
        return Templates(**cut)

    def __len__(self) -> int:
        return sum(1 for _ in self._named())


def load_templates(path: str | Path) -> Templates:
    """Read and check a bank of sentences.

    Raises:
        ConfigError: the file cannot be read, or a sentence has a slot too many, too few or unknown.
    """
    file = Path(path)
    return parse_config(Templates, read_data(file), where=file)


@cache
def templates() -> Templates:
    """Return UmiF's own bank, read once per process."""
    return load_templates(DATA)


@dataclass(frozen=True, slots=True)
class _Statement:
    """One finding to be worded; `entry` is `None` for words that the vocabulary does not know."""

    entry: VocabularyEntry | None
    words: tuple[Wording, ...]
    state: LabelState
    plural: bool = False
    diagnosis: bool = True
    detail: Detail = _NO_DETAIL

    @property
    def is_whole(self) -> bool:
        return self.entry is not None and self.entry.id == NO_FINDING

    @property
    def is_joinable(self) -> bool:
        return self.entry is not None and not self.is_whole and not self.detail


@dataclass(slots=True)
class _Writer:
    """Draws sentences; pure in its generator."""

    bank: Templates
    rng: np.random.Generator
    plain: bool = False
    sentences: list[str] = field(default_factory=list)

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def wording(self, statement: _Statement) -> Wording:
        # The name itself is drawn half of the time, so that all passages share a common core of words.
        words = statement.words[:1] if self.plain else statement.words
        return words[0] if self.rng.random() < 0.5 else words[int(self.rng.integers(len(words)))]

    def write(self, statements: list[_Statement]) -> None:
        """Word statements, several of the same state in one sentence now and then."""
        while statements:
            first = statements.pop()
            group = [first]
            joint = self.bank.bank(first.state).joint
            if joint and not first.is_whole and not first.detail and self.rng.random() < _JOINT_SHARE[first.state]:
                size = int(self.rng.integers(2, _LARGEST_JOINT + 1))
                others = [s for s in statements if s.state == first.state and s.is_joinable][: size - 1]
                if first.entry:
                    group += others
                    statements[:] = [s for s in statements if s not in others]
            self.sentences.append(self.joint(group, joint) if len(group) > 1 else self.single(first))

    def single(self, statement: _Statement) -> str:
        if statement.is_whole:
            return self.pick(self.bank.whole(statement.state))
        if statement.detail:
            fitting = self.bank.bank(statement.state).detailed.fitting(statement.detail, diagnosis=statement.diagnosis)
            if fitting:
                sentence, wording = self.pick(fitting), self.wording(statement)
                words = statement.detail, self.rng
                return write_detailed(sentence, wording, *words, plural=statement.plural, plain=self.plain)
        sentences = self.bank.single(statement.state, diagnosis=statement.diagnosis)
        sentence = self.pick(sentences[:PROMPTS] if self.plain else sentences)
        return fill(sentence, self.wording(statement), plural=statement.plural)

    def joint(self, group: list[_Statement], sentences: tuple[str, ...]) -> str:
        wordings = [self.wording(statement) for statement in group]
        conjunction = f" {_CONJUNCTION[group[0].state]} "

        def listed(words: list[str]) -> str:
            return conjunction.join([", ".join(words[:-1]), words[-1]])

        sentence = self.pick(sentences).replace("{findings}", listed([w.words for w in wordings]))
        return sentence.replace("{a_findings}", listed([w.with_article for w in wordings]))


def write_passage(
    findings: Sequence[tuple[str, LabelState | str]],
    rng: np.random.Generator,
    *,
    uncertain: Uncertain = "worded",
    wording: Wordiness = "varied",
    max_statements: int = 12,
    details: Mapping[str, Detail] | None = None,
    words: Vocabulary | None = None,
    bank: Templates | None = None,
) -> str:
    """Word a label set as a text passage, drawn anew at each call.

    Present and uncertain findings come before absent ones where not all fit into `max_statements`, and of the absent
    ones only some are stated, how many being drawn: a text that lists every negative is rare. Order, sentences,
    wording, and how sentences are joined and capitalised are drawn too. An absent finding is not stated where a
    narrower one is present or uncertain (`denied_but_shown`).

    Args:
        findings: (vocabulary id or dataset's spelling, state). What the vocabulary does not know is named as it is.
        rng: The draw; the same generator state gives the same passage.
        uncertain: `worded` writes uncertain findings as uncertain, `left_out` does not mention them.
        wording: `varied` draws from the whole bank and all spellings; `plain` from the sentences that prompts are made
            of, each finding by its name, in sentence case.
        max_statements: Largest number of findings stated.
        details: Degree and places of findings, by the name that `findings` gives them; worded where the finding is
            present or uncertain. Without them the draw is the same as ever.
        words: Another vocabulary than UmiF's own.
        bank: Another bank of sentences than UmiF's own.

    Returns:
        The passage; empty if there is nothing to say.

    Raises:
        ConfigError: a state is none of the four, or a detail is unknown.
    """
    statements = _statements(findings, words or vocabulary(), details or {})
    if uncertain == "left_out":
        statements = [s for s in statements if s.state != LabelState.UNCERTAIN]
    if not statements or max_statements < 1:
        return ""
    statements = [statements[int(i)] for i in rng.permutation(len(statements))]
    stated = [s for s in statements if s.state != LabelState.ABSENT]
    absent = [s for s in statements if s.state == LabelState.ABSENT]
    n_absent = int(rng.integers(0 if stated else 1, len(absent) + 1)) if absent else 0
    chosen = (stated + absent[:n_absent])[:max_statements]
    plain = wording == "plain"
    sentences = _plain(bank or templates()) if plain else bank or templates()
    writer = _Writer(sentences, rng, plain)
    writer.write([chosen[int(i)] for i in rng.permutation(len(chosen))])
    return _style(writer)


@cache
def _plain(bank: Templates) -> Templates:
    return bank.plain()


def _statements(
    findings: Sequence[tuple[str, LabelState | str]], words: Vocabulary, details: Mapping[str, Detail]
) -> list[_Statement]:
    known: dict[str, Detail] = {}
    states: dict[str, LabelState] = {}
    entries: dict[str, VocabularyEntry | None] = {}
    for raw, given in findings:
        try:
            state = LabelState(given)
        except ValueError:
            options = ", ".join(LabelState)
            raise ConfigError(f"{given!r} is no label state", where=raw, fix=f"known: {options}") from None
        entry = words.find(raw)
        key = entry.id if entry else f"?{raw}"
        entries[key] = entry
        if WEIGHT[state] >= WEIGHT[states.get(key, LabelState.NOT_MENTIONED)]:
            states[key] = state
            if entry and raw in details and state in (LabelState.PRESENT, LabelState.UNCERTAIN):
                known[key] = check_detail(details[raw], raw)
            elif state == LabelState.ABSENT:
                known.pop(key, None)
    denied = denied_but_shown(states, words)
    stated = {key: state for key, state in states.items() if state != LabelState.NOT_MENTIONED and key not in denied}
    return [
        replace(statement, detail=known.get(key, _NO_DETAIL))
        for key, state in stated.items()
        if (statement := _statement(key, entries[key], state))
    ]


def _statement(key: str, entry: VocabularyEntry | None, state: LabelState) -> _Statement | None:
    if entry is None:
        text = " ".join(re.sub(r"[_.,;:{}]", " ", key[1:]).split())
        return _Statement(None, (Wording(words=text),), state) if text else None
    if entry.kind == "anatomy":  # an organ is in every picture: no finding
        return None
    return _Statement(entry, entry.words, state, plural=entry.plural, diagnosis=entry.diagnosis)


def _style(writer: _Writer) -> str:
    """Join the sentences in one of three styles: sentence case, all lower case, or one line with semicolons."""
    rng, sentences = writer.rng, list(writer.sentences)
    if writer.plain:
        return " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences)
    if writer.bank.opening and rng.random() < 0.2:
        sentences.insert(0, writer.pick(writer.bank.opening))
    style = rng.random()
    if style < 0.6:
        return " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences)
    if style < 0.85:
        return " ".join(f"{s.lower()}." for s in sentences)
    line = "; ".join(sentences)
    return f"{line[0].upper()}{line[1:]}."


def read_passage(text: str, *, words: Vocabulary | None = None, bank: Templates | None = None) -> dict[str, LabelState]:
    """Take a passage of `write_passage` apart: finding id → state. Sentences that are not the bank's are passed over.

    Raises:
        ConfigError: a sentence can be read in two ways, so the bank is ambiguous.
    """
    return {key: state for key, (state, _) in read_details(text, words=words, bank=bank).items()}


def read_details(
    text: str, *, words: Vocabulary | None = None, bank: Templates | None = None
) -> dict[str, tuple[LabelState, Detail]]:
    """Take a passage apart as `read_passage` does, with each finding's degree and places.

    Raises:
        ConfigError: a sentence can be read in two ways, so the bank is ambiguous.
    """
    known, sentences = words or vocabulary(), bank or templates()
    states: dict[str, tuple[LabelState, Detail]] = {}
    for part in re.split(r"[.;]", text):
        sentence = part.strip()
        readings = {
            (ids, state, Detail())
            for pattern in _patterns(sentences)
            for ids, state in _readings(sentence, pattern, known)
        }
        for state in (LabelState.PRESENT, LabelState.UNCERTAIN):
            detailed = read_detailed(sentence, sentences.bank(state).detailed.sentences(), known)
            readings |= {((finding,), state, detail) for finding, detail in detailed}
        if len(readings) > 1:
            raise ConfigError(f"{sentence!r} can be read in {len(readings)} ways", fix="reword the bank")
        for ids, state, detail in readings:
            states.update(dict.fromkeys(ids, (state, detail)))
    return states


@cache
def _patterns(bank: Templates) -> tuple[tuple[re.Pattern[str], LabelState, bool], ...]:
    """(pattern, state, whether it lists several findings) of every sentence."""
    slots = {slot: "(?:" + "|".join(forms) + ")" for slot, forms in VERBS.items()}
    slots |= dict.fromkeys(("finding", "a_finding", "findings", "a_findings"), "(.+?)")
    patterns = []
    for state in (LabelState.PRESENT, LabelState.ABSENT, LabelState.UNCERTAIN):
        group = bank.bank(state)
        for sentence in (*group.any, *group.sign, *group.joint, *bank.whole(state)):
            parts = SLOT.split(sentence)
            regex = "".join(slots[part] if index % 2 else re.escape(part) for index, part in enumerate(parts))
            patterns.append((re.compile(regex, re.IGNORECASE), state, sentence in group.joint))
    return tuple(patterns)


def _readings(
    sentence: str, pattern: tuple[re.Pattern[str], LabelState, bool], words: Vocabulary
) -> Iterator[tuple[tuple[str, ...], LabelState]]:
    regex, state, is_joint = pattern
    match = regex.fullmatch(sentence)
    if not match:
        return
    if not match.groups():
        yield (NO_FINDING,), state
        return
    names = _LIST.split(match[1]) if is_joint else [match[1]]
    entries = [words.find_words(name) for name in names]
    ids = tuple(entry.id for entry in entries if entry and entry.id != NO_FINDING)
    if len(ids) == len(names) and (len(names) > 1) == is_joint:
        yield ids, state


def prompts(
    finding: str, *, words: Vocabulary | None = None, bank: Templates | None = None
) -> tuple[list[str], list[str]]:
    """Return sentences that state a finding as present, and as absent, for zero-shot classification.

    They are sentences of the bank in its own wording, so an encoder that was trained on passages has met them.

    Args:
        finding: Vocabulary id or a dataset's spelling; words that the vocabulary does not know are taken as they are.
        words: Another vocabulary than UmiF's own.
        bank: Another bank of sentences than UmiF's own.

    Raises:
        ConfigError: `finding` names an organ or nothing.
    """
    known, sentences = words or vocabulary(), bank or templates()
    entry = known.find(finding)
    statement = _statement(entry.id if entry else f"?{finding}", entry, LabelState.PRESENT)
    if statement is None:
        raise ConfigError(f"{finding!r} is no finding", fix="give a finding such as pneumothorax")

    def worded(state: LabelState) -> list[str]:
        if statement.is_whole:
            chosen = sentences.whole(state)[:PROMPTS]
        else:
            options = sentences.single(state, diagnosis=statement.diagnosis)[:PROMPTS]
            chosen = tuple(fill(s, statement.words[0], plural=statement.plural) for s in options)
        return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in chosen]

    return worded(LabelState.PRESENT), worded(LabelState.ABSENT)
