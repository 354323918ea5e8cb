"""TBX11K: radiographs of healthy, sick and tuberculous chests, with boxes around tuberculosis."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

from umif.config import register
from umif.errors import TableError, nearest
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.readers.folders import pictures, relative_name
from umif.readers.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split

IMAGES, ANNOTATIONS = "imgs", "annotations/json"
LISTS: dict[str, Split | None] = {"TBX11K_train.json": "train", "TBX11K_val.json": "val"}
BOTH = "TBX11K_trainval.json"  # the two in one, without saying which
HEALTH, SICK, TB = "health", "sick", "tb"
CATEGORIES = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis")
_STATES = {
    HEALTH: ((HEALTH, LabelState.PRESENT), (TB, LabelState.ABSENT)),
    SICK: ((HEALTH, LabelState.ABSENT), (TB, LabelState.ABSENT)),
    TB: ((TB, LabelState.PRESENT),),
}
_UNLABELLED = {"test": "test image, unlabelled", "extra": "image of another dataset"}


@register("reader", "tbx11k")
class Tbx11k(Reader):
    """Reader of TBX11K.

    The folder of an image says healthy, sick without tuberculosis, or tuberculosis; the boxes say of which kind, as
    `ActiveTuberculosis`, `ObsoletePulmonaryTuberculosis` (latent) or `PulmonaryTuberculosis` (kind not known). A
    kind that no box names is not given. The lists give the splits `train` and `val`; the labels of the test images
    are not published, and the images under `extra` are other datasets'.
    """

    card: ClassVar[Card] = Card(
        title="TBX11K",
        licence="CC BY-NC-SA, academic use; see the dataset's page",
        citation="Liu et al., Rethinking Computer-Aided Tuberculosis Diagnosis, CVPR 2020",
        images=11_200,
        access="open",
        kinds=("class", "segment"),
        how_to_get="https://mmcheng.net/tb: TBX11K.zip",
        layout=(
            "imgs/{health,sick,tb}/*.png\n"
            "imgs/{test,extra}/…                                     (optional, left out)\n"
            "annotations/json/TBX11K_train.json, TBX11K_val.json     (or TBX11K_trainval.json; COCO)"
        ),
        overlaps=("imgs/extra: Montgomery, Shenzhen and the DA and DB sets",),
        excluded="the 3,302 test images (labels not published); images under extra; images in no list; missing files",
        checked_on="images",
        checked_against="3 images with 3 boxes of the training list; the rest on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the lists that is on disk, by path."""
        entries: dict[str, tuple[Path, dict[str, Any], Split | None]] = {}
        boxes: dict[str, list[Region]] = {}
        for path, split in self._lists():
            for name, entry, regions in _read_list(self, path):
                if name in entries:
                    raise TableError(f"{name!r} stands in two lists, or twice in one", where=path)
                entries[name], boxes[name] = (path, entry, split), regions
        on_disk = {path.relative_to(self.root / IMAGES).as_posix(): path for _, path in self._pictures()}
        for name in sorted(entries.keys() | on_disk.keys()):
            item = f"{IMAGES}/{name}"
            if name not in entries:
                self.exclude(item, _UNLABELLED.get(name.split("/")[0], "in none of the lists"))
                continue
            path, entry, split = entries[name]
            where = f"{path.name}: image {entry['id']}"
            if relative_name(name) is None:
                self.exclude(f"{where} {name!a}", "path leaves the folder", where)
            elif name not in on_disk:
                self.exclude(item, "image file is missing", where)
            else:
                findings = _findings(name, boxes[name], f"{path}: image {entry['id']}")
                yield Record(
                    image=on_disk[name],
                    image_id=item,
                    split=split,
                    findings=findings,
                    regions=tuple(dict.fromkeys(boxes[name])),
                    where=where,
                )

    def _pictures(self) -> Iterator[tuple[str, Path]]:
        return pictures(self, self.require(IMAGES))

    def _lists(self) -> list[tuple[Path, Split | None]]:
        folder = self.root / ANNOTATIONS
        found = [(folder / name, split) for name, split in LISTS.items() if (folder / name).exists()]
        if not found and (folder / BOTH).exists():
            self.note("only the joint list is here: no split")
            return [(folder / BOTH, None)]
        if not found:
            self.require(f"{ANNOTATIONS}/{next(iter(LISTS))}")
        return found


def _read_list(reader: Reader, path: Path) -> Iterator[tuple[str, dict[str, Any], list[Region]]]:
    """Yield (file name below `imgs`, entry, boxes) of each image of a COCO file."""
    data = read_json(path)
    kinds = {}
    for where, category in _entries(path, data, "categories"):
        kinds[_value(category, "id", int, where)] = kind = _value(category, "name", str, where)
        if kind not in CATEGORIES:
            raise TableError(f"the category is {kind!r}", where=where, fix=nearest(kind, CATEGORIES))
    images = {}
    for where, image in _entries(path, data, "images"):
        number = _value(image, "id", int, where)
        if number in images:
            raise TableError(f"the image id {number} occurs twice", where=where)
        images[number] = (where, image)
    boxes: dict[int, list[Region]] = defaultdict(list)
    for where, annotation in _entries(path, data, "annotations"):
        number = _value(annotation, "image_id", int, where)
        kind = kinds.get(_value(annotation, "category_id", int, where), "")
        if not kind or number not in images:
            raise TableError("the category or image of the box is not defined", where=where)
        box = _value(annotation, "bbox", list, where)
        sides = [side for side in box if type(side) in (int, float) and math.isfinite(side)]
        if len(box) != 4 or len(sides) != 4:
            raise TableError(f"the box is {box!r:.80}", where=where, fix="expected [x, y, width, height]")
        if min(sides[2:]) <= 0:
            reader.note("box without extent")
            continue
        image_where, image = images[number]
        frame = (_value(image, "width", int, image_where), _value(image, "height", int, image_where))
        if min(frame) <= 0:
            raise TableError(f"the image is {frame[0]} by {frame[1]} pixels large", where=image_where)
        x, y, width, height = map(float, sides)
        boxes[number].append(Region(kind, "box", box=(x, y, width, height), frame=frame))
    for number, (where, image) in images.items():
        yield _value(image, "file_name", str, where), image, boxes[number]


def _findings(name: str, regions: list[Region], where: str) -> tuple[Finding, ...]:
    folder = name.split("/")[0]
    if folder not in _STATES:
        raise TableError(f"the image {name!r} is in none of the folders {', '.join(_STATES)}", where=where)
    if regions and folder != TB:
        raise TableError(f"the image {name!r} has a box of {regions[0].finding}", where=where)
    kinds = dict.fromkeys(region.finding for region in regions)
    states = (*_STATES[folder], *((kind, LabelState.PRESENT) for kind in kinds))
    return tuple(Finding(raw, state) for raw, state in states)


def _entries(path: Path, data: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise TableError(f"{key!r} holds no list", where=path, fix="expected COCO's layout of boxes")
    for number, entry in enumerate(entries):
        where = f"{path}: {key}[{number}]"
        if not isinstance(entry, dict):
            raise TableError("is no entry of COCO's layout", where=where)
        yield where, entry


def _value(entry: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = entry.get(key)
    if type(value) is not kind:
        raise TableError(f"{key!r} is {value!r:.80}", where=where, fix=f"expected a value of type {kind.__name__}")
    return value
