"""What a phantom's description says in words: a report, a caption, and questions with answers.

The words follow the labels: present findings are stated, uncertain ones hedged, absent ones negated or passed over,
and what is not mentioned is not mentioned. Each sentence holds one state only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from umif.corpus import phantom_description as names
from umif.corpus.phantom_findings import rib_number
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from umif.corpus.phantom_description import Description, DrawnFinding

_EXTENT = ("small", "moderate", "large")
_DEGREE = ("mild", "moderate", "severe")
# Named by how strong they are, the others by how large.
_BY_CONTRAST = (names.CARDIOMEGALY, names.EDEMA)
_ORDINAL = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_ABSENT = {
    names.EFFUSION: ("pleural effusion", "effusion"),
    names.CARDIOMEGALY: ("cardiomegaly", "cardiac enlargement"),
    names.PNEUMOTHORAX: ("pneumothorax",),
    names.CONSOLIDATION: ("consolidation", "focal consolidation"),
    names.NODULE: ("pulmonary nodule", "nodule"),
    names.ATELECTASIS: ("atelectasis",),
    names.EDEMA: ("pulmonary edema", "edema"),
    names.FRACTURE: ("rib fracture", "displaced fracture"),
    names.DEVICES: ("support device", "tube"),
}
_STATED = (
    "There is {a}.",
    "{A} is seen.",
    "{A} is present.",
    "The film shows {a}.",
    "Findings include {a}.",
    "{A} is noted.",
    "{A}.",
)
_HEDGED = (
    "Possible {bare}.",
    "{A} cannot be excluded.",
    "There may be {a}.",
    "Questionable {bare}.",
    "{A} is suspected but not certain.",
    "Findings are suspicious for {a}.",
)
_NEGATED = (
    "No {list}.",
    "There is no {list}.",
    "No evidence of {list}.",
    "There is no sign of {list}.",
    "The film is negative for {list}.",
)
_OPENINGS = (
    "{view} view of the chest.",
    "Single frontal chest film, {view} projection.",
    "Chest radiograph, {view}.",
    "One {view} view of the chest was obtained.",
)
_NORMAL_LUNGS = ("The lungs are clear.", "Both lungs are well aerated.", "The lungs are clear and well expanded.")
_NORMAL = (
    "Normal chest radiograph.",
    "No acute abnormality.",
    "No abnormality of heart or lungs.",
    "Unremarkable examination.",
)
_CAPTIONS = (
    "{view} chest radiograph of a {age}-year-old {person} showing {list}.",
    "Chest X-ray ({view}) of a {age}-year-old {person} with {list}.",
    "Frontal chest film demonstrating {list} in a {age}-year-old {person}.",
    "A {age}-year-old {person}: the {view} radiograph reveals {list}.",
)
_NORMAL_CAPTIONS = (
    "Normal {view} chest radiograph of a {age}-year-old {person}.",
    "Chest X-ray ({view}) of a {age}-year-old {person} without abnormality.",
    "Frontal chest film of a healthy {age}-year-old {person}.",
)
_CAPTIONED = 3


class Question(TypedDict):
    """A question about one image; `answer_type` is OPEN or CLOSED (answered by yes or no)."""

    question: str
    answer: str
    answer_type: str
    finding: str


def severity(finding: DrawnFinding) -> str:
    """Return the word for how large or how strong a finding is."""
    share = finding.contrast if finding.name in _BY_CONTRAST else finding.size
    return (_DEGREE if finding.name in _BY_CONTRAST else _EXTENT)[min(int(share * 3), 2)]


def phrase(finding: DrawnFinding, rng: np.random.Generator) -> str:
    """Return a noun phrase for a finding, without an article: `small left pleural effusion`."""
    word, side = severity(finding), "bilateral" if finding.side == "both" else finding.side
    where = f"in the {side} {finding.zone} zone"
    subtle = "subtle " if finding.contrast < names.FAINT and rng.random() < 0.5 else ""
    if finding.name == names.EFFUSION:
        return f"{subtle}{word} {side} pleural effusion{'s' if finding.side == 'both' else ''}"
    if finding.name == names.CARDIOMEGALY:
        return f"{word} {_pick(rng, ('cardiomegaly', 'enlargement of the heart', 'cardiac enlargement'))}"
    if finding.name == names.PNEUMOTHORAX:
        return f"{subtle}{word} {side} {_pick(rng, ('', 'apical '))}pneumothorax"
    if finding.name == names.CONSOLIDATION:
        return f"{subtle}{word} {_pick(rng, ('consolidation', 'area of consolidation'))} {where}"
    if finding.name == names.NODULE:
        return f"{subtle}{word} {_pick(rng, ('nodule', 'pulmonary nodule', 'round nodule'))} {where}"
    if finding.name == names.ATELECTASIS:
        return f"{subtle}{word} {_pick(rng, ('plate-like', 'linear', 'band-like'))} atelectasis {where}"
    if finding.name == names.EDEMA:
        return f"{word} {_pick(rng, ('pulmonary edema', 'interstitial edema', 'perihilar edema'))}"
    if finding.name == names.FRACTURE:
        return f"{subtle}fracture of the {side} {_ORDINAL[rib_number(finding) - 1]} rib"
    return finding.kind if finding.side == "midline" else f"{side} {finding.kind}"


def write_report(description: Description) -> str:
    """Return a report: findings in sentences and an impression."""
    rng = keyed_rng(description.seed, "phantom-report", step=description.index)
    sentences = [_pick(rng, _OPENINGS).format(view=description.view)] if rng.random() < 0.5 else []
    told = [_sentence(finding, description, rng) for finding in description.findings]
    rng.shuffle(told)
    negated = [name for name in names.FINDINGS if description.label(name) == "absent"]
    rng.shuffle(negated)
    negated = negated[: max(2, round(len(negated) * rng.uniform(0.5, 1.0)))]
    half = len(negated) // 2 if len(told) < 4 else 0
    denials = [_negation(group, rng) for group in (negated[:half], negated[half:]) if group]
    if description.label(names.NO_FINDING) == "present":
        told.append(_pick(rng, _NORMAL_LUNGS))
    sentences += [*told, *denials] if rng.random() < 0.7 else [*denials, *told]
    heads = ("FINDINGS: ", " IMPRESSION: ") if rng.random() < 0.7 else ("", " Impression: ")
    return heads[0] + " ".join(sentences) + heads[1] + _impression(description, rng)


def write_caption(description: Description) -> str:
    """Return one sentence as under a figure; it names the three plainest findings at most."""
    rng = keyed_rng(description.seed, "phantom-caption", step=description.index)
    person = "woman" if description.sex == "F" else "man"
    told = sorted(_labelled(description, "present"), key=lambda finding: -finding.contrast)[:_CAPTIONED]
    phrases = [_with_article(phrase(finding, rng)) for finding in told]
    phrases += [f"possible {phrase(finding, rng)}" for finding in _labelled(description, "uncertain")][:1]
    frame = _pick(rng, _CAPTIONS if phrases else _NORMAL_CAPTIONS)
    return frame.format(view=description.view, age=description.age_years, person=person, list=_listed(phrases, "and"))


def write_questions(description: Description) -> list[Question]:
    """Return questions that the description answers; nothing is asked about what is uncertain."""
    rng = keyed_rng(description.seed, "phantom-questions", step=description.index)
    questions = [Question(question="Which view is this?", answer=description.view, answer_type="OPEN", finding="")]
    present = _labelled(description, "present")
    unsure = {finding.name for finding in _labelled(description, "uncertain")}
    for finding in present:
        questions += _about(finding, rng)
    true_negatives = [name for name in names.FINDINGS if description.finding(name) is None]
    rng.shuffle(true_negatives)
    for name in true_negatives[: max(2, len(present))]:
        questions.append(_closed(name, rng, "no"))
    if not unsure:
        normal = "no" if present else "yes"
        questions.append(
            Question(
                question=_pick(rng, ("Is this a normal chest film?", "Is the film normal?")),
                answer=normal,
                answer_type="CLOSED",
                finding=names.NO_FINDING,
            )
        )
    return questions


def _about(finding: DrawnFinding, rng: np.random.Generator) -> list[Question]:
    questions = [_closed(finding.name, rng, "yes")]
    noun = _ABSENT[finding.name][0]

    def ask(question: str, answer: str) -> None:
        questions.append(Question(question=question, answer=answer, answer_type="OPEN", finding=finding.name))

    if finding.name == names.DEVICES:
        ask("Which device is seen?", finding.kind)
        return questions
    if finding.side in ("left", "right") or finding.name == names.EFFUSION:
        side = "both sides" if finding.side == "both" else finding.side
        ask(f"On which side is the {noun}?", side)
    if finding.name in (names.CONSOLIDATION, names.NODULE, names.ATELECTASIS):
        ask(f"Where is the {noun}?", f"{finding.side} {finding.zone} zone")
    if finding.name == names.FRACTURE:
        ask("Which rib is broken?", f"{finding.side} {_ORDINAL[rib_number(finding) - 1]} rib")
    else:
        degree = "severe" if finding.name in _BY_CONTRAST else "large"
        ask(f"How {degree} is the {noun}?", severity(finding))
    return questions


def _closed(name: str, rng: np.random.Generator, answer: str) -> Question:
    noun = _ABSENT[name][0]
    frames = ("Is there a sign of {noun}?", "Does the film show {noun}?", "Is {noun} present?", "Any {noun}?")
    question = _pick(rng, frames).format(noun=noun)
    return Question(question=question, answer=answer, answer_type="CLOSED", finding=name)


def _sentence(finding: DrawnFinding, description: Description, rng: np.random.Generator) -> str:
    words = phrase(finding, rng)
    frames = _STATED if description.label(finding.name) == "present" else _HEDGED
    frame = _pick(rng, frames)
    article = _with_article(words)
    sentence = frame.format(a=article, A=article[0].upper() + article[1:], bare=words)
    return sentence.replace("effusions is ", "effusions are ").replace("There is bilateral", "There are bilateral")


def _negation(group: Sequence[str], rng: np.random.Generator) -> str:
    nouns = [_pick(rng, _ABSENT[name]) for name in group]
    if list(group) == [names.CARDIOMEGALY] and rng.random() < 0.6:
        return _pick(rng, ("The heart is not enlarged.", "No cardiac enlargement is seen."))
    return _pick(rng, _NEGATED).format(list=_listed(nouns, "or"))


def _impression(description: Description, rng: np.random.Generator) -> str:
    present = sorted(_labelled(description, "present"), key=lambda finding: -finding.contrast)
    if present:
        words = [phrase(finding, rng) for finding in present[:_CAPTIONED]]
        return _capital(_listed(words, "and")) + "."
    unsure = _labelled(description, "uncertain")
    if unsure:
        return f"Possible {phrase(unsure[0], rng)}."
    return _pick(rng, _NORMAL)


def _labelled(description: Description, state: str) -> list[DrawnFinding]:
    return [finding for finding in description.findings if description.label(finding.name) == state]


def _listed(words: Sequence[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def _with_article(words: str) -> str:
    # Of these one has no single one.
    if words.endswith(("effusions", "edema", "cardiomegaly")) or "enlargement" in words or "atelectasis" in words:
        return words
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
