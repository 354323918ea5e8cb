"""CANDID-PTX: chest radiographs with reports, and pneumothoraces, chest tubes and rib fractures as run lengths."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import LayoutError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region, Text
from umif.readers.folders import pictures, relative_name
from umif.readers.report_text import describe_sections, split_sections
from umif.readers.siim_acr_pneumothorax import alternating_runs, relative_spans
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from umif.readers.tables import Row

FRAME = (1024, 1024)  # of the runs, which is the size of all images
REPORTS = "Pneumothorax_reports.csv"
PNEUMOTHORAX = "Pneumothorax"
NO_MASK = "-1"
FOLDERS = ("dataset", "chest_radiographs", "dataset1")
_IMAGE_COLUMNS = ("SOPInstanceUID", "StudyInstanceUID", "filename", "Report")
# The other findings: their tables, which list positive images only. Names of the findings are those of the files.
MASK_TABLES: dict[str, tuple[str, ...]] = {
    "chest tube": ("chest_tube.csv",),
    "acute rib fracture": ("acute_rib_fracture.csv", "Rib_fracture_mask_rle.csv"),
}
_PATIENT = re.compile(r"(P\d+)_.+")


@register("reader", "candid-ptx")
class CandidPtx(Reader):
    """Reader of CANDID-PTX. Its DICOM files are named by their UID, without suffix.

    Runs are counted as in SIIM-ACR; all rows of an image are one region. An image without a row in the table of tubes
    or of rib fractures has none, which is a negative; where such a table is missing, nothing is said. The patient is
    the beginning of `filename`; the few images that stand under two patients are left out.
    """

    card: ClassVar[Card] = Card(
        title="CANDID-PTX",
        licence="University of Auckland data use agreement, after an ethics course: no passing on",
        citation="Feng et al., Curation of the CANDID-PTX Dataset with Free-Text Reports, Radiology: Artificial "
        "Intelligence 2021",
        images=19_237,
        access="credentialed",
        kinds=("report", "class", "segment"),
        how_to_get="https://doi.org/10.17608/k6.auckland.14173982 (ethics course, data use agreement)",
        layout=(
            "Pneumothorax_reports.csv\n"
            "chest_tube.csv                                    (optional)\n"
            "acute_rib_fracture.csv                            (optional; or Rib_fracture_mask_rle.csv)\n"
            "dataset/<SOPInstanceUID>                          (or chest_radiographs/…, dataset1/dataset/…)"
        ),
        excluded="images under two patients; images without a row; rows whose file is missing",
        checked_on="layout",
        checked_against="the layout's description; a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the table of reports that is on disk, by UID."""
        rows = _grouped(self.require(REPORTS), "SOPInstanceUID", (*_IMAGE_COLUMNS, "EncodedPixels"))
        others = {name: self._mask_table(name) for name in MASK_TABLES}
        on_disk = self._pictures()
        for key in sorted(rows.keys() | on_disk.keys()):
            if key not in rows:
                self.exclude(on_disk[key][0], f"no row in {REPORTS}")
                continue
            masks = {PNEUMOTHORAX: self._runs(rows[key], "EncodedPixels")}
            masks |= {name: self._runs(t.get(key, []), "mask_rle") for name, t in others.items() if t is not None}
            patients = {_patient(row) for row in rows[key]}
            if len(patients) > 1:
                self.exclude(on_disk[key][0] if key in on_disk else key, "image of two patients", rows[key][0].where)
            elif relative_name(key) is None or "/" in key:
                self.exclude(f"{rows[key][0].where} {key!a}", "path leaves the folder", rows[key][0].where)
            elif key not in on_disk:
                self.exclude(key, "image file is missing", rows[key][0].where)
            else:
                yield self._record(key, on_disk[key][1], rows[key], patients.pop(), masks)
        for name, table in others.items():
            if table is not None and (lost := table.keys() - rows.keys()):
                self.note(f"{name} of an image that has no row in {REPORTS}", len(lost))

    def _mask_table(self, name: str) -> dict[str, list[Row]] | None:
        for file in MASK_TABLES[name]:
            if (self.root / file).is_file():
                return _grouped(self.root / file, "anon_SOPUID", ("anon_SOPUID", "mask_rle"))
        self.note(f"no {MASK_TABLES[name][0]} here: nothing is said of {name}")
        return None

    def _pictures(self) -> dict[str, tuple[str, Path]]:
        folders = [name for name in FOLDERS if (self.root / name).is_dir()]
        if not folders:
            raise LayoutError(
                "no folder of pictures here", where=self.root, fix=f"expected layout:\n{self.card.layout}"
            )
        found: dict[str, tuple[str, Path]] = {}
        for folder in folders:
            for relative, path in pictures(self, self.root / folder, any_suffix=True):
                key = re.sub(r"\.(dcm|dicom|png|jpe?g)$", "", path.name, flags=re.IGNORECASE)
                if found.setdefault(key, (relative, path))[1] is not path:
                    self.exclude(relative, "another copy of the same image is used")
        return found

    def _record(self, key: str, path: Path, rows: list[Row], patient: str, masks: dict[str, tuple[int, ...]]) -> Record:
        reports = self._reports(dict.fromkeys(row["Report"] for row in rows))
        state = {True: LabelState.PRESENT, False: LabelState.ABSENT}
        return Record(
            image=path,
            image_id=key,
            patient=patient,
            study=rows[0]["StudyInstanceUID"] or None,
            texts=tuple(Text("report", text, "report") for text in reports),
            findings=tuple(Finding(name, state[bool(runs)]) for name, runs in masks.items()),
            regions=tuple(Region(name, "rle", runs=runs, frame=FRAME) for name, runs in masks.items() if runs),
            where=rows[0].where,
        )

    def _reports(self, cells: Iterable[str]) -> dict[str, None]:
        """Return what the reports of an image say of it; why one says nothing is a note."""
        reports: dict[str, None] = {}
        for cell in cells:
            sections = split_sections(cell)
            # Most are plain text; what stands under INDICATION and the like says nothing of the picture.
            headed = "findings" in sections or "impression" in sections
            text, missing = describe_sections(sections if headed else {"findings": cell})
            if text is not None:
                reports[text] = None
            elif missing is not None:
                self.note(missing)
        if len(reports) > 1:
            self.note("image with two reports: both are kept")
        return reports

    def _runs(self, rows: list[Row], column: str) -> tuple[int, ...]:
        """Return all masks of an image as one list of alternating run lengths; empty for none.

        Raises:
            TableError: a cell is neither blank, `-1` nor runs within 1024 × 1024 pixels, or an image has both.
        """
        cells = {row[column]: row for row in rows}
        if len(cells) < len(rows):
            self.note("repeated mask, equal", len(rows) - len(cells))
        drawn = [row for cell, row in cells.items() if cell not in ("", NO_MASK)]
        if drawn and NO_MASK in cells:
            raise cells[NO_MASK].error(f"the image has both a mask and {NO_MASK}")
        return alternating_runs(span for row in drawn for span in relative_spans(row, column))


def _grouped(table: Path, key: str, columns: tuple[str, ...]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read_table(table, columns):
        if not row[key]:
            raise row.error(f"the {key} is blank")
        rows[row[key]].append(row)
    return rows


def _patient(row: Row) -> str:
    match = _PATIENT.fullmatch(row["filename"])
    if match is None:
        raise row.error(f"'filename' is {row['filename']!r:.80}", fix="expected P<number of the patient>_…")
    return match[1]
