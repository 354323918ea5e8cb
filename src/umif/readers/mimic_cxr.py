"""MIMIC-CXR and MIMIC-CXR-JPG: chest radiographs with English reports, as DICOM files and as JPEG with labels."""

from __future__ import annotations

import re
from abc import abstractmethod
from contextlib import closing
from sys import intern
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from umif.config import register
from umif.errors import LayoutError
from umif.readers.base import Card, Finding, Reader, Record, Text
from umif.readers.chexpert import FINDINGS, parse_states
from umif.readers.mimic_files import COPY, DICOM_ID, FILES, STUDY, SUBJECT, Reports, find_table, release, walk_pictures
from umif.readers.mimic_sections import describe_study
from umif.readers.rsna_pneumonia import read_dicom_header
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.mimic_files import Picture
    from umif.readers.tables import Row

NAMESPACE = "mimic-cxr"
DICOM, JPG = "mimic-cxr", "mimic-cxr-jpg"
LABELS = tuple(sorted(FINDINGS))
# The radiologists' labels of the test part, added later: no `No Finding`, and another name for the opacity.
TEST_LABELS = tuple("Airspace Opacity" if name == "Lung Opacity" else name for name in LABELS if name != "No Finding")
SPLITS: dict[str, Split] = {"train": "train", "validate": "val", "test": "test"}
NO_REPORT = "image without a report file"
NO_LABELS = "image of a study without labels"
NO_PART = "image without an official part"
_ID_COLUMNS = ("subject_id", "study_id", "dicom_id")
_IDS = {
    "subject_id": (re.compile(SUBJECT), "eight digits that begin with 1"),
    "study_id": (re.compile(STUDY), "eight digits that begin with 5"),
    "dicom_id": (re.compile(DICOM_ID), "five groups of eight hexadecimal digits"),
}


class _Image(NamedTuple):
    subject: str
    study: str
    view: str
    line: int


class _Labels(NamedTuple):
    findings: tuple[Finding, ...]
    where: str


class MimicReader(Reader):
    """What the two forms share: pictures of `files/`, tables of ids, labels, official parts and reports.

    The text is FINDINGS, then IMPRESSION, by the authors' rules with all their exceptions; marks of anonymity are
    taken out. A text that only points elsewhere is left out with a reason, which is a note: the image stays. Labels
    are CheXpert's, or NegBio's where only these are here; studies of the test part have the radiologists' where the
    table is here, `Airspace Opacity` included. `validate` is `val`.
    """

    release_name: ClassVar[str]
    suffix: ClassVar[str]

    def records(self) -> Iterator[Record]:
        """Yield one record per image that is on disk and in the table, by subject, study and id."""
        folder = release(self.root, self.release_name)
        # The other form's tables and reports may lie beside.
        others = [folder, *(release(self.root, name) for name in (JPG, DICOM)), self.root]
        images, table = self.images(others)
        splits = self._splits(others, images)
        labels = self._labels(others)
        files = folder / FILES
        if not files.is_dir():
            self.require(FILES)
        last, missing = "", None
        texts: tuple[Text, ...] = ()
        used: set[str] = set()
        with closing(Reports(self, others)) as reports:
            for picture in walk_pictures(self, files, self.suffix):
                image = images.pop(picture.dicom_id, None)
                if image is None:
                    copy = picture.dicom_id in used
                    item = f"{FILES}/{picture.relative}" if copy else picture.dicom_id
                    self.exclude(item, COPY if copy else f"no row in {table}")
                    used.add(picture.dicom_id)
                    continue
                used.add(picture.dicom_id)
                self._check_place(picture, image, files)
                if picture.study != last:
                    last, text, missing = picture.study, *self._text(reports, picture)
                    texts = () if text is None else (Text("report", text, "report"),)
                if missing is not None:
                    self.note(missing)
                yield self._record(files / picture.relative, picture.dicom_id, image, splits, labels, texts, table)
        for dicom_id in sorted(images):
            self.exclude(dicom_id, "image file is missing", f"{table}:{images[dicom_id].line}")

    @abstractmethod
    def images(self, folders: list[Path]) -> tuple[dict[str, _Image], str]:
        """Return the ids that the form's own table lists, and the table's name."""

    def table(self, folders: list[Path], stem: str) -> Path:
        """Return a table that must be there.

        Raises:
            LayoutError: it is not.
        """
        path = find_table(folders, stem)
        if path is None:
            fix = f"expected layout:\n{self.card.layout}"
            raise LayoutError(f"'*{stem}' is missing in this folder", where=self.root, fix=fix)
        return path

    def read_images(self, path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, _Image]:
        """Return the images of a table by their id; a repeated row must be equal.

        Raises:
            TableError: an id that is none of MIMIC's, or two places for one image.
        """
        images: dict[str, _Image] = {}
        for row in read_table(path, (*_ID_COLUMNS, *required), optional):
            subject, study, dicom_id = _ids(row, _ID_COLUMNS)
            if "path" in row.cells:
                _check_path(row, subject, study, dicom_id)
            image = _Image(intern(subject), intern(study), intern(row.get("ViewPosition")), row.line)
            known = images.setdefault(dicom_id, image)
            if known[:3] != image[:3]:
                raise row.error(f"the image {dicom_id!r} has another row with other values, at line {known.line}")
            if known is not image:
                self.note("repeated row, equal")
        return images

    def _splits(self, folders: list[Path], images: dict[str, _Image]) -> dict[str, Split]:
        path = find_table(folders, "-split.csv")
        if path is None:
            if self.release_name == JPG:
                self.table(folders, "-split.csv")
            self.note("no table of official parts here", len(images))
            return {}
        splits: dict[str, Split] = {}
        for row in read_table(path, (*_ID_COLUMNS, "split")):
            subject, study, dicom_id = _ids(row, _ID_COLUMNS)
            split = SPLITS.get(row["split"])
            if split is None:
                raise row.error(f"the split is {row['split']!r}", fix=f"known: {', '.join(SPLITS)}")
            image = images.get(dicom_id)
            if image is not None and image[:2] != (subject, study):
                raise row.error(f"the image {dicom_id!r} is of another subject or study in the other table")
            if splits.setdefault(dicom_id, split) != split:
                raise row.error(f"the image {dicom_id!r} is in two parts")
        return splits

    def _labels(self, folders: list[Path]) -> dict[str, _Labels]:
        path = find_table(folders, "-chexpert.csv") or find_table(folders, "-negbio.csv")
        if path is None and self.release_name == JPG:
            self.note("no table of labels here")
        labels = {} if path is None else self._read_labels(path, ("subject_id", "study_id"), LABELS)
        path = find_table(folders, "-test-set-labeled.csv")
        return labels if path is None else labels | self._read_labels(path, ("study_id",), TEST_LABELS)

    def _read_labels(self, path: Path, ids: tuple[str, ...], columns: tuple[str, ...]) -> dict[str, _Labels]:
        labels: dict[str, _Labels] = {}
        for row in read_table(path, (*ids, *columns)):
            study = _ids(row, ids)[-1]
            found = _Labels(parse_states(row, columns), row.where)
            known = labels.setdefault(study, found)
            if known.findings != found.findings:
                raise row.error(f"the study {study!r} has another row with other labels, at {known.where}")
            if known is not found:
                self.note("repeated row, equal")
        return labels

    def _check_place(self, picture: Picture, image: _Image, files: Path) -> None:
        if (picture.subject, picture.study) != image[:2]:
            raise LayoutError(
                f"lies in the folder of study {picture.study}, but the table has it in p{image.subject}/s{image.study}",
                where=files / picture.relative,
            )

    def _text(self, reports: Reports, picture: Picture) -> tuple[str | None, str | None]:
        report = reports.read(picture.subject, picture.study)
        return (None, NO_REPORT) if report is None else describe_study(f"s{picture.study}", report)

    def _record(
        self,
        path: Path,
        dicom_id: str,
        image: _Image,
        splits: dict[str, Split],
        labels: dict[str, _Labels],
        texts: tuple[Text, ...],
        table: str,
    ) -> Record:
        known = labels.get(image.study)
        if labels and known is None:
            self.note(NO_LABELS)
        if splits and dicom_id not in splits:
            self.note(NO_PART)
        return Record(
            image=path,
            image_id=dicom_id,
            patient=image.subject,
            patient_namespace=NAMESPACE,
            study=image.study,
            view=image.view or self.view_in_file(path),
            split=splits.get(dicom_id),
            texts=texts,
            findings=() if known is None else known.findings,
            where=f"{table}:{image.line}" if known is None else known.where,
        )

    def view_in_file(self, path: Path) -> str | None:
        """Return the view that the picture's own file states; a JPEG states none."""
        return None


@register("reader", JPG)
class MimicCxrJpg(MimicReader):
    """Reader of MIMIC-CXR-JPG, with the reports of MIMIC-CXR."""

    release_name = JPG
    suffix = ".jpg"
    card: ClassVar[Card] = Card(
        title="MIMIC-CXR-JPG",
        licence="PhysioNet Credentialed Health Data License: no passing on, texts derived from it included",
        citation="Johnson et al., MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs, "
        "arXiv 1901.07042; Johnson et al., MIMIC-CXR, Scientific Data 2019",
        images=377_110,
        access="credentialed",
        kinds=("report", "class"),
        how_to_get="https://physionet.org/content/mimic-cxr-jpg, and mimic-cxr-reports.zip of "
        "https://physionet.org/content/mimic-cxr (credentialed access)",
        layout=(
            "mimic-cxr-2.0.0-metadata.csv.gz, mimic-cxr-2.0.0-split.csv.gz         (packed or not)\n"
            "mimic-cxr-2.0.0-chexpert.csv.gz (or …-negbio.csv.gz)                  (packed or not)\n"
            "mimic-cxr-2.1.0-test-set-labeled.csv                                  (optional)\n"
            "files/p10/p10000032/s50414267/<dicom_id>.jpg\n"
            "mimic-cxr-reports.zip, or unpacked: files/p10/p10000032/s50414267.txt (here or in mimic-cxr-reports/)\n"
            "or the folder above: mimic-cxr-jpg/2.1.0/…, mimic-cxr/2.1.0/…"
        ),
        overlaps=("mimic-cxr: the same images as DICOM (same patient keys)", "MS-CXR: images of all parts"),
        excluded="images without a row; rows whose file is missing; texts that only point to others (as notes)",
        checked_on="layout",
        checked_against="the layout as published and the authors' rules for reports; no file of it is open to all",
    )

    def images(self, folders: list[Path]) -> tuple[dict[str, _Image], str]:
        """Return the images of the metadata."""
        path = self.table(folders, "-metadata.csv")
        return self.read_images(path, ("ViewPosition",)), path.name


@register("reader", DICOM)
class MimicCxr(MimicReader):
    """Reader of MIMIC-CXR's DICOM files and reports; labels and parts are MIMIC-CXR-JPG's, where its tables are here.

    Without MIMIC-CXR-JPG's metadata the view is read from each file's header, which takes minutes.
    """

    release_name = DICOM
    suffix = ".dcm"
    card: ClassVar[Card] = Card(
        title="MIMIC-CXR",
        licence="PhysioNet Credentialed Health Data License: no passing on, texts derived from it included",
        citation="Johnson et al., MIMIC-CXR, a de-identified publicly available database of chest radiographs with "
        "free-text reports, Scientific Data 2019",
        images=377_110,
        access="credentialed",
        kinds=("report", "class"),
        how_to_get="https://physionet.org/content/mimic-cxr (credentialed access)",
        layout=(
            "cxr-record-list.csv.gz                                                (packed or not)\n"
            "files/p10/p10000032/s50414267/<dicom_id>.dcm\n"
            "mimic-cxr-reports.zip, or unpacked: files/p10/p10000032/s50414267.txt (here or in mimic-cxr-reports/)\n"
            "mimic-cxr-2.0.0-metadata.csv.gz, …-split.csv.gz, …-chexpert.csv.gz    (optional, of mimic-cxr-jpg)"
        ),
        overlaps=("mimic-cxr-jpg: the same images as JPEG (same patient keys)", "MS-CXR: images of all parts"),
        excluded="images without a row; rows whose file is missing; texts that only point to others (as notes)",
        checked_on="layout",
        checked_against="the layout as published and the authors' rules for reports; no file of it is open to all",
    )

    def images(self, folders: list[Path]) -> tuple[dict[str, _Image], str]:
        """Return the images of the record list, with their views if the metadata is here."""
        path = self.table(folders, "cxr-record-list.csv")
        images = self.read_images(path, ("path",))
        metadata = find_table(folders, "-metadata.csv")
        if metadata is not None:
            for dicom_id, image in self.read_images(metadata, ("ViewPosition",)).items():
                if dicom_id in images:
                    images[dicom_id] = images[dicom_id]._replace(view=image.view)
        self._views_known = metadata is not None
        return images, path.name

    def view_in_file(self, path: Path) -> str | None:
        """Return the header's ViewPosition, unless the metadata stood for it."""
        if self._views_known:
            return None
        header = read_dicom_header(path, ("ViewPosition",))
        if header is None:
            self.note("DICOM header that cannot be read")
        return (header or {}).get("ViewPosition") or None


def _ids(row: Row, columns: tuple[str, ...]) -> list[str]:
    """Return ids of a row; tools that know only one kind of number write 10000032 as 10000032.0."""
    found = []
    for column in columns:
        value = row[column].removesuffix(".0")
        pattern, expected = _IDS[column]
        if pattern.fullmatch(value) is None:
            raise row.error(f"{column!r} is {row[column]!a:.80}", fix=f"expected {expected}")
        found.append(value)
    return found


def _check_path(row: Row, subject: str, study: str, dicom_id: str) -> None:
    expected = f"{FILES}/p{subject[:2]}/p{subject}/s{study}/{dicom_id}.dcm"
    if row["path"] != expected:
        raise row.error(f"the path is {row['path']!a:.120}", fix=f"expected {expected}")
