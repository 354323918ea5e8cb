"""Any data set in COCO's layout: JSON files of boxes, polygons and run lengths beside a folder of pictures."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.coco_regions import entries, get, read_regions, whole
from umif.readers.folders import pictures, relative_name
from umif.readers.patients import parse_age, parse_sex
from umif.readers.picture_index import IMAGE_FOLDERS, PictureIndex
from umif.readers.table_columns import SPLITS, usual
from umif.readers.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Region, Split

KEYS = ("images", "annotations", "categories")


@dataclass(slots=True)
class _Picture:
    """What all files say of one picture."""

    image: dict[str, Any]
    where: str
    split: Split | None
    regions: dict[Region, None] = field(default_factory=dict)
    labels: dict[str, None] = field(default_factory=dict)


@register("reader", "coco")
class Coco(Reader):
    """Reader of object annotations in COCO's JSON.

    A category that is drawn in a picture is a present finding; what is not drawn is not stated, so no category is
    absent. An outline (polygons or run lengths) is taken before the box around it. The split is the word `train`,
    `val` or `test` in the name of the JSON file or of its folder. COCO knows no patients; an image's own keys
    (`patient_id`, `study_id`, `view`, `sex`, `age`) are read where they are there.
    """

    card: ClassVar[Card] = Card(
        title="Your own data, annotated in COCO's layout",
        licence="that of your data",
        citation="that of your data; the layout: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
        images=None,
        kinds=("class", "segment"),
        how_to_get="your own: most annotation tools export COCO's JSON",
        layout=(
            "annotations/*.json          (or *.json, or {train,val,test}/*.json beside its pictures)\n"
            "images/**/*.png             (or any folder here that the JSON's file_name, or its end, leads to)"
        ),
        overlaps=("without patient_id of its images each picture counts as a patient of its own",),
        excluded="pictures that no file lists; listed pictures that are missing or lie outside",
        checked_on="images",
        checked_against="generated folders; TBX11K's boxes (3 images) and the lung boxes of covid-chestxray-dataset",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per listed picture that is on disk, by path."""
        files = [(path, data) for path in self._json_files() if (data := self._coco(path)) is not None]
        if not files:
            raise LayoutError(
                f"no JSON file here holds {', '.join(KEYS)}",
                where=self.root,
                fix=f"expected layout:\n{self.card.layout}",
            )
        on_disk = dict(pictures(self, self.root))
        index = PictureIndex(on_disk)
        found: dict[str, _Picture] = {}
        missing: dict[str, str] = {}
        for path, data in files:
            self._take(path, data, index, found, missing)
        for item, where in missing.items():
            self.exclude(item, "image file is missing", where)
        if not found and missing:
            item, where = next(iter(missing.items()))
            raise LayoutError(
                f"no picture that the files list is here; the first is {item!r}",
                where=f"{self.root}: {where}",
                fix="give the folder that holds the JSON files and the pictures",
            )
        self._note_patients(found)
        for item in sorted(on_disk):
            if item in found:
                yield self._record(item, on_disk[item], found[item])
            else:
                self.exclude(item, "no JSON file lists it")

    def _json_files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.json") if not path.name.startswith(".") and path.is_file())

    def _coco(self, path: Path) -> dict[str, Any] | None:
        data = read_json(path)
        if isinstance(data, dict) and all(key in data for key in KEYS):
            return data
        if isinstance(data, dict) and "images" in data and any(key in data for key in KEYS[1:]):
            lacking = next(key for key in KEYS if key not in data)
            raise TableError(f"has no {lacking!r}", where=path, fix=f"COCO's files hold {', '.join(KEYS)}")
        self.note("JSON file that is not COCO's")
        return None

    def _take(
        self, path: Path, data: dict[str, Any], index: PictureIndex, found: dict[str, _Picture], missing: dict[str, str]
    ) -> None:
        """Add what one file says to `found`, and the pictures that it lists and that are not here to `missing`."""
        place = path.relative_to(self.root).as_posix()
        split = split_of(place)
        categories = _categories(path, data)
        images: dict[int, tuple[dict[str, Any], str | None]] = {}
        for number, image in enumerate(entries(path, data, "images")):
            where = f"{path}: images[{number}]"
            key = whole(image, "id", where)
            if key in images:
                raise TableError(f"the image id {key} occurs twice", where=where)
            item = self._picture(path, where, image, index, split, missing)
            images[key] = (image, item)
            if item is not None:
                self._list(found, item, image, f"{place}: images[{number}]", split)
        annotations: dict[int, list[tuple[str, Any]]] = defaultdict(list)
        for number, annotation in enumerate(entries(path, data, "annotations")):
            where = f"{path}: annotations[{number}]"
            key = whole(annotation, "image_id", where)
            if key not in images:
                raise TableError(f"the image_id {key} is none of the images", where=where)
            annotations[key].append((where, annotation))
        for key, listed in annotations.items():
            image, item = images[key]
            for where, annotation in listed:
                category = whole(annotation, "category_id", where)
                if category not in categories:
                    known = ", ".join(map(str, sorted(categories)[:20]))
                    raise TableError(f"the category_id {category} is not defined", where=where, fix=f"known: {known}")
                regions = read_regions(self, annotation, categories[category], image, where)
                if item is None:
                    self.note("annotation of a picture that is not read")
                else:
                    found[item].regions.update(dict.fromkeys(regions))
                    found[item].labels[categories[category]] = None

    def _picture(
        self, path: Path, where: str, image: Any, index: PictureIndex, split: Split | None, missing: dict[str, str]
    ) -> str | None:
        """Return the picture that an entry means, as its path within the root."""
        text = get(image, "file_name", where)
        if not isinstance(text, str) or not text.strip():
            raise TableError(f"the file_name is {text!r}", where=where)
        name = relative_name(text.strip())
        place = f"{path.relative_to(self.root).as_posix()}: {where.rpartition(' ')[2]}"
        if name is None:
            self.exclude(f"{place} {text!a}", "path leaves the folder", place)
            return None
        beside = path.parent.relative_to(self.root).as_posix()
        folders = [beside, ".", *(f"{base}/{one}" for base in (".", beside) for one in IMAGE_FOLDERS)]
        found = index.find(name, [os.path.normpath(f"{folder}/{name}") for folder in folders])
        if len(found) > 1 and split is not None:  # such as train2017/1.jpg beside val2017/1.jpg
            found = tuple(one for one in found if split_of(one) == split) or found
        if len(found) > 1:
            raise TableError(
                f"the file_name {text!r} may be {found[0]!r} or {found[1]!r}",
                where=where,
                fix="write more of the path into file_name",
            )
        if found:
            return found[0]
        if name in missing:
            self.note("missing picture that is listed again")
        missing.setdefault(name, place)
        return None

    def _list(
        self, found: dict[str, _Picture], item: str, image: dict[str, Any], where: str, split: Split | None
    ) -> None:
        known = found.get(item)
        if known is None:
            found[item] = _Picture(image, where, split)
            return
        self.note("picture that is listed again: its annotations are joined")
        if split is not None and known.split not in (None, split):
            raise TableError(
                f"{item!r} is in {split} here and in {known.split} by {known.where}",
                where=f"{self.root}/{where}",
                fix="keep each picture in the files of one split",
            )
        known.split = known.split or split

    def _note_patients(self, found: dict[str, _Picture]) -> None:
        count = sum(usual("patient", list(picture.image)) is None for picture in found.values())
        if count:
            self.note("no patient_id: the picture counts as a patient of its own", count)

    def _record(self, item: str, path: Path, picture: _Picture) -> Record:
        def text(kind: str) -> str:
            key = usual(kind, [name for name in picture.image if name not in ("id", "file_name")])
            value = picture.image[key] if key is not None else None
            return "" if value is None or isinstance(value, dict | list) else str(value).strip()

        return Record(
            image=path,
            image_id=item,
            patient=text("patient") or None,
            study=text("study") or None,
            view=text("view") or None,
            sex=parse_sex(self, text("sex")),
            age_years=parse_age(self, text("age")),
            split=picture.split,
            findings=tuple(Finding(name, LabelState.PRESENT) for name in picture.labels),
            regions=tuple(picture.regions),
            where=picture.where,
        )


def split_of(path: str) -> Split | None:
    """Return the split that a path names, its file first: `instances_train2017.json`, `valid/_annotations.coco.json`.

    `trainval`, or several splits in one name, state none.
    """
    for part in reversed(path.split("/")):
        words = [word.rstrip("0123456789") for word in re.split(r"[\W_]+", part.casefold())]
        splits = {SPLITS[word] for word in words if word in SPLITS}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None


def _categories(path: Path, data: dict[str, Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for number, category in enumerate(entries(path, data, "categories")):
        where = f"{path}: categories[{number}]"
        key, name = whole(category, "id", where), get(category, "name", where)
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            raise TableError(f"the category's name is {name!r}", where=where)
        if categories.setdefault(key, name.strip()) != name.strip():
            raise TableError(f"the category id {key} has two names", where=where)
    return categories


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
