"""COVID-19 Image Data Collection: radiographs from publications, with findings, clinical notes and lung regions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from umif.config import register
from umif.errors import TableError
from umif.readers.base import Card, Reader, Region
from umif.readers.covid_metadata import located_rows, make_record
from umif.readers.folders import pictures
from umif.readers.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Record

BOXES = "annotations/imageannotation_ai_lung_bounding_boxes.json"
LUNGVAE = "annotations/lungVAE-masks"
V7LABS = "annotations/semantic_masks_v7labs_lungs"


@register("reader", "covid-chestxray")
class CovidChestxray(Reader):
    """Reader of ieee8023/covid-chestxray-dataset.

    Findings: each level of the path in `finding` (see `covid_metadata.parse_findings`); `todo`, `Unknown` and blank
    give none. Texts: `clinical_notes`, with the rest of it in `other_notes`. Regions: left and right lung boxes in
    the frame that the annotation file states, and two kinds of lung masks in which every pixel other than black
    counts. A mask may turn out to be black all over; that shows only in its pixels, so it is left to the corpus.
    """

    card: ClassVar[Card] = Card(
        title="COVID-19 Image Data Collection",
        licence="per image (column `license`: CC BY, CC BY-SA, CC BY-NC-SA …, often not stated); "
        "lung boxes CC BY 4.0, v7labs masks CC BY",
        citation="Cohen et al., COVID-19 Image Data Collection: Prospective Predictions Are the Future, "
        "MELBA 2020, arXiv:2006.11988",
        images=950,
        access="open",
        kinds=("report", "class", "segment"),
        how_to_get="git clone https://github.com/ieee8023/covid-chestxray-dataset; the v7labs masks are published at "
        "https://github.com/v7labs/covid-19-xray-dataset",
        layout=(
            "metadata.csv\n"
            "images/<filename>\n"
            "annotations/imageannotation_ai_lung_bounding_boxes.json   (optional, COCO)\n"
            "annotations/lungVAE-masks/<stem>_mask.png                 (optional)\n"
            "annotations/semantic_masks_v7labs_lungs/<filename>        (optional, PNG whatever the name)"
        ),
        overlaps=(
            "covid-segmentations: its images are in here (same patient keys)",
            "COVIDx train: contains these images",
        ),
        excluded="CT slices and volumes; images without a row in metadata.csv; rows whose file is missing",
        checked_on="images",
        checked_against="567 images of the June 2020 state with both kinds of masks and the lung boxes; "
        "path-like findings of the later table on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph with a row, by path."""
        regions = self._regions()
        for item, path, row in located_rows(self):
            yield replace(make_record(self, item, path, row), regions=tuple(regions.pop(item, ())))
        if regions:
            self.note("lung region of an image that is not read", sum(map(len, regions.values())))

    def _regions(self) -> dict[str, list[Region]]:
        regions: dict[str, list[Region]] = defaultdict(list)
        for item, region in (*self._lung_boxes(), *self._lungvae_masks(), *self._v7labs_masks()):
            regions[item].append(region)
        return regions

    def _lung_boxes(self) -> Iterator[tuple[str, Region]]:
        path = self.root / BOXES
        if not path.is_file():
            self.note("no lung boxes here")
            return
        data = read_json(path)
        names = {_id(path, c): _get(path, c, "name") for c in _entries(path, data, "categories")}
        images = {_id(path, i): i for i in _entries(path, data, "images")}
        for number, annotation in enumerate(_entries(path, data, "annotations")):
            where = f"{path}: annotations[{number}]"
            box = _get(path, annotation, "bbox")
            if not isinstance(box, list) or len(box) != 4:
                raise TableError(f"the box is {box!r}", where=where, fix="expected [x, y, width, height]")
            if any(side is None for side in box):
                self.note("null lung box")
                continue
            name = names.get(_id(path, annotation, "category_id"))
            image = images.get(_id(path, annotation, "image_id"))
            if not isinstance(name, str) or image is None:
                raise TableError("the category or image of the box is not defined", where=where)
            x, y, width, height = (_number(side, where) for side in box)
            if width <= 0 or height <= 0:
                self.note("lung box without extent")
                continue
            frame = (int(_number(_get(path, image, "width"), where)), int(_number(_get(path, image, "height"), where)))
            if min(frame) <= 0:
                raise TableError(f"the image of the box is {frame[0]} by {frame[1]} pixels large", where=where)
            item = f"images/{_get(path, image, 'file_name')}"
            yield item, Region(name, "box", box=(x, y, width, height), frame=frame)

    def _lungvae_masks(self) -> Iterator[tuple[str, Region]]:
        folder = self.root / LUNGVAE
        if not folder.is_dir():
            self.note("no lungVAE masks here")
            return
        by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.require("images").iterdir()):
            by_stem[path.stem].append(f"images/{path.name}")
        for _, path in pictures(self, folder):
            # Some names end in `_mask.png.png`.
            stem = path.name.split("_mask.png")[0]
            items = by_stem.get(stem, [])
            if len(items) == 1:
                yield items[0], Region("lung", "mask", mask_path=path)
            else:
                self.note("lungVAE mask that fits several images" if items else "lungVAE mask without its image")

    def _v7labs_masks(self) -> Iterator[tuple[str, Region]]:
        folder = self.root / V7LABS
        if not folder.is_dir():
            self.note("no v7labs masks here")
            return
        for _, path in pictures(self, folder):
            yield f"images/{path.name}", Region("lung", "mask", mask_path=path)


def _get(path: Path, mapping: Any, key: str) -> Any:
    if not isinstance(mapping, dict) or key not in mapping:
        raise TableError(f"an entry has no {key!r}", where=path, fix="expected COCO's layout of boxes")
    return mapping[key]


def _entries(path: Path, data: Any, key: str) -> list[Any]:
    entries = _get(path, data, key)
    if not isinstance(entries, list):
        raise TableError(f"{key!r} holds no list", where=path, fix="expected COCO's layout of boxes")
    return entries


def _id(path: Path, entry: Any, key: str = "id") -> int:
    value = _get(path, entry, key)
    if not isinstance(value, int):
        raise TableError(f"{key!r} is {value!r} where a whole number belongs", where=path)
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise TableError(f"{value!r} stands where a number belongs", where=where)
    return float(value)
