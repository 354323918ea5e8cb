"""Answers as text: the form in which two of them are compared.

Rules, in their order (ours; no published list is followed to the letter, since published ones differ):

1. Compatibility characters to plain ones, lower case, apostrophes dropped (`Hodgkin’s` → `hodgkins`).
2. `%` is the word percent; a unit is set off from its number (`5cm` → `5 cm`).
3. A comma inside a number that marks thousands is dropped, a point inside a number stays; all other punctuation,
   hyphens and underscores included, is a blank (`x-ray` → `x ray`).
4. Number words from zero to twelve are digits.
5. Articles (a, an, the) are dropped.
6. An answer that is nothing but a way to affirm or deny is `yes` or `no`.

An answer of which nothing is left (`A`, `-`) stays as it was after rule 1.
"""

from __future__ import annotations

import re
import unicodedata

YES, NO = "yes", "no"
_AFFIRMED = frozenset({"yes", "y", "yeah", "yep", "true"})
_DENIED = frozenset({"no", "n", "nope", "false"})
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}
_APOSTROPHES = re.compile("['’‘`´]")
_UNIT = re.compile(r"(?<=\d)\s*(mm|cm|ml|mg|kg|percent)\b")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
# Whatever is no letter or digit, but for a point between two digits.
_PUNCTUATION = re.compile(r"(?!(?<=\d)\.(?=\d))[\W_]")


def normalise_answer(text: str) -> str:
    """Return the form of an answer in which it is compared with others.

    Example:
        >>> normalise_answer("The Right lower-lobe."), normalise_answer("Two"), normalise_answer("5.5cm")
        ('right lower lobe', '2', '5.5 cm')
    """
    plain = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold())
    spaced = _PUNCTUATION.sub(" ", _THOUSANDS.sub("", _UNIT.sub(r" \1", plain.replace("%", " percent"))))
    words = [_NUMBERS.get(word, word) for word in spaced.split() if word not in _ARTICLES]
    answer = " ".join(words) or " ".join(plain.split())
    if answer in _AFFIRMED:
        return YES
    return NO if answer in _DENIED else answer


def is_yes_or_no(answer: str) -> bool:
    """Whether a normalised answer is `yes` or `no`."""
    return answer in (YES, NO)
