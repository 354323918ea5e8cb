"""SIIM-ACR Pneumothorax: NIH radiographs with pneumothoraces drawn as relative run lengths."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.readers.folders import pictures
from umif.readers.patients import parse_age, parse_sex
from umif.readers.rsna_pneumonia import read_dicom_header
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from umif.readers.tables import Row

PNEUMOTHORAX = "Pneumothorax"
FRAME = (1024, 1024)  # of the runs, whatever size a copy of the images has
# The later table holds every row of the first one and the labels of the first one's test images.
TABLES = ("stage_2_train.csv", "train-rle.csv")
NO_MASK = "-1"
_HEADER = ("PatientID", "StudyInstanceUID", "PatientSex", "PatientAge", "ViewPosition")
_TEST_FOLDERS = frozenset({"stage_2_images", "dicom-images-test"})
_DICOM_SUFFIXES = (".dcm", ".dicom")


@register("reader", "siim-acr-pneumothorax")
class SiimAcrPneumothorax(Reader):
    """Reader of the SIIM-ACR Pneumothorax Segmentation challenge, stage 1 or 2, as DICOM files or as PNG copies.

    The masks are runs down the columns of 1024 × 1024 pixels, each start counted from the end of the run before. An
    image has one row per drawn pneumothorax; the rows are merged into one region. `-1` is no pneumothorax, which is
    a negative. The patient's key is the DICOM header's; NIH's own patients are not known.
    """

    card: ClassVar[Card] = Card(
        title="SIIM-ACR Pneumothorax Segmentation",
        licence="competition terms (non-commercial, academic) for the masks; NIH's terms for the images",
        citation="Zawacki et al., SIIM-ACR Pneumothorax Segmentation, Kaggle 2019",
        images=12_047,
        access="registration",
        kinds=("class", "segment"),
        how_to_get="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation (accept the rules)",
        layout=(
            "stage_2_train.csv                               (or train-rle.csv)\n"
            "dicom-images-train/<study>/<series>/<ImageId>.dcm\n"
            "dicom-images-test/<study>/<series>/<ImageId>.dcm   (labelled in stage 2 only)\n"
            "or PNG copies named <ImageId>.png in any folder"
        ),
        overlaps=("nih-chestxray14: contains all these images, no public map of the ids",),
        excluded="images without a row (a few dozen, and the unlabelled test images); rows whose file is missing",
        checked_on="images",
        checked_against="one DICOM file in its native folder and 400 rows; the rest on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per labelled image, by id."""
        table = next((name for name in TABLES if (self.root / name).exists()), TABLES[0])
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in read_table(self.require(table), ("ImageId", "EncodedPixels")):
            if not row["ImageId"]:
                raise row.error("the ImageId is blank")
            rows[row["ImageId"]].append(row)
        on_disk = self._pictures()
        for key in sorted(rows.keys() | on_disk.keys()):
            if key not in rows:
                self.exclude(key, self._why_unlabelled(on_disk[key], table))
            elif key not in on_disk:
                # Its rows are checked all the same: a wrong encoding must not hide behind missing files.
                self._runs(rows[key])
                self.exclude(key, "image file is missing", rows[key][0].where)
            else:
                yield self._record(key, on_disk[key], rows[key])

    def _pictures(self) -> dict[str, Path]:
        found: dict[str, tuple[str, Path]] = {}
        # DICOM files come first and are preferred to copies of them.
        for relative, path in sorted(
            pictures(self, self.root), key=lambda p: p[1].suffix.lower() not in _DICOM_SUFFIXES
        ):
            if any("mask" in part.lower() for part in path.relative_to(self.root).parts[:-1]):
                self.exclude(relative, "drawn mask: the runs in the table are used")
            elif path.stem in found:
                self.exclude(relative, "another copy of the same image is used")
            else:
                found[path.stem] = (relative, path)
        if not found:
            self.require("dicom-images-train")
        return {key: path for key, (_, path) in found.items()}

    def _why_unlabelled(self, path: Path, table: str) -> str:
        if _TEST_FOLDERS.intersection(path.relative_to(self.root).parts):
            return "test image of the challenge, unlabelled"
        return f"no row in {table}"

    def _record(self, key: str, path: Path, rows: list[Row]) -> Record:
        runs = self._runs(rows)
        header = None
        if path.suffix.lower() in _DICOM_SUFFIXES:
            header = read_dicom_header(path, _HEADER)
            if header is None:
                self.note("DICOM header that cannot be read")
        header = header or {}
        return Record(
            image=path,
            image_id=key,
            patient=header.get("PatientID") or None,
            study=header.get("StudyInstanceUID") or None,
            view=header.get("ViewPosition") or None,
            sex=parse_sex(self, header.get("PatientSex", "")),
            age_years=parse_age(self, header.get("PatientAge", "")),
            findings=(Finding(PNEUMOTHORAX, LabelState.PRESENT if runs else LabelState.ABSENT),),
            regions=(Region(PNEUMOTHORAX, "rle", runs=runs, frame=FRAME),) if runs else (),
            where=rows[0].where,
        )

    def _runs(self, rows: list[Row]) -> tuple[int, ...]:
        """Return all masks of an image as one list of alternating run lengths; empty for no pneumothorax.

        Raises:
            TableError: a cell is neither `-1` nor runs within 1024 × 1024 pixels, or both stand for one image.
        """
        cells = dict.fromkeys(row["EncodedPixels"] for row in rows)
        if len(cells) < len(rows):
            self.note("repeated row, equal", len(rows) - len(cells))
        if NO_MASK in cells:
            if len(cells) > 1:
                raise rows[-1].error(f"{rows[0]['ImageId']!r} has both a mask and {NO_MASK}")
            return ()
        return alternating_runs(span for row in rows for span in relative_spans(row))


def relative_spans(row: Row, column: str = "EncodedPixels") -> list[tuple[int, int]]:
    """Return (start, end) of each run of a row, pixels counted down the columns from 0, `end` not included.

    Raises:
        TableError: the cell holds no pairs of whole numbers, an empty run, or runs past the last pixel.
    """
    text = row[column].split()
    if not text or len(text) % 2 or not all(part.isascii() and part.isdecimal() and len(part) < 9 for part in text):
        raise row.error("the mask is neither -1 nor pairs of whole numbers", fix="expected 'skip run skip run …'")
    spans, end = [], 0
    for skip, length in zip(text[::2], text[1::2], strict=True):
        start = end + int(skip)
        end = start + int(length)
        if end == start:
            raise row.error("the mask holds a run of no pixels")
        spans.append((start, end))
    if end > FRAME[0] * FRAME[1]:
        raise row.error(
            f"the runs end at pixel {end} of {FRAME[0] * FRAME[1]}",
            fix="each start counts from the end of the run before, on 1024 × 1024 pixels",
        )
    return spans


def alternating_runs(spans: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Return spans, which may overlap, as lengths of alternating background and foreground runs."""
    runs: list[int] = []
    end = 0
    for start, stop in sorted(spans):
        if runs and start <= end:
            runs[-1] += max(stop - end, 0)
        else:
            runs += [start - end, stop - start]
        end = max(end, stop)
    return tuple(runs)
