"""Sentences with slots: what a bank's sentence may hold, and how one is filled for a finding."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umif.language.vocabulary import Wording

VERBS = {"is": ("is", "are"), "was": ("was", "were"), "has": ("has", "have")}
SLOT = re.compile(r"\{(\w+)\}")


def check_sentences(sentences: tuple[str, ...], wanted: set[str]) -> tuple[str, ...]:
    """Return the sentences if each holds one of the `wanted` slots once (none, if none is wanted) and no other."""
    for sentence in sentences:
        slots = SLOT.findall(sentence)
        own = [slot for slot in slots if slot not in VERBS]
        if len(own) != bool(wanted) or not set(own) <= wanted or (not wanted and slots):
            raise ValueError(
                f"{sentence!r} must hold {' or '.join(sorted(wanted)) or 'no slot'} once and no other slot"
            )
        check_marks(sentence)
    return sentences


def check_marks(sentence: str) -> None:
    """Refuse a sentence that holds what ends one."""
    if re.search(r"[.,;{}]", SLOT.sub("", sentence)):
        raise ValueError(f"{sentence!r} holds a full stop, comma, semicolon or stray brace")


def fill(sentence: str, wording: Wording, *, plural: bool, **more: str) -> str:
    """Return a sentence with its slots filled for one finding; `more` fills further slots."""
    values = {"finding": wording.words, "a_finding": wording.with_article, **more}
    values |= {slot: forms[plural] for slot, forms in VERBS.items()}
    return SLOT.sub(lambda match: values[match[1]], sentence)
