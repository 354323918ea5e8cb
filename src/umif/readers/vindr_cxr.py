"""VinDr-CXR, as PhysioNet gives it or as the Kaggle challenge of VinBigData: findings and boxes of several readers."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.readers.folders import pictures
from umif.readers.patients import parse_age, parse_sex
from umif.readers.rsna_pneumonia import read_dicom_header
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.tables import Row

NAMESPACE = "vindr-cxr"
VIEW = "PA"  # of all images
NO_FINDING = "No finding"
# The numbers of the Kaggle copy.
KAGGLE = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis", NO_FINDING,
)  # fmt: skip
# Each with its other spellings. The first 22 are drawn, the others are of the whole image.
LOCAL = (
    ("Aortic enlargement",), ("Atelectasis",), ("Calcification",), ("Cardiomegaly",), ("Clavicle fracture",),
    ("Consolidation",), ("Edema",), ("Emphysema",), ("Enlarged PA",), ("ILD", "Interstitial lung disease"),
    ("Infiltration",), ("Lung Opacity",), ("Lung cavity",), ("Lung cyst",), ("Mediastinal shift",), ("Nodule/Mass",),
    ("Pleural effusion",), ("Pleural thickening",), ("Pneumothorax",), ("Pulmonary fibrosis",), ("Rib fracture",),
    ("Other lesion",),
)  # fmt: skip
GLOBAL = (
    ("COPD",), ("Lung tumor",), ("Pneumonia",), ("Tuberculosis",), ("Other diseases", "Other disease"), (NO_FINDING,),
)  # fmt: skip
_DRAWN = frozenset(name for names in LOCAL for name in names)
_NOT_DRAWN = frozenset(name for names in GLOBAL for name in names)
_BOX = ("x_min", "y_min", "x_max", "y_max")
_SUFFIXES = (".dicom", ".dcm")
_READERS = 3  # of a training image
_VALUES = {"0": False, "0.0": False, "1": True, "1.0": True}


@dataclass(slots=True)
class _Part:
    """What the tables say of a part: the names of its findings, and by image what each reader saw and drew."""

    split: Split
    names: tuple[str, ...] = ()
    seen: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(dict))
    boxes: dict[str, dict[Region, None]] = field(default_factory=lambda: defaultdict(dict))
    where: dict[str, str] = field(default_factory=dict)


@register("reader", "vindr-cxr")
class VindrCxr(Reader):
    """Reader of VinDr-CXR and of the VinBigData copy of its training images; which one it is, the tables tell.

    A training image was read by three radiologists. What more than half of them saw is present, what fewer saw is
    uncertain, what none saw is absent; a test image has one agreed reading. Boxes are given as each reader drew them,
    in the pixels of the DICOM file; equal ones once. Patients are not known: an image counts as one, by its id, so
    that both copies of it go to one split.
    """

    card: ClassVar[Card] = Card(
        title="VinDr-CXR (also as VinBigData Chest X-ray Abnormalities Detection)",
        licence="PhysioNet Credentialed Health Data License: no passing on; the Kaggle copy: competition rules",
        citation="Nguyen et al., VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations, "
        "Scientific Data 2022",
        images=18_000,
        access="credentialed",
        kinds=("class", "segment"),
        how_to_get="https://physionet.org/content/vindr-cxr (credentialed account), or "
        "https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection (accept the rules)",
        layout=(
            "annotations/annotations_train.csv, annotations/annotations_test.csv        (PhysioNet)\n"
            "annotations/image_labels_train.csv, annotations/image_labels_test.csv\n"
            "train/<image_id>.dicom, test/<image_id>.dicom\n"
            "or train.csv with train/<image_id>.dicom, test/<image_id>.dicom                 (Kaggle)"
        ),
        overlaps=("the Kaggle copy: the same images under the same ids",),
        excluded="images without a row; rows whose file is missing; the Kaggle copy's test images (unlabelled); "
        "copies that are no DICOM, as boxes are in the DICOM files' pixels",
        checked_on="tables",
        checked_against="400 rows of the Kaggle table; the rest on generated folders in both layouts",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per labelled image that is on disk, by part and id."""
        physionet = (self.root / "annotations").is_dir() or not (self.root / "train.csv").is_file()
        for folder in ("train", "test"):
            on_disk = self._pictures(folder)
            if not physionet and folder == "test":
                for relative, _ in on_disk.values():
                    self.exclude(relative, "test image of the challenge, unlabelled")
                continue
            part = self._physionet(folder) if physionet else self._kaggle()
            for image in sorted(part.where.keys() | on_disk.keys()):
                if image not in part.where:
                    self.exclude(on_disk[image][0], "no row in the tables")
                elif image not in on_disk:
                    self.exclude(image, "image file is missing", part.where[image])
                else:
                    yield self._record(image, on_disk[image][1], part)

    def _pictures(self, folder: str) -> dict[str, tuple[str, Path]]:
        found: dict[str, tuple[str, Path]] = {}
        native = _SUFFIXES[0]  # preferred to a copy of another name
        for relative, path in sorted(pictures(self, self.require(folder)), key=lambda p: p[1].suffix.lower() != native):
            if path.suffix.lower() not in _SUFFIXES:
                self.exclude(relative, "no DICOM file: boxes would not fit")
            elif found.setdefault(path.stem, (relative, path))[1] is not path:
                self.exclude(relative, "another copy of the same image is used")
        return found

    def _physionet(self, folder: str) -> _Part:
        part = _Part("train" if folder == "train" else "test")
        reader = ("rad_id",) if folder == "train" else ()
        path = self.require(f"annotations/image_labels_{folder}.csv")
        spellings = tuple(name for names in LOCAL + GLOBAL for name in names)
        for row in read_table(path, ("image_id", *reader), spellings):
            part.names = part.names or _columns(row)
            self._add(part, row, {name for name in part.names if _value(row, name)})
        for row in read_table(self.require(f"annotations/annotations_{folder}.csv"), ("image_id", "class_name", *_BOX)):
            if row["image_id"] not in part.where:
                raise row.error(f"the image {row['image_id']!r:.40} has no row in {path.name}")
            if self._draw(part, row) and not any(row["class_name"] in s for s in part.seen[row["image_id"]].values()):
                self.note("box of a finding that no label of its image names")
        return part

    def _kaggle(self) -> _Part:
        part = _Part("train", names=KAGGLE)
        for row in read_table(self.require("train.csv"), ("image_id", "class_name", "class_id", "rad_id", *_BOX)):
            name = row["class_name"]
            if row["class_id"].removesuffix(".0") != (str(KAGGLE.index(name)) if name in KAGGLE else None):
                fix = "expected 0 Aortic enlargement … 14 No finding"
                raise row.error(f"the class is {row['class_id']!r} {name!r}", fix=fix)
            self._draw(part, row)
            part.where.setdefault(_image(row), row.where)
            part.seen[row["image_id"]].setdefault(row["rad_id"], set()).add(name)
        return part

    def _add(self, part: _Part, row: Row, seen: set[str]) -> None:
        """Keep what one reader saw in an image."""
        image, reader = _image(row), row.get("rad_id")
        if part.seen[image].setdefault(reader, seen) is not seen:
            if part.seen[image][reader] != seen:
                raise row.error(f"{image!r} has another row of the reader {reader!r} with other values")
            self.note("repeated row, equal")
        part.where.setdefault(image, row.where)

    def _draw(self, part: _Part, row: Row) -> bool:
        """Keep the box of a row; return whether it has one."""
        name, cells = row["class_name"], [row[column] for column in _BOX]
        if name not in _DRAWN | _NOT_DRAWN:
            raise row.error(f"the class {name!r} is none of the 28")
        if name in _NOT_DRAWN:
            if any(cells):
                raise row.error(f"{name!r}, which is of the whole image, has a box")
            return False
        left, top, right, bottom = (row.number(column) for column in _BOX)
        if right <= left or bottom <= top:
            self.note("box without extent")
            return False
        boxes = part.boxes[row["image_id"]]
        region = Region(name, "box", box=(left, top, right - left, bottom - top))
        if region in boxes:
            self.note("box that is drawn twice, equal")
        boxes[region] = None
        return True

    def _record(self, image: str, path: Path, part: _Part) -> Record:
        seen = part.seen[image]
        if part.split == "train" and len(seen) != _READERS:
            self.note(f"image read by {len(seen)} instead of {_READERS}")
        if any(NO_FINDING in names and len(names) > 1 for names in seen.values()):
            self.note(f"{NO_FINDING!r} beside findings of the same reader")
        header = read_dicom_header(path, ("PatientSex", "PatientAge"))
        if header is None:
            self.note("DICOM header that cannot be read")
        header = header or {}
        return Record(
            image=path,
            image_id=image,
            patient=image,
            patient_namespace=NAMESPACE,
            view=VIEW,
            sex=parse_sex(self, header.get("PatientSex", "")),
            age_years=parse_age(self, header.get("PatientAge", "")),
            split=part.split,
            findings=_findings(part.names, seen),
            regions=tuple(part.boxes.get(image, ())),
            where=part.where[image],
        )


def _findings(names: tuple[str, ...], seen: dict[str, set[str]]) -> tuple[Finding, ...]:
    counts = Counter(name for given in seen.values() for name in given)
    states = {name: LabelState.UNCERTAIN if counts[name] else LabelState.ABSENT for name in names}
    states |= {name: LabelState.PRESENT for name in names if 2 * counts[name] > len(seen)}
    return tuple(Finding(name, states[name]) for name in names)


def _columns(row: Row) -> tuple[str, ...]:
    """Return the table's own spelling of its 28 columns.

    Raises:
        TableError: one is missing, or there in two spellings.
    """
    columns = []
    for spellings in LOCAL + GLOBAL:
        found = [name for name in spellings if name in row.cells]
        if len(found) != 1:
            what = f"the column {spellings[0]!r} is " + ("there twice" if found else "missing")
            raise TableError(what, where=f"{row.path}:1", fix=f"expected {' or '.join(map(repr, spellings))}")
        columns += found
    return tuple(columns)


def _value(row: Row, column: str) -> bool:
    if row[column] not in _VALUES:
        raise row.error(f"{column!r} is {row[column]!r:.40}", fix="expected 0 or 1")
    return _VALUES[row[column]]


def _image(row: Row) -> str:
    if not row["image_id"]:
        raise row.error("the image_id is blank")
    return row["image_id"]
