"""The data behind reading free text: `reading.yaml`, checked."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field

from umif.config import Config, parse_config
from umif.language.vocabulary import read_data

DATA = Path(__file__).with_name("reading.yaml")


class Rules(Config):
    """Cues and words; `reading.yaml` says what each group is for."""

    negated_before: tuple[str, ...] = Field(min_length=1)
    negated_after: tuple[str, ...] = Field(min_length=1)
    doubtful_before: tuple[str, ...] = Field(min_length=1)
    doubtful_after: tuple[str, ...] = Field(min_length=1)
    unclear_before: tuple[str, ...] = Field(min_length=1)
    unclear_after: tuple[str, ...] = Field(min_length=1)
    boundaries: tuple[str, ...] = Field(min_length=1)
    assertions: tuple[str, ...] = Field(min_length=1)
    words: dict[str, tuple[str, ...]]
    qualifiers: tuple[str, ...] = Field(min_length=1)
    chatter: tuple[str, ...] = Field(min_length=1)
    english: tuple[str, ...] = Field(min_length=1)
    foreign: dict[str, tuple[str, ...]]


@cache
def rules() -> Rules:
    """Return the rules, read once per process."""
    return parse_config(Rules, read_data(DATA), where=DATA)
