"""CheXpert v1.0 and v1.0-small: 14 observations per image, mined from reports that are not released with it."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from umif.config import register
from umif.errors import LayoutError
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.folders import pictures, relative_name
from umif.readers.patients import parse_age, parse_sex
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.tables import Row

NAMESPACE = "chexpert"
FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
# Labellers write floats; copies that went through an integer table lost the `.0`. Blank is not mentioned: no finding.
STATES = {
    "1.0": LabelState.PRESENT, "1": LabelState.PRESENT, "0.0": LabelState.ABSENT, "0": LabelState.ABSENT,
    "-1.0": LabelState.UNCERTAIN, "-1": LabelState.UNCERTAIN,
}  # fmt: skip
TABLES: dict[str, tuple[str, Split]] = {
    "train.csv": ("train", "train"),
    "valid.csv": ("valid", "val"),
    "test_labels.csv": ("test", "test"),
}
_VIEW_COLUMNS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
# `Path` begins with the release's name, in the package of the test labels with the part.
_PATH = re.compile(
    r"(?:(?!\.{1,2}/)[^/\\:\0]+/)?((train|valid|test)/(patient\d{5,6})/(study\d{1,3})/view\d{1,2}_(frontal|lateral)\.jpg)"
)
# On disk, a batch may hold the part's folder or the patients' themselves.
_PICTURE = re.compile(
    r"(?:.*?/)??(?:(train|valid|test)/)?(patient\d{5,6}/study\d{1,3}/view\d{1,2}_(?:frontal|lateral))\.\w+"
)
_BATCH = "CheXpert-v1.0"  # newer downloads come as `CheXpert-v1.0 batch 2 (train 1)` and so on


def parse_states(row: Row, columns: Sequence[str] = FINDINGS) -> tuple[Finding, ...]:
    """Return the findings that a row of 1.0, 0.0, -1.0 and blanks gives; a blank one is not given.

    Raises:
        TableError: a cell holds something else.
    """
    for column in columns:
        if row[column] and row[column] not in STATES:
            raise row.error(f"{column!r} is {row[column]!r}", fix="expected 1.0, 0.0, -1.0 or nothing")
    return _findings(tuple((column, row[column]) for column in columns if row[column]))


@cache  # a few thousand combinations in 600,000 rows: equal ones share their memory
def _findings(cells: tuple[tuple[str, str], ...]) -> tuple[Finding, ...]:
    return tuple(Finding(column, STATES[cell]) for column, cell in cells)


class ImagePath(NamedTuple):
    """What a path of the tables says: the image's id, its part, patient and study, and the side it was taken from."""

    item: str
    part: str
    patient: str
    study: str
    side: str


def parse_path(row: Row, column: str) -> ImagePath | None:
    """Return what a path `…/train/patient00001/study1/view1_frontal.jpg` says; `None` if it leaves the folder.

    Raises:
        TableError: it is no such path.
    """
    match = _PATH.fullmatch(row[column])
    if match is not None:
        return ImagePath(match[1], match[2], match[3], f"{match[3]}/{match[4]}", match[5])
    if relative_name(row[column]) is None:
        return None
    raise row.error(f"{column!r} is {row[column]!r}", fix="expected …/train/patient…/study…/view…_frontal.jpg")


class Pictures:
    """The pictures below a root by part, patient, study and view; each is asked for at most once a row."""

    def __init__(self, reader: Reader, folders: Iterable[Path]) -> None:
        self._reader = reader
        self._found: dict[str, Path] = {}
        self._used: set[str] = set()
        for folder in folders:
            for relative, path in pictures(reader, folder):
                match = _PICTURE.fullmatch(relative)
                if match is None:
                    reader.exclude(relative, "file name is not patient/study/view")
                elif self._found.setdefault(f"{match[1]}/{match[2]}" if match[1] else match[2], path) is not path:
                    reader.exclude(relative, "the same image is in another folder")

    def take(self, item: str) -> Path | None:
        """Return the picture of an image id, whatever its suffix; `None` if there is none."""
        key = item.rpartition(".")[0]
        key = key if key in self._found else key.partition("/")[2]
        self._used.add(key)
        return self._found.get(key)

    def exclude_rest(self, reason: str) -> None:
        """Exclude every picture that was not taken."""
        for key in sorted(self._found.keys() - self._used):
            self._reader.exclude(self._found[key].relative_to(self._reader.root).as_posix(), reason)


def parse_adult_age(reader: Reader, text: str) -> float | None:
    """Return the age in years. All patients are adults: the few zeros stand for an unknown age."""
    years = parse_age(reader, text)
    if years == 0:
        reader.note("age 0, which stands for unknown")
        return None
    return years


@register("reader", "chexpert")
class Chexpert(Reader):
    """Reader of CheXpert v1.0, in original size or small.

    The first folder of `Path` names the release, not a place on disk, and batches of newer downloads do not occur in
    it: below a batch, pictures are found by patient, study and view (patient numbers of the parts are disjoint). The
    official validation part is `val`; test labels are read where `test_labels.csv` (one row an image) is here.
    """

    card: ClassVar[Card] = Card(
        title="CheXpert v1.0",
        licence="Stanford University Dataset Research Use Agreement: no commercial use, no passing on",
        citation="Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert "
        "Comparison, AAAI 2019",
        images=224_316,
        access="registration",
        kinds=("class",),
        how_to_get="https://stanfordaimi.azurewebsites.net (Shared Datasets, CheXpert): accept the agreement, then "
        "download CheXpert-v1.0 or CheXpert-v1.0-small",
        layout=(
            "train.csv, valid.csv                                  (or in a folder `CheXpert-v1.0 batch …`)\n"
            "train/patient00001/study1/view1_frontal.jpg           (or in folders `CheXpert-v1.0 batch …`)\n"
            "valid/patient64541/study1/view1_frontal.jpg\n"
            "test_labels.csv, test/patient64741/…                  (optional: the test part, released later)"
        ),
        overlaps=(
            "chexpert-plus: the same images and patients, with reports",
            "CheXlocalize: its images are the valid and test parts",
            "CheXpert 5×200: taken from the train part",
            "the valid part is the test set of some published work",
        ),
        excluded="images without a row; rows whose file is missing; the tables of other labellers "
        "(train_cheXbert.csv, train_visualCheXbert.csv) are not read",
        checked_on="images",
        checked_against="the tables of 300 train, 234 valid and 150 test images; 2 images of the valid part",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the tables that is on disk, by name."""
        tables = [(path, *TABLES[name]) for name in TABLES if (path := self._table(name)) is not None]
        if not tables:
            self.require("train.csv")
        on_disk = Pictures(self, self._folders())
        found: dict[str, Record] = {}
        for table, part, split in tables:
            for named, row in self._rows(table, part):
                picture = on_disk.take(named.item)
                if picture is None:
                    self.exclude(named.item, "image file is missing", row.where)
                else:
                    found[named.item] = self._record(named, picture, row, split)
        for item in sorted(found):
            yield found[item]
        on_disk.exclude_rest("no row in the tables")

    def _table(self, name: str) -> Path | None:
        batches = sorted(p for p in self.root.iterdir() if p.is_dir() and p.name.startswith(_BATCH))
        for folder in (self.root, *batches):
            if (folder / name).exists():
                return folder / name
        part, _ = TABLES[name]
        if part != "test" and (self.root / part).is_dir():
            self.require(name)
        return None

    def _folders(self) -> list[Path]:
        parts = [part for part, _ in TABLES.values()]
        folders = [p for p in self.root.iterdir() if p.is_dir() and (p.name in parts or p.name.startswith(_BATCH))]
        if not folders:
            fix = f"expected layout:\n{self.card.layout}"
            raise LayoutError("no folder of pictures here", where=self.root, fix=fix)
        return sorted(folders, key=lambda path: (path.name not in parts, path))

    def _rows(self, table: Path, part: str) -> Iterator[tuple[ImagePath, Row]]:
        required = ("Path", *FINDINGS) if part == "test" else ("Path", *_VIEW_COLUMNS, *FINDINGS)
        seen: dict[str, tuple[int, int]] = {}
        for row in read_table(table, required, _VIEW_COLUMNS if part == "test" else ()):
            path = parse_path(row, "Path")
            if path is None:
                self.exclude(f"{row.where} {row['Path']!a}", "path leaves the folder", row.where)
                continue
            if path.part != part:
                raise row.error(f"the path is {row['Path']!r}", fix=f"expected CheXpert-v1.0/{part}/patient…")
            cells = hash(tuple(row.cells.values()))
            line, known = seen.setdefault(path.item, (row.line, cells))
            if known != cells:
                raise row.error(f"{path.item!r} has another row with other values, at line {line}")
            if line == row.line:
                yield path, row
            else:
                self.note("repeated row, equal")

    def _record(self, path: ImagePath, picture: Path, row: Row, split: Split) -> Record:
        return Record(
            image=picture,
            image_id=path.item,
            patient=path.patient,
            patient_namespace=NAMESPACE,
            study=path.study,
            view=row.get("AP/PA") or row.get("Frontal/Lateral") or path.side.capitalize(),
            sex=parse_sex(self, row.get("Sex")),
            age_years=parse_adult_age(self, row.get("Age")),
            split=split,
            findings=parse_states(row),
            where=row.where,
        )
