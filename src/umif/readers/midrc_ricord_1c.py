"""MIDRC-RICORD-1c: chest radiographs of COVID-19 patients; studies labelled by three readers and an adjudication."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.folders import pictures
from umif.readers.patients import parse_age, parse_sex
from umif.readers.rsna_pneumonia import read_dicom_header
from umif.readers.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COLLECTION = "MIDRC-RICORD-1C"
EXPORT = "1c_mdai_*annotations*.json"
# Of each, a study has one: beginnings of the labels' names. A grade is not given as absent, as another one is present.
APPEARANCE = ("typical", "indeterminate", "atypical", "negative")
GRADE = ("mild", "moderate", "severe")
ADJUDICATION = "adjud"  # in the name of the group that decides
VIEWS = ("AP", "PA")
_HEADER = ("PatientID", "StudyInstanceUID", "Modality", "ViewPosition", "PatientSex", "PatientAge")
_MODALITIES = ("CR", "DX", "")

_Votes = dict[str, set[str]]  # reader group → names of the labels that it gave a study


class _Export(NamedTuple):
    """What an MD.ai export holds: the names of all labels, the votes of each study, and the file's name."""

    names: tuple[str, ...]
    votes: dict[str, _Votes]
    where: str


@register("reader", "midrc-ricord-1c")
class MidrcRicord1c(Reader):
    """Reader of MIDRC-RICORD-1c: DICOM files, and the labels as MD.ai exports them.

    Six studies in ten have readers who disagree. Where the adjudication group has judged, its label holds; else the
    one that more than half of the reader groups gave; else each label that was given is uncertain. Of the four
    appearances those not chosen are absent. The patient is the header's `PatientID`, as in COVIDx's file names.
    """

    card: ClassVar[Card] = Card(
        title="MIDRC-RICORD-1c (COVID-19 chest radiographs)",
        licence="CC BY-NC 4.0",
        citation="Tsai et al., The RSNA International COVID-19 Open Radiology Database (RICORD), Radiology 2021",
        images=1_257,
        access="open",
        kinds=("class",),
        how_to_get="https://doi.org/10.7937/91ah-v663 (The Cancer Imaging Archive): the images by the NBIA retriever "
        "and the annotations (JSON)",
        layout=(
            "1c_mdai_rsna_project_…_annotations_labelgroup_all_….json\n"
            "MIDRC-RICORD-1C/MIDRC-RICORD-1C-<Anon MRN>/<date>-NA-<exam>-<digits>/<series>/*.dcm"
        ),
        overlaps=("COVIDx: 200 test and about 900 training images are from here, by patient",),
        excluded="views other than AP and PA; other modalities; files whose header cannot be read. The spreadsheet "
        "of clinical data and the table that the export was flattened to are not read",
        checked_on="layout",
        checked_against="the layout's description; a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per AP or PA image, by path."""
        export = self._export()
        folder = self.root / COLLECTION
        met: set[str] = set()
        for relative, path in pictures(self, folder if folder.is_dir() else self.root):
            header = read_dicom_header(path, _HEADER)
            if header is None or not header["StudyInstanceUID"]:
                self.exclude(relative, "DICOM header cannot be read")
                continue
            met.add(header["StudyInstanceUID"])
            if header["Modality"] not in _MODALITIES:
                self.exclude(relative, f"modality is {header['Modality']}")
            elif header["ViewPosition"] not in VIEWS:
                self.exclude(relative, "view is neither AP nor PA")
            else:
                yield self._record(relative, path, header, export)
        if not met:
            self.require(COLLECTION)
        if lost := export.votes.keys() - met:
            self.note("labelled study without images", len(lost))

    def _export(self) -> _Export:
        exports = sorted(self.root.glob(EXPORT))
        if not exports:
            self.require(EXPORT)
        if len(exports) > 1:
            self.note("earlier export of the labels beside the one that is read", len(exports) - 1)
        return _read_export(exports[-1])  # `…_v3.json` sorts after `….json`

    def _record(self, relative: str, path: Path, header: dict[str, str], export: _Export) -> Record:
        folder = next(
            (part for part in path.relative_to(self.root).parts if part.upper().startswith(f"{COLLECTION}-")), ""
        )
        patient = header["PatientID"] or folder
        if folder and patient != folder:
            what = f"PatientID is {patient!r} in the folder {folder!r}"
            raise LayoutError(what, where=path, fix="expected one folder a patient, named by its PatientID")
        votes = export.votes.get(header["StudyInstanceUID"])
        if votes is None:
            self.note("image of a study without labels")
        return Record(
            image=path,
            image_id=relative,
            patient=patient or None,
            study=header["StudyInstanceUID"],
            view=header["ViewPosition"],
            sex=parse_sex(self, header["PatientSex"]),
            age_years=parse_age(self, header["PatientAge"]),
            findings=self._findings(export.names, votes or {}),
            where=export.where if votes else relative,
        )

    def _findings(self, names: Sequence[str], votes: _Votes) -> tuple[Finding, ...]:
        findings: list[Finding] = []
        for family in (APPEARANCE, GRADE):
            known = [name for name in names if name.lower().startswith(family)]
            states = self._decide(votes, known)
            if states and family == APPEARANCE:
                states = {name: states.get(name, LabelState.ABSENT) for name in known}
            findings += [Finding(name, states[name]) for name in known if name in states]
        for name in names:  # whatever else was noted of a study
            if not name.lower().startswith(APPEARANCE + GRADE):
                given = sum(name in labels for labels in votes.values())
                if given:
                    most = 2 * given > len(votes)
                    findings.append(Finding(name, LabelState.PRESENT if most else LabelState.UNCERTAIN))
        return tuple(findings)

    def _decide(self, votes: _Votes, family: Sequence[str]) -> dict[str, LabelState]:
        """Return the label that was decided on, or all that were given, as uncertain; empty if there is no vote."""
        given = {group: labels.intersection(family) for group, labels in votes.items()}
        for group, labels in given.items():
            if len(labels) > 1:
                self.note(f"group {group} gave one study two labels that exclude each other: not counted")
        single = {group: next(iter(labels)) for group, labels in given.items() if len(labels) == 1}
        decided = {label for group, label in single.items() if ADJUDICATION in group.lower()}
        if len(decided) != 1:
            counts = Counter(label for group, label in single.items() if ADJUDICATION not in group.lower())
            decided = {label for label, count in counts.items() if 2 * count > counts.total()}
            if not decided:
                return dict.fromkeys(counts, LabelState.UNCERTAIN)
        return dict.fromkeys(decided, LabelState.PRESENT)


def _read_export(path: Path) -> _Export:
    """Return what an MD.ai export says of each study.

    Names that differ in capitals only are one label. Whose vote it is, is told by the group that the label is of.

    Raises:
        TableError: it is no such export, or lacks one of the four appearances.
    """
    data = read_json(path)
    groups = _entries(data, "labelGroups", path)
    names: dict[str, str] = {}
    labels: dict[str, tuple[str, str]] = {}
    for number, group in enumerate(groups):
        title = str(group.get("name") or number)
        for label in _entries(group, "labels", path):
            key, name = label.get("id"), label.get("name")
            if not isinstance(key, str) or not isinstance(name, str) or not name.strip():
                raise TableError("has a label without id or name", where=path)
            labels[key] = (title, names.setdefault(name.strip().lower(), name.strip()))
    missing = [begin for begin in APPEARANCE if not any(name.startswith(begin) for name in names)]
    if missing:
        fix = f"expected names that begin with {', '.join(begin.capitalize() for begin in APPEARANCE)}"
        raise TableError(f"has no label {missing[0].capitalize()!r}", where=path, fix=fix)
    return _Export(tuple(dict.fromkeys(names.values())), _read_votes(data, labels, path), path.name)


def _read_votes(data: Any, labels: dict[str, tuple[str, str]], path: Path) -> dict[str, _Votes]:
    votes: dict[str, _Votes] = defaultdict(lambda: defaultdict(set))
    for dataset in _entries(data, "datasets", path):
        for number, annotation in enumerate(_entries(dataset, "annotations", path)):
            study, key = annotation.get("StudyInstanceUID"), annotation.get("labelId")
            if not isinstance(study, str) or not study or not isinstance(key, str):
                raise TableError("has no StudyInstanceUID or labelId", where=f"{path}: annotation {number}")
            if key not in labels:
                raise TableError(f"the label {key!r:.40} is in no group", where=f"{path}: annotation {number}")
            group, name = labels[key]
            votes[study][group].add(name)
    return votes


def _entries(data: Any, key: str, path: Path) -> list[dict[str, Any]]:
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TableError(f"has no list {key!r}", where=path, fix="expected the JSON that MD.ai exports")
    return entries
