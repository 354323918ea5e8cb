"""Known lineage: which datasets' images come from which others, and by which ids that can be traced.

The relations are a data file, `lineage.yaml`. Where ids can be traced, the pairs are named; where nobody has
published a map, the relation is an open question that only a comparison of pixels settles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from umif.config import Config, parse_config, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILE = Path(__file__).with_name("lineage.yaml")


class Key(Config):
    """A column of a corpus's images and the part of its values that is compared."""

    column: Literal["image_id", "patient", "study", "source"] = Field(
        description="Column; image_id = after the dataset"
    )
    pattern: str = Field(description="Regular expression over the whole value; its groups are compared")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        if not re.compile(pattern).groups:
            raise ValueError("the pattern has no group to compare")
        return pattern

    def of(self, row: Mapping[str, str | None]) -> tuple[str, ...] | None:
        """Return what is compared of an image; `None` where the value is another dataset's kind or missing."""
        match = re.fullmatch(self.pattern, row[self.column] or "", re.IGNORECASE)
        return None if match is None else tuple(group.casefold() for group in match.groups())


class SharedKey(Config):
    """What names the same thing in both datasets."""

    inside: Key = Field(description="In the dataset whose images come from elsewhere")
    of: Key = Field(description="In the dataset that they come from")


class Relation(Config):
    """One line of lineage: images of `inside` come from `of`."""

    inside: str = Field(description="Reader")
    of: str = Field(description="Reader")
    share: Literal["all", "part", "unknown"] = Field(description="How many of the images of `inside`")
    known_from: Literal["file", "code", "docs", "recalled"] = Field(description="How sure it is")
    note: str = Field(description="What to know of it")
    keys: tuple[SharedKey, ...] = Field((), description="Any of them is enough; none = no ids to trace")


class Lineage(Config):
    """The data file."""

    relations: tuple[Relation, ...] = Field(description="All known relations")


@dataclass(frozen=True, slots=True)
class Traced:
    """A relation found between two sides: pairs of places (left, right); no pairs and no keys = an open question."""

    relation: Relation
    left: str
    right: str
    pairs: tuple[tuple[int, int], ...]

    @property
    def open(self) -> bool:
        """Whether nothing but pixels can tell which images these are."""
        return not self.relation.keys


@cache
def known_relations() -> tuple[Relation, ...]:
    """Return the relations of the data file.

    Raises:
        ConfigError: the file is damaged.
    """
    return parse_config(Lineage, read_yaml(FILE), where=FILE).relations


def trace(
    left: Sequence[Mapping[str, str | None]],
    right: Sequence[Mapping[str, str | None]],
    relations: Sequence[Relation] | None = None,
) -> list[Traced]:
    """Return every relation that holds between datasets of the two sides, in either direction.

    Args:
        left: Rows with `dataset`, `image_id`, `patient`, `study` and `source`.
        right: The same of the other side.
        relations: Those of the data file unless given.
    """
    lefts, rights = _by_dataset(left), _by_dataset(right)
    found = []
    for relation in known_relations() if relations is None else relations:
        for one, other, swapped in ((relation.of, relation.inside, False), (relation.inside, relation.of, True)):
            if one in lefts and other in rights:
                pairs: set[tuple[int, int]] = set()
                for key in relation.keys:
                    ours, theirs = (key.inside, key.of) if swapped else (key.of, key.inside)
                    pairs.update(_joined(ours, left, lefts[one], theirs, right, rights[other]))
                if pairs or not relation.keys:
                    found.append(Traced(relation, one, other, tuple(sorted(pairs))))
    return found


def _by_dataset(rows: Sequence[Mapping[str, str | None]]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(str(row["dataset"]), []).append(place)
    return places


def _joined(
    ours: Key,
    left: Sequence[Mapping[str, str | None]],
    lefts: list[int],
    theirs: Key,
    right: Sequence[Mapping[str, str | None]],
    rights: list[int],
) -> list[tuple[int, int]]:
    wanted: dict[tuple[str, ...], list[int]] = {}
    for place in lefts:
        if (value := ours.of(left[place])) is not None:
            wanted.setdefault(value, []).append(place)
    pairs = []
    for place in rights:
        if (value := theirs.of(right[place])) is not None:
            pairs += [(each, place) for each in wanted.get(value, ())]
    return pairs
