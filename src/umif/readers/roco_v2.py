"""ROCO, version 2: figures of open articles with captions and concepts, of which the radiographs are read."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Reader, Record, Text
from umif.readers.figure_captions import LEAST_WORDS, clean_caption, has_parts
from umif.readers.folders import pictures
from umif.readers.roco import PARTED
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.tables import Row

PARTS: dict[str, Split] = {"train": "train", "valid": "val", "test": "test"}
PLAIN_RADIOGRAPH = "C1306645"  # UMLS: Plain x-ray
LICENCES = "license_information.csv"
_ID = re.compile(r"ROCOv2_2023_(?:train|valid|validation|test)_\d{6}")
_CONCEPT = re.compile(r"C\d{7}")
_ARTICLE = re.compile(r"PMC\d+")


@register("reader", "roco-v2")
class RocoV2(Reader):
    """Reader of ROCO v2's radiographs: the figures whose concepts name a plain radiograph (C1306645).

    Modalities are among the concepts that people assigned (`…_concepts_manual.csv`), or among all of them where only
    these are here. The article is the patient, where the table of licences names it.
    """

    card: ClassVar[Card] = Card(
        title="ROCOv2 (Radiology Objects in COntext, version 2)",
        licence="each article's own, all CC BY or CC BY-NC (license_information.csv)",
        citation="Rückert et al., ROCOv2: Radiology Objects in COntext Version 2, an Updated Multimodal Image Dataset, "
        "Scientific Data 2024",
        images=79_789,
        access="open",
        kinds=("caption",),
        how_to_get="https://zenodo.org/records/10821435",
        layout=(
            "{train,valid,test}_captions.csv\n"
            "{train,valid,test}_concepts_manual.csv   (or …_concepts.csv)\n"
            "license_information.csv                  (optional: articles)\n"
            "train_images/ROCOv2_2023_train_000001.jpg, valid_images/…, test_images/…   (any folder)"
        ),
        overlaps=("roco: about 44,000 of the same figures, in other parts",),
        excluded="figures that are no plain radiographs, by their concepts; missing images; images without a caption",
        checked_on="layout",
        checked_against="the layout as described; generated folders",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph, by id."""
        # A part of which anything is here must be whole.
        parts = [part for part in PARTS if next(self.root.glob(f"{part}_*"), None) is not None]
        for part in parts or ("train",):
            self.require(f"{part}_captions.csv")
        captions = {item: (text, PARTS[part], row) for part in parts for item, text, row in self._captions(part)}
        concepts = {item: cuis for part in parts for item, cuis in self._concepts(part)}
        if not any(PLAIN_RADIOGRAPH in cuis for cuis in concepts.values()):
            fix = "expected the modality of each figure among its concepts, ROCOv2 as of 2023"
            raise LayoutError(f"no figure has the concept {PLAIN_RADIOGRAPH} (plain x-ray)", where=self.root, fix=fix)
        articles = self._articles()
        on_disk: dict[str, tuple[str, Path]] = {}
        for relative, path in pictures(self, self.root):
            if on_disk.setdefault(path.stem, (relative, path))[1] is not path:
                self.exclude(relative, "another copy of the same image is used")
        for item in sorted(captions.keys() | on_disk.keys()):
            if item not in captions:
                self.exclude(on_disk[item][0], "no caption")
                continue
            text, split, row = captions[item]
            if item not in concepts:
                self.exclude(item, "no row of concepts", row.where)
            elif PLAIN_RADIOGRAPH not in concepts[item]:
                self.exclude(item, "concepts name no plain radiograph", row.where)
            elif item not in on_disk:
                self.exclude(item, "image file is missing", row.where)
            elif len(text.split()) < LEAST_WORDS:
                self.exclude(item, f"caption of fewer than {LEAST_WORDS} words", row.where)
            else:
                if has_parts(text):
                    self.note(PARTED)
                yield Record(
                    image=on_disk[item][1],
                    image_id=item,
                    patient=articles.get(item),
                    patient_namespace="pmc",
                    split=split,
                    texts=(Text("caption", text, "caption"),),
                    where=row.where,
                )

    def _captions(self, part: str) -> Iterator[tuple[str, str, Row]]:
        seen: dict[str, str] = {}
        for row in read_table(self.root / f"{part}_captions.csv", ("ID", "Caption")):
            item = _item(row)
            text = clean_caption(row["Caption"])
            if seen.setdefault(item, text) != text:
                raise row.error(f"{item!r} has two captions")
            yield item, text, row

    def _concepts(self, part: str) -> Iterator[tuple[str, frozenset[str]]]:
        manual = self.root / f"{part}_concepts_manual.csv"
        if not manual.exists():
            self.note(f"{manual.name} is missing: all concepts are used")
            manual = self.require(f"{part}_concepts.csv")
        for row in read_table(manual, ("ID", "CUIs")):
            cuis = [cui.strip() for cui in row["CUIs"].split(";") if cui.strip()]
            for cui in cuis:
                if _CONCEPT.fullmatch(cui) is None:
                    raise row.error(f"{cui!a:.40} is no concept", fix="expected C0000000;C0000001;…")
            yield _item(row), frozenset(cuis)

    def _articles(self) -> dict[str, str]:
        """Return the article of each figure, from whatever columns hold the two; licences are free text."""
        path = self.root / LICENCES
        articles: dict[str, str] = {}
        if path.exists():
            try:
                with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                    for cells in csv.reader(file):
                        item = next((cell.strip() for cell in cells if _ID.fullmatch(cell.strip())), None)
                        article = next((match[0] for cell in cells if (match := _ARTICLE.search(cell))), None)
                        if item is not None and article is not None:
                            articles[item] = article
            except (OSError, csv.Error) as error:
                raise TableError(f"cannot be read: {error}", where=path) from None
        if not articles:
            self.note(f"no article in {LICENCES}: each image counts as a patient of its own")
        return articles


def _item(row: Row) -> str:
    if _ID.fullmatch(row["ID"]) is None:
        raise row.error(f"the ID is {row['ID']!a:.60}", fix="expected ROCOv2_2023_train_000001")
    return row["ID"]
