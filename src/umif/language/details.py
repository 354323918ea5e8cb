"""Degrees and places: what a label says beside its finding, in words and back.

Few datasets carry them (PadChest's localisations, MeSH terms such as `Costophrenic Angle/right/blunted/mild`), so a
passage words them only where it is given them, and draws exactly what it drew before where it is not. The data are
`details.yaml` and the groups `detailed` of `templates.yaml`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field, field_validator, model_validator

from umif.config import Config, parse_config
from umif.errors import ConfigError, nearest
from umif.language.sentences import SLOT, VERBS, check_marks, fill
from umif.language.vocabulary import normalise, read_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from umif.language.vocabulary import Vocabulary, Wording

DATA = Path(__file__).with_name("details.yaml")
_FINDINGS = {"finding", "a_finding", "graded", "a_graded"}
_JOINED = re.compile(r",|\band\b|\bor\b|[.;:]")


@dataclass(frozen=True, slots=True)
class Detail:
    """What a label says beside its finding.

    Attributes:
        severity: Id of a degree, or `None`.
        places: Ids of places.
    """

    severity: str | None = None
    places: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.severity is not None or bool(self.places)


class DetailEntry(Config):
    """One degree or place; see `details.yaml`."""

    id: str = Field(pattern=r"^[a-z]+(_[a-z]+)*$")
    words: tuple[str, ...] = Field(min_length=1)
    synonyms: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @field_validator("words")
    @classmethod
    def _plain(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for text in words:
            if _JOINED.search(text):
                raise ValueError(f"{text!r} holds a comma, full stop, semicolon, colon, 'and' or 'or'")
        return words


class DetailWords(Config):
    """All degrees and places, each spelling and wording claimed once within its kind."""

    severities: tuple[DetailEntry, ...]
    places: tuple[DetailEntry, ...]

    @model_validator(mode="after")
    def _claimed_once(self) -> DetailWords:
        for entries in (self.severities, self.places):
            owners: dict[str, str] = {}
            for entry in entries:
                for spelling in {normalise(text) for text in (entry.id, *entry.words, *entry.synonyms)}:
                    if owners.setdefault(spelling, entry.id) != entry.id:
                        raise ValueError(f"{spelling!r} is claimed by {owners[spelling]!r} and by {entry.id!r}")
                missing = set(entry.parts) - {other.id for other in entries}
                if missing:
                    raise ValueError(f"{entry.id!r} has unknown parts: {', '.join(sorted(missing))}")
        return self


@cache
def detail_words() -> DetailWords:
    """Return UmiF's own degrees and places, read once per process."""
    return parse_config(DetailWords, read_data(DATA), where=DATA)


@cache
def _spellings() -> tuple[dict[str, str], dict[str, str]]:
    tables = []
    for entries in (detail_words().severities, detail_words().places):
        tables.append({normalise(text): e.id for e in entries for text in (e.id, *e.words, *e.synonyms)})
    return tables[0], tables[1]


@cache
def _worded() -> dict[str, tuple[str, ...]]:
    return {entry.id: entry.words for entry in (*detail_words().severities, *detail_words().places)}


def detail_of(words: Iterable[str]) -> Detail:
    """Return the degree and the places among a dataset's spellings; places that belong together become one.

    The first degree counts; what is neither is passed over.

    Example:
        >>> detail_of(["lower lobe", "left", "mild"])
        Detail(severity='mild', places=('left_lower_lobe',))
    """
    severities, known = _spellings()
    severity: str | None = None
    places: dict[str, None] = {}
    for word in words:
        spelling = normalise(word).removeprefix("loc ")
        if spelling in severities:
            severity = severity or severities[spelling]
        elif spelling in known:
            places[known[spelling]] = None
    return Detail(severity, _joined(places))


def _joined(places: dict[str, None]) -> tuple[str, ...]:
    found = dict(places)
    if found.keys() - {"lung", "left", "right", "bilateral"}:
        found.pop("lung", None)  # the narrower place says it
    for _ in range(2):  # left + right + base are both sides first, then both bases
        for entry in detail_words().places:
            if entry.parts and found.keys() >= set(entry.parts):
                found = {place: None for place in found if place not in entry.parts} | {entry.id: None}
    return tuple(found)


def label_detail(raw: str) -> Detail:
    """Return what the parts of a label after its first one say: `Costophrenic Angle/right/blunted/mild`."""
    return detail_of(raw.split("/")[1:])


class DetailBank(Config):
    """Sentences about findings with details; `sign` holds those for what can itself be seen.

    graded: {graded} or {a_graded}, or {severity} beside the finding. placed: {place}. both: the two.
    """

    graded: tuple[str, ...] = ()
    graded_sign: tuple[str, ...] = ()
    placed: tuple[str, ...] = ()
    placed_sign: tuple[str, ...] = ()
    both: tuple[str, ...] = ()
    both_sign: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _slots(self) -> DetailBank:
        for name in type(self).model_fields:
            for sentence in getattr(self, name):
                slots = [slot for slot in SLOT.findall(sentence) if slot not in VERBS]
                graded = sum(slot in ("graded", "a_graded", "severity") for slot in slots)
                placed = slots.count("place")
                wanted = {"graded": (1, 0), "placed": (0, 1), "both": (1, 1)}[name.removesuffix("_sign")]
                findings = sum(slot in _FINDINGS for slot in slots)
                unknown = set(slots) - _FINDINGS - {"severity", "place"}
                if (graded, placed) != wanted or findings != 1 or unknown:
                    raise ValueError(f"{sentence!r} does not hold the slots of {name}")
                check_marks(sentence)
        return self

    def sentences(self) -> tuple[str, ...]:
        """Return all of them."""
        return tuple(sentence for name in type(self).model_fields for sentence in getattr(self, name))

    def fitting(self, detail: Detail, *, diagnosis: bool) -> tuple[str, ...]:
        """Return the sentences that word this detail of a finding."""
        name = "both" if detail.severity and detail.places else "graded" if detail.severity else "placed"
        plain: tuple[str, ...] = getattr(self, name)
        signs: tuple[str, ...] = getattr(self, f"{name}_sign")
        return plain if diagnosis else signs + plain


def check_detail(detail: Detail, where: str) -> Detail:
    """Return a detail whose ids are known.

    Raises:
        ConfigError: one is not; the nearest is named.
    """
    known = {entry.id for entry in detail_words().severities}
    places = {entry.id for entry in detail_words().places}
    for given, names in (((detail.severity,) if detail.severity else (), known), (detail.places, places)):
        for name in given:
            if name not in names:
                raise ConfigError(f"there is no degree or place {name!r}", where=where, fix=nearest(name, names))
    return detail


def write_detailed(
    sentence: str, wording: Wording, detail: Detail, rng: np.random.Generator, *, plural: bool, plain: bool
) -> str:
    """Return a sentence about a finding with its degree and places, their words drawn."""

    def drawn(name: str) -> str:
        options = _worded()[name]
        return options[0] if plain or rng.random() < 0.5 else options[int(rng.integers(len(options)))]

    severity = drawn(detail.severity) if detail.severity else ""
    graded = f"{severity} {wording.words}"
    article = ("an " if severity[:1] in "aeiou" else "a ") if wording.article and severity else ""
    return fill(
        sentence,
        wording,
        plural=plural,
        severity=severity,
        place=" and ".join(drawn(place) for place in detail.places),
        graded=graded,
        a_graded=article + graded,
    )


class _Reading(NamedTuple):
    finding: str
    detail: Detail


@cache
def _pattern(sentence: str) -> re.Pattern[str]:
    severities = "|".join(re.escape(w) for e in detail_words().severities for w in e.words)
    ways = sorted((re.escape(w) for e in detail_words().places for w in e.words), key=len, reverse=True)
    place = f"(?:{'|'.join(ways)})"
    slots = {slot: "(?:" + "|".join(forms) + ")" for slot, forms in VERBS.items()}
    slots |= dict.fromkeys(("finding", "a_finding"), "(?P<name>.+?)")
    slots["graded"] = f"(?P<severity>{severities}) (?P<name>.+?)"
    slots["a_graded"] = f"(?:an? )?{slots['graded']}"
    slots |= {"severity": f"(?P<severity>{severities})", "place": f"(?P<place>{place}(?: and {place})*)"}
    parts = SLOT.split(sentence)
    regex = "".join(slots[part] if index % 2 else re.escape(part) for index, part in enumerate(parts))
    return re.compile(regex, re.IGNORECASE)


def read_detailed(sentence: str, sentences: Sequence[str], words: Vocabulary) -> set[_Reading]:
    """Return every way to read a sentence as one of `sentences`: (finding's id, detail)."""
    severities, places = _spellings()
    found = set()
    for known in sentences:
        match = _pattern(known).fullmatch(sentence)
        entry = words.find_words(match["name"]) if match else None
        if match is None or entry is None:
            continue
        groups = match.groupdict()
        severity = severities[normalise(groups["severity"])] if groups.get("severity") else None
        named = groups.get("place")
        listed = tuple(places[normalise(one)] for one in re.split(r" and ", named, flags=re.I)) if named else ()
        found.add(_Reading(entry.id, Detail(severity, listed)))
    return found
