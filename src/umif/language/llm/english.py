"""Is a text English? A count of small words and of letters: enough to notice an answer in the wrong language.

A detector of a hundred languages would be a model to download; here the question is only whether a radiology text that
was asked for in English is English, and every language that a model slips into has other small words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from umif.language.llm.rules import rules

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
# A text that is mostly names of findings holds few small words; one this long with none is no English prose.
_LONG_WORDS = 12
_LEAST_ENGLISH_SHARE = 0.08
_MOST_FOREIGN_LETTERS = 0.02


@cache
def _lists() -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    english = frozenset(rules().english)
    return english, {name: frozenset(words) - english for name, words in rules().foreign.items()}


def language_of(text: str) -> str | None:
    """Return `english`, another language that the text's small words are of, or `None` where they tell nothing.

    Example:
        >>> language_of("There is no pleural effusion.")
        'english'
        >>> language_of("No se observa derrame pleural en el torax.")
        'spanish'
    """
    words = [word.casefold() for word in _WORD.findall(text)]
    english, foreign = _lists()
    counts = {"english": sum(word in english for word in words)}
    counts |= {name: sum(word in known for word in words) for name, known in foreign.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def not_english(text: str) -> str | None:
    """Return why a text is no English, or `None` if nothing speaks against it."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return "holds no word"
    strange = sum(not unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if strange / len(letters) > _MOST_FOREIGN_LETTERS * 2:
        return "is written in another script"
    accented = sum(ord(letter) > 127 for letter in letters) - strange
    if accented / len(letters) > _MOST_FOREIGN_LETTERS:
        return "holds accented letters"
    language = language_of(text)
    if language not in (None, "english"):
        return f"looks like {language}"
    words = [word.casefold() for word in _WORD.findall(text)]
    share = sum(word in _lists()[0] for word in words) / len(words) if words else 0.0
    if len(words) >= _LONG_WORDS and share < _LEAST_ENGLISH_SHARE:
        return "holds hardly an English word"
    return None
