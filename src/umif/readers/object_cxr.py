"""object-CXR (JF Healthcare): foreign objects in chest radiographs, drawn as boxes, ellipses and outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.readers.folders import pictures
from umif.readers.repeated_rows import unique_rows
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.tables import Row

FOREIGN_OBJECT = "foreign object"
PARTS: dict[str, Split] = {"train": "train", "dev": "val"}
TEST = "test"
# The web page's example calls the first column differently than the files do.
_NAMES = ("image_name", "image_path")
_BOX, _ELLIPSE, _POLYGON = "0", "1", "2"
_FORMAT = "expected '0 x1 y1 x2 y2' (box), '1 x1 y1 x2 y2' (ellipse) or '2 x1 y1 x2 y2 x3 y3 …', joined by ;"


@register("reader", "object-cxr")
class ObjectCxr(Reader):
    """Reader of object-CXR.

    An image without annotation has no foreign object, which is a negative. Tubes, pacemakers and other devices were
    left out on purpose: the label says nothing of them. Patients are not known. The part `dev` is `val`.
    """

    card: ClassVar[Card] = Card(
        title="object-CXR (JF Healthcare, MIDL 2020)",
        licence="CC BY-NC 4.0",
        citation="JF Healthcare, object-CXR: Automatic detection of foreign objects on chest X-rays, MIDL 2020",
        images=9_000,
        access="open",
        kinds=("class", "segment"),
        how_to_get="https://academictorrents.com (object-CXR): train.csv, dev.csv, train.zip and dev.zip; unzip both",
        layout=(
            "train.csv, dev.csv\n"
            "train/00001.jpg …                   (or train/train/…)\n"
            "dev/08001.jpg …                     (or dev/dev/…)"
        ),
        excluded="images without a row; rows whose file is missing; unlabelled images of a test part",
        checked_on="layout",
        checked_against="the layout's description; a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the tables that is on disk, by part and name."""
        for part, split in PARTS.items():
            table = self.require(f"{part}.csv")
            on_disk = self._pictures(part)
            found: dict[str, Record] = {}
            for name, row in unique_rows(self, read_table(table, ("annotation",), _NAMES), _name):
                item = f"{part}/{name.rpartition('/')[2]}"
                regions, state = self._objects(row)
                if item in found:
                    raise row.error(f"{item!r} has another row, under another path")
                if item in on_disk:
                    found[item] = _record(item, on_disk.pop(item), row, split, regions, state)
                else:
                    self.exclude(item, "image file is missing", row.where)
            for item in sorted(found):
                yield found[item]
            for path in on_disk.values():
                self.exclude(path.relative_to(self.root).as_posix(), f"no row in {table.name}")
        if (self.root / TEST).is_dir():
            for relative, _ in pictures(self, self.root / TEST):
                self.exclude(relative, "test image of the challenge, unlabelled")

    def _pictures(self, part: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for relative, path in pictures(self, self.require(part)):
            if found.setdefault(f"{part}/{path.name}", path) is not path:
                self.exclude(relative, "the same file name is in another folder")
        return found

    def _objects(self, row: Row) -> tuple[tuple[Region, ...], LabelState]:
        """Return the objects of a row, one that is drawn twice once, and whether there is any."""
        objects = [_region(row, text.split()) for text in row["annotation"].split(";") if text.strip()]
        drawn = [region for region in objects if region is not None]
        unique = tuple(dict.fromkeys(drawn))
        if len(drawn) < len(objects):
            self.note("object without extent", len(objects) - len(drawn))
        if len(unique) < len(drawn):
            self.note("repeated object, equal", len(drawn) - len(unique))
        return unique, LabelState.PRESENT if objects else LabelState.ABSENT


def _region(row: Row, parts: list[str]) -> Region | None:
    """Return an object as it is drawn; corners may lie beyond the picture's edge. `None` for one without extent."""
    shape, numbers = parts[0], [_number(row, part) for part in parts[1:]]
    corners = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    enough = len(corners) >= 3 if shape == _POLYGON else len(corners) == 2
    if shape not in (_BOX, _ELLIPSE, _POLYGON) or len(numbers) % 2 or not enough:
        raise row.error(f"an object is {' '.join(parts)!r:.80}", fix=_FORMAT)
    (left, right), (top, bottom) = ((min(values), max(values)) for values in zip(*corners, strict=True))
    if left == right or top == bottom:
        return None
    if shape == _POLYGON:
        return Region(FOREIGN_OBJECT, "polygon", points=corners)
    box = (left, top, right - left, bottom - top)
    return Region(FOREIGN_OBJECT, "box" if shape == _BOX else "ellipse", box=box)


def _name(row: Row) -> str:
    name = row.get("image_name") or row.get("image_path")
    if not name:
        raise row.error("the image's name is blank", fix=f"expected a column {_NAMES[0]!r}")
    return name


def _number(row: Row, text: str) -> float:
    # `float` also reads nan, 1_000 and digits of other scripts.
    digits = text.removeprefix("-").replace(".", "", 1)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise row.error(f"an object has the coordinate {text!r:.40}", fix=_FORMAT)
    return float(text)


def _record(item: str, path: Path, row: Row, split: Split, regions: tuple[Region, ...], state: LabelState) -> Record:
    return Record(
        image=path,
        image_id=item,
        split=split,
        findings=(Finding(FOREIGN_OBJECT, state),),
        regions=regions,
        where=row.where,
    )
