"""Open-i (Indiana University): chest radiographs with reports, as XML files or as the tables of a later copy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from xml.etree import ElementTree

from umif.config import register
from umif.errors import TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Text
from umif.readers.folders import pictures, relative_name
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPORTS, PROJECTIONS, XML = "indiana_reports.csv", "indiana_projections.csv", "ecgen-radiology"
VIEWS = ("Frontal", "Lateral")
NOT_FINDINGS = frozenset({"", "No Indexing", "Technical Quality of Image Unsatisfactory"})
# Headings that name a place alone; what was found there stands behind them (Lung/hypoinflation).
PLACES = frozenset(
    "Abdomen|Adipose Tissue|Aorta|Aorta, Thoracic|Bone and Bones|Cardiac Shadow|Cervical Vertebrae|Costophrenic Angle|"
    "Diaphragm|Epicardial Fat|Heart|Heart Atria|Heart Ventricles|Humerus|Lumbar Vertebrae|Lung|Lymph Nodes|"
    "Mediastinum|Pleura|Pulmonary Artery|Ribs|Shoulder|Spine|Sulcus|Thoracic Vertebrae|Thorax|Trachea|"
    "Trachea, Carina".lower().split("|")
)
# CXR1_1_IM-0001-3001 (XML, pictures beside it), 1_IM-0001-3001.dcm.png (tables), 1_IM-0001-3001.dcm.
_KEY = re.compile(r"(?:CXR)?(?:\d+_)?((\d+)_IM-[\d-]+)(?:\.dcm)?(?:\.(?:png|jpe?g))?", re.IGNORECASE)
_MOST_BYTES = 4_000_000  # of one XML file; the largest of the release has some ten thousand


@dataclass(frozen=True, slots=True)
class _Report:
    sections: tuple[str, str]  # findings, impression
    terms: tuple[str, ...]
    where: str


@register("reader", "openi")
class Openi(Reader):
    """Reader of the Indiana University collection of Open-i.

    Where both forms are here, the tables are used: they hold the same texts and also the views. The text is
    FINDINGS, then IMPRESSION; INDICATION and COMPARISON say nothing of the picture. Words taken out for anonymity
    stay `XXXX`, as the licence forbids changed texts.

    Findings: the heading of each MeSH term (`Opacity/lung/base/left` gives `Opacity`, as the column `Problems`
    does), or the whole term where its heading is only a place (`Lung/hypoinflation`). All are present; what is not
    indexed is not given. One number (`uid`) is one report, one study and one patient.
    """

    card: ClassVar[Card] = Card(
        title="Open-i, Indiana University chest X-ray collection",
        licence="CC BY-NC-ND 4.0",
        citation="Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and "
        "retrieval, JAMIA 2016",
        images=7_470,
        access="open",
        kinds=("report", "class"),
        how_to_get="https://openi.nlm.nih.gov/faq: NLMCXR_png.tgz and NLMCXR_reports.tgz",
        layout=(
            "ecgen-radiology/<n>.xml\n"
            "NLMCXR_png/CXR<uid>_IM-….png                       (any folder)\n"
            "or indiana_reports.csv, indiana_projections.csv\n"
            "images/images_normalized/<uid>_IM-….dcm.png        (any folder)"
        ),
        excluded="images without a report; rows and XML entries whose file is missing",
        checked_on="tables",
        checked_against="the texts, terms and file names of 3,081 reports as tables and of 406 as XML (equal where "
        "both are); pictures on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of a report, by the name of the image without its ending."""
        if (self.root / REPORTS).exists() or (self.root / PROJECTIONS).exists():
            reports, images = self._tables()
        elif (self.root / XML).is_dir():
            reports, images = self._xml()
        else:
            self.require(REPORTS)
        on_disk = self._pictures()
        used = set()
        for key in sorted(images.keys() | on_disk.keys()):
            if key not in images:
                self.exclude(on_disk[key][0], "no report")
                continue
            name, uid, view, where = images[key]
            if key not in on_disk:
                self.exclude(name, "image file is missing", where)
            elif uid not in reports:
                self.exclude(on_disk[key][0], "no report", where)
            else:
                used.add(uid)
                yield self._record(*on_disk[key], uid, view, reports[uid])
        if idle := len(reports.keys() - used):
            self.note("report without an image", idle)

    def _pictures(self) -> dict[str, tuple[str, Path]]:
        found: dict[str, tuple[str, Path]] = {}
        for relative, path in pictures(self, self.root):
            match = _KEY.fullmatch(path.name)
            if match is None:
                self.exclude(relative, "file name is none of the collection's")
            elif found.setdefault(match[1], (relative, path))[1] is not path:
                self.exclude(relative, "another copy of the same image is used")
        return found

    def _tables(self) -> tuple[dict[str, _Report], dict[str, tuple[str, str, str | None, str]]]:
        reports: dict[str, _Report] = {}
        for row in read_table(self.require(REPORTS), ("uid", "MeSH", "findings", "impression")):
            if not row["uid"]:
                raise row.error("the uid is blank")
            terms = tuple(term.strip() for term in row["MeSH"].split(";"))
            report = _Report((row["findings"], row["impression"]), terms, row.where)
            kept = reports.setdefault(row["uid"], report)
            if (kept.sections, kept.terms) != (report.sections, terms):
                raise row.error(f"the uid {row['uid']!r} has two different reports")
            if kept is not report:
                self.note("repeated report, equal")
        images: dict[str, tuple[str, str, str | None, str]] = {}
        for row in read_table(self.require(PROJECTIONS), ("uid", "filename", "projection")):
            if row["projection"] not in VIEWS:
                raise row.error(f"the projection is {row['projection']!r}", fix=f"known: {', '.join(VIEWS)}")
            image = (row["filename"], row["uid"], row["projection"], row.where)
            key = _image_key(row["filename"], row["uid"], f"{row.path}:{row.line}")
            if images.setdefault(key, image)[1:3] != image[1:3]:
                raise row.error(f"the image {row['filename']!r} has two different rows")
            if images[key] is not image:
                self.note("repeated image row, equal")
        return reports, images

    def _xml(self) -> tuple[dict[str, _Report], dict[str, tuple[str, str, str | None, str]]]:
        reports: dict[str, _Report] = {}
        images: dict[str, tuple[str, str, str | None, str]] = {}
        for path in sorted((self.root / XML).rglob("*.xml")):
            if path.name.startswith("."):
                continue
            entry = _parse(path)
            uid = _attribute(entry.find("uId"), path).removeprefix("CXR")
            sections = {node.get("Label"): " ".join((node.text or "").split()) for node in entry.iter("AbstractText")}
            if not {"FINDINGS", "IMPRESSION"} <= sections.keys():
                raise TableError("has no FINDINGS or no IMPRESSION", where=path, fix="expected Open-i's AbstractText")
            terms = tuple((node.text or "").strip() for node in entry.iter("major"))
            if uid in reports:
                raise TableError(f"the uid {uid!r} has two files", where=path)
            reports[uid] = _Report((sections["FINDINGS"], sections["IMPRESSION"]), terms, path.name)
            for node in entry.findall("parentImage"):
                name = _attribute(node, path)
                images[_image_key(name, uid, str(path))] = (name, uid, None, path.name)
        return reports, images

    def _record(self, relative: str, path: Path, uid: str, view: str | None, report: _Report) -> Record:
        parts = [" ".join(part.split()) for part in report.sections]
        text = "\n".join(part for part in parts if any(character.isalnum() for character in part))
        if not text:
            self.note("image whose report is blank")
        return Record(
            image=path,
            image_id=relative,
            patient=uid,
            study=uid,
            view=view,
            texts=(Text("report", text, "report"),) if text else (),
            findings=tuple(Finding(name, LabelState.PRESENT) for name in findings_of(report.terms)),
            where=report.where,
        )


def findings_of(terms: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the MeSH terms of a report name, each once: the heading, or the whole term of a place."""
    names: dict[str, None] = {}
    for term in terms:
        heading = term.split("/")[0].strip()
        if heading.lower() not in PLACES:
            names[heading] = None
        elif heading != term:
            names[term] = None
    return tuple(name for name in names if name not in NOT_FINDINGS)


def _image_key(name: str, uid: str, where: str) -> str:
    match = _KEY.fullmatch(name) if relative_name(name) == name else None
    if match is None or match[2] != uid:
        raise TableError(f"{name!a:.80} is no image name of the report {uid!r}", where=where, fix="expected <uid>_IM-…")
    return match[1]


def _attribute(node: ElementTree.Element | None, path: Path) -> str:
    value = node.get("id") if node is not None else None
    if not value or not value.strip():
        raise TableError("has an entry without an id", where=path, fix="expected Open-i's uId and parentImage")
    return value.strip()


def _parse(path: Path) -> ElementTree.Element:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise TableError(f"is larger than {_MOST_BYTES:,} bytes", where=path)
        data = path.read_bytes()
        # A report declares no entities; refusing them keeps a small file from growing without bound.
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise TableError("declares a document type, which Open-i's reports do not", where=path)
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise TableError(f"is not valid XML: {error}", where=f"{path}:{error.position[0]}") from None
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise TableError(f"cannot be read as XML: {error}", where=path) from None
