"""How people usually name the columns of their tables, and which column of a header is what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from umif.errors import ConfigError, TableError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.table_config import TableConfig

Single = Literal["image", "patient", "study", "view", "sex", "age", "split"]
SINGLE: tuple[Single, ...] = ("image", "patient", "study", "view", "sex", "age", "split")
# Written without capitals, spaces and punctuation; of several that a header has, the first one here is taken.
USUAL: dict[str, tuple[str, ...]] = {
    "image": (
        "imagepath", "imgpath", "image", "img", "filepath", "path", "filename", "file", "imagefile", "imagefilename",
        "imagefilepath", "imagename", "imgname", "imgfile", "picture", "picturepath", "dicompath", "dicomfile",
        "pngpath", "jpgpath", "relativepath", "fullpath", "imageindex", "imageid", "imgid", "dicomid",
    ),
    "patient": (
        "patientid", "patient", "patientnumber", "patientkey", "anonpatientid", "subjectid", "subject", "mrn", "pid",
    ),
    "study": (
        "studyid", "study", "studyuid", "studyinstanceuid", "examid", "exam", "accession", "accessionnumber",
    ),
    "view": ("view", "viewposition", "projection"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "ageyears", "patientage", "ageatstudy"),
    "split": ("split", "subset", "partition", "set"),
    "report": (
        "report", "reporttext", "fullreport", "radiologyreport", "reports", "text", "clinicalnotes", "notes",
    ),
    "caption": ("caption", "imagecaption", "figurecaption", "captions", "description"),
    "labels": (
        "labels", "label", "findinglabels", "findinglabel", "finding", "classes", "class", "classname", "diagnoses",
        "diagnosis", "diseases", "disease", "categories", "category",
    ),
    "mask": (
        "maskpath", "mask", "masks", "maskfile", "maskfilename", "segmentationpath", "segmentation",
        "segmentationmask",
    ),
}  # fmt: skip
# Columns of their own, one per finding, as the large public tables name them.
USUAL_FINDINGS = frozenset({
    "atelectasis", "cardiomegaly", "consolidation", "covid19", "edema", "effusion", "emphysema",
    "enlargedcardiomediastinum", "fibrosis", "fracture", "hernia", "infiltration", "lunglesion", "lungopacity", "mass",
    "nodule", "nofinding", "normal", "pleuraleffusion", "pleuralother", "pleuralthickening", "pneumonia",
    "pneumothorax", "supportdevice", "supportdevices", "tuberculosis",
})  # fmt: skip
SPLITS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of one table is what.

    Attributes:
        single: What there is one of per picture → column.
        report: Columns that make up the report, in order; `caption` likewise.
        labels: Columns that list labels by name.
        findings: Column → the one finding that it is about.
        masks: Column → what its masks show; `None` = the picture's one finding.
        unused: Columns that mean nothing here.
    """

    single: dict[Single, str]
    report: tuple[str, ...]
    caption: tuple[str, ...]
    labels: tuple[str, ...]
    findings: dict[str, str]
    masks: dict[str, str | None]
    unused: tuple[str, ...]

    @property
    def used(self) -> tuple[str, ...]:
        """All columns that are read."""
        lists = (*self.report, *self.caption, *self.labels, *self.findings, *self.masks)
        return tuple(dict.fromkeys((*self.single.values(), *lists)))


def plain(name: str) -> str:
    """Return a column's name as the usual names are written: `Patient ID` → `patientid`."""
    return re.sub(r"[\W_]+", "", name.casefold())


def usual(kind: str, names: Sequence[str]) -> str | None:
    """Return the one of `names` that usually holds `kind`, if any does."""
    by_plain = {plain(name): name for name in reversed(names)}
    return next((by_plain[known] for known in USUAL[kind] if known in by_plain), None)


def find_columns(path: Path, header: Sequence[str], config: TableConfig, config_path: Path) -> Columns:
    """Return which column of `header` is what: first as the config says, then by the usual names.

    Raises:
        ConfigError: the config names a column that the table does not have.
        TableError: no column holds the pictures, or `findings` may be a text as well as labels.
    """
    names = [name for name in header if name]
    _check_named(names, config, config_path, path)
    given = config.columns
    taken = {*config.named_columns, *config.ignore}
    free = [name for name in names if name not in taken]

    def pick(kind: str) -> str | None:
        column = usual(kind, free)
        if column is not None:
            free.remove(column)
        return column

    single: dict[Single, str] = {}
    for kind in SINGLE:
        column = getattr(given, kind) or pick(kind)
        if column is not None:
            single[kind] = column
    sections = _sections(free)
    report = given.report or (sections if len(sections) > 1 else _one(pick("report")) or sections)
    if not report and (column := next((name for name in free if plain(name) == "findings"), None)) is not None:
        raise TableError(
            f"the column {column!r} may hold texts or labels",
            where=f"{path}:1",
            fix=f"say which in {config_path.name} beside the table:  columns: {{report: {column}}}  or  "
            f"columns: {{labels: {column}}}",
        )
    caption = given.caption or _one(pick("caption"))
    labels = given.labels or (() if config.findings else _one(pick("labels")))
    masks: dict[str, str | None] = dict(config.masks)
    if not masks and (column := pick("mask")) is not None:
        masks[column] = None
    usual_findings = {name: name for name in free if plain(name) in USUAL_FINDINGS}
    findings = {**config.findings, **usual_findings}
    unused = tuple(name for name in free if name not in findings and name not in report)
    return Columns(single, report, caption, labels, findings, masks, unused)


def _one(column: str | None) -> tuple[str, ...]:
    return () if column is None else (column,)


def _sections(free: list[str]) -> tuple[str, ...]:
    """Return the columns that are sections of a report; `findings` is one beside `impression` only."""
    by_plain = {plain(name): name for name in reversed(free)}
    if "impression" not in by_plain:
        return ()
    return tuple(by_plain[name] for name in ("findings", "impression") if name in by_plain)


def _check_named(names: list[str], config: TableConfig, config_path: Path, path: Path) -> None:
    for column in (*config.named_columns, *config.ignore):
        if column not in names:
            raise ConfigError(f"{path.name} has no column {column!r}", where=config_path, fix=nearest(column, names))
    for column in config.named_columns:
        if config.named_columns.count(column) > 1:
            raise ConfigError(f"the column {column!r} is named twice", where=config_path)
