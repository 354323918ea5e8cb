"""Checks of texts: their content, one another, and the labels of the image that they belong to."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus.quality_base import check
from umif.corpus.quality_mentions import contradictions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.corpus.quality_base import Issue, Scene

_LETTERS = re.compile(r"[^\W\d_]")
_PLACEHOLDER = re.compile(
    r"\W*(?:nan|none|null|n\W?a|unknown|todo|not available|unavailable|(?:see|as) (?:above|below)|no report|report|x+|"
    r"\W|_)*\W*",
    re.IGNORECASE,
)
_SHOWN = 90


@check("empty_text", "Texts that say nothing", severity="defect", decision="exclude")
def empty_text(scene: Scene, issue: Issue) -> None:
    """Fewer than three letters, or nothing but a placeholder such as "none", "see above" or ____."""
    for pair in _texts(scene, ["text"]):
        if len(_LETTERS.findall(pair["text"])) < 3 or _PLACEHOLDER.fullmatch(pair["text"]):
            issue.add(pair["pair"], pair["dataset"], f"the text is {_short(pair['text'])!r}", pair["image_row"])


@check("repeated_text", "Texts of several patients", severity="note")
def repeated_text(scene: Scene, issue: Issue) -> None:
    """Word for word the same text, but for case and spaces, with images of several patients. Short texts of normal
    films repeat by themselves; a long one that repeats is copied or misplaced.
    """
    texts, patients = [], []
    for pair in _texts(scene, ["text", "patient"]):
        texts.append(_key(" ".join(pair["text"].split()).casefold()))
        patients.append(_key(pair["patient"]))
    _, place, counts = np.unique(np.array(texts, dtype=np.uint64), return_inverse=True, return_counts=True)
    by_patient = np.array(patients, dtype=np.uint64)
    lowest, highest = np.full(len(counts), np.iinfo(np.uint64).max, dtype=np.uint64), np.zeros(len(counts), np.uint64)
    np.minimum.at(lowest, place, by_patient)
    np.maximum.at(highest, place, by_patient)
    rows = (lowest != highest)[place] if len(counts) else np.zeros(0, dtype=bool)
    for number, pair in enumerate(_texts(scene, ["text"])):
        if rows[number]:
            detail = f"{counts[place[number]]} times: {_short(pair['text'])}"
            issue.add(pair["pair"], pair["dataset"], detail, pair["image_row"])


@check("contradiction", "Labels that contradict the text", severity="suspect", decision="review")
def contradiction(scene: Scene, issue: Issue) -> None:
    """A finding is labelled present and the text only denies it, or labelled absent and the text states it. Read with
    restraint: a sentence with any word of doubt, history or comparison is passed over.
    """
    for pair in _texts(scene, ["text", "findings"]):
        known = [(label["finding"], label["state"]) for label in pair["findings"] if label["finding"] is not None]
        found = contradictions(known, pair["text"]) if known else []
        if found:
            issue.add(pair["pair"], pair["dataset"], "; ".join(found), pair["image_row"])


def _texts(scene: Scene, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in scene.pairs(["pair", "dataset", "image_row", *columns], "text IS NOT NULL"):
        yield from batch


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN else f"{plain[: _SHOWN - 1]}…"
