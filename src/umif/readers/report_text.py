"""English radiology reports → sections, and the part of them that describes the picture.

It stands with the readers and not with the language package: readers come first in the order of the data and have to
say, with a reason, when a report holds nothing about its picture.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

PREAMBLE = "preamble"  # what stands before the first header

# Why a report gives no text; the image stays, so readers count these as notes.
BLANK = "report has no text"
NOT_DESCRIBED = "report has neither findings nor impression"
REFERS = "report only refers to another text"
UNCHANGED = "report only says that nothing changed"

# A header is a line's first words in capitals before a colon.
_HEADER = re.compile(r"(?:\A|\n)[ \t]{0,3}([A-Z][A-Z ()/,-]*[A-Z)/])[ \t]?:(?=\s|\Z)")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_ALIASES = {
    alias: section
    for section, aliases in {
        "comparison": "comparisons|reference exam|comparison exam|comparison film|comparision|comparsion|comparrison|"
        "comparisions",
        "history": "clinical history|clinical information|patient history|pfi",
        "indication": "reason for examination|reason for exam|clinical indication|idication",
        "examination": "exam|type of examination",
        "impression": "conclusion|findings and impression|findings/impression|findings/ impression|ndication|"
        "impresson|imprression|imoression|impressoin|imprssion|impresion|imperssion|mpression|impession",
        "findings": "chest, two views|finding|findins|findindgs|findgings|findngs|findnings|finidngs|"
        "reference findings",
        "recommendations": "recommendation|recommendation(s)",
        "wet read": "wetread",
    }.items()
    for alias in aliases.split("|")
}
SECTIONS = frozenset(_ALIASES.values()) | {"technique", "addendum", "note", "narrative"}
# Sought within a header that is not in the table, in this order; then words that head a description of the picture.
_WITHIN = ("impression", "findings", "history", "comparison", "addendum")
_VIEWS = (
    "chest", "portable", "pa and lateral", "lateral and pa", "ap and lateral", "lateral and ap", "frontal and",
    "two views", "frontal view", "pa view", "ap view", "one view", "lateral view", "bone window", "frontal upright",
    "frontal semi-upright", "ribs", "pa and lat",
)  # fmt: skip

# MIMIC writes ___ for what was taken out, its predecessors [** … **], Open-i XXXX.
_MARK = re.compile(r"\[\*\*.*?\*\*\]|_{2,}|\bX{4,}\b", re.DOTALL)
_WORD = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"(?:\A|(?<=[.;:!?])|\n)\s*(\d{1,2})[.)]\s+")
_EMPTY_BRACKETS = re.compile(r"[(\[]\s*[,.;:/-]?\s*[)\]]")
_BEFORE_POINT = re.compile(r"\s+([.,;:!?)])")
_POINTS = re.compile(r"([,;:.])(?:\s*[,;:.])+")
_SENTENCE = re.compile(r"[.!?;:]+(?:\s+|\Z)")
_NO_LETTER = re.compile(r"[^a-z]+")
_MOST_WORDS = 25  # a sentence that only points elsewhere is short


# Sentences that say nothing of the picture: their first words, and the words that may follow.
_NOTHING = re.compile(r"none( (available|given|provided|recorded|stated|specified))?|n a|na|nil|not applicable")
_PLACES = """was is are were in the with under also already to by at of and for detailed described dictated discussed
    noted stated given mentioned reported listed above below findings finding impression report full body section text
    previous prior separate same comment comments note addendum wet read ct chest study examination exam day from
    details detail further"""
_DEGREES = """significant interval relevant substantial appreciable definite major notable other further obvious real
    marked gross important short term overall"""
_TIMES = """since from as compared comparison in to with the prior previous last earlier study exam examination film
    films radiograph radiographs x ray one day days hours of a an preceding most recent chest appearance has been is are
    seen noted identified detected made over interval short and ago dated yesterday today on at"""
_REFERRING = re.compile(
    r"(please )?(see|refer|as per|per|as|same as|above|discussed|described|reported|dictated)"
    rf"( ({'|'.join(_PLACES.split())}))*"
)
_NO_CHANGE = re.compile(
    r"((there (is|was|has been|have been)|again|overall|essentially|otherwise) )*"
    rf"(no (({'|'.join(_DEGREES.split())}) )*changes?"
    r"|((essentially|largely|relatively|overall|grossly) )*(unchanged|stable))"
    rf"( ({'|'.join(_TIMES.split())}))*"
)


class Described(NamedTuple):
    """The text about the picture, or why there is none."""

    text: str | None
    reason: str | None = None


def split_sections(report: str) -> dict[str, str]:
    """Return the sections of a report by the name of their header; of a repeated one the last.

    What stands before the first header is `PREAMBLE`, unless blank. Headers that the table does not know keep their
    own words in small letters.

    Source: the rules of the section splitter that MIMIC-CXR's authors published, its table of misspelt headers
    included; written afresh.
    Differs: up to three blanks may stand before a header and one before its colon, so that other reports can be read.
    """
    headers = list(_HEADER.finditer(report))
    start = report[: headers[0].start()] if headers else report
    sections = {PREAMBLE: start} if start.strip() else {}
    ends = [*(header.start() for header in headers[1:]), len(report)]
    for header, end in zip(headers, ends, strict=False):  # without a header there is no section
        sections[section_name(header[1])] = report[header.end() : end]
    return sections


@cache
def section_name(header: str) -> str:
    """Return the section that a header means.

    Example:
        >>> section_name("FINDINGS AND IMPRESSION"), section_name("CHEST, PA AND LATERAL"), section_name("TECHNIQUE")
        ('impression', 'findings', 'technique')
    """
    name = " ".join(header.lower().split())
    if name in SECTIONS or name in _ALIASES:
        return _ALIASES.get(name, name)
    for section in _WITHIN:
        if section in name:
            return section
    return "findings" if any(view in name for view in _VIEWS) else name


def describe(report: str) -> Described:
    """Return FINDINGS, then IMPRESSION, cleaned; without either the last paragraph, if no other header is over it.

    INDICATION, COMPARISON, TECHNIQUE and the like say nothing of the picture.
    """
    if _WORD.search(report) is None:
        return Described(None, BLANK)
    sections = split_sections(report)
    if "findings" in sections or "impression" in sections:
        return describe_sections(sections)
    last = _PARAGRAPHS.split(report.strip())[-1]
    # The first paragraph is the title of the report where there are several.
    if _HEADER.search(last) or last.isupper():
        return Described(None, NOT_DESCRIBED)
    return describe_sections({"findings": last})


def describe_sections(sections: Mapping[str, str]) -> Described:
    """Return what the sections `findings` and `impression` say, or why they say nothing."""
    passages = dict.fromkeys(clean_passage(sections.get(name, "")) for name in ("findings", "impression"))
    reasons = {passage: why_empty(passage) for passage in passages}
    kept = [passage for passage in passages if reasons[passage] is None]
    if kept:
        return Described("\n".join(kept))
    found = set(reasons.values())
    return Described(None, next(reason for reason in (UNCHANGED, REFERS, BLANK) if reason in found))


def clean_passage(text: str) -> str:
    """Return a passage as running text: no marks of anonymity, no numbers before its points, no hard line breaks.

    Example:
        >>> clean_passage(" 1.  Clear lungs since ___.\\n 2. No\\n effusion.")
        'Clear lungs since. No effusion.'
    """
    plain = _drop_marks(text)
    text, holes = " ".join(_drop_numbers(plain).split()), plain != text
    if holes:
        text = " ".join(_EMPTY_BRACKETS.sub(" ", text).split())
        text = _POINTS.sub(lambda match: "." if "." in match[0] else match[1], _BEFORE_POINT.sub(r"\1", text))
    return text.strip(" ,;:-").removeprefix(".").strip()


def _drop_marks(text: str) -> str:
    if "____" not in text:
        text = text.replace("___", " ")  # MIMIC's own, which are many; a pattern is slow
    return _MARK.sub(" ", text) if any(mark in text for mark in ("__", "XXXX", "[**")) else text


def _drop_numbers(text: str) -> str:
    """Take out `1.`, `2.`, … where they count points; a number out of turn belongs to a sentence."""
    if "1." not in text and "1)" not in text:
        return text
    expected = 1

    def drop(match: re.Match[str]) -> str:
        nonlocal expected
        if int(match[1]) != expected:
            return match[0]
        expected += 1
        before = match.string[: match.start()].rstrip()[-1:]
        return ". " if before.isalnum() or before == ")" else " "

    return _NUMBER.sub(drop, text)


def why_empty(passage: str) -> str | None:
    """Return why a cleaned passage says nothing about its picture, or `None` if it does.

    Example:
        >>> why_empty("As above."), why_empty("No significant interval change."), why_empty("No acute change.")
        ('report only refers to another text', 'report only says that nothing changed', None)
    """
    if len(passage) > 400:  # quick: such texts are no longer than a line or two
        return None
    reason = BLANK
    for sentence in _SENTENCE.split(passage.lower()):
        words = _NO_LETTER.sub(" ", sentence).strip()
        if not words or _NOTHING.fullmatch(words):
            continue
        if words.count(" ") >= _MOST_WORDS:
            return None
        if _NO_CHANGE.fullmatch(words):
            reason = UNCHANGED
        elif _REFERRING.fullmatch(words):
            reason = REFERS if reason == BLANK else reason
        else:
            return None
    return reason
