"""ROCO, version 1: figures of open articles with their captions, of which the radiographs are read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Reader, Record, Text
from umif.readers.figure_captions import LEAST_WORDS, clean_caption, has_parts, why_no_radiograph
from umif.readers.folders import pictures
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split

PARTS: dict[str, Split] = {"train": "train", "validation": "val", "val": "val", "test": "test"}
RADIOLOGY, CAPTIONS, LICENCES = "radiology", "captions.txt", "licences.txt"
PARTED = "figure of several parts"
_ID = re.compile(r"ROCO_\d{5,6}")
_ARTICLE = re.compile(r"(PMC\d+)_.+")


class _Caption(NamedTuple):
    text: str
    split: Split
    where: str


@register("reader", "roco")
class Roco(Reader):
    """Reader of ROCO v1: of its radiology part, the figures whose caption names a radiograph and nothing else.

    ROCO states no modality: its concepts are mined from the captions, and miss most of what is spelt `X-ray`. An
    article is the patient: its figures are often of one.
    """

    card: ClassVar[Card] = Card(
        title="ROCO (Radiology Objects in COntext)",
        licence="each article's own (licences.txt): mostly CC BY and its kin, some without",
        citation="Pelka et al., Radiology Objects in COntext (ROCO): A Multimodal Image Dataset, LABELS 2018",
        images=81_825,
        access="open",
        kinds=("caption",),
        how_to_get="https://github.com/razorx89/roco-dataset, then its download script",
        layout=(
            "data/{train,validation,test}/radiology/captions.txt, licences.txt   (or without data/; or val)\n"
            "data/{train,validation,test}/radiology/images/ROCO_00001.jpg"
        ),
        overlaps=("roco-v2: about 44,000 of the same figures, in other parts", "MedICaT: leaves ROCO's figures out"),
        excluded="non-radiology figures; captions that name no radiograph, or other pictures too; missing images",
        checked_on="tables",
        checked_against="1,000 captions and licences of the validation and test parts; images on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph, by id."""
        folder = self._folder()
        captions: dict[str, _Caption] = {}
        articles: dict[str, str] = {}
        for part, split in PARTS.items():
            if (folder / part).is_dir():
                self._read_part(folder / part / RADIOLOGY, split, captions, articles)
        on_disk: dict[str, tuple[str, Path]] = {}
        for relative, path in pictures(self, folder):
            if path.parts[-3:-2] != (RADIOLOGY,):
                self.exclude(relative, "not in the radiology part")
            elif on_disk.setdefault(path.stem, (relative, path))[1] is not path:
                self.exclude(relative, "another copy of the same image is used")
        for item in sorted(captions.keys() | on_disk.keys()):
            caption = captions.get(item)
            if caption is None:
                self.exclude(on_disk[item][0], f"no caption in {CAPTIONS}")
            elif (reason := _why_not(caption.text)) is not None:
                self.exclude(item, reason, caption.where)
            elif item not in on_disk:
                self.exclude(item, "image file is missing", caption.where)
            else:
                if has_parts(caption.text):
                    self.note(PARTED)
                yield Record(
                    image=on_disk[item][1],
                    image_id=item,
                    patient=articles.get(item),
                    patient_namespace="pmc",
                    split=caption.split,
                    texts=(Text("caption", caption.text, "caption"),),
                    where=caption.where,
                )

    def _folder(self) -> Path:
        for folder in (self.root, self.root / "data", self.root / "all_data"):
            if any((folder / part / RADIOLOGY).is_dir() for part in PARTS):
                return folder
        fix = f"expected layout:\n{self.card.layout}"
        raise LayoutError("no part of ROCO here (train/radiology, …)", where=self.root, fix=fix)

    def _read_part(self, folder: Path, split: Split, captions: dict[str, _Caption], articles: dict[str, str]) -> None:
        self.require((folder / CAPTIONS).relative_to(self.root).as_posix())
        for item, text, where in read_captions(folder / CAPTIONS):
            known = captions.setdefault(item, _Caption(text, split, where))
            if known[:2] != (text, split):
                raise TableError(f"{item!r} has another caption or part at {known.where}", where=folder / CAPTIONS)
            if known.where != where:
                self.note("repeated row, equal")
        if not (folder / LICENCES).exists():
            self.note(f"part without {LICENCES}: its articles are not known")
            return
        for row in read_table(folder / LICENCES, ("ROCO_ID", "PMC_ID", "CC")):
            match = _ARTICLE.fullmatch(row["PMC_ID"])
            if _ID.fullmatch(row["ROCO_ID"]) is None or match is None:
                raise row.error(f"{row['ROCO_ID']!a:.40}, {row['PMC_ID']!a:.80} are no ids", fix="expected PMC…_<file>")
            articles[row["ROCO_ID"]] = match[1]


def read_captions(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (id, caption, where) of each line; the caption is empty where there is none.

    Raises:
        LayoutError: the file cannot be read.
        TableError: a line does not begin with an id.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise LayoutError(f"cannot be read: {error.strerror or error}", where=path) from None
    place = "/".join(path.parts[-3:])
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        item, _, caption = line.partition("\t")
        if _ID.fullmatch(item.strip()) is None:
            raise TableError(f"begins with {item!a:.60}", where=f"{path}:{number}", fix="expected ROCO_00001<TAB>…")
        yield item.strip(), clean_caption(caption), f"{place}:{number}"


def _why_not(caption: str) -> str | None:
    if len(caption.split()) < LEAST_WORDS:
        return f"caption of fewer than {LEAST_WORDS} words"
    return why_no_radiograph(caption)
