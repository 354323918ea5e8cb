"""NIH ChestX-ray14: 112,120 frontal radiographs with 14 text-mined findings, some boxes and official lists."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.readers.folders import pictures, relative_name
from umif.readers.patients import parse_age, parse_sex
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split
    from umif.readers.tables import Row

NAMESPACE = "nih-chestxray14"
FRAME = (1024, 1024)  # of the boxes, whatever size a copy of the images has
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOXES = "BBox_List_2017.csv"
LISTS: dict[str, Split] = {"test_list.txt": "test", "train_val_list.txt": "train"}
NO_FINDING = "No Finding"
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
# Labels by radiologists for some images, as they are passed on in one table.
EXPERTS = "google2019_nih-chest-xray-labels.csv"
EXPERT_FINDINGS = ("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass")
_ANSWERS = {"YES": LabelState.PRESENT, "NO": LabelState.ABSENT}
# The box list spells one of them differently.
BOX_FINDINGS = (*FINDINGS, "Infiltrate")
_BOX_COLUMNS = ("Image Index", "Finding Label", "x", "y", "w", "h")
_FOLDER = re.compile(r"images(_\d{1,3})?")


def patient_key(number: str) -> str | None:
    """Return a patient number (`61`) or image name (`00000061_012.png`) as the eight digits that name images."""
    match = re.fullmatch(r"0*(\d{1,8})(_\d+\.\w+)?", number)
    return f"{int(match[1]):08d}" if match else None


@register("reader", "nih-chestxray14")
class NihChestxray14(Reader):
    """Reader of NIH ChestX-ray14.

    The labels are mined from reports: a finding that is not listed is not mentioned, which is no negative, so only
    listed ones are given. The official lists give the splits `test` and `train` (`train_val_list.txt`). Radiologists'
    labels, where their table is here, are present or absent; where they differ from the mined ones, they hold.
    """

    card: ClassVar[Card] = Card(
        title="NIH ChestX-ray14",
        licence="open; attribution to the NIH Clinical Center and a link to the data are asked for",
        citation="Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks, CVPR 2017",
        images=112_120,
        access="open",
        kinds=("class", "segment"),
        how_to_get="https://nihcc.app.box.com/v/ChestXray-NIHCC: the image archives and the tables beside them",
        layout=(
            "Data_Entry_2017_v2020.csv                  (or Data_Entry_2017.csv)\n"
            "BBox_List_2017.csv                         (optional)\n"
            "train_val_list.txt, test_list.txt          (optional, both or none)\n"
            "google2019_nih-chest-xray-labels.csv       (optional: four findings by radiologists)\n"
            "images/*.png or images_001/images/*.png … images_012/images/*.png"
        ),
        overlaps=(
            "rsna-pneumonia: all its images are NIH images",
            "SIIM-ACR pneumothorax: all its images are NIH images, no public map",
            "COVIDx test: 200 of its images come from RSNA, so from NIH",
            "the 880 images with boxes are in the official test list",
            "of the radiologists' labels the part `test` is in the official test list, the part `val` is not",
        ),
        excluded="images without a row in the table; rows whose file is missing",
        checked_on="images",
        checked_against="772 images of 537 patients, 39 boxes, both lists and radiologists' labels of 32",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image of the table that is on disk, by name."""
        table = self._table()
        rows = self._rows(table)
        boxes = self._boxes()
        experts = self._experts()
        splits = self._splits()
        on_disk = self._pictures()
        for name in sorted(rows.keys() | on_disk.keys()):
            row = rows.get(name)
            if row is None:
                self.exclude(name, f"no row in {table.name}")
            elif name not in on_disk:
                self.exclude(name, "image file is missing", row.where)
            else:
                findings = self._with_experts(_findings(row), experts.pop(name, {}))
                yield self._record(on_disk[name], row, findings, tuple(boxes.pop(name, ())), splits.get(name))
        if experts:
            self.note("radiologists' labels of an image that is not read", len(experts))
        if boxes:
            self.note("box of an image that is not read", sum(map(len, boxes.values())))

    def _table(self) -> Path:
        for name in TABLES[:-1]:
            if (self.root / name).exists():
                return self.root / name
        if not (self.root / TABLES[-1]).exists():
            self.require(TABLES[0])
        return self.root / TABLES[-1]

    def _rows(self, table: Path) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        required = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
        for row in read_table(table, required):
            name = relative_name(row["Image Index"])
            if name is None or "/" in name:
                self.exclude(f"{row.where} {row['Image Index']!a}", "path leaves the folder", row.where)
            elif name not in rows:
                rows[name] = row
            elif rows[name].cells == row.cells:
                self.note("repeated row, equal")
            else:
                raise row.error(f"{name!r} has another row with other values, at line {rows[name].line}")
        return rows

    def _boxes(self) -> dict[str, list[Region]]:
        boxes: dict[str, list[Region]] = defaultdict(list)
        path = self.root / BOXES
        if not path.exists():
            self.note(f"no {BOXES} here")
            return boxes
        # The header has nine cells (`Bbox [x`, `y`, `w`, `h]` and three empty ones), the rows have six.
        for row in read_table(path, _BOX_COLUMNS[:2], names=_BOX_COLUMNS):
            label = row["Finding Label"]
            if label not in BOX_FINDINGS:
                raise row.error(f"the finding {label!r} is none of the fourteen")
            x, y, width, height = (row.number(column) for column in "xywh")
            if width <= 0 or height <= 0:
                self.note("box without extent")
                continue
            boxes[row["Image Index"]].append(Region(label, "box", box=(x, y, width, height), frame=FRAME))
        return boxes

    def _experts(self) -> dict[str, dict[str, LabelState]]:
        """Return what radiologists saw, by image."""
        answers: dict[str, dict[str, LabelState]] = {}
        path = self.root / EXPERTS
        for row in read_table(path, ("Image Index", *EXPERT_FINDINGS)) if path.exists() else ():
            for name in EXPERT_FINDINGS:
                if row[name] not in _ANSWERS:
                    raise row.error(f"{name!r} is {row[name]!r:.40}", fix="expected YES or NO")
            states = {name: _ANSWERS[row[name]] for name in EXPERT_FINDINGS}
            known = answers.setdefault(row["Image Index"], states)
            if known != states:
                raise row.error(f"{row['Image Index']!r} has another row with other values")
            if known is not states:
                self.note("repeated row, equal")
        return answers

    def _with_experts(self, mined: tuple[Finding, ...], answers: dict[str, LabelState]) -> tuple[Finding, ...]:
        """Return mined findings and radiologists' labels as one list in which nothing has two states."""
        kept = []
        seen = LabelState.PRESENT in answers.values()
        for finding in mined:
            if finding.name == NO_FINDING and seen:
                self.note(f"{NO_FINDING!r} where radiologists saw something: left out")
            elif answers.get(finding.name, finding.state) != finding.state:
                self.note(f"mined {finding.name!r} that radiologists did not see: theirs holds")
            elif finding.name not in answers:
                kept.append(finding)
        return (*kept, *(Finding(name, state) for name, state in answers.items()))

    def _splits(self) -> dict[str, Split]:
        found = [name for name in LISTS if (self.root / name).exists()]
        if not found:
            self.note("no official lists here")
        elif len(found) == 1:
            missing = next(name for name in LISTS if name not in found)
            raise LayoutError(f"{found[0]!r} is here but {missing!r} is not", where=self.root, fix="put both, or none")
        splits: dict[str, Split] = {}
        for name in found:
            path = self.root / name
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise TableError(f"cannot be read as text: {error}", where=path) from None
            for number, line in enumerate(lines, start=1):
                image = line.strip()
                if image and splits.setdefault(image, LISTS[name]) != LISTS[name]:
                    raise TableError(f"{image!r} stands in both official lists", where=f"{path}:{number}")
        return splits

    def _pictures(self) -> dict[str, Path]:
        folders = sorted(p for p in self.root.iterdir() if p.is_dir() and _FOLDER.fullmatch(p.name))
        if not folders:
            self.require("images")
        found: dict[str, Path] = {}
        for folder in folders:
            for relative, path in pictures(self, folder):
                if found.setdefault(path.name, path) is not path:
                    self.exclude(relative, "the same file name is in another folder")
        return found

    def _record(
        self,
        path: Path,
        row: Row,
        findings: tuple[Finding, ...],
        regions: tuple[Region, ...],
        split: Split | None,
    ) -> Record:
        patient = patient_key(row["Patient ID"])
        if patient is None:
            raise row.error(f"the patient number is {row['Patient ID']!r}")
        return Record(
            image=path,
            image_id=path.name,
            patient=patient,
            patient_namespace=NAMESPACE,
            view=row["View Position"] or None,
            sex=parse_sex(self, row["Patient Gender"]),
            age_years=parse_age(self, row["Patient Age"]),
            split=split,
            findings=findings,
            regions=regions,
            where=row.where,
        )


def _findings(row: Row) -> tuple[Finding, ...]:
    names = list(dict.fromkeys(name.strip() for name in row["Finding Labels"].split("|")))
    for name in names:
        if name not in (*FINDINGS, NO_FINDING):
            raise row.error(f"the finding {name!r} is none of the fourteen")
    if NO_FINDING in names and len(names) > 1:
        raise row.error(f"{NO_FINDING!r} stands beside findings")
    return tuple(Finding(name, LabelState.PRESENT) for name in names)
