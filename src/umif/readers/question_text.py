"""What the datasets of questions and answers share: cells as text, types of answers, marks after a question."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from umif.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from umif.readers.base import AnswerType, Question, Reader, Split

REPEATED = "repeated question, equal"
OTHER_PART = "question that another part asks of the same image, too"
# Who wrote the questions also wrote down how to answer them: `Is the mass calcified? -yes/no`.
_MARK = re.compile(r"\s+-\s*(?:yes/no|open|closed)\s*\Z", re.IGNORECASE)


def entries(path: Path, data: Any) -> list[tuple[dict[str, Any], str]]:
    """Return the objects of a JSON list, each with its place (`file:entry 3`).

    Raises:
        TableError: it is no list of objects.
    """
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise TableError("holds no list of questions", where=path)
    return [(entry, f"{path}:entry {number}") for number, entry in enumerate(data, start=1)]


def cell(entry: dict[str, Any], key: str, where: str, *, may_be_blank: bool = False) -> str:
    """Return a value as text without blanks around it; numbers are written out.

    Raises:
        TableError: it is missing, blank, or neither text nor a number.
    """
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TableError(f"{key!r} is {value!r:.60}", where=where, fix="expected text")
    text = " ".join(str(value).split())
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TableError(f"{key!r} holds half a character", where=where) from None
    if not text and not may_be_blank:
        raise TableError(f"{key!r} is blank", where=where)
    return text


def answer_type(entry: dict[str, Any], where: str) -> AnswerType:
    """Return `open` or `closed`, however it is written.

    Raises:
        TableError: it is neither.
    """
    text = cell(entry, "answer_type", where).lower()
    if text == "open":
        return "open"
    if text == "closed":
        return "closed"
    raise TableError(f"the answer_type is {text!r}", where=where, fix="expected OPEN or CLOSED")


def plain_question(text: str) -> str:
    """Return a question without its mark.

    Example:
        >>> plain_question("Is/Are the mass calcified? -yes/no")
        'Is/Are the mass calcified?'
    """
    return _MARK.sub("", text)


def merge(reader: Reader, questions: Iterable[Question]) -> tuple[Question, ...]:
    """Return questions without repetitions; one that two parts ask stays in both, and is noted."""
    kept: dict[tuple[str, str, Split | None], Question] = {}
    parts: dict[tuple[str, str], Split | None] = {}
    for question in questions:
        words = (question.question.lower(), question.answer.lower())
        if (*words, question.split) in kept:
            reader.note(REPEATED)
            continue
        kept[(*words, question.split)] = question
        if words in parts:
            reader.note(OTHER_PART)
        parts.setdefault(words, question.split)
    return tuple(kept.values())


def common_split(questions: Iterable[Question]) -> Split | None:
    """Return the part that all questions of an image belong to; `None` if there are several."""
    parts = {question.split for question in questions}
    return next(iter(parts)) if len(parts) == 1 else None
