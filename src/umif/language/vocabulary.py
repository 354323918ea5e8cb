"""The unified finding vocabulary: every dataset's spelling → one id, one wording, one colour.

The data are `vocabulary.yaml` beside this file; `load_vocabulary(path)` reads another one. Nothing is guessed: a
spelling that the file does not list is unknown, never its nearest neighbour (`pneumonia` is in `atypical pneumonia`,
`emphysema` in `subcutaneous emphysema`).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, field_validator

from umif.config import Config, parse_config
from umif.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).with_name("vocabulary.yaml")
_SEPARATORS = re.compile(r"[\s_/\-]+")
_ARTICLE = re.compile(r"^(an?)\s+(.+)$")
# What joins or ends statements in a passage may not occur inside a wording.
_JOINERS = re.compile(r"[,.;:]|\b(and|or)\b", re.IGNORECASE)
# The C parser is six times as fast, and present wherever PyYAML was built with it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def normalise(words: str) -> str:
    """Return the form that spellings are looked up in: lower case, `_`, `/`, `-` and runs of space as one space."""
    return _SEPARATORS.sub(" ", words.lower()).strip()


class Wording(Config):
    """One way to name a finding in text: the bare words, and the article that goes before them if any."""

    words: str
    article: Literal["", "a", "an"] = ""

    @property
    def with_article(self) -> str:
        """The words as they stand in running text (`a pleural effusion`)."""
        return f"{self.article} {self.words}" if self.article else self.words


class VocabularyEntry(Config):
    """One finding or part of the body.

    Attributes:
        id: Canonical name.
        name: Words for text; `article` goes before it, `plural` makes verbs agree with it and all `wordings`.
        wordings: Further words for text, with their article.
        synonyms: Spellings of datasets, besides id, name and wordings.
        parent: Id of the wider finding that this is a kind of.
        colour: Red, green, blue in mask pictures.
        diagnosis: A disease, which itself is not seen: texts speak of its signs.
        chexpert14: One of CheXpert's 14 observations.
        competition: One of CheXpert's 5 competition classes.
    """

    id: str = Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")
    name: str = Field(min_length=1)
    article: Literal["", "a", "an"] = ""
    plural: bool = False
    kind: Literal["finding", "anatomy"] = "finding"
    wordings: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    parent: str | None = None
    colour: tuple[int, int, int]
    diagnosis: bool = False
    chexpert14: bool = False
    competition: bool = False

    @field_validator("colour")
    @classmethod
    def _visible(cls, colour: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(0 <= value <= 255 for value in colour):
            raise ValueError("a colour is three numbers from 0 to 255")
        if not any(colour):
            raise ValueError("black is the background of mask pictures")
        return colour

    @field_validator("name", "wordings")
    @classmethod
    def _readable(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for words in (value,) if isinstance(value, str) else value:
            if _JOINERS.search(words):
                raise ValueError(f"{words!r} holds a comma, full stop, semicolon, colon, 'and' or 'or'")
        return value

    @property
    def words(self) -> tuple[Wording, ...]:
        """All ways to name it in text, the name first."""
        return (Wording(words=self.name, article=self.article), *map(_split_article, self.wordings))


def _split_article(text: str) -> Wording:
    match = _ARTICLE.match(text)
    return Wording.model_validate({"article": match[1], "words": match[2]} if match else {"words": text})


class VocabularyFile(Config):
    """What a vocabulary's YAML file holds."""

    entries: tuple[VocabularyEntry, ...] = Field(min_length=1)


class Vocabulary:
    """All entries, and the look-up of spellings and wordings.

    Example:
        >>> vocabulary().find("Pleural_Thickening").id
        'pleural_thickening'
    """

    def __init__(self, entries: tuple[VocabularyEntry, ...], where: str | Path | None = None) -> None:
        self.entries = entries
        self._where = where
        self._by_id: dict[str, VocabularyEntry] = {}
        self._by_spelling: dict[str, VocabularyEntry] = {}
        self._by_words: dict[str, VocabularyEntry] = {}
        colours: dict[tuple[int, int, int], str] = {}
        for entry in entries:
            if entry.id in self._by_id:
                raise ConfigError(f"the id {entry.id!r} occurs twice", where=where)
            self._by_id[entry.id] = entry
            if (other := colours.setdefault(entry.colour, entry.id)) != entry.id:
                raise ConfigError(f"{other!r} and {entry.id!r} have the same colour", where=where)
        for entry in entries:
            self._claim(entry)
        for entry in entries:
            self.lineage(entry.id)

    def _claim(self, entry: VocabularyEntry) -> None:
        words = [wording.words for wording in entry.words]
        for spelling in (entry.id, *words, *entry.synonyms):
            known = self._by_spelling.setdefault(normalise(spelling), entry)
            if known is not entry:
                raise ConfigError(f"{spelling!r} is claimed by {known.id!r} and by {entry.id!r}", where=self._where)
        if entry.kind == "finding":
            self._by_words.update({text.casefold(): entry for text in words})

    def __iter__(self) -> Iterator[VocabularyEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, finding_id: object) -> bool:
        return finding_id in self._by_id

    def __getitem__(self, finding_id: str) -> VocabularyEntry:
        """Return the entry of an id.

        Raises:
            ConfigError: there is none; the nearest id is named.
        """
        try:
            return self._by_id[finding_id]
        except KeyError:
            fix = nearest(finding_id, self._by_id)
            raise ConfigError(f"the vocabulary has no finding {finding_id!r}", where=self._where, fix=fix) from None

    def find(self, raw: str) -> VocabularyEntry | None:
        """Return the entry that a dataset's spelling (or an id, or words) stands for; `None` if it is unknown."""
        return self._by_spelling.get(normalise(raw))

    def find_words(self, words: str) -> VocabularyEntry | None:
        """Return the finding that words of a text name, with or without their article."""
        text = words.casefold()
        match = _ARTICLE.match(text)
        return self._by_words.get(text) or (self._by_words.get(match[2]) if match else None)

    def lineage(self, finding_id: str) -> tuple[str, ...]:
        """Return the ids of a finding and of everything that it is a kind of, narrowest first.

        Raises:
            ConfigError: a parent is unknown, or the parents run in a circle.
        """
        ids = [finding_id]
        while (parent := self[ids[-1]].parent) is not None:
            if parent in ids:
                raise ConfigError(f"{finding_id!r} is a kind of itself, by {parent!r}", where=self._where)
            ids.append(parent)
        return tuple(ids)


def read_data(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: the file is missing, is no YAML or holds something else; the line is named.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as text: {error}", where=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else path
        raise ConfigError(f"is not valid YAML: {getattr(error, 'problem', error)}", where=where) from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError("must hold key: value lines", where=path)
    return data


def load_vocabulary(path: str | Path) -> Vocabulary:
    """Read and check a vocabulary.

    Raises:
        ConfigError: the file cannot be read, an entry is not as it should be, or two entries claim the same id,
            spelling or colour.
    """
    file = Path(path)
    return Vocabulary(parse_config(VocabularyFile, read_data(file), where=file).entries, where=file)


@cache
def vocabulary() -> Vocabulary:
    """Return UmiF's own vocabulary, read once per process."""
    return load_vocabulary(DATA)
