"""CheXlocalize: outlines of ten findings on CheXpert's validation and test images, drawn by radiologists."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.readers.chexpert import FINDINGS, NAMESPACE, parse_adult_age, parse_states
from umif.readers.coco_regions import decode_counts
from umif.readers.folders import pictures
from umif.readers.patients import parse_sex
from umif.readers.tables import read_json, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.tables import Row

# The outlines name one finding otherwise than CheXpert's tables do.
PATHOLOGIES = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Airspace Opacity", "Edema", "Consolidation",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Support Devices",
)  # fmt: skip
TABLES: dict[str, Split] = {"val_labels.csv": "val", "valid.csv": "val", "test_labels.csv": "test"}
POLYGONS, RUNS, SIZE = "gt_annotations", "gt_segmentations", "img_size"
_PARTS: tuple[Split, ...] = ("val", "test")
_VIEW_COLUMNS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_KEY = re.compile(r"(patient\d{5,6})_(study\d{1,3})_view\d{1,2}_(frontal|lateral)")
_PICTURE = re.compile(r"(?:.*/)?(patient\d{5,6})/(study\d{1,3})/(view\d{1,2}_(?:frontal|lateral))\.\w+")
_LARGEST = 100_000  # pixels along a side


class _Drawn(NamedTuple):
    regions: tuple[Region, ...]
    split: Split
    where: str


@register("reader", "chexlocalize")
class Chexlocalize(Reader):
    """Reader of CheXlocalize's ground truth; the human benchmark (`hb_…`) and saliency maps are no labels.

    Regions are the polygons, in pixels of the original image; where only the run lengths are here, these. Labels are
    those of CheXpert's tables. An image without an outline has none to show, which its labels say; without a row of
    labels it is left out.
    """

    card: ClassVar[Card] = Card(
        title="CheXlocalize",
        licence="Stanford University Dataset Research Use Agreement: no commercial use, no passing on",
        citation="Saporta et al., Benchmarking saliency methods for chest X-ray interpretation, Nature Machine "
        "Intelligence 2022",
        images=902,
        access="registration",
        kinds=("class", "segment"),
        how_to_get="https://stanfordaimi.azurewebsites.net (Shared Datasets, CheXlocalize)",
        layout=(
            "CheXlocalize/gt_annotations_val.json, …_test.json      polygons   (any folder)\n"
            "CheXlocalize/gt_segmentations_val.json, …_test.json    run lengths, where the polygons are missing\n"
            "CheXpert/val_labels.csv, CheXpert/test_labels.csv      (or valid.csv; any folder)\n"
            "CheXpert/val/patient64541/study1/view1_frontal.jpg     (any folder)"
        ),
        overlaps=("chexpert: its images are the valid and test parts (same patient keys)",),
        excluded="images with neither outline nor row of labels; outlines and rows whose file is missing",
        checked_on="images",
        checked_against="the sample of 2 images, its polygons against its run lengths; the rest on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image with an outline or a row of labels, by its key."""
        drawn, rows = self._drawn(), self._rows()
        on_disk: dict[str, tuple[str, Path]] = {}
        for relative, path in pictures(self, self.root):
            match = _PICTURE.fullmatch(relative)
            if match is None:
                self.exclude(relative, "file name is not patient/study/view")
                continue
            key = f"{match[1]}_{match[2]}_{match[3]}"
            if on_disk.setdefault(key, (relative, path))[1] is not path:
                self.exclude(relative, "another copy of the same image is used")
        for key in sorted(drawn.keys() | rows.keys() | on_disk.keys()):
            where = rows[key][0].where if key in rows else drawn[key].where if key in drawn else None
            if key not in on_disk:
                self.exclude(key, "image file is missing", where)
            elif where is None:
                self.exclude(on_disk[key][0], "neither outline nor row of labels")
            else:
                yield self._record(key, on_disk[key][1], drawn.get(key), rows.get(key))

    def _rows(self) -> dict[str, tuple[Row, Split]]:
        rows: dict[str, tuple[Row, Split]] = {}
        for path in sorted(self.root.rglob("*.csv")):
            if path.name not in TABLES:
                continue
            for row in read_table(path, ("Path", *FINDINGS), _VIEW_COLUMNS):
                match = _PICTURE.fullmatch(row["Path"])
                if match is None or ".." in row["Path"]:
                    raise row.error(
                        f"'Path' is {row['Path']!a:.120}", fix="expected …/patient…/study…/view…_frontal.jpg"
                    )
                known = rows.setdefault(f"{match[1]}_{match[2]}_{match[3]}", (row, TABLES[path.name]))[0]
                if parse_states(known) != parse_states(row):
                    raise row.error(f"{row['Path']!r} has another row with other labels, at {known.where}")
                if known is not row:
                    self.note("repeated row, equal")
        return rows

    def _drawn(self) -> dict[str, _Drawn]:
        drawn: dict[str, _Drawn] = {}
        for split in _PARTS:
            found = {name: sorted(self.root.rglob(f"{name}_{split}.json")) for name in (POLYGONS, RUNS)}
            path = next(iter(found[POLYGONS] or found[RUNS]), None)
            if path is None:
                continue
            data = read_json(path)
            if not isinstance(data, dict) or not all(isinstance(entry, dict) for entry in data.values()):
                raise TableError("holds no outlines by image", where=path, fix="expected CheXlocalize's ground truth")
            read = self._polygons if found[POLYGONS] else self._runs
            for key, entry in data.items():
                if _KEY.fullmatch(key) is None:
                    raise TableError(
                        f"the key is {key!a:.80}", where=path, fix="expected patient…_study…_view…_frontal"
                    )
                if key in drawn:
                    raise TableError(f"{key!r} is in both parts", where=path)
                drawn[key] = _Drawn(tuple(read(entry, f"{path}:{key}")), split, f"{path.name}:{key}")
        if not drawn:
            fix = f"expected layout:\n{self.card.layout}"
            raise LayoutError(f"{POLYGONS}_val.json is missing in this folder", where=self.root, fix=fix)
        return drawn

    def _polygons(self, entry: dict[str, Any], where: str) -> Iterator[Region]:
        frame = _frame(entry.get(SIZE), where)
        for name, outlines in entry.items():
            if name == SIZE:
                continue
            _check_name(name, where)
            if not isinstance(outlines, list):
                raise TableError(f"{name!r} holds no list of polygons", where=where)
            for outline in outlines:
                points = _points(outline, where)
                if len(set(points)) > 2:
                    yield Region(name, "polygon", points=points, frame=frame)
                else:
                    self.note("polygon of fewer than three corners")

    def _runs(self, entry: dict[str, Any], where: str) -> Iterator[Region]:
        for name, mask in entry.items():
            _check_name(name, where)
            if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
                raise TableError(f"{name!r} holds no run lengths", where=where, fix="expected {size, counts}")
            frame = _frame(mask.get("size"), where)
            runs = decode_counts(mask["counts"], where)
            if sum(runs) != frame[0] * frame[1] or min(runs) < 0:
                raise TableError(f"the run lengths of {name!r} add up to {sum(runs)}, not to {frame}", where=where)
            if any(runs[1::2]):  # all ten findings are listed; what is not there has an empty mask
                yield Region(name, "rle", runs=tuple(runs), frame=frame)

    def _record(self, key: str, path: Path, drawn: _Drawn | None, labelled: tuple[Row, Split] | None) -> Record:
        match = _KEY.fullmatch(key)
        assert match is not None
        row, split = labelled or (None, None)
        regions = drawn.regions if drawn else ()
        if row is not None:
            findings = parse_states(row)
        else:
            names = dict.fromkeys(region.finding for region in regions)
            findings = tuple(Finding(name, LabelState.PRESENT) for name in names)
        return Record(
            image=path,
            image_id=key,
            patient=match[1],
            patient_namespace=NAMESPACE,
            study=f"{match[1]}/{match[2]}",
            view=(row and (row.get("AP/PA") or row.get("Frontal/Lateral"))) or match[3].capitalize(),
            sex=parse_sex(self, row.get("Sex")) if row else None,
            age_years=parse_adult_age(self, row.get("Age")) if row else None,
            split=split or (drawn.split if drawn else None),
            findings=findings,
            regions=regions,
            where=row.where if row else drawn.where if drawn else None,
        )


def _check_name(name: str, where: str) -> None:
    if name not in PATHOLOGIES:
        raise TableError(f"the finding is {name!a:.60}", where=where, fix=f"known: {', '.join(PATHOLOGIES)}")


def _frame(size: Any, where: str) -> tuple[int, int]:
    """Return (width, height) of [height, width]."""
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and 0 < side <= _LARGEST for side in size)
    ):
        raise TableError(f"the size is {size!r:.60}", where=where, fix="expected [height, width]")
    return size[1], size[0]


def _points(outline: Any, where: str) -> tuple[tuple[float, float], ...]:
    points = []
    for point in outline if isinstance(outline, list) else [outline]:
        if not isinstance(point, list) or len(point) != 2 or not all(_is_place(value) for value in point):
            raise TableError(f"a corner is {point!r:.60}", where=where, fix="expected [x, y]")
        points.append((float(point[0]), float(point[1])))
    return tuple(points)


def _is_place(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= _LARGEST
