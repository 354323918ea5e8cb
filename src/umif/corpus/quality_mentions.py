"""What a free text says of findings, read so carefully that silence is the answer where there is doubt.

A spelling of the vocabulary in a sentence is `present`, `absent` or `uncertain`. Any word of doubt, history, comparison
or instruction in the sentence makes all its mentions uncertain. The purpose is to find labels that contradict their
text: missing one is cheap, a false alarm costs a person's time.

Source: the idea of triggers and scopes is that of NegEx (Chapman et al., 2001); the lists are our own.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Literal

from umif.language.templates import NO_FINDING
from umif.language.vocabulary import vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

Said = Literal["present", "absent", "uncertain"]

_HEADING = re.compile(r"\b(?:findings|impression|conclusion|report)\s*:")
_SENTENCE = re.compile(r"[.;!\n]+(?=\s|$)|\n+|\b(?:but|however|although|though|except|otherwise)\b")
_WORD = re.compile(r"[a-z0-9]+|\?")
_NO = re.compile(
    r"\b(?:no|not|without|absent|absence of|negative for|free of|clear of|lack of|lacks|denies|neither|nor|never|"
    r"none)\b"
)
_DENIES = re.compile(
    r"\b(?:no|without|absence of|negative for|free of|clear of|neither|nor)\b(?! (?:change|increase|decrease|"
    r"significant|interval|new|longer|further|substantial|appreciable|definite|large|other|more|residual|worsening|"
    r"progression))"
)
_OUT_OF_SCOPE = re.compile(r"\b(?:with|showing|shows|there is|there are|has|have)\b")
_TIED = re.compile(r"(?:is|are|was|were|has|have|may)\b")
_DENIED_AFTER = re.compile(
    r"^(?: [a-z]+)? (?:(?:is|are|was|were) (?:not (?:seen|present|identified|visible|evident|demonstrated|found|shown)"
    r"|absent)|not (?:seen|present|identified|visible|evident|demonstrated))\b|^ absent\b"
)
# One of these anywhere in a sentence and nothing is concluded from it.
_DOUBT = re.compile(
    r"\b(?:possibl\w+|probabl\w+|may|might|could|would|should|can|cannot|suspect\w*|suspicio\w+|suggest\w*|question\w*|"
    r"versus|vs|or|either|rule\w*|exclud\w+|evaluat\w+|evaluation|assess\w*|histor\w+|prior|previous\w*|known|likely|"
    r"unlikely|concern\w*|consistent|compatible|indicat\w+|indication|differential|risk|if|resol\w+|improv\w+|decreas\w+|"
    r"clear\w+|compar\w+|treat\w*|follow\w*|query|post|status|new|change\w*|unchanged|stable|longer|appear\w*|seem\w*|"
    r"borderline|equivocal|limit\w*|difficult|obscur\w*|mimic\w*|simulat\w*|rather|instead|symptom\w*|presented|"
    r"presents|complain\w*|diagnos\w+|admitted|test\w*|pcr|swab|days?|hours?|weeks?|months?|years?|later|earlier|before|"
    r"after|worsen\w*|progress\w*|increas\w+|interval|think|thought|believed|presum\w+|represent\w*|typical|due|cause\w*|"
    r"caused|nothing|doubt\w*|uncertain\w*|indeterminate|hardly|unremarkable|against|regard|reflect\w*|significant|further|definite|ct|tomography|reason|findings|signs?|evidence)\b|\?"
)
_PLAIN_DOUBT = re.compile(r"\b(?:or|evidence|signs?|findings|significant|definite|new)\b")
_STRENGTH = {"absent": 1, "uncertain": 2, "present": 3}
_SHORTEST = 4
# Words that name a finding in one dataset's labels and many other things in a report.
_TOO_WIDE = frozenset({"other", "lesion", "opacity", "normal", "mass", "line", "fluid", "device", "tube", "thickening"})

# Findings of so many names that a text which denies one ("no airspace disease") may state it by another ("opacities").
_VAGUE = frozenset({"lung_opacity", "lung_lesion", "pleural_other", NO_FINDING})


def said_of(text: str) -> dict[str, set[Said]]:
    """Return what a text says of each finding that it names: finding id → everything said.

    Example:
        >>> said_of("There is a small pleural effusion. No pneumothorax.")
        {'pleural_effusion': {'present'}, 'pneumothorax': {'absent'}}
    """
    said: dict[str, set[Said]] = {}
    plain_text = _HEADING.sub(". ", text.lower()).replace("/", " ").replace("-", " ")
    for sentence in _SENTENCE.split(plain_text):
        words = _WORD.findall(sentence)
        plain = " ".join(words)
        for finding, start, stop in _mentions(words):
            said.setdefault(finding, set()).add(_state(plain, " ".join(words[:start]), " ".join(words[stop:])))
    return said


def contradictions(findings: list[tuple[str, str]], text: str) -> list[str]:
    """Return one sentence for each label that the text plainly contradicts.

    A present label is contradicted where the text denies the finding and says nothing else of it or of a kind of it;
    an absent one where the text states the finding and never denies or doubts it.

    Args:
        findings: (vocabulary id, state) of the image.
        text: Of the pair.
    """
    said = said_of(text)
    kinds: dict[str, set[Said]] = {}
    for finding, states in said.items():
        for wider in vocabulary().lineage(finding):
            kinds.setdefault(wider, set()).update(states)
    # Where two labels name one finding, present outdoes uncertain and uncertain outdoes absent.
    strongest = dict(sorted(findings, key=lambda label: _STRENGTH.get(label[1], 0)))
    found = []
    for finding in _VAGUE.intersection(strongest):
        del strongest[finding]
    for finding, state in sorted(strongest.items()):
        name = finding if finding not in vocabulary() else vocabulary()[finding].name
        if state == "present" and said.get(finding) == {"absent"} and kinds[finding] == {"absent"}:
            found.append(f"labelled with {name}, which the text denies")
        elif state == "absent" and said.get(finding) == {"present"}:
            found.append(f"labelled as without {name}, which the text states")
    return found


def _state(sentence: str, before: str, after: str) -> Said:
    denial = max(_NO.finditer(before), key=lambda match: match.start(), default=None)
    if denial is not None:
        scope = before[denial.start() :]
        plain = _DENIES.match(scope) and not _OUT_OF_SCOPE.search(scope)
        return "absent" if plain and not _doubts(sentence, denied=True) else "uncertain"
    if _DENIED_AFTER.match(f" {after}"):
        return "uncertain" if _doubts(sentence, denied=True) else "absent"
    # What is denied later in the sentence is something else ("effusion without pneumothorax"), unless a verb ties it.
    tied = _NO.search(after) and _TIED.match(after)
    return "uncertain" if tied or _doubts(sentence, denied=False) else "present"


def _doubts(sentence: str, *, denied: bool) -> bool:
    """Whether the sentence holds a word of doubt; a denial may speak of evidence and list things by `or`."""
    return bool(_DOUBT.search(_PLAIN_DOUBT.sub(" ", sentence) if denied else sentence))


def _mentions(words: list[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (finding, start, stop) of the longest spellings in the words, left to right."""
    spellings, start = _spellings(), 0
    singular = [_singular(word) for word in words]
    while start < len(words):
        for spelling, finding in spellings.get(singular[start], ()):
            stop = start + len(spelling)
            if singular[start:stop] == spelling:
                yield finding, start, stop
                start = stop
                break
        else:
            start += 1


@cache
def _spellings() -> dict[str, list[tuple[list[str], str]]]:
    """Return the spellings of findings by their first word, longest first."""
    found: dict[str, list[tuple[list[str], str]]] = {}
    for entry in vocabulary():
        if entry.kind != "finding" or entry.id == NO_FINDING:
            continue
        names = {entry.id.replace("_", " "), *(wording.words for wording in entry.words), *entry.synonyms}
        for name in names:
            words = [_singular(word) for word in _WORD.findall(name.lower().replace("_", " "))]
            text = " ".join(words)
            if len(text) >= _SHORTEST and text not in _TOO_WIDE:
                found.setdefault(words[0], []).append((words, entry.id))
    for spellings in found.values():
        spellings.sort(key=lambda spelling: (-len(spelling[0]), spelling[1]))
    return found


def _singular(word: str) -> str:
    return word[:-1] if len(word) > _SHORTEST and word.endswith("s") and not word.endswith(("ss", "is", "us")) else word
