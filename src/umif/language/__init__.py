"""Findings in words: the vocabulary that unifies datasets' labels, and the passages written from label sets."""

from umif.language.details import Detail, detail_of, label_detail
from umif.language.templates import (
    Templates,
    load_templates,
    prompts,
    read_details,
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
    "Detail",
    "Templates",
    "Vocabulary",
    "VocabularyEntry",
    "Wording",
    "detail_of",
    "label_detail",
    "load_templates",
    "load_vocabulary",
    "normalise",
    "prompts",
    "read_details",
    "read_passage",
    "templates",
    "vocabulary",
    "write_passage",
]
