"""Findings in words: the vocabulary that unifies datasets' labels, and the passages written from label sets."""

from umif.language.templates import (
    Templates,
    load_templates,
    prompts,
    read_passage,
    templates,
    write_passage,
)
from umif.language.vocabulary import (
    Vocabulary,
    VocabularyEntry,
    Wording,
    load_vocabulary,
    normalise,
    vocabulary,
)

__all__ = [
    "Templates",
    "Vocabulary",
    "VocabularyEntry",
    "Wording",
    "load_templates",
    "load_vocabulary",
    "normalise",
    "prompts",
    "read_passage",
    "templates",
    "vocabulary",
    "write_passage",
]
