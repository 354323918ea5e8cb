"""VQA-RAD: questions that clinicians asked of MedPix images, of which the radiographs are read."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Question, Reader, Record
from umif.readers.folders import pictures, relative_name
from umif.readers.question_text import answer_type, cell, common_split, entries, merge, plain_question
from umif.readers.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split

PUBLIC = "VQA_RAD Dataset Public.json"
PARTS: dict[str, Split] = {"trainset.json": "train", "valset.json": "val", "testset.json": "test"}
CHEST, ABDOMEN, HEAD = "CHEST", "ABD", "HEAD"
NO_RADIOGRAPH = "HEAD image, which is CT or MR"
OTHER_MODALITY = "CT, MR or ultrasound by what its questions say"
UNKNOWN = "ABD image that no question calls a radiograph"
_PHRASES = ("freeform", "para", "frame", "test_freeform", "test_para")
_RADIOGRAPH = re.compile(r"\b(x[\s-]?rays?|xrays?|xr|cxr|kub|plain[\s-]films?|radiographs?)\b", re.IGNORECASE)
_OTHER = re.compile(r"\b(ct|cat scan|mri?|magnetic|tomogra\w*|axial|ultraso\w*|flair|dwi|t[12]\b)", re.IGNORECASE)
# Questions about tests and images in general, and those that "no" denies to be about this image.
_OF_ANOTHER = re.compile(r"\b(might|would|could|can|should|recommend|next|not represent)\b", re.IGNORECASE)
_OF_THE_KIND = re.compile(r"(is|was) (this|the image|it)\b(?!.*\b(show|normal|suggest|exposed))", re.IGNORECASE)


class _Asked(NamedTuple):
    question: Question
    organ: str
    modality: str | None  # `radiograph`, `other`, or nothing said
    where: str


@register("reader", "vqa-rad")
class VqaRad(Reader):
    """Reader of VQA-RAD as released (one JSON file) or as re-released in parts with paraphrases written out.

    Only chest radiographs, and abdominal images that a question calls one, are read: all of HEAD and nearly all of
    ABD are CT or MR, and a CHEST image is CT if a question or its answer says so. The official parts are of
    questions, and most images of the test part also have questions in the training part: an image is in a part only
    if all its questions are. A validation part that repeats the test part is left out.
    """

    card: ClassVar[Card] = Card(
        title="VQA-RAD",
        licence="CC0 1.0",
        citation="Lau et al., A dataset of clinically generated visual questions and answers about radiology images, "
        "Scientific Data 2018",
        images=315,
        access="open",
        kinds=("question",),
        how_to_get="https://osf.io/89kps",
        layout=(
            "trainset.json, testset.json, images/<image_name>                   (re-release, with paraphrases)\n"
            "or VQA_RAD Dataset Public.json, VQA_RAD Image Folder/<image_name>  (release)"
        ),
        overlaps=("its images are MedPix's; parts share images",),
        excluded="images that are no radiographs; images without a question; questions whose image is missing",
        checked_on="images",
        checked_against="2,823 questions of 251 images (a re-release); the release's own file on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph that has questions, by name."""
        asked = self._asked()
        on_disk: dict[str, tuple[str, Path]] = {}
        for relative, path in pictures(self, self.root):
            if on_disk.setdefault(path.name, (relative, path))[1] is not path:
                self.exclude(relative, "another copy of the same image is used")
        if not on_disk:
            self.require("images")
        for name in sorted(asked.keys() | on_disk.keys()):
            if name not in asked:
                self.exclude(on_disk[name][0], "no question")
            elif name not in on_disk:
                self.exclude(name, "image file is missing", asked[name][0].where)
            elif (reason := _why_not(asked[name])) is not None:
                self.exclude(on_disk[name][0], reason, asked[name][0].where)
            else:
                questions = merge(self, (entry.question for entry in asked[name]))
                yield Record(
                    image=on_disk[name][1],
                    image_id=name,
                    split=common_split(questions),
                    questions=questions,
                    where=asked[name][0].where,
                )

    def _asked(self) -> dict[str, list[_Asked]]:
        asked: dict[str, list[_Asked]] = defaultdict(list)
        for path, split in self._tables():
            for entry, place in entries(path, read_json(path)):
                name = cell(entry, "image_name", place)
                if relative_name(name) != name or "/" in name:
                    raise TableError(f"the image_name is {name!a:.80}", where=place, fix="expected a file's name")
                asked[name].append(_read(entry, place, split, self.root))
        return asked

    def _tables(self) -> list[tuple[Path, Split | None]]:
        found = {path.name: path for path in sorted(self.root.rglob("*.json"), reverse=True)}
        parts: list[tuple[Path, Split | None]]
        parts = [(found[name], split) for name, split in PARTS.items() if name in found]
        if not parts:
            if PUBLIC not in found:
                self.require("trainset.json")
            return [(found[PUBLIC], None)]
        for name in ("trainset.json", "testset.json"):
            if name not in found:
                raise LayoutError(f"{name!r} is missing in this folder", where=self.root, fix="both parts are needed")
        if "valset.json" in found and read_json(found["valset.json"]) == read_json(found["testset.json"]):
            self.note("validation part that repeats the test part")
            parts = [(path, split) for path, split in parts if split != "val"]
        return parts


def _read(entry: dict[str, Any], where: str, split: Split | None, root: Path) -> _Asked:
    organ = cell(entry, "image_organ", where).upper()
    if organ not in (CHEST, ABDOMEN, HEAD):
        raise TableError(f"the image_organ is {organ!r}", where=where, fix=f"known: {CHEST}, {ABDOMEN}, {HEAD}")
    phrase = cell(entry, "phrase_type", where)
    if phrase not in _PHRASES:
        raise TableError(f"the phrase_type is {phrase!r}", where=where, fix=f"known: {', '.join(_PHRASES)}")
    if split is None:
        split = "test" if phrase.startswith("test_") else "train"
    question = Question(
        plain_question(cell(entry, "question", where)),
        cell(entry, "answer", where),
        answer_type(entry, where),
        cell(entry, "question_type", where, may_be_blank=True) or None,
        split,
    )
    place = where.removeprefix(str(root)).lstrip("/")
    return _Asked(question, organ, modality_said(question.question, question.answer), place)


def modality_said(question: str, answer: str) -> str | None:
    """Return `radiograph` or `other` where a question says how its image was taken, else `None`.

    "Is this a CT scan?" counts by its answer; "what test might reveal the diagnosis?" says nothing of this image.

    Example:
        >>> modality_said("Is this a CT scan?", "no"), modality_said("What modality is this?", "CT with contrast")
        (None, 'other')
    """
    if _OF_ANOTHER.search(question) or (answer.lower() == "no" and _OF_THE_KIND.match(question)):
        return None
    words = f"{question} {answer}"
    if _OTHER.search(words):
        return "other"
    return "radiograph" if _RADIOGRAPH.search(words) else None


def _why_not(asked: list[_Asked]) -> str | None:
    if any(entry.organ == HEAD for entry in asked):
        return NO_RADIOGRAPH
    said = {entry.modality for entry in asked}
    if "other" in said and not ("radiograph" in said and asked[0].organ == CHEST):
        return OTHER_MODALITY
    if asked[0].organ == ABDOMEN and "radiograph" not in said:
        return UNKNOWN
    return None
