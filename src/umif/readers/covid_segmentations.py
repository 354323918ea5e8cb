"""COVID-19 chest X-ray segmentations: radiographs of covid-chestxray with masks of organs, findings and devices."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Reader, Region
from umif.readers.covid_metadata import located_rows, make_record
from umif.readers.folders import is_file, relative_name
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.readers.base import Record
    from umif.readers.tables import Row

TABLE = "structure.csv"
_RESOLUTION = re.compile(r"(\d{1,6})\s*[x×]\s*(\d{1,6})")


@register("reader", "covid-segmentations")
class CovidSegmentations(Reader):
    """Reader of GeneralBlockchain/covid-19-chest-xray-segmentations-dataset.

    A mask is a coloured crop on black whose top-left corner stands at (`Left`, `Top`) of the image, which is
    `Resolution` large. Findings and notes are those of `metadata.csv`, as in covid-chestxray, whose patients these are.
    """

    card: ClassVar[Card] = Card(
        title="COVID-19 chest X-ray segmentations",
        licence="CC BY 4.0 (masks); each image by its `license` column",
        citation="General Blockchain, Inc., COVID-19 chest X-ray segmentations dataset, 2020; images from "
        "Cohen et al., COVID-19 Image Data Collection, arXiv:2006.11988",
        images=100,
        access="open",
        kinds=("report", "class", "segment"),
        how_to_get="git clone https://github.com/GeneralBlockchain/covid-19-chest-xray-segmentations-dataset",
        layout=(
            "metadata.csv\n"
            "structure.csv       Class, Filename, Mask, Resolution, Top, Left, …\n"
            "images/<filename>\n"
            "masks/<name>.png    coloured crop on black"
        ),
        overlaps=("covid-chestxray: contains these images (same patient keys)",),
        excluded="images without a row in metadata.csv; rows whose file is missing",
        checked_on="images",
        checked_against="79 images with 472 masks of 13 classes",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph with a row, by path."""
        regions = self._regions()
        for item, path, row in located_rows(self):
            yield replace(make_record(self, item, path, row), regions=tuple(regions.pop(item, ())))
        if regions:
            self.note("mask of an image that is not read", sum(map(len, regions.values())))

    def _regions(self) -> dict[str, list[Region]]:
        regions: dict[str, list[Region]] = defaultdict(list)
        columns = ("Class", "Filename", "Mask", "Resolution", "Top", "Left")
        for row in read_table(self.require(TABLE), columns):
            name = relative_name(row["Mask"])
            if not row["Mask"]:
                self.note("structure without a mask")
            elif name is None or relative_name(row["Filename"]) is None:
                self.note("mask whose path leaves the folder")
            elif not is_file(path := self.root / name):
                self.note("mask file is missing")
            else:
                if not row["Class"]:
                    raise row.error("the class of the mask is blank")
                regions[f"images/{relative_name(row['Filename'])}"].append(
                    Region(
                        row["Class"],
                        "mask",
                        mask_path=path,
                        offset=_offset(row),
                        frame=_frame(row),
                    )
                )
        return regions


def _offset(row: Row) -> tuple[int, int]:
    left, top = row.whole("Left"), row.whole("Top")
    if left < 0 or top < 0:
        raise row.error(f"the mask begins outside the image, at ({left}, {top})")
    return left, top


def _frame(row: Row) -> tuple[int, int]:
    match = _RESOLUTION.fullmatch(row["Resolution"])
    if not match or not int(match[1]) or not int(match[2]):
        raise row.error(f"the resolution is {row['Resolution']!r}", fix="expected widthxheight, for example 402x320")
    return int(match[1]), int(match[2])
