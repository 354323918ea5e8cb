"""SLAKE: questions in English and Chinese about images of several kinds, of which the radiographs are read."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from umif.config import register
from umif.errors import TableError
from umif.readers.base import Card, Question, Reader, Record
from umif.readers.folders import pictures, relative_name
from umif.readers.question_text import answer_type, cell, common_split, entries, merge
from umif.readers.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split

# The validation part is called either way.
PARTS: dict[str, Split] = {
    "train.json": "train",
    "validate.json": "val",
    "validation.json": "val",
    "test.json": "test",
}
RADIOGRAPH, ENGLISH = "X-Ray", "en"
MODALITIES = (RADIOGRAPH, "CT", "MRI")
LANGUAGES = (ENGLISH, "zh")
IMAGES, MASK = "imgs", "mask.png"


class _Asked(NamedTuple):
    question: Question | None  # none where it is in another language
    modality: str
    where: str


@register("reader", "slake")
class Slake(Reader):
    """Reader of SLAKE's radiographs and their English questions.

    `question_type` is `content_type` (what is asked about); a closed question need not be one of yes or no. The
    masks and boxes of organs are not read.
    """

    card: ClassVar[Card] = Card(
        title="SLAKE",
        licence="CC BY 4.0",
        citation="Liu et al., SLAKE: A Semantically-Labeled Knowledge-Enhanced Dataset for Medical Visual Question "
        "Answering, ISBI 2021",
        images=642,
        access="open",
        kinds=("question",),
        how_to_get="https://www.med-vqa.com/slake",
        layout=(
            "train.json, validate.json (or validation.json), test.json\n"
            "imgs/xmlab<n>/source.jpg   (beside it mask.png, detection.json, question.json)"
        ),
        overlaps=("nih-chestxray14: most of its chest radiographs, no public map of the ids",),
        excluded="CT and MR images; masks of organs; questions that are not in English (as notes)",
        checked_on="layout",
        checked_against="the layout as described; generated folders",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph that has questions, by folder."""
        asked = self._asked()
        on_disk: dict[str, Path] = {}
        images = self.require(IMAGES)
        for relative, path in pictures(self, self.root):
            if path.name == MASK:
                self.exclude(relative, "mask of organs, not read")
            elif not path.is_relative_to(images):
                self.exclude(relative, f"picture outside {IMAGES}/")
            else:
                on_disk[path.relative_to(images).as_posix()] = path
        for name in sorted(asked.keys() | on_disk.keys()):
            item = f"{IMAGES}/{name}"
            if name not in asked:
                self.exclude(item, "no question")
                continue
            modality, where = asked[name][0].modality, asked[name][0].where
            if modality != RADIOGRAPH:
                self.exclude(item, f"modality is {modality}", where)
            elif name not in on_disk:
                self.exclude(item, "image file is missing", where)
            else:
                questions = merge(self, (entry.question for entry in asked[name] if entry.question is not None))
                yield Record(
                    image=on_disk[name],
                    image_id=item,
                    split=common_split(questions),
                    questions=questions,
                    where=where,
                )

    def _asked(self) -> dict[str, list[_Asked]]:
        asked: dict[str, list[_Asked]] = defaultdict(list)
        tables = [(self.root / name, split) for name, split in PARTS.items() if (self.root / name).exists()]
        if "train" not in {split for _, split in tables}:
            self.require("train.json")
        for path, split in tables:
            for entry, place in entries(path, read_json(path)):
                name = cell(entry, "img_name", place)
                if relative_name(name) != name:
                    raise TableError(f"the path {name!a:.80} leaves the folder", where=place)
                language, modality = cell(entry, "q_lang", place), cell(entry, "modality", place)
                for value, known in ((language, LANGUAGES), (modality, MODALITIES)):
                    if value not in known:
                        raise TableError(f"{value!r:.60} is none of {', '.join(known)}", where=place)
                question = None
                if language == ENGLISH:
                    question = Question(
                        cell(entry, "question", place),
                        cell(entry, "answer", place),
                        answer_type(entry, place),
                        cell(entry, "content_type", place, may_be_blank=True) or None,
                        split,
                    )
                elif modality == RADIOGRAPH:
                    self.note(f"question in another language: {language}")
                number = place.rpartition(":")[2]
                asked[name].append(_Asked(question, modality, f"{path.name}:{number}"))
                if modality != asked[name][0].modality:
                    raise TableError(f"{name!r} is {modality} here and {asked[name][0].modality} before", where=place)
        return asked
