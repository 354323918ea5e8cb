"""Bone fractures: radiographs of limbs with boxes in YOLO's text files, as Roboflow exports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.readers.folders import is_file, pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split

SPLITS: dict[str, Split] = {"test": "test", "train": "train", "valid": "val"}
CLASSES = "data.yaml"
FRAME = (1, 1)  # YOLO's numbers are fractions of the picture
_ROUNDING = 1e-6
# The C parser is six times as fast, and present wherever PyYAML was built with it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@register("reader", "bone-fracture-yolo")
class BoneFractureYolo(Reader):
    """Reader of "Science Research 2022: Bone Fracture Detection".

    A line of five numbers is a box (class, centre, size); a longer one, which the same export writes for outlines,
    is the corners of a polygon. The classes are read from `data.yaml`. An empty file says that nothing was drawn:
    the export turns and shifts pictures and may have cut a fracture off, so no negative is read from it.

    The export holds several altered copies of each source picture; the part of the name before `.rf.` is the source
    and stands in for the patient. A few sources occur in two of the official splits.
    """

    card: ClassVar[Card] = Card(
        title="Science Research 2022: Bone Fracture Detection (Roboflow export)",
        licence="CC BY 4.0",
        citation="Science Research, Bone Fracture Detection, Roboflow Universe 2022, version 7",
        images=None,
        access="open",
        kinds=("class", "segment"),
        how_to_get="https://universe.roboflow.com/science-research/science-research-2022:-bone-fracture-detection: "
        "version 7, format YOLO v5 or later",
        layout="data.yaml\n{train,valid,test}/images/<name>.rf.<hash>.jpg\n{train,valid,test}/labels/<name>.rf.<hash>.txt",
        overlaps=("its own splits: a dozen source pictures occur in more than one",),
        excluded="images without a label file",
        checked_on="images",
        checked_against="879 images with 1,140 boxes; outlines on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image with a label file, by path."""
        classes = self._classes()
        folders = [self.root / name for name in sorted(SPLITS) if (self.root / name / "images").is_dir()]
        if not folders:
            self.require("train/images")
        for folder in folders:
            labels = folder / "labels"
            if not labels.is_dir():
                raise LayoutError(f"'{folder.name}/labels' is missing in this folder", where=self.root)
            unused = {path.name for path in labels.iterdir() if path.suffix == ".txt"}
            for relative, path in pictures(self, folder / "images"):
                label = labels / f"{path.stem}.txt"
                unused.discard(label.name)
                if is_file(label):
                    yield self._record(relative, path, label, classes, SPLITS[folder.name])
                else:
                    self.exclude(relative, "no label file")
            if unused:
                self.note("label file without its image", len(unused))

    def _classes(self) -> list[str]:
        path = self.require(CLASSES)
        try:
            data = yaml.load(path.read_text(encoding="utf-8-sig"), _LOADER)
        except (OSError, ValueError, RecursionError) as error:
            raise TableError(f"cannot be read as text: {error}", where=path) from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{path}:{mark.line + 1}" if mark is not None else path
            raise TableError(f"is not valid YAML: {getattr(error, 'problem', error)}", where=where) from None
        names = data.get("names") if isinstance(data, dict) else None
        if isinstance(names, dict):  # later exports number the names
            names = [names.get(number) for number in range(len(names))]
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
            raise TableError("holds no 'names' of the classes", where=path, fix="expected names: [first, second, …]")
        return [name.strip() for name in names]

    def _record(self, relative: str, path: Path, label: Path, classes: list[str], split: Split) -> Record:
        regions = []
        named: dict[str, None] = {}
        for number, line in enumerate(_lines(label), start=1):
            if cells := line.split():
                name, region = self._region(cells, classes, f"{label}:{number}")
                named[name] = None
                regions += [region] if region else []
        if not named:
            self.note("image in which nothing was drawn")
        return Record(
            image=path,
            image_id=relative,
            patient=path.name.split(".rf.")[0] or None,
            split=split,
            findings=tuple(Finding(name, LabelState.PRESENT) for name in named),
            regions=tuple(dict.fromkeys(regions)),
            where=f"{label.name}:1",
        )

    def _region(self, cells: list[str], classes: list[str], where: str) -> tuple[str, Region | None]:
        if len(cells) != 5 and (len(cells) < 7 or len(cells) % 2 == 0):
            fix = "expected a class and either four numbers or the corners of an outline"
            raise TableError(f"has {len(cells)} numbers", where=where, fix=fix)
        if not cells[0].isascii() or not cells[0].isdecimal() or int(cells[0][:9]) >= len(classes):
            raise TableError(f"the class is {cells[0]!r}", where=where, fix=f"{CLASSES} has {len(classes)} classes")
        name = classes[int(cells[0])]
        numbers = [_fraction(cell, where) for cell in cells[1:]]
        if len(numbers) == 4:
            x, y, width, height = numbers
            if width > 0 and height > 0:
                return name, Region(name, "box", box=(x - width / 2, y - height / 2, width, height), frame=FRAME)
        else:
            points = tuple(zip(numbers[::2], numbers[1::2], strict=True))
            if len(set(points)) >= 3:
                return name, Region(name, "polygon", points=points, frame=FRAME)
        self.note("region without extent")
        return name, None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"cannot be read as text: {error}", where=path) from None


def _fraction(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not -_ROUNDING <= value <= 1 + _ROUNDING:
        raise TableError(f"{cell!r} stands where a fraction of the picture belongs", where=where)
    return min(max(value, 0.0), 1.0)
