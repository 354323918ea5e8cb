"""RSNA Pneumonia Detection Challenge: NIH radiographs with boxes around lung opacities."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.readers.folders import pictures, relative_name
from umif.readers.nih_chestxray14 import NAMESPACE as NIH
from umif.readers.nih_chestxray14 import patient_key
from umif.readers.patients import parse_age, parse_sex
from umif.readers.tables import read_json, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.tables import Row

FRAME = (1024, 1024)  # of the boxes, whatever size a copy of the images has
LABELS = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
HEADERS = "kaggle_stage_2_train_images_dicom_headers.csv"
MATCH = "rsna_to_nih_match.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
TRAIN, TEST = "stage_2_train_images", "stage_2_test_images"
OPACITY, NORMAL, NOT_NORMAL = "Lung Opacity", "Normal", "No Lung Opacity / Not Normal"
_STATES = {
    OPACITY: ((OPACITY, LabelState.PRESENT),),
    # Says two things: no opacity, and yet something else is wrong.
    NOT_NORMAL: ((OPACITY, LabelState.ABSENT), (NORMAL, LabelState.ABSENT)),
    NORMAL: ((NORMAL, LabelState.PRESENT), (OPACITY, LabelState.ABSENT)),
}
_DEFLATED = "1.2.840.10008.1.2.1.99"


@register("reader", "rsna-pneumonia")
class RsnaPneumonia(Reader):
    """Reader of the RSNA Pneumonia Detection Challenge, stage 2.

    `patientId` is the id of an image; the true patient is NIH's and comes from the official mapping (JSON) or a
    table of matches, where one is here. Without either, each image counts as a patient of its own.

    The three classes become `Lung Opacity` and `Normal`, present or absent; `No Lung Opacity / Not Normal` is both of
    them absent. The challenge's own test images carry no labels and are left out, so no split is stated.
    """

    card: ClassVar[Card] = Card(
        title="RSNA Pneumonia Detection Challenge (stage 2)",
        licence="competition terms (non-commercial, academic) for the labels; NIH's terms for the images",
        citation="Shih et al., Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert "
        "Annotations of Possible Pneumonia, Radiology: Artificial Intelligence 2019",
        images=29_684,
        access="registration",
        kinds=("class", "segment"),
        how_to_get="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge (accept the rules); the mapping to "
        "NIH is offered at https://www.rsna.org/rsnai/ai-image-challenge/rsna-pneumonia-detection-challenge-2018",
        layout=(
            "stage_2_train_labels.csv\n"
            "stage_2_detailed_class_info.csv\n"
            "stage_2_train_images/<patientId>.dcm    (or stage_2_train_images_jpg/<patientId>.jpg)\n"
            "pneumonia-challenge-dataset-mappings_2018.json or rsna_to_nih_match.csv         (optional: NIH patients)\n"
            "kaggle_stage_2_train_images_dicom_headers.csv       (optional: sex, age, view where there is no DICOM)"
        ),
        overlaps=(
            "nih-chestxray14: contains all these images",
            "COVIDx: 200 test and about 13,500 training images come from here",
        ),
        excluded="the challenge's 3,000 test images (unlabelled); images without a row; rows whose file is missing",
        checked_on="images",
        checked_against="94 images as JPEG with 78 boxes, the header table and the table of matches; "
        "DICOM files and the official mapping on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per labelled image, by id."""
        labels = self._grouped(LABELS, ("patientId", "x", "y", "width", "height", "Target"))
        classes = self._grouped(CLASSES, ("patientId", "class"))
        patients = self._nih_patients()
        headers = self._header_table()
        on_disk = self._pictures()
        for key in sorted(labels.keys() | on_disk.keys()):
            if key not in labels:
                self.exclude(key, f"no row in {LABELS}")
            elif relative_name(key) is None or "/" in key:
                self.exclude(key, "path leaves the folder", labels[key][0].where)
            elif key not in on_disk:
                self.exclude(key, "image file is missing", labels[key][0].where)
            else:
                header = headers.get(key) or self._dicom_header(on_disk[key])
                yield self._record(key, on_disk[key], labels[key], classes.get(key, []), patients, header)

    def _grouped(self, name: str, columns: tuple[str, ...]) -> dict[str, list[Row]]:
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in read_table(self.require(name), columns):
            if not row["patientId"]:
                raise row.error("the patientId is blank")
            rows[row["patientId"]].append(row)
        return rows

    def _pictures(self) -> dict[str, Path]:
        folders = sorted(p for p in self.root.iterdir() if p.is_dir() and p.name.startswith(TRAIN))
        if not folders:
            self.require(TRAIN)
        found: dict[str, Path] = {}
        for folder in folders:  # the DICOM folder comes first and is preferred
            for relative, path in pictures(self, folder):
                if found.setdefault(path.stem, path) is not path:
                    self.exclude(relative, "another copy of the same image is used")
        for folder in sorted(p for p in self.root.iterdir() if p.is_dir() and p.name.startswith(TEST)):
            for relative, _ in pictures(self, folder):
                self.exclude(relative, "test image of the challenge, unlabelled")
        return found

    def _nih_patients(self) -> dict[str, str]:
        if (self.root / MAPPING).exists():
            pairs = _read_mapping(self.root / MAPPING)
        elif (self.root / MATCH).exists():
            rows = read_table(self.root / MATCH, ("patientId", "nih_image"))
            pairs = ((row["patientId"], row["nih_image"], f"{row.path}:{row.line}") for row in rows)
        else:
            self.note("no map to NIH patients here: each image counts as a patient of its own")
            return {}
        patients: dict[str, str] = {}
        for key, image, where in pairs:
            patient = patient_key(image)
            if patient is None:
                raise TableError(f"{image!r} is no image name of NIH ChestX-ray14", where=where)
            if patients.setdefault(key, patient) != patient:
                raise TableError(f"{key!r} is mapped to two patients", where=where)
        return patients

    def _header_table(self) -> dict[str, dict[str, str]]:
        if not (self.root / HEADERS).exists():
            return {}
        columns = ("PatientID", "PatientSex", "PatientAge", "ViewPosition")
        return {row["PatientID"]: row.cells for row in read_table(self.root / HEADERS, columns)}

    def _dicom_header(self, path: Path) -> dict[str, str]:
        """Sex, age and view from a DICOM file's header; its pixels stay unread."""
        if path.suffix.lower() not in (".dcm", ".dicom"):
            return {}
        header = read_dicom_header(path, ("PatientSex", "PatientAge", "ViewPosition"))
        if header is None:
            self.note("DICOM header that cannot be read")
        return header or {}

    def _record(
        self,
        key: str,
        path: Path,
        rows: list[Row],
        classes: list[Row],
        patients: dict[str, str],
        header: dict[str, str],
    ) -> Record:
        regions = tuple(region for row in rows if (region := self._box(row)))
        positive = rows[0]["Target"] == "1"
        for row in rows:
            if (row["Target"] == "1") != positive:
                raise row.error(f"{key!r} has the targets 0 and 1")
        name = _class_name(classes)
        if name is None:
            self.note(f"image without a row in {CLASSES}")
            findings: tuple[Finding, ...] = (Finding(OPACITY, LabelState.PRESENT if positive else LabelState.ABSENT),)
        else:
            if (name == OPACITY) != positive:
                raise classes[0].error(f"{key!r} has the class {name!r} and the target {int(positive)}")
            findings = tuple(Finding(raw, state) for raw, state in _STATES[name])
        patient = patients.get(key)
        if patient is None and patients:
            self.note("image that the map to NIH patients leaves out: counts as a patient of its own")
        return Record(
            image=path,
            image_id=key,
            patient=patient or key,
            patient_namespace=NIH if patient else None,
            view=header.get("ViewPosition") or None,
            sex=parse_sex(self, header.get("PatientSex", "")),
            age_years=parse_age(self, header.get("PatientAge", "")),
            findings=findings,
            regions=regions,
            where=rows[0].where,
        )

    def _box(self, row: Row) -> Region | None:
        cells = [row[column] for column in ("x", "y", "width", "height")]
        if row["Target"] not in ("0", "1"):
            raise row.error(f"the target is {row['Target']!r}", fix="expected 0 or 1")
        if row["Target"] == "0":
            if any(cells):
                raise row.error("a row with target 0 has a box")
            return None
        x, y, width, height = (row.number(column) for column in ("x", "y", "width", "height"))
        if width <= 0 or height <= 0:
            self.note("box without extent")
            return None
        return Region(OPACITY, "box", box=(x, y, width, height), frame=FRAME)


def _class_name(rows: list[Row]) -> str | None:
    """Return the one class of an image; some copies of the table repeat it in a cell (`Lung Opacity, Lung Opacity`)."""
    names: set[str] = set()
    for row in rows:
        names.update(part.strip() for part in row["class"].split(","))
        if not names <= _STATES.keys():
            raise row.error(f"the class is {row['class']!r}", fix="known: " + "; ".join(_STATES))
        if len(names) > 1:
            raise row.error(f"the image has the classes {' and '.join(sorted(names))}")
    return next(iter(names), None)


def _read_mapping(path: Path) -> Iterator[tuple[str, str, str]]:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise TableError("must hold a list of entries", where=path)
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        key, image = (entry.get("subset_img_id"), entry.get("img_id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(image, str) or not isinstance(key, str | None):
            raise TableError("has no 'img_id' or 'subset_img_id'", where=where)
        if key:  # NIH images outside the challenge have none
            yield key, image, where


def read_dicom_header(path: Path, keywords: tuple[str, ...]) -> dict[str, str] | None:
    """Return the named elements of a DICOM file as text; `None` if its header cannot be read.

    Only the header up to the pixels is read. A deflated file would have to be inflated whole, and without a bound,
    so it counts as not readable.
    """
    import pydicom
    from pydicom.filereader import read_file_meta_info

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if str(read_file_meta_info(path).get("TransferSyntaxUID", "")) == _DEFLATED:
                return None
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
            return {keyword: str(dataset.get(keyword) or "") for keyword in keywords}
        except Exception:  # pydicom lets through whatever its parser meets in damaged bytes
            return None
