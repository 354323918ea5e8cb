"""CheXpert v1.0 and v1.0-small: 14 observations per image, mined from reports that are not released with it."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import LayoutError
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.folders import pictures, relative_name
from umif.readers.patients import parse_age, parse_sex
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Literal

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
_PATH = re.compile(r"(patient\d{5,6})/(study\d{1,3})/view\d{1,2}_(frontal|lateral)\.jpg")
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


def parse_path(path: str) -> tuple[str, str, Literal["frontal", "lateral"]] | None:
    """Return (patient, study, side) of `…/patient00001/study1/view1_frontal.jpg`; `None` if it is no such path."""
    match = _PATH.fullmatch("/".join(path.split("/")[-3:]))
    return (match[1], f"{match[1]}/{match[2]}", "frontal" if match[3] == "frontal" else "lateral") if match else None


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
        checked_against="the tables of 300 train, 234 valid and 150 test images; 2 images of the valid part",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the tables that is on disk, by name."""
        tables = [(path, *TABLES[name]) for name in TABLES if (path := self._table(name)) is not None]
        if not tables:
            self.require("train.csv")
        on_disk = self._pictures()
        found: dict[str, Record] = {}
        for path, part, split in tables:
            for item, row in self._rows(path, part):
                picture = on_disk.get(item) or on_disk.get(item.partition("/")[2])
                if picture is None:
                    self.exclude(item, "image file is missing", row.where)
                else:
                    found[item] = self._record(item, picture, row, split)
        used = {record.image for record in found.values()}
        for item in sorted(found):
            yield found[item]
        for picture in sorted(set(on_disk.values()) - used):
            self.exclude(picture.relative_to(self.root).as_posix(), "no row in the tables")

    def _table(self, name: str) -> Path | None:
        batches = sorted(p for p in self.root.iterdir() if p.is_dir() and p.name.startswith(_BATCH))
        for folder in (self.root, *batches):
            if (folder / name).exists():
                return folder / name
        part, _ = TABLES[name]
        if part != "test" and (self.root / part).is_dir():
            self.require(name)
        return None

    def _pictures(self) -> dict[str, Path]:
        parts = [part for part, _ in TABLES.values()]
        folders = [p for p in self.root.iterdir() if p.is_dir() and (p.name in parts or p.name.startswith(_BATCH))]
        if not folders:
            raise LayoutError(
                "no folder of pictures here", where=self.root, fix=f"expected layout:\n{self.card.layout}"
            )
        found: dict[str, Path] = {}
        for folder in sorted(folders, key=lambda path: (path.name not in parts, path)):
            for relative, path in pictures(self, folder):
                names = relative.split("/")
                # A batch may hold the part's folder or the patients' themselves.
                key = "/".join(names[-4:] if names[-4:-3] and names[-4] in parts else names[-3:])
                if parse_path(relative) is None:
                    self.exclude(relative, "file name is not patient/study/view")
                elif found.setdefault(key, path) is not path:
                    self.exclude(relative, "the same image is in another folder")
        return found

    def _rows(self, table: Path, part: str) -> Iterator[tuple[str, Row]]:
        required = ("Path", *FINDINGS) if part == "test" else ("Path", *_VIEW_COLUMNS, *FINDINGS)
        seen: dict[str, tuple[int, int]] = {}
        for row in read_table(table, required, _VIEW_COLUMNS if part == "test" else ()):
            name = relative_name(row["Path"])
            if name is None:
                self.exclude(f"{row.where} {row['Path']!a}", "path leaves the folder", row.where)
                continue
            item = "/".join(name.split("/")[-4:])
            if not item.startswith(f"{part}/") or parse_path(item) is None:
                fix = f"expected CheXpert-v1.0/{part}/patient…/study…/view…_frontal.jpg"
                raise row.error(f"the path is {row['Path']!r}", fix=fix)
            cells = hash(tuple(row.cells.values()))
            line, known = seen.setdefault(item, (row.line, cells))
            if known != cells:
                raise row.error(f"{item!r} has another row with other values, at line {line}")
            if line == row.line:
                yield item, row
            else:
                self.note("repeated row, equal")

    def _record(self, item: str, picture: Path, row: Row, split: Split) -> Record:
        patient, study, side = parse_path(item) or ("", "", "")
        return Record(
            image=picture,
            image_id=item,
            patient=patient,
            patient_namespace=NAMESPACE,
            study=study,
            view=row.get("AP/PA") or row.get("Frontal/Lateral") or side.capitalize(),
            sex=parse_sex(self, row.get("Sex")),
            age_years=parse_adult_age(self, row.get("Age")),
            split=split,
            findings=parse_states(row),
            where=row.where,
        )
